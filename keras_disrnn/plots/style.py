"""What the figures share: where they are drawn, colours and names.

Nothing here touches pyplot or rcParams: a figure belongs to whoever asked for it.
"""

import warnings

import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, told apart with every common kind of colour vision. Cycled by index."""

INK = "#222222"
GREY = "#777777"
FAINT = "#BBBBBB"
DIVERGING = "coolwarm"
SMALL = 8
"""Font size, in points, of legends and of the ticks of dense panels."""


def colour(index):
    """Colour of the arm, latent or line of that index."""
    return COLOURS[index % len(COLOURS)]


def new_axes(ax, size):
    """The Axes to draw in: the given one, or the only one of a new figure of `size` inches."""
    return ax if ax is not None else Figure(figsize=size, layout="constrained").subplots()


def new_figure(figure, size):
    """The Figure (or SubFigure) to draw in: the given one, or a new one of `size` inches."""
    return figure if figure is not None else Figure(figsize=size, layout="constrained")


def arm_labels(arms, arm_names=None):
    """Names of the arms: as given, or `left` and `right` for two and `arm 0`, ... for more.

    Args:
        arms: Number of arms.
        arm_names: One name an arm, or `None`.

    Returns:
        Tuple of names.

    Raises:
        ValueError: If the number of names is not the number of arms.
    """
    if arm_names is None:
        return ("left", "right") if arms == 2 else tuple(f"arm {arm}" for arm in range(arms))
    if len(arm_names) != arms:
        raise ValueError(
            f"arm_names: expected {arms} names, one for each arm, got {len(arm_names)}: "
            f"{tuple(arm_names)}"
        )
    return tuple(arm_names)


def combination_label(choice, reward, names):
    """What a trial's choice and reward are called, such as `left, rewarded`."""
    outcome = {0.0: "unrewarded", 1.0: "rewarded"}.get(float(reward), f"reward {reward:g}")
    return f"{names[int(choice)]}, {outcome}"


def combination_style(choice, reward, rewards):
    """Line style of a combination: colour for the choice, dashes for the reward."""
    dashes = ("--", "-", ":", "-.")
    levels = sorted(set(np.asarray(rewards).tolist()))
    return {"color": colour(int(choice)), "linestyle": dashes[levels.index(reward) % len(dashes)]}


def with_units(name, units):
    """An axis label, with the units in brackets where there are any."""
    return name if units is None else f"{name} ({units})"


def zero_lines(ax, horizontal=True, vertical=True):
    """Faint lines through zero, behind the data."""
    if horizontal:
        ax.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    if vertical:
        ax.axvline(0, color=FAINT, linewidth=0.8, zorder=0)


def map_limits(values):
    """Colour limits of a diverging map: about 0 where the values lie on both sides of it."""
    low, high = float(np.min(values)), float(np.max(values))
    if low < 0 < high:
        high = max(-low, high)
        low = -high
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return low, high


def note(ax, text):
    """A few small words in the upper left corner of a panel."""
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


def legend_beside(ax, handles=None):
    """A legend to the right of a panel, where it hides nothing."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=SMALL,
        frameon=False,
    )


def warn_left_out(drawn, total, what):
    """Warns that a figure shows only a part, so that it is not taken for the whole."""
    if drawn < total:
        warnings.warn(f"drawing {drawn} of {total} {what}", stacklevel=3)
