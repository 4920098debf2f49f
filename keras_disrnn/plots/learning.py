"""How a fit went, over its steps and stages."""

import numpy as np
import pandas as pd

from keras_disrnn.plots.style import FAINT, GREY, INK, SMALL, colour, new_figure

MAX_PANELS = 6
NOT_METRICS = ("step", "epoch", "stage")
USUAL = ("loss", "choice_normalized_likelihood", "dopamine_mse", "dopamine_r2")
"""The metrics drawn unless others are asked for."""


def plot_learning_curves(history, figure=None, *, metrics=None, references=None):
    """Draws metrics against the step, on training and held-out sessions, with the stages marked.

    Lines break between stages: a loss means something else in each.

    Args:
        history: A DataFrame with one row an epoch: `step` (or else `epoch`) within the stage,
            `stage`, metrics, and those of held-out sessions with the prefix `val_`. What `train`
            returns.
        figure: A Figure or SubFigure to draw in, or `None` for a new one.
        metrics: Names of the metrics to draw, at most 6; `None` for the loss, the likelihood, the
            dopamine error and R^2, as far as the history has them, or else its first 6.
        references: Dictionary from metric to a value to draw a dashed line at, such as the true
            agent's likelihood.

    Returns:
        The figure, with one panel a metric.

    Raises:
        ValueError: If the history is empty or has no such metric, or there are too many.
    """
    metrics = _metrics(history, metrics)
    stage = history["stage"] if "stage" in history else pd.Series("", index=history.index)
    run = (stage != stage.shift()).cumsum().to_numpy()
    steps, starts = _total_steps(history, run)
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
        if metric in (references or {}):
            ax.axhline(references[metric], color=INK, linestyle=":", linewidth=1, label="reference")
        if _spans_decades(history, metric):
            ax.set_yscale("log")
        _mark_stages(ax, starts, stage.to_numpy()[np.flatnonzero(np.diff(run, prepend=0))])
        ax.set_ylabel(metric.replace("_", " "))
        ax.set_xlabel("step" if "step" in history else "epoch")
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


def _metrics(history, metrics):
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


def _total_steps(history, run):
    """Steps counted over all stages, and the step at which each run of a stage begins."""
    within = history["step" if "step" in history else "epoch"].to_numpy(float)
    lengths = [within[run == number].max() for number in np.unique(run)]
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return within + starts[run - 1], starts


def _plot_runs(ax, steps, values, run, label, style):
    for number in np.unique(run):
        chosen = (run == number) & ~np.isnan(values)
        if chosen.any():
            # A point, not an invisible line, where a stage has one epoch only.
            marker = "." if chosen.sum() == 1 else None
            ax.plot(steps[chosen], values[chosen], label=label, marker=marker, **style)
            label = None


def _spans_decades(history, metric):
    values = np.concatenate(
        [history[name].dropna() for name in (metric, f"val_{metric}") if name in history]
    )
    return values.min() > 0 and values.max() / values.min() > 30


def _mark_stages(ax, starts, names):
    for index, (start, name) in enumerate(zip(starts, names, strict=True)):
        ax.axvline(start, color=FAINT, linewidth=0.8, zorder=0)
        ax.annotate(
            str(name),
            (start, 1.0),
            xycoords=("data", "axes fraction"),
            # At two heights in turn, as a short stage leaves no room for its name.
            xytext=(0, 2 + (index % 2) * (SMALL + 1)),
            textcoords="offset points",
            fontsize=SMALL,
            color=GREY,
        )
