"""What a cohort of many subjects needs: little memory, and no work that grows for nothing."""

import gc

import numpy as np
import pandas as pd
import psutil
import pytest

import keras_disrnn
from keras_disrnn.analysis import compute_evaluation, predictions
from keras_disrnn.analysis.evaluation import session_totals
from keras_disrnn.data import (
    Columns,
    Sessions,
    duplicates,
    read_table,
    sessions_from_table,
    summaries,
    summary,
)
from keras_disrnn.data.splits import spread_sessions
from keras_disrnn.experiments import embedding_search
from keras_disrnn.experiments.adaptation import adapt
from keras_disrnn.training import fit

ARRAYS = ("features", "choice", "choice_weight", "dopamine", "dopamine_weight")


def make_sessions(count=12, trials=30, seed=0, **given):
    """Make random sessions of three subjects."""
    rng = np.random.default_rng(seed)
    return Sessions.from_trials(
        choice=rng.integers(0, 2, (count, trials)),
        reward=rng.integers(0, 2, (count, trials)),
        dopamine=rng.normal(size=(count, trials)),
        subjects=[f"m{number % 3}" for number in range(count)],
        **given,
    )


# === Parquet ===


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    count = 60
    return pd.DataFrame(
        {
            "subject": np.repeat(["m1", "m2", "m1"], 20),
            "session": np.repeat([f"day {number}" for number in range(6)], 10),
            "trial": np.tile(np.arange(10), 6),
            "choice": rng.integers(0, 2, count),
            "reward": rng.integers(0, 2, count),
            # Only some groups of rows have missing values.
            "dopamine": np.where(np.arange(count) == 25, np.nan, rng.normal(size=count)),
            "notes": "not read",
        }
    )


COLUMNS = Columns(dopamine="dopamine", trial="trial")


