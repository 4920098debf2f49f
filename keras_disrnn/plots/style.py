"""What the figures share: axes, colours, names, legends.

Nothing here touches pyplot or rcParams, so a figure belongs to the caller.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogFormatter
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from keras_disrnn.analysis import DopamineRule, UpdateRule

AnyFigure: TypeAlias = Figure | SubFigure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Palette of Okabe and Ito, distinct with all common kinds of colour vision; cycled by index."""

INK = "#222222"
GREY = "#777777"
FAINT = "#BBBBBB"
DIVERGING = "coolwarm"
SMALL = 8
"""Font size, in points, of legends and of the ticks of dense panels."""

MOST_NAMED = 40
"""Figures of more subjects leave out the names, because they would overlap."""


def colour(index: int) -> str:
    """Returns the colour of the arm, latent or line of that index."""
    return COLOURS[index % len(COLOURS)]


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Returns the given Axes, or those of a new figure of `size` inches."""
    return ax if ax is not None else Figure(figsize=size, layout="constrained").subplots()


def new_figure(figure: AnyFigure | None, size: tuple[float, float]) -> Figure:
    """Returns the given Figure or SubFigure, or a new Figure of `size` inches."""
    if figure is None:
        return Figure(figsize=size, layout="constrained")
    # Both draw alike. A SubFigure only lacks `savefig`, and its owner saves the whole Figure.
    return cast(Figure, figure)


def empty_figure(figure: AnyFigure | None, text: str) -> Figure:
    """Draws a small figure that only has a text, for results that are empty."""
    figure = new_figure(figure, (3.2, 2.0))
    ax = figure.subplots()
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return figure


def hide_spines(axes: Iterable[Axes]) -> None:
    """Hides the upper and right border of each Axes."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)


def arm_labels(arms: int, arm_names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the names of the arms; by default left and right, or arm 0, ... for more than two.

    Raises:
        ValueError: If the number of names differs from the number of arms.
    """
    if arm_names is None:
        return ("left", "right") if arms == 2 else tuple(f"arm {arm}" for arm in range(arms))
    if len(arm_names) != arms:
        raise ValueError(
            f"arm_names: expected {arms} names, one for each arm, got {len(arm_names)}: "
            f"{tuple(arm_names)}"
        )
    return tuple(arm_names)


def combination_labels(rule: DopamineRule | UpdateRule, names: Sequence[str]) -> list[str]:
    """Returns the name of each combination of choice and reward, such as `left, rewarded`."""
    outcomes = {0.0: "unrewarded", 1.0: "rewarded"}
    return [
        f"{names[int(choice)]}, {outcomes.get(float(reward), f'reward {reward:g}')}"
        for choice, reward in zip(rule.choices, rule.rewards, strict=True)
    ]


def combination_styles(rule: DopamineRule | UpdateRule) -> list[dict[str, Any]]:
    """Returns the line style of each combination: colour for the choice, dashes for the reward."""
    dashes = ("--", "-", ":", "-.")
    _, levels = np.unique(rule.rewards, return_inverse=True)
    return [
        {"color": colour(int(choice)), "linestyle": dashes[level % len(dashes)]}
        for choice, level in zip(rule.choices, levels, strict=True)
    ]


def with_units(name: str, units: str | None) -> str:
    """Returns an axis label, with the units in brackets if there are any."""
    return name if units is None else f"{name} ({units})"


def zero_lines(ax: Axes, *, horizontal: bool = True, vertical: bool = True) -> None:
    """Draws faint lines through zero, behind the data."""
    if horizontal:
        ax.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    if vertical:
        ax.axvline(0, color=FAINT, linewidth=0.8, zorder=0)


def map_limits(values: ArrayLike) -> tuple[float, float]:
    """Returns colour limits of a diverging map; symmetric if the values have both signs."""
    low, high = float(np.min(values)), float(np.max(values))
    if low < 0 < high:
        high = max(-low, high)
        low = -high
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return low, high


def note(ax: Axes, text: str) -> None:
    """Writes a small text in the upper left corner of a panel."""
    ax.text(
        0.02,
        0.98,
        text,
        transform=ax.transAxes,
        ha="left",
        va="top",
        fontsize=SMALL,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.5},
    )


def legend_beside(ax: Axes, handles: Sequence[Artist] | None = None) -> None:
    """Draws a legend to the right of a panel, where it hides nothing."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=SMALL,
        frameon=False,
    )


def legend_below(
    figure: AnyFigure, ax: Axes, *, columns: int, fontsize: int | None = SMALL
) -> None:
    """Draws the legend of one panel below all panels."""
    figure.legend(
        *ax.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        fontsize=fontsize,
        frameon=False,
    )


def label_beside(
    ax: Axes, text: str, at: tuple[float, float], *, offset: tuple[float, float], **style: Any
) -> None:
    """Writes a small text `offset` points from a place."""
    ax.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=SMALL, **style)


def ring(ax: Axes, x: float, y: float) -> None:
    """Draws a ring around a point that was chosen."""
    ax.plot(x, y, "o", ms=11, mfc="none", mec=colour(1), mew=1.6)


def name_subjects(axis: Axis, names: Sequence[str], **style: Any) -> None:
    """Puts the names of subjects on an axis, or only their number if there are too many."""
    if len(names) <= MOST_NAMED:
        axis.set_ticks(range(len(names)), names, fontsize=SMALL, **style)
    else:
        axis.set_ticks([])
        axis.set_label_text(f"{len(names)} subjects")


class _PlainLog(LogFormatter):
    """The labels of Matplotlib for a logarithmic axis, as plain numbers."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def label_log_axis(axis: Axis) -> None:
    """Labels a logarithmic axis with plain numbers, such as 100.

    Matplotlib's own labels are formulas. A saved figure shows their source, because a name with a
    `$` must not become one.
    """
    axis.set_major_formatter(_PlainLog())
    axis.set_minor_formatter(_PlainLog())


def penalty_scale_axis(ax: Axes, scales: Sequence[float]) -> None:
    """Makes the x axis that of penalty scales, with a tick at each."""
    ax.set(xlabel="penalty scale", xscale="log")
    ax.set_xticks(scales, [f"{scale:g}" for scale in scales], fontsize=SMALL)
    ax.minorticks_off()


def warn_left_out(drawn: int, total: int, what: str) -> None:
    """Warns if a figure shows only a part of what there is."""
    if drawn < total:
        warnings.warn(f"drawing {drawn} of {total} {what}", stacklevel=3)
