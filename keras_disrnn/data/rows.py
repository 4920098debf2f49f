"""The tie between sessions and the table that they were read from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from keras_disrnn.data.table_reader import numbers_of_column
from keras_disrnn.utils.ids import factorize_ids

if TYPE_CHECKING:
    from keras_disrnn.data.sessions import Sessions


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TableSource:
    """What a table is recognised by.

    Args:
        index: Its index.
        session: Its column of session ids.
        choice: Its column of choices.
        reward: Its column of rewards.
    """

    index: pd.Index
    session: str
    choice: str
    reward: str


def find_rows(
    name: str, data: pd.DataFrame | pd.Series, sessions: Sessions
) -> tuple[np.ndarray, ...]:
    """Find the rows of sessions in the table that they were read from, or in a column of it.

    Rows in another order are found by their index. A column shows nothing but its index, so it is
    refused if the index does not say where its rows belong.

    Args:
        name: The argument's name, for errors.
        data: The table, or a column.
        sessions: The sessions.

    Returns:
        For each session, int `(T,)`, the positions of its trials in `data`.

    Raises:
        ValueError: If the sessions are not from a table, or `data` are not of that table.
    """
    whole = isinstance(data, pd.DataFrame)
    what = "the table the sessions were read from" if whole else "a value for each row of the table"
    if sessions.rows is None:
        raise ValueError("sessions: expected sessions read from a table, got others")
    rows, source = np.concatenate(sessions.rows), sessions.source
    ends = np.cumsum(sessions.trials_per_session)[:-1]
    same = source is None or data.index.equals(source.index)
    long_enough = len(data) > rows.max()
    if same and not long_enough:
        raise _too_short(name, what, data, rows)
    differs = "the index has another order or other labels"
    if long_enough and (same or whole):
        found = _difference(data, sessions, rows) if isinstance(data, pd.DataFrame) else None
        if found is None and (same or _has_contents(data, sessions)):
            return tuple(np.split(rows, ends))
        differs = found or differs
    if source is not None and not same and data.index.is_unique and source.index.is_unique:
        by_label = data.index.get_indexer(source.index[rows])
        there = bool((by_label >= 0).all())
        if there and isinstance(data, pd.DataFrame) and _has_contents(data, sessions):
            if _difference(data, sessions, by_label) is None:
                return tuple(np.split(by_label, ends))
        # Labels that only number the rows may have been given anew.
        elif there and not _numbers_rows(source.index) and not _numbers_rows(data.index):
            return tuple(np.split(by_label, ends))
    if not long_enough:
        raise _too_short(name, what, data, rows)
    raise ValueError(
        f"{name}: expected {what}, in the order of that table, got other rows: {differs}; pass "
        "what the sessions were read from, neither sorted nor filtered"
    )


def _too_short(
    name: str, what: str, data: pd.DataFrame | pd.Series, rows: np.ndarray
) -> ValueError:
    return ValueError(f"{name}: expected {what}, with more than {rows.max()} rows, got {len(data)}")


def _numbers_rows(index: pd.Index) -> bool:
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _has_contents(data: pd.DataFrame | pd.Series, sessions: Sessions) -> bool:
    """Return whether a table has the columns that show what its rows are."""
    source = sessions.source
    if source is None or not isinstance(data, pd.DataFrame):
        return False
    there = set(map(str, data.columns))
    return {source.session, source.choice, source.reward} <= there


def _difference(table: pd.DataFrame, sessions: Sessions, rows: np.ndarray) -> str | None:
    """Say how rows of a table differ from the trials of sessions; None if they do not."""
    source = sessions.source
    if source is None:
        return None
    columns = {str(column): table[column] for column in table.columns}
    session = np.repeat(np.arange(len(sessions)), sessions.trials_per_session)
    if source.session in columns:
        try:
            codes, names = factorize_ids(columns[source.session].iloc[rows])
        except ValueError as error:
            return str(error)
        got = np.array([*names, None], object)[codes]
        wanted = np.asarray(sessions.ids, object)[session]
        wrong = np.flatnonzero(got != wanted)
        if len(wrong):
            at = wrong[0]
            return f"session {got[at]!r} in row {rows[at]}, expected session {wanted[at]!r}"
    trial = np.concatenate([np.arange(count) for count in sessions.trials_per_session])
    shown = sessions.features[session, trial + 1]
    for place, column in enumerate((source.choice, source.reward)):
        if column not in columns:
            continue
        values = numbers_of_column(columns[column].iloc[rows])[0].astype(np.float32)
        wrong = np.flatnonzero(~np.isnan(shown[:, place]) & (values != shown[:, place]))
        if len(wrong):
            at = wrong[0]
            return (
                f"{column} {values[at]:g} in row {rows[at]}, expected {shown[at, place]:g} (trial "
                f"{trial[at]} of session {sessions.ids[session[at]]!r})"
            )
    return None
