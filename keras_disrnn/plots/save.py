"""Files of figures that never end a run."""

import warnings
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes


def save_figure(path, plot, *arguments, dpi=150, **keywords):
    """Draws a figure and writes it to a file; warns where that fails, and goes on.

    A training run must not be lost to its pictures, so any error of the drawing becomes a
    `RuntimeWarning` that names the file and the error.

    Example:

        save_figure(folder / "bottlenecks.png", plot_bottlenecks, compute_bottlenecks(model))

    Args:
        path: The file; its ending says the format. Missing folders are made.
        plot: A function that returns an Axes or a Figure.
        *arguments: What to call it with.
        dpi: Dots an inch, in formats that have dots.
        **keywords: What to call it with.

    Returns:
        The path, or `None` where it failed.
    """
    path = Path(path)
    try:
        drawn = plot(*arguments, **keywords)
        figure = drawn.figure if isinstance(drawn, Axes) else drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        # Text stays text in the file, for a journal's own typesetting.
        with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
            figure.savefig(path, dpi=dpi)
    except Exception as error:
        warnings.warn(
            f"no figure {path}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2
        )
        return None
    return path
