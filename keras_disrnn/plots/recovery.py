"""How often and how well known agents are found again."""

import numpy as np

from keras_disrnn.plots.style import FAINT, SMALL, colour, new_figure


def plot_recovery(table, figure=None):
    """Draws the recovery of one or several agents over seeds.

    Args:
        table: What `keras_disrnn.recovery.recover` returned, or several of them, one below the
            other.
        figure: A Figure or SubFigure to draw in, or `None` for a new one.

    Returns:
        The figure; its axes are the share of seeds with the agent's graph, the normalized
        likelihood minus the true agent's, the dopamine R^2, and the correlation of each variable
        with its latent. Filled points are seeds with the agent's graph.
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
        axes[0].text(
            0.03,
            row,
            f"{found.sum()} of {len(found)}",
            va="center",
            fontsize=SMALL,
            color="white" if found.mean() > 0.4 else "black",
        )
        axes[0].barh(row, 1, color="none", edgecolor=FAINT, height=0.5)
        names = [name for name in rows if name.endswith(": r") and rows[name].notna().any()]
        columns = [rows["difference"], rows["dopamine_r2"], *(rows[name] for name in names)]
        for index, values in enumerate(columns):
            ax = axes[min(index + 1, 3)]
            heights = row + rng.uniform(-0.18, 0.18, len(rows))
            ink = colour(max(index - 2, 0))
            for among, fill in ((found, ink), (~found, "white")):
                ax.scatter(
                    values.to_numpy()[among],
                    heights[among],
                    s=14,
                    facecolor=fill,
                    edgecolor=ink,
                    linewidth=0.8,
                )
    axes[0].set_xlim(0, 1)
    axes[0].set_yticks(range(len(agents)), [agent.replace("_", " ") for agent in agents])
    axes[0].set_ylim(len(agents) - 0.5, -0.5)
    axes[1].axvline(0, color=FAINT, lw=0.8, zorder=0)
    return figure
