"""Values that cannot be meant: codes for missing values, outliers, scales far from 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

MOST_DEVIATIONS = 50.0
"""A value that is further from the median, in deviations, is reported as an outlier."""
FAR_SCALE = 10.0
"""A deviation above this, or a mean of more than this many deviations, is far from 1."""
_FEWEST = 10  # Fewer values show no scale.
_CODE_DEVIATIONS = 20.0
_HINTS = {
    "reward": "divide all rewards by the usual one",
    "observation": "standardise it: (value - mean) / deviation",
    "dopamine": "pass z-scores, for example from keras_disrnn.data.zscore",
}
# Responses that vary less open no bottleneck: its penalty is larger than what it explains.
_LEAST = {"dopamine": 0.1}
_NINES = tuple(float(10**digits - 1) for digits in range(2, 10))  # 99, 999 and so on.
_LOWEST = (-32768.0, -2147483648.0)  # The smallest integers, which mark missing values, too.


class Outliers(NamedTuple):
    """Values that are far from the others.

    Args:
        where: bool `(N,)`, True for each of them.
        median: The median of all values.
        deviations: The largest distance from it, in deviations.
    """

    where: np.ndarray
    median: float
    deviations: float


def find_codes(values: np.ndarray, *, positive: bool = True) -> np.ndarray:
    """Find codes for missing values, such as -999, that lie far from all other values.

    Args:
        values: Numbers `(N,)`; NaN where missing.
        positive: Whether 99, 999 and so on are codes, too.

    Returns:
        bool `(N,)`.

    Example:

    >>> from keras_disrnn.data.plausibility import find_codes
    >>> import numpy as np
    >>> find_codes(np.array([0.5, -999, 1.2])).tolist()
    [False, True, False]
    >>> find_codes(np.array([500.0, 999, 1200])).tolist()
    [False, False, False]
    """
    coded = np.abs(values) >= _NINES[0]  # Most columns have no code, and this is quick.
    if coded.any():
        codes = [-nines for nines in _NINES] + list(_LOWEST)
        coded = np.isin(values, [*codes, *_NINES] if positive else codes)
    if not coded.any():
        return coded
    others = values[np.isfinite(values) & ~coded]
    if not len(others):
        return coded & (values < 0)
    low, high = others.min(), others.max()
    spread = _spread(others) or max(abs(low), abs(high), 1.0)
    far = np.abs(values - np.median(others)) > _CODE_DEVIATIONS * spread
    far |= (values < 0) & (low >= 0)
    return coded & far & ((values < low) | (values > high))


def find_outliers(values: np.ndarray) -> Outliers | None:
    """Find values further than `MOST_DEVIATIONS` from the median.

    The deviation is that of the middle half of the values, which outliers do not widen.

    Args:
        values: Numbers `(N,)`; NaN where missing.

    Returns:
        The outliers; None if there are none, or too few values to tell.

    Example:

    >>> from keras_disrnn.data.plausibility import find_outliers
    >>> import numpy as np
    >>> found = find_outliers(np.append(np.linspace(-1, 1, 20), 400))
    >>> found.where.nonzero()[0].tolist()
    [20]
    """
    there = values[np.isfinite(values)]
    if len(there) < _FEWEST or _are_binary(there):
        return None
    median = float(np.median(there, overwrite_input=True))
    distance = np.abs(there - median)
    farthest = distance.max()
    inner = there[distance < farthest]
    del there, distance  # Of a large cohort they are large.
    spread = _spread(inner)
    if not spread or farthest <= MOST_DEVIATIONS * spread:
        return None
    where = np.abs(values - median) > MOST_DEVIATIONS * spread
    return Outliers(where, median, float(farthest / spread))


def describe_scale(values: np.ndarray, *, least: float = 0.0, whole: bool = True) -> str:
    """Describe the scale of values if it is far from 1.

    Args:
        values: Numbers `(N,)`; NaN where missing.
        least: The smallest deviation that is near enough to 1.
        whole: Whether these are all values. A part of them may vary little.

    Returns:
        The mean, the deviation and the range; an empty text if the scale is near 1.

    Example:

    >>> from keras_disrnn.data.plausibility import describe_scale
    >>> import numpy as np
    >>> describe_scale(np.array([250.0, 300.0, 350.0]))
    'mean 300, deviation 40.8 and range 250 to 350'
    >>> describe_scale(np.array([0.25, 0.3, 0.35]))
    ''
    """
    there = values[np.isfinite(values)]
    if not len(there) or _are_binary(there):
        return ""
    mean, deviation = float(there.mean()), float(there.std())
    # A constant has no deviation: what counts is its size.
    shifted = abs(mean) > FAR_SCALE * (deviation if np.ptp(there) > 0 else 1.0)
    enough = whole and len(there) >= _FEWEST
    shifted &= enough or abs(mean) > FAR_SCALE
    small = enough and 0 < deviation < least
    if not (deviation > FAR_SCALE or shifted or small):
        return ""
    lowest, highest = there.min(), there.max()
    return f"mean {mean:.3g}, deviation {deviation:.3g} and range {lowest:.3g} to {highest:.3g}"


def find_doubts(
    role: str,
    label: str,
    values: np.ndarray,
    name_places: Callable[[np.ndarray, np.ndarray], str],
    *,
    whole: bool,
) -> Iterator[tuple[str, str]]:
    """Find what is doubtful about the values of a column that are read.

    Args:
        role: "reward", "observation" or "dopamine".
        label: The name of the column in messages.
        values: Numbers `(N,)`; NaN where nothing is read.
        name_places: Names the values at some places, `(values, where)`, for a message.
        whole: Whether these are all values of the column, not a part of them.

    Yields:
        `(key, message)`. The same doubt has the same key.
    """
    outliers = find_outliers(values)
    usual = values if outliers is None else np.where(outliers.where, np.nan, values)
    scale = describe_scale(usual, least=_LEAST.get(role, 0.0), whole=whole)
    if scale:
        yield f"{label} scale", f"{label}: expected a scale near 1, got {scale}; {_HINTS[role]}"
    if outliers is not None:
        places = name_places(values, outliers.where)
        remedy = "leave it empty (NaN)" if role == "dopamine" else "mark the trial as missed"
        yield (
            f"{label} {places}",
            f"{label}: expected values near the others, got {places}, up to "
            f"{outliers.deviations:.0f} deviations from the median {outliers.median:.3g}; correct "
            f"a wrong value, or {remedy}",
        )


def _are_binary(values: np.ndarray) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _spread(values: np.ndarray) -> float:
    """Return the deviation that the middle half of the values shows, or else their range.

    The values lose their order.
    """
    if not len(values):
        return 0.0
    low, high = np.quantile(values, (0.25, 0.75), overwrite_input=True)
    return float((high - low) / 1.349 or np.ptp(values))
