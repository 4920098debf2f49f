"""Sessions, tables, splits and TFDS examples: every value, and every kind of bad input."""

import dataclasses
import gzip
import itertools
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_disrnn.data import (
    Columns,
    Sessions,
    read_table,
    sessions_from_table,
    sessions_from_tfds,
    split_by_column,
    split_by_id,
    split_by_session,
    split_by_subject,
    summary,
)

NAN = np.nan
ALL_COLUMNS = Columns(
    dopamine="dlight", forced="forced", missed="missed", trial="trial", observations=("side",)
)
DLIGHT = Columns(
    session="session_id",
    choice="choice_right",
    dopamine="dlight_response",
    forced="forced_choice",
    trial="trial",
)


def small_table():
    """Make two sessions. In m1-a a forced, a missed and an unrecorded trial follow each other."""
    return pd.DataFrame(
        {
            "subject": ["m1"] * 4 + ["m2"] * 2,
            "session": ["m1-a"] * 4 + ["m2-a"] * 2,
            "trial": [1, 2, 3, 5, 1, 2],
            "choice": [1, 0, NAN, 1, 0, 1],
            "reward": [1, 0, NAN, 1, 1, 0],
            "dlight": [0.5, -1.0, 9.0, NAN, 2.0, 3.0],
            "forced": [True, False, False, False, False, False],
            "missed": [False, False, True, False, False, False],
            "side": [0.1, 0.2, NAN, 0.4, 0.5, 0.6],
        }
    )


def plain_table(**columns):
    """Make two sessions of three trials. The given columns replace or extend the usual ones."""
    table = {
        "subject": ["m1"] * 6,
        "session": ["a"] * 3 + ["b"] * 3,
        "choice": [0, 1, 1, 0, 0, 1],
        "reward": [1, 0, 1, 0, 1, 1],
    }
    return pd.DataFrame({**table, **columns})


def many_sessions(count=10, trials=4):
    """Make sessions. Every reward of a session is its number."""
    return Sessions.from_trials(
        choice=np.arange(count * trials).reshape(count, trials) % 2,
        reward=np.repeat(np.arange(count), trials).reshape(count, trials),
        dopamine=np.ones((count, trials)),
        subjects=[f"m{i // 3}" for i in range(count)],
        ids=[f"s{i}" for i in range(count)],
        reward_kind="real",
    )


def batch_ids(dataset):
    """Return the session numbers in each batch of `many_sessions`."""
    return [x[:, 1, 1].numpy().astype(int).tolist() for x, _, _ in dataset]


# === Time steps ===


