"""Predicted and recorded dopamine."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from keras_disrnn.plots.style import INK, colour, label_log_axis, new_axes, note, with_units

MAX_POINTS = 2000
"""Figures of more trials show counts in hexagons in place of points."""


def plot_dopamine_scatter(
    predictions: pd.DataFrame,
    ax: Axes | None = None,
    *,
    signal: str | None = None,
    units: str | None = None,
) -> Axes:
    """Draws the predicted against the recorded dopamine of every trial, with the identity line.

    Args:
        predictions: What `compute_dopamine_predictions` returns.
        ax: An Axes to draw in; `None` for a new figure.
        signal: Name of the signal to draw; `None` for the first.
        units: Units of the signal, for the labels.

    Returns:
        The Axes. Its note has the number of trials, and R² relative to their mean.

    Raises:
        ValueError: If there is no such signal.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_dopamine_scatter
    >>> table = pd.DataFrame({"signal": "dms", "recorded": [0.0, 1.0], "predicted": [0.1, 0.8]})
    >>> plot_dopamine_scatter(table).get_xlabel()
    'recorded dms'
    """
    signals = predictions["signal"].unique()
    if signal is not None and len(signals) and signal not in signals:
        raise ValueError(f"signal: expected one of {tuple(signals)}, got {signal!r}")
    ax = new_axes(ax, (4.2, 3.8))
    if len(signals):
        signal = signals[0] if signal is None else signal
        chosen = predictions[predictions["signal"] == signal]
        recorded = chosen["recorded"].to_numpy(float)
        predicted = chosen["predicted"].to_numpy(float)
        _points(ax, recorded, predicted)
        note(ax, f"R² = {_r2(recorded, predicted):.3f}\n{len(recorded)} trials")
    else:
        note(ax, "no trial with dopamine")
    name = "dopamine" if signal is None else signal
    ax.set_xlabel(with_units(f"recorded {name}", units))
    ax.set_ylabel(with_units(f"predicted {name}", units))
    return ax


def _points(ax: Axes, recorded: np.ndarray, predicted: np.ndarray) -> None:
    both = np.concatenate([recorded, predicted])
    ends = [both.min(), both.max()]
    ax.plot(ends, ends, color=INK, linewidth=0.8, linestyle="--", zorder=3)
    if len(recorded) > MAX_POINTS:
        image = ax.hexbin(recorded, predicted, gridsize=50, bins="log", cmap="Blues", mincnt=1)
        bar = ax.figure.colorbar(image, ax=ax, label="trials")
        label_log_axis(bar.ax.yaxis)
    else:
        ax.scatter(recorded, predicted, s=8, alpha=0.4, color=colour(0), linewidths=0)


def _r2(recorded: np.ndarray, predicted: np.ndarray) -> float:
    scatter = np.sum((recorded - recorded.mean()) ** 2)
    return 1 - np.sum((recorded - predicted) ** 2) / scatter if scatter > 0 else float("nan")
