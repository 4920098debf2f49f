"""Fibre photometry: from a signal and the times of events to one response a trial.

The way of a signal: `Recording` (checked) -> `preprocess` (dF/F, detrend, high-pass) ->
`align` (interpolated about each event) -> `response` (a mean over a window, less a baseline) ->
`zscore` (by the training sessions alone). `photometry_responses` goes it for a whole table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import scipy.signal
import scipy.stats

from keras_disrnn.utils.checks import suggest

REFERENCES = ("control", "slow", "median")
_RATES = (1.0, 1e5)  # of photometry, in Hz; anything else is a clock in another unit


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """The signal of one session.

    Args:
        times: Seconds, `(N,)`, rising, on the clock of the events.
        signal: Fluorescence or dF/F, `(N,)`; NaN where it is missing.
        control: The isosbestic channel at the same times, `(N,)`, or None.
        name: What errors call it, such as the session id or the file.

    Raises:
        ValueError: If the arrays do not fit one another, the clock does not rise or cannot be in
            seconds, or no sample has a value.
    """

    times: np.ndarray
    signal: np.ndarray
    control: np.ndarray | None = None
    name: str = "recording"

    def __post_init__(self):
        for field in ("times", "signal", "control"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, self._numbers(field, getattr(self, field)))
        self._check_clock()
        for field in ("signal", "control"):
            values = getattr(self, field)
            if values is None:
                continue
            if len(values) != len(self.times):
                raise self.error(
                    f"{field} must have a value for each of the {len(self.times)} times, got "
                    f"{len(values)}"
                )
            if np.isinf(values).any():
                at = int(np.flatnonzero(np.isinf(values))[0])
                raise self.error(
                    f"{field} must be finite, or NaN where missing, got {values[at]:g} in sample "
                    f"{at} ({self.times[at]:g} s); put NaN there"
                )
            if np.isnan(values).all():
                raise self.error(
                    f"{field} must have a value in some sample, got NaN in all {len(values)}; "
                    "give None for a session that was not recorded"
                )

    def _numbers(self, field, values) -> np.ndarray:
        try:
            array = np.asarray(values)
            if array.dtype.kind not in "biufO":
                raise TypeError
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise self.error(
                f"{field} must be an array of numbers, got {type(values).__name__} of "
                f"{getattr(values, 'dtype', 'something else')}; convert it first"
            ) from None
        if array.ndim != 1:
            raise self.error(
                f"{field} must have shape (samples,), got shape {array.shape}; pick one channel"
            )
        return array

    def _check_clock(self):
        if len(self.times) < 2:
            raise self.error(f"times must hold at least 2 samples, got {len(self.times)}")
        if not np.isfinite(self.times).all():
            at = int(np.flatnonzero(~np.isfinite(self.times))[0])
            raise self.error(
                f"times must be finite, got {self.times[at]} in sample {at}; leave the sample out"
            )
        steps = np.diff(self.times)
        if (steps <= 0).any():
            at = int(np.flatnonzero(steps <= 0)[0]) + 1
            raise self.error(
                f"times must rise, got {self.times[at]:g} after {self.times[at - 1]:g} in sample "
                f"{at}: the clock stands or runs backwards there; sort it, or cut the recording"
            )
        rate = self.rate
        if not _RATES[0] <= rate <= _RATES[1]:
            unit = "milliseconds (divide by 1000)" if rate < _RATES[0] else "another unit"
            raise self.error(
                f"times must be seconds at {_RATES[0]:g} to {_RATES[1]:g} samples a second, got "
                f"{rate:.3g}; they seem to be in {unit}"
            )

    @property
    def rate(self) -> float:
        """Samples a second, by the median step."""
        return float(1 / np.median(np.diff(self.times)))

    def error(self, message: str) -> ValueError:
        """Puts the name before a message."""
        return ValueError(f"{self.name}: {message}")


@dataclasses.dataclass(frozen=True)
class Photometry:
    """How a signal becomes one number a trial.

    Args:
        window: Seconds after the event, (first, end): the response is the mean over it.
        baseline: Seconds after the event (negative: before it), (first, end): its mean is taken
            off the response. None takes nothing off.
        step: Seconds between the instants at which the signal is interpolated; those of a window
            are first, first + step and so on, below its end.
        reference: What F0 is in dF/F = (F - F0) / F0. "control": the least-squares fit of the
            signal by the isosbestic channel, which takes movement and bleaching out; "slow": the
            signal below `slow_hz`; "median": the median over the session. None leaves the signal
            as it is, as for one that is dF/F already.
        slow_hz: Corner of the low-pass of "slow".
        detrend: Whether a straight line is taken off the signal of the session.
        highpass_hz: Corner of a high-pass, or None.
        max_gap: Seconds between two samples beyond which nothing is interpolated between them.

    The filters are second-order Butterworth, run forwards and backwards (no delay; a value so
    depends on later ones, within the session).

    Raises:
        ValueError: If a setting is out of range.
    """

    window: tuple[float, float] = (0.0, 1.0)
    baseline: tuple[float, float] | None = (-1.0, 0.0)
    step: float = 0.05
    reference: str | None = None
    slow_hz: float = 0.01
    detrend: bool = False
    highpass_hz: float | None = None
    max_gap: float = 0.25

    def __post_init__(self):
        for name in ("step", "slow_hz", "highpass_hz", "max_gap"):
            value = getattr(self, name)
            if name == "highpass_hz" and value is None:
                continue
            if not _is_number(value) or value <= 0:
                raise ValueError(f"Photometry.{name} must be a number above 0, got {value!r}")
        instants(self.window, self.step, "Photometry.window")
        if self.baseline is not None:
            instants(self.baseline, self.step, "Photometry.baseline")
        if self.reference is not None and self.reference not in REFERENCES:
            raise ValueError(
                f"Photometry.reference must be None or one of {REFERENCES}, got {self.reference!r}"
            )
        if not isinstance(self.detrend, bool):
            raise ValueError(f"Photometry.detrend must be True or False, got {self.detrend!r}")


def _is_number(value) -> bool:
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def instants(window, step: float, name: str = "window") -> np.ndarray:
    """The instants of a window: first, first + step and so on, below its end, in seconds.

    Raises:
        ValueError: If the window is not two rising numbers, or holds more than a million instants.
    """
    numbers = isinstance(window, (tuple, list)) and len(window) == 2
    if not numbers or not all(map(_is_number, window)) or not window[0] < window[1]:
        raise ValueError(
            f"{name} must be two numbers of seconds, the first below the second, got {window!r}"
        )
    count = max(1, math.ceil((window[1] - window[0]) / step - 1e-9))
    if count > 1_000_000:
        raise ValueError(f"{name} must have at most a million instants, got {window!r} by {step}")
    return window[0] + step * np.arange(count)


# === Signal ===


def preprocess(recording: Recording, settings: Photometry) -> Recording:
    """Takes what is not the sensor out of a signal: dF/F, then detrend, then high-pass.

    Missing samples are bridged for the filters, and missing again afterwards.

    Args:
        recording: The signal as recorded.
        settings: What to do.

    Returns:
        The recording with its new signal, without its control.

    Raises:
        ValueError: If the control is needed and absent or constant, F0 is not above 0, or a corner
            is not below half the sampling rate.
    """
    signal = recording.signal
    if settings.reference is not None:
        base = _f0(recording, settings)
        low = base <= 0
        if low.any():
            at = int(np.flatnonzero(low)[0])
            raise recording.error(
                f"F0 ({settings.reference}) must be above 0, got {base[at]:g} in sample {at}; is "
                "the signal dF/F already? Then reference=None"
            )
        signal = (signal - base) / base
    missing = np.isnan(signal)
    if settings.detrend:
        signal = scipy.signal.detrend(_bridged(signal))
    if settings.highpass_hz is not None:
        signal = _filter(recording, signal, settings.highpass_hz, "highpass")
    signal = np.where(missing, np.nan, signal)
    return dataclasses.replace(recording, signal=signal, control=None)


def fit_control(recording: Recording) -> np.ndarray:
    """The part of a signal that its isosbestic channel explains, by least squares, `(N,)`.

    Raises:
        ValueError: If there is no control, or it does not vary.
    """
    if recording.control is None:
        raise recording.error(
            "an isosbestic correction needs the control channel, got none; give control=, or "
            "another reference"
        )
    both = np.isfinite(recording.signal) & np.isfinite(recording.control)
    if both.sum() < 2 or np.ptp(recording.control[both]) == 0:
        raise recording.error(
            f"control must vary where the signal is there, got {int(both.sum())} samples of both, "
            "all alike; is it the right channel?"
        )
    line = scipy.stats.linregress(recording.control[both], recording.signal[both])
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
            f"the corner of a {kind} must be below half the sampling rate "
            f"({recording.rate / 2:.3g} Hz), got {corner:g} Hz"
        )
    sos = scipy.signal.butter(2, corner, kind, fs=recording.rate, output="sos")
    bridged = _bridged(signal)
    padding = min(len(signal) - 1, math.ceil(recording.rate / corner))
    return scipy.signal.sosfiltfilt(sos, bridged, padlen=padding)


def _bridged(signal: np.ndarray) -> np.ndarray:
    there = np.flatnonzero(np.isfinite(signal))
    return np.interp(np.arange(len(signal)), there, signal[there])


# === Events ===


def align(
    recording: Recording, events, window: tuple[float, float], step: float = 0.05, max_gap=0.25
) -> tuple[np.ndarray, np.ndarray]:
    """The signal about each event, linearly interpolated.

    Args:
        recording: The signal.
        events: Seconds, `(E,)`, on the clock of the recording; NaN where there was no event.
        window: Seconds after the event, (first, end).
        step: Seconds between instants.
        max_gap: Seconds between two samples beyond which nothing is interpolated between them.

    Returns:
        The instants, `(P,)`, seconds after the event; and the values, `(E, P)`, NaN off the
        recording, in gaps and beside missing samples.

    Raises:
        ValueError: If the events are not numbers, or all lie off the recording.
    """
    offsets = instants(window, step)
    try:
        events = np.asarray(events, np.float64)
    except (TypeError, ValueError):
        raise recording.error(
            "events must be numbers of seconds; convert them, for example with pd.to_numeric"
        ) from None
    if events.ndim != 1:
        raise recording.error(f"events must have shape (events,), got shape {events.shape}")
    times = recording.times
    there = np.isfinite(events)
    if there.any() and not ((events >= times[0]) & (events <= times[-1])).any():
        raise recording.error(
            f"events must lie on the recording, which goes from {times[0]:g} to {times[-1]:g} s, "
            f"got {events[there].min():g} to {events[there].max():g}; are both in seconds, and by "
            "the same clock?"
        )
    at = np.where(there, events, np.nan)[:, None] + offsets
    values = np.interp(at, times, recording.signal, left=np.nan, right=np.nan)
    after = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    gap = times[after] - times[after - 1] > max_gap
    values[gap | np.isnan(at)] = np.nan
    return offsets, values


def response(recording: Recording, events, settings: Photometry) -> np.ndarray:
    """One number an event: the mean over the window, less the mean over the baseline.

    Args:
        recording: The signal, after `preprocess`.
        events: Seconds, `(E,)`; NaN where there was no event.
        settings: The windows.

    Returns:
        Float64 `(E,)`, in the unit of the signal; NaN where a window runs off the recording or
        meets a missing sample, and where there was no event.
    """
    arguments = (settings.step, settings.max_gap)
    result = align(recording, events, settings.window, *arguments)[1].mean(axis=1)
    if settings.baseline is not None:
        result = result - align(recording, events, settings.baseline, *arguments)[1].mean(axis=1)
    return result


def photometry_responses(
    table: pd.DataFrame,
    recordings: Mapping[str, Recording | None],
    *,
    event: str,
    session: str = "session",
    settings: Photometry | None = None,
) -> np.ndarray:
    """The response of every trial of a table, row for row.

    Args:
        table: One row a trial.
        recordings: The recording of each session, by its id as a string; None where a session
            was not recorded (its responses are NaN).
        event: Column of the times of the event, in seconds on the clock of the recording; empty
            where there was none.
        session: Column of the session ids.
        settings: `Photometry()` when None.

    Returns:
        Float64 `(rows,)`, to be put into a column: `table["dopamine"] = ...`.

    Raises:
        ValueError: If a column or recording is absent, a recording belongs to no session, or times
            do not rise within a session.
    """
    settings = Photometry() if settings is None else settings
    for name in (event, session):
        if name not in table.columns:
            there = list(map(str, table.columns))
            raise ValueError(
                f"table: no column {name!r}, got the columns {', '.join(there)}"
                f"{suggest(str(name), there)}"
            )
    times = pd.to_numeric(table[event], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wordy = np.isnan(times) & table[event].notna().to_numpy()
    if wordy.any():
        row = int(np.flatnonzero(wordy)[0])
        raise ValueError(
            f"table: column {event!r} must hold seconds, got {table[event].iloc[row]!r} in row "
            f"{row}; convert it to a number first"
        )
    ids = table[session].astype(str).to_numpy(object)
    known = list(dict.fromkeys(ids))
    for name in known:
        if name not in recordings:
            raise ValueError(
                f"recordings: none for session {name!r}; give None for one that was not recorded"
                f"{suggest(name, list(map(str, recordings)))}"
            )
    for name in recordings:
        if name not in known:
            raise ValueError(
                f"recordings: {name!r} is no session of the table's column {session!r}"
                f"{suggest(str(name), known)}"
            )
    result = np.full(len(table), np.nan)
    for name in known:
        rows = np.flatnonzero(ids == name)
        there = rows[np.isfinite(times[rows])]
        falls = np.diff(times[there]) < 0
        if falls.any():
            row, before = there[1:][falls][0], there[:-1][falls][0]
            raise ValueError(
                f"table: column {event!r} must rise within a session, got {times[row]:g} after "
                f"{times[before]:g} in row {row} (session {name!r}); sort the rows, or correct the "
                "clock"
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
    return result


# === Responses ===


def zscore(values, sessions, training: Collection[str], by=None) -> np.ndarray:
    """Responses in standard deviations of the training sessions, whose mean is then 0.

    Args:
        values: Responses, `(N,)`; NaN where missing.
        sessions: The session of each, `(N,)`.
        training: Ids of the sessions that the mean and the deviation are taken from, such as
            `train.ids` of a split. No other session has a part in them.
        by: Group of each, `(N,)`, such as the subject, to take mean and deviation within; None
            for all together.

    Returns:
        Float64 `(N,)`.

    Raises:
        ValueError: If a training session is not in the data, or a group has fewer than 2 training
            responses or all of them alike.
    """
    values = np.asarray(values, np.float64)
    names = np.asarray(sessions).astype(str)
    groups = np.zeros(len(values), int) if by is None else np.asarray(by).astype(str)
    for name, array in (("sessions", names), ("by", groups)):
        if array.shape != values.shape:
            raise ValueError(
                f"{name} must have an entry for each of the {len(values)} values, got {len(array)}"
            )
    training = [training] if isinstance(training, str) else [str(name) for name in training]
    known = list(dict.fromkeys(names.tolist()))
    for name in training:
        if name not in known:
            raise ValueError(
                f"training: {name!r} is no session of these responses{suggest(name, known)}"
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
                f"a z-score needs training responses{of} that differ, got {len(used)} with "
                f"deviation {deviation:g}; put a session{of} among the training sessions, or do "
                "without by="
            )
        result[inside] = (values[inside] - used.mean()) / deviation
    return result


def find_artefacts(
    values, sessions, *, most: float = 2.0, least: float = 0.1, missing: float = 0.5
) -> dict[str, str]:
    """Sessions whose signal looks like an artefact or a dead fibre. Nothing is dropped.

    Best asked of the signal about the events as `align` gives it: a baseline taken off hides slow
    artefacts.

    Args:
        values: `(N,)` responses or `(N, P)` windows about N events; NaN where missing.
        sessions: The session of each event, `(N,)`.
        most: A session is named where its standard deviation is above this many times the median
            of the sessions' standard deviations,
        least: or below this many times it (a dead signal),
        missing: or where more than this part of its values is missing.

    Returns:
        The reason for each session it would drop, by id, in the order of the data; made for
        `drop_sessions`.

    Raises:
        ValueError: If there is not one session an event.
    """
    values, names = np.asarray(values, np.float64), np.asarray(sessions).astype(str)
    if values.ndim not in (1, 2) or names.shape != values.shape[:1]:
        raise ValueError(
            "find_artefacts needs values (events,) or (events, instants) and one session an event, "
            f"got shapes {values.shape} and {names.shape}"
        )
    width = 1 if values.ndim == 1 else values.shape[1]
    table = pd.DataFrame({"session": np.repeat(names, width), "value": values.ravel()})
    told = table.groupby("session", sort=False)["value"].agg(["std", "count", "size"])
    usual = told["std"].median()
    reasons = {}
    for name, row in told.iterrows():
        absent = 1 - row["count"] / row["size"]
        if absent > missing:
            reasons[name] = f"{absent:.0%} of the signal is missing"
        elif row["std"] > most * usual or row["std"] < least * usual:
            reasons[name] = (
                f"standard deviation {row['std']:.3g}, {row['std'] / usual:.2g} times the median "
                f"session's {usual:.3g}"
            )
    return reasons
