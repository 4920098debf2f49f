"""Several models' scores side by side (Table 1 of Jain et al. 2025, drawn)."""

import numpy as np

from keras_disrnn.analysis.bootstrap import SCORES
from keras_disrnn.analysis.comparison import PARTS, TITLES, reference_model
from keras_disrnn.plots.style import GREY, SMALL, colour, new_figure, zero_lines


def plot_comparison(table, figure=None, *, differences=False):
    """Draws the scores of models, or their paired differences, with intervals.

    One panel a score that some model has, one row a model, in the order of the table. Held-out
    sessions are filled points, other parts open ones.

    Args:
        table: What `compute_comparison` returns.
        figure: A Figure or SubFigure to draw in, or `None` for a new one.
        differences: Whether to draw each model's difference to the one that the table takes them
            to, in place of the scores.

    Returns:
        The figure; its axes are the panels.
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
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    axes[0].set_yticks(range(len(names)), names, fontsize=SMALL)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    if differences:
        figure.suptitle(f"difference to {against}, paired by session", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(parts), fontsize=SMALL, frameon=False
    )
    return figure
