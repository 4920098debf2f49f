"""Partially pooled fits: subjects differ, and their parameters come from one population.

A fit to all subjects together forgets that they differ. A fit to each subject forgets that they are
alike. Here each parameter of a subject is a draw from a normal distribution, on a scale without
bounds, whose mean and standard deviation are fitted too: empirical Bayes by expectation and
maximisation with a Laplace approximation (Huys, Cools, Golzer, Friedel, Heinz, Dolan & Dayan 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf

from keras_disrnn.models.baselines import fitting
from keras_disrnn.utils.checks import check_integer, check_number

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.models.baselines.cognitive import CognitiveModel

_FIRST_SPREAD = 1.0
"""Standard deviation of the population before the first step."""

_LEAST_SPREAD = 0.02
"""Smallest standard deviation of the population. Steps towards 0 would never end."""

_EDGE = 1e-3
"""Where a pooled estimate at the end of its range begins, as a share of the range."""


class PooledFit(NamedTuple):
    """The result of a partially pooled fit.

    Attributes:
        models: Subject to its fitted model, with the most probable parameters.
        population: A `pandas.DataFrame` with one row for each parameter: `parameter`; `typical`,
            its value in the middle of the population; `lower` and `upper`, between which are 95% of
            the subjects; and `mean` and `sd` on the scale without bounds.
        steps: Number of steps until the population settled.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.models.baselines import PooledFit
    >>> PooledFit({}, pd.DataFrame({"parameter": ["alpha"]}), steps=3).steps
    3
    """

    models: dict[str, CognitiveModel]
    population: pd.DataFrame
    steps: int


class _Scale:
    """Parameters on scales without bounds: logit between two bounds, log above one, else as is."""

    def __init__(self, parameters: Sequence[fitting.Parameter]) -> None:
        self.low, self.high = np.array([(p.lower, p.upper) for p in parameters], float).T
        self.both = np.isfinite(self.low) & np.isfinite(self.high)
        self.above = np.isfinite(self.low) & ~self.both

    def to_values(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the parameters, and the derivative of each by its number without bounds."""
        share = scipy.special.expit(free)
        width = np.where(self.both, self.high - self.low, 0.0)
        growth = np.exp(np.minimum(np.where(self.above, free, 0.0), 50.0))
        start = np.where(self.both | self.above, self.low, 0.0)
        values = np.where(self.both, start + width * share, free)
        values = np.where(self.above, start + growth, values)
        slopes = np.where(self.both, width * share * (1 - share), 1.0)
        return values, np.where(self.above, growth, slopes)

    def to_free(self, values: np.ndarray) -> np.ndarray:
        """Return the numbers without bounds of parameters, which may be at the end of a range."""
        width = np.where(self.both, self.high - self.low, 1.0)
        start = np.where(self.both | self.above, self.low, 0.0)
        share = np.clip((values - start) / width, _EDGE, 1 - _EDGE)
        free = np.where(self.both, scipy.special.logit(share), values)
        return np.where(self.above, np.log(np.maximum(values - start, _EDGE)), free)


class _Subject(NamedTuple):
    """A subject's loss, and its present place in the population.

    Attributes:
        loss: Takes numbers without bounds and returns the negative log likelihood and its gradient.
        place: The most probable numbers, `(parameters,)`.
        variance: Their variances, `(parameters,)`.
    """

    loss: Callable[[np.ndarray], tuple[float, np.ndarray]]
    place: np.ndarray
    variance: np.ndarray


