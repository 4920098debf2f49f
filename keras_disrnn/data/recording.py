"""A photometry recording, and the settings of its pipeline."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from keras_disrnn.utils.checks import to_numbers

REFERENCES = ("control", "slow", "median")
_RATES = (1.0, 1e5)  # Plausible sampling rates, in Hz. Other rates mean that times are not seconds.


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """The signal of one session.

    Args:
        times: Seconds, `(N,)`, rising, on the same clock as the events.
        signal: Fluorescence or dF/F, `(N,)`; NaN where it is missing.
        control: The isosbestic channel at the same times, `(N,)`, or None.
        name: The name in errors, such as the session id or the file.

    Raises:
        ValueError: If the arrays differ in length, the times do not rise or cannot be seconds, or
            no sample has a value.

    Example:
        >>> import keras_disrnn
        >>> keras_disrnn.data.Recording([0.0, 0.1, 0.2], [1.0, 1.5, 1.2]).rate
        10.0
    """

    times: np.ndarray
    signal: np.ndarray
    control: np.ndarray | None = dataclasses.field(default=None, kw_only=True)
    name: str = dataclasses.field(default="recording", kw_only=True)

    def __post_init__(self) -> None:
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
                    f"{field}: expected a value for each of the {len(self.times)} times, got "
                    f"{len(values)}"
                )
            if np.isinf(values).any():
                at = int(np.flatnonzero(np.isinf(values))[0])
                raise self.error(
                    f"{field}: expected finite numbers, or NaN where missing, got {values[at]:g} "
                    f"in sample {at} ({self.times[at]:g} s); put NaN there"
                )
            if np.isnan(values).all():
                raise self.error(
                    f"{field}: expected a value in some sample, got NaN in all {len(values)}; "
                    "pass None for a session that was not recorded"
                )

    def _numbers(self, field: str, values: Any) -> np.ndarray:
        try:
            array = to_numbers(values)
        except (TypeError, ValueError):
            raise self.error(
                f"{field}: expected an array of numbers, got {type(values).__name__} of "
                f"{getattr(values, 'dtype', 'something else')}; convert it first"
            ) from None
        if array.ndim != 1:
            raise self.error(
                f"{field}: expected shape (samples,), got {array.shape}; pick one channel"
            )
        return array

    def _check_clock(self) -> None:
        if len(self.times) < 2:
            raise self.error(f"times: expected at least 2 samples, got {len(self.times)}")
        if not np.isfinite(self.times).all():
            at = int(np.flatnonzero(~np.isfinite(self.times))[0])
            raise self.error(
                f"times: expected finite numbers, got {self.times[at]} in sample {at}; leave the "
                "sample out"
            )
        steps = np.diff(self.times)
        if (steps <= 0).any():
            at = int(np.flatnonzero(steps <= 0)[0]) + 1
            raise self.error(
                f"times: expected rising numbers, got {self.times[at]:g} after "
                f"{self.times[at - 1]:g} in sample {at}; sort the samples, or cut the recording"
            )
        rate = self.rate
        if not _RATES[0] <= rate <= _RATES[1]:
            unit = "milliseconds (divide by 1000)" if rate < _RATES[0] else "another unit"
            raise self.error(
                f"times: expected seconds, with {_RATES[0]:g} to {_RATES[1]:g} samples per "
                f"second, got {rate:.3g} per second; they seem to be in {unit}"
            )

    @property
    def rate(self) -> float:
        """Samples per second, from the median step."""
        return float(1 / np.median(np.diff(self.times)))

    def error(self, message: str) -> ValueError:
        """Make an error whose message starts with the name."""
        return ValueError(f"{self.name}: {message}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photometry:
    """Settings that turn a signal into one number per trial.

    Filters are second-order Butterworth filters, run forwards and backwards. They add no delay, but
    a filtered value also depends on later samples of its session.

    Args:
        window: Seconds after the event, (first, end). The response is the mean over it.
        baseline: Seconds after the event (negative: before it), (first, end). Its mean is
            subtracted from the response. None for no baseline.
        step: Seconds between the instants at which the signal is interpolated. The instants of a
            window are first, first + step and so on, below its end.
        reference: F0 in dF/F = (F - F0) / F0. "control": the least-squares fit of the isosbestic
            channel to the signal, which removes movement and bleaching. "slow": the signal below
            `slow_hz`. "median": the median over the session. None keeps the signal as it is, for
            example if it is dF/F already.
        slow_hz: Corner frequency of the low-pass of "slow".
        detrend: Whether to subtract a straight line from the signal of the session.
        highpass_hz: Corner frequency of a high-pass, or None.
        max_gap: Seconds, at least the step between samples. Nothing is interpolated between samples
            that are further apart. Filters bridge such a gap by a straight line.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> import keras_disrnn
        >>> keras_disrnn.data.Photometry(window=(0.0, 0.5), baseline=None).window
        (0.0, 0.5)
    """

    window: tuple[float, float] = (0.0, 1.0)
    baseline: tuple[float, float] | None = (-1.0, 0.0)
    step: float = 0.05
    reference: str | None = None
    slow_hz: float = 0.01
    detrend: bool = False
    highpass_hz: float | None = None
    max_gap: float = 0.25

    def __post_init__(self) -> None:
        for name in ("step", "slow_hz", "highpass_hz", "max_gap"):
            value = getattr(self, name)
            if name == "highpass_hz" and value is None:
                continue
            if not _is_number(value) or value <= 0:
                raise ValueError(f"Photometry.{name}: expected a number above 0, got {value!r}")
        instants(self.window, self.step, name="Photometry.window")
        if self.baseline is not None:
            instants(self.baseline, self.step, name="Photometry.baseline")
        if self.reference is not None and self.reference not in REFERENCES:
            raise ValueError(
                f"Photometry.reference: expected None or one of {REFERENCES}, got "
                f"{self.reference!r}"
            )
        if not isinstance(self.detrend, bool):
            raise ValueError(f"Photometry.detrend: expected True or False, got {self.detrend!r}")


def _is_number(value: Any) -> bool:
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def instants(window: tuple[float, float], step: float, *, name: str = "window") -> np.ndarray:
    """Return the instants of a window: first, first + step and so on, below its end.

    Args:
        window: Seconds, (first, end).
        step: Seconds between instants.
        name: The name of the window in errors.

    Returns:
        Seconds, `(P,)`.

    Raises:
        ValueError: If the window is not two rising numbers, or holds more than a million instants.
    """
    numbers = isinstance(window, (tuple, list)) and len(window) == 2
    if not numbers or not all(map(_is_number, window)) or not window[0] < window[1]:
        raise ValueError(
            f"{name}: expected two numbers of seconds, the first below the second, got {window!r}"
        )
    count = max(1, math.ceil((window[1] - window[0]) / step - 1e-9))
    if count > 1_000_000:
        raise ValueError(f"{name}: expected at most a million instants, got {window!r} by {step}")
    return window[0] + step * np.arange(count)
