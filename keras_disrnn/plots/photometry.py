"""The average photometry signal around an event."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from keras_disrnn.plots.style import (
    GREY,
    INK,
    AnyFigure,
    colour,
    legend_beside,
    new_figure,
    with_units,
    zero_lines,
)

VALUE_GROUPS = 3


def plot_event_average(
    offsets: ArrayLike,
    values: ArrayLike,
    reward: ArrayLike,
    *,
    value: ArrayLike | None = None,
    figure: AnyFigure | None = None,
    event: str = "the event",
    units: str | None = None,
) -> Figure:
    """Draws the mean signal around an event, by reward and by the value of the chosen arm.

    Bands are the standard error of the mean over trials.

    Args:
        offsets: `[P]` seconds after the event, as `keras_disrnn.data.align` returns them.
        values: `[E, P]` signal around each event; NaN where it is missing.
        reward: `[E]` reward of each trial; rewarded if above 0. Trials with NaN are skipped.
        value: `[E]` value of the chosen arm before the outcome, from any model. It adds a panel
            with thirds of the trials by value, without trials with NaN; `None` for one panel.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.
        event: Name of the event on the axis.
        units: Units of the signal, for the label.

    Returns:
        The figure, with one or two panels.

    Raises:
        ValueError: If the shapes do not match, or no trial has a reward.

    Example:

    >>> from keras_disrnn.plots import plot_event_average
    >>> figure = plot_event_average([0.0, 0.1], [[0.0, 1.0], [0.0, 0.5]], [1, 0], event="reward")
    >>> figure.axes[0].get_xlabel()
    'seconds after reward'
    """
    offsets, values = np.asarray(offsets, float), np.asarray(values, float)
    reward = np.asarray(reward, float)
    shapes = {"values": (values.shape, (len(reward), len(offsets)))}
    if value is not None:
        value = np.asarray(value, float)
        shapes["value"] = (value.shape, reward.shape)
    for name, (got, expected) in shapes.items():
        if got != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {got}")
    if not np.isfinite(reward).any():
        raise ValueError("reward: expected a number in some trial, got none")
    panels = 1 if value is None else 2
    figure = new_figure(figure, (0.8 + 4.4 * panels, 3.2))
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    outcomes = (("rewarded", reward > 0, "-"), ("unrewarded", reward <= 0, "--"))
    for index, (name, chosen, _) in enumerate(outcomes):
        ink = (INK, GREY)[index]
        _average(axes[0], offsets, values[chosen], ink, "-", f"{name} ({chosen.sum()})")
    if value is not None:
        edges = np.nanquantile(value, np.linspace(0, 1, VALUE_GROUPS + 1)[1:-1])
        third = np.where(np.isnan(value), -1, np.searchsorted(edges, value, side="right"))
        for group, word in enumerate(("low", "middle", "high")):
            for name, chosen, dashes in outcomes:
                kept = chosen & (third == group)
                label = f"{word} value, {name} ({kept.sum()})"
                _average(axes[1], offsets, values[kept], colour(group), dashes, label)
    for ax in axes:
        zero_lines(ax)
        ax.set_xlabel(f"seconds after {event}")
        legend_beside(ax)
    axes[0].set_ylabel(with_units("signal", units))
    return figure


def _average(
    ax: Axes, offsets: np.ndarray, values: np.ndarray, ink: str, dashes: str, label: str
) -> None:
    if not len(values):
        return
    count = np.isfinite(values).sum(axis=0)
    total = np.where(count > 0, np.nansum(values, axis=0), np.nan)
    mean = total / np.maximum(count, 1)
    square = np.nansum((values - mean) ** 2, axis=0)
    error = np.sqrt(square / np.maximum(count - 1, 1) / np.maximum(count, 1))
    ax.plot(offsets, mean, color=ink, linestyle=dashes, linewidth=1.3, label=label)
    ax.fill_between(offsets, mean - error, mean + error, color=ink, alpha=0.2, linewidth=0)