def test_every_value_of_a_small_table():
    sessions = sessions_from_table(small_table(), ALL_COLUMNS)

    gone = [NAN, NAN, NAN]
    features = [
        [[0, 0, 0], [1, 1, 0.1], [0, 0, 0.2], gone, [1, 1, 0.4]],
        [[0, 0, 0], [0, 1, 0.5], [1, 0, 0.6], gone, gone],
    ]
    np.testing.assert_array_equal(sessions.features, np.float32(features))
    np.testing.assert_array_equal(sessions.choice, [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(sessions.choice_weight, [[0, 1, 0, 1, 0], [1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(sessions.dopamine[..., 0], [[0, 0.5, -1, 0, 0], [0, 2, 3, 0, 0]])
    np.testing.assert_array_equal(
        sessions.dopamine_weight[..., 0], [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0]]
    )
    np.testing.assert_array_equal(sessions.row_mask, [[1, 1, 1, 0, 1], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(sessions.trials_per_session, [4, 2])
    np.testing.assert_array_equal(np.concatenate(sessions.rows), np.arange(6))
    assert [len(rows) for rows in sessions.rows] == [4, 2]
    assert sessions.ids == ("m1-a", "m2-a")
    assert sessions.subjects == ("m1", "m2")
    assert sessions.observation_names == ("choice", "reward", "side")
    assert sessions.signal_names == ("dlight",)
    assert (sessions.num_arms, sessions.num_observations, sessions.num_signals) == (2, 3, 1)
    assert (sessions.num_sessions, sessions.num_trials) == (2, 6)
    for name in ("features", "choice_weight", "dopamine", "dopamine_weight"):
        assert getattr(sessions, name).dtype == np.float32
    assert sessions.choice.dtype == np.int32


def test_from_trials_agrees_with_the_table():
    table = small_table()
    by_session = [part for _, part in table.groupby("session")]
    made = Sessions.from_trials(
        choice=[part.choice for part in by_session],
        reward=[part.reward for part in by_session],
        dopamine=[part.dlight for part in by_session],
        forced=[part.forced for part in by_session],
        missed=[part.missed for part in by_session],
        observations=[part.side for part in by_session],
        subjects=["m1", "m2"],
        ids=["m1-a", "m2-a"],
        observation_names=["side"],
        signal_names=["dlight"],
    )
    read = sessions_from_table(table, ALL_COLUMNS)
    for field in dataclasses.fields(Sessions):
        if field.name not in ("rows", "source"):
            np.testing.assert_array_equal(getattr(made, field.name), getattr(read, field.name))
    assert made.rows is None


def test_trials_after_the_last_choice_are_not_lost():
    sessions = Sessions.from_trials(
        [[0, 1, NAN], [1, 0, 1]], [[1, 1, NAN], [0, 0, 1]], missed=[[0, 0, 1], [0, 0, 0]]
    )
    np.testing.assert_array_equal(sessions.trials_per_session, [3, 3])
    np.testing.assert_array_equal(sessions.row_mask, [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_trials_per_session_are_counted_from_the_padding():
    sessions = sessions_from_table(small_table(), ALL_COLUMNS)
    again = dataclasses.replace(sessions, trials_per_session=None)
    np.testing.assert_array_equal(again.trials_per_session, [4, 2])


def test_other_cells_of_a_missed_trial_are_ignored():
    table = plain_table(choice=["0", "1", "omission", "0", "0", "1"], reward=[1, 0, 7, 0, 1, 1])
    table["missed"] = [False, False, True, False, False, False]
    sessions = sessions_from_table(table, Columns(missed="missed"))
    assert np.isnan(sessions.features[0, 3]).all()
    assert sessions.choice_weight.sum() == 5


def test_several_signals_arms_and_real_rewards():
    table = plain_table(choice=[0, 1, 2, 0, 0, 1], reward=[0.5, -1, 2, 0, 0, 0])
    table["left"], table["right"] = np.arange(6.0), [NAN, 1, 2, 3, 4, 5]
    sessions = sessions_from_table(table, Columns(dopamine=["left", "right"]), reward_kind="real")
    assert sessions.num_arms == 3
    assert sessions.signal_names == ("left", "right")
    np.testing.assert_array_equal(sessions.dopamine[0, 1:], [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_array_equal(sessions.dopamine_weight[0, 1:], [[1, 0], [1, 1], [1, 1]])
    np.testing.assert_array_equal(sessions.features[0, 1:, 1], [0.5, -1, 2])
    assert sessions_from_table(plain_table(), num_arms=4).num_arms == 4


def test_a_table_without_a_subject_column_is_read():
    table = plain_table().drop(columns="subject")
    assert sessions_from_table(table, Columns(subject=None)).subjects == ("unnamed", "unnamed")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("choice", pd.array([0, 1, 1, 0, 0, 1], dtype="Int64")),
        ("choice", pd.Categorical(["0", "1", "1", "0", "0", "1"])),
        ("choice", [False, True, True, False, False, True]),
        ("choice", pd.array(["0", "1", "1", "0", "0", "1"], dtype="str")),
        ("reward", pd.array([True, False, True, False, True, True], dtype="boolean")),
        ("reward", np.array([1, 0, 1, 0, 1, 1], object)),
        ("subject", pd.Categorical(["m1"] * 6)),
        ("session", pd.Categorical(["a"] * 3 + ["b"] * 3, categories=["b", "c", "a"])),
        ("session", np.array(["a"] * 3 + ["b"] * 3, object)),
        ("forced", pd.array([False] * 6, dtype="boolean")),
        ("forced", [0] * 6),
        ("forced", [0.0] * 6),
        ("forced", ["FALSE"] * 6),
        ("forced", pd.Categorical([False] * 6)),
    ],
)
def test_dtypes_make_no_difference(column, values):
    expected = sessions_from_table(plain_table())
    columns = Columns(forced="forced") if column == "forced" else Columns()
    sessions = sessions_from_table(plain_table(**{column: values}), columns)
    assert (sessions.ids, sessions.subjects) == (expected.ids, expected.subjects)
    for name in ("features", "choice", "choice_weight"):
        np.testing.assert_array_equal(getattr(sessions, name), getattr(expected, name))


def test_empty_nullable_choices_are_missed():
    table = plain_table(choice=pd.array([0, pd.NA, 1, 0, 0, 1], dtype="Int64"), missed=[0] * 6)
    table["reward"] = ["1", "none", "1", "0", "1", "1"]
    sessions = sessions_from_table(table, Columns(missed="missed"))
    np.testing.assert_array_equal(sessions.choice_weight[0], [1, 0, 1, 0])
    np.testing.assert_array_equal(sessions.row_mask[0], [1, 1, 0, 1])


# === Real recordings ===


def test_the_dlight_trials_are_read(shared):
    path = shared / "data" / "dlight_bandit" / "trials.csv.gz"
    table = pd.read_csv(path)
    sessions = sessions_from_table(path, DLIGHT)
    assert (sessions.num_sessions, sessions.num_trials) == (27, len(table))
    assert sessions.num_trials - sessions.choice_weight.sum() == table.forced_choice.sum() == 2422
    assert sessions.dopamine_weight.sum() == len(table)
    assert sessions.features.shape[1] == table.groupby("session_id").size().max() + 1
    for index, rows in enumerate(sessions.rows):
        part, trials = table.iloc[rows], len(rows)
        assert (part.session_id == sessions.ids[index]).all()
        assert (part.subject == sessions.subjects[index]).all()
        described = sessions.features[index, 1 : trials + 1]
        np.testing.assert_array_equal(described, part[["choice_right", "reward"]])
        np.testing.assert_array_equal(
            sessions.dopamine[index, 1 : trials + 1, 0], np.float32(part.dlight_response)
        )
        free = ~part.forced_choice.to_numpy()
        np.testing.assert_array_equal(sessions.choice_weight[index, :trials], free)
        np.testing.assert_array_equal(
            sessions.choice[index, :trials][free], part.choice_right[free]
        )
    train, held_out = split_by_column(sessions, table["day"], [2])
    assert (train.num_sessions, held_out.num_sessions) == (18, 9)
    assert held_out.num_trials == (table.day == 2).sum()
    counted = summary(sessions)
    assert counted.loc["(all)", "forced"] == 2422
    expected = table.groupby("subject").dlight_response.agg(["mean", "std"])
    np.testing.assert_allclose(
        counted.iloc[:-1][["dlight_response_mean", "dlight_response_sd"]], expected, rtol=1e-5
    )


def test_the_mouse_bandit_is_read(shared):
    table = pd.read_csv(shared / "data" / "mouse_bandit" / "trials.csv.gz")
    columns = Columns(subject="mouse", session="date", choice="right", trial="trial")
    # Mice share dates, so dates are not session ids. The error says what to do.
    with pytest.raises(ValueError, match=r"expected one subject in a session.*table\['mouse"):
        sessions_from_table(table, columns)
    table["date"] = table["mouse"].astype(str) + " " + table["date"].astype(str)
    sessions = sessions_from_table(table, columns)
    assert (sessions.num_sessions, sessions.num_trials) == (255, len(table))
    assert sessions.choice_weight.sum() == len(table)
    assert sessions.num_signals == 0
    counted = summary(sessions)
    assert counted.loc["(all)", "reward_rate"] == pytest.approx(table.reward.mean())
    assert counted.loc["(all)", "choice_1"] == pytest.approx(table.right.mean())


def test_matching_pennies_are_read(shared):
    # The array has shape (trials, sessions, 3). The first two values are of the trial before.
    data = np.load(shared / "data" / "matching_pennies" / "mp_beh_m18_500completed.npy")
    choice, reward = data[:-1, :, 2].T, data[1:, :, 1].T
    np.testing.assert_array_equal(data[1:, :, 0].T, choice)
    sessions = Sessions.from_trials(choice, reward)
    assert (sessions.num_sessions, sessions.num_trials) == (84, 84 * 499)
    np.testing.assert_array_equal(sessions.features[:, 1:, 0], choice)
    np.testing.assert_array_equal(sessions.choice[:, :-1], choice)
    np.testing.assert_array_equal(sessions.features[:, 1:, 1], reward)


# === Files ===


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "htsv", "htsv.gz", "parquet"])
def test_every_format_gives_the_same_sessions(tmp_path, ending):
    path = tmp_path / f"a.trials.{ending}"
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        small_table().to_parquet(path)
    else:
        small_table().to_csv(path, index=False, sep="," if ending.startswith("csv") else "\t")
    pd.testing.assert_frame_equal(read_table(path), small_table(), check_dtype=False)
    assert sessions_from_table(str(path), ALL_COLUMNS).num_trials == 6


def test_byte_order_marks_and_quotes_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffsubject,note\nm1,"two\nlines, and a comma"\n', encoding="utf-8")
    table = read_table(path)
    assert list(table.columns) == ["subject", "note"]
    assert table.note[0] == "two\nlines, and a comma"


def file_of(name, data):
    def write(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return write


CSV = small_table().to_csv(index=False).encode()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda f: f / "absent.csv",
            FileNotFoundError,
            "absent.csv: expected a file, got no such file$",
        ),
        (
            lambda f: file_of("trials.csv", CSV)(f).with_name("trails.csv"),
            FileNotFoundError,
            "no such file; did you mean 'trials.csv'",
        ),
        (lambda f: f, ValueError, "got a folder"),
        (file_of("a.xlsx", b"PK"), ValueError, r"\.parquet\), got a name ending in '.xlsx'"),
        (file_of("trials", CSV), ValueError, "got a name ending in 'nothing'"),
        (file_of("a.csv", b""), ValueError, "a.csv: .* got an empty file"),
        (file_of("a.csv.gz", b""), ValueError, "got an empty file"),
        (file_of("a.csv", b"\n\n"), ValueError, "got an empty file"),
        (file_of("a.csv", b"subject,session\n"), ValueError, "below the column names, got none"),
        (file_of("a.csv.gz", gzip.compress(CSV)[:60]), ValueError, "gzip file, .* cut short"),
        (file_of("a.csv.gz", CSV), ValueError, "expected a whole gzip file"),
        (file_of("a.csv", gzip.compress(CSV)), ValueError, "UTF-8 text, got binary data"),
        (file_of("a.csv", CSV.decode().encode("utf-16")), ValueError, "another encoding"),
        (file_of("a.csv", b"s\xe9ance,x\n1,2\n"), ValueError, "another encoding"),
        (file_of("a.csv", CSV[:-20]), ValueError, "expected 9 cells .* got 6 in the last row"),
        (
            file_of("a.csv", b"a,b\n1,2\n1,2,3,4\n1,2\n"),
            ValueError,
            "expected 2 cells.* got 4 in line 3",
        ),
        (file_of("a.csv", b"a,b,a\n1,2,3\n"), ValueError, r"unique column names, got \['a'\]"),
        (file_of("a.parquet", b"PAR1 nothing"), ValueError, "expected a parquet file"),
    ],
)
def test_bad_files_are_refused(tmp_path, make, error, message):
    if "parquet file" in message:
        pytest.importorskip("pyarrow")
    with pytest.raises(error, match=message):
        read_table(make(tmp_path))


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "mine.csv"
    plain_table(reward=[1, 0, 2, 0, 0, 0]).to_csv(path, index=False)
    with pytest.raises(
        ValueError, match=r"mine.csv: column 'reward' .*: expected .* got 2 in row 2 .session 'a'"
    ):
        sessions_from_table(path)


# === Bad tables ===


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        (
            {},
            Columns(choice="Choise"),
            "Columns.choice: expected a column 'Choise', got .* mean 'choice'",
        ),
        ({}, Columns(dopamine="dlight"), "Columns.dopamine: expected a column 'dlight'"),
        (
            {"choice": [0, 1, 1, 0, -1, 1]},
            Columns(),
            "^table: column 'choice' .choice.: expected a whole number.* got -1 in row 4 "
            ".session 'b'.; if no choice",
        ),
        ({"choice": [0, 1, 0.5, 0, 0, 1]}, Columns(), "whole number.* got 0.5 in row 2"),
        ({"choice": [0, np.inf, 1, 0, 0, 1]}, Columns(), "whole number.* got inf in row 1"),
        ({"choice": [1, 2, 2, 1, 1, 2]}, Columns(), "without gaps, got only 1, 2; .* num_arms=3"),
        (
            {"choice": ["left", "right", "left", "left", "left", "right"]},
            Columns(),
            "expected numbers, got 'left' in row 0; recode .*map..'left': 0, 'right': 1",
        ),
        ({"choice": pd.date_range("2024", periods=6)}, Columns(), "'choice'.* expected numbers"),
        ({"choice": [0, NAN, 1, 0, 0, 1]}, Columns(), "in row 1.*name a column for missed"),
        (
            {"reward": [1, 0, NAN, 0, 1, NAN]},
            Columns(),
            "finite number, got nan in row 2.* and in 1 more",
        ),
        ({"reward": [1, 0, np.inf, 0, 1, 1]}, Columns(), "finite number, got inf in row 2"),
        ({"reward": [1, 0, 1e39, 0, 1, 1]}, Columns(), "finite number, got 1e.39 in row 2"),
        ({"reward": [1, 0, 0.5, 0, 1, 1]}, Columns(), "0 or 1 .* got 0.5 in row 2.*'real'"),
        ({"reward": list("abcdef")}, Columns(), "'reward'.* expected numbers, got 'a' in row 0"),
        (
            {"miss": [1, 1, 1, 0, 0, 0]},
            Columns(missed="miss"),
            "expected a choice in every session, got session 'a' with 3 trials, all missed",
        ),
        ({"forced": [True] * 6}, Columns(forced="forced"), "6 are forced and 0 missed"),
        ({"forced": [0, 1, 2, 0, 0, 0]}, Columns(forced="forced"), "'forced'.* got 2 in row 2"),
        ({"forced": list("nnynnn")}, Columns(forced="forced"), "True or False.* got 'n' in row 0"),
        (
            {"forced": np.array([True, None, False] * 2, object)},
            Columns(forced="forced"),
            "True or False.* got an empty cell in row 1",
        ),
        (
            {"session": list("aababb")},
            Columns(),
            "together, got session 'a' again in row 3, after rows of session 'b'; sort",
        ),
        (
            {"n": [1, 3, 2, 1, 2, 3]},
            Columns(trial="n"),
            "column 'n' .*: expected numbers that rise .* got 2 after 3 in row 2 .session 'a'.",
        ),
        ({"n": [1, 1, 2, 1, 2, 3]}, Columns(trial="n"), "that rise.* got 1 after 1 in row 1.*sort"),
        (
            {"n": [1, NAN, 2, 1, 2, 3]},
            Columns(trial="n"),
            "'n' .*: expected a finite number, got nan in row",
        ),
        (
            {"subject": ["m1", "m1", "m2", "m1", "m1", "m1"]},
            Columns(),
            "one subject in a session, got 'm1' and, in row 2, 'm2' in session 'a'",
        ),
        (
            {"session": ["a", None, "a", "b", "b", "b"]},
            Columns(),
            "'session'.* empty cell in row 1",
        ),
        (
            {"subject": ["m1", " "] * 3},
            Columns(),
            "'subject'.* expected a value in every row, got ' ' in row",
        ),
        ({"d": [NAN] * 6}, Columns(dopamine="d"), "'d' .dopamine.: expected a value .* all 6"),
        (
            {"d": [1, NAN, -np.inf, 1, 1, 1]},
            Columns(dopamine="d"),
            "'d' .dopamine.: expected a finite number, or NaN .*, got -inf in row 2",
        ),
        ({"d": list("abcdef")}, Columns(dopamine="d"), "'d' .dopamine.: expected numbers"),
        (
            {"o": [1, 2, NAN, 3, 4, 5]},
            Columns(observations=["o"]),
            "'o' .observation.: expected a finite number, got nan in row 2",
        ),
    ],
)
def test_bad_tables_are_refused(changes, columns, message):
    with pytest.raises(ValueError, match=message):
        sessions_from_table(plain_table(**changes), columns)


def test_bad_arguments_of_the_reader_are_refused():
    with pytest.raises(ValueError, match=r"from 0 to 1 \(num_arms=2\), got 2 in row 2"):
        sessions_from_table(plain_table(choice=[0, 1, 2, 0, 0, 1]), num_arms=2)
    for arms in (1, 2.0, True, "2"):
        with pytest.raises(ValueError, match="arms: expected a whole number of at least 2, got"):
            sessions_from_table(plain_table(), num_arms=arms)
    with pytest.raises(ValueError, match=r"reward_kind: expected one of .* got 'amount'"):
        sessions_from_table(plain_table(), reward_kind="amount")
    with pytest.raises(ValueError, match="columns: expected a Columns, got"):
        sessions_from_table(plain_table(), {"choice": "choice"})
    with pytest.raises(ValueError, match="table without rows"):
        sessions_from_table(plain_table().iloc[:0])
    twice = plain_table()
    twice.columns = ["subject", "session", "choice", "choice"]
    with pytest.raises(ValueError, match=r"unique column names, got \['choice'\]"):
        sessions_from_table(twice)
    with pytest.raises(
        ValueError, match="a single column can mean that the file has another separator"
    ):
        sessions_from_table(pd.DataFrame({"subject;session": ["m1;a"]}))


def test_a_column_has_only_one_role():
    with pytest.raises(
        ValueError, match="expected one role per column, got 'reward' as both reward and dopamine"
    ):
        Columns(dopamine=["d", "reward"])
    with pytest.raises(ValueError, match="as both session and subject; pass subject=None"):
        Columns(subject="mouse", session="mouse")
    with pytest.raises(
        ValueError, match=r"Columns.choice: expected the name of a column, got None"
    ):
        Columns(choice=None)
    assert Columns(observations="side").observation_names == ("side",)


# === Bad trials and bad sessions ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choice": [], "reward": []}, "at least one session, got none"),
        ({"reward": [[1, 0, 1]]}, "reward: expected one entry per session, 2 as in choice, got 1"),
        (
            {"reward": [[1, 0], [1]]},
            "reward: expected 3 trials, as in choice, got 2 in session 'a'",
        ),
        ({"choice": [[0, 1, 1], []]}, "choice: expected at least 1 trial, got none in session 'b'"),
        ({"choice": [["l", "r", "r"], [1]]}, "choice: expected numbers, got .* in session 'a'"),
        ({"choice": [[[0, 1, 1]], [[1]]]}, r"choice: expected shape \(trials,\) .* \(1, 3\)"),
        (
            {"ids": ["a", "a"]},
            "unique session ids, also across subjects, got 'a' 2 times .subjects 'm1', 'm2'",
        ),
        ({"choice": [[0, 1, NAN], [1]]}, "got nan in trial 2 of session 'a'; .* pass missed"),
        ({"choice": [[0, 1, 1], [-1]]}, "^choice: expected .* got -1 in trial 0 of session 'b'"),
        ({"forced": [[0, 2, 0], [0]]}, "forced: expected True or False, got 2.0 in session 'a'"),
        ({"missed": [[0, 0, 0], [3]]}, "missed: expected True or False, got 3.0 in session 'b'"),
        ({"signal_names": ["d"]}, r"signal_names: expected 0 names, got \('d',\)"),
        (
            {"dopamine": [[[1, NAN]] * 3, [[1, NAN]]], "signal_names": ["x", "y"]},
            "dopamine 'y': expected a value in some trial",
        ),
        ({"dopamine": [[[1, 2]] * 3, [[1]]]}, r"as many columns in every session, got \[1, 2\]"),
        (
            {"observations": [[1, 2, 3], [4]], "observation_names": ["reward"]},
            "observation_names: expected unique names, got 'reward'",
        ),
    ],
)
def test_bad_trials_are_refused(arguments, message):
    given = {"choice": [[0, 1, 1], [1]], "reward": [[1, 0, 1], [0]]}
    given |= {"subjects": ["m1", "m2"], "ids": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        Sessions.from_trials(**{**given, **arguments})


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"features": s.features[0]}, "features: expected shape .* got"),
        (lambda s: {"features": s.features[:0]}, "at least one session"),
        (
            lambda s: {"features": s.features.astype(float)},
            "features: expected a NumPy array of float32 .* got float64",
        ),
        (lambda s: {"choice": s.choice.tolist()}, "choice: expected a NumPy array .* got list"),
        (
            lambda s: {"choice": s.choice[:, 1:]},
            r"choice: expected .* got int32 with shape \(2, 4\)",
        ),
        (lambda s: {"signal_names": ()}, r"dopamine: expected .* 0 signals.*, got .* \(2, 5, 1\)"),
        (lambda s: {"ids": ["a", "b"]}, "ids: expected a tuple of 2 strings"),
        (lambda s: {"subjects": ("m1", 2)}, "subjects: expected a tuple of 2 strings"),
        (
            lambda s: {"observation_names": ("reward", "choice", "side")},
            "names that start with 'choice'",
        ),
        (lambda s: {"ids": ("a", "a")}, "ids: expected unique session ids"),
        (lambda s: {"num_arms": 1}, "num_arms: expected a whole number of at least 2"),
        (
            lambda s: {"features": changed(s.features, (1, 2, 0), NAN)},
            "NaN in every observation .* or in none.* time step 2 of session 'm2-a'",
        ),
        (
            lambda s: {"features": changed(s.features, (0, 1, 1), np.inf)},
            "finite numbers, got inf for 'reward' in time step 1 of session 'm1-a'",
        ),
        (
            lambda s: {"choice": changed(s.choice, (0, 1), 2)},
            "from 0 to 1 .2 arms., got 2 in time step 1",
        ),
        (
            lambda s: {"dopamine": changed(s.dopamine, (0, 4, 0), NAN)},
            "dopamine: expected finite numbers",
        ),
        (
            lambda s: {"choice_weight": changed(s.choice_weight, (0, 1), -1)},
            "choice_weight: expected finite numbers of at least 0",
        ),
        (
            lambda s: {"choice_weight": changed(s.choice_weight, (1, 2), 1)},
            "choice_weight: expected 0 past the last trial.* session 'm2-a', which has 2 trials",
        ),
        (
            lambda s: {"dopamine_weight": changed(s.dopamine_weight, (1, 3), 1)},
            "dopamine_weight: expected 0 past the last trial",
        ),
        (
            lambda s: {"trials_per_session": np.array([3, 2])},
            "features: expected NaN past the last",
        ),
        (lambda s: {"trials_per_session": np.array([5, 2])}, "counts from 1 to 4"),
        (
            lambda s: {"trials_per_session": [4, 2]},
            "trials_per_session: expected an array of integers",
        ),
        (
            lambda s: {"rows": (np.arange(4), np.arange(3))},
            r"rows: expected one table position .* \[4, 2\], got \[4, 3\]",
        ),
        (
            lambda s: {"latents": np.zeros((2, 4, 3))},
            r"latents: expected .* shape \(2, 5, latents\)",
        ),
    ],
)
def test_broken_invariants_are_refused(change, message):
    sessions = sessions_from_table(small_table(), ALL_COLUMNS)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(sessions, **change(sessions))


