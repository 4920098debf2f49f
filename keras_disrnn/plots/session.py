"""One session: choices and rewards, the latents and predictions of a model, and dopamine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from keras_disrnn.analysis.bottlenecks import is_latent
from keras_disrnn.plots.style import (
    FAINT,
    GREY,
    INK,
    SMALL,
    AnyFigure,
    arm_labels,
    colour,
    legend_beside,
    new_figure,
    warn_left_out,
    with_units,
    zero_lines,
)

MAX_LATENTS = 6
MAX_SIGNALS = 3


def plot_session(
    trace: pd.DataFrame,
    figure: AnyFigure | None = None,
    *,
    latents: Sequence[str] | None = None,
    units: str | None = None,
    arm_names: Sequence[str] | None = None,
) -> Figure:
    """Draws a session: choices and rewards, p(choice), the latents, and dopamine.

    The upper panel has the probability of the right arm, and a tick for each trial, at the top for
    right and at the bottom for left. With more than two arms it has the probability of each arm,
    and a row of ticks for each arm. Ticks are long if the trial was rewarded, and grey if it was
    forced. Dotted lines are missed trials. The panels below have the latents that the choice reads,
    and each recorded and predicted signal. To draw a part of a session, pass a part of the trace,
    such as `trace[:100]`.

    Args:
        trace: What `compute_session_trace` returns, or some of its rows.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.
        latents: Names of the latents to draw, such as `open_latents` returns; `None` for the 6 that
            vary most. If there are more than 6, the first are drawn, with a warning.
        units: Units of the signals, for the label.
        arm_names: One name for each arm; `None` for left and right (arm 0, ... for more than two).

    Returns:
        The figure, with panels of choice, latents, and at most 3 signals.

    Raises:
        ValueError: If the trace has no rows, `latents` has an unknown name, or `arm_names` does not
            match.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn import analysis
    >>> from keras_disrnn.plots import plot_session
    >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1, 1]], [[1, 0, 1]])
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> figure = plot_session(analysis.compute_session_trace(model, sessions, 0))
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['p(right)', 'latent value']
    """
    if len(trace) == 0:
        raise ValueError("trace: expected at least one trial, got none")
    arms = sum(name.startswith("choice_probability_") for name in trace.columns)
    names = arm_labels(arms, arm_names)
    trials = trace["trial"]
    latents = _latents(trace, latents)
    signals = [name[len("recorded_") :] for name in trace if name.startswith("recorded_")]
    warn_left_out(min(len(signals), MAX_SIGNALS), len(signals), "dopamine signals")
    signals = signals[:MAX_SIGNALS]

    heights = [1.5] + [1.0] * (bool(latents) + len(signals))
    figure = new_figure(figure, (10.0, 0.8 + 1.7 * sum(heights)))
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _choices(axes[0], trace, names)
    if latents:
        zero_lines(axes[1], vertical=False)
        for index, name in enumerate(latents):
            axes[1].plot(trials, trace[name], color=colour(index), linewidth=1.2, label=name)
        axes[1].set_ylabel("latent value")
        legend_beside(axes[1])
    for ax, signal in zip(axes[1 + bool(latents) :], signals, strict=True):
        zero_lines(ax, vertical=False)
        for kind, style in (
            ("recorded", {"color": INK, "marker": ".", "markersize": 3, "linewidth": 0.8}),
            ("predicted", {"color": colour(1), "linewidth": 1.2}),
        ):
            ax.plot(trials, trace[f"{kind}_{signal}"], label=kind, **style)
        ax.set_ylabel(with_units(signal, units))
        legend_beside(ax)
    for ax in axes:
        for trial in trials[trace["kind"] == "missed"]:
            ax.axvline(trial, color=FAINT, linestyle=":", linewidth=1, zorder=0)
    axes[0].set_title(f"session {trace['session'].iloc[0]}", fontsize=10)
    axes[-1].set_xlabel("trial")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlim(trials.min() - 1, trials.max() + 1)
    return figure


def _latents(trace: pd.DataFrame, latents: Sequence[str] | None) -> list[str]:
    """Names of the latents to draw."""
    found = [name for name in trace if is_latent(name)]
    if latents is None:
        spread = trace[found].std(ddof=0).sort_values(ascending=False, kind="stable")
        return sorted(spread.index[:MAX_LATENTS], key=found.index)
    unknown = [name for name in latents if name not in found]
    if unknown:
        raise ValueError(f"latents: expected names among {found}, got {unknown[0]!r}")
    warn_left_out(min(len(latents), MAX_LATENTS), len(latents), "latents")
    return list(latents[:MAX_LATENTS])


def _choices(ax: Axes, trace: pd.DataFrame, names: Sequence[str]) -> None:
    """Draws p(choice), and a tick for every trial."""
    two = len(names) == 2
    for arm in (1,) if two else range(len(names)):
        ink, probability = INK if two else colour(arm), trace[f"choice_probability_{arm}"]
        ax.plot(trace["trial"], probability, color=ink, linewidth=1.2, label=names[arm])
    for arm, name in enumerate(names):
        # Two arms: up from the top, down from the bottom. More arms: a row of ticks each.
        base, sign = ((-0.05, -1), (1.05, 1))[arm] if two else (1.06 + 0.2 * arm, 1)
        for kind, ink in (("free", colour(arm)), ("forced", GREY)):
            chosen = trace[(trace["kind"] == kind) & (trace["choice"] == arm)]
            length = np.where(chosen["reward"] > 0, 0.16, 0.07)
            ax.vlines(chosen["trial"], base, base + sign * length, color=ink, linewidth=1.2)
        if two:
            ax.annotate(
                name,
                (1.005, base + sign * 0.08),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=SMALL,
                color=colour(arm),
            )
    ax.axhline(1 / len(names), color=FAINT, linewidth=0.8, zorder=0)
    ax.set(
        yticks=[0.0, 0.5, 1.0],
        ylim=(-0.26, 1.26) if two else (-0.05, 1.1 + 0.2 * len(names)),
        ylabel=f"p({names[1]})" if two else "p(arm)",
    )
    kinds = [("rewarded", INK, 10), ("unrewarded", INK, 5)]
    if (trace["kind"] == "forced").any():
        kinds.append(("forced", GREY, 10))
    ticks: list[Artist] = [
        Line2D([], [], color=ink, linestyle="", marker="|", markersize=size, label=label)
        for label, ink, size in kinds
    ]
    if (trace["kind"] == "missed").any():
        ticks.append(Line2D([], [], color=FAINT, linestyle=":", label="missed"))
    lines = [] if two else ax.get_legend_handles_labels()[0]
    legend_beside(ax, lines + ticks)
