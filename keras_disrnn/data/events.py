"""Conversion of tables with one row per event to tables with one row per trial."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_disrnn.data.columns import EventSettings
from keras_disrnn.data.table_reader import TableReader, open_table
from keras_disrnn.utils.checks import check_number, suggest
from keras_disrnn.utils.files import check_new, write_text


def trials_from_events(
    events: pd.DataFrame | str | os.PathLike[str], settings: EventSettings
) -> pd.DataFrame:
    """Turn a table with one row per event into a table with one row per trial.

    The first choice event of a trial is its choice. A trial without one is missed. Events that
    `settings` does not name are ignored.

    Args:
        events: The table, or the path of a file for `read_table`.
        settings: The columns and the events.

    Returns:
        One row per trial, in order: `subject`, `session`, `trial` (from 0), `choice` and `reward`
        (NaN if missed), `forced` (if given) and `missed`. The times are `start_time`,
        `choice_time`, `reward_time` and `<event>_time` of each other event (the first in the
        trial; NaN without one). Read the table with `sessions_from_table` and
        `Columns(missed="missed", trial="trial")`.

    Raises:
        FileNotFoundError: If `events` is a path and there is no such file.
        TypeError: If `events` is neither a table nor a path.
        ValueError: If a column or an event is absent, or times fall within a session. Also if two
            arms are chosen at once, an event comes before the first trial of its session, or a
            trial has a reward but no choice.

    Example:
        >>> import keras_disrnn
        >>> import pandas as pd
        >>> names = ["trial_start", "right", "reward", "trial_start", "left"]
        >>> events = pd.DataFrame({"session": "m1-01", "time": [0.0, 1.2, 1.5, 5.0, 5.8],
        ...                        "event": names})
        >>> settings = keras_disrnn.data.EventSettings(arms={"left": 0, "right": 1}, subject=None)
        >>> trials = keras_disrnn.data.trials_from_events(events, settings)
        >>> trials[["choice", "reward", "choice_time"]].to_numpy().tolist()
        [[1.0, 1.0, 1.2], [0.0, 0.0, 5.8]]
    """
    reader = open_table("events", events, settings)
    sessions, ids, subjects = reader.sessions()
    time = reader.ordered("time", settings.time, sessions, ids, strict=False)
    codes, names = reader.categories("event")
    for name in settings.event_names:
        if name not in names:
            raise reader.origin.error(
                f"{reader.origin.label('event')}: expected an event {name!r}, got "
                f"{', '.join(map(repr, names[:20]))}{suggest(name, names)}"
            )
    kind = np.asarray(names, object)[codes]

    def refuse(bad: np.ndarray, expected: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise reader.origin.error(
                f"{reader.origin.label('event')}: expected {expected}, got {kind[row]!r} in row "
                f"{row} (session {ids[sessions[row]]!r})"
            )

    starts = np.flatnonzero(kind == settings.start)
    trial = np.cumsum(kind == settings.start) - 1
    early = np.isin(kind, settings.event_names) & (
        (trial < 0) | (sessions[starts[trial]] != sessions)
    )
    refuse(early, "the first trial of the session before any other event")

    def first(rows: np.ndarray) -> np.ndarray:
        """Return the first of the given rows in each trial; -1 if there is none."""
        found = np.full(len(starts), -1)
        found[trial[rows][::-1]] = rows[::-1]
        return found

    def times(rows: np.ndarray) -> np.ndarray:
        return np.where(rows < 0, np.nan, time[rows])

    arm = _read_arms(reader, settings, kind)
    presses = np.flatnonzero(~np.isnan(arm))
    choice = first(presses)
    rival = np.zeros(len(kind), bool)
    chosen = choice[trial[presses]]
    rival[presses] = (time[presses] == time[chosen]) & (arm[presses] != arm[chosen])
    refuse(rival, "one choice at a time")
    missed = choice < 0
    rewards = np.flatnonzero(kind == settings.reward)
    unearned = np.zeros(len(kind), bool)
    unearned[rewards] = missed[trial[rewards]]
    refuse(unearned, "a reward only in trials with a choice")
    reward = np.zeros(len(starts))
    if settings.amounts and settings.value is not None:
        amounts = reader.numbers("value", settings.value, kind != settings.reward)
        np.add.at(reward, trial[rewards], amounts[rewards])
    else:
        reward[trial[rewards]] = 1
    if settings.missed is not None:
        marked = first(np.flatnonzero(kind == settings.missed)) >= 0
        differs = np.zeros(len(kind), bool)
        differs[starts[marked != missed]] = True
        expected = f"either a choice or the event {settings.missed!r} in the trial"
        refuse(differs, expected)
    owner = sessions[starts]
    table = pd.DataFrame(
        {
            "subject": np.asarray(subjects, object)[owner],
            "session": np.asarray(ids, object)[owner],
            "trial": np.arange(len(starts)) - np.searchsorted(owner, owner),
            "choice": np.where(missed, np.nan, arm[choice]),
            "reward": np.where(missed, np.nan, reward),
        }
    )
    if settings.forced is not None:
        table["forced"] = first(np.flatnonzero(kind == settings.forced)) >= 0
    table["missed"] = missed
    table["start_time"] = time[starts]
    table["choice_time"] = times(choice)
    for column, name in (("reward", settings.reward), *((n, n) for n in settings.others)):
        table[f"{column}_time"] = times(first(np.flatnonzero(kind == name)))
    return table


def _read_arms(reader: TableReader, settings: EventSettings, kind: np.ndarray) -> np.ndarray:
    """Return the arm of each row, NaN for events that are not choices."""
    if settings.choice is None:
        return pd.Series(kind).map(settings.arms).to_numpy(np.float64)
    rows = np.flatnonzero(kind == settings.choice)
    values = reader.table[settings.value].iloc[rows].map(_plain)
    arm = np.full(len(kind), np.nan)
    arm[rows] = values.map({str(key): arm for key, arm in settings.arms.items()})
    unknown = rows[np.isnan(arm[rows])]
    if len(unknown):
        raise reader.origin.error(
            f"{reader.origin.label('value')}: expected one of {', '.join(settings.arms)} for the "
            f"event {settings.choice!r}, got {reader.table[settings.value].iloc[unknown[0]]!r} in "
            f"row {unknown[0]}; name it in EventSettings.arms"
        )
    return arm


def _plain(value: Any) -> str:
    """Return a cell as text, with whole numbers written without a decimal point."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Samples:
    """The columns of a table with one row per sample."""

    subject: str | None
    session: str
    events: Sequence[str]

    def roles(self) -> list[tuple[str, str]]:
        subject = [] if self.subject is None else [("subject", self.subject)]
        return [*subject, ("session", self.session), *(("events", name) for name in self.events)]


