"""Maximum likelihood fits of cognitive models: multi-start L-BFGS-B on exact gradients."""

import functools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats
import tensorflow as tf

from keras_disrnn.objectives.losses import log_likelihood

_SESSIONS_AT_ONCE = 8
"""Sessions are padded to a multiple of this, so that few shapes have to be compiled."""

NOISE_FLOOR = 1e-9
"""Least noise variance, as a share of the response's: simulated dopamine can be met exactly."""


class Parameter(NamedTuple):
    """A parameter of a cognitive model.

    Attributes:
        name: Its name.
        lower, upper: Its range.
        start: Range that the starts of a fit are drawn from.
        scales: Whether it has the unit of the model's values, so that a fit to dopamine alone finds
            it in the unit of the recording.
    """

    name: str
    lower: float
    upper: float
    start: tuple[float, float]
    scales: bool = False


class Fit(NamedTuple):
    """What a fit found.

    Attributes:
        estimates: `pandas.DataFrame`, one row a parameter, with `parameter`, `estimate`, its
            standard error `se` and the bounds `lower` and `upper` of its interval. The last three
            are NaN for a parameter at the end of its range, for one that the data do not determine
            and for one that was held.
        loss: Negative log likelihood of all targets, in nats.
        start_losses: The same at the end of each start, best first. Agreement of several says that
            the best is not a local optimum.
        targets: `"choice"`, `"dopamine"` or `"joint"`.
    """

    estimates: pd.DataFrame
    loss: float
    start_losses: tuple[float, ...]
    targets: str


@functools.lru_cache(maxsize=32)
def loss_and_gradient(model_type, arms, targets, affine):
    """The compiled loss of a kind of model: one function for any data.

    The loss is the negative log likelihood, in nats: of choices under the model's probabilities,
    of dopamine under normal noise about the prediction error, whose variance (and, with `affine`,
    whose gain and offset, of each signal) is the one that fits best. Over dopamine alone that is
    least squares. The gradient is TensorFlow's of the model's own equations, in float64.

    Args:
        model_type: A `CognitiveModel` class.
        arms: Number of arms.
        targets: `"choice"`, `"dopamine"` or `"joint"`.
        affine: Whether dopamine is a gain times the prediction error plus an offset.

    Returns:
        A function of parameters `(parameters,)` and the arrays of `arrays` to the loss, its
        gradient and the `(2, signals)` gains and offsets.
    """

    @tf.function(jit_compile=True, reduce_retracing=False)
    def compute(values, seen, real, choice, choice_weight, dopamine, dopamine_weight):
        with tf.GradientTape() as tape:
            tape.watch(values)
            parameters = dict(zip(model_type.parameter_names(), tf.unstack(values), strict=True))
            start = model_type.initial_state(parameters, arms, values.dtype)
            start = tf.broadcast_to(start, (seen.shape[1], start.shape[-1]))

            def move(state, row):
                new = model_type.transition(parameters, row[0], state)
                return tf.where(row[1][:, None], new, state)

            after = tf.scan(move, (seen, real), start)
            loss = tf.zeros((), values.dtype)
            if targets != "dopamine":
                log_p = log_likelihood(choice, model_type.logits(parameters, after))
                loss -= tf.reduce_sum(choice_weight * log_p)
            map_ = tf.zeros((2, dopamine.shape[-1]), values.dtype)
            if targets != "choice":
                before = tf.concat([start[None], after[:-1]], axis=0)
                error = model_type.prediction_error(parameters, seen, before)[..., None]
                over = (0, 1)
                count = tf.reduce_sum(dopamine_weight, over)
                mean = tf.reduce_sum(dopamine_weight * dopamine, over) / count
                spread = tf.reduce_sum(dopamine_weight * (dopamine - mean) ** 2, over) / count
                gain, offset = tf.ones_like(mean), tf.zeros_like(mean)
                if affine:
                    centre = tf.reduce_sum(dopamine_weight * error, over) / count
                    moved = dopamine_weight * (error - centre)
                    scatter = tf.reduce_sum(moved * (error - centre), over)
                    gain = tf.math.divide_no_nan(
                        tf.reduce_sum(moved * (dopamine - mean), over), scatter
                    )
                    offset = mean - gain * centre
                residual = dopamine - gain * error - offset
                variance = tf.reduce_sum(dopamine_weight * residual**2, over) / count
                variance += NOISE_FLOOR * spread
                loss += tf.reduce_sum(0.5 * count * (tf.math.log(2.0 * math.pi * variance) + 1.0))
                map_ = tf.stack([gain, offset])
        return loss, tape.gradient(loss, values), map_

    return compute


