"""Scores as a table."""

import functools


def tabulate_scores(metrics, cell):
    """The scores of a run's metrics.json, as they are printed.

    Args:
        metrics: The contents of metrics.json.
        cell: Function of a dict of scores and the name of one in it, which may be absent, to text.

    Returns:
        A list of rows (name, training, held out).
    """
    parts = [metrics["train"], metrics["held_out"]]
    rows = [("normalized likelihood of choice", ("choice",), "normalized_likelihood")]
    if "true_agent" in parts[0]:
        agent = ("true_agent", "choice")
        rows.append(("the same, of the true agent", agent, "normalized_likelihood"))
        rows.append(("the same, model minus true agent", ("true_agent",), "difference"))
    if "dopamine" in parts[0]:
        rows.append(("mean squared error of dopamine", ("dopamine",), "mse"))
        rows.append(("R² of dopamine", ("dopamine",), "r2"))
    return [
        (name, *(cell(functools.reduce(_inside, path, part), key) for part in parts))
        for name, path, key in rows
    ]


def _inside(scores, name):
    return scores.get(name, {})


def with_error(scores, key):
    value, error = scores.get(key), scores.get(f"{key}_se")
    if value is None:
        return "–"
    digits = 5 if key == "difference" else 4
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