def events_from_samples(
    samples: pd.DataFrame | str | os.PathLike[str],
    events: Sequence[str],
    *,
    rate: float,
    subject: str | None = "subject",
    session: str = "session",
) -> pd.DataFrame:
    """Turn a table with one row per sample into a table with one row per event.

    Args:
        samples: The table, or the path of a file for `read_table`. The rows of a session are
            adjacent and equally spaced in time.
        events: Columns of 0 and 1. Each run of ones is one event, at its first row.
        rate: Rows per second.
        subject: Column of the subject; None if there is only one.
        session: Column of the session id, unique across subjects.

    Returns:
        One row per event, in the order of time: `subject`, `session`, `time` (seconds since the
        start of the session) and `event` (the name of the column).

    Raises:
        ValueError: If a column is absent or does not hold 0 and 1, or `rate` is not above 0.

    Example:
        >>> import keras_disrnn
        >>> import pandas as pd
        >>> samples = pd.DataFrame({"session": "m1-01", "lick": [0, 1, 1, 0, 1]})
        >>> events = keras_disrnn.data.events_from_samples(samples, ["lick"], rate=2, subject=None)
        >>> events["time"].tolist()
        [0.5, 2.0]
    """
    if check_number("rate", rate, 0) == 0:
        raise ValueError(f"rate: expected a number above 0, got {rate!r}")
    columns = _Samples(subject=subject, session=session, events=tuple(events))
    reader = open_table("samples", samples, columns)
    sessions, ids, subjects = reader.sessions()
    first = np.searchsorted(sessions, sessions)
    rows, names = [], []
    for name in columns.events:
        values = reader.numbers("events", name)
        wrong = np.flatnonzero(~np.isin(values, (0, 1)))
        if len(wrong):
            raise reader.origin.error(
                f"{reader.origin.label('events', name)}: expected 0 or 1 in every row, got "
                f"{values[wrong[0]]:g} in row {wrong[0]}"
            )
        before = np.append(0, values[:-1])
        before[np.arange(len(values)) == first] = 0
        rows.append(np.flatnonzero(values > before))
        names += [name] * len(rows[-1])
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    row = row[order]
    return pd.DataFrame(
        {
            "subject": np.asarray(subjects, object)[sessions[row]],
            "session": np.asarray(ids, object)[sessions[row]],
            "time": (row - first[row]) / rate,
            "event": np.asarray(names, object)[order],
        }
    )


def write_trials(
    events: str | os.PathLike[str], out: str | os.PathLike[str], settings: EventSettings
) -> pd.DataFrame:
    r"""Read a file with one row per event and write a CSV file with one row per trial.

    Args:
        events: The file of events.
        out: The new CSV file.
        settings: The columns and the events.

    Returns:
        The table of trials.

    Raises:
        FileExistsError: If `out` exists.
        ValueError: If `out` does not end in .csv, or the events are not as described.

    Example:
        >>> import keras_disrnn, pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "events.csv").write_text(
        ...     "session,time,event\na,0,trial_start\na,1,left\na,2,trial_start\n"
        ...     "a,3,right\na,4,reward\n"
        ... )
        >>> settings = keras_disrnn.data.EventSettings(arms={"left": 0, "right": 1}, subject=None)
        >>> trials = keras_disrnn.data.write_trials(
        ...     folder / "events.csv", folder / "trials.csv", settings
        ... )
        >>> trials["choice"].tolist()
        [0.0, 1.0]
    """
    check_new(out, "file")
    if Path(out).suffix != ".csv":
        raise ValueError(f"{out}: expected a name that ends in .csv, got {Path(out).name!r}")
    table = trials_from_events(events, settings)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    write_text(out, table.to_csv(index=False))
    return table
