"""Trials from arrays that are given session by session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_disrnn.data.trials import Trials
from keras_disrnn.utils.checks import to_numbers


def trials_from_arrays(
    choice: Sequence[Any],
    reward: Sequence[Any],
    *,
    ids: Sequence[str],
    dopamine: Sequence[Any] | None = None,
    forced: Sequence[Any] | None = None,
    missed: Sequence[Any] | None = None,
    observations: Sequence[Any] | None = None,
    observation_names: Sequence[str] | None = None,
    signal_names: Sequence[str] | None = None,
) -> Trials:
    """Join arrays that are given session by session.

    Args:
        choice: One array per session; see `Sessions.from_trials` for this and the others.
        reward: One array per session.
        ids: One id per session.
        dopamine: One array per session, or None.
        forced: One array per session, or None.
        missed: One array per session, or None.
        observations: One array per session, or None.
        observation_names: Names of the extra observations, or None.
        signal_names: Names of the signals, or None.

    Returns:
        The trials.

    Raises:
        ValueError: If the lengths disagree, or a value is not a number.
    """
    joined, lengths = _join("choice", choice, ids)
    flat = {"choice": joined}
    for name, arrays in (
        ("reward", reward),
        ("dopamine", dopamine),
        ("forced", forced),
        ("missed", missed),
        ("observations", observations),
    ):
        if arrays is not None:
            flat[name], _ = _join(name, arrays, ids, lengths)
    nothing = np.empty((len(joined), 0))
    responses, extra = flat.get("dopamine", nothing), flat.get("observations", nothing)
    if signal_names is None:
        signal_names = _number("dopamine", responses.shape[1], single="dopamine")
    if observation_names is None:
        observation_names = _number("observation", extra.shape[1], single="observation_1")
    for name, names, values in (
        ("observation_names", observation_names, extra),
        ("signal_names", signal_names, responses),
    ):
        if len(names) != values.shape[1]:
            raise ValueError(f"{name}: expected {values.shape[1]} names, got {tuple(names)!r}")
    return Trials(
        choice=flat["choice"][:, 0],
        reward=flat["reward"][:, 0],
        lengths=lengths,
        ids=ids,
        dopamine=responses,
        observations=extra,
        forced=flat["forced"][:, 0].astype(bool) if "forced" in flat else None,
        missed=flat["missed"][:, 0].astype(bool) if "missed" in flat else None,
        signal_names=signal_names,
        observation_names=observation_names,
    )


def _join(
    name: str, arrays: Sequence[Any], ids: Sequence[str], lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Join one array per session into float64 `(N, columns)`; return it and the lengths."""
    parts = []
    for index, array in enumerate(arrays):
        where = f"in session {ids[index]!r}"
        try:
            array = to_numbers(array)
        except (TypeError, ValueError):
            kind = getattr(array, "dtype", None)
            shown = repr(array) if kind is None else f"an array of {kind}"
            raise ValueError(f"{name}: expected numbers, got {shown} {where}") from None
        if array.ndim != 1 and not (array.ndim == 2 and name in ("dopamine", "observations")):
            raise ValueError(
                f"{name}: expected shape (trials,) in each session, got {array.shape} {where}"
            )
        if lengths is None and not len(array):
            raise ValueError(f"{name}: expected at least 1 trial, got none {where}")
        if lengths is not None and len(array) != lengths[index]:
            raise ValueError(
                f"{name}: expected {lengths[index]} trials, as in choice, got {len(array)} {where}"
            )
        if name in ("forced", "missed") and not np.isin(array, (0, 1)).all():
            wrong = array[~np.isin(array, (0, 1))][0]
            raise ValueError(f"{name}: expected True or False, got {wrong} {where}")
        parts.append(array if array.ndim == 2 else array[:, None])
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) > 1:
        raise ValueError(f"{name}: expected as many columns in every session, got {widths}")
    return np.concatenate(parts), np.array([len(part) for part in parts])


def _number(name: str, count: int, *, single: str) -> tuple[str, ...]:
    """Return names for `count` columns."""
    return (single,) if count == 1 else tuple(f"{name}_{i}" for i in range(1, count + 1))
