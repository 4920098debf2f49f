"""The signal about an event, averaged over trials."""

import numpy as np

from keras_disrnn.plots.style import (
    GREY,
    INK,
    colour,
    legend_beside,
    new_figure,
    with_units,
    zero_lines,
)

VALUE_GROUPS = 3


def plot_event_average(
    offsets, values, reward, value=None, figure=None, *, event="the event", units=None
):
    """Draws the mean signal about an event, rewarded and unrewarded, and by the chosen value.

    Bands are the standard error of the mean over trials.

    Args:
        offsets: `[P]` seconds after the event, as `keras_disrnn.data.align` gives them.
        values: `[E, P]` the signal about each event; instants that are NaN do not count.
        reward: `[E]` reward of each trial; above 0 is rewarded. Trials of NaN are left out.
        value: `[E]` value of the chosen arm before the outcome, of any model, for a second panel by
            thirds of it; `None` for one panel. Trials of NaN are left out of that panel.
        figure: A Figure or SubFigure to draw in, or `None` for a new one.
        event: What the event is called on the axis.
        units: Units of the signal, for the label.

    Returns:
        The figure, with one or two panels.

    Raises:
        ValueError: If the shapes do not fit one another, or no trial has a reward.
    """
    offsets, values = np.asarray(offsets, float), np.asarray(values, float)
    reward = np.asarray(reward, float)
    shapes = {"values": (len(reward), len(offsets))}
    if value is not None:
        value = np.asarray(value, float)
        shapes["value"] = reward.shape
    for name, expected in shapes.items():
        got = values.shape if name == "values" else value.shape
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


def _average(ax, offsets, values, ink, dashes, label):
    if not len(values):
        return
    count = np.isfinite(values).sum(axis=0)
    total = np.where(count > 0, np.nansum(values, axis=0), np.nan)
    mean = total / np.maximum(count, 1)
    square = np.nansum((values - mean) ** 2, axis=0)
    error = np.sqrt(square / np.maximum(count - 1, 1) / np.maximum(count, 1))
    ax.plot(offsets, mean, color=ink, linestyle=dashes, linewidth=1.3, label=label)
    ax.fill_between(offsets, mean - error, mean + error, color=ink, alpha=0.2, linewidth=0)
