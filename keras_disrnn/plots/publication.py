"""A fitted model on one page of a paper (Figures 2 and 3 of Jain et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from keras_disrnn.plots.bottlenecks import plot_bottlenecks
from keras_disrnn.plots.rules import plot_choice_rule, plot_dopamine_rule, plot_update_rules

if TYPE_CHECKING:
    from keras_disrnn.analysis import ChoiceRule, DopamineRule, UpdateRule

PAGE_WIDTH = 7.2
"""Inches: 183 mm, two columns of most journals."""

STYLE: Any = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "figure.titlesize": 8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
}


def plot_model(
    bottlenecks: pd.DataFrame,
    *,
    choice_rule: ChoiceRule,
    update_rules: Sequence[UpdateRule],
    dopamine_rule: DopamineRule | None = None,
) -> Figure:
    """Draws a whole model over two columns: its structure, and what it computes.

    The panels are a, the bottlenecks; b, the choice rule; c, the update rules of the open latents;
    and d, the dopamine rule. Colours are distinct with every common kind of colour vision, and
    lines also differ in their dashes.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.
        choice_rule: What `compute_choice_rule` returns.
        update_rules: What `compute_update_rules` returns.
        dopamine_rule: What `compute_dopamine_rule` returns; `None` for no panel d.

    Returns:
        The figure, 183 mm wide. Save it as PDF or SVG.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn import analysis
    >>> from keras_disrnn.plots import plot_model
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> figure = plot_model(
    ...     analysis.compute_bottlenecks(model),
    ...     choice_rule=analysis.compute_choice_rule(model, points=5),
    ...     update_rules=analysis.compute_update_rules(model, points=5),
    ... )
    >>> round(float(figure.get_figwidth()), 1)
    7.2
    """
    with matplotlib.rc_context(STYLE):
        beside = len(update_rules) <= 2 and not any(rule.others for rule in update_rules)
        heights = [2.3, 2.4]
        if not beside:
            # Latents that read others need a row of panels each. Otherwise four fit in a row.
            many = any(rule.others for rule in update_rules)
            heights.append(0.7 + 2.0 * (len(update_rules) if many else -(-len(update_rules) // 4)))
        if dopamine_rule is not None:
            heights.append(2.4)
        figure = Figure(figsize=(PAGE_WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        panels = list(parts)
        if beside:
            widths = (1, 2 if len(update_rules) > 1 else 1)
            panels[1:2] = parts[1].subfigures(1, 2, width_ratios=widths)
        plot_bottlenecks(bottlenecks, panels[0])
        plot_choice_rule(choice_rule, panels[1].subplots())
        plot_update_rules(update_rules, panels[2])
        if dopamine_rule is not None:
            plot_dopamine_rule(dopamine_rule, panels[3])
        for letter, panel in zip("abcd", panels, strict=False):
            panel.text(0.0, 1.0, letter, fontsize=9, fontweight="bold", ha="left", va="top")
    return figure


def plot_structure(bottlenecks: pd.DataFrame) -> Figure:
    """Draws the bottlenecks of a model, over one and a half columns.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.

    Returns:
        The figure, 135 mm wide. Save it as PDF or SVG.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn import analysis
    >>> from keras_disrnn.plots import plot_structure
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> round(float(plot_structure(analysis.compute_bottlenecks(model)).get_figwidth()), 1)
    5.3
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.3, 2.1), layout="constrained")
        plot_bottlenecks(bottlenecks, figure)
    return figure
