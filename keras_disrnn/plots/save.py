"""Saving of figures. A figure that fails is a warning and does not stop a run."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_disrnn.utils.files import write_atomically


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
    try:
        drawn = plot(*arguments, **keywords)
        figure = drawn.get_figure(root=True) if isinstance(drawn, Axes) else drawn
        assert figure is not None, "a function that draws returns an Axes that is in a figure"
        picture = io.BytesIO()
        # Keep text as text in the file, so that journals can typeset it.
        with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
            figure.savefig(picture, format=path.suffix[1:] or None, dpi=dpi)
    except Exception as error:
        warnings.warn(
            f"no figure {path}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2
        )
        return None
    # A disk that is full is not the fault of a figure.
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(picture.getvalue()))
    return path
