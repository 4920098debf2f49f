"""Choose one penalty scale from the fits of all paths.

A scale is in reach if its loss against the best scale is small: at most one standard error, or at
most the smallest effect that matters (`SMALLEST_EFFECT`). The standard error is that of the
difference, paired by session, so that it detects a real loss in few sessions. (Breiman et al. 1984,
Classification and Regression Trees, section 3.4.3, use the standard error of the score.) The rule
takes the sparsest graph among the scales in reach. Of the scales with that graph it takes the one
that predicts best. So a strong penalty can find a structure, and a weaker one can train the final
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from keras_disrnn.analysis.evaluation import jackknife_se
from keras_disrnn.analysis.graph import describe_graph, same_graph

if TYPE_CHECKING:
    import networkx

    from keras_disrnn.experiments.penalty_path import PenaltyPath
    from keras_disrnn.experiments.selection_stages import Stage


class RepresentativeFit(NamedTuple):
    """The fit that represents one penalty scale.

    Attributes:
        weights: Its weights.
        graph: Its graph.
        agreement: The share of the other paths with the same graph.
    """

    weights: list[Any]
    graph: networkx.DiGraph
    agreement: float


def choose_scale(
    loss: npt.ArrayLike,
    *,
    within: npt.ArrayLike,
    edges: npt.ArrayLike,
    graph_ids: npt.ArrayLike,
) -> int:
    """Choose the best scale among those in reach that have the sparsest graph.

    Args:
        loss: `(scales,)`, the loss of each scale; scales rising.
        within: `(scales,)`, whether each scale is in reach of the best.
        edges: `(scales,)`, number of edges of each graph.
        graph_ids: `(scales,)`, a number for each graph; equal graphs have equal numbers.

    Returns:
        The index of the chosen scale. If different graphs in reach have as few edges, the graph of
        the strongest scale counts.

    Example:

    >>> from keras_disrnn.experiments.penalty_choice import choose_scale
    >>> choose_scale(
    ...     [1.0, 1.1, 1.2, 9.0],
    ...     within=[True, True, True, False],
    ...     edges=[9, 6, 6, 3],
    ...     graph_ids=[0, 1, 1, 2],
    ... )
    1
    """
    in_reach = np.flatnonzero(within)
    counts = np.asarray(edges)[in_reach]
    ids = np.asarray(graph_ids)[in_reach]
    sparsest = np.flatnonzero(counts == counts.min())[-1]
    same = in_reach[ids == ids[sparsest]]
    return int(same[np.argmin(np.asarray(loss)[same])])


def choose_representative(
    stage: Stage, index: int, *, folds: Sequence[PenaltyPath], starts: Sequence[PenaltyPath]
) -> RepresentativeFit:
    """Choose the fit that represents one penalty scale: one with the graph found in most folds.

    The cross-validated score belongs to the graphs of the folds, not to that of a path on all
    sessions. So the graph is the one of most folds. The weights come from the path on all sessions
    that has this graph and the lowest loss, or else from a fold.

    Args:
        stage: The stage.
        index: Index of the scale.
        folds: The path on each fold.
        starts: The paths on all sessions.

    Returns:
        The fit.
    """
    paths = [*starts, *folds]
    graphs = [stage.graph(path.weights[index]) for path in paths]
    same = np.array([[same_graph(graph, other) for other in graphs] for graph in graphs])
    votes = same[:, len(starts) :].sum(axis=1)
    chosen = min(
        np.flatnonzero(votes == votes.max()),
        key=lambda i: (i >= len(starts), paths[i].losses[index]),
    )
    agreement = (same[chosen].sum() - 1) / (len(paths) - 1)
    return RepresentativeFit(paths[chosen].weights[index], graphs[chosen], agreement)


def tabulate_scales(
    stage: Stage,
    sums: np.ndarray,
    *,
    folds: Sequence[PenaltyPath],
    starts: Sequence[PenaltyPath],
) -> tuple[pd.DataFrame, int, list[str]]:
    """Score every penalty scale and choose one.

    Args:
        stage: The stage.
        sums: `(sessions, scales, K)`, the sums of each session, computed by the path that did not
            train on it.
        folds: The path on each fold.
        starts: The paths on all sessions.

    Returns:
        The table of `Selection`, the index of the chosen scale, and notes on what is not clear-cut.
    """
    count = len(stage.scales)
    pooled = sums.sum(axis=0)
    scores = np.array([float(stage.score(pooled[i])) for i in range(count)])
    errors = np.array([jackknife_se(stage.score, sums[:, i]) for i in range(count)])
    loss = -scores if stage.higher_is_better else scores
    best = int(np.argmin(loss))
    cost = loss - loss[best]

    def difference(pair: np.ndarray) -> Any:
        return stage.score(pair[..., 0, :]) - stage.score(pair[..., 1, :])

    cost_errors = [
        jackknife_se(difference, sums[:, [i, best]]) if i != best else 0.0 for i in range(count)
    ]
    tolerance = stage.tolerance(pooled[best])
    within = cost <= np.maximum(cost_errors, tolerance)
    fits = [choose_representative(stage, i, folds=folds, starts=starts) for i in range(count)]
    graphs = [fit.graph for fit in fits]
    edges = np.array([graph.number_of_edges() for graph in graphs])
    graph_ids = [
        next(j for j in range(i + 1) if same_graph(graph, graphs[j]))
        for i, graph in enumerate(graphs)
    ]
    chosen = choose_scale(loss, within=within, edges=edges, graph_ids=graph_ids)
    table = pd.DataFrame(
        {
            "scale": stage.scales,
            **{name: value * np.asarray(stage.scales) for name, value in stage.penalties.items()},
            "score": scores,
            "score_se": errors,
            "cost": cost,
            "cost_se": cost_errors,
            "within": within,
            "graph": [describe_graph(graph) for graph in graphs],
            "edges": edges,
            "open": [stage.openness(fit.weights) for fit in fits],
            "agreement": [fit.agreement for fit in fits],
            "chosen": np.arange(count) == chosen,
        }
    )
    return table, chosen, _describe_unclear_choice(table, chosen, tolerance)


def _describe_unclear_choice(table: pd.DataFrame, chosen: int, tolerance: float) -> list[str]:
    """Return one sentence for each way in which the choice is not clear-cut."""
    row, weakest, strongest = table.iloc[chosen], table.iloc[0], table.iloc[-1]
    notes = []
    if chosen == 0 and weakest["edges"] > strongest["edges"]:
        notes.append("The weakest penalty scale is chosen: a weaker one may predict better.")
    if strongest["within"] and strongest["edges"] > 0:
        notes.append(
            "The strongest penalty scale is in reach of the best: a stronger one may give a "
            "sparser graph at no further cost."
        )
    if row["agreement"] < 1:
        notes.append(
            f"{row['agreement']:.0%} of the other fits have the chosen graph at this penalty scale."
        )
    sparser = table[~table["within"] & (table["edges"] < row["edges"])]
    if len(sparser):
        nearest = sparser.loc[sparser["cost"].idxmin()]
        if nearest["cost"] < max(3 * nearest["cost_se"], 2 * tolerance):
            notes.append(
                f"The sparser graph '{nearest['graph']}' is just out of reach: it costs "
                f"{nearest['cost']:.2g}, standard error {nearest['cost_se']:.2g}."
            )
    return notes
