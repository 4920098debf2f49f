"""The recordings of Parker et al. (2016), as published with Lee et al. (2019).

Dorsomedial dopamine of Parker, Cameron, Taliaferro et al. (2016), doi 10.1038/nn.4287, came out as
supplementary files of Lee, Mattar, Parker, Witten and Daw (2019), eLife 8:e42992: "Source data 1",
one row a timepoint at 15 Hz, and "Source data 2", one row a trial. Download them by hand from the
article.

Neither reader has ever been run on the original files, and the names of their columns were not
known when this was written: every name is a setting, and its default is a guess.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_disrnn.data.photometry import Photometry, Recording, preprocess, response
from keras_disrnn.data.table import read_table
from keras_disrnn.utils.checks import suggest


@dataclasses.dataclass(frozen=True)
class Source2Columns:
    """Where things stand in "Source data 2", one row a trial.

    Args:
        subject: The recording site, which stands for the subject.
        session: The session, numbered within or across sites.
        choice: The lever pressed.
        levers: What `choice` holds for arm 0 and for arm 1.
        reward: 1 where rewarded, else 0.
        signal: Columns of the z-scored signal locked to one event, in the order of time.
        times: Seconds after the event of each of these columns; None when `window` is None.
        window: Seconds after the event, (first, end), end not included: the dopamine response is
            the mean of the columns in it. None takes all of them.
        location: Column of the recording location, or None.
        keep_location: The location to read; the rows of others are left out. None reads all.

    Raises:
        ValueError: If names are missing, or the window has no column.
    """

    subject: str = "site"
    session: str = "session"
    choice: str = "choice"
    levers: tuple[str, str] = ("0", "1")
    reward: str = "reward"
    signal: str | Sequence[str] = "reward_signal"
    times: Sequence[float] | None = None
    window: tuple[float, float] | None = None
    location: str | None = None
    keep_location: str | None = None

    def __post_init__(self):
        if not self.signal_names:
            raise ValueError("Source2Columns.signal must name at least one column, got none")
        if len(self.levers) != 2 or self.levers[0] == self.levers[1]:
            raise ValueError(f"Source2Columns.levers must be two values, got {self.levers!r}")
        if (self.location is None) != (self.keep_location is None):
            raise ValueError("Source2Columns.location and keep_location must be given together")
        if (self.times is None) != (self.window is None):
            raise ValueError("Source2Columns.times and window must be given together")
        if self.times is not None:
            if len(self.times) != len(self.signal_names):
                raise ValueError(
                    f"Source2Columns.times must have a time for each of the "
                    f"{len(self.signal_names)} columns of signal, got {len(self.times)}"
                )
            if not self.in_window:
                raise ValueError(
                    f"Source2Columns.window must hold at least one of the times {self.times}, got "
                    f"{self.window}"
                )

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The columns of the signal."""
        return (self.signal,) if isinstance(self.signal, str) else tuple(self.signal)

    @property
    def in_window(self) -> list[str]:
        """The columns of the signal that the response is the mean of."""
        if self.times is None:
            return list(self.signal_names)
        first, end = self.window
        pairs = zip(self.signal_names, self.times, strict=True)
        return [name for name, time in pairs if first <= time < end]


@dataclasses.dataclass(frozen=True)
class Source1Columns:
    """Where things stand in "Source data 1", one row a timepoint.

    Event columns are 0 and 1; a run of ones is one event, at its first row.

    Args:
        subject: The recording site, which stands for the subject.
        session: The session, numbered within or across sites.
        signal: The GCaMP signal.
        trial_start: Event: a trial begins.
        ipsi, contra: Events: a press of the lever on the side of the recording (arm 0), on the
            other side (arm 1).
        reward: Event: a reward.
        rate: Rows a second.
    """

    subject: str = "site"
    session: str = "session"
    signal: str = "signal"
    trial_start: str = "trial_start"
    ipsi: str = "ipsi_press"
    contra: str = "contra_press"
    reward: str = "reward"
    rate: float = 15.0

    def __post_init__(self):
        if not self.rate > 0:
            raise ValueError(f"Source1Columns.rate must be above 0, got {self.rate!r}")


