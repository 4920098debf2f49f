"""Maximum likelihood fits of cognitive models: multi-start L-BFGS-B on exact gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats
import tensorflow as tf

from keras_disrnn.bandit.rules import PARAMETER_RANGES
from keras_disrnn.models.baselines import recurrence
from keras_disrnn.objectives.losses import log_likelihood
from keras_disrnn.utils.checks import check_integer, check_number
from keras_disrnn.utils.types import Tensor

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.models.baselines.base import Baseline
    from keras_disrnn.models.baselines.cognitive import CognitiveModel

_SESSIONS_MULTIPLE = 8
"""The number of sessions is padded to a multiple of this, so that few shapes are compiled."""

NOISE_FLOOR = 1e-9
"""Smallest noise variance, as a share of the response's variance. Without it the likelihood of
simulated dopamine, which a model can fit exactly, would be infinite."""


class Parameter:
    """A parameter of a cognitive model, declared as an attribute of the model's class.

    On a model the attribute is the parameter's value, a float, or `None` before the fit. The name
    of the attribute says which range of `PARAMETER_RANGES` applies.

    Args:
        start: Range of the random starts of a fit.
        scales: Whether the parameter has the unit of the model's values. A fit to dopamine alone
            finds such a parameter in the unit of the recording.
    """

    def __init__(self, start: tuple[float, float], *, scales: bool = False) -> None:
        self.start = start
        self.scales = scales

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.lower, self.upper = PARAMETER_RANGES[name]

    @overload
    def __get__(self, model: None, owner: type) -> Parameter: ...

    @overload
    def __get__(self, model: CognitiveModel, owner: type) -> float | None: ...

    def __get__(self, model: CognitiveModel | None, owner: type) -> Parameter | float | None:
        if model is None:
            return self
        return model.parameters[self.name] if model.fitted else None

    def __set__(self, model: CognitiveModel, value: float) -> None:
        raise AttributeError(
            f"{self.name}: expected no assignment, got {value!r}; make a model with the new value"
        )

    def check(self, value: Any) -> float:
        """Return the value as a float.

        Raises:
            ValueError: If it is not a number in the parameter's range.
        """
        return check_number(self.name, value, self.lower, self.upper)


class Fit(NamedTuple):
    """The result of a fit.

    Attributes:
        estimates: `pandas.DataFrame` with one row for each parameter: `parameter`, `estimate`, its
            standard error `se`, and the bounds `lower` and `upper` of its interval. The last three
            are NaN for a parameter that is at the end of its range, that the data do not determine,
            or that was not fitted.
        loss: Negative log likelihood of all targets, in nats.
        start_losses: The loss at the end of each start, best first. If several agree, the best one
            is unlikely to be a local optimum.
        targets: `"choice"`, `"dopamine"` or `"joint"`.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.models.baselines import Fit
    >>> estimates = pd.DataFrame({"parameter": ["alpha"], "estimate": [0.3], "se": [0.02]})
    >>> Fit(estimates, loss=120.5, start_losses=(120.5, 131.0), targets="choice").loss
    120.5
    """

    estimates: pd.DataFrame
    loss: float
    start_losses: tuple[float, ...]
    targets: str


@functools.lru_cache(maxsize=32)
def loss_and_gradient(
    model_type: type[CognitiveModel], num_arms: int, targets: str, affine: bool
) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Return the compiled loss of a class of models, for any data.

    The loss is the negative log likelihood, in nats. Choices have the model's probabilities.
    Dopamine has normal noise about the prediction error; the variance of each signal (and, with
    `affine`, its gain and offset) is the one that fits best. For dopamine alone that is least
    squares. The gradient is TensorFlow's, of the model's own equations in float64.

    Args:
        model_type: A subclass of `CognitiveModel`.
        num_arms: Number of arms.
        targets: `"choice"`, `"dopamine"` or `"joint"`.
        affine: Whether dopamine is a gain times the prediction error plus an offset.

    Returns:
        A function of the parameters, float64 `(parameters,)`, and the arrays of `arrays`. It
        returns the loss, its gradient, and the gains and offsets `(2, signals)`.
    """

    @tf.function(jit_compile=True, reduce_retracing=False)
    def compute(
        values: Tensor,
        seen: Tensor,
        real: Tensor,
        choice: Tensor,
        choice_weight: Tensor,
        dopamine: Tensor,
        dopamine_weight: Tensor,
    ) -> tuple[Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(values)
            parameters = dict(zip(model_type.parameter_names(), tf.unstack(values), strict=True))
            rule = model_type.make_rule(parameters)
            after = recurrence.all_states(rule, seen, real, num_arms)
            loss = tf.zeros((), values.dtype)
            if targets != "dopamine":
                log_p = log_likelihood(choice, recurrence.choice_logits(rule, after))
                loss -= tf.reduce_sum(choice_weight * log_p)
            affine_map = tf.zeros((2, dopamine.shape[-1]), values.dtype)
            if targets != "choice":
                start = recurrence.start_state(rule, num_arms, "float64")
                start = tf.broadcast_to(start, (1, *after.shape[1:]))
                before = tf.concat([start, after[:-1]], axis=0)
                error = recurrence.prediction_error(rule, seen, before)[..., None]
                all_steps = (0, 1)
                count = tf.reduce_sum(dopamine_weight, all_steps)
                mean = tf.reduce_sum(dopamine_weight * dopamine, all_steps) / count
                spread = tf.reduce_sum(dopamine_weight * (dopamine - mean) ** 2, all_steps) / count
                gain, offset = tf.ones_like(mean), tf.zeros_like(mean)
                if affine:
                    centre = tf.reduce_sum(dopamine_weight * error, all_steps) / count
                    moved = dopamine_weight * (error - centre)
                    scatter = tf.reduce_sum(moved * (error - centre), all_steps)
                    gain = tf.math.divide_no_nan(
                        tf.reduce_sum(moved * (dopamine - mean), all_steps), scatter
                    )
                    offset = mean - gain * centre
                residual = dopamine - gain * error - offset
                variance = tf.reduce_sum(dopamine_weight * residual**2, all_steps) / count
                variance += NOISE_FLOOR * spread
                loss += tf.reduce_sum(0.5 * count * (tf.math.log(2.0 * math.pi * variance) + 1.0))
                affine_map = tf.stack([gain, offset])
        return loss, tape.gradient(loss, values), affine_map

    return compute


def arrays(sessions: Sessions) -> tuple[tf.Tensor, ...]:
    """Return the data of the loss: time steps first, padded with empty sessions.

    Args:
        sessions: `keras_disrnn.data.Sessions`.

    Returns:
        Features, whether each time step is real, choice and its weight, dopamine and its weight.
        Numbers are float64.
    """
    more = -len(sessions.ids) % _SESSIONS_MULTIPLE
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


def maximise(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    parameters: Sequence[Parameter],
    *,
    unit: float,
    targets: str,
    starts: int,
    seed: int,
    confidence: float,
    in_order: Callable[[np.ndarray], np.ndarray],
) -> Fit:
    """Find the parameters with the smallest loss from several random starts.

    Args:
        function: Takes the parameters, float64 `(parameters,)`, and returns loss and gradient.
        parameters: The parameters, in order.
        unit: Unit of the parameters with `scales` during the search.
        targets: The targets, for the record.
        starts: Number of starts.
        seed: Seed of the starts.
        confidence: Confidence level of the intervals.
        in_order: Picks one of the solutions that only exchange names.

    Returns:
        A `Fit`.

    Raises:
        ValueError: If no start reaches finite values.
    """
    units = np.array([unit if parameter.scales else 1.0 for parameter in parameters])
    bounds = [(p.lower / u, p.upper / u) for p, u in zip(parameters, units, strict=True)]
    lows, highs = np.array([parameter.start for parameter in parameters]).T
    generator = np.random.default_rng(check_integer("seed", seed, 0))
    begin = generator.uniform(lows, highs, (starts, len(parameters)))
    weight = abs(function(begin[0] * units)[0]) or 1.0

    def scaled(point: np.ndarray) -> tuple[float, np.ndarray]:
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
            f"targets: expected a finite likelihood of {targets} from at least one of {starts} "
            "starts, got none; check the scale of the rewards and of the dopamine"
        )
    results.sort(key=lambda result: result.fun)
    best = in_order(results[0].x * units)
    estimates = _intervals(function, parameters, best, units, confidence)
    losses = tuple(float(result.fun * weight) for result in results)
    return Fit(estimates, losses[0], losses, targets)


