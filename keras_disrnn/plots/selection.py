"""What each penalty costs and what it leaves open."""

import numpy as np

from keras_disrnn.plots.style import FAINT, GREY, SMALL, colour, new_figure


def plot_selection(selections, figure=None):
    """Draws the path of penalties of each stage: the score above, the graph's edges below.

    Args:
        selections: Dict of stage (`"choice"`, `"dopamine"`) to `Selection`, as
            `keras_disrnn.selection.select` gives it, or to its table.
        figure: A Figure or SubFigure to draw in, or `None` for a new one.

    Returns:
        The figure; its axes are the scores and then the edges, a column a stage. The bars are
        standard errors of the difference to the best, paired by session, which the choice goes by;
        the band is one standard error of the best score by itself; the ring is the choice.
    """
    figure = new_figure(figure, (3.5 * len(selections), 4.2))
    axes = figure.subplots(2, len(selections), sharex="col", squeeze=False, height_ratios=(3, 2))
    for column, (stage, selection) in enumerate(selections.items()):
        table = getattr(selection, "table", selection)
        top, bottom = axes[:, column]
        scales = table["scale"].to_numpy()
        score, error = table["score"].to_numpy(), table["score_se"].to_numpy()
        best = int(np.argmin(table["cost"]))
        chosen = int(np.argmax(table["chosen"]))
        top.axhspan(
            score[best] - error[best], score[best] + error[best], color=FAINT, alpha=0.35, lw=0
        )
        cost_error = table["cost_se"].to_numpy()
        top.errorbar(scales, score, cost_error, color=colour(0), marker="o", ms=4, capsize=2)
        top.plot(scales[chosen], score[chosen], "o", ms=11, mfc="none", mec=colour(1), mew=1.6)
        top.set_ylabel("normalized likelihood" if stage == "choice" else "mean squared error")
        top.set_title(f"{stage}, cross-validated", fontsize=10)
        bottom.plot(scales, table["edges"], color=colour(2), marker="s", ms=4, label="edges")
        bottom.plot(scales, table["open"], color=GREY, marker="^", ms=4, label="openness")
        bottom.plot(
            scales[chosen],
            table["edges"].iloc[chosen],
            "o",
            ms=11,
            mfc="none",
            mec=colour(1),
            mew=1.6,
        )
        bottom.set_ylim(bottom=0)
        bottom.set_ylabel("edges, openness")
        bottom.set_xlabel("penalty, multiple")
        bottom.set_xscale("log")
        bottom.set_xticks(scales, [f"{scale:g}" for scale in scales], fontsize=SMALL)
        bottom.minorticks_off()
        bottom.legend(fontsize=SMALL, frameon=False)
    return figure
