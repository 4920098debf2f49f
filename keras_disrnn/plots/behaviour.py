"""Animal and models side by side, by the statistics of their choices."""

import numpy as np

from keras_disrnn.plots.style import INK, SMALL, colour, new_figure, note, zero_lines

_PANELS = (
    ("stay", None, "probability"),
    ("choice_autocorrelation", "lag (trials)", "autocorrelation of choice"),
    ("switch_curve", "trial from the change of blocks", "p(arm that is better after)"),
    ("choice_weight", "trials back", "weight of past choice (log odds)"),
    ("reward_weight", "trials back", "weight of past reward (log odds)"),
    ("run_survival", "n (trials)", "p(run of choices longer than n)"),
)


def plot_behaviour(behaviours, figure=None):
    """Draws the statistics of an animal and of models, a panel each.

    The first is drawn in black with its bootstrap interval, as the one that the others are held
    against.

    Args:
        behaviours: Dict of name to `Behaviour`, such as `{"mice": ..., "DisRNN": ...}`.
        figure: A Figure or SubFigure to draw in, or `None` for a new one.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no behaviour.
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
            ax.set_xlabel(across)
        ax.set_ylabel(up)
    handles, labels = axes.flat[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    return figure


def _look(index):
    """The first in ink and thick, the others in colours."""
    if index == 0:
        return {"color": INK, "linewidth": 2.0, "zorder": 3}
    return {"color": colour(index - 1), "linewidth": 1.3}


def _stay(ax, behaviours):
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


def _curves(ax, behaviours, statistic):
    drawn = False
    for index, (name, behaviour) in enumerate(behaviours.items()):
        rows = behaviour.table[behaviour.table["statistic"] == statistic]
        if rows.empty:
            continue
        drawn = True
        look = _look(index)
        marker = "." if len(rows) <= 10 else None
        ax.plot(rows["at"], rows["value"], label=name, marker=marker, **look)
        if index == 0:
            ax.fill_between(
                rows["at"], rows["lower"], rows["upper"], color=INK, alpha=0.15, linewidth=0
            )
    if statistic == "switch_curve":
        ax.set_ylim(0, 1)
        if drawn:
            zero_lines(ax, horizontal=False)
    elif statistic == "run_survival":
        ax.set_ylim(0, 1)
    else:
        zero_lines(ax, vertical=False)
    if not drawn:
        reason = next(iter(behaviours.values())).skipped
        note(ax, "left out:\n" + _wrapped(reason.get(statistic) or reason.get("regression", "")))
        ax.tick_params(labelsize=SMALL)


def _wrapped(text, width=34):
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