def _intervals(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    parameters: Sequence[Parameter],
    best: np.ndarray,
    units: np.ndarray,
    confidence: float,
) -> pd.DataFrame:
    """Return the estimates with standard errors and Wald intervals, cut to the ranges."""
    inside = [
        parameter.lower + 1e-6 * unit < value < parameter.upper - 1e-6 * unit
        for parameter, value, unit in zip(parameters, best, units, strict=True)
    ]
    free = np.flatnonzero(inside)
    errors = np.full(len(best), np.nan)
    if len(free):
        # Central differences of exact gradients. The equations also hold just outside the ranges.
        sizes = 1e-4 * np.maximum(units, np.abs(best))
        rows = []
        for index in free:
            move = np.zeros(len(best))
            move[index] = sizes[index]
            rise = function(best + move)[1] - function(best - move)[1]
            rows.append(rise[free] / (2 * sizes[index]))
        information = (np.array(rows) + np.array(rows).T) / 2
        # In units of the search, so that the test does not depend on the recording's units.
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


def fit_subjects(
    make_model: Callable[[], Baseline], sessions: Sessions, *arguments: Any, **settings: Any
) -> dict[str, Baseline]:
    """Fit one model to the sessions of each subject.

    Args:
        make_model: Returns a new baseline that is not fitted yet.
        sessions: `keras_disrnn.data.Sessions`.
        *arguments: Positional arguments of the model's `fit_sessions`.
        **settings: Keyword arguments of the model's `fit_sessions`.

    Returns:
        Dict of subject to fitted model. `compute_evaluation` accepts it in place of a model.

    Raises:
        ValueError: If a subject's sessions cannot be fitted. The message names the subject.

    Example:

    >>> from keras_disrnn import baselines
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials(
    ...     [[0, 1, 1]] * 2, [[1, 0, 1]] * 2, dopamine=[[1.0, 0.0, 2.0]] * 2, subjects=["a", "b"]
    ... )
    >>> list(baselines.fit_subjects(baselines.Naive, sessions))
    ['a', 'b']
    """
    models = {}
    for subject in dict.fromkeys(sessions.subjects):
        model = make_model()
        try:
            model.fit_sessions(sessions.of_subjects([subject]), *arguments, **settings)
        except ValueError as error:
            raise ValueError(f"subject {subject!r}: {error}") from error
        models[subject] = model
    return models


def subject_estimates(models: Mapping[str, CognitiveModel]) -> pd.DataFrame:
    """Return the estimates of several subjects as one table.

    Args:
        models: The cognitive models of `fit_subjects`, by subject.

    Returns:
        A `pandas.DataFrame`: the `estimates` of each `Fit`, with a first column `subject`.

    Raises:
        ValueError: If a model has no `last_fit`, such as one from a file.

    Example:

    >>> from keras_disrnn import baselines
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials([[0, 1, 1, 0]], [[1, 0, 1, 0]], subjects=["m1"])
    >>> make = lambda: baselines.QLearning(num_signals=0)
    >>> models = baselines.fit_subjects(make, sessions, "choice", starts=1)
    >>> baselines.subject_estimates(models)["subject"].tolist()
    ['m1', 'm1', 'm1']
    """
    tables = []
    for subject, model in models.items():
        if model.last_fit is None:
            raise ValueError(
                f"models: expected models of fit_subjects, got one without a fit for {subject!r}"
            )
        tables.append(model.last_fit.estimates.assign(subject=subject))
    table = pd.concat(tables, ignore_index=True)
    return table[["subject", *table.columns.drop("subject")]]
