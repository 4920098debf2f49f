"""Several models side by side on the same sessions, as in Table 1 of Jain et al. (2025)."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from keras_disrnn.analysis.evaluation import (
    mean_r2,
    mean_squared_error,
    ratio_likelihood,
    session_totals,
)

SCORES = ("normalized_likelihood", "mse", "r2")
"""The scores of the table; see `compute_evaluation`."""


def compute_comparison(models, parts, *, against=None, replicates=2000, seed=0, confidence=0.95):
    """Scores of models on parts of a data set, with bootstrap intervals over sessions.

    Scores are pooled over targets, as in `compute_evaluation`. An interval holds the middle share
    of the scores of resampled sessions; every model sees the same resamples, so the differences are
    paired. Where there is one session, or none with a target of the kind, an interval is NaN.

    Args:
        models: Dict of name to a Keras model, or to a dict of subject to model.
        parts: Dict of name, such as "train" and "held_out", to `keras_disrnn.data.Sessions`.
        against: Name of the model that differences are taken to; the first when `None`.
        replicates: Number of resamples.
        seed: Of the resamples.
        confidence: Of the intervals.

    Returns:
        A `pandas.DataFrame`, a row for each part and model, with the columns `part`, `model`,
        `parameters` (fitted numbers), `sessions`, `choices`, `responses`; for each score
        `normalized_likelihood`, `mse` and `r2` its value and `_lower` and `_upper`; and for each of
        them `_difference` (the model's score minus that of `against`), `_difference_lower` and
        `_difference_upper`. Dopamine scores of a model without dopamine are NaN.

    Raises:
        ValueError: If there is no model of the name `against`, or a subject has no model.
    """
    if not models:
        raise ValueError("models: expected at least one, got none")
    against = next(iter(models)) if against is None else against
    if against not in models:
        raise ValueError(
            f"against: expected the name of one of {', '.join(map(repr, models))}, got {against!r}"
        )
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    rows = []
    for part, sessions in parts.items():
        count = sessions.n_sessions
        drawn = np.random.default_rng(seed).multinomial(
            count, np.full(count, 1 / count), size=replicates
        )
        found = {name: _scores(model, sessions, drawn) for name, model in models.items()}
        reference_values, reference_draws = found[against]
        for name, (values, draws) in found.items():
            row = {
                "part": part,
                "model": name,
                "parameters": _parameter_count(models[name]),
                "sessions": count,
                "choices": int((sessions.choice_weight > 0).sum()),
                "responses": int((sessions.dopamine_weight > 0).sum()),
            }
            for score in SCORES:
                row |= _with_interval(score, values[score], draws[score], ends)
            for score in SCORES:
                row |= _with_interval(
                    f"{score}_difference",
                    values[score] - reference_values[score],
                    draws[score] - reference_draws[score],
                    ends,
                )
            rows.append(row)
    return pd.DataFrame(rows)


def comparison_markdown(table):
    """The table of `compute_comparison` as Markdown: scores, intervals in brackets."""
    titles = {
        "normalized_likelihood": "normalized likelihood",
        "mse": "dopamine MSE",
        "r2": "dopamine R²",
    }
    lines = [
        f"| part | model | parameters | {' | '.join(titles.values())} |",
        "|---|---|---:|---|---|---|",
    ]
    for _, row in table.iterrows():
        cells = [row["part"], row["model"], str(row["parameters"])]
        for score in SCORES:
            value, low, high = (row[f"{score}{end}"] for end in ("", "_lower", "_upper"))
            cell = "–" if np.isnan(value) else f"{value:.4f}"
            if not np.isnan(low):
                cell += f" [{low:.4f}, {high:.4f}]"
            cells.append(cell)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _scores(model, sessions, drawn):
    """Scores of the sessions as they are, and of the resamples `(replicates, sessions)`."""
    choice, dopamine = session_totals(model, sessions)
    if dopamine is None:
        dopamine = np.zeros((sessions.n_sessions, 1, 4))

    def score(weights):
        sums = np.tensordot(weights, dopamine, 1)
        pooled = weights @ choice
        return {
            "normalized_likelihood": ratio_likelihood(pooled[..., 0], pooled[..., 1]),
            "mse": mean_squared_error(sums).mean(axis=-1),
            "r2": mean_r2(sums).mean(axis=-1),
        }

    return score(np.ones(sessions.n_sessions)), score(drawn)


def _with_interval(name, value, draws, ends):
    low, high = (np.nan, np.nan)
    if np.isfinite(draws).all() and np.isfinite(value) and np.ptp(draws) > 0:
        low, high = np.quantile(draws, ends)
    return {name: float(value), f"{name}_lower": float(low), f"{name}_upper": float(high)}


def _parameter_count(model):
    if isinstance(model, Mapping):
        return sum(_parameter_count(each) for each in model.values())
    own = getattr(model, "parameter_count", None)
    return model.count_params() if own is None else own
