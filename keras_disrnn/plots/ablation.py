"""What becomes of each readout when a latent is taken away from it."""

import numpy as np

from keras_disrnn.plots.style import FAINT, INK, SMALL, colour, new_figure, zero_lines

LOSSES = {
    "held_loss": ("held at its mean", "o", 0.14),
    "refitted_loss": ("refitted without it", "s", -0.14),
}
"""Columns of the losses to what they are called, their marker and their place in the row."""

LABELS = {
    "normalized_likelihood": "loss of normalized likelihood",
    "r2": "loss of R²",
}


def plot_ablation(ablation, figure=None):
    """Draws the losses of each readout without each latent, with intervals and verdicts.

    One panel a readout, one row a latent, in the order of the model. The shaded band holds losses
    too small to count.

    Args:
        ablation: What `compute_ablation` returns.
        figure: A Figure or SubFigure to draw in, or `None` for a new one.

    Returns:
        The figure; its axes are the panels.
    """
    panels = list(ablation.effects.groupby("readout", sort=False))
    latents = len(ablation.verdicts)
    size = (0.6 + 4.6 * len(panels), float(np.clip(1.6 + 0.42 * latents, 2.6, 12.0)))
    figure = new_figure(figure, size)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (readout, rows) in zip(axes, panels, strict=True):
        _panel(ax, readout, rows)
    axes[0].set_yticks(
        range(latents),
        [
            row["latent"] + ("" if row["open"] else " (closed)")
            for _, row in ablation.verdicts.iterrows()
        ],
    )
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, fontsize=SMALL, frameon=False
    )
    return figure


def _panel(ax, readout, rows):
    first = rows.iloc[0]
    smallest = first["smallest_effect"]
    ax.axvspan(
        -smallest, smallest, color=FAINT, alpha=0.35, linewidth=0, label="too small to count"
    )
    zero_lines(ax, horizontal=False)
    for index, (name, (label, marker, shift)) in enumerate(LOSSES.items()):
        for place, (_, row) in enumerate(rows.iterrows()):
            y = place - shift
            ax.plot(
                [row[f"{name}_lower"], row[f"{name}_upper"]], [y, y], color=colour(index), zorder=2
            )
            ax.plot(
                row[name],
                y,
                marker=marker,
                markersize=5,
                color=colour(index),
                linestyle="none",
                label=label if place == 0 else None,
                zorder=3,
            )
    for place, (_, row) in enumerate(rows.iterrows()):
        ax.annotate(
            row["verdict"],
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=INK,
            annotation_clip=False,
        )
    ax.set_title(f"{readout} readout", fontsize=10)
    ax.set_xlabel(LABELS[first["score"]])
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
