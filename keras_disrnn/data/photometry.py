"""Fibre photometry: from a signal and the times of events to one response per trial.

The pipeline: `Recording` (checks) -> `preprocess` (dF/F, detrend, high-pass) -> `align`
(interpolates around each event) -> `response` (mean over a window minus a baseline) -> `zscore`
(from the training sessions only). `photometry_responses` runs it on a whole table.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from keras_disrnn.data.recording import Photometry, Recording, instants
from keras_disrnn.utils.checks import suggest, to_numbers
from keras_disrnn.utils.ids import factorize_ids, id_texts
from keras_disrnn.utils.tables import check_columns

_MOST_MISSING = 20  # Missing samples per sample. More would fill the memory.
_FEW_STEPS = 0.1  # More steps above max_gap, as a fraction, are a sign of a slow recording.

# === Signal ===


def preprocess(recording: Recording, settings: Photometry) -> Recording:
    """Preprocess a signal: dF/F, then detrend, then high-pass.

    Filters interpolate missing samples, which are missing again afterwards. A gap of the clock
    longer than `settings.max_gap` is read as missing samples, so that filters keep its length.

    Args:
        recording: The signal as recorded.
        settings: What to do.

    Returns:
        The recording with its new signal and without its control.

    Raises:
        ValueError: If the control is needed but absent or constant, F0 is not above 0, or a corner
            frequency is not below half the sampling rate. Also if a filter would have to bridge a
            gap of many times the recording.

    Warns:
        UserWarning: If the control runs against the signal (see `fit_control`).

    Example:
        >>> import keras_disrnn
        >>> recording = keras_disrnn.data.Recording([0.0, 0.1, 0.2], [1.0, 2.0, 3.0])
        >>> settings = keras_disrnn.data.Photometry(reference="median")
        >>> keras_disrnn.data.preprocess(recording, settings).signal.tolist()
        [-0.5, 0.0, 0.5]
    """
    import scipy.signal

    recorded = recording
    filters = settings.detrend or settings.highpass_hz is not None or settings.reference == "slow"
    kept: Any = slice(None)
    if filters:
        recording, kept = _fill_gaps(recording, settings.max_gap)
    signal = recording.signal
    if settings.reference is not None:
        base = _f0(recording, settings)
        low = base <= 0
        if low.any():
            at = int(np.flatnonzero(low)[0])
            raise recording.error(
                f"F0 ({settings.reference}): expected values above 0, got {base[at]:g} at "
                f"{recording.times[at]:g} s; pass reference=None if the signal is dF/F already"
            )
        signal = (signal - base) / base
    missing = np.isnan(signal)
    if settings.detrend:
        signal = scipy.signal.detrend(_bridged(signal))
    if settings.highpass_hz is not None:
        signal = _filter(recording, signal, settings.highpass_hz, "highpass")
    signal = np.where(missing, np.nan, signal)[kept]
    return dataclasses.replace(recorded, signal=signal, control=None)


def _fill_gaps(recording: Recording, max_gap: float) -> tuple[Recording, np.ndarray | slice]:
    """Put missing samples where the clock has a gap.

    Filters count samples, so they would join both sides of it.

    Returns:
        The recording with the new samples, and the positions of the old ones.
    """
    times, step = recording.times, 1 / recording.rate
    steps = np.diff(times)
    absent = np.where(steps > max(max_gap, 1.5 * step), np.rint(steps / step) - 1, 0)
    if not absent.any():
        return recording, slice(None)
    if absent.sum() > _MOST_MISSING * len(times):
        at = int(np.argmax(steps))
        raise recording.error(
            f"times: expected gaps of at most {_MOST_MISSING} times the recording, got "
            f"{steps[at]:g} s without samples after {times[at]:g} s; cut the recording there, or "
            "correct the clock"
        )
    count = absent.astype(int)
    kept = np.arange(len(times)) + np.append(0, np.cumsum(count))
    everything = np.interp(np.arange(kept[-1] + 1), kept, times)

    def spread(values: np.ndarray) -> np.ndarray:
        filled = np.full(len(everything), np.nan)
        filled[kept] = values
        return filled

    control = None if recording.control is None else spread(recording.control)
    signal = spread(recording.signal)
    return dataclasses.replace(recording, times=everything, signal=signal, control=control), kept


def fit_control(recording: Recording) -> np.ndarray:
    """Fit the isosbestic channel to the signal by least squares.

    Args:
        recording: The signal, with its control.

    Returns:
        The fitted line at each sample, `(N,)`.

    Raises:
        ValueError: If there is no control, or it does not vary.

    Warns:
        UserWarning: If the slope of the fit is negative: the line is the mirror image of the
            control, which then adds movement and bleaching instead of removing them.

    Example:
        >>> import keras_disrnn
        >>> recording = keras_disrnn.data.Recording(
        ...     [0.0, 0.1, 0.2], [1.0, 3.0, 5.0], control=[0.0, 1.0, 2.0]
        ... )
        >>> keras_disrnn.data.fit_control(recording).tolist()
        [1.0, 3.0, 5.0]
    """
    import scipy.stats

    if recording.control is None:
        raise recording.error(
            "control: expected the isosbestic channel, got None; pass control=, or another "
            "reference"
        )
    both = np.isfinite(recording.signal) & np.isfinite(recording.control)
    if both.sum() < 2 or np.ptp(recording.control[both]) == 0:
        raise recording.error(
            f"control: expected values that vary where the signal has values, got "
            f"{int(both.sum())} samples of both, all equal; check the channel"
        )
    line = scipy.stats.linregress(recording.control[both], recording.signal[both])
    if line.slope < 0:
        warnings.warn(
            f"{recording.name}: control: expected a channel that rises and falls with the signal, "
            f"got a fit with slope {line.slope:.3g} (correlation {line.rvalue:.2f}); check the "
            "isosbestic channel, or pass another reference",
            stacklevel=2,
        )
    return line.intercept + line.slope * recording.control


def _f0(recording: Recording, settings: Photometry) -> np.ndarray:
    if settings.reference == "control":
        return fit_control(recording)
    if settings.reference == "slow":
        return _filter(recording, recording.signal, settings.slow_hz, "lowpass")
    return np.full(len(recording.signal), np.nanmedian(recording.signal))


def _filter(recording: Recording, signal: np.ndarray, corner: float, kind: str) -> np.ndarray:
    if corner >= recording.rate / 2:
        raise recording.error(
            f"{kind}: expected a corner below half the sampling rate "
            f"({recording.rate / 2:.3g} Hz), got {corner:g} Hz"
        )
    import scipy.signal

    sos = scipy.signal.butter(2, corner, kind, fs=recording.rate, output="sos")
    bridged = _bridged(signal)
    padding = min(len(signal) - 1, math.ceil(recording.rate / corner))
    return scipy.signal.sosfiltfilt(sos, bridged, padlen=padding)


def _bridged(signal: np.ndarray) -> np.ndarray:
    there = np.flatnonzero(np.isfinite(signal))
    return np.interp(np.arange(len(signal)), there, signal[there])


# === Events ===


def align(
    recording: Recording,
    events: Any,
    window: tuple[float, float],
    *,
    step: float = 0.05,
    max_gap: float = 0.25,
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate the signal linearly around each event.

    Args:
        recording: The signal.
        events: Seconds, `(E,)`, on the clock of the recording; NaN where there was no event.
        window: Seconds after the event, (first, end).
        step: Seconds between instants.
        max_gap: Seconds, at least the step between samples. Nothing is interpolated between samples
            that are further apart.

    Returns:
        The instants, `(P,)`, seconds after the event, and the values, `(E, P)`. Values are NaN
        outside the recording, in gaps and next to missing samples.

    Raises:
        ValueError: If the events are not numbers, or all lie outside the recording. Also if
            `max_gap` is shorter than the step between samples.

    Example:
        >>> import keras_disrnn
        >>> recording = keras_disrnn.data.Recording([0.0, 0.1, 0.2], [1.0, 2.0, 3.0])
        >>> offsets, values = keras_disrnn.data.align(recording, [0.05], (0.0, 0.1))
        >>> offsets.tolist(), values.tolist()
        ([0.0, 0.05], [[1.5, 2.0]])
    """
    offsets = instants(window, step)
    try:
        events = to_numbers(events)
    except (TypeError, ValueError):
        raise recording.error(
            "events: expected numbers of seconds, got something else; convert them, for example "
            "with pd.to_numeric"
        ) from None
    if events.ndim != 1:
        raise recording.error(f"events: expected shape (events,), got {events.shape}")
    times = recording.times
    steps = np.diff(times)
    # A clock that jitters has steps of up to twice the usual one. Longer ones are gaps.
    lost = (steps > max_gap) & (steps < 2 / recording.rate)
    if lost.mean() > _FEW_STEPS:
        raise recording.error(
            f"max_gap: expected at least the step between samples ({1 / recording.rate:.3g} s at "
            f"{recording.rate:.3g} Hz), got {max_gap:g} s, which makes {lost.mean():.0%} of the "
            f"signal a gap; pass max_gap={2 / recording.rate:.2g} (Photometry.max_gap)"
        )
    there = np.isfinite(events)
    if there.any() and not ((events >= times[0]) & (events <= times[-1])).any():
        raise recording.error(
            f"events: expected times on the recording, which goes from {times[0]:g} to "
            f"{times[-1]:g} s, got {events[there].min():g} to {events[there].max():g}; both must "
            "be in seconds on the same clock"
        )
    at = np.where(there, events, np.nan)[:, None] + offsets
    values = np.interp(at, times, recording.signal, left=np.nan, right=np.nan)
    after = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    gap = times[after] - times[after - 1] > max_gap
    values[gap | np.isnan(at)] = np.nan
    return offsets, values


