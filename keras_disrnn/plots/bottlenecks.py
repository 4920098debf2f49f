"""The openness of all bottlenecks (Figures 2a and 3 of Jain et al. 2025)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from keras_disrnn.analysis.bottlenecks import bottleneck_matrices, sorted_latents
from keras_disrnn.plots.style import FAINT, SMALL, AnyFigure, new_figure

TITLES = {
    "subject": "subjects",
    "latent": "latents",
    "update": "update networks",
    "choice": "choice\nnetwork",
    "dopamine": "dopamine\nnetwork",
}


def plot_bottlenecks(bottlenecks: pd.DataFrame, figure: AnyFigure | None = None) -> Figure:
    """Draws the openness, 1 - sigma, of every bottleneck. Dark means open.

    The panels are the subject embedding, the latents, the update networks, the choice network and
    the dopamine network. A part that the model does not have, or that was never trained, has no
    panel. The panel of the update networks has the updated latents in rows. In all panels, latents
    are ordered by their own sigma, the most open first.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.

    Returns:
        The figure. Its axes are the panels in the order above, then the colour bar.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_bottlenecks
    >>> from keras_disrnn.plots import plot_bottlenecks
    >>> model = keras_disrnn.DisRNNModel(num_latents=2, num_signals=0)
    >>> figure = plot_bottlenecks(compute_bottlenecks(model))
    >>> [ax.get_title() for ax in figure.axes[:2]]
    ['latents', 'update networks']
    """
    order = sorted_latents(bottlenecks)
    panels = {}
    for group, matrix in bottleneck_matrices(bottlenecks).items():
        others = [name for name in matrix.index if name not in order]
        panels[group] = matrix.loc[[name for name in order if name in matrix.index] + others]
    if "update" in panels:
        observations = [name for name in panels["update"].columns if name not in order]
        panels["update"] = panels["update"][observations + order]

    # The number of inputs decides the width. A panel of one column needs room for its title.
    widths = [max(2.0, matrix.shape[1]) for matrix in panels.values()]
    height = float(np.clip(1.5 + 0.38 * len(order), 2.8, 9.0))
    width = float(np.clip(2.2 + 0.42 * sum(widths) + 0.5 * len(panels), 5.0, 14.0))
    figure = new_figure(figure, (width, height))
    axes = figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0]
    for ax, (group, matrix) in zip(axes, panels.items(), strict=True):
        image = ax.imshow(
            matrix.to_numpy(), cmap="Oranges", vmin=0.0, vmax=1.0, aspect="auto", origin="upper"
        )
        _outline_cells(ax, matrix.shape)
        ax.set_title(TITLES[group], fontsize=10)
        rows, columns = matrix.index, matrix.columns
        size = SMALL + 1 if len(rows) <= 12 else max(4, SMALL - len(rows) // 12)
        ax.set_yticks(range(len(rows)), rows, fontsize=size)
        if group == "update":
            ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
            ax.set(xlabel="input", ylabel="latent updated")
        else:
            ax.set_xticks([])
            names = {"subject": "dimension", "latent": "latent"}
            inputs = "latent" if set(rows) <= set(order) else "input"
            ax.set_ylabel(names.get(group, inputs))
        ax.tick_params(length=0)
    figure.colorbar(image, ax=list(axes), label="openness, 1 − σ", shrink=0.9)
    return figure


def _outline_cells(ax: Axes, shape: tuple[int, int]) -> None:
    """Draws thin lines between cells, so that closed ones differ from the background."""
    rows, columns = shape
    lines = [[(-0.5, row - 0.5), (columns - 0.5, row - 0.5)] for row in range(rows + 1)]
    lines += [[(column - 0.5, -0.5), (column - 0.5, rows - 0.5)] for column in range(columns + 1)]
    # One collection, because Matplotlib takes as long for it as for one line.
    ax.add_collection(LineCollection(lines, colors=FAINT, linewidths=0.5, zorder=2), autolim=False)