def arrays(sessions):
    """What the loss reads of sessions: float64 tensors, rows first, padded with empty sessions."""
    count = sessions.n_sessions
    more = -count % _SESSIONS_AT_ONCE
    real = sessions.row_mask
    parts = (
        np.where(real[..., None], sessions.features, 0.0).astype(np.float64),
        real,
        sessions.choice,
        sessions.choice_weight.astype(np.float64),
        sessions.dopamine.astype(np.float64),
        sessions.dopamine_weight.astype(np.float64),
    )
    padded = (np.pad(part, [(0, more)] + [(0, 0)] * (part.ndim - 1)) for part in parts)
    return tuple(tf.constant(np.swapaxes(part, 0, 1)) for part in padded)


def maximise(function, parameters, unit, targets, starts, seed, confidence):
    """Finds the parameters of least loss from several random starts.

    Args:
        function: From parameters, float64 `(parameters,)`, to loss and gradient, NumPy float64.
        parameters: `Parameter`s, in order.
        unit: What the parameters that scale are measured in during the search.
        targets: For the record.
        starts: Number of starts.
        seed: Of the starts.
        confidence: Of the intervals.

    Returns:
        A `Fit`.

    Raises:
        ValueError: If no start leads to finite values.
    """
    units = np.array([unit if parameter.scales else 1.0 for parameter in parameters])
    bounds = [(p.lower / u, p.upper / u) for p, u in zip(parameters, units, strict=True)]
    lows, highs = np.array([parameter.start for parameter in parameters]).T
    begin = np.random.default_rng(seed).uniform(lows, highs, (starts, len(parameters)))
    weight = abs(function(begin[0] * units)[0]) or 1.0

    def scaled(point):
        loss, gradient = function(point * units)
        return loss / weight, gradient * units / weight

    results = [
        scipy.optimize.minimize(
            scaled,
            point,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8},
        )
        for point in begin
    ]
    results = [r for r in results if np.isfinite(r.fun) and np.isfinite(r.x).all()]
    if not results:
        raise ValueError(
            f"the fit to {targets} failed: expected a finite likelihood at the end of one of "
            f"{starts} starts, got none; look at the scale of the rewards and of the dopamine"
        )
    results.sort(key=lambda result: result.fun)
    best = results[0].x * units
    estimates = _intervals(function, parameters, best, units, confidence)
    losses = tuple(float(result.fun * weight) for result in results)
    return Fit(estimates, losses[0], losses, targets)


def _intervals(function, parameters, best, units, confidence):
    """Standard errors from the observed information; Wald intervals, cut to the ranges."""
    inside = [
        parameter.lower + 1e-6 * unit < value < parameter.upper - 1e-6 * unit
        for parameter, value, unit in zip(parameters, best, units, strict=True)
    ]
    free = np.flatnonzero(inside)
    errors = np.full(len(best), np.nan)
    if len(free):
        # Central differences of exact gradients; the equations hold a little outside the ranges.
        sizes = 1e-4 * np.maximum(units, np.abs(best))
        rows = []
        for index in free:
            move = np.zeros(len(best))
            move[index] = sizes[index]
            rise = function(best + move)[1] - function(best - move)[1]
            rows.append(rise[free] / (2 * sizes[index]))
        information = (np.array(rows) + np.array(rows).T) / 2
        # In units of the search, so that the test does not hang on the recording's.
        relative = information * np.outer(units[free], units[free])
        eigenvalues = np.linalg.eigvalsh(relative)
        if eigenvalues[0] > 1e-9 * eigenvalues[-1]:
            errors[free] = np.sqrt(np.diag(np.linalg.inv(relative))) * units[free]
    reach = scipy.stats.norm.ppf(0.5 + confidence / 2) * errors
    lows = np.array([parameter.lower for parameter in parameters])
    highs = np.array([parameter.upper for parameter in parameters])
    return pd.DataFrame(
        {
            "parameter": [parameter.name for parameter in parameters],
            "estimate": best,
            "se": errors,
            "lower": np.maximum(best - reach, lows),
            "upper": np.minimum(best + reach, highs),
        }
    )