# === Parts ===


def test_a_subset_has_the_selected_sessions():
    sessions = sessions_from_table(small_table(), ALL_COLUMNS)
    for indices in ([1], np.array([False, True]), slice(1, 2), [-1]):
        part = sessions.subset(indices)
        assert (part.ids, part.subjects) == (("m2-a",), ("m2",))
        np.testing.assert_array_equal(part.features, sessions.features[1:])
        np.testing.assert_array_equal(part.dopamine, sessions.dopamine[1:])
        np.testing.assert_array_equal(part.rows[0], [4, 5])
        np.testing.assert_array_equal(part.trials_per_session, [2])
    for indices, message in (
        ([], "a list of at least one session"),
        (0, "a list of at least one session, got"),
        ([2], "positions in 2 sessions"),
        ([0, 0], "'m1-a' 2 times"),
        ([0.5], "positions in 2 sessions"),
    ):
        with pytest.raises(ValueError, match=message):
            sessions.subset(indices)


def test_sessions_have_a_length_and_an_index():
    sessions = many_sessions()
    assert len(sessions) == 10
    assert sessions[3].ids == sessions["s3"].ids == sessions[-7].ids == ("s3",)
    assert sessions[np.int64(3)].ids == ("s3",)
    assert sessions[2:5].ids == ("s2", "s3", "s4")
    assert sessions[[4, 1]].ids == ("s4", "s1")
    assert sessions[np.arange(10) > 7].ids == ("s8", "s9")
    assert [part.ids[0] for part in sessions] == list(sessions.ids)
    assert "s3" in sessions and "s33" not in sessions
    np.testing.assert_array_equal(sessions["s3"].features[0], sessions.features[3])
    for key, error, message in (
        ("s33", KeyError, "expected the id of a session, got 's33'.*did you mean 's3'"),
        (10, IndexError, "expected a position below 10, got 10"),
        (-11, IndexError, "expected a position below 10, got -11"),
        (1.0, TypeError, "expected a position, an id, a slice or an array .* got 1.0"),
        (True, TypeError, "expected a position, an id, a slice or an array .* got True"),
        ([10], ValueError, "positions in 10 sessions"),
    ):
        with pytest.raises(error, match=message):
            sessions[key]


