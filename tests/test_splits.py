"""Folds, bucketed batches, and the summary of what was dropped."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_disrnn.data import (
    Sessions,
    drop_sessions,
    k_fold,
    leave_one_subject_out,
    split_by_session,
    summary,
)
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.training.stages import compile_stage


def make_sessions(lengths, per_subject=4, rng=None):
    """Make sessions of the given lengths. Every reward of a session is its number."""
    rng = np.random.default_rng(0) if rng is None else rng
    return Sessions.from_trials(
        choice=[rng.integers(0, 2, length) for length in lengths],
        reward=[np.full(length, float(number)) for number, length in enumerate(lengths)],
        dopamine=[rng.normal(size=length) for length in lengths],
        subjects=[f"m{number // per_subject}" for number in range(len(lengths))],
        ids=[f"s{number}" for number in range(len(lengths))],
        reward_kind="real",
    )


# === Folds ===


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_session_is_held_out_once(folds):
    sessions = make_sessions([3] * 13)
    splits = list(k_fold(sessions, folds, seed=4))
    assert len(splits) == folds
    held_out = [name for split in splits for name in split.held_out.ids]
    assert sorted(held_out) == sorted(sessions.ids)
    for train, test in splits:
        assert not set(train.ids) & set(test.ids)
        assert len(train.ids) + len(test.ids) == 13
        assert list(train.ids) == [name for name in sessions.ids if name in train.ids]
        # Each subject's four sessions are spread over the folds as evenly as possible.
        for subject in ("m0", "m1", "m2"):
            assert test.subjects.count(subject) in (4 // folds, -(-4 // folds))


def test_folds_depend_only_on_the_seed():
    sessions = make_sessions([3] * 12)
    ids = [[split.held_out.ids for split in k_fold(sessions, 3, seed=seed)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_whole_subjects_are_never_split():
    sessions = make_sessions([3] * 14)
    splits = list(k_fold(sessions, 2, whole_subjects=True))
    for train, test in splits:
        assert not set(train.subjects) & set(test.subjects)
    assert sum(split.held_out.num_sessions for split in splits) == 14
    left_out = list(leave_one_subject_out(sessions))
    assert [set(split.held_out.subjects) for split in left_out] == [{"m0"}, {"m1"}, {"m2"}, {"m3"}]
    assert all(split.held_out.subjects[0] not in split.train.subjects for split in left_out)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda s: k_fold(s, 1), "folds: expected a whole number of at least 2, got 1"),
        (lambda s: k_fold(s, 2.0), "folds: expected a whole number"),
        (lambda s: k_fold(s, 13), "folds: expected at most the number of sessions, 12, got 13"),
        (
            lambda s: k_fold(s, 4, whole_subjects=True),
            "folds: expected at most the number of subjects, 3, got 4",
        ),
        (lambda s: k_fold(s, 2, seed="0"), "seed: expected a whole number"),
        (
            lambda s: leave_one_subject_out(s.subset([0, 1])),
            "at least 2 subjects, got only 'm0'; use k_fold",
        ),
    ],
)
def test_bad_settings_of_folds_are_refused(split, message):
    with pytest.raises(ValueError, match=message):
        split(make_sessions([3] * 12))


# === Buckets ===

LENGTHS = [50, 3, 20, 4, 49, 21, 5, 48, 19, 6, 22]


def numbers(x):
    """Return the number of each session of a batch."""
    return x[:, 1, 1].numpy().astype(int).tolist()


def test_bucketed_batches_have_the_same_sessions_with_less_padding():
    sessions = make_sessions(LENGTHS)
    stream = list(sessions.dataset(4, buckets=3))
    assert len(stream) == 3  # as many as without buckets
    assert [numbers(x) for x, _, _ in stream] == [[1, 3, 6, 9], [8, 2, 5, 10], [7, 4, 0]]
    assert [x.shape[1] for x, _, _ in stream] == [7, 23, 51]
    for x, y, w in stream:
        rows = x.shape[1]
        picked = numbers(x)
        np.testing.assert_array_equal(x, sessions.features[picked, :rows])
        for name in ("choice", "dopamine"):
            np.testing.assert_array_equal(y[name], getattr(sessions, name)[picked, :rows])
            weight = getattr(sessions, f"{name}_weight")
            np.testing.assert_array_equal(w[name], weight[picked, :rows])
            assert weight[picked, rows:].sum() == 0  # only padding is removed


def test_bucketed_batches_depend_only_on_seed_and_step():
    sessions = make_sessions(LENGTHS * 2)

    def stream(seed=7, **arguments):
        batches = sessions.dataset(4, buckets=3, shuffle=True, seed=seed, **arguments)
        return [numbers(x) for x, _, _ in batches]

    batches = stream(steps=18)
    tf.random.set_seed(3)
    assert stream(steps=18) == batches
    assert stream(seed=8, steps=18) != batches
    for start in (1, 5, 6, 13):
        assert stream(start_step=start, steps=18 - start) == batches[start:]
    passes = [list(itertools.chain(*batches[at : at + 6])) for at in (0, 6, 12)]
    assert all(sorted(one) == list(range(22)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    # Batches of different lengths alternate, so they are not in the order of the buckets.
    longest = [max((LENGTHS * 2)[number] for number in batch) for batch in batches[:6]]
    assert longest != sorted(longest)


def test_buckets_have_no_effect_on_one_batch_and_keep_latents():
    sessions = make_sessions(LENGTHS)
    [(x, _, _)] = sessions.dataset(buckets=5)
    np.testing.assert_array_equal(x, sessions.features)
    latents = np.zeros((11, 51, 2), np.float32)
    for x, _, _ in dataclasses.replace(sessions, latents=latents).dataset(3, buckets=9):
        assert x["latents"].shape[:2] == x["features"].shape[:2]
    with pytest.raises(ValueError, match="buckets: expected a whole number of at least 1, got 0"):
        sessions.dataset(3, buckets=0)


def test_bucketed_batches_do_not_change_the_scores_of_a_model():
    sessions = make_sessions([5, 30, 6, 31, 7, 32])
    sessions = dataclasses.replace(sessions, features=np.minimum(sessions.features, 1))
    model = DisRNNModel(num_latents=2, num_signals=1, seed=0)
    compile_stage(model, "joint")
    whole = model.evaluate(sessions.dataset(), return_dict=True, verbose=0)
    parts = model.evaluate(sessions.dataset(2, buckets=2), return_dict=True, verbose=0)
    for name in whole:
        if name.endswith(("normalized_likelihood", "mean_squared_error", "r2")):
            assert parts[name] == pytest.approx(whole[name], rel=1e-4), name
    assert any(name.endswith("normalized_likelihood") for name in whole)


# === Dropped sessions ===


def test_the_summary_lists_dropped_sessions():
    sessions = make_sessions([3, 4, 5, 6, 7], per_subject=2)
    kept = drop_sessions(sessions, {"s1": "artefact", "s4": "no licks"})
    kept = drop_sessions(kept, {"s2": "artefact"})
    assert kept.ids == ("s0", "s3")
    counted = summary(kept)
    assert counted.index.tolist() == ["m0", "m1", "m2", "(all)"]
    assert counted["sessions"].tolist() == [1, 1, 0, 2]
    assert counted["trials"].tolist() == [3, 6, 0, 9]
    assert counted["dropped_sessions"].tolist() == [1, 1, 1, 3]
    assert counted["dropped_trials"].tolist() == [4, 5, 7, 16]
    assert counted["dropped_why"]["m2"] == "s4: no licks"
    # Kept and dropped sessions together are all sessions.
    everyone = counted.loc["(all)"]
    assert everyone["trials"] + everyone["dropped_trials"] == sessions.num_trials
    # Both parts of a split list the dropped sessions.
    assert split_by_session(kept, 2).train.dropped == kept.dropped
    assert "dropped_why" not in summary(sessions)


def test_the_summary_has_the_range_of_dopamine():
    sessions = Sessions.from_trials([[0, 1], [1, 0]], [[0, 1]] * 2, dopamine=[[1, -2], [np.nan, 5]])
    counted = summary(sessions).loc["(all)"]
    assert (counted["dopamine_min"], counted["dopamine_max"], counted["dopamine_missing"]) == (
        -2,
        5,
        1,
    )


@pytest.mark.parametrize(
    ("reasons", "message"),
    [
        ({"s77": "bad"}, "expected ids of sessions of the data, got 's77'"),
        ({"s1": " "}, "expected a reason for session 's1', got ' '"),
        ({"s0": "x", "s1": "x"}, "expected to leave some session, got all 2 to drop"),
    ],
)
def test_bad_reasons_are_refused(reasons, message):
    with pytest.raises(ValueError, match=message):
        drop_sessions(make_sessions([3, 3]), reasons)
