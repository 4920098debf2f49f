"""The scores of a run as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras_disrnn.utils.tables import format_error


def tabulate_scores(
    metrics: Mapping[str, Any], cell: Callable[[Mapping[str, Any], str], str]
) -> list[tuple[str, str, str]]:
    """Arranges the scores of a run's metrics.json as a table.

    Args:
        metrics: The contents of metrics.json.
        cell: Formats one cell, from a mapping of scores and the name of a score, which may be
            missing. See `with_error`.

    Returns:
        Rows of the name of a score, its training cell and its held-out cell.

    Example:

    >>> from keras_disrnn.analysis.scores import tabulate_scores, with_error
    >>> scores = {"choice": {"normalized_likelihood": 0.6, "normalized_likelihood_se": 0.01}}
    >>> tabulate_scores({"train": scores, "held_out": scores}, with_error)
    [('normalized likelihood of choice', '0.6000 ± 0.0100', '0.6000 ± 0.0100')]
    """
    first = metrics["train"]
    rows: list[tuple[str, tuple[str, ...], str]] = []
    if "choice" in first:
        rows.append(("normalized likelihood of choice", ("choice",), "normalized_likelihood"))
    if "true_agent" in first:
        agent = ("true_agent", "choice")
        rows.append(("the same, of the true agent", agent, "normalized_likelihood"))
        rows.append(("the same, model minus true agent", ("true_agent",), "difference"))
    if "dopamine" in first:
        rows.append(("mean squared error of dopamine", ("dopamine",), "mse"))
        rows.append(("R² of dopamine", ("dopamine",), "r2"))

    def shown(scores: Mapping[str, Any], path: tuple[str, ...], key: str) -> str:
        for name in path:
            scores = scores.get(name, {})
        return cell(scores, key)

    return [
        (name, shown(metrics["train"], path, key), shown(metrics["held_out"], path, key))
        for name, path, key in rows
    ]


def untrained_note(metrics: Mapping[str, Any]) -> str | None:
    """Says which parts of a model are left out of its results, because they were never trained.

    Args:
        metrics: The contents of metrics.json.

    Returns:
        A sentence, or `None` if every part was trained.

    Example:

    >>> from keras_disrnn.analysis.scores import untrained_note
    >>> untrained_note({"untrained": ["dopamine_readout"]})
    'Never trained, and left out of scores, figures, graph and equations: dopamine_readout.'
    """
    names = ", ".join(metrics.get("untrained", ()))
    left_out = "left out of scores, figures, graph and equations"
    return f"Never trained, and {left_out}: {names}." if names else None


def with_error(scores: Mapping[str, Any], key: str) -> str:
    """Formats a score with its standard error; differences have five decimals."""
    digits = 5 if key == "difference" else 4
    return format_error(scores.get(key), scores.get(f"{key}_se"), digits)
