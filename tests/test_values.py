"""Values that cannot be meant: the same bad input is refused in memory and when it is streamed."""

import dataclasses
import pathlib
import tempfile
import warnings

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.data import (
    Columns,
    Sessions,
    sessions_from_table,
    sessions_from_tfds,
    stream_from_tfds,
    summary,
)
from keras_disrnn.data.plausibility import describe_scale, find_codes, find_outliers

NAN = np.nan
TRIALS = 40
COLUMNS = Columns(dopamine="dlight", observations=["rt"])


@pytest.fixture
def columns():
    """Make 40 good trials of one session, by column."""
    rng = np.random.default_rng(1)
    return {
        "choice": np.tile([0, 1], TRIALS // 2),
        "reward": np.tile([0.0, 1.0, 1.0, 0.0], TRIALS // 4),
        "dlight": rng.normal(size=TRIALS).round(3),
        "rt": rng.normal(size=TRIALS).round(3),
    }


def from_table(columns, reward_kind="binary"):
    table = pd.DataFrame({"subject": "m1", "session": "a", **columns})
    return sessions_from_table(table, COLUMNS, reward_kind=reward_kind)


def from_builder(columns, reward_kind="binary"):
    from keras_disrnn.datasets.bandit_dopamine.configs import TrialsTableConfig

    config = TrialsTableConfig(name="own", columns=COLUMNS, reward_kind=reward_kind)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trials.csv"
        pd.DataFrame({"subject": "m1", "session": "a", **columns}).to_csv(path, index=False)
        return config.read(path)


def from_arrays(columns, reward_kind="binary"):
    return Sessions.from_trials(
        [columns["choice"]],
        [columns["reward"]],
        dopamine=[columns["dlight"]],
        observations=[columns["rt"]],
        ids=["a"],
        signal_names=["dlight"],
        observation_names=["rt"],
        reward_kind=reward_kind,
    )


def example(columns):
    given = {"choice": columns["choice"], "reward": columns["reward"]}
    given |= {"dopamine": columns["dlight"], "observations": np.asarray(columns["rt"])[:, None]}
    return {"subject": "m1", "session": "a", **given}


def from_tfds(columns, reward_kind="binary"):
    return sessions_from_tfds([example(columns)], reward_kind=reward_kind)


def streamed(columns, reward_kind="binary"):
    import tensorflow as tf

    split = tf.data.Dataset.from_tensors(example(columns))
    try:
        return list(stream_from_tfds(split, 1, reward_kind=reward_kind))
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(error.message) from error


READERS = [from_table, from_builder, from_arrays, from_tfds, streamed]


def changed(columns, name, *cells, to):
    values = np.array(columns[name], float)
    values[list(cells)] = to
    return {**columns, name: values}


@pytest.mark.parametrize("read", READERS)
def test_good_values_are_read_without_a_word(columns, read):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        read(columns)
        read(columns, "real")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("code", [-999.0, -99.0, 999.0, -9999.0])
@pytest.mark.parametrize(("name", "role"), [("dlight", "dopamine"), ("rt", "observation")])
def test_codes_of_missing_values_are_refused_by_name(columns, read, name, role, code):
    with pytest.raises(
        ValueError, match=rf"(?s){role}.*a measured value, got {code:g} in "
    ) as error:
        read(changed(columns, name, 3, 7, to=code))
    message = str(error.value)
    assert "'a'" in message and "and in 1 more; it looks like the code of a missing" in message
    assert ("row 3 " if read in (from_table, from_builder) else "trial 3 of ") in message


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("reward_kind", ["binary", "real"])
def test_a_code_in_the_rewards_is_refused(columns, read, reward_kind):
    # The hint for rewards that are not 0 or 1 would make it an amount.
    with pytest.raises(ValueError, match="(?s)reward.*got -999 in .* mark the trial as missed"):
        read(changed(columns, "reward", 5, to=-999), reward_kind)


@pytest.mark.parametrize("read", READERS)
def test_rewards_beyond_any_are_refused(columns, read):
    message = r"(?s)reward.* from -10000 to 10000, got 1e\+06 in .* divide all rewards"
    with pytest.raises(ValueError, match=message):
        read(changed(columns, "reward", 5, to=1e6), "real")


@pytest.mark.parametrize("read", READERS)
def test_a_response_far_from_the_others_is_named(columns, read):
    with pytest.warns(UserWarning, match="dopamine.* got 400 in (row|trial) 9 .*'a'.* deviations"):
        read(changed(columns, "dlight", 9, to=400))


@pytest.mark.parametrize("read", READERS)
def test_observations_in_milliseconds_are_named(columns, read):
    slow = 300 + 80 * columns["rt"]
    with pytest.warns(UserWarning, match=r"observation.* scale near 1, got mean 288, .*standardi"):
        read({**columns, "rt": slow})


@pytest.mark.parametrize("read", READERS)
def test_large_rewards_are_named(columns, read):
    with pytest.warns(UserWarning, match="reward.* scale near 1, got mean 250, .* divide all"):
        read({**columns, "reward": 500 * columns["reward"]}, "real")


def test_small_responses_are_named(columns):
    with pytest.warns(UserWarning, match=r"'dlight'.* deviation 0.00.*zscore"):
        from_table({**columns, "dlight": columns["dlight"] / 1000})


def test_one_doubt_is_said_once_by_a_stream(columns):
    import tensorflow as tf

    parts = [example({**columns, "rt": columns["rt"] * 100 + k}) for k in range(4)]
    split = tf.data.Dataset.from_generator(
        lambda: iter(parts),
        output_signature={
            "subject": tf.TensorSpec((), tf.string),
            "session": tf.TensorSpec((), tf.string),
            "choice": tf.TensorSpec((None,), tf.int64),
            "reward": tf.TensorSpec((None,), tf.float64),
            "dopamine": tf.TensorSpec((None,), tf.float64),
            "observations": tf.TensorSpec((None, 1), tf.float64),
        },
    )
    with pytest.warns(UserWarning) as said:
        list(stream_from_tfds(split, 1))
    assert sum("scale near 1" in str(w.message) for w in said) == 1


# === Arrays ===


def test_a_masked_value_is_a_missing_value():
    masked = np.ma.masked_equal([[0.5, 1.0, -999.0]], -999.0)
    sessions = Sessions.from_trials([[0, 1, 1]], [[1, 0, 0]], dopamine=masked)
    np.testing.assert_array_equal(sessions.dopamine_weight.ravel(), [0, 1, 1, 0])
    np.testing.assert_array_equal(sessions.dopamine.ravel(), [0, 0.5, 1, 0])
    choice = np.ma.masked_equal([[0, 1, 9]], 9)
    with pytest.raises(ValueError, match="choice: expected a value in every trial, got nan in"):
        Sessions.from_trials(choice, [[1, 0, 0]])
    missed = [[False, False, True]]
    assert Sessions.from_trials(choice, [[1, 0, 0]], missed=missed).num_arms == 2
    with pytest.raises(ValueError, match="reward: expected a finite number, got nan in trial 1"):
        Sessions.from_trials([[0, 1, 1]], np.ma.masked_equal([[0, 9, 1]], 9))


@pytest.mark.parametrize("read", [from_arrays, from_tfds, streamed])
@pytest.mark.parametrize(
    "convert",
    [
        lambda values: values.astype(np.complex64),
        lambda values: values.astype(str),
        lambda values: values.astype(bytes),
    ],
)
@pytest.mark.parametrize("name", ["choice", "reward", "dlight", "rt"])
def test_other_arrays_than_numbers_are_refused(columns, read, convert, name):
    with pytest.raises(ValueError, match=r"expected numbers, got an array of .* in session 'a'"):
        read({**columns, name: convert(columns[name])})


@pytest.mark.parametrize("odd", [1j, np.complex64(1), "1", b"1", [1], {}])
def test_object_arrays_are_read_number_by_number(columns, odd):
    values = columns["dlight"].astype(object)
    values[2] = None
    assert from_arrays({**columns, "dlight": values}).dopamine_weight.sum() == TRIALS - 1
    values[2] = odd
    with pytest.raises(ValueError, match="dopamine: expected numbers, got an array of object"):
        from_arrays({**columns, "dlight": values})


def test_dates_are_no_numbers(columns):
    dates = np.arange(TRIALS).astype("M8[s]")
    with pytest.raises(ValueError, match=r"dopamine: expected numbers, got an array of datetime64"):
        from_arrays({**columns, "dlight": dates})


def test_missing_values_of_pandas_are_read(columns):
    values = pd.Series(columns["dlight"]).astype("Float64")
    values[4] = pd.NA
    assert from_arrays({**columns, "dlight": values}).dopamine_weight.sum() == TRIALS - 1


def test_complex_cells_of_a_table_are_refused(columns):
    values = columns["dlight"].astype(object)
    values[3] = np.complex64(1 + 2j)
    with pytest.raises(ValueError, match=r"'dlight' .dopamine.: expected numbers, got .* in row 3"):
        from_table({**columns, "dlight": values})


@pytest.mark.parametrize("name", ["features", "dopamine", "dopamine_weight", "latents"])
@pytest.mark.parametrize("kind", ["masked", np.complex64, object, str])
def test_sessions_hold_plain_arrays(columns, name, kind):
    sessions = from_arrays(columns)
    latents = np.zeros((*sessions.choice.shape, 2), np.float32)
    sessions = dataclasses.replace(sessions, latents=latents)
    array = getattr(sessions, name)
    odd = np.ma.masked_invalid(array) if kind == "masked" else array.astype(kind)
    message = f"^{name}: expected a (plain )?NumPy array"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(sessions, **{name: odd})


# === A third arm ===


def test_a_third_arm_is_said_with_its_counts(columns):
    third = changed(columns, "choice", 5, 6, to=2)
    message = r"choice.* expected 2 arms, got 3 .0 in 19 trials, 1 in 19 trials, 2 in 2 trials"
    for read in (from_table, from_arrays, from_tfds):
        with pytest.warns(UserWarning, match=message):
            assert read(third).num_arms == 3
    # A stream does not count arms: a third one is refused.
    with pytest.raises(ValueError, match="choice: .* from 0 to 1 .num_arms=2., got 2 in trial 5"):
        streamed(third)
    table = pd.DataFrame({"subject": "m1", "session": "a", **third})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert sessions_from_table(table, COLUMNS, num_arms=3).num_arms == 3


WORDS = {
    "a missed trial": (["left", "right", "NoResponse", "left"], "['NoResponse']", "left", "right"),
    "a dash": (["L", "R", "-", "R"], "['-']", "L", "R"),
    "two kinds": (["A", "B", "timeout", "No choice"], "['No choice', 'timeout']", "A", "B"),
}


@pytest.mark.parametrize("case", WORDS)
def test_the_hint_makes_no_arm_of_a_missed_trial(case):
    choice, missed, first, second = WORDS[case]
    table = pd.DataFrame({"subject": "m", "session": "a", "choice": choice, "reward": [1, 0, 0, 1]})
    with pytest.raises(ValueError, match="recode it to 0, 1 and so on first") as error:
        sessions_from_table(table)
    message = str(error.value)
    steps = [
        f"table['missed'] = table['choice'].isin({missed})",
        f"table['choice'] = table['choice'].map({{{first!r}: 0, {second!r}: 1}})",
    ]
    assert all(step in message for step in steps) and message.endswith(steps[1])
    for step in steps:  # Who follows the hint gets two arms.
        exec(step, {"table": table})
    sessions = sessions_from_table(table, Columns(missed="missed"))
    assert sessions.num_arms == 2
    np.testing.assert_array_equal(~sessions.row_mask[0, 1:], [c in missed for c in choice])


@pytest.mark.parametrize("choice", [["0", "TRUE", "0", "1"], ["a", "b", "c", "a"]])
def test_no_map_is_proposed_where_it_may_do_harm(choice):
    table = pd.DataFrame({"subject": "m", "session": "a", "choice": choice, "reward": [1, 0, 0, 1]})
    with pytest.raises(ValueError, match=r"there are 'TRUE' beside n|there are 'a', 'b', 'c'") as e:
        sessions_from_table(table)
    assert "map(" not in str(e.value)


# === What the summary shows ===


def test_the_summary_lists_observations_and_signals(columns):
    table = pd.DataFrame({"subject": ["m1"] * 20 + ["m2"] * 20, "session": "a", **columns})
    table["session"] = table["subject"]
    sessions = sessions_from_table(table, COLUMNS)
    for shown in (sessions, sessions.with_subjects(["m1", "m2"])):
        counted = summary(shown)
        for name in ("rt", "dlight"):
            everyone = table[name].astype(np.float32)
            assert counted.loc["(all)", f"{name}_mean"] == pytest.approx(everyone.mean(), abs=1e-6)
            assert counted.loc["(all)", f"{name}_sd"] == pytest.approx(everyone.std())
            assert counted.loc["m2", f"{name}_min"] == everyone[20:].min()
            assert counted.loc["m1", f"{name}_max"] == everyone[:20].max()
        assert not any(name.startswith("subject") for name in counted)


def test_an_observation_called_as_a_signal_has_its_own_columns():
    sessions = Sessions.from_trials(
        [[0, 1]], [[1, 0]], dopamine=[[1, 2]], observations=[[3, 4]], observation_names=["dopamine"]
    )
    counted = summary(sessions).loc["(all)"]
    assert (counted["dopamine_mean"], counted["observation_dopamine_mean"]) == (1.5, 3.5)


def test_the_command_summary_prints_them(columns, tmp_path, capsys):
    from keras_disrnn import cli

    path = tmp_path / "trials.csv"
    pd.DataFrame({"subject": "m1", "session": "a", **columns}).to_csv(path, index=False)
    flags = ["--data.columns.dopamine=dlight", "--data.columns.observations=[rt]"]
    assert cli.main(["summary", f"--data.table={path}", *flags]) == 0
    shown = capsys.readouterr().out
    for name in ("m1", "rt_mean", "rt_sd", "rt_min", "rt_max", "dlight_mean", "dlight_missing"):
        assert name in shown
    assert f"{columns['rt'].max():.6f}" in shown


# === The rules ===


def test_codes_among_values_of_their_size_are_values():
    assert not find_codes(np.array([150.0, 900, 999, 2000, 5000])).any()
    assert not find_codes(np.array([-1200.0, -999, 100, 800])).any()
    assert not find_codes(np.array([99.0, 99, 99])).any()
    # A negative code among values that are never negative, and one alone.
    assert find_codes(np.array([150.0, 300, -999])).tolist() == [False, False, True]
    assert find_codes(np.array([-999.0, NAN])).tolist() == [True, False]
    assert find_codes(np.array([0.5, 99]), positive=False).sum() == 0


def test_outliers_are_told_by_the_middle_half():
    values = np.append(np.random.default_rng(0).normal(size=200), [400, -700])
    found = find_outliers(values)
    assert found.where.nonzero()[0].tolist() == [200, 201] and 500 < found.deviations < 900
    rare = np.zeros(1000)
    rare[:9], rare[9] = 1, 5
    assert find_outliers(rare) is None
    assert find_outliers(np.array([0.0, 1, 400])) is None


def test_flags_and_parts_have_no_scale_of_their_own():
    assert not describe_scale(np.append(np.ones(1000), 0))
    assert not describe_scale(np.full(50, 3.0))
    assert describe_scale(np.full(50, 300.0)) == "mean 300, deviation 0 and range 300 to 300"
    narrow = np.linspace(4.9, 5.1, 50)
    assert describe_scale(narrow) and not describe_scale(narrow, whole=False)
