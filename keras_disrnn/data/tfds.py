"""Sessions from and for TensorFlow Datasets, such as `bandit_dopamine`: in memory or streamed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_disrnn.data.arrays import trials_from_arrays
from keras_disrnn.data.duplicates import SeenSessions
from keras_disrnn.data.sessions import Sessions
from keras_disrnn.data.trials import (
    add_subject,
    check_reward_kind,
    subject_index,
)
from keras_disrnn.utils.checks import check_integer, suggest
from keras_disrnn.utils.ids import id_texts

if TYPE_CHECKING:
    import tensorflow as tf

_REQUIRED = ("subject", "session", "choice", "reward")
_OPTIONAL = ("dopamine", "forced", "missed", "observations")
FEATURES = (*_REQUIRED, *_OPTIONAL)
"""The features of an example that are read."""


def sessions_from_tfds(
    dataset: tf.data.Dataset | Iterable[Mapping[str, Any]],
    *,
    num_arms: int | None = None,
    reward_kind: str = "binary",
) -> Sessions:
    """Read one split of a dataset, one example per session, into sessions.

    Args:
        dataset: A split that is not batched: a `tf.data.Dataset`, as `tfds.load(name,
            split="train")` returns it, or an iterable of dicts of NumPy values. Each example has
            `subject` and `session` (strings; session ids are unique) and `choice` and `reward`,
            `(T,)`. Either every example or none has `dopamine`, `(T,)` or `(T, signals)` with NaN
            where missing; `forced` and `missed`, bool `(T,)`; and `observations`, `(T, extra)`.
            Other features are ignored.
        num_arms: Number of arms; one more than the largest choice, at least 2, if None.
        reward_kind: "binary" (rewards are 0 or 1) or "real" (amounts up to 10,000).

    Returns:
        The sessions, in the order of the dataset.

    Raises:
        ValueError: If the dataset is empty, batched, a dict of splits, lacks a feature, or a value
            is not as described.

    Example:
        >>> import keras_disrnn
        >>> example = {"subject": b"m1", "session": b"m1-1", "choice": [0, 1], "reward": [1, 0]}
        >>> keras_disrnn.data.sessions_from_tfds([example]).ids
        ('m1-1',)
    """
    if isinstance(dataset, Mapping):
        raise ValueError(
            f"dataset: expected one split, got a dict with the keys {', '.join(map(str, dataset))};"
            " pick one, for example with tfds.load(..., split='train')"
        )
    read = getattr(dataset, "as_numpy_iterator", None)
    columns: dict[str, list] = {}
    for index, example in enumerate(dataset if read is None else read()):
        if not isinstance(example, Mapping):
            raise ValueError(
                f"dataset: expected dicts, got {type(example).__name__} in example {index}; do not "
                "pass as_supervised=True"
            )
        _check_example(example, index)
        names = (*_REQUIRED, *(name for name in _OPTIONAL if name in example))
        if columns and set(names) != set(columns):
            raise ValueError(
                f"dataset: expected the same features in every example, got a difference in "
                f"{', '.join(sorted(set(names) ^ set(columns)))} in example {index}"
            )
        for name in names:
            columns.setdefault(name, []).append(example[name])
    if not columns:
        raise ValueError("dataset: expected at least one session, got none")
    subjects, ids = (id_texts(name, columns.pop(name)) for name in ("subject", "session"))
    return Sessions.from_trials(
        **columns, subjects=subjects, ids=ids, num_arms=num_arms, reward_kind=reward_kind
    )


def stream_from_tfds(
    dataset: tf.data.Dataset,
    batch_size: int,
    *,
    num_trials: int | None = None,
    num_arms: int = 2,
    reward_kind: str = "binary",
    subject_names: Sequence[str] = (),
) -> tf.data.Dataset:
    """Make batches for `fit` from one split of a dataset, without holding all of it in memory.

    The batches are those of `sessions_from_tfds(dataset).dataset(batch_size)`. Each is made when it
    is needed, so memory grows only by a digest for each session id. Shuffle and repeat the split
    before you pass it. An id that comes again must have the same subject, choices and rewards.

    Args:
        dataset: As for `sessions_from_tfds`, but a `tf.data.Dataset`.
        batch_size: Sessions in a batch, at least 1. The last batch may be smaller.
        num_trials: Trials that every session is padded to, so that all batches have one shape. If
            None, each batch is padded to its longest session.
        num_arms: Number of arms, at least 2. It cannot be counted before all choices are read.
        reward_kind: "binary" (rewards are 0 or 1) or "real" (amounts up to 10,000).
        subject_names: For a model of several subjects, its `subject_names`. The last feature is
            then the index of each session's subject, as in `Sessions.for_model`.

    Returns:
        A `tf.data.Dataset` of `(x, y, sample_weight)`, as `Sessions.dataset` describes it, in the
        order of the split.

    Raises:
        ValueError: If the dataset is batched, a dict of splits, lacks a feature, or an argument is
            out of range.
        tf.errors.InvalidArgumentError: While it is read, if a value is not as described. The
            message is that of `sessions_from_tfds`.

    Example:
        >>> import keras_disrnn
        >>> import tensorflow as tf
        >>> split = tf.data.Dataset.from_tensors(
        ...     {"subject": "m1", "session": "m1-1", "choice": [0, 1], "reward": [1.0, 0.0]}
        ... )
        >>> for features, targets, weights in keras_disrnn.data.stream_from_tfds(split, 1):
        ...     print(features.shape)
        (1, 3, 2)
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("num_arms", num_arms, 2)
    if num_trials is not None:
        check_integer("num_trials", num_trials, 1)
    check_reward_kind(reward_kind)
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset) or not isinstance(dataset.element_spec, Mapping):
        spec = getattr(dataset, "element_spec", type(dataset).__name__)
        raise ValueError(
            f"dataset: expected one split, a tf.data.Dataset of dicts, got {spec}; pick one with "
            "tfds.load(..., split='train')"
        )
    _check_example(dataset.element_spec, None)
    seen = SeenSessions()
    by_trial = [n for n in (*_REQUIRED[2:], *_OPTIONAL) if n in dataset.element_spec]
    first_columns: dict[str, tuple[int, ...]] = {}

    said: set[str] = set()  # A warning of one batch is not repeated for each other batch.

    def add_shapes(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        shapes = {f"{name} shape": tf.shape(example[name]) for name in by_trial}
        return {name: example[name] for name in (*_REQUIRED[:2], *by_trial)} | shapes

    def lay_out(batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        subjects, ids = (id_texts(name, list(batch[name])) for name in ("subject", "session"))
        arrays = {
            name: [
                values[tuple(map(slice, shape))]
                for values, shape in zip(batch[name], batch[f"{name} shape"], strict=True)
            ]
            for name in by_trial
        }
        for name in by_trial:
            # The padding of a batch would fill absent columns with zeros.
            columns = {values.shape[1:] for values in arrays[name]}
            columns.add(first_columns.setdefault(name, arrays[name][0].shape[1:]))
            if len(columns) > 1:
                raise ValueError(
                    f"{name}: expected as many columns in every session, got "
                    f"{sorted(map(math.prod, columns))}"
                )
        trials = trials_from_arrays(**arrays, ids=ids)
        seen.check(ids, subjects, zip(arrays["choice"], arrays["reward"], strict=True))
        trials.check(num_arms=num_arms, reward_kind=reward_kind)
        trials.warn(said=said, whole=False)
        layout = trials.lay_out(num_trials)
        if subject_names:
            index = subject_index(subjects, ids, tuple(subject_names))
            layout["features"] = add_subject(layout["features"], index)
        return [layout[name] for name in names]

    def width(name: str) -> int | None:
        if name not in by_trial:
            return 0
        shape = dataset.element_spec[name].shape
        return 1 if shape.rank == 1 else shape[1]

    names = ["features", "choice", "choice_weight", "dopamine", "dopamine_weight"]
    time_steps = None if num_trials is None else num_trials + 1
    extra, signals = width("observations"), width("dopamine")
    observations = None if extra is None else 2 + extra + bool(subject_names)
    shapes = [[None, time_steps, observations], *2 * [[None, time_steps]]]
    shapes += 2 * [[None, time_steps, signals]]

    def batch(values: Mapping[str, tf.Tensor]) -> Any:
        keys = list(values)
        types = [tf.int32 if name == "choice" else tf.float32 for name in names]
        call = _with_names(keys, lay_out)
        layout = tf.numpy_function(call, [values[key] for key in keys], types)
        for tensor, shape in zip(layout, shapes, strict=True):
            tensor.set_shape(shape)
        features, choice, choice_weight, dopamine, dopamine_weight = layout
        target, weight = {"choice": choice}, {"choice": choice_weight}
        if "dopamine" in by_trial:
            target["dopamine"], weight["dopamine"] = dopamine, dopamine_weight
        return features, target, weight

    # tf.data runs on the host.
    with tf.device("CPU:0"):
        batches = dataset.map(add_shapes).padded_batch(batch_size)
        return batches.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _with_names(names: Sequence[str], function: Callable) -> Callable:
    """Return a function of values in the order of `names` that calls one of a dict."""
    return lambda *values: function(dict(zip(names, values, strict=True)))


def examples_from_sessions(sessions: Sessions) -> Iterator[dict[str, Any]]:
    """Turn sessions into the examples that `sessions_from_tfds` reads.

    Args:
        sessions: The data set.

    Yields:
        For each session a dict of `subject` and `session` (strings), `choice` int32, `reward`
        float32, `forced` and `missed` bool, each `(T,)`. If there are any, also `dopamine` float32,
        `(T,)` or `(T, signals)`, NaN where missing, and `observations`, `(T, extra)`. Choice and
        reward of a missed trial are 0.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1, 1]], [[1, 0, 1]])
        >>> [example] = keras_disrnn.data.examples_from_sessions(sessions)
        >>> example["choice"].tolist()
        [0, 1, 1]
    """
    # Examples hold the subject's name, so its index is not needed.
    sessions = sessions.with_subjects(())
    for index, trials in enumerate(sessions.trials_per_session):
        # Time step k + 1 describes trial k.
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


def _check_example(example: Mapping[str, Any], index: int | None) -> None:
    where = "the dataset" if index is None else f"example {index}"
    for name in _REQUIRED:
        if name not in example:
            there = [str(key) for key in example]
            raise ValueError(
                f"dataset: expected a feature {name!r}, got {', '.join(there)} in {where}"
                f"{suggest(name, there)}"
            )
    for name, dimensions in (("session", 0), ("subject", 0), ("choice", 1), ("reward", 1)):
        shape = example[name].shape if index is None else np.shape(example[name])
        if len(shape) != dimensions:
            raise ValueError(
                f"{name}: expected {dimensions} dimensions in an example, got shape {shape} in "
                f"{where}; an example is one session, so do not batch the dataset"
            )
