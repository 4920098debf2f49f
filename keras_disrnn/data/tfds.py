"""Sessions from a TensorFlow Datasets split, such as those of `bandit_dopamine`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from keras_disrnn.data.sessions import Sessions, suggest

_REQUIRED = ("subject", "session", "choice", "reward")


def sessions_from_tfds(
    dataset: tf.data.Dataset | Iterable[Mapping],
    *,
    arms: int | None = None,
    reward_kind: str = "binary",
) -> Sessions:
    """Turns one split of a dataset, one example a session, into sessions.

    Args:
        dataset: Not batched: a `tf.data.Dataset`, as `tfds.load(name, split="train")` gives it, or
            an iterable of dicts of NumPy values. Each example has `subject` and `session` (strings;
            session ids are unique), `choice` and `reward` `(T,)`, and, in every example or none,
            `dopamine`, `(T,)` or `(T, signals)` with NaN where missing. `forced` and `missed`,
            bool `(T,)`, are read where every example has them. Anything else is passed over.
        arms: Number of arms; when None, one more than the largest choice, at least 2.
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
        optional = [n for n in ("dopamine", "forced", "missed") if n in example]
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
        subjects=[_text(name) for name in columns["subject"]],
        ids=[_text(name) for name in columns["session"]],
        arms=arms,
        reward_kind=reward_kind,
    )


def _check_example(example: Mapping, index: int):
    for name in _REQUIRED:
        if name not in example:
            there = [str(key) for key in example]
            raise ValueError(
                f"no feature {name!r} in example {index}, got {', '.join(there)}"
                f"{suggest(name, there)}"
            )
    for name, dimensions in (("session", 0), ("subject", 0), ("choice", 1), ("reward", 1)):
        shape = np.shape(example[name])
        if len(shape) != dimensions:
            raise ValueError(
                f"{name} must have {dimensions} dimensions in an example of one session, got shape "
                f"{shape} in example {index}; the dataset must not be batched"
            )


def _text(name) -> str:
    name = name.item() if isinstance(name, np.generic | np.ndarray) else name
    return name.decode() if isinstance(name, bytes) else str(name)