def response(recording: Recording, events: Any, settings: Photometry) -> np.ndarray:
    """Return one number per event: the mean over the window minus the mean over the baseline.

    Args:
        recording: The signal, after `preprocess`.
        events: Seconds, `(E,)`; NaN where there was no event.
        settings: The windows.

    Returns:
        float64 `(E,)`, in the unit of the signal; NaN where a window leaves the recording or has a
        missing sample, and where there was no event.

    Example:
        >>> import keras_disrnn
        >>> recording = keras_disrnn.data.Recording([0.0, 0.1, 0.2], [1.0, 2.0, 3.0])
        >>> settings = keras_disrnn.data.Photometry(window=(0.0, 0.1), baseline=(-0.1, 0.0))
        >>> keras_disrnn.data.response(recording, [0.1], settings).tolist()
        [1.0]
    """

    def mean(window: tuple[float, float]) -> np.ndarray:
        _, values = align(recording, events, window, step=settings.step, max_gap=settings.max_gap)
        return values.mean(axis=1)

    result = mean(settings.window)
    return result if settings.baseline is None else result - mean(settings.baseline)


def photometry_responses(
    table: pd.DataFrame,
    recordings: Mapping[Any, Recording | None],
    *,
    event: str,
    session: str = "session",
    settings: Photometry | None = None,
) -> np.ndarray:
    """Compute the response of every trial of a table, row by row.

    Args:
        table: One row per trial.
        recordings: The recording of each session, by its id. Numbers and dates are taken as text.
            None for a session that was not recorded; its responses are NaN.
        event: Column of the times of the event, in seconds on the clock of the recording; empty
            where there was none.
        session: Column of the session ids.
        settings: `Photometry()` if None.

    Returns:
        float64 `(rows,)`, for a column of the table: `table["dopamine"] = ...`.

    Raises:
        ValueError: If a column or recording is absent, a recording belongs to no session, or times
            do not rise within a session.

    Example:
        >>> import keras_disrnn
        >>> import numpy as np
        >>> import pandas as pd
        >>> times = np.arange(0, 10, 0.1)
        >>> recording = keras_disrnn.data.Recording(times, np.where(times >= 5, 1.0, 0.0))
        >>> table = pd.DataFrame({"session": ["a", "a"], "outcome": [2.0, 5.0]})
        >>> recordings = {"a": recording}
        >>> responses = keras_disrnn.data.photometry_responses(table, recordings, event="outcome")
        >>> responses.round(1).tolist()
        [0.0, 1.0]
    """
    settings = Photometry() if settings is None else settings
    check_columns("table", table, (event, session))
    times = pd.to_numeric(table[event], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wordy = np.isnan(times) & table[event].notna().to_numpy()
    if wordy.any():
        row = int(np.flatnonzero(wordy)[0])
        raise ValueError(
            f"table: column {event!r}: expected seconds, got {table[event].iloc[row]!r} in row "
            f"{row}; convert it to a number first"
        )
    try:
        ids, known = factorize_ids(table[session])
    except ValueError as error:
        raise ValueError(f"table: column {session!r}: {error}") from None
    if (ids < 0).any():
        raise ValueError(
            f"table: column {session!r}: expected a value in every row, got an empty cell in row "
            f"{np.argmax(ids < 0)}"
        )
    names = id_texts("recordings", recordings)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"recordings: expected one for session {twice!r}, got 2")
    recordings = dict(zip(names, recordings.values(), strict=True))
    for name in known:
        if name not in recordings:
            raise ValueError(
                f"recordings: expected one for session {name!r}, got none; pass None for a session "
                f"that was not recorded{suggest(name, recordings)}"
            )
    for name in recordings:
        if name not in known:
            raise ValueError(
                f"recordings: expected sessions of the table's column {session!r}, got {name!r}"
                f"{suggest(name, known)}"
            )
    result = np.full(len(table), np.nan)
    for code, name in enumerate(known):
        rows = np.flatnonzero(ids == code)
        there = rows[np.isfinite(times[rows])]
        falls = np.diff(times[there]) < 0
        if falls.any():
            row, before = there[1:][falls][0], there[:-1][falls][0]
            raise ValueError(
                f"table: column {event!r}: expected rising times in a session, got {times[row]:g} "
                f"after {times[before]:g} in row {row} (session {name!r}); sort the rows, or "
                "correct the clock"
            )
        recording = recordings[name]
        if recording is None:
            continue
        if not isinstance(recording, Recording):
            raise ValueError(
                f"recordings: expected a Recording or None for session {name!r}, got "
                f"{type(recording).__name__}"
            )
        named = dataclasses.replace(recording, name=f"session {name!r}")
        result[rows] = response(preprocess(named, settings), times[rows], settings)
        if len(there) and np.isnan(result[there]).all():
            warnings.warn(
                f"session {name!r}: expected a response in some trial, got NaN in all "
                f"{len(there)} with the event {event!r}: their windows leave the recording or hold "
                "missing samples; check the clock, the windows and max_gap",
                stacklevel=2,
            )
    return result
