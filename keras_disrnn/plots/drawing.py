"""Draw with less work than Matplotlib takes by itself, and with the same result.

Matplotlib finds the ticks of an axis, and the size of their labels, some twenty times while it lays
out and draws a figure. It also reads the tables of a font that arrange letters for each PDF file,
although a PDF file places each glyph by itself.

Both are internal to Matplotlib. With a version that does not have these functions, drawing is as
slow as without this module.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fontTools import subset  # type: ignore[import-untyped]
from matplotlib.axis import Axis

# The functions below belong to all threads.
_LOCK = threading.RLock()

_LETTER_TABLES = ("BASE", "GDEF", "GPOS", "GSUB", "MATH", "kern")
"""Tables of a font that choose and place glyphs."""


@contextlib.contextmanager
def quick_drawing() -> Iterator[None]:
    """Draws figures with less work, inside a `with` statement.

    Inside it, a figure may be drawn several times, at several sizes. Its ticks must not change.

    Example:

    >>> import io
    >>> from matplotlib.figure import Figure
    >>> from keras_disrnn.plots.drawing import quick_drawing
    >>> figure = Figure()
    >>> axes = figure.subplots()
    >>> with quick_drawing():
    ...     figure.savefig(io.BytesIO())
    """
    with _LOCK, contextlib.ExitStack() as stack:
        found: dict[tuple[str, Axis], tuple[Any, Any]] = {}
        for name in ("_update_ticks", "_get_ticklabel_bboxes"):
            if function := getattr(Axis, name, None):
                stack.callback(setattr, Axis, name, function)
                setattr(Axis, name, _once(name, function, found))
        if function := getattr(subset, "load_font", None):
            stack.callback(setattr, subset, "load_font", function)
            subset.load_font = _without_letter_tables(function)
        yield


def _once(
    name: str, function: Callable[..., Any], found: dict[tuple[str, Axis], tuple[Any, Any]]
) -> Callable[..., Any]:
    """Returns a method of an axis that computes again only if the axis or its place changed."""

    def call(axis: Axis, *arguments: Any) -> Any:
        axes = axis.axes
        limits, place = axes.viewLim.get_points(), axes.bbox.get_points()
        state = (limits.tobytes(), place.tobytes(), axes.figure.dpi, *arguments[1:])
        before = found.get((name, axis))
        if before is None or before[0] != state:
            before = found[name, axis] = state, function(axis, *arguments)
        return before[1]

    return call


def _without_letter_tables(load: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that loads a font and forgets the tables that no PDF file needs."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        font = load(*arguments, **keywords)
        for name in _LETTER_TABLES:
            if name in font:
                del font[name]
        return font

    return call