def test_sessions_have_a_short_representation():
    sessions = sessions_from_table(small_table(), ALL_COLUMNS)
    assert repr(sessions) == (
        "<Sessions: 2 subjects, 2 sessions, 6 trials (4 free choices, 1 forced, 1 missed), "
        "4 values of dlight>"
    )
    shown = dataclasses.replace(sessions, signal_names=("<d>",))._repr_html_()
    assert "<th>forced</th><td>1</td>" in shown
    assert "<th>values of &lt;d&gt;</th><td>4</td>" in shown


def test_reading_tables_does_not_import_tensorflow(tmp_path):
    plain_table().to_csv(tmp_path / "a.csv", index=False)
    code = (
        "import sys, keras_disrnn.data as data\n"
        f"sessions = data.sessions_from_table({str(tmp_path / 'a.csv')!r})\n"
        "data.summary(sessions)\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_part_may_have_no_target():
    sessions = Sessions.from_trials([[0, 1], [1, 0]], [[0, 1], [1, 0]], forced=[[1, 1], [0, 0]])
    assert sessions.subset([0]).choice_weight.sum() == 0


def test_splits_hold_out_the_right_sessions():
    sessions = many_sessions()
    train, held_out = split_by_session(sessions, 3)
    assert held_out.ids == ("s1", "s4", "s7")
    assert train.ids == ("s0", "s2", "s3", "s5", "s6", "s8", "s9")
    # Subjects m0 to m2 have three sessions, m3 has one.
    train, held_out = split_by_session(sessions, 2, offset=0, within_subject=True)
    assert held_out.ids == ("s0", "s2", "s3", "s5", "s6", "s8", "s9")
    assert split_by_id(sessions, ["s9", "s0"]).held_out.ids == ("s0", "s9")
    train, held_out = split_by_subject(sessions, "m1")
    assert held_out.ids == ("s3", "s4", "s5")
    assert "m1" not in train.subjects
    for part in (train, held_out):
        for index, name in enumerate(part.ids):
            whole = sessions.features[sessions.ids.index(name)]
            np.testing.assert_array_equal(part.features[index], whole)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda s: split_by_session(s, 1), "held_out_every: expected a whole number of at least 2"),
        (lambda s: split_by_session(s, 2.0), "held_out_every: expected a whole number"),
        (
            lambda s: split_by_session(s, 2, offset=2),
            r"offset: expected a number below held_out_every \(2\), got 2",
        ),
        (
            lambda s: split_by_session(s, 2, offset=-1),
            "offset: expected a whole number of at least 0",
        ),
        (
            lambda s: split_by_session(s, 20, offset=15),
            "got none in the held-out part of 10 sessions with held_out_every=20 and offset=15",
        ),
        (lambda s: split_by_id(s, []), "got none in the held-out part"),
        (lambda s: split_by_id(s, s.ids), "got none in the training part"),
        (
            lambda s: split_by_id(s, ["s77"]),
            "held_out: expected a session in the data .*, got 's77'.*did you mean 's7'",
        ),
        (lambda s: split_by_subject(s, ["m9"]), "expected a subject in the data .*, got 'm9'"),
        (lambda s: split_by_column(s, pd.Series([1]), [1]), "expected sessions read from a table"),
    ],
)
def test_bad_splits_are_refused(split, message):
    with pytest.raises(ValueError, match=message):
        split(many_sessions())


