"""The cross-validated scores of penalty scales, and the structure at each scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_disrnn.plots.style import (
    FAINT,
    GREY,
    SMALL,
    AnyFigure,
    colour,
    new_figure,
    penalty_scale_axis,
    ring,
)


def plot_selection(selections: Mapping[str, Any], figure: AnyFigure | None = None) -> Figure:
    """Draws the path of penalty scales of each stage: the score, and the edges of the graph.

    Args:
        selections: Mapping of stage (`"choice"`, `"dopamine"`) to the `Selection` that `select`
            returns, or to its table.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.

    Returns:
        The figure. Its axes are the scores and then the edges, with a column for each stage. Bars
        are standard errors of the difference to the best scale, paired by session; they decide the
        choice. The band is the standard error of the best score itself. The ring is the choice.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_selection
    >>> table = pd.DataFrame(
    ...     {"scale": [0.1, 1.0], "score": [0.61, 0.6], "score_se": 0.01, "cost": [0.49, 0.51],
    ...      "cost_se": [0.0, 0.02], "edges": [6, 4], "open": [5.5, 4.0], "chosen": [False, True]}
    ... )
    >>> plot_selection({"choice": table}).axes[1].get_xlabel()
    'penalty scale'
    """
    figure = new_figure(figure, (3.5 * len(selections), 4.2))
    axes = figure.subplots(2, len(selections), sharex="col", squeeze=False, height_ratios=(3, 2))
    for column, (stage, selection) in enumerate(selections.items()):
        table = getattr(selection, "table", selection)
        top, bottom = axes[:, column]
        scales = table["scale"].to_numpy()
        score, error = table["score"].to_numpy(), table["score_se"].to_numpy()
        best = int(np.argmin(table["cost"]))
        chosen = int(np.argmax(table["chosen"]))
        band = (score[best] - error[best], score[best] + error[best])
        top.axhspan(*band, color=FAINT, alpha=0.35, lw=0)
        top.errorbar(scales, score, table["cost_se"], color=colour(0), marker="o", ms=4, capsize=2)
        ring(top, scales[chosen], score[chosen])
        top.set_ylabel("normalized likelihood" if stage == "choice" else "mean squared error")
        top.set_title(f"{stage}, cross-validated", fontsize=10)
        bottom.plot(scales, table["edges"], color=colour(2), marker="s", ms=4, label="edges")
        bottom.plot(scales, table["open"], color=GREY, marker="^", ms=4, label="openness")
        ring(bottom, scales[chosen], table["edges"].iloc[chosen])
        bottom.set_ylim(bottom=0)
        bottom.set_ylabel("edges, openness")
        penalty_scale_axis(bottom, scales)
        bottom.legend(fontsize=SMALL, frameon=False)
    return figure
