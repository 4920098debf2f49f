"""Saving of figures. A figure that fails is a warning and does not stop a run."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from keras_disrnn.plots.drawing import quick_drawing
from keras_disrnn.utils.files import write_atomically

_TEXT: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "text.parse_math": False}
"""Text stays text in a file, so that journals can typeset it. A `$` in a name is a dollar."""


def save_figure(
    path: str | os.PathLike,
    plot: Callable[..., Axes | Figure],
    *arguments: Any,
    dpi: int = 150,
    **keywords: Any,
) -> Path | None:
    """Draws a figure and saves it. If that fails, warns and returns.

    A training run must not fail because of its figures. An error of the drawing becomes a
    `RuntimeWarning` with the file and the error.

    Args:
        path: The file. Its suffix is the format. Missing folders are created.
        plot: A function that returns an Axes or a Figure.
        *arguments: Positional arguments of `plot`.
        dpi: Dots per inch, in formats that have dots.
        **keywords: Keyword arguments of `plot`.

    Returns:
        The path, or `None` if it failed.

    Raises:
        OSError: If the file cannot be written, as on a full disk.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_learning_curves, save_figure
    >>> history = pd.DataFrame({"epoch": [1, 2], "loss": [0.7, 0.6]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(Path(folder) / "loss.png", plot_learning_curves, history).name
    'loss.png'
    """
    path = Path(path)
    saved = save_formats(
        path.with_suffix(""), plot, *arguments, formats=[path.suffix[1:]], dpi=dpi, **keywords
    )
    return saved[0] if saved else None


def save_formats(
    path: str | os.PathLike,
    plot: Callable[..., Axes | Figure],
    *arguments: Any,
    formats: Sequence[str],
    dpi: int = 150,
    **keywords: Any,
) -> list[Path]:
    """Draws a figure once and saves it in several formats, as `save_figure` does in one.

    Args:
        path: The files, without their suffix.
        plot: See `save_figure` for this and the others.
        *arguments: See there.
        formats: The suffixes, such as `png`, without the dot.
        dpi: See there.
        **keywords: See there.

    Returns:
        The paths of the files that could be saved.
    """
    saved: list[Path] = []
    figure = None
    for suffix in formats:
        file = Path(f"{path}.{suffix}" if suffix else path)
        try:
            if figure is None:
                with matplotlib.rc_context(_TEXT):
                    drawn = plot(*arguments, **keywords)
                figure = drawn.get_figure(root=True) if isinstance(drawn, Axes) else drawn
                assert figure is not None, "a function that draws returns an Axes in a figure"
            picture = _draw(figure, suffix, dpi)
        except Exception as error:
            warnings.warn(
                f"no figure {file}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2
            )
            continue
        # A disk that is full is not the fault of a figure.
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, functools.partial(_write, picture))
        saved.append(file)
    return saved


def _draw(figure: Figure, suffix: str, dpi: int) -> bytes:
    picture = io.BytesIO()
    with matplotlib.rc_context(_TEXT), quick_drawing():
        if suffix not in ("png", "pdf"):
            figure.savefig(picture, format=suffix or None, dpi=dpi)
            return picture.getvalue()
        # Figure.savefig lays a figure out in a drawing of its own, which takes as long again.
        figure.set_dpi(dpi)
        if suffix == "png":
            FigureCanvasAgg(figure).print_png(picture)
        else:
            FigureCanvasPdf(figure).print_pdf(picture)
    # The layout of the first drawing serves the next.
    figure.set_layout_engine("none")
    return picture.getvalue()


def _write(picture: bytes, file: BinaryIO) -> None:
    file.write(picture)
