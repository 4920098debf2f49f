"""The fits of a study: penalty scales, and subjects."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_disrnn.analysis.graph import cluster_graphs
from keras_disrnn.plots.style import (
    FAINT,
    GREY,
    SMALL,
    AnyFigure,
    colour,
    hide_spines,
    label_beside,
    name_subjects,
    new_figure,
    penalty_scale_axis,
)

if TYPE_CHECKING:
    from keras_disrnn.analysis.studies import StudyFit


def plot_penalty_curves(fits: Sequence[StudyFit], figure: AnyFigure | None = None) -> Figure:
    """Draws the likelihood and the number of edges at each penalty scale, in a column per model.

    The upper axes have the held-out normalized likelihood of each subject (thin lines, means over
    seeds) and its mean over subjects (thick). Dashed lines are the means of models without
    penalties for the same subjects; a model at chance is only in the legend, with its likelihood.
    The lower axes have the number of edges of the graphs (mean over fits), and the share of pairs
    of seeds with the same graph.

    Args:
        fits: Fits of one data set.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.

    Returns:
        The figure.

    Raises:
        ValueError: If no fit has a penalty scale.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis.studies import StudyFit
    >>> from keras_disrnn.plots import plot_penalty_curves
    >>> scores = {"likelihood": 0.6, "edges": 4}
    >>> fits = [
    ...     StudyFit("mice", "m1", "DisRNN", scale, 0, scores, None, pd.DataFrame())
    ...     for scale in (0.5, 1.0)
    ... ]
    >>> plot_penalty_curves(fits).axes[1].get_xlabel()
    'penalty scale'
    """
    models: dict[tuple[str, bool], list[StudyFit]] = {}
    for fit in fits:
        if fit.scale is not None:
            models.setdefault((fit.model, fit.subject is None), []).append(fit)
    if not models:
        raise ValueError("fits: expected at least one of a model with penalties, got none")
    figure = new_figure(figure, (0.8 + 3.4 * len(models), 4.6))
    axes = figure.subplots(
        2, len(models), sharex="col", sharey="row", squeeze=False, height_ratios=(3, 2)
    )
    both = len({pooled for _, pooled in models}) > 1
    most = 1.0
    for column, ((model, pooled), own) in enumerate(models.items()):
        top, bottom = axes[:, column]
        scales = sorted({fit.scale for fit in own if fit.scale is not None})
        subjects = list(dict.fromkeys(fit.subject for fit in own))
        curves = np.array(
            [[_mean(own, scale=scale, subject=subject) for scale in scales] for subject in subjects]
        )
        if len(subjects) > 1:
            top.plot(scales, curves.T, color=FAINT, lw=0.8, zorder=1)
        # Only subjects with a fit at every scale can be compared between scales.
        whole = np.isfinite(curves).all(axis=1)
        if whole.any():
            mean = curves[whole].mean(axis=0)
            top.plot(scales, mean, color=colour(0), marker="o", ms=4, lw=2, label=model)
        compared = set(itertools.compress(subjects, whole))
        for index, (name, by_subject) in enumerate(_without_penalties(fits, pooled).items()):
            others = [float(np.mean(by_subject[s])) for s in compared if s in by_subject]
            if len(others) < len(compared) or not others:
                continue
            style = {"color": colour(index + 1), "ls": "--", "lw": 1}
            if _is_chance(others):
                top.plot([], [], label=f"{name}: {others[0]:.3f}", **style)
            else:
                top.axhline(np.mean(others), label=name, **style)
        top.set_title(model + (", pooled" if both and pooled else ""), fontsize=10)
        top.legend(fontsize=SMALL, edgecolor="none")
        edges = [
            np.mean([f.scores["edges"] for f in own if f.scale == scale] or np.nan)
            for scale in scales
        ]
        bottom.plot(scales, edges, color=colour(2), marker="s", ms=4)
        for scale, height in zip(scales, edges, strict=True):
            share = _agreement([fit for fit in own if fit.scale == scale])
            if share is not None:
                at = (scale, float(height))
                label_beside(bottom, f"{share:.0%}", at, offset=(0, 6), ha="center", color=GREY)
        most = np.nanmax([most, *edges])
        bottom.margins(x=0.12)
        penalty_scale_axis(bottom, scales)
    # Room for the shares above the highest point.
    axes[1, 0].set_ylim(0, 1.3 * most)
    axes[0, 0].set_ylabel("normalized likelihood,\nheld out")
    axes[1, 0].set_ylabel("edges\n(%: seeds agree)")
    hide_spines(axes.flat)
    return figure


def _mean(fits: Sequence[StudyFit], scale: float, subject: str | None) -> float:
    """Mean likelihood over seeds."""
    values = [f.scores["likelihood"] for f in fits if (f.scale, f.subject) == (scale, subject)]
    return float(np.mean(values)) if values else np.nan


def _without_penalties(
    fits: Sequence[StudyFit], pooled: bool
) -> dict[str, dict[str | None, list[float]]]:
    """Model without penalties to subject to likelihoods, of single subjects or pooled ones."""
    found: dict[str, dict[str | None, list[float]]] = {}
    for fit in fits:
        if fit.scale is None and (fit.subject is None) == pooled:
            by_subject = found.setdefault(fit.model, {})
            by_subject.setdefault(fit.subject, []).append(fit.scores["likelihood"])
    return found


def _is_chance(likelihoods: Sequence[float] | np.ndarray) -> bool:
    """Whether all likelihoods are at chance, so that drawing them would compress the others."""
    return bool(np.allclose(likelihoods, 1 / round(1 / likelihoods[0]), rtol=0, atol=1e-6))


def _agreement(fits: Sequence[StudyFit]) -> float | None:
    """Share of pairs of seeds of a subject with the same graph; `None` without pairs."""
    pairs = []
    for subject in {fit.subject for fit in fits}:
        graphs = [fit.graph for fit in fits if fit.subject == subject and fit.graph is not None]
        pairs += [a == b for a, b in itertools.combinations(cluster_graphs(graphs), 2)]
    return float(np.mean(pairs)) if pairs else None


def plot_subject_scores(table: pd.DataFrame, figure: AnyFigure | None = None) -> Figure:
    """Draws how well each model predicts each subject, with one row for each subject.

    Args:
        table: What `compute_subject_scores` returns.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.

    Returns:
        The figure. Its left axes have the likelihoods, with a ring around the best model of each
        subject. Its right axes have the number of subjects for which each model is the best. A
        model at chance is only in the legend, with its likelihood.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_subject_scores
    >>> table = pd.DataFrame(
    ...     {"subject": ["m1", "m1"], "model": ["GRU", "DisRNN"], "likelihood": [0.6, 0.62],
    ...      "best": [False, True]}
    ... )
    >>> plot_subject_scores(table).axes[1].get_xlabel()
    'subjects with this best model'
    """
    models = list(dict.fromkeys(table["model"]))
    ranks = table.groupby("subject")["likelihood"].max().sort_values()
    places = {subject: place for place, subject in enumerate(ranks.index)}
    height = float(np.clip(1.4 + 0.24 * max(len(places), len(models)), 2.6, 12.0))
    figure = new_figure(figure, (8.2, height))
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    marks = "os^Dvp<>"
    for index, model in enumerate(models):
        rows = table[table["model"] == model]
        y = rows["subject"].map(places).to_numpy()
        style = {"color": colour(index), "marker": marks[index % len(marks)], "ls": "none"}
        best = rows["best"].to_numpy(bool)
        likelihoods = rows["likelihood"].to_numpy()
        if _is_chance(likelihoods) and not best.any():
            left.plot([], [], ms=4.5, label=f"{model}: {likelihoods[0]:.3f}", **style)
        else:
            left.plot(likelihoods, y, ms=4.5, label=model, **style)
        ring = {"ms": 10, "mfc": "none", "mec": colour(index), "mew": 1.2}
        left.plot(likelihoods[best], y[best], "o", **ring)
        right.barh(index, best.sum(), color=colour(index), height=0.6)
        right.text(best.sum(), index, f" {best.sum()}", va="center", fontsize=SMALL)
    name_subjects(left.yaxis, list(places))
    left.set_xlabel("normalized likelihood, held out")
    left.grid(axis="y", color=GREY, alpha=0.15)
    right.set_yticks(range(len(models)), models, fontsize=SMALL)
    widest = max(1, table.groupby("model")["best"].sum().max())
    right.set(xlim=(0, 1.2 * widest), ylim=(len(models) - 0.4, -0.6))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("subjects with this best model")
    figure.legend(loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False)
    hide_spines((left, right))
    return figure
