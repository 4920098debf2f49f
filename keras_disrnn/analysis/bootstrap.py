"""Bootstrap over sessions, for scores that are made of sums over sessions."""

from __future__ import annotations

import numpy as np

from keras_disrnn.analysis.evaluation import mean_r2, mean_squared_error, ratio_likelihood
from keras_disrnn.utils.checks import check_integer

SCORES = ("normalized_likelihood", "mse", "r2")
"""The scores of a model; see `compute_evaluation`."""

Totals = tuple[np.ndarray, np.ndarray | None]
"""The sums of each session: `[S, 2]` of choice, `[S, K, 4]` of dopamine; see `session_totals`."""

Scores = dict[str, np.ndarray]
"""Each of `SCORES` to its values."""


def draw_sessions(count: int, replicates: int, seed: int) -> np.ndarray:
    """Draws bootstrap samples of sessions.

    Args:
        count: Number of sessions, S.
        replicates: Number of bootstrap samples. Each has S sessions, drawn with replacement.
        seed: Seed of the draws. Scores of several models are paired when they share the draws.

    Returns:
        Integers `[replicates, S]`: how often each session occurs. Each row sums to S.
    """
    generator = np.random.default_rng(check_integer("seed", seed, 0))
    return generator.multinomial(count, np.full(count, 1 / count), size=replicates)


def pooled_scores(totals: Totals, weights: np.ndarray) -> Scores:
    """Computes the scores of weighted sessions.

    Args:
        totals: What `session_totals` returns for S sessions.
        weights: `[S]`, or `[replicates, S]` from `draw_sessions`.

    Returns:
        Each of `SCORES` to a float array of the shape of `weights` without its last axis. Dopamine
        scores are NaN for a model without dopamine.
    """
    choice, dopamine = totals
    if dopamine is None:
        dopamine = np.zeros((len(choice), 1, 4))
    sums = np.tensordot(weights, dopamine, 1)
    pooled = weights @ choice
    return {
        "normalized_likelihood": ratio_likelihood(pooled[..., 0], pooled[..., 1]),
        "mse": mean_squared_error(sums).mean(axis=-1),
        "r2": mean_r2(sums).mean(axis=-1),
    }


def score_totals(totals: Totals, drawn: np.ndarray) -> tuple[Scores, Scores]:
    """Computes the scores of the sessions and of bootstrap samples of them.

    Args:
        totals: What `session_totals` returns for S sessions.
        drawn: `[replicates, S]` from `draw_sessions`.

    Returns:
        Two results of `pooled_scores`: scalars, and arrays `[replicates]`.
    """
    return pooled_scores(totals, np.ones(drawn.shape[1])), pooled_scores(totals, drawn)


def with_interval(
    name: str, value: float, draws: np.ndarray, confidence: float
) -> dict[str, float]:
    """Computes the percentile interval of a score.

    Args:
        name: Name of the score.
        value: The score.
        draws: `[replicates]` scores of the bootstrap samples.
        confidence: Share of the bootstrap samples inside the interval.

    Returns:
        A dict of `name`, `name_lower` and `name_upper`. The interval is NaN if a bootstrap sample
        has no score, or if all have the same score.
    """
    lower, upper = (np.nan, np.nan)
    if np.isfinite(draws).all() and np.isfinite(value) and np.ptp(draws) > 0:
        lower, upper = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {name: float(value), f"{name}_lower": float(lower), f"{name}_upper": float(upper)}