def read_source_data_2(
    path: str | os.PathLike | pd.DataFrame, columns: Source2Columns | None = None
) -> pd.DataFrame:
    """Reads "Source data 2", one row a trial. It has not been run on the original file.

    Args:
        path: The file, or a table already read.
        columns: Where things stand; `Source2Columns()` when None, whose names are guesses.

    Returns:
        One row a row of the file (of `keep_location`), in its order, with the columns `subject`,
        `session` (unique across subjects), `choice` (0 or 1), `reward` (0 or 1) and `dopamine` (in
        standard deviations, as published; NaN where a cell of the window is empty). Made for
        `sessions_from_table(table, Columns(dopamine="dopamine"))`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is not there, a cell is not as described, or the rows of a session
            do not stand together.
    """
    columns = Source2Columns() if columns is None else columns
    source, table = _read(path)
    optional = [] if columns.location is None else [columns.location]
    named = [columns.subject, columns.session, columns.choice, columns.reward]
    _check_columns(source, table, [*named, *columns.signal_names, *optional], "Source2Columns")
    if columns.location is not None:
        kept = table[columns.location].astype(str) == str(columns.keep_location)
        if not kept.any():
            there = sorted(map(str, table[columns.location].unique()))
            raise ValueError(
                f"{source}: no row of column {columns.location!r} is {columns.keep_location!r}, "
                f"there are {', '.join(map(repr, there[:10]))}"
            )
        table = table[kept]
    subject, session = _sessions(source, table, columns.subject, columns.session)
    return pd.DataFrame(
        {
            "subject": subject,
            "session": session,
            "choice": _levers(source, table, columns),
            "reward": _binary(source, table, columns.reward),
            "dopamine": np.column_stack(
                [_numbers(source, table, name) for name in columns.in_window]
            ).mean(axis=1),
        }
    )


def read_source_data_1(
    path: str | os.PathLike | pd.DataFrame,
    columns: Source1Columns | None = None,
    photometry: Photometry | None = None,
) -> pd.DataFrame:
    """Reads "Source data 1", one row a timepoint. It has not been run on the original file.

    A trial goes from one trial start to the row before the next, or the end of the session. Its
    choice is its first press; without a press it is a missed trial. It is rewarded where a reward
    comes in it. The response is locked to the press.

    Args:
        path: The file, or a table already read.
        columns: Where things stand; `Source1Columns()` when None, whose names are guesses.
        photometry: How the signal becomes a response; `Photometry()` when None.

    Returns:
        One row a trial, in order, with the columns `subject`, `session`, `trial` (from 0),
        `choice` and `reward` (NaN where missed), `missed`, `press_time` (seconds since the start
        of the session) and `dopamine`. Made for `sessions_from_table(table,
        Columns(dopamine="dopamine", missed="missed", trial="trial"))`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is not there, a cell is not as described, both levers are pressed
            at once, or a press or reward comes before the first trial of its session.
    """
    columns = Source1Columns() if columns is None else columns
    photometry = Photometry() if photometry is None else photometry
    source, table = _read(path)
    names = [getattr(columns, f.name) for f in dataclasses.fields(columns) if f.name != "rate"]
    _check_columns(source, table, names, "Source1Columns")
    subject, session = _sessions(source, table, columns.subject, columns.session)
    signal = _numbers(source, table, columns.signal)
    events = {
        role: _binary(source, table, getattr(columns, role))
        for role in ("trial_start", "ipsi", "contra", "reward")
    }
    codes, ids = pd.factorize(session)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    parts = []
    for first, last in zip(starts, np.append(starts[1:], len(table)), strict=True):
        here = slice(first, last)
        onsets = {
            role: np.flatnonzero(np.diff(values[here], prepend=0) > 0)
            for role, values in events.items()
        }
        recording = Recording(
            np.arange(last - first) / columns.rate,
            signal[here],
            name=f"{source}: {ids[codes[first]]}",
        )
        part = _trials(recording, onsets, first, columns)
        press = part["press_time"].to_numpy()
        part["dopamine"] = response(preprocess(recording, photometry), press, photometry)
        part.insert(0, "subject", subject[first])
        part.insert(1, "session", session[first])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _trials(recording, onsets, first, columns) -> pd.DataFrame:
    """The trials of one session, from the rows at which its events begin."""
    trial_starts = onsets["trial_start"]
    if not len(trial_starts):
        raise recording.error(
            f"column {columns.trial_start!r} must be 1 where a trial begins, got 0 in every row"
        )
    both = np.intersect1d(onsets["ipsi"], onsets["contra"])
    if len(both):
        raise recording.error(
            f"{columns.ipsi!r} and {columns.contra!r} both begin in row {first + both[0]}; one "
            "press can be on one lever only"
        )
    presses = np.union1d(onsets["ipsi"], onsets["contra"])
    for role, rows in (("press", presses), ("reward", onsets["reward"])):
        if len(rows) and rows[0] < trial_starts[0]:
            raise recording.error(
                f"a {role} in row {first + rows[0]} comes before the first trial of its session, "
                f"in row {first + trial_starts[0]}; cut the rows before it off"
            )
    count = len(trial_starts)
    press_row = np.full(count, -1)
    owner = np.searchsorted(trial_starts, presses, side="right") - 1
    press_row[owner[::-1]] = presses[::-1]  # the first press of a trial is written last
    missed = press_row < 0
    rewarded = np.zeros(count)
    rewarded[np.searchsorted(trial_starts, onsets["reward"], side="right") - 1] = 1
    unearned = missed & (rewarded > 0)
    if unearned.any():
        trial = int(np.flatnonzero(unearned)[0])
        raise recording.error(
            f"trial {trial}, from row {first + trial_starts[trial]}, has a reward but no press; "
            "check the columns of the presses"
        )
    choice = np.isin(press_row, onsets["contra"]).astype(float)
    return pd.DataFrame(
        {
            "trial": np.arange(count),
            "choice": np.where(missed, np.nan, choice),
            "reward": np.where(missed, np.nan, rewarded),
            "missed": missed,
            "press_time": np.where(missed, np.nan, press_row / columns.rate),
        }
    )


