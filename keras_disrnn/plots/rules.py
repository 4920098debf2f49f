"""The choice, dopamine and update networks (Figures 2b and 2c of Jain et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from keras_disrnn.plots.style import (
    DIVERGING,
    FAINT,
    INK,
    SMALL,
    AnyFigure,
    arm_labels,
    colour,
    combination_labels,
    combination_styles,
    empty_figure,
    legend_beside,
    map_limits,
    new_axes,
    new_figure,
    note,
    warn_left_out,
    with_units,
    zero_lines,
)

if TYPE_CHECKING:
    from keras_disrnn.analysis import ChoiceRule, DopamineRule, UpdateRule

MAX_MAPS = 12
MAX_UPDATE_PANELS = 15


def plot_choice_rule(
    rule: ChoiceRule,
    ax: Axes | None = None,
    *,
    arm: int | None = None,
    arm_names: Sequence[str] | None = None,
) -> Axes:
    """Draws the choice network as a function of the open latents.

    - Without an open latent: a bar for the constant probability of each arm.
    - One open latent: a line of the logit of the right arm minus that of the left. More than two
      arms have a line each, of the logit minus the mean over arms.
    - Two or more: a map of the same over the two most open latents, with a line where it is 0. More
      than two arms have a map of the preferred arm, or of the logit of one arm.

    Args:
        rule: What `compute_choice_rule` returns.
        ax: An Axes to draw in; `None` for a new figure.
        arm: With more than two arms and two latents, the arm whose logit to draw; `None` for the
            preferred arm.
        arm_names: One name for each arm; `None` for left and right (arm 0, ... for more than two).

    Returns:
        The Axes.

    Raises:
        ValueError: If `arm` or `arm_names` does not match the number of arms.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn import analysis
    >>> from keras_disrnn.plots import plot_choice_rule
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> plot_choice_rule(analysis.compute_choice_rule(model, points=5)).get_xlabel()
    'z1'
    """
    arms = rule.logits.shape[-1]
    names = arm_labels(arms, arm_names)
    if arm is not None and not 0 <= arm < arms:
        raise ValueError(f"arm: expected an arm from 0 to {arms - 1}, got {arm}")
    ax = new_axes(ax, (4.2, 3.4))
    ax.set_title("choice network", fontsize=10)
    if not rule.latents:
        ax.bar(range(arms), rule.probability, color=[colour(index) for index in range(arms)])
        ax.axhline(1 / arms, color=FAINT, linestyle="--", linewidth=1)
        ax.set_xticks(range(arms), names)
        ax.set(ylim=(0, 1), ylabel="probability of choice")
        note(ax, "no open latent: constant")
    elif len(rule.latents) == 1:
        zero_lines(ax)
        (values,) = rule.values
        if arms == 2:
            ax.plot(values, rule.contrast, color=INK)
        else:
            for index, name in enumerate(names):
                ax.plot(values, rule.contrast[:, index], color=colour(index), label=name)
            legend_beside(ax)
        ax.set(xlabel=rule.latents[0], ylabel=_logit_label(names, None))
    elif arms > 2 and arm is None:
        _preferred_arm(ax, rule, names)
    else:
        values = rule.contrast if arms == 2 else rule.contrast[..., arm]
        image = _map(ax, rule, values, map_limits(values), cmap=DIVERGING)
        if values.min() < 0 < values.max():
            ax.contour(*rule.values, values.T, levels=[0.0], colors=INK, linewidths=0.8)
        ax.figure.colorbar(image, ax=ax, label=_logit_label(names, arm))
    _note_fixed(ax, rule)
    return ax


def plot_dopamine_rule(
    rule: DopamineRule,
    figure: AnyFigure | None = None,
    *,
    signal: str | None = None,
    units: str | None = None,
    arm_names: Sequence[str] | None = None,
) -> Figure:
    """Draws the dopamine network as a function of the open latents, choice and reward.

    - Without an open latent: a bar for each combination of choice and reward.
    - One open latent: one panel, with a line for each combination.
    - Two or more: a map over the two most open latents for each combination, with a row of panels
      for each choice, one colour scale, and at most 12 panels.

    Args:
        rule: What `compute_dopamine_rule` returns.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.
        signal: Name of the signal to draw; `None` for the first.
        units: Units of the signal, for the label.
        arm_names: One name for each arm; `None` for left and right (arm 0, ... for more than two).

    Returns:
        The figure.

    Raises:
        ValueError: If `signal` is not a signal of the rule, or `arm_names` does not match.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn import analysis
    >>> from keras_disrnn.plots import plot_dopamine_rule
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=1)
    >>> figure = plot_dopamine_rule(analysis.compute_dopamine_rule(model, points=5))
    >>> figure.axes[0].get_ylabel()
    'predicted dopamine'
    """
    signal = rule.signal_names[0] if signal is None else signal
    if signal not in rule.signal_names:
        raise ValueError(f"signal: expected one of {rule.signal_names}, got {signal!r}")
    prediction = rule.prediction[..., rule.signal_names.index(signal)]
    arms = int(rule.choices.max()) + 1
    names = arm_labels(arms, arm_names)
    labels = combination_labels(rule, names)
    quantity = with_units(f"predicted {signal}", units)
    moment = "before" if rule.timing == "pre" else "after"
    if len(rule.latents) == 2:
        per_choice = len(rule.rewards) // arms
        columns = min(per_choice, MAX_MAPS)
        rows = min(arms, MAX_MAPS // columns)
        warn_left_out(rows * columns, len(labels), "combinations of choice and reward")
        figure = new_figure(figure, (1.4 + 2.5 * columns, 0.9 + 2.2 * rows))
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        shown = prediction.reshape(arms, per_choice, *prediction.shape[1:])[:rows, :columns]
        limits = map_limits(shown)
        for (row, column), ax in np.ndenumerate(axes):
            image = _map(ax, rule, shown[row, column], limits, cmap=DIVERGING)
            ax.set_title(labels[row * per_choice + column], fontsize=10)
            ax.label_outer()
        figure.colorbar(image, ax=axes, label=quantity)
        figure.suptitle(f"dopamine network, latents {moment} the outcome", fontsize=10)
        _note_fixed(axes[0, 0], rule)
        return figure
    width = 5.6 if rule.latents else 1.4 + 0.85 * max(4, len(labels))
    figure = new_figure(figure, (width, 3.4))
    ax = figure.subplots()
    ax.set_title("dopamine network", fontsize=10)
    zero_lines(ax, vertical=bool(rule.latents))
    if rule.latents:
        for line, label, style in zip(prediction, labels, combination_styles(rule), strict=True):
            ax.plot(rule.values[0], line, label=label, **style)
        ax.set_xlabel(f"{rule.latents[0]} {moment} the outcome")
        legend_beside(ax)
    else:
        colours = [colour(int(choice)) for choice in rule.choices]
        ax.bar(range(len(labels)), prediction, color=colours)
        ax.set_xticks(range(len(labels)), [label.replace(", ", "\n") for label in labels])
        ax.set_xlabel("no open latent")
    ax.set_ylabel(quantity)
    _note_fixed(ax, rule)
    return figure


def plot_update_rules(
    rules: Sequence[UpdateRule],
    figure: AnyFigure | None = None,
    *,
    arm_names: Sequence[str] | None = None,
    max_panels: int = MAX_UPDATE_PANELS,
) -> Figure:
    """Draws the change of each open latent over a trial, for each choice and reward.

    There is one panel for each latent. If its update network reads other open inputs, there is a
    panel for each value of the most open of them. All panels have the same axes, with the same
    scale in both directions. A latent that forgets everything is a diagonal with slope -1.

    Args:
        rules: What `compute_update_rules` returns.
        figure: A Figure or SubFigure to draw in; `None` for a new Figure.
        arm_names: One name for each arm; `None` for left and right (arm 0, ... for more than two).
        max_panels: Largest number of panels; a warning says if some are left out.

    Returns:
        The figure.

    Raises:
        ValueError: If `max_panels` is below 1, or `arm_names` does not match.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn import analysis
    >>> from keras_disrnn.plots import plot_update_rules
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> figure = plot_update_rules(analysis.compute_update_rules(model, points=5))
    >>> figure.axes[0].get_ylabel()
    'change of z1'
    """
    if max_panels < 1:
        raise ValueError(f"max_panels: expected at least 1, got {max_panels}")
    if not rules:
        return empty_figure(figure, "no open latent")
    names = arm_labels(int(rules[0].choices.max()) + 1, arm_names)
    panels = [_update_panels(rule) for rule in rules]
    columns = min(max(len(row) for row in panels), max_panels)
    # Latents that read no other input need only one panel each. Put these side by side.
    if columns == 1:
        columns = min(len(panels), 4, max_panels)
        flat = [panel for row in panels for panel in row]
        panels = [flat[start : start + columns] for start in range(0, len(flat), columns)]
    total = sum(len(row) for row in panels)
    panels = [row[:columns] for row in panels[: max_panels // columns]]
    warn_left_out(sum(len(row) for row in panels), total, "panels of update rules")

    # If the figure is too low, square panels overlap their titles and the legend.
    legend_columns = 2 if columns < 3 else 4
    legend_rows = -(-len(rules[0].choices) // legend_columns)
    width = max(3.4, 0.4 + 2.4 * columns)
    height = len(panels) * (width / columns + 0.2) + 0.3 + 0.2 * legend_rows
    figure = new_figure(figure, (width, height))
    axes = figure.subplots(len(panels), columns, squeeze=False)
    lowest = min(rule.values.min() for rule in rules)
    highest = max(rule.values.max() for rule in rules)
    largest = max(np.abs(changes).max() for row in panels for _, _, changes in row)
    half = 1.05 * max((highest - lowest) / 2, largest)
    middle = (lowest + highest) / 2
    for (row, column), ax in np.ndenumerate(axes):
        if column >= len(panels[row]):
            ax.set_axis_off()
            continue
        rule, title, changes = panels[row][column]
        zero_lines(ax)
        for change, style in zip(changes, combination_styles(rule), strict=True):
            ax.plot(rule.values, change, **style)
        ax.set_title(title, fontsize=10)
        ax.set(xlim=(middle - half, middle + half), ylim=(-half, half), aspect="equal")
        ax.set_xlabel(f"{rule.latent} before the trial")
        if column == 0 or panels[row][column - 1][0] is not rule:
            ax.set_ylabel(f"change of {rule.latent}")
    handles = [
        Line2D([], [], label=label, **style)
        for label, style in zip(
            combination_labels(rules[0], names), combination_styles(rules[0]), strict=True
        )
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=legend_columns, fontsize=SMALL)
    return figure


def _update_panels(rule: UpdateRule) -> list[tuple[UpdateRule, str, np.ndarray]]:
    """Rule, title and changes of each panel of one latent."""
    reads = ", ".join(rule.open_observations) or "no observation"
    if not rule.others:
        return [(rule, f"{rule.latent}  (reads {reads})", rule.change)]
    other, values, changes = rule.others[0]
    return [
        (rule, f"{rule.latent}  ({other} = {value:.2g})", change)
        for value, change in zip(values, changes, strict=True)
    ]


def _map(
    ax: Axes,
    rule: ChoiceRule | DopamineRule,
    values: np.ndarray,
    limits: tuple[float, float],
    **style: Any,
) -> QuadMesh:
    """Draws a map over two latents, the first along x."""
    low, high = limits
    ax.set(xlabel=rule.latents[0], ylabel=rule.latents[1])
    return ax.pcolormesh(
        *rule.values, values.T, vmin=low, vmax=high, shading="nearest", rasterized=True, **style
    )


def _preferred_arm(ax: Axes, rule: ChoiceRule, names: Sequence[str]) -> None:
    """Draws a map of the arm with the highest probability, darker where it is higher."""
    best = rule.probability.argmax(axis=-1)
    arms = len(names)
    colours = ListedColormap([colour(arm) for arm in range(arms)])
    # From nearly white, at chance, to certainty.
    strength = (rule.probability.max(axis=-1) - 1 / arms) / (1 - 1 / arms)
    alpha = 0.15 + 0.85 * strength.T
    image = _map(ax, rule, best, (-0.5, arms - 0.5), cmap=colours, alpha=alpha)
    bar = ax.figure.colorbar(image, ax=ax, ticks=range(arms), label="preferred arm")
    assert bar.solids is not None, "a filled map has a solid bar"
    bar.solids.set_alpha(1)
    bar.ax.set_yticklabels(names)


def _logit_label(names: Sequence[str], arm: int | None) -> str:
    if len(names) == 2:
        return f"logit({names[1]}) − logit({names[0]})"
    return "logit − mean logit" if arm is None else f"logit({names[arm]}) − mean logit"


def _note_fixed(ax: Axes, rule: ChoiceRule | DopamineRule) -> None:
    """Notes the values of open latents that are not drawn."""
    extra = [name for name in rule.open_latents if name not in rule.latents]
    if extra:
        note(ax, "\n".join(f"{name} = {rule.fixed[name]:.2g}" for name in extra))
