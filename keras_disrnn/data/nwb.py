"""Neurodata Without Borders: the trials table and the photometry series of a file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_disrnn.data.photometry import photometry_responses
from keras_disrnn.data.recording import Photometry, Recording
from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.ids import factorize_ids, look_of


def read_nwb(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    series: str | None = None,
    event: str | None = None,
    channel: int | None = None,
    control: str | None = None,
    control_channel: int | None = None,
    photometry: Photometry | None = None,
) -> pd.DataFrame:
    """Read the trials tables of NWB files, with a dopamine response from a time series.

    This needs pynwb: `pip install 'keras-disrnn[nwb]'`.

    Args:
        paths: One file, or several files with one session each.
        series: Name of the time series of the signal, anywhere in the file; None for behaviour
            alone.
        event: Column of the trials table with the time of the event, in seconds on the clock of the
            file. It is required with `series`.
        channel: Column of the data of the series, from 0, if it has several.
        control: Name of the time series of the isosbestic channel, at the times of the signal.
        control_channel: Column of its data, if it has several.
        photometry: How the signal becomes a response; `Photometry()` if None.

    Returns:
        The trials tables, with all their rows and columns. Columns `subject` (the subject id of the
        file) and `session` (its session id, else its identifier) come first, unless the trials
        table has them. `dopamine` comes last if `series` is given. The table is made for
        `sessions_from_table`.

    Raises:
        ImportError: Without pynwb.
        FileNotFoundError: If there is no such file.
        ValueError: If a file is not a complete NWB file, or has no trials table or no subject id.
            Also if a series, channel or column is absent or not as described, or if the start
            times of the trials of a session fall.
            Also if a series, channel or column is absent or not as described, or two files have
            the same session id.

    Example:

    >>> import datetime, keras_disrnn, pathlib, pynwb, tempfile
    >>> start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    >>> file = pynwb.NWBFile("a bandit", "day 1", start, session_id="day 1")
    >>> file.subject = pynwb.file.Subject(subject_id="m1")
    >>> file.add_trial_column("choice", "the arm")
    >>> file.add_trial(start_time=0.0, stop_time=1.0, choice=1)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "day 1.nwb"
    >>> with pynwb.NWBHDF5IO(path, "w") as output:
    ...     output.write(file)
    >>> keras_disrnn.data.read_nwb(path)[["subject", "session", "choice"]].to_numpy().tolist()
    [['m1', 'day 1', 1]]
    """
    try:
        import pynwb
    except ImportError as error:
        raise ImportError(
            "read_nwb: expected the package pynwb, got none; install it with pip install "
            "'keras-disrnn[nwb]'"
        ) from error
    if (series is None) != (event is None):
        raise ValueError(
            f"series and event: expected both or none, got series={series!r} and event={event!r}"
        )
    if series is None and control is not None:
        raise ValueError(f"control: expected None without series, got {control!r}")
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise ValueError("paths: expected at least one file, got none")
    tables: list[pd.DataFrame] = []
    file_of: dict[str, tuple[str, pathlib.Path]] = {}
    for path in map(pathlib.Path, paths):
        if not path.is_file():
            here = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise FileNotFoundError(
                f"{path}: expected a file, got no such file{suggest(path.name, here)}"
            )
        try:
            reader = pynwb.NWBHDF5IO(str(path), mode="r")
        except Exception as error:  # HDF5, hdmf and pynwb raise various errors.
            raise _unreadable(path, error) from error
        with reader:
            try:
                file = reader.read()
            except Exception as error:
                raise _unreadable(path, error) from error
            table = _trials(path, file)
            if series is not None and event is not None:
                names = ((series, channel), (control, control_channel))
                recording = _recording(path, file, *names)
                try:
                    table["dopamine"] = photometry_responses(
                        table.assign(_file="it"),
                        {"it": recording},
                        event=event,
                        session="_file",
                        settings=photometry,
                    )
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from error
        _check_sessions(path, table, file_of)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: expected an NWB file, got one that could not be read ({error}); it may be cut "
        "short"
    )


def _trials(path: pathlib.Path, file: Any) -> pd.DataFrame:
    if file.trials is None or not len(file.trials):
        raise ValueError(
            f"{path}: expected a trials table (nwbfile.trials), got none; add one with "
            "nwbfile.add_trial"
        )
    table = file.trials.to_dataframe().reset_index(drop=True)
    if "session" not in table:
        table.insert(0, "session", file.session_id or file.identifier)
    if "subject" not in table:
        subject = None if file.subject is None else file.subject.subject_id
        if not subject:
            raise ValueError(
                f"{path}: expected a subject id (nwbfile.subject.subject_id), got none; add a "
                "column 'subject' to the trials table, or a Subject to the file"
            )
        table.insert(0, "subject", subject)
    _check_clock(path, table)
    return table


def _check_clock(path: pathlib.Path, table: pd.DataFrame) -> None:
    """Raise ValueError if the trials of a session do not come in the order of their start."""
    start = table["start_time"].to_numpy(np.float64)
    absent = np.flatnonzero(~np.isfinite(start))
    if len(absent):
        raise ValueError(
            f"{path}: trials column 'start_time': expected a finite number, got "
            f"{start[absent[0]]:g} in row {absent[0]}; correct it, or leave the trial out"
        )
    for session, part in table["start_time"].groupby(table["session"], sort=False):
        falls = np.flatnonzero(np.diff(part.to_numpy(np.float64)) < 0) + 1
        if len(falls):
            row = part.index[falls[0]]
            raise ValueError(
                f"{path}: trials column 'start_time': expected times that do not fall within a "
                f"session, got {start[row]:g} after {part.iloc[falls[0] - 1]:g} in row {row} "
                f"(session {str(session)!r}); sort the trials"
            )


def _check_sessions(
    path: pathlib.Path, table: pd.DataFrame, file_of: dict[str, tuple[str, pathlib.Path]]
) -> None:
    """Write the ids of a file as text, and refuse those of an earlier file.

    Args:
        path: The file.
        table: Its trials; its ids are replaced.
        file_of: The id and the file of each earlier session, by the look of its id. The sessions of
            this file are added.
    """
    for column in ("subject", "session"):
        try:
            codes, names = factorize_ids(table[column])
        except ValueError as error:
            raise ValueError(f"{path}: column {column!r}: {error}") from None
        table[column] = np.array([*names, None], object)[codes]
    for name in names:
        earlier, other = file_of.setdefault(look_of(name), (name, path))
        if other is not path:
            raise ValueError(
                f"{path}: expected a session id of its own, got {name!r}, and {other} has "
                f"{earlier!r}; name the sessions yourself: pd.concat([read_nwb(path).assign("
                "session=str(path)) for path in paths])"
            )


def _recording(
    path: pathlib.Path,
    file: Any,
    signal: tuple[str, int | None],
    control: tuple[Any, int | None],
) -> Recording:
    times, values = _series(path, file, *signal)
    other = None
    if control[0] is not None:
        control_times, other = _series(path, file, *control)
        same = len(control_times) == len(times) and np.allclose(control_times, times, atol=1e-3)
        if not same:
            raise ValueError(
                f"{path}: time series {control[0]!r}: expected the times of {signal[0]!r} "
                f"({len(times)} samples from {times[0]:g} s), got {len(control_times)} samples "
                f"from {control_times[0]:g} s; interpolate it first"
            )
    return Recording(times, values, control=other, name=f"{path}: {signal[0]}")


def _series(
    path: pathlib.Path, file: Any, name: str, channel: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the times and the values, in its own unit, of the time series of a name."""
    from pynwb import TimeSeries

    every = [thing for thing in file.objects.values() if isinstance(thing, TimeSeries)]
    found = [thing for thing in every if thing.name == name]
    if len(found) != 1:
        names = sorted(thing.name for thing in every)
        raise ValueError(
            f"{path}: expected one time series {name!r}, got {len(found)}; there are "
            f"{', '.join(map(repr, names[:20])) or 'none'}{suggest(name, names)}"
        )
    data = np.asarray(found[0].data)
    if data.dtype.kind not in "biuf" or data.ndim not in (1, 2) or not len(data):
        raise ValueError(
            f"{path}: time series {name!r}: expected numbers (samples,) or (samples, channels), "
            f"got {data.dtype} of shape {data.shape}"
        )
    if data.ndim == 2:
        if channel is None and data.shape[1] == 1:
            channel = 0
        if isinstance(channel, bool) or channel not in range(data.shape[1]):
            raise ValueError(
                f"{path}: time series {name!r}: expected a channel from 0 to {data.shape[1] - 1}, "
                f"got {channel!r}"
            )
        data = data[:, channel]
    elif channel not in (None, 0):
        raise ValueError(
            f"{path}: time series {name!r}: expected channel 0 or None (it has one), got "
            f"{channel!r}"
        )
    values = data.astype(np.float64) * found[0].conversion + found[0].offset
    if found[0].timestamps is not None:
        return np.asarray(found[0].timestamps, np.float64), values
    return found[0].starting_time + np.arange(len(values)) / found[0].rate, values
