"""How an animal or an agent plays: the statistics by which the two are usually held together."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit

from keras_disrnn.analysis.bootstrap import draw_sessions
from keras_disrnn.bandit import better_arms

RIDGE = 1e-2
"""Price of the squared regression weights, half of it: they stay finite where data separate."""

_NEWTON_STEPS = 25
_MOST_AT_ONCE = 2**22
"""Patterns times resamples that a regression holds in memory at once."""


class Behaviour(NamedTuple):
    """Statistics of a data set's choices.

    Attributes:
        table: `pandas.DataFrame`, one row a number, with the columns `statistic`, `at`, `value`,
            the bounds `lower` and `upper` of its bootstrap interval, the bootstrap's standard error
            `se`, and `n`, the trials (for switch curves, of all blocks) behind it.
        skipped: Statistics that are not in the table, each with the reason.
        sessions: Number of sessions.
        trials: Number of free choices.
    """

    table: pd.DataFrame
    skipped: dict
    sessions: int
    trials: int


def compute_behaviour(
    sessions,
    *,
    better=None,
    lags=5,
    autocorrelation_lags=20,
    before=10,
    after=20,
    longest_run=20,
    replicates=1000,
    seed=0,
    confidence=0.95,
):
    """The statistics of how choices follow choices and rewards.

    Statistics are pooled over the free choices of all sessions. A rewarded trial is one with a
    reward above 0. Missed trials interrupt what spans them; a forced trial is a past that free
    choices follow, but no choice that counts. By `statistic` and `at`:

    - `win_stay`, `lose_shift` (at 0): probability that a choice repeats that of a rewarded, and
      differs from that of an unrewarded, trial before it.
    - `choice_autocorrelation` (at lag): (P(same) - q) / (1 - q) for two free choices so far apart,
      with q the chance of the same arm at random, the sum of the arms' squared frequencies over all
      sessions. For two arms it is the correlation; the preference of a whole session is part of it.
    - `switch_curve` (at the trial from a change of the better arm, which 0 is the first after):
      probability of the arm that is the better one after the change. Trials of the blocks next to
      it alone count.
    - `choice_weight`, `reward_weight` (at lag), `bias` (at 0): logistic regression of choosing arm
      1 on past choices (arm 0: -1, arm 1: +1) and past rewarded choices (the same where rewarded,
      else 0), in log odds (Lau & Glimcher 2005); two arms only. Maximum likelihood with a ridge of
      `RIDGE`.
    - `run_survival` (at n): probability that more than n choices of one arm follow each other, by
      Kaplan and Meier's estimator, because forced and missed trials and ends of sessions cut runs
      off.

    Intervals are of a bootstrap over sessions, with every statistic, the regression included,
    computed again from the resampled sessions. With one session they are NaN.

    Args:
        sessions: `keras_disrnn.data.Sessions`, of animals or of `SimulatedSessions.to_table()`.
        better: For each session its better arms, `(trials,)` integers, as `better_arms_of` reads
            them; `None` leaves the switch curve out.
        lags: Trials back that the regression looks.
        autocorrelation_lags: The largest lag of the autocorrelation.
        before, after: Trials before and after a change in the switch curve.
        longest_run: The largest n of the run lengths.
        replicates: Number of resamples.
        seed: Of the resamples.
        confidence: Of the intervals.

    Returns:
        A `Behaviour`.

    Raises:
        ValueError: If `better` has other sessions or lengths, or a number is below 1.
    """
    for name in ("lags", "autocorrelation_lags", "before", "after", "longest_run", "replicates"):
        if locals()[name] < 1:
            raise ValueError(f"{name}: expected at least 1, got {locals()[name]}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    played = _Played(sessions)
    parts = [
        _stay(played),
        _autocorrelation(played, autocorrelation_lags),
        _runs(played, longest_run),
    ]
    skipped = {}
    if better is None:
        skipped["switch_curve"] = "it is not known which arm is the better one on each trial"
    else:
        better = _padded(better, sessions)
        switches = _switch_curve(played, better, before, after)
        if switches is None:
            skipped["switch_curve"] = "the better arm never changes within a session"
        else:
            parts.append(switches)
    if sessions.num_arms == 2:
        parts.append(_regression(played, lags))
    else:
        skipped["regression"] = f"it is of two arms, and there are {sessions.num_arms}"
    count = sessions.n_sessions
    drawn = draw_sessions(count, replicates, seed)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    rows = []
    for names, at, sums, estimate in parts:
        pooled = [part.sum(axis=0, dtype=np.float64) for part in sums]
        values, n = estimate([part[None] for part in pooled])
        values, n = values[0], n[0]
        low = high = se = np.full(len(values), np.nan)
        if count > 1:
            resampled = [np.tensordot(drawn.astype(np.float64), part, 1) for part in sums]
            draws, _ = estimate(resampled)
            # A resample can lack what a ratio is of; all of them, where the data lack it.
            some = ~np.isnan(draws).all(axis=0)
            low, high, se = (np.full(len(values), np.nan) for _ in range(3))
            low[some], high[some] = np.nanquantile(draws[:, some], ends, axis=0)
            se[some] = np.nanstd(draws[:, some], axis=0)
        columns = (names, at, values, low, high, se, n)
        rows += list(zip(*columns, strict=True))
    names = ["statistic", "at", "value", "lower", "upper", "se", "n"]
    table = pd.DataFrame(rows, columns=names).astype({"at": int, "n": int})
    return Behaviour(table, skipped, count, int(played.free.sum()))


def compute_behaviour_distances(animal, models):
    """How far the behaviour of models is from an animal's, statistic by statistic.

    The distance is the root mean square, over the numbers of the statistic (lags, trials from a
    change, ...), of the model's value minus the animal's, in the statistic's own units:
    probabilities, correlations, log odds. The `floor` is the root mean square of the animal's
    bootstrap standard errors: what a perfect model is away by on average, from the animal's finite
    data alone.

    Args:
        animal: The animal's `Behaviour`.
        models: Dict of name to the `Behaviour` of a model's sessions, with the same settings.

    Returns:
        A `pandas.DataFrame`, one row a model and statistic: `model`, `statistic`, `distance`,
        `floor`, `ratio` (distance over floor) and `n`, how many numbers were compared. Statistics
        that either of the two lacks are left out.
    """
    rows = []
    for name, behaviour in models.items():
        both = animal.table.merge(behaviour.table, on=["statistic", "at"], suffixes=("", "_model"))
        both = both[both["value"].notna() & both["value_model"].notna()]
        for statistic, part in both.groupby("statistic", sort=False):
            distance = np.sqrt(np.mean((part["value_model"] - part["value"]) ** 2))
            floor = np.sqrt(np.mean(part["se"] ** 2))
            rows.append((name, statistic, distance, floor, _ratio(distance, floor), len(part)))
    names = ["model", "statistic", "distance", "floor", "ratio", "n"]
    return pd.DataFrame(rows, columns=names)


def better_arms_of(table, sessions, columns):
    """The better arm on each trial of sessions, from the table they were read from.

    Args:
        table: The `pandas.DataFrame` that `sessions` were read from by `sessions_from_table`.
        sessions: `keras_disrnn.data.Sessions`.
        columns: One column with the better arm, as choices are numbered; or a column of the reward
            probability of each arm, by arm.

    Returns:
        A list of `(trials,)` integer arrays, one a session; or `None` where no session has blocks
        (the probabilities drift, or the better arm never changes).

    Raises:
        ValueError: If the sessions are not from a table, a column is not there or holds no arm, or
            the number of columns is neither 1 nor the number of arms.
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    if sessions.rows is None:
        raise ValueError("sessions: expected sessions read from a table, got others")
    if len(columns) not in (1, sessions.num_arms):
        raise ValueError(
            f"columns: expected one (the better arm) or {sessions.num_arms} (the reward probability of "
            f"each arm), got {len(columns)}: {', '.join(columns)}"
        )
    for column in columns:
        if column not in table.columns:
            there = ", ".join(map(str, table.columns))
            raise ValueError(f"table: no column {column!r}, got the columns {there}")
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise ValueError(f"table: expected numbers in column {column!r}, got other values")
    values = table[columns].to_numpy(np.float64)
    if len(columns) == 1:
        arms = values[np.concatenate(sessions.rows), 0]
        bad = ~np.isin(arms, np.arange(sessions.num_arms))
        if bad.any():
            row = np.concatenate(sessions.rows)[np.argmax(bad)]
            raise ValueError(
                f"table: expected an arm from 0 to {sessions.num_arms - 1} in column {columns[0]!r}, "
                f"got {values[row, 0]:g} in row {row}"
            )
        better = [values[rows, 0].astype(int) for rows in sessions.rows]
    else:
        every = [values[rows] for rows in sessions.rows]
        if any(better_arms(p) is None and np.ptp(p, axis=0).any() for p in every):
            return None
        better = [np.argmax(p, axis=-1) for p in every]
    return better if any(np.ptp(arms) > 0 for arms in better) else None