def test_a_parquet_file_of_several_row_groups_gives_the_sessions_of_its_table(table, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table.to_parquet(tmp_path / "trials.parquet", row_group_size=15)
    found = sessions_from_table(tmp_path / "trials.parquet", COLUMNS)
    wanted = sessions_from_table(table, COLUMNS)
    assert (found.ids, found.subjects) == (wanted.ids, wanted.subjects)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    for one, other in zip(found.rows, wanted.rows, strict=True):
        np.testing.assert_array_equal(one, other)
    # The rows are found again in the table itself.
    assert len(keras_disrnn.data.split_by_column(found, table["subject"], ["m2"]).held_out) == 2


def test_only_the_columns_in_use_are_read_and_names_are_categories(table, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / "trials.parquet"
    table.to_parquet(path, row_group_size=15)
    read = read_table(path, text=["session"], columns=["session", "dopamine"])
    assert list(read) == ["session", "dopamine"]
    assert isinstance(read["session"].dtype, pd.CategoricalDtype)
    assert read["session"].astype(str).tolist() == table["session"].tolist()
    np.testing.assert_array_equal(read["dopamine"], table["dopamine"])
    # A column that is not there is named with those that are.
    with pytest.raises(ValueError, match="a column 'dlight', got the columns subject, session"):
        sessions_from_table(path, Columns(dopamine="dlight"))


def test_a_parquet_file_with_labels_of_rows_keeps_them(table, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    labelled = table.set_index(pd.Index(np.arange(60)[::-1] * 2, name="row"))
    labelled.to_parquet(tmp_path / "trials.parquet", row_group_size=15)
    found = sessions_from_table(tmp_path / "trials.parquet", COLUMNS)
    assert found.source.index.equals(labelled.index)


# === Arrays and batches ===


def test_tensorflow_reads_the_arrays_where_they_are():
    whole = make_sessions()
    for sessions in (whole, whole[1:5], whole[[3, 1]].with_subjects(["m0", "m1"])):
        for name in ARRAYS:
            assert getattr(sessions, name).ctypes.data % 64 == 0, name


def test_data_sets_hold_no_copies_of_the_sessions():
    sessions = make_sessions(1000, 500)
    size = sum(getattr(sessions, name).nbytes for name in ARRAYS)
    process = psutil.Process()

    def read():
        for _ in sessions.dataset(64, shuffle=True, steps=3):
            pass

    read()
    gc.collect()
    before = process.memory_info().rss
    for _ in range(10):
        read()
    assert process.memory_info().rss - before < 4 * size


def test_batches_are_the_sessions_themselves():
    sessions = make_sessions(7, 5)
    batches = list(sessions.dataset(3).as_numpy_iterator())
    assert [len(x) for x, _, _ in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in batches]), sessions.features)
    for part, index in (("choice", 1), ("dopamine", 1)):
        joined = np.concatenate([batch[index][part] for batch in batches])
        np.testing.assert_array_equal(joined, getattr(sessions, part))
    assert sessions[:6].dataset(3).element_spec[0].shape == (3, 6, 2)
    assert sessions.dataset(3).element_spec[0].shape == (None, 6, 2)


# === Checks ===


def test_sessions_that_differ_only_at_their_end_are_no_copies():
    rng = np.random.default_rng(1)
    choice, reward = rng.integers(0, 2, (2, 3, 100))
    choice[1], reward[1] = choice[0], reward[0]
    choice[1, 99] = 1 - choice[1, 99]
    sessions = Sessions.from_trials(choice, reward)  # A warning would be an error.
    codes = duplicates._codes(sessions)
    assert codes[0] == codes[1] != codes[2]
    choice[1, 99] = choice[0, 99]
    with pytest.warns(UserWarning, match="got the same in '0' and '1'"):
        Sessions.from_trials(choice, reward)


def test_digests_are_only_computed_where_the_first_trials_agree(monkeypatch):
    computed = []
    digest = duplicates.hashlib.blake2b
    monkeypatch.setattr(
        duplicates.hashlib, "blake2b", lambda **given: computed.append(1) or digest(**given)
    )
    sessions = make_sessions(50)
    keras_disrnn.data.split_by_session(sessions)
    assert not computed


def test_a_copy_is_found_in_a_part_with_longer_padding():
    short, long = make_sessions(2, 30, ids=["a", "b"]), make_sessions(2, 90, seed=1)
    trials = [np.concatenate([short.features[0, 1:, 0]]), long.features[1, 1:, 0]]
    rewards = [short.features[0, 1:, 1], long.features[1, 1:, 1]]
    responses = [short.dopamine[0, 1:, 0], long.dopamine[1, 1:, 0]]
    padded = Sessions.from_trials(trials, rewards, dopamine=responses, ids=["c", "d"])
    with pytest.warns(UserWarning, match=r"'a' \(training\) and 'c' \(held out\)"):
        duplicates.warn_of_shared(short, padded)


def test_the_summary_of_a_cohort_is_that_of_its_parts(monkeypatch):
    sessions = make_sessions(30, forced=np.arange(900).reshape(30, 30) % 7 == 0)
    whole = summary(sessions)
    monkeypatch.setattr(summaries, "_TRIALS_IN_PART", 1)
    pd.testing.assert_frame_equal(summary(sessions), whole, rtol=1e-12)
    values = sessions.dopamine[:, 1:].astype(float)
    np.testing.assert_allclose(whole.loc["(all)", "dopamine_sd"], values.std(ddof=1), rtol=1e-12)
    np.testing.assert_allclose(whole.loc["(all)", "dopamine_mean"], values.mean(), rtol=1e-12)


# === Training and scores ===


@pytest.fixture(scope="module")
def model():
    return keras_disrnn.DisRNNModel(num_latents=1, num_update_layers=1, update_units=2, seed=0)


def test_scores_do_not_depend_on_how_many_sessions_are_predicted_at_once(model, monkeypatch):
    sessions = make_sessions(11)
    whole = compute_evaluation(model, sessions, batch_size=3)
    choice, dopamine = session_totals(model, sessions)
    parts = []
    predict = model.predict
    monkeypatch.setattr(predictions, "_STEPS_AT_ONCE", 200)
    monkeypatch.setattr(model, "predict", lambda *a, **k: parts.append(1) or predict(*a, **k))
    found = compute_evaluation(model, sessions, batch_size=3)
    assert len(parts) == 2
    pd.testing.assert_frame_equal(found.per_session, whole.per_session, check_exact=True)
    assert found.summary == whole.summary
    np.testing.assert_allclose(found.per_session["log_likelihood"], choice[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.per_session["sse"], dopamine[:, 0, 1], rtol=1e-6)


def test_an_epoch_is_validated_on_evenly_spaced_sessions_if_there_are_many(model, monkeypatch):
    monkeypatch.setattr(fit, "VALIDATION_TRIALS", 100)
    train, held_out = make_sessions(6), make_sessions(20, seed=1)
    few = spread_sessions(held_out, 100)
    assert few.ids == ("0", "10", "19")
    history = keras_disrnn.train(
        model, train, held_out, warmup_steps=1, stage1_steps=0, stage2_steps=0, verbose=0
    )
    scores = compute_evaluation(model, few).summary["choice"]
    np.testing.assert_allclose(
        history["val_choice_normalized_likelihood"], scores["normalized_likelihood"], rtol=1e-5
    )


def test_a_small_held_out_part_is_validated_as_a_whole():
    sessions = make_sessions(5)
    assert spread_sessions(sessions, 150) is sessions
    assert len(spread_sessions(sessions, 1)) == 1


# === New subjects ===


def test_all_new_subjects_share_one_traced_step(monkeypatch):
    network = keras_disrnn.DisRNNModel(
        num_observations=3, num_latents=1, subjects=["a", "b", "c"], subject_units=1, seed=0
    )
    network.mark_trained(network.parts)
    made = []
    make_losses = embedding_search.make_losses

    def keep(*arguments):
        made.append(make_losses(*arguments))
        return made[-1]

    monkeypatch.setattr(keras_disrnn.experiments.adaptation, "make_losses", keep)
    found = adapt(network, make_sessions(9))
    assert found.subjects["subject"].tolist() == ["m0", "m1", "m2"]
    [losses] = made
    assert [function.experimental_get_tracing_count() for function in losses] == [1, 1]


def test_a_search_starts_from_few_of_many_subjects_which_cover_the_others():
    points = np.random.default_rng(0).uniform(size=(600, 2)) * [1, 100]
    starts = embedding_search._spread_points(points)
    assert len(starts) == embedding_search.MOST_STARTS == len(np.unique(starts, axis=0))
    scaled = np.abs(points[:, None] - starts) / [1, 100]
    assert scaled.max(axis=2).min(axis=1).max() < 0.2
    np.testing.assert_array_equal(embedding_search._spread_points(points[:32]), points[:32])