def test_sessions_are_split_by_a_column():
    table = plain_table(day=[1, 1, 1, 2, 2, 2], block=[0, 1, 1, 0, 0, 0])
    sessions = sessions_from_table(table)
    assert split_by_column(sessions, table["day"], [2]).held_out.ids == ("b",)
    assert split_by_column(sessions.subset([1, 0]), table["day"], [1]).held_out.ids == ("a",)
    with pytest.raises(ValueError, match=r"'block': expected one value .* 0 and 1 in session 'a'"):
        split_by_column(sessions, table["block"], [1])
    with pytest.raises(
        ValueError, match="expected a value of column 'day' in the data .*, got '3'"
    ):
        split_by_column(sessions, table["day"], [3])
    with pytest.raises(ValueError, match="'day': expected a value for each row"):
        split_by_column(sessions, table["day"][:2], [1])


# === Batches ===


def test_all_sessions_can_be_one_batch():
    sessions = sessions_from_table(small_table(), ALL_COLUMNS)
    [(x, y, w)] = sessions.dataset()
    np.testing.assert_array_equal(x, sessions.features)
    assert set(y) == set(w) == {"choice", "dopamine"}
    np.testing.assert_array_equal(y["choice"], sessions.choice)
    np.testing.assert_array_equal(w["choice"], sessions.choice_weight)
    np.testing.assert_array_equal(y["dopamine"], sessions.dopamine)
    np.testing.assert_array_equal(w["dopamine"], sessions.dopamine_weight)
    assert (x.dtype, y["choice"].dtype, w["dopamine"].dtype) == (tf.float32, tf.int32, tf.float32)
    # The same batch can repeat without end, because nothing is copied.
    stream = sessions.dataset(steps=1000, start_step=7, shuffle=True)
    assert int(stream.cardinality()) == 1000
    np.testing.assert_array_equal(next(iter(stream))[0], sessions.features)