def fit_partially_pooled(
    make_model: Callable[[], CognitiveModel],
    sessions: Sessions,
    targets: Literal["choice", "joint"] = "choice",
    *,
    starts: int = 8,
    seed: int = 0,
    steps: int = 30,
    tolerance: float = 0.03,
    confidence: float = 0.95,
) -> PooledFit:
    """Fit a cognitive model to several subjects whose parameters come from one population.

    Each parameter is normal over subjects on a scale without bounds: its logit between two bounds,
    its log above one, and itself without any. A step finds the most probable parameters of each
    subject and their variances, then the mean and the standard deviation of the population. The fit
    begins at the parameters of all subjects together.

    With much data of a subject its parameters are those of a fit to it alone. With little, they are
    near those of the others, the nearer the more the others agree.

    Args:
        make_model: Returns a new cognitive model that is not fitted yet.
        sessions: `keras_disrnn.data.Sessions` of several subjects.
        targets: `"choice"` or `"joint"`, see `CognitiveModel.fit_sessions`.
        starts: Number of random starts of the fit to all subjects together.
        seed: Seed of the starts.
        steps: Largest number of steps.
        tolerance: The fit ends when no mean and no standard deviation of the population moves by
            more than this share of the standard deviation.
        confidence: Confidence level of the subjects' intervals.

    Returns:
        A `PooledFit`. `compute_evaluation` accepts its `models` in place of a model. The standard
        errors in each `last_fit` are those of the most probable parameters.

    Raises:
        ValueError: If there is one subject only, or the sessions of a subject cannot be fitted.

    Example:

    >>> from keras_disrnn import bandit, baselines
    >>> from keras_disrnn.data import Sessions
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), bandit.DriftingBandit(), num_sessions=4, num_trials=30, seed=0
    ... )
    >>> sessions = Sessions.from_trials(played.choice, played.reward, subjects=["a", "b"] * 2)
    >>> make = lambda: baselines.ForgettingQLearning(num_signals=0)
    >>> fit = baselines.fit_partially_pooled(make, sessions, starts=1, steps=2)
    >>> list(fit.models), fit.population["parameter"].tolist()
    (['a', 'b'], ['alpha', 'kappa_1', 'kappa_2'])
    """
    check_integer("steps", steps, 1)
    check_number("tolerance", tolerance, 0)
    check_number("confidence", confidence, 0, 1)
    if targets not in ("choice", "joint"):
        raise ValueError(f"targets: expected 'choice' or 'joint', got {targets!r}")
    names = tuple(dict.fromkeys(sessions.subjects))
    if len(names) < 2:
        raise ValueError(f"sessions: expected at least 2 subjects to pool, got {names[0]!r} only")
    pooled = make_model()
    pooled.fit_sessions(sessions, targets, starts=starts, seed=seed)
    scale = _Scale(pooled.PARAMETERS)
    mean = scale.to_free(np.array(list(pooled.parameters.values())))
    spread = np.full(len(mean), _FIRST_SPREAD)
    models, computes, subjects = {}, {}, {}
    for name in names:
        own = sessions.of_subjects([name])
        models[name] = make_model()
        try:
            compute = models[name].likelihood(own, targets)
        except ValueError as error:
            raise ValueError(f"subject {name!r}: {error}") from error
        computes[name] = compute
        subjects[name] = _Subject(_free_loss(compute, scale), mean, spread**2)
    count = 0
    for count in range(1, steps + 1):  # noqa: B007 - the number of steps is part of the result
        subjects = {name: _find_place(each, mean, spread) for name, each in subjects.items()}
        places = np.stack([each.place for each in subjects.values()])
        variances = np.stack([each.variance for each in subjects.values()])
        new_mean = places.mean(axis=0)
        new_spread = np.sqrt(places.var(axis=0) + variances.mean(axis=0))
        new_spread = np.maximum(new_spread, _LEAST_SPREAD)
        moved = np.maximum(abs(new_mean - mean), abs(new_spread - spread)) / new_spread
        mean, spread = new_mean, new_spread
        if moved.max() < tolerance:
            break
    reach = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
    for name, model in models.items():
        place, sd = subjects[name].place, np.sqrt(subjects[name].variance)
        values, slopes = scale.to_values(place)
        loss, _, affine_map = computes[name](tf.constant(values))
        estimates = pd.DataFrame(
            {
                "parameter": model.parameter_names(),
                "estimate": values,
                "se": slopes * sd,
                "lower": scale.to_values(place - reach * sd)[0],
                "upper": scale.to_values(place + reach * sd)[0],
            }
        )
        fit = fitting.Fit(estimates, float(loss), (float(loss),), targets)
        model.take_fit(fit, values, affine_map.numpy() if targets == "joint" else None)
    width = float(scipy.stats.norm.ppf(0.975))
    population = pd.DataFrame(
        {
            "parameter": pooled.parameter_names(),
            "typical": scale.to_values(mean)[0],
            "lower": scale.to_values(mean - width * spread)[0],
            "upper": scale.to_values(mean + width * spread)[0],
            "mean": mean,
            "sd": spread,
        }
    )
    return PooledFit(models, population, count)


def _free_loss(
    compute: Callable[..., Any], scale: _Scale
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return the loss of numbers without bounds, and its gradient."""

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        values, slopes = scale.to_values(free)
        total, gradient, _ = compute(tf.constant(values))
        return float(total), gradient.numpy() * slopes

    return loss


def _find_place(subject: _Subject, mean: np.ndarray, spread: np.ndarray) -> _Subject:
    """Return the subject at its most probable parameters in a population, with their variances."""

    def posterior(free: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = subject.loss(free)
        away = (free - mean) / spread
        return loss + 0.5 * float(away @ away), gradient + away / spread

    found = scipy.optimize.minimize(
        posterior, subject.place, jac=True, method="L-BFGS-B", options={"maxiter": 200}
    )
    place = found.x if np.isfinite(found.fun) else subject.place
    # Central differences of exact gradients, as for the intervals of a fit.
    rows = []
    for index in range(len(place)):
        move = np.zeros(len(place))
        move[index] = 1e-3
        rise = posterior(place + move)[1] - posterior(place - move)[1]
        rows.append(rise / 2e-3)
    curvature = (np.array(rows) + np.array(rows).T) / 2
    eigenvalues, vectors = np.linalg.eigh(np.nan_to_num(curvature))
    # Where the likelihood is no hill, the population alone says how far a parameter may be.
    eigenvalues = np.maximum(eigenvalues, 1.0 / spread.max() ** 2)
    variance = (vectors**2 / eigenvalues).sum(axis=1)
    return subject._replace(place=place, variance=variance)
