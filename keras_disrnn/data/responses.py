"""Responses of trials: z-scores from the training sessions, and sessions with artefacts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from keras_disrnn.utils.checks import suggest, to_numbers
from keras_disrnn.utils.ids import factorize_ids, id_texts


def zscore(values: Any, sessions: Any, *, training: Collection[Any], by: Any = None) -> np.ndarray:
    """Scale responses by the mean and the standard deviation of the training sessions.

    Args:
        values: Responses, `(N,)`; NaN where missing.
        sessions: The session of each response, `(N,)`.
        training: Ids of the sessions that give the mean and the deviation, such as `train.ids` of a
            split. Other sessions have no influence on them.
        by: Group of each response, `(N,)`, such as the subject. Each group has its own mean and
            deviation. None for one group.

    Returns:
        float64 `(N,)`.

    Raises:
        ValueError: If a training session is not in the data, or a group has fewer than 2 different
            training responses.

    Example:
        >>> import keras_disrnn
        >>> scores = keras_disrnn.data.zscore([1, 3, 5], ["a", "a", "b"], training=["a"])
        >>> scores.round(2).tolist()
        [-0.71, 0.71, 2.12]
    """
    _check_rows("sessions", values, sessions)
    _check_rows("by", values, by)
    values = _responses(values)
    names = _names("sessions", sessions)
    groups = np.zeros(len(values), int) if by is None else _names("by", by)
    for name, array in (("sessions", names), ("by", groups)):
        if array.shape != values.shape:
            raise ValueError(
                f"{name}: expected an entry for each of the {len(values)} values, got {len(array)}"
            )
    training = id_texts("training", training)
    known = list(dict.fromkeys(names.tolist()))
    for name in training:
        if name not in known:
            raise ValueError(
                f"training: expected sessions of these responses, got {name!r}"
                f"{suggest(name, known)}"
            )
    fits = np.isin(names, training) & np.isfinite(values)
    result = np.empty(len(values))
    for group in dict.fromkeys(groups.tolist()):
        inside = groups == group
        used = values[inside & fits]
        deviation = used.std(ddof=1) if len(used) > 1 else 0.0
        if not deviation > 0:
            of = "" if by is None else f" of {group!r}"
            raise ValueError(
                f"values: expected training responses{of} that differ, got {len(used)} with "
                f"deviation {deviation:g}; add a session{of} to the training sessions, or leave "
                "by= out"
            )
        result[inside] = (values[inside] - used.mean()) / deviation
    return result


def find_artefacts(
    values: Any,
    sessions: Any,
    *,
    most: float = 2.0,
    least: float = 0.1,
    missing: float = 0.5,
) -> dict[str, str]:
    """Find sessions whose signal looks like an artefact or a dead fibre, without dropping them.

    Pass the signal around the events, as `align` returns it: subtracting a baseline hides slow
    artefacts.

    Args:
        values: `(N,)` responses or `(N, P)` windows around N events; NaN where missing.
        sessions: The session of each event, `(N,)`.
        most: A session is found if its standard deviation is above this factor times the median
            session's.
        least: It is found if its standard deviation is below this factor times it (a dead signal).
        missing: It is found if more than this fraction of its values is missing.

    Returns:
        The reason for each session found, by id, in the order of the data, for `drop_sessions`.

    Raises:
        ValueError: If `sessions` does not have one entry per event.

    Example:
        >>> import keras_disrnn
        >>> values = [1, 2, 1, 2, float("nan"), 3]
        >>> keras_disrnn.data.find_artefacts(values, list("aabbcc"), missing=0.4)
        {'c': '50% of the signal is missing'}
    """
    _check_rows("sessions", values, sessions)
    values, names = _responses(values), _names("sessions", sessions)
    if values.ndim not in (1, 2) or names.shape != values.shape[:1]:
        raise ValueError(
            "values: expected shape (events,) or (events, instants) and one session per event, got "
            f"shapes {values.shape} and {names.shape}"
        )
    width = 1 if values.ndim == 1 else values.shape[1]
    table = pd.DataFrame({"session": np.repeat(names, width), "value": values.ravel()})
    spread = table.groupby("session", sort=False)["value"].agg(["std", "count", "size"])
    usual = spread["std"].median()
    reasons = {}
    for name, row in spread.iterrows():
        absent = 1 - row["count"] / row["size"]
        if absent > missing:
            reasons[name] = f"{absent:.0%} of the signal is missing"
        elif row["std"] > most * usual or row["std"] < least * usual:
            reasons[name] = (
                f"standard deviation {row['std']:.3g}, {row['std'] / usual:.2g} times the median "
                f"session's {usual:.3g}"
            )
    return reasons


def _responses(values: Any) -> np.ndarray:
    try:
        return to_numbers(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"values: {error}; convert them to numbers first") from None


def _names(name: str, values: Any) -> np.ndarray:
    """Return ids as an array of text."""
    try:
        codes, names = factorize_ids(values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if (codes < 0).any():
        raise ValueError(
            f"{name}: expected a value in every row, got an empty one in row {np.argmax(codes < 0)}"
        )
    return np.asarray(names, object)[codes] if names else np.empty(0, object)


def _check_rows(name: str, values: Any, other: Any) -> None:
    """Raise ValueError if two columns of tables have their rows in different orders."""
    tables = pd.Series | pd.DataFrame
    both = isinstance(values, tables) and isinstance(other, pd.Series)
    if both and not values.index.equals(other.index):
        raise ValueError(
            f"{name}: expected the rows of the values, in their order, got another index; take "
            "both from one table"
        )
