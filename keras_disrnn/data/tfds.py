"""Sessions from and for TensorFlow Datasets, such as `bandit_dopamine`: in memory or streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from keras_disrnn.data.sessions import REWARD_KINDS, Sessions
from keras_disrnn.utils.checks import check_integer, suggest

_REQUIRED = ("subject", "session", "choice", "reward")
_OPTIONAL = ("dopamine", "forced", "missed", "observations")


def sessions_from_tfds(
    dataset: tf.data.Dataset | Iterable[Mapping],
    *,
    num_arms: int | None = None,
    reward_kind: str = "binary",
) -> Sessions:
    """Turns one split of a dataset, one example a session, into sessions.

    Args:
        dataset: Not batched: a `tf.data.Dataset`, as `tfds.load(name, split="train")` gives it, or
            an iterable of dicts of NumPy values. Each example has `subject` and `session` (strings;
            session ids are unique), `choice` and `reward` `(T,)`, and, in every example or none,
            `dopamine`, `(T,)` or `(T, signals)` with NaN where missing. `forced` and `missed`,
            bool `(T,)`, and `observations`, `(T, extra)`, are read where every example has them.
            Anything else is passed over.
        num_arms: Number of arms; when None, one more than the largest choice, at least 2.
        reward_kind: "binary" (rewards are 0 or 1) or "real" (any finite reward).

    Returns:
        The sessions, in the order of the dataset.

    Raises:
        ValueError: If the dataset is empty, batched, a dict of splits, lacks a feature, or a value
            is not as described.

    Example:
        >>> example = {"subject": b"m1", "session": b"m1-1", "choice": [0, 1], "reward": [1.0, 0.0]}
        >>> sessions_from_tfds([example]).ids
        ('m1-1',)
    """
    if isinstance(dataset, Mapping):
        raise ValueError(
            f"dataset must be one split, got a dict with the keys {', '.join(map(str, dataset))}; "
            "pick one, for example with tfds.load(..., split='train')"
        )
    examples = dataset.as_numpy_iterator() if isinstance(dataset, tf.data.Dataset) else dataset
    columns: dict[str, list] = {}
    for index, example in enumerate(examples):
        if not isinstance(example, Mapping):
            raise ValueError(
                f"dataset must hold dicts, got {type(example).__name__} in example {index}; do not "
                "pass as_supervised=True"
            )
        _check_example(example, index)
        optional = [name for name in _OPTIONAL if name in example]
        names = (*_REQUIRED, *optional)
        if columns and set(names) != set(columns):
            odd = sorted(set(names) ^ set(columns))
            raise ValueError(
                f"every example must have the same features, got example {index} to differ from "
                f"those before it in {', '.join(odd)}"
            )
        for name in names:
            columns.setdefault(name, []).append(example[name])
    if not columns:
        raise ValueError("dataset must hold at least one session, got none")
    return Sessions.from_trials(
        columns["choice"],
        columns["reward"],
        dopamine=columns.get("dopamine"),
        forced=columns.get("forced"),
        missed=columns.get("missed"),
        observations=columns.get("observations"),
        subjects=[_text(name) for name in columns["subject"]],
        ids=[_text(name) for name in columns["session"]],
        num_arms=num_arms,
        reward_kind=reward_kind,
    )


def stream_from_tfds(
    dataset: tf.data.Dataset,
    batch_size: int,
    *,
    trials: int | None = None,
    num_arms: int = 2,
    reward_kind: str = "binary",
    subject_names: Sequence[str] = (),
) -> tf.data.Dataset:
    """Turns one split of a dataset into batches for `fit`, without ever holding all of it.

    The batches are those of `sessions_from_tfds(dataset).dataset(batch_size)`, but each is made
    when it is asked for, so memory does not grow with the number of sessions. Shuffle and repeat
    the split before it is given.

    Args:
        dataset: As for `sessions_from_tfds`, but a `tf.data.Dataset`.
        batch_size: Sessions in a batch, at least 1. The last batch may be smaller.
        trials: Trials that every session is padded to, so that all batches have one shape; when
            None, each batch is padded to its longest session.
        num_arms: Number of arms, at least 2. It cannot be taken from choices that are not there yet.
        reward_kind: "binary" (rewards are 0 or 1) or "real" (any finite reward).
        subject_names: For a model of several subjects its `subject_names`: the last feature is then
            each session's subject's place among them, as `Sessions.for_model` has it.

    Returns:
        A `tf.data.Dataset` of `(x, y, sample_weight)` as `Sessions.dataset` describes it, in the
        order of the split.

    Raises:
        ValueError: If the dataset is batched, a dict of splits, lacks a feature, or an argument is
            out of range.
        tf.errors.InvalidArgumentError: While it is read, if a value is not as described; the
            message names the session.

    Example:
        >>> split = tfds.load("bandit_dopamine/large", split="train", shuffle_files=True)
        >>> batches = stream_from_tfds(split.shuffle(1000).repeat(), 100)
        >>> model.fit(batches, steps_per_epoch=1000, epochs=10)
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("num_arms", num_arms, 2)
    if trials is not None:
        check_integer("trials", trials, 1)
    if reward_kind not in REWARD_KINDS:
        raise ValueError(f"reward_kind must be one of {REWARD_KINDS}, got {reward_kind!r}")
    if not isinstance(dataset, tf.data.Dataset) or not isinstance(dataset.element_spec, Mapping):
        spec = getattr(dataset, "element_spec", type(dataset).__name__)
        raise ValueError(
            f"dataset must be one split, a tf.data.Dataset of dicts, got {spec}; pick one with "
            "tfds.load(..., split='train')"
        )
    spec = {name: dataset.element_spec[name] for name in dataset.element_spec}
    _check_example(spec, None)
    subject_names = tuple(subject_names)
    by_trial = (*_REQUIRED[2:], *(name for name in _OPTIONAL if name in spec))

    def read(example):
        session = example["session"]
        length = tf.shape(example["choice"])[0]
        picked = {"session": session, "subject": example["subject"], "length": length}
        for name in by_trial:
            values = example[name]
            if name not in ("choice", "forced", "missed"):
                values = tf.cast(values, tf.float32)
            if values.shape.rank == 1 and name in ("dopamine", "observations"):
                values = values[:, None]
            tf.debugging.assert_equal(
                tf.shape(values)[0],
                length,
                tf.strings.join([f"{name} must have as many trials as choice, session ", session]),
            )
            picked[name] = values
        if trials is not None:
            message = [
                f"trials={trials} must be at least those of every session, session ",
                session,
            ]
            tf.debugging.assert_less_equal(length, trials, tf.strings.join(message))
        return picked

    def lay_out(batch):
        choice, reward = batch["choice"], batch["reward"]
        within = tf.sequence_mask(batch["length"], tf.shape(choice)[1])
        made = within & ~batch["missed"] if "missed" in batch else within
        free = made & ~batch["forced"] if "forced" in batch else made
        choice = tf.cast(choice, tf.int32)

        def check(good, message):
            check_sessions(tf.reduce_all(good | ~made, axis=1), message)

        def check_sessions(good, message):
            bad = ~good
            which = tf.strings.reduce_join(tf.boolean_mask(batch["session"], bad), separator=", ")
            tf.debugging.Assert(~tf.reduce_any(bad), [message + ", not so in session", which])

        check((choice >= 0) & (choice < num_arms), f"choice must be from 0 to {num_arms - 1}")
        check(tf.math.is_finite(reward), "reward must be finite")
        if reward_kind == "binary":
            check((reward == 0) | (reward == 1), "reward must be 0 or 1 with reward_kind='binary'")
        observed = [tf.stack([tf.cast(choice, tf.float32), reward], axis=-1)]
        if "observations" in batch:
            finite = tf.reduce_all(tf.math.is_finite(batch["observations"]), axis=-1)
            check(finite, "observations must be finite")
            observed.append(batch["observations"])
        observed = tf.concat(observed, axis=-1)
        # Row 0 comes before the first trial; row k + 1 tells of trial k.
        features = tf.pad(tf.where(made[..., None], observed, np.nan), [[0, 0], [1, 0], [0, 0]])
        if subject_names:
            same = batch["subject"][:, None] == tf.constant(subject_names)
            listed = ", ".join(subject_names[:10]) + (", ..." if len(subject_names) > 10 else "")
            check_sessions(tf.reduce_any(same, axis=1), f"subject must be one of {listed}")
            index = tf.argmax(tf.cast(same, tf.int32), axis=1)
            index = tf.cast(index, tf.float32)[:, None, None]
            told = tf.where(tf.math.is_nan(features[..., :1]), np.nan, index)
            features = tf.concat([features, told], axis=-1)
        target = {"choice": tf.pad(tf.where(free, choice, 0), [[0, 0], [0, 1]])}
        weight = {"choice": tf.pad(tf.cast(free, tf.float32), [[0, 0], [0, 1]])}
        if "dopamine" in batch:
            dopamine = batch["dopamine"]
            no_value_is_infinite = tf.reduce_all(~tf.math.is_inf(dopamine), axis=-1)
            check(no_value_is_infinite, "dopamine must be finite, or NaN where missing")
            counted = made[..., None] & ~tf.math.is_nan(dopamine)
            after = [[0, 0], [1, 0], [0, 0]]
            target["dopamine"] = tf.pad(tf.where(counted, dopamine, 0), after)
            weight["dopamine"] = tf.pad(tf.cast(counted, tf.float32), after)
        return features, target, weight

    # tf.data runs on the host.
    with tf.device("CPU:0"):
        examples = dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        shapes = {"session": [], "subject": [], "length": []}
        for name in by_trial:
            shapes[name] = [trials, *examples.element_spec[name].shape[1:]]
        batches = examples.padded_batch(batch_size, padded_shapes=shapes)
        return batches.map(lay_out, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def examples_from_sessions(sessions: Sessions) -> Iterator[dict]:
    """Turns sessions into the examples that `sessions_from_tfds` reads.

    Args:
        sessions: The data set.

    Yields:
        For each session a dict of `subject` and `session` (strings), `choice` int32, `reward`
        float32, `forced` and `missed` bool, each `(T,)`, and, where there are any, `dopamine`
        float32, `(T,)` or `(T, signals)`, NaN where missing, and `observations` `(T, extra)`.
        Choice and reward of a missed trial are 0.
    """
    # The subject goes by its name.
    sessions = sessions.with_subjects(())
    for index, trials in enumerate(sessions.trials_per_session):
        # Row k + 1 tells of trial k.
        described = sessions.features[index, 1 : trials + 1]
        missed = np.isnan(described[:, 0])
        described = np.where(missed[:, None], np.float32(0), described)
        example = {
            "subject": sessions.subjects[index],
            "session": sessions.ids[index],
            "choice": described[:, 0].astype(np.int32),
            "reward": described[:, 1],
            "forced": ~missed & (sessions.choice_weight[index, :trials] == 0),
            "missed": missed,
        }
        if sessions.num_signals:
            values = sessions.dopamine[index, 1 : trials + 1]
            counted = sessions.dopamine_weight[index, 1 : trials + 1] > 0
            values = np.where(counted, values, np.float32(np.nan))
            example["dopamine"] = values[:, 0] if sessions.num_signals == 1 else values
        if sessions.num_observations > 2:
            example["observations"] = described[:, 2:]
        yield example


def _check_example(example: Mapping, index: int | None):
    where = "" if index is None else f" in example {index}"
    for name in _REQUIRED:
        if name not in example:
            there = [str(key) for key in example]
            raise ValueError(
                f"no feature {name!r}{where or ' in the dataset'}, got {', '.join(there)}"
                f"{suggest(name, there)}"
            )
    for name, dimensions in (("session", 0), ("subject", 0), ("choice", 1), ("reward", 1)):
        shape = example[name].shape if index is None else np.shape(example[name])
        if len(shape) != dimensions:
            raise ValueError(
                f"{name} must have {dimensions} dimensions in an example of one session, got shape "
                f"{shape}{where}; the dataset must not be batched"
            )


def _text(name) -> str:
    name = name.item() if isinstance(name, np.generic | np.ndarray) else name
    return name.decode() if isinstance(name, bytes) else str(name)
