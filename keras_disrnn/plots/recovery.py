"""How often, and how well, the models recover known agents."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_disrnn.plots.style import (
    FAINT,
    INK,
    SMALL,
    AnyFigure,
    colour,
    label_beside,
    new_figure,
    zero_lines,
)


def plot_recovery(table: pd.DataFrame, figure: AnyFigure | None = None) -> Figure:
    """Draws the recovery of one or several agents over seeds.

    Args:
        table: What `recover` returns, or several such tables concatenated.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.

    Returns:
        The figure. Its axes are the share of seeds with the graph of the agent; the normalized
        likelihood minus that of the true agent; the R² of dopamine; and the correlation of each
        variable with its latent. Points of seeds with the graph of the agent are filled.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_recovery
    >>> table = pd.DataFrame(
    ...     {"agent": "q_learning", "sessions": [10, 20], "graph": [False, True],
    ...      "difference": [-0.01, 0.0], "dopamine_r2": [0.8, 0.9], "Q0: r": [0.9, 0.99]}
    ... )
    >>> plot_recovery(table).axes[0].get_title()
    'graph found'
    """
    agents = list(dict.fromkeys(table["agent"]))
    figure = new_figure(figure, (7.2, 1.3 + 0.75 * len(agents)))
    axes = figure.subplots(1, 4, sharey=True)
    titles = ("graph found", "likelihood minus\ntrue agent's", "dopamine R²", "|r| with latent")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=SMALL)
    rng = np.random.default_rng(0)
    for row, agent in enumerate(agents):
        rows = table[table["agent"] == agent]
        found = rows["graph"].to_numpy(bool)
        axes[0].barh(row, found.mean(), color=colour(0), height=0.5)
        ink = "white" if found.mean() > 0.4 else "black"
        count = f"{found.sum()} of {len(found)}"
        axes[0].text(0.03, row, count, va="center", fontsize=SMALL, color=ink)
        axes[0].barh(row, 1, color="none", edgecolor=FAINT, height=0.5)
        names = [name for name in rows if name.endswith(": r") and rows[name].notna().any()]
        columns = [rows["difference"], rows["dopamine_r2"], *(rows[name] for name in names)]
        for index, values in enumerate(columns):
            ax = axes[min(index + 1, 3)]
            heights = row + rng.uniform(-0.18, 0.18, len(rows))
            _scatter(ax, values.to_numpy(), heights, found, colour(max(index - 2, 0)))
    axes[0].set_xlim(0, 1)
    axes[0].set_yticks(range(len(agents)), [agent.replace("_", " ") for agent in agents])
    axes[0].set_ylim(len(agents) - 0.5, -0.5)
    zero_lines(axes[1], horizontal=False)
    return figure


def plot_recovery_by_sessions(table: pd.DataFrame, figure: AnyFigure | None = None) -> Figure:
    """Draws how recovery depends on the number of training sessions.

    Args:
        table: As for `plot_recovery`, of one agent, with a column `sessions`, the number of
            training sessions.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.

    Returns:
        The figure. Its axes are the share of seeds with the graph of the agent, with Wilson's 95%
        interval; the normalized likelihood minus that of the true agent; and the R² of dopamine.
        Points of seeds with the graph of the agent are filled, and lines are means over seeds.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.plots import plot_recovery_by_sessions
    >>> table = pd.DataFrame(
    ...     {"agent": "q_learning", "sessions": [10, 20], "graph": [False, True],
    ...      "difference": [-0.01, 0.0], "dopamine_r2": [0.8, 0.9], "Q0: r": [0.9, 0.99]}
    ... )
    >>> plot_recovery_by_sessions(table).axes[0].get_xlabel()
    'training sessions'
    """
    figure = new_figure(figure, (7.2, 2.4))
    axes = figure.subplots(1, 3, sharex=True)
    titles = ("graph found", "likelihood minus true agent's", "dopamine R²")
    groups = list(table.groupby("sessions"))
    sizes = [size for size, _ in groups]
    for ax, title, column in zip(axes, titles, ("graph", "difference", "dopamine_r2"), strict=True):
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=SMALL)
        ax.set_xscale("log")
        ax.set_xlabel("training sessions", fontsize=9)
        ax.plot(sizes, [rows[column].mean() for _, rows in groups], color=colour(0), lw=1)
    for size, rows in groups:
        found = rows["graph"].to_numpy(bool)
        share = found.mean()
        test = scipy.stats.binomtest(int(found.sum()), len(found))
        axes[0].plot([size, size], test.proportion_ci(method="wilson"), color=colour(0), lw=1)
        axes[0].plot(size, share, "o", color=colour(0), ms=4)
        offset = (5, -9 if share > 0.5 else 5)
        count = f"{found.sum()}/{len(found)}"
        label_beside(axes[0], count, (size, share), offset=offset, color=INK)
        for ax, column in zip(axes[1:], ("difference", "dopamine_r2"), strict=True):
            _scatter(ax, np.full(len(rows), size), rows[column].to_numpy(), found, colour(0))
    axes[0].set_ylim(-0.03, 1.03)
    axes[0].set_xticks(sizes, [str(size) for size in sizes])
    axes[0].minorticks_off()
    axes[0].margins(x=0.18)
    zero_lines(axes[1], vertical=False)
    return figure


def _scatter(ax: Axes, x: np.ndarray, y: np.ndarray, filled: np.ndarray, ink: str) -> None:
    """Draws points, some of them filled."""
    for among, fill in ((filled, ink), (~filled, "white")):
        ax.scatter(x[among], y[among], s=14, facecolor=fill, edgecolor=ink, linewidth=0.8, zorder=3)
