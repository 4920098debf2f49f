"""Checks of the numbers that agents, environments and `simulate` are given."""

import math
import operator


def check_integer(name, value, least, most=None):
    """Returns `value` as an `int` of at least `least` (and at most `most`), or raises.

    Args:
        name: What the number is called in the error.
        value: Any integer type, NumPy's included; not a `bool`.
        least: The smallest value allowed.
        most: The largest value allowed, or `None`.

    Raises:
        TypeError: If `value` is no integer.
        ValueError: If it is out of range.
    """
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    message = f"{name}: expected a whole number {bounds}, got {value!r}"
    if isinstance(value, bool):
        raise TypeError(message)
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(message) from None
    if number < least or (most is not None and number > most):
        raise ValueError(message)
    return number


def check_number(name, value, least, most=math.inf):
    """Returns `value` as a finite `float` from `least` to `most`, or raises.

    Args:
        name: What the number is called in the error.
        value: Any real number; not a `bool`.
        least: The smallest value allowed; `-math.inf` for no such bound.
        most: The largest value allowed; by default there is no such bound.

    Raises:
        TypeError: If `value` is no number.
        ValueError: If it is not finite or out of range.
    """
    bounds = "" if math.isinf(least) else f" of at least {least}"
    if math.isfinite(most):
        bounds = f" from {least} to {most}"
    message = f"{name}: expected a finite number{bounds}, got {value!r}"
    if isinstance(value, bool | str | bytes):
        raise TypeError(message)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(message) from None
    if not (math.isfinite(number) and least <= number <= most):
        raise ValueError(message)
    return number
