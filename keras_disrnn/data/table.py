"""Reading of behaviour tables with one row per trial into `Sessions`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_disrnn.data.columns import Columns
from keras_disrnn.data.rows import TableSource
from keras_disrnn.data.sessions import Sessions, assemble
from keras_disrnn.data.table_reader import TableReader, open_table
from keras_disrnn.data.trials import Trials


def sessions_from_table(
    table: pd.DataFrame | str | os.PathLike[str],
    columns: Columns | None = None,
    *,
    num_arms: int | None = None,
    reward_kind: str = "binary",
) -> Sessions:
    """Read a table with one row per trial into sessions.

    Everything is checked first. Errors name the column and the row. Rows count from 0, as in
    `DataFrame.iloc`, without the line of column names.

    A trial is missed if the missed column says so. If there is a missed column, a trial with an
    empty choice is missed too. Other cells of a missed trial are not read. The model skips it.

    Args:
        table: The table, or the path of a file for `read_table`.
        columns: The column of each role; `Columns()` if None.
        num_arms: Number of arms; one more than the largest choice, at least 2, if None.
        reward_kind: "binary" (rewards are 0 or 1) or "real" (amounts up to 10,000).

    Returns:
        The sessions, in the order of the table; `rows` holds each trial's position in it.

    Raises:
        FileNotFoundError: If `table` is a path and there is no such file.
        TypeError: If `table` is neither a table nor a path.
        ValueError: If the table is not as described.

    Example:
        >>> import keras_disrnn
        >>> import pandas as pd
        >>> table = pd.DataFrame({"animal": ["m1"] * 3, "day": [1, 1, 2], "choice": [0, 1, 1],
        ...                       "reward": [1, 0, 1]})
        >>> columns = keras_disrnn.data.Columns(subject="animal", session="day")
        >>> sessions = keras_disrnn.data.sessions_from_table(table, columns)
        >>> sessions.ids, sessions.trials_per_session.tolist()
        (('1', '2'), [2, 1])
    """
    columns = Columns() if columns is None else columns
    if not isinstance(columns, Columns):
        raise ValueError(f"columns: expected a Columns, got {columns!r}")
    reader = open_table("table", table, columns)
    source = TableSource(
        index=reader.table.index,
        session=columns.session,
        choice=columns.choice,
        reward=columns.reward,
    )
    trials, subjects = _read_trials(reader, columns)
    # A large table would need memory while the sessions are made.
    del reader, table
    rows = np.arange(len(trials.choice), dtype=np.int32)
    return assemble(
        trials,
        subjects=subjects,
        num_arms=num_arms,
        reward_kind=reward_kind,
        rows=tuple(np.split(rows, np.cumsum(trials.lengths)[:-1])),
        source=source,
    )


def _read_trials(reader: TableReader, columns: Columns) -> tuple[Trials, list[str]]:
    """Read the trials of a table, and the subject of each session."""
    codes, ids, subjects = reader.sessions()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if columns.trial is not None:
        reader.ordered("trial", columns.trial, codes, ids, strict=True)
    lengths = np.diff(starts, append=len(codes))
    del codes

    missed = reader.flags("missed")
    choice = reader.numbers("choice", columns.choice, missed)
    skipped = None if missed is None else missed | np.isnan(choice)

    def read(role: str, names: Sequence[str]) -> np.ndarray:
        if len(names) == 1:
            return reader.numbers(role, names[0], skipped)[:, None]
        read = [reader.numbers(role, name, skipped) for name in names]
        return np.column_stack(read) if read else np.empty((len(choice), 0))

    trials = Trials(
        choice=choice,
        reward=read("reward", [columns.reward])[:, 0],
        lengths=lengths,
        ids=ids,
        dopamine=read("dopamine", columns.signal_names),
        observations=read("observation", columns.observation_names),
        forced=reader.flags("forced"),
        missed=missed,
        signal_names=columns.signal_names,
        observation_names=columns.observation_names,
        origin=reader.origin,
    )
    return trials, subjects
