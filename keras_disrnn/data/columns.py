"""Settings that say which column of a table has which role.

The command line makes flags of them, so this module imports neither pandas nor NumPy.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any, Protocol


class TableColumns(Protocol):
    """Settings that say which column of a table has which role."""

    @property
    def subject(self) -> str | None:
        """Column of the subject, or None."""

    @property
    def session(self) -> str:
        """Column of the session id."""
        ...

    def roles(self) -> list[tuple[str, str]]:
        """Return pairs of a role and its column, one for each column in use."""
        ...


def check_roles(columns: TableColumns) -> None:
    """Check the roles that settings give to columns. Numbers as names become text.

    Args:
        columns: The settings, a dataclass with a field for each role.

    Raises:
        ValueError: If a name is not a string, or one column has two roles.
    """
    kind = type(columns).__name__
    role_of: dict[str, str] = {}
    for field in dataclasses.fields(columns):  # type: ignore[arg-type]
        name = getattr(columns, field.name)
        text: Any
        if isinstance(name, list | tuple):
            text = type(name)(str(each) if _is_number(each) else each for each in name)
        else:
            text = str(name) if _is_number(name) else name
        object.__setattr__(columns, field.name, text)
    for role, column in columns.roles():
        if not isinstance(column, str) or not column:
            raise ValueError(f"{kind}.{role}: expected the name of a column, got {column!r}")
        if column in role_of:
            hint = "; pass subject=None" if "subject" in (role_of[column], role) else ""
            raise ValueError(
                f"{kind}: expected one role per column, got {column!r} as both {role_of[column]} "
                f"and {role}{hint}"
            )
        role_of[column] = role


def _is_number(name: Any) -> bool:
    # NumPy's integers are Integral too.
    return isinstance(name, numbers.Integral) and not isinstance(name, bool)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventSettings:
    """The columns and the events of a table with one row per event.

    Args:
        arms: The arm, from 0, of each choice event: `{"left_press": 0, "right_press": 1}`. If
            `choice` is given, the arm of each value: `{"left": 0, "right": 1}`.
        choice: The one choice event, with the arm in the column `value`. None if each arm has its
            own event.
        start: The event that starts a trial. A trial ends at the next start, or with its session.
        reward: The event of a reward.
        amounts: Whether the column `value` holds the amount of each reward. Otherwise a trial's
            reward is 0 or 1.
        forced: The event that marks a forced choice; None if no choice was forced.
        missed: The event that marks a trial without a choice, to check it against the choices.
        others: Further events whose times are kept.
        subject: Column of the subject; None if there is only one.
        session: Column of the session id, unique across subjects. The rows of a session are
            adjacent and in temporal order.
        time: Column of the time, in seconds.
        event: Column of the event's name.
        value: Column of values; required with `choice` or `amounts`.

    Raises:
        ValueError: If a name is not a string, an event has two roles, there is only one arm, or
            `value` is required but absent.

    Example:
        >>> import keras_disrnn
        >>> settings = keras_disrnn.data.EventSettings(arms={"left": 0, "right": 1})
        >>> settings.event_names
        ('trial_start', 'left', 'right', 'reward')
    """

    arms: dict[str, int]
    choice: str | None = None
    start: str = "trial_start"
    reward: str = "reward"
    amounts: bool = False
    forced: str | None = None
    missed: str | None = None
    others: Sequence[str] = ()
    subject: str | None = "subject"
    session: str = "session"
    time: str = "time"
    event: str = "event"
    value: str | None = None

    def __post_init__(self) -> None:
        check_roles(self)
        if len(set(self.arms.values())) < 2:
            raise ValueError(f"EventSettings.arms: expected at least 2 arms, got {self.arms!r}")
        if self.value is None and (self.choice is not None or self.amounts):
            raise ValueError("EventSettings.value: expected a column (choice or amounts), got None")
        names = self.event_names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"EventSettings: expected one role per event, got {twice!r} twice")

    @property
    def event_names(self) -> tuple[str, ...]:
        """All events that have a role."""
        choices = tuple(self.arms) if self.choice is None else (self.choice,)
        optional = (name for name in (self.forced, self.missed) if name is not None)
        return (self.start, *choices, self.reward, *optional, *self.others)

    def roles(self) -> list[tuple[str, str]]:
        """Return pairs of a role and its column, one for each column in use."""
        names = ["session", "time", "event"]
        names += [role for role in ("subject", "value") if getattr(self, role) is not None]
        return [(role, getattr(self, role)) for role in names]