def test_behaviour_alone_has_no_dopamine_target():
    [(_, y, w)] = sessions_from_table(plain_table()).dataset()
    assert set(y) == set(w) == {"choice"}


def test_batches_contain_the_latents():
    sessions = many_sessions()
    latents = np.arange(10 * 5 * 2, dtype=np.float32).reshape(10, 5, 2)
    part = dataclasses.replace(sessions, latents=latents).subset([3, 8])
    [(x, _, _)] = part.dataset()
    assert set(x) == {"features", "latents"}
    np.testing.assert_array_equal(x["latents"], latents[[3, 8]])


def test_one_pass_has_the_sessions_in_order():
    sessions = many_sessions()
    stream = sessions.dataset(4)
    assert int(stream.cardinality()) == 3
    assert batch_ids(stream) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batch_ids(sessions.dataset(4, steps=4, start_step=2)) == [
        [8, 9],
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    for x, y, w in sessions.dataset(4):
        assert len(x) == len(y["choice"]) == len(w["dopamine"])
        numbers = x[:, 1, 1].numpy().astype(int)
        np.testing.assert_array_equal(y["choice"], sessions.choice[numbers])


def test_shuffled_passes_contain_every_session_once():
    stream = many_sessions().dataset(4, shuffle=True, seed=3, steps=9)
    assert int(stream.cardinality()) == 9
    batches = batch_ids(stream)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    passes = [list(itertools.chain(*batches[i : i + 3])) for i in (0, 3, 6)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    assert tuple(range(10)) not in {tuple(one) for one in passes}


def test_batches_depend_only_on_seed_and_step():
    sessions = many_sessions()
    batches = batch_ids(sessions.dataset(3, shuffle=True, seed=5, steps=12))
    tf.random.set_seed(99)
    assert batch_ids(sessions.dataset(3, shuffle=True, seed=5, steps=12)) == batches
    assert batch_ids(sessions.dataset(3, shuffle=True, seed=6, steps=12)) != batches
    for start in range(12):
        rest = sessions.dataset(3, shuffle=True, seed=5, start_step=start, steps=12 - start)
        assert batch_ids(rest) == batches[start:]


def test_batches_have_a_fixed_shape_when_they_can():
    sessions = many_sessions()
    assert sessions.dataset(5).element_spec[0].shape == (5, 5, 2)
    assert sessions.dataset(4).element_spec[0].shape.as_list() == [None, 5, 2]
    assert sessions.dataset(100).element_spec[0].shape == (10, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size: expected a whole number"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"start_step": -1}, "start_step: expected a whole number of at least 0, got -1"),
        ({"seed": None}, "seed: expected a whole number from 0 to"),
    ],
)
def test_bad_arguments_of_batches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        many_sessions().dataset(**arguments)


def test_keras_fits_and_evaluates_batches():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 2))
    hidden = keras.layers.Lambda(lambda x: tf.where(tf.math.is_nan(x), 0.0, x))(inputs)
    outputs = {
        "choice": keras.layers.Dense(2)(hidden),
        "dopamine": keras.layers.Dense(1, kernel_initializer="zeros")(hidden),
    }
    model = keras.Model(inputs, outputs)
    reduction = "mean_with_sample_weight"
    model.compile(
        optimizer=keras.optimizers.SGD(0.0),
        loss={
            "choice": keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction),
            "dopamine": lambda y, p: tf.reduce_mean(tf.square(y - p), -1),
        },
        loss_weights={"choice": 1.0, "dopamine": 0.0},
    )
    sessions = sessions_from_table(small_table(), dataclasses.replace(ALL_COLUMNS, observations=()))
    history = model.fit(sessions.dataset(1, shuffle=True, steps=4), shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    [loss] = model.evaluate(sessions.dataset(), verbose=0)[:1]
    logits = model.predict(sessions.dataset(), verbose=0)["choice"]
    log_likelihood = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_likelihood, sessions.choice[..., None], -1)[..., 0]
    expected = -(chosen * sessions.choice_weight).sum() / sessions.choice_weight.sum()
    assert loss == pytest.approx(expected, rel=1e-5)


