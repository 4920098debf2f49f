"""The scores of several models, as in Table 1 of Jain et al. (2025)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_disrnn.analysis.bootstrap import SCORES
from keras_disrnn.analysis.comparison import PARTS, TITLES, reference_model
from keras_disrnn.plots.style import (
    GREY,
    SMALL,
    AnyFigure,
    colour,
    hide_spines,
    legend_below,
    new_figure,
    zero_lines,
)


def plot_comparison(
    table: pd.DataFrame, figure: AnyFigure | None = None, *, differences: bool = False
) -> Figure:
    """Draws the scores of models, or their paired differences, with intervals.

    There is one panel for each score that some model has, and one row for each model, in the order
    of the table. Points of held-out sessions are filled, those of other parts are not.

    Args:
        table: What `compute_comparison` returns.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.
        differences: Whether to draw differences to the model that the table takes them to, in
            place of the scores.

    Returns:
        The figure. Its axes are the panels.

    Example:

    >>> import keras_disrnn
    >>> import numpy as np
    >>> from keras_disrnn.analysis import Predictions, compute_comparison
    >>> from keras_disrnn.plots import plot_comparison
    >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]])
    >>> chance = {"train": Predictions(np.zeros((2, 3, 2)))}
    >>> figure = plot_comparison(compute_comparison({"chance": chance}, {"train": sessions}))
    >>> [ax.get_xlabel() for ax in figure.axes]
    ['normalized likelihood']
    """
    scores = [score for score in SCORES if table[score].notna().any()]
    against = reference_model(table)
    names = [n for n in table["model"].unique() if not (differences and n == against)]
    parts = list(table["part"].unique())
    height = float(np.clip(1.3 + 0.26 * len(names), 2.4, 14.0))
    figure = new_figure(figure, (2.2 + 2.7 * len(scores), height))
    axes = figure.subplots(1, len(scores), squeeze=False, sharey=True)[0]
    end = "_difference" if differences else ""
    places = {name: place for place, name in enumerate(names)}
    for ax, score in zip(axes, scores, strict=True):
        if differences:
            zero_lines(ax, horizontal=False)
        for index, part in enumerate(parts):
            rows = table[(table["part"] == part) & table["model"].isin(names)]
            rows = rows[rows[f"{score}{end}"].notna()]
            y = rows["model"].map(places) + (index - (len(parts) - 1) / 2) * 0.26
            bounded = rows[f"{score}{end}_lower"].notna()
            ax.hlines(
                y[bounded],
                rows.loc[bounded, f"{score}{end}_lower"],
                rows.loc[bounded, f"{score}{end}_upper"],
                color=colour(index),
                linewidth=1.2,
            )
            ax.plot(
                rows[f"{score}{end}"],
                y,
                marker="o",
                markersize=4,
                linestyle="none",
                color=colour(index),
                markerfacecolor=colour(index) if part == "held_out" else "white",
                label=PARTS.get(part, part),
            )
        ax.set_xlabel(TITLES[score])
        ax.grid(axis="y", color=GREY, alpha=0.15)
        ax.set_axisbelow(True)
    hide_spines(axes)
    axes[0].set_yticks(range(len(names)), names, fontsize=SMALL)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    if differences:
        figure.suptitle(f"difference to {against}, paired by session", fontsize=10)
    legend_below(figure, axes[0], columns=len(parts))
    return figure
