"""Checks of numbers that a user gives."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Sequence


def check_integer(name, value, least=1, most=None):
    """Returns `value` as an `int` of at least `least` (and at most `most`), or raises.

    Args:
        name: What the number is called in the error.
        value: Any integer type, NumPy's included; not a `bool`.
        least: The smallest value allowed; `None` for no such bound.
        most: The largest value allowed; `None` for no such bound.

    Raises:
        ValueError: If `value` is no integer or out of range.
    """
    bounds = "" if least is None else f" of at least {least}"
    if most is not None:
        bounds = f" from {least} to {most}"
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if (
        number is None
        or (least is not None and number < least)
        or (most is not None and number > most)
    ):
        raise ValueError(f"{name}: expected a whole number{bounds}, got {value!r}")
    return number


def check_number(name, value, least, most=math.inf):
    """Returns `value` as a finite `float` from `least` to `most`, or raises.

    Args:
        name: What the number is called in the error.
        value: Any real number; not a `bool`.
        least: The smallest value allowed; `-math.inf` for no such bound.
        most: The largest value allowed; by default there is no such bound.

    Raises:
        ValueError: If `value` is no number, not finite or out of range.
    """
    bounds = "" if math.isinf(least) else f" of at least {least}"
    if math.isfinite(most):
        bounds = f" from {least} to {most}"
    try:
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        raise ValueError(f"{name}: expected a finite number{bounds}, got {value!r}")
    return number


def suggest(name: str, candidates: Sequence[str]) -> str:
    """Ends an error message about an unknown name with the ones most like it, if any are."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    if not close:
        return ""
    return f"; did you mean {' or '.join(repr(by_lower[match]) for match in close)}?"
