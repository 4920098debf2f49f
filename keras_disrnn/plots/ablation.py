"""The loss of each readout without each latent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_disrnn.plots.style import (
    FAINT,
    INK,
    AnyFigure,
    colour,
    hide_spines,
    label_beside,
    legend_below,
    new_figure,
    zero_lines,
)

LOSSES = {
    "clamped_loss": ("clamped at its mean", "o", 0.14),
    "retrained_loss": ("retrained without it", "s", -0.14),
}
"""Columns of the losses to their label, their marker and their place in the row."""

LABELS = {
    "normalized_likelihood": "loss of normalized likelihood",
    "r2": "loss of R²",
}


def plot_ablation(ablation: Any, figure: AnyFigure | None = None) -> Figure:
    """Draws the loss of each readout without each latent, with intervals and verdicts.

    There is one panel for each readout and one row for each latent, in the order of the model. The
    shaded band contains losses that are too small to count.

    Args:
        ablation: What `compute_ablation` returns.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.

    Returns:
        The figure. Its axes are the panels.

    Example:

    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_ablation
    >>> row = {"readout": "choice", "latent": "z1", "score": "r2", "verdict": "used"}
    >>> row |= {f"clamped_loss{end}": 0.1 for end in ("", "_lower", "_upper")}
    >>> row |= {f"retrained_loss{end}": 0.1 for end in ("", "_lower", "_upper")}
    >>> effects = pd.DataFrame([row | {"smallest_effect": 0.01}])
    >>> verdicts = pd.DataFrame({"latent": ["z1"], "open": [True]})
    >>> figure = plot_ablation(SimpleNamespace(effects=effects, verdicts=verdicts))
    >>> figure.axes[0].get_title()
    'choice readout'
    """
    panels = list(ablation.effects.groupby("readout", sort=False))
    latents = len(ablation.verdicts)
    size = (0.6 + 4.6 * len(panels), float(np.clip(1.6 + 0.42 * latents, 2.6, 12.0)))
    figure = new_figure(figure, size)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (readout, rows) in zip(axes, panels, strict=True):
        _panel(ax, readout, rows)
    closed = np.where(ablation.verdicts["open"], "", " (closed)")
    axes[0].set_yticks(range(latents), ablation.verdicts["latent"] + closed)
    axes[0].invert_yaxis()
    legend_below(figure, axes[0], columns=3)
    return figure


def _panel(ax: Axes, readout: str, rows: pd.DataFrame) -> None:
    first = rows.iloc[0]
    band = (-first["smallest_effect"], first["smallest_effect"])
    ax.axvspan(*band, color=FAINT, alpha=0.35, linewidth=0, label="too small to count")
    zero_lines(ax, horizontal=False)
    places = np.arange(len(rows))
    for index, (name, (label, marker, shift)) in enumerate(LOSSES.items()):
        ink, y = colour(index), places - shift
        ends = rows[[f"{name}_lower", f"{name}_upper"]].to_numpy().T
        ax.plot(ends, [y, y], color=ink, zorder=2)
        ax.plot(rows[name], y, marker, color=ink, markersize=5, label=label, zorder=3)
    for place, verdict in enumerate(rows["verdict"]):
        label_beside(
            ax,
            verdict,
            (1.0, place),
            offset=(4, 0),
            xycoords=("axes fraction", "data"),
            va="center",
            color=INK,
            annotation_clip=False,
        )
    ax.set_title(f"{readout} readout", fontsize=10)
    ax.set_xlabel(LABELS[first["score"]])
    hide_spines([ax])
