"""Reading of behaviour tables with one row per trial into `Sessions`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_disrnn.data.rows import TableSource
from keras_disrnn.data.sessions import Sessions, assemble
from keras_disrnn.data.table_reader import check_roles, open_table
from keras_disrnn.data.trials import Trials


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a table with one row per trial.

    Args:
        subject: The animal or person; None if there is only one.
        session: The session id, unique across subjects. The rows of a session are adjacent and
            in order.
        choice: The arm chosen, whole numbers from 0.
        reward: The reward, 0 or 1 unless the reader gets `reward_kind="real"`.
        dopamine: The response of the trial, a number; one column or several signals. Empty cells
            are missing values. None for behaviour alone.
        forced: True where the choice was instructed: an input to the model, but not a target.
        missed: True where no choice was made. If it is given, an empty choice counts as missed,
            too; without it, an empty choice is an error.
        trial: A number that rises within each session. It is used to check the order of rows.
        observations: Further columns of numbers that the model may read.

    Raises:
        ValueError: If a name is not a string, or one column has two roles.

    Example:
        >>> import keras_disrnn
        >>> keras_disrnn.data.Columns(choice="went_right", dopamine=["left", "right"]).signal_names
        ('left', 'right')
    """

    subject: str | None = "subject"
    session: str = "session"
    choice: str = "choice"
    reward: str = "reward"
    dopamine: str | Sequence[str] | None = None
    forced: str | None = None
    missed: str | None = None
    trial: str | None = None
    observations: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_roles(self)

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The dopamine columns."""
        if self.dopamine is None:
            return ()
        return (self.dopamine,) if isinstance(self.dopamine, str) else tuple(self.dopamine)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The columns of extra observations."""
        if isinstance(self.observations, str):
            return (self.observations,)
        return tuple(self.observations)

    def roles(self) -> list[tuple[str, str]]:
        """Return pairs of a role and its column, one for each column in use."""
        optional = ("subject", "forced", "missed", "trial")
        names = ["session", "choice", "reward"]
        names += [role for role in optional if getattr(self, role) is not None]
        pairs = [(role, getattr(self, role)) for role in names]
        pairs += [("dopamine", column) for column in self.signal_names]
        pairs += [("observations", column) for column in self.observation_names]
        return pairs


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
        reward_kind: "binary" (rewards are 0 or 1) or "real" (any finite reward).

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
    codes, ids, subjects = reader.sessions()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if columns.trial is not None:
        reader.ordered("trial", columns.trial, codes, ids, strict=True)

    missed = reader.flags("missed")
    choice = reader.numbers("choice", columns.choice, missed)
    skipped = None if missed is None else missed | np.isnan(choice)

    def read(role: str, names: Sequence[str]) -> np.ndarray:
        read = [reader.numbers(role, name, skipped) for name in names]
        return np.column_stack(read) if read else np.empty((len(choice), 0))

    trials = Trials(
        choice=choice,
        reward=read("reward", [columns.reward])[:, 0],
        lengths=np.diff(starts, append=len(choice)),
        ids=ids,
        dopamine=read("dopamine", columns.signal_names),
        observations=read("observation", columns.observation_names),
        forced=reader.flags("forced"),
        missed=missed,
        signal_names=columns.signal_names,
        observation_names=columns.observation_names,
        origin=reader.origin,
    )
    return assemble(
        trials,
        subjects=subjects,
        num_arms=num_arms,
        reward_kind=reward_kind,
        rows=tuple(np.split(np.arange(len(choice)), starts[1:])),
        source=TableSource(
            index=reader.table.index,
            session=columns.session,
            choice=columns.choice,
            reward=columns.reward,
        ),
    )