# === Summary ===


def test_the_summary_counts_trials_by_subject():
    counted = summary(sessions_from_table(small_table(), ALL_COLUMNS))
    assert counted.index.tolist() == ["m1", "m2", "(all)"]
    counts = ["sessions", "trials", "forced", "missed", "dlight_missing"]
    assert counted[counts].to_numpy().tolist() == [
        [1, 4, 1, 1, 1],
        [1, 2, 0, 0, 0],
        [2, 6, 1, 1, 1],
    ]
    np.testing.assert_allclose(counted["reward_rate"], [2 / 3, 1 / 2, 3 / 5])
    np.testing.assert_allclose(counted["choice_1"], [1 / 2, 1 / 2, 1 / 2])
    np.testing.assert_allclose(counted["choice_0"] + counted["choice_1"], 1)
    np.testing.assert_allclose(counted["dlight_mean"], [-0.25, 2.5, 1.125])
    np.testing.assert_allclose(
        counted["dlight_sd"], [np.std(v, ddof=1) for v in ([0.5, -1], [2, 3], [0.5, -1, 2, 3])]
    )


# === TFDS ===


def examples():
    return [
        {
            "subject": b"m1",
            "session": b"m1-a",
            "choice": np.array([1, 0, 1]),
            "reward": np.float32([1, 0, 0]),
            "dopamine": np.float32([0.5, NAN, -0.5]),
            "reward_probability": np.zeros((3, 2)),
        },
        {
            "subject": b"m2",
            "session": b"m2-a",
            "choice": np.array([0]),
            "reward": np.float32([1]),
            "dopamine": np.float32([2.0]),
            "reward_probability": np.zeros((1, 2)),
        },
    ]


