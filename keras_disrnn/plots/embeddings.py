"""The embedding of subjects, alone or against what is known of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_disrnn.analysis.subjects import align_subjects, compute_embedding_correlations
from keras_disrnn.plots.style import (
    FAINT,
    INK,
    AnyFigure,
    colour,
    empty_figure,
    name_subjects,
    new_figure,
    note,
    warn_left_out,
    zero_lines,
)

MAX_PANELS = 12


def plot_embeddings(
    embeddings: pd.DataFrame,
    known: pd.DataFrame | None = None,
    *,
    figure: AnyFigure | None = None,
    dimensions: Sequence[str] | None = None,
) -> Figure:
    """Draws the coordinates of subjects, or each against what is known of the subjects.

    Without `known`, there is a panel for each coordinate. It has a point for each subject, ordered
    by the first coordinate. With `known`, there is a row of panels for each coordinate and a column
    for each known property, with Spearman's rank correlation, and at most 12 panels.

    Args:
        embeddings: What `compute_embeddings` or `compute_subject_rates` returns.
        known: A table with a column `subject` and numeric columns, or `None`.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.
        dimensions: Names of the coordinates to draw, such as `open_embeddings` returns; `None` for
            all.

    Returns:
        The figure.

    Raises:
        ValueError: If a dimension is unknown, or the tables do not match.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_embeddings
    >>> figure = plot_embeddings(pd.DataFrame({"subject": ["a", "b"], "subject 1": [0.1, 0.2]}))
    >>> figure.axes[0].get_ylabel()
    'subject 1'
    """
    names = [name for name in embeddings if name != "subject"]
    dimensions = names if dimensions is None else list(dimensions)
    for name in dimensions:
        if name not in names:
            raise ValueError(f"dimensions: expected names of {names}, got {name!r}")
    if not dimensions:
        return empty_figure(figure, "no open dimension")
    embeddings = embeddings[["subject", *dimensions]]
    if known is None:
        return _coordinates(embeddings, dimensions, figure)
    correlations = compute_embedding_correlations(embeddings, known)
    properties = list(dict.fromkeys(correlations["known"]))
    columns = min(len(properties), MAX_PANELS)
    rows = min(len(dimensions), MAX_PANELS // columns)
    warn_left_out(rows * columns, len(dimensions) * len(properties), "panels of embeddings")
    figure = new_figure(figure, (0.6 + 2.9 * columns, 0.3 + 2.6 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    found, facts = align_subjects(embeddings, known)
    by_pair = correlations.set_index(["dimension", "known"])
    for (row, column), ax in np.ndenumerate(axes):
        dimension, name = dimensions[row], properties[column]
        ax.scatter(facts[name], found[dimension], s=22, color=colour(0), edgecolor="white", lw=0.5)
        # Room for the note above the points.
        ax.margins(y=0.18)
        correlation = by_pair.loc[(dimension, name)]
        note(ax, f"ρ = {correlation['rho']:.3f}, n = {int(correlation['n'])}")
        ax.set(xlabel=name, ylabel=dimension)
    return figure


def _coordinates(
    embeddings: pd.DataFrame, dimensions: Sequence[str], figure: AnyFigure | None
) -> Figure:
    ordered = embeddings.sort_values(dimensions[0], kind="stable")
    count = len(ordered)
    size = (float(np.clip(1.5 + 0.28 * count, 3.6, 12.0)), 0.9 + 1.7 * len(dimensions))
    figure = new_figure(figure, size)
    axes = figure.subplots(len(dimensions), 1, squeeze=False, sharex=True)[:, 0]
    for ax, dimension in zip(axes, dimensions, strict=True):
        zero_lines(ax, vertical=False)
        ax.vlines(range(count), 0, ordered[dimension], color=FAINT, linewidth=1, zorder=1)
        ax.scatter(range(count), ordered[dimension], s=22, color=INK, zorder=2)
        ax.set_ylabel(dimension)
    name_subjects(axes[-1].xaxis, ordered["subject"].tolist(), rotation=90)
    return figure