# === The trials ===


class _Played:
    """What happened, trial by trial: arrays `(sessions, trials)`."""

    def __init__(self, sessions):
        choice = sessions.features[:, 1:, 0]
        self.made = ~np.isnan(choice)
        self.choice = np.where(self.made, choice, -1).astype(np.int64)
        self.rewarded = np.nan_to_num(sessions.features[:, 1:, 1]) > 0
        self.free = sessions.choice_weight[:, :-1] > 0
        self.num_arms = sessions.num_arms


def _padded(better, sessions):
    """The better arms as one array `(sessions, trials)`, -1 past the end of a session."""
    lengths = sessions.trials_per_session
    if len(better) != len(lengths):
        raise ValueError(f"better: expected {len(lengths)} sessions, got {len(better)}")
    arms = np.full((len(lengths), sessions.features.shape[1] - 1), -1)
    for index, (values, length) in enumerate(zip(better, lengths, strict=True)):
        if len(values) < length:
            raise ValueError(
                f"better: expected {length} trials in session {sessions.ids[index]!r}, got "
                f"{len(values)}"
            )
        arms[index, :length] = values[:length]
    return arms


def _ratio(numerator, denominator):
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    return np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0
    )


# === The statistics ===
# Each gives the names and places of its numbers, sums `(sessions, ...)` that pool over sessions,
# and the function from pooled sums, replicates first, to the numbers and their counts.