def _read(path) -> tuple[str, pd.DataFrame]:
    if isinstance(path, pd.DataFrame):
        return "table", path.reset_index(drop=True)
    return os.fspath(path), read_table(path)


def _check_columns(source, table, names, settings):
    there = list(map(str, table.columns))
    for name in names:
        if name not in there:
            raise ValueError(
                f"{source}: no column {name!r}, got the columns {', '.join(there[:30])}"
                f"{', ...' if len(there) > 30 else ''}{suggest(str(name), there)}; say with "
                f"{settings} which is which"
            )


def _sessions(source, table, subject, session) -> tuple[np.ndarray, np.ndarray]:
    """The subject and the session of each row; sessions are unique across subjects."""
    for name in (subject, session):
        empty = table[name].isna().to_numpy()
        if empty.any():
            raise ValueError(
                f"{source}: column {name!r} must be filled in every row, got an empty cell in row "
                f"{_row(table, empty)}"
            )
    owner = table[subject].astype(str).to_numpy(object)
    joined = owner + " " + table[session].astype(str).to_numpy(object)
    codes, ids = pd.factorize(joined)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(starts) > len(ids):
        again = np.zeros(len(codes), bool)
        again[starts[pd.Series(codes[starts]).duplicated().to_numpy()]] = True
        raise ValueError(
            f"{source}: the rows of a session must stand together, got session "
            f"{joined[np.flatnonzero(again)[0]]!r} again in row {_row(table, again)}; sort the rows"
        )
    return owner, joined


def _levers(source, table, columns) -> np.ndarray:
    text = table[columns.choice].map(_plain).to_numpy(object)
    levers = [_plain(lever) for lever in columns.levers]
    unknown = ~np.isin(text, levers)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise ValueError(
            f"{source}: column {columns.choice!r} must be one of {columns.levers}, got "
            f"{table[columns.choice].iloc[row]!r} in row {_row(table, unknown)}; name the two with "
            "Source2Columns.levers, and leave trials without a choice out of the table first"
        )
    return (text == levers[1]).astype(int)


def _plain(value) -> str:
    """A cell as text, whole numbers without a point."""
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _binary(source, table, name) -> np.ndarray:
    values = _numbers(source, table, name)
    wrong = ~np.isin(values, (0, 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{source}: column {name!r} must be 0 or 1 in every row, got {values[row]:g} in row "
            f"{_row(table, wrong)}"
        )
    return values.astype(int)


def _numbers(source, table, name) -> np.ndarray:
    column = table[name]
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wordy = np.isnan(values) & column.notna().to_numpy()
    if wordy.any():
        row = int(np.flatnonzero(wordy)[0])
        raise ValueError(
            f"{source}: column {name!r} must hold numbers, got {column.iloc[row]!r} in row "
            f"{_row(table, wordy)}"
        )
    return values


def _row(table, bad) -> int:
    """The first bad row, counted from 0 in the whole file."""
    return table.index[int(np.flatnonzero(bad)[0])]
