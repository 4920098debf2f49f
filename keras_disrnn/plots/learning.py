"""Learning curves, over the steps and stages of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_disrnn.plots.style import (
    FAINT,
    GREY,
    INK,
    SMALL,
    AnyFigure,
    colour,
    label_beside,
    label_log_axis,
    new_figure,
)

MAX_PANELS = 6
NOT_METRICS = ("step", "epoch", "stage")
USUAL = ("loss", "choice_normalized_likelihood", "dopamine_mse", "dopamine_r2")
"""The metrics that are drawn by default."""


def plot_learning_curves(
    history: pd.DataFrame,
    figure: AnyFigure | None = None,
    *,
    metrics: Sequence[str] | None = None,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Draws metrics of training and held-out sessions over the steps, with the stages marked.

    Lines are interrupted between stages, because each stage has another loss.

    Args:
        history: What `train` returns, or any table with one row for each epoch: `step` (or `epoch`)
            within the stage, `stage`, metrics, and with the prefix `val_` those of held-out
            sessions.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.
        metrics: Names of the metrics to draw, at most 6; `None` for the loss, the likelihood, the
            dopamine error and R², if the history has them, and otherwise its first 6.
        references: Mapping of metric to the height of a dashed line, such as the likelihood of the
            true agent.

    Returns:
        The figure, with one panel for each metric.

    Raises:
        ValueError: If the history is empty or lacks a metric, or there are too many metrics.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_learning_curves
    >>> history = pd.DataFrame({"epoch": [1, 2], "loss": [0.7, 0.6], "val_loss": [0.7, 0.65]})
    >>> plot_learning_curves(history).axes[0].get_ylabel()
    'loss'
    """
    metrics = _metrics(history, metrics)
    stage = history["stage"] if "stage" in history else pd.Series("", index=history.index)
    run = (stage != stage.shift()).cumsum().to_numpy()
    clock = "step" if "step" in history else "epoch"
    # Steps are counted over all stages.
    within = history[clock].to_numpy(float)
    lengths = [within[run == number].max() for number in np.unique(run)]
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    steps = within + starts[run - 1]
    columns = 2 if len(metrics) == 4 else min(len(metrics), 3)
    rows = -(-len(metrics) // columns)
    figure = new_figure(figure, (0.6 + 3.6 * columns, 0.8 + 2.4 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    for index, ax in enumerate(axes.flat):
        if index >= len(metrics):
            ax.set_axis_off()
            continue
        metric = metrics[index]
        for prefix, label, style in (
            ("", "training", {"color": colour(0)}),
            ("val_", "held out", {"color": colour(1), "linestyle": "--"}),
        ):
            if prefix + metric in history:
                values = history[prefix + metric].to_numpy(float)
                _plot_runs(ax, steps, values, run, label, style)
        if references and metric in references:
            ax.axhline(references[metric], color=INK, linestyle=":", linewidth=1, label="reference")
        if _spans_decades(history, metric):
            ax.set_yscale("log")
            label_log_axis(ax.yaxis)
        _mark_stages(ax, starts, stage.to_numpy()[np.flatnonzero(np.diff(run, prepend=0))])
        ax.set(xlabel=clock, ylabel=metric.replace("_", " "))
        ax.set_xlim(-0.02 * steps[-1], 1.02 * steps[-1])
    handles = {
        label: handle
        for ax in axes.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=SMALL
    )
    return figure


def _metrics(history: pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    if len(history) == 0:
        raise ValueError("history: expected at least one row, got none")
    found = [
        name
        for name in history.columns
        if name not in NOT_METRICS
        and not name.startswith("val_")
        and pd.api.types.is_numeric_dtype(history[name])
        and history[name].notna().any()
    ]
    if metrics is None:
        metrics = [name for name in USUAL if name in found] or found[:MAX_PANELS]
    unknown = [name for name in metrics if name not in found]
    if unknown:
        raise ValueError(f"metrics: expected names among {found}, got {unknown[0]!r}")
    if not 1 <= len(metrics) <= MAX_PANELS:
        raise ValueError(f"metrics: expected 1 to {MAX_PANELS} names, got {len(metrics)}")
    return list(metrics)


def _plot_runs(
    ax: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    run: np.ndarray,
    label: str | None,
    style: Mapping[str, Any],
) -> None:
    for number in np.unique(run):
        chosen = (run == number) & ~np.isnan(values)
        if chosen.any():
            # A line of a single epoch would be invisible.
            marker = "." if chosen.sum() == 1 else None
            ax.plot(steps[chosen], values[chosen], label=label, marker=marker, **style)
            label = None


def _spans_decades(history: pd.DataFrame, metric: str) -> bool:
    values = np.concatenate(
        [history[name].dropna() for name in (metric, f"val_{metric}") if name in history]
    )
    return values.min() > 0 and values.max() / values.min() > 30


def _mark_stages(ax: Axes, starts: np.ndarray, names: np.ndarray) -> None:
    for index, (start, name) in enumerate(zip(starts, names, strict=True)):
        ax.axvline(start, color=FAINT, linewidth=0.8, zorder=0)
        # Alternate between two heights, because short stages have no room for their names.
        offset = (0, 2 + (index % 2) * (SMALL + 1))
        at = ("data", "axes fraction")
        label_beside(ax, str(name), (start, 1.0), offset=offset, color=GREY, xycoords=at)
