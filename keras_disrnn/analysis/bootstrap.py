"""Bootstrap over sessions of scores that are made of sums."""

import numpy as np

from keras_disrnn.analysis.evaluation import mean_r2, mean_squared_error, ratio_likelihood

SCORES = ("normalized_likelihood", "mse", "r2")
"""The scores of a model; see `compute_evaluation`."""


def draw_sessions(count, replicates, seed):
    """How often each session comes in each resample.

    Args:
        count: Number of sessions, S.
        replicates: Number of resamples, each of S sessions with replacement.
        seed: Of the resamples. Scores of several models are paired where they share the draws.

    Returns:
        Integers `(replicates, S)`; each row sums to S.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=replicates)


def pooled_scores(totals, weights):
    """The scores of weighted sessions.

    Args:
        totals: What `session_totals` returns for S sessions.
        weights: `(S,)`, or `(replicates, S)` of `draw_sessions`.

    Returns:
        Dict of each of `SCORES` to a float array of the shape of `weights` without its last axis;
        dopamine scores are NaN for a model without dopamine.
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


def score_totals(totals, drawn):
    """The scores of the sessions as they are, and of resamples of them.

    Args:
        totals: What `session_totals` returns for S sessions.
        drawn: `(replicates, S)` of `draw_sessions`.

    Returns:
        Two dicts of `pooled_scores`: floats, and arrays `(replicates,)`.
    """
    return pooled_scores(totals, np.ones(drawn.shape[1])), pooled_scores(totals, drawn)


def with_interval(name, value, draws, confidence):
    """A score with its percentile interval, as cells of a table.

    Args:
        name: Name of the score.
        value: The score.
        draws: The score of each resample.
        confidence: Share of the resamples in the interval.

    Returns:
        A dict of `name`, `name_lower` and `name_upper`. The interval is NaN where a resample has no
        score, or where all have the same.
    """
    low, high = (np.nan, np.nan)
    if np.isfinite(draws).all() and np.isfinite(value) and np.ptp(draws) > 0:
        low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {name: float(value), f"{name}_lower": float(low), f"{name}_upper": float(high)}


def four_digits(value):
    """A score as text, a nought without a sign."""
    return f"{round(float(value), 4) + 0.0:.4f}"
