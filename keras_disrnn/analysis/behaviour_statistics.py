"""The statistics of `keras_disrnn.analysis.behaviour`, as sums over sessions.

Each statistic returns a `Statistic`. Its sums are arrays `[sessions, ...]` that can be pooled over
any sample of sessions. Its estimate takes pooled sums `[replicates, ...]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from keras_disrnn.analysis.arrays import divide

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions

RIDGE = 1e-2
"""Half of it is the penalty weight of the squared regression weights, to keep them finite."""

_NEWTON_STEPS = 25
_MOST_AT_ONCE = 2**22
"""Largest number of patterns times bootstrap samples that a regression holds in memory."""

Sums = list[np.ndarray]


class Statistic(NamedTuple):
    """A statistic as sums over sessions.

    Attributes:
        names: Name of the statistic of each number.
        at: Lag, trial or run length of each number.
        sums: Arrays `[sessions, ...]`.
        estimate: Function from sums `[replicates, ...]` to the numbers and their counts, both
            `[replicates, numbers]`.
    """

    names: list[str]
    at: list[int]
    sums: Sums
    estimate: Callable[[Sums], tuple[np.ndarray, np.ndarray]]


class Trials:
    """The trials of sessions, as arrays `[sessions, trials]`.

    Attributes:
        made: Whether a choice was made.
        choice: The choice; -1 if none was made.
        rewarded: Whether the trial was rewarded.
        free: Whether the choice was free.
        num_arms: Number of arms.
    """

    def __init__(self, sessions: Sessions) -> None:
        choice = sessions.features[:, 1:, 0]
        self.made = ~np.isnan(choice)
        self.choice = np.where(self.made, choice, -1).astype(np.int64)
        self.rewarded = np.nan_to_num(sessions.features[:, 1:, 1]) > 0
        self.free = sessions.choice_weight[:, :-1] > 0
        self.num_arms = sessions.num_arms


def stay(trials: Trials) -> Statistic:
    """Counts repeated choices after reward, and changed ones without reward."""
    pairs = trials.made[:, :-1] & trials.free[:, 1:]
    same = trials.choice[:, 1:] == trials.choice[:, :-1]
    win = trials.rewarded[:, :-1]
    events = [pairs & win & same, pairs & ~win & ~same]
    chances = [pairs & win, pairs & ~win]
    sums = [np.stack([kind.sum(axis=1) for kind in kinds], axis=-1) for kinds in (events, chances)]
    return Statistic(["win_stay", "lose_shift"], [0, 0], sums, lambda s: (divide(*s), s[1]))


def autocorrelation(trials: Trials, lags: int) -> Statistic:
    """Counts equal pairs of free choices at each lag."""
    lags = min(lags, trials.choice.shape[1] - 1)
    same, count = [], []
    for lag in range(1, lags + 1):
        pairs = trials.free[:, lag:] & trials.free[:, :-lag]
        equal = trials.choice[:, lag:] == trials.choice[:, :-lag]
        same.append((pairs & equal).sum(axis=1))
        count.append(pairs.sum(axis=1))
    frequency = [
        (trials.free & (trials.choice == arm)).sum(axis=1) for arm in range(trials.num_arms)
    ]
    sums = [np.stack(counts, axis=-1) for counts in (same, count, frequency)]

    def estimate(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        same, count, frequency = sums
        share = divide(frequency, frequency.sum(axis=-1, keepdims=True))
        chance = (share**2).sum(axis=-1, keepdims=True)
        return divide(divide(same, count) - chance, 1 - chance), count

    return Statistic(["choice_autocorrelation"] * lags, list(range(1, lags + 1)), sums, estimate)


def runs(trials: Trials, longest: int) -> Statistic:
    """Counts the runs of choices that reach each length, and those that end there."""
    sessions, length = trials.choice.shape
    # The length of each session's run so far. It is 0 after a forced or missed trial, and -1 for a
    # run that began after one, because its true length is unknown.
    age = np.where(trials.free[:, 0], 1, 0)
    risk = np.zeros((sessions, longest + 1))
    ended = np.zeros((sessions, longest + 1))
    for trial in range(1, length):
        free = trials.free[:, trial]
        same = trials.choice[:, trial] == trials.choice[:, trial - 1]
        at = np.flatnonzero(free & (age > 0) & (age <= longest))
        risk[at, age[at]] += 1
        ended[at, age[at]] += ~same[at]
        continued = np.where(age > 0, age + 1, -1)
        age = np.where(free, np.where(same | (age == 0), continued, 1), 0)
    sums = [ended[:, 1:], risk[:, 1:]]

    def estimate(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        ended, risk = sums
        survival = np.cumprod(1 - divide(ended, risk), axis=-1)
        return survival, risk

    return Statistic(["run_survival"] * longest, list(range(1, longest + 1)), sums, estimate)


def switch_curve(trials: Trials, better: np.ndarray, before: int, after: int) -> Statistic | None:
    """Counts choices of the new better arm around each change; `None` if there is no change."""
    inside = better >= 0
    changed = (np.diff(better, axis=1) != 0) & inside[:, 1:]
    session, change = np.nonzero(changed)
    if not len(session):
        return None
    change = change + 1
    lengths = inside.sum(axis=1)
    # The blocks on both sides of each change.
    first = np.diff(session, prepend=-1) != 0
    last = np.diff(session, append=len(better)) != 0
    begins = np.where(first, 0, np.roll(change, 1))
    ends = np.where(last, lengths[session], np.roll(change, -1))
    new = better[session, change]
    offsets = np.arange(-before, after)
    hits, count = (np.zeros((len(better), len(offsets))) for _ in range(2))
    for column, offset in enumerate(offsets):
        trial = change + offset
        counts = (trial >= begins) & (trial < ends)
        at = np.where(counts, trial, 0)
        counts &= trials.free[session, at]
        np.add.at(count[:, column], session, counts)
        np.add.at(hits[:, column], session, counts & (trials.choice[session, at] == new))
    names = ["switch_curve"] * len(offsets)
    return Statistic(names, offsets.tolist(), [hits, count], lambda s: (divide(*s), s[1]))


def regression(trials: Trials, lags: int) -> Statistic:
    """Counts, for the logistic regression, the choices after each pattern of past trials."""
    sessions, length = trials.choice.shape
    lags = min(lags, length - 1)
    known = trials.free[:, lags:].copy()
    code = np.zeros(known.shape, np.int64)
    for lag in range(1, lags + 1):
        past = slice(lags - lag, length - lag)
        known &= trials.made[:, past]
        code = 4 * code + 2 * trials.choice[:, past] + trials.rewarded[:, past]
    session, trial = np.nonzero(known)
    patterns, which = np.unique(code[known], return_inverse=True)
    right = trials.choice[session, trial + lags] == 1
    place = session * len(patterns) + which
    shape = (sessions, len(patterns))
    size = sessions * len(patterns)
    sums = [
        np.bincount(place, weights, minlength=size).reshape(shape).astype(np.float32)
        for weights in (right, np.ones(len(right)))
    ]
    digits = patterns[:, None] // 4 ** np.arange(lags - 1, -1, -1) % 4
    side = 2.0 * (digits // 2) - 1
    inputs = np.concatenate([np.ones((len(patterns), 1)), side, side * (digits % 2)], axis=1)

    def estimate(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        weights = _logistic(inputs, *sums)
        return weights, np.repeat(sums[1].sum(axis=-1, keepdims=True), weights.shape[1], axis=1)

    names = ["bias", *["choice_weight"] * lags, *["reward_weight"] * lags]
    at = [0, *range(1, lags + 1), *range(1, lags + 1)]
    return Statistic(names, at, sums, estimate)


def _logistic(inputs: np.ndarray, hits: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Fits logistic regressions with Newton's method.

    Args:
        inputs: `[patterns, inputs]`.
        hits: `[replicates, patterns]` how often the outcome was 1.
        count: `[replicates, patterns]` how often the pattern occurred.

    Returns:
        Weights `[replicates, inputs]`.
    """
    width = inputs.shape[1]
    if hits.size > _MOST_AT_ONCE and len(hits) > 1:
        half = len(hits) // 2
        parts = [(hits[:half], count[:half]), (hits[half:], count[half:])]
        return np.concatenate([_logistic(inputs, *part) for part in parts])
    products = (inputs[:, :, None] * inputs[:, None, :]).reshape(len(inputs), -1)
    weights = np.zeros((len(hits), width))
    for _ in range(_NEWTON_STEPS):
        probability = expit(weights @ inputs.T)
        gradient = (hits - count * probability) @ inputs - RIDGE * weights
        curvature = (count * probability * (1 - probability)) @ products
        curvature = curvature.reshape(-1, width, width) + RIDGE * np.eye(width)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    return weights
