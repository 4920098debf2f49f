"""Checks of arguments, with one form of message: `name: expected X, got Y`."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def check_integer(name: str, value: Any, least: int | None = 1, most: int | None = None) -> int:
    """Check that a value is a whole number in a range.

    Args:
        name: The argument's name, for the message.
        value: A value of any integer type, NumPy's included. A `bool` is refused.
        least: The smallest allowed value, or `None` for no bound.
        most: The largest allowed value, or `None` for no bound.

    Returns:
        The value as an `int`.

    Raises:
        ValueError: If the value is not an integer or is out of range.

    Example:

    >>> from keras_disrnn.utils.checks import check_integer
    >>> check_integer("num_latents", 0)
    Traceback (most recent call last):
        ...
    ValueError: num_latents: expected a whole number of at least 1, got 0
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if (
        number is None
        or (least is not None and number < least)
        or (most is not None and number > most)
    ):
        raise ValueError(f"{name}: expected a whole number{_bounds(least, most)}, got {value!r}")
    return number


def check_number(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """Check that a value is a finite number in a range.

    Args:
        name: The argument's name, for the message.
        value: Any real number. A `bool` is refused.
        least: The smallest allowed value; `-math.inf` for no bound.
        most: The largest allowed value; `math.inf` for no bound.

    Returns:
        The value as a `float`.

    Raises:
        ValueError: If the value is not a number, not finite, or out of range.

    Example:

    >>> from keras_disrnn.utils.checks import check_number
    >>> check_number("alpha", 1.5, 0, 1)
    Traceback (most recent call last):
        ...
    ValueError: alpha: expected a finite number from 0 to 1, got 1.5
    """
    try:
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        bounds = _bounds(
            None if math.isinf(least) else least, most if math.isfinite(most) else None
        )
        raise ValueError(f"{name}: expected a finite number{bounds}, got {value!r}")
    return number


def to_numbers(values: Any) -> np.ndarray:
    """Convert values to an array of numbers in which nothing is lost.

    Args:
        values: Real numbers or booleans, in an array of any kind or in nested sequences.

    Returns:
        float64, of the same shape. NaN where a masked array has no value, and for `None`.

    Raises:
        TypeError: If there are complex numbers, dates, texts or other objects.
        ValueError: If the values have no common shape.

    Example:

    >>> from keras_disrnn.utils.checks import to_numbers
    >>> import numpy as np
    >>> to_numbers(np.ma.masked_equal([0.5, -999.0], -999.0)).tolist()
    [0.5, nan]
    """
    import numpy as np

    array = np.asarray(values)
    if array.dtype.kind == "O":
        # NumPy takes these for numbers, without the imaginary part or the unit.
        kinds = (str, bytes, complex, np.complexfloating, np.timedelta64, np.datetime64)
        for value in array.flat:
            if isinstance(value, kinds):
                raise TypeError(f"expected numbers, got {value!r}")
        try:
            # pandas' missing values become NaN only if it is asked for numbers.
            numbers = np.asarray(values, np.float64)
        except OverflowError as error:
            raise TypeError(f"expected numbers of at most 1.8e308, got {error}") from None
    elif array.dtype.kind in "biuf":
        numbers = array.astype(np.float64, copy=False)
    else:
        raise TypeError(f"expected numbers, got {array.dtype}")
    if isinstance(values, np.ma.MaskedArray):
        numbers = np.where(np.ma.getmaskarray(values), np.nan, numbers)
    return numbers


def _bounds(least: float | None, most: float | None) -> str:
    """Describe a range for a message."""
    if most is not None:
        return f" from {least} to {most}"
    return "" if least is None else f" of at least {least}"


def suggest(name: str, candidates: Iterable[str]) -> str:
    """Make the end of a message about an unknown name: the most similar known names.

    Args:
        name: The unknown name.
        candidates: The known names.

    Returns:
        A text such as `; did you mean 'reward'?`, or an empty text if no name is similar.

    Example:

    >>> from keras_disrnn.utils.checks import suggest
    >>> suggest("Rewrd", ["choice", "reward"])
    "; did you mean 'reward'?"
    """
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    if not close:
        return ""
    return f"; did you mean {' or '.join(repr(by_lower[match]) for match in close)}?"
