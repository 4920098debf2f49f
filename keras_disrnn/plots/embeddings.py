"""Where a model puts its subjects, by itself or against what is known of them."""

import numpy as np

from keras_disrnn.analysis.subjects import align_subjects, compute_embedding_correlations
from keras_disrnn.plots.style import FAINT, INK, SMALL, colour, new_figure, note, warn_left_out

MAX_PANELS = 12
MOST_NAMED = 40
"""With more subjects than this their names would run into each other."""


def plot_embeddings(embeddings, known=None, figure=None, *, dimensions=None):
    """Draws the coordinates of subjects, or each against what is known of the subjects.

    By themselves: a panel for each coordinate, a point for each subject, in the order of the first
    coordinate. With `known`: a row of panels for each coordinate and a column for each thing known,
    a point for each subject, with Spearman's rank correlation; at most 12 panels.

    Args:
        embeddings: What `compute_embeddings` or `compute_subject_rates` returns.
        known: A `pandas.DataFrame` with a column `subject` and columns of numbers, or `None`.
        figure: A Figure or SubFigure to draw in, or `None` for a new one.
        dimensions: Names of the coordinates to draw, such as `open_embeddings` gives; `None` for
            all.

    Returns:
        The figure.

    Raises:
        ValueError: If a dimension is unknown, or the tables do not fit together.
    """
    names = [name for name in embeddings if name != "subject"]
    dimensions = names if dimensions is None else list(dimensions)
    for name in dimensions:
        if name not in names:
            raise ValueError(f"dimensions: expected names of {names}, got {name!r}")
    if not dimensions:
        figure = new_figure(figure, (3.2, 2.0))
        ax = figure.subplots()
        ax.set_axis_off()
        ax.text(0.5, 0.5, "no open dimension", ha="center", va="center", transform=ax.transAxes)
        return figure
    embeddings = embeddings[["subject", *dimensions]]
    if known is None:
        return _by_themselves(embeddings, dimensions, figure)
    correlations = compute_embedding_correlations(embeddings, known)
    things = list(dict.fromkeys(correlations["known"]))
    columns = min(len(things), MAX_PANELS)
    rows = min(len(dimensions), MAX_PANELS // columns)
    warn_left_out(rows * columns, len(dimensions) * len(things), "panels of embeddings")
    figure = new_figure(figure, (0.6 + 2.9 * columns, 0.3 + 2.6 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    found, facts = align_subjects(embeddings, known)
    by_pair = correlations.set_index(["dimension", "known"])
    for row, column in np.ndindex(rows, columns):
        ax, dimension, thing = axes[row, column], dimensions[row], things[column]
        ax.scatter(facts[thing], found[dimension], s=22, color=colour(0), edgecolor="white", lw=0.5)
        # Room for the note above the points.
        ax.margins(y=0.18)
        row_of = by_pair.loc[(dimension, thing)]
        note(ax, f"ρ = {row_of['rho']:.3f}, n = {int(row_of['n'])}")
        ax.set_xlabel(thing)
        ax.set_ylabel(dimension)
    return figure


def _by_themselves(embeddings, dimensions, figure):
    ordered = embeddings.sort_values(dimensions[0], kind="stable")
    count = len(ordered)
    size = (float(np.clip(1.5 + 0.28 * count, 3.6, 12.0)), 0.9 + 1.7 * len(dimensions))
    figure = new_figure(figure, size)
    axes = figure.subplots(len(dimensions), 1, squeeze=False, sharex=True)[:, 0]
    for ax, dimension in zip(axes, dimensions, strict=True):
        ax.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        ax.vlines(range(count), 0, ordered[dimension], color=FAINT, linewidth=1, zorder=1)
        ax.scatter(range(count), ordered[dimension], s=22, color=INK, zorder=2)
        ax.set_ylabel(dimension)
    if count <= MOST_NAMED:
        axes[-1].set_xticks(range(count), ordered["subject"], rotation=90, fontsize=SMALL)
    else:
        axes[-1].set_xticks([])
        axes[-1].set_xlabel(f"{count} subjects")
    return figure
