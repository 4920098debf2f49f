"""The choice statistics of animals and models, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_disrnn.plots.style import (
    INK,
    SMALL,
    AnyFigure,
    colour,
    legend_below,
    new_figure,
    note,
    zero_lines,
)

if TYPE_CHECKING:
    from keras_disrnn.analysis import Behaviour

_PANELS = (
    ("stay", "", "probability"),
    ("choice_autocorrelation", "lag (trials)", "autocorrelation of choice"),
    ("switch_curve", "trial relative to the change of blocks", "p(arm that is better after it)"),
    ("choice_weight", "trials back", "weight of past choice (log odds)"),
    ("reward_weight", "trials back", "weight of past reward (log odds)"),
    ("run_survival", "n (trials)", "p(run of choices longer than n)"),
)


def plot_behaviour(behaviours: Mapping[str, Behaviour], figure: AnyFigure | None = None) -> Figure:
    """Draws the choice statistics of an animal and of models, with one panel for each.

    The first behaviour is the one to compare with. It is black and has its bootstrap interval.

    Args:
        behaviours: Mapping of name to `Behaviour`, such as `{"mice": ..., "DisRNN": ...}`.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no behaviour.

    Example:

    >>> from keras_disrnn import bandit
    >>> from keras_disrnn.analysis import compute_behaviour
    >>> from keras_disrnn.data import sessions_from_table
    >>> from keras_disrnn.plots import plot_behaviour
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), bandit.BlockBandit(), num_sessions=3, num_trials=40, seed=0
    ... )
    >>> sessions = sessions_from_table(played.to_table())
    >>> len(plot_behaviour({"agent": compute_behaviour(sessions, replicates=10)}).axes)
    6
    """
    if not behaviours:
        raise ValueError("behaviours: expected at least one, got none")
    figure = new_figure(figure, (10.5, 6.2))
    axes = figure.subplots(2, 3)
    for ax, (statistic, across, up) in zip(axes.flat, _PANELS, strict=True):
        if statistic == "stay":
            _stay(ax, behaviours)
        else:
            _curves(ax, behaviours, statistic)
        ax.set(xlabel=across, ylabel=up)
    legend_below(figure, axes.flat[1], columns=6, fontsize=None)
    return figure


def _look(index: int) -> dict[str, Any]:
    """The first is black and thick, the others have colours."""
    if index == 0:
        return {"color": INK, "linewidth": 2.0, "zorder": 3}
    return {"color": colour(index - 1), "linewidth": 1.3}


def _stay(ax: Axes, behaviours: Mapping[str, Behaviour]) -> None:
    names = ("win_stay", "lose_shift")
    width = 0.8 / len(behaviours)
    for index, behaviour in enumerate(behaviours.values()):
        rows = behaviour.table.set_index("statistic").loc[list(names)]
        value = rows["value"].to_numpy()
        error = np.abs(rows[["lower", "upper"]].to_numpy().T - value)
        place = np.arange(2) + (index - (len(behaviours) - 1) / 2) * width
        ax.bar(
            place, value, 0.9 * width, color=_look(index)["color"], alpha=0.85,
            yerr=None if np.isnan(error).any() else error, ecolor="#999999", capsize=2,
        )  # fmt: skip
    ax.set_xticks(range(2), ["win: stay", "lose: shift"])
    ax.set_ylim(0, 1)


def _curves(ax: Axes, behaviours: Mapping[str, Behaviour], statistic: str) -> None:
    drawn = False
    for index, (name, behaviour) in enumerate(behaviours.items()):
        rows = behaviour.table[behaviour.table["statistic"] == statistic]
        if rows.empty:
            continue
        drawn = True
        marker = "." if len(rows) <= 10 else None
        ax.plot(rows["at"], rows["value"], label=name, marker=marker, **_look(index))
        if index == 0:
            band = (rows["at"], rows["lower"], rows["upper"])
            ax.fill_between(*band, color=INK, alpha=0.15, linewidth=0)
    probability = statistic in ("switch_curve", "run_survival")
    if probability:
        ax.set_ylim(0, 1)
    zero_lines(ax, horizontal=not probability, vertical=drawn and statistic == "switch_curve")
    if not drawn:
        reason = next(iter(behaviours.values())).skipped
        text = reason.get(statistic) or reason.get("regression", "")
        note(ax, "skipped:\n" + textwrap.fill(text, 34))
        ax.tick_params(labelsize=SMALL)
