"""Neurodata Without Borders: the trials table and the photometry series of a file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_disrnn.data.photometry import Photometry, Recording, photometry_responses
from keras_disrnn.utils.checks import suggest


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
    """Reads the trials tables of NWB files, with a dopamine response from a time series.

    Needs pynwb: `pip install 'keras-disrnn[nwb]'`.

    Args:
        paths: One file, or several, one a session, which are read one after the other.
        series: Name of the time series of the signal, wherever it stands in the file; None for
            behaviour alone.
        event: Column of the trials table with the time of the event, seconds on the file's clock;
            needed with `series`.
        channel: Column of the series' data, from 0, where it has several.
        control: Name of the time series of the isosbestic channel, at the times of the signal, if
            any.
        control_channel: Column of its data, where it has several.
        photometry: How the signal becomes a response; `Photometry()` when None.

    Returns:
        The trials tables, row for row and column for column, after the columns `subject` (the
        file's subject id) and `session` (its session id, else its identifier), where the trials
        table has none of these names; at the end `dopamine`, where `series` is given. Made for
        `sessions_from_table`.

    Raises:
        ImportError: Without pynwb.
        FileNotFoundError: If there is no such file.
        ValueError: If a file is no NWB file or cut short, has no trials table or no subject id, or
            a series, channel or column is absent or not as described.
    """
    try:
        import pynwb
    except ImportError as error:
        raise ImportError("reading .nwb needs pynwb: pip install 'keras-disrnn[nwb]'") from error
    if (series is None) != (event is None):
        raise ValueError(
            f"series and event must be given together, got series={series!r} and event={event!r}"
        )
    if series is None and control is not None:
        raise ValueError(f"control needs series, got control={control!r} alone")
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise ValueError("paths must name at least one file, got none")
    tables = []
    for path in map(pathlib.Path, paths):
        if not path.is_file():
            here = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise FileNotFoundError(f"{path}: no such file{suggest(path.name, here)}")
        try:
            reader = pynwb.NWBHDF5IO(str(path), mode="r")
        except Exception as error:  # whatever HDF5, hdmf or pynwb meet in a broken file
            raise _unreadable(path, error) from error
        with reader:
            try:
                file = reader.read()
            except Exception as error:
                raise _unreadable(path, error) from error
            table = _trials(path, file)
            if series is not None:
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
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _unreadable(path, error) -> ValueError:
    return ValueError(
        f"{path}: expected an NWB file, but it could not be read, it may be cut short: {error}"
    )


def _trials(path, file) -> pd.DataFrame:
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
    return table


def _recording(path, file, signal, control) -> Recording:
    times, values = _series(path, file, *signal)
    other = None
    if control[0] is not None:
        control_times, other = _series(path, file, *control)
        same = len(control_times) == len(times) and np.allclose(control_times, times, atol=1e-3)
        if not same:
            raise ValueError(
                f"{path}: time series {control[0]!r} must have the times of {signal[0]!r}, got "
                f"{len(control_times)} samples from {control_times[0]:g} s against {len(times)} "
                f"from {times[0]:g} s; interpolate it first"
            )
    return Recording(times, values, other, name=f"{path}: {signal[0]}")


def _series(path, file, name, channel) -> tuple[np.ndarray, np.ndarray]:
    """The times and the values, in the series' own unit, of a time series found by its name."""
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
            f"{path}: time series {name!r} must hold numbers (samples,) or (samples, channels), "
            f"got {data.dtype} of shape {data.shape}"
        )
    if data.ndim == 2:
        if channel is None and data.shape[1] == 1:
            channel = 0
        if isinstance(channel, bool) or channel not in range(data.shape[1]):
            raise ValueError(
                f"{path}: time series {name!r} has {data.shape[1]} channels; say which, from 0 to "
                f"{data.shape[1] - 1}, got {channel!r}"
            )
        data = data[:, channel]
    elif channel not in (None, 0):
        raise ValueError(f"{path}: time series {name!r} has one channel, got channel {channel!r}")
    values = data.astype(np.float64) * found[0].conversion + found[0].offset
    if found[0].timestamps is not None:
        return np.asarray(found[0].timestamps, np.float64), values
    return found[0].starting_time + np.arange(len(values)) / found[0].rate, values