def as_dataset(values):
    spec = {
        "subject": tf.TensorSpec((), tf.string),
        "session": tf.TensorSpec((), tf.string),
        "choice": tf.TensorSpec((None,), tf.int64),
        "reward": tf.TensorSpec((None,), tf.float32),
        "dopamine": tf.TensorSpec((None,), tf.float32),
        "reward_probability": tf.TensorSpec((None, 2), tf.float64),
    }
    return tf.data.Dataset.from_generator(lambda: iter(values), output_signature=spec)


@pytest.mark.parametrize("form", [list, iter, as_dataset])
def test_sessions_from_tfds(form):
    sessions = sessions_from_tfds(form(examples()))
    assert (sessions.ids, sessions.subjects) == (("m1-a", "m2-a"), ("m1", "m2"))
    np.testing.assert_array_equal(sessions.trials_per_session, [3, 1])
    np.testing.assert_array_equal(sessions.features[0], [[0, 0], [1, 1], [0, 0], [1, 0]])
    np.testing.assert_array_equal(sessions.row_mask, [[1, 1, 1, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(sessions.choice, [[1, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(sessions.choice_weight, [[1, 1, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(sessions.dopamine[..., 0], [[0, 0.5, 0, -0.5], [0, 2, 0, 0]])
    np.testing.assert_array_equal(sessions.dopamine_weight[..., 0], [[0, 1, 0, 1], [0, 1, 0, 0]])


def test_tfds_without_dopamine_and_with_forced_trials():
    bare = [{k: v for k, v in e.items() if k != "dopamine"} for e in examples()]
    assert sessions_from_tfds(bare).num_signals == 0
    forced = [{**e, "forced": np.arange(len(e["choice"])) == 1} for e in bare]
    np.testing.assert_array_equal(sessions_from_tfds(forced).choice_weight[0], [1, 0, 1, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda e: {"train": e}, "one split, got a dict with the keys train"),
        (lambda e: [], "at least one session, got none"),
        (lambda e: [({}, 1)], "expected dicts, got tuple in example 0"),
        (lambda e: [{"choices": [1]}], "expected a feature 'subject', got choices in example 0"),
        (
            lambda e: [e[0], {**e[1], "choice": [[0]]}],
            "choice: expected 1 dimensions .* do not batch",
        ),
        (lambda e: as_dataset(e[:1]).batch(1), "session: expected 0 dimensions"),
        (lambda e: [e[0], e[0]], "ids: expected unique session ids.* got 'm1-a' 2 times"),
        (
            lambda e: [e[0], {k: v for k, v in e[1].items() if k != "dopamine"}],
            "difference in dopamine",
        ),
        (lambda e: [{**e[0], "reward": [1, 0, 2]}], "0 or 1 .* got 2 in trial 2 of session 'm1-a'"),
        (lambda e: [{**e[0], "dopamine": [NAN] * 3}], "dopamine 'dopamine': expected a value"),
    ],
)
def test_bad_datasets_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        sessions_from_tfds(make(examples()))


# === Size ===


@pytest.mark.slow
def test_a_million_trials_are_read():
    sessions, trials = 5000, 200
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "subject": np.repeat([f"m{i // 50}" for i in range(sessions)], trials),
            "session": np.repeat([f"s{i}" for i in range(sessions)], trials),
            "trial": np.tile(np.arange(trials), sessions),
            "choice": rng.integers(0, 2, sessions * trials),
            "reward": rng.integers(0, 2, sessions * trials),
            "dlight": rng.normal(size=sessions * trials),
        }
    )
    read = sessions_from_table(table, Columns(dopamine="dlight", trial="trial"))
    assert read.num_trials == len(table)
    np.testing.assert_array_equal(read.features[:, 1:, 0].ravel(), table["choice"])
    np.testing.assert_array_equal(read.dopamine[:, 1:, 0].ravel(), np.float32(table["dlight"]))