def _stay(played):
    pairs = played.made[:, :-1] & played.free[:, 1:]
    same = played.choice[:, 1:] == played.choice[:, :-1]
    win = played.rewarded[:, :-1]
    events = [pairs & win & same, pairs & ~win & ~same]
    every = [pairs & win, pairs & ~win]
    sums = [np.stack([of.sum(axis=1) for of in kind], axis=-1) for kind in (events, every)]
    return ["win_stay", "lose_shift"], [0, 0], sums, lambda s: (_ratio(*s), s[1])


def _autocorrelation(played, lags):
    lags = min(lags, played.choice.shape[1] - 1)
    same, count = [], []
    for lag in range(1, lags + 1):
        pairs = played.free[:, lag:] & played.free[:, :-lag]
        equal = played.choice[:, lag:] == played.choice[:, :-lag]
        same.append((pairs & equal).sum(axis=1))
        count.append(pairs.sum(axis=1))
    frequency = [
        (played.free & (played.choice == arm)).sum(axis=1) for arm in range(played.num_arms)
    ]
    sums = [np.stack(of, axis=-1) for of in (same, count, frequency)]

    def estimate(sums):
        same, count, frequency = sums
        share = _ratio(frequency, frequency.sum(axis=-1, keepdims=True))
        chance = (share**2).sum(axis=-1, keepdims=True)
        return _ratio(_ratio(same, count) - chance, 1 - chance), count

    return ["choice_autocorrelation"] * lags, list(range(1, lags + 1)), sums, estimate


def _runs(played, longest):
    sessions, trials = played.choice.shape
    # How long each session's run is so far: 0 where a forced or missed trial interrupts, and -1 for
    # a run that began at an interruption, whose true length is not known.
    age = np.where(played.free[:, 0], 1, 0)
    risk = np.zeros((sessions, longest + 1))
    ended = np.zeros((sessions, longest + 1))
    for trial in range(1, trials):
        free = played.free[:, trial]
        same = played.choice[:, trial] == played.choice[:, trial - 1]
        at = np.flatnonzero(free & (age > 0) & (age <= longest))
        risk[at, age[at]] += 1
        ended[at, age[at]] += ~same[at]
        goes_on = np.where(age > 0, age + 1, -1)
        age = np.where(free, np.where(same | (age == 0), goes_on, 1), 0)
    sums = [ended[:, 1:], risk[:, 1:]]

    def estimate(sums):
        ended, risk = sums
        survival = np.cumprod(1 - _ratio(ended, risk), axis=-1)
        return survival, risk

    return ["run_survival"] * longest, list(range(1, longest + 1)), sums, estimate


def _switch_curve(played, better, before, after):
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
        counts &= played.free[session, at]
        np.add.at(count[:, column], session, counts)
        np.add.at(hits[:, column], session, counts & (played.choice[session, at] == new))
    return (
        ["switch_curve"] * len(offsets), offsets.tolist(), [hits, count],
        lambda s: (_ratio(*s), s[1]),
    )  # fmt: skip


def _regression(played, lags):
    """Logistic regression over the patterns of the last trials, counted in each session."""
    sessions, trials = played.choice.shape
    lags = min(lags, trials - 1)
    known = played.free[:, lags:].copy()
    code = np.zeros(known.shape, np.int64)
    for lag in range(1, lags + 1):
        past = slice(lags - lag, trials - lag)
        known &= played.made[:, past]
        code = 4 * code + 2 * played.choice[:, past] + played.rewarded[:, past]
    session, trial = np.nonzero(known)
    patterns, which = np.unique(code[known], return_inverse=True)
    right = played.choice[session, trial + lags] == 1
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

    def estimate(sums):
        weights = _logistic(inputs, *sums)
        return weights, np.repeat(sums[1].sum(axis=-1, keepdims=True), weights.shape[1], axis=1)

    names = ["bias", *["choice_weight"] * lags, *["reward_weight"] * lags]
    return names, [0, *range(1, lags + 1), *range(1, lags + 1)], sums, estimate


def _logistic(inputs, hits, count):
    """Weights `(replicates, inputs)` of logistic regressions, by Newton's method.

    Args:
        inputs: `(patterns, inputs)`.
        hits, count: `(replicates, patterns)`, how often the outcome was 1, and how often any.
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
