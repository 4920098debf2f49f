"""Statistics of choices, for comparing the behaviour of animals and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from keras_disrnn.analysis import behaviour_statistics as statistics
from keras_disrnn.analysis.arrays import divide
from keras_disrnn.analysis.bootstrap import draw_sessions
from keras_disrnn.bandit import better_arms
from keras_disrnn.data.rows import find_rows
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.tables import check_columns, summarized

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions


@summarized
class Behaviour(NamedTuple):
    """Statistics of the choices in a data set.

    Attributes:
        table: One row for each number, with the columns `statistic`, `at` and `value`. `lower` and
            `upper` are the ends of its bootstrap interval, and `se` is its bootstrap standard
            error. `n` is the number of its trials (for switch curves, the trials of all blocks).
        skipped: Statistics that are not in the table, each with the reason.
        sessions: Number of sessions.
        trials: Number of free choices.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis import Behaviour
    >>> table = pd.DataFrame({"statistic": ["win_stay"], "at": [0], "value": [0.8]})
    >>> Behaviour(table, skipped={}, sessions=3, trials=120).table["value"].item()
    0.8
    """

    table: pd.DataFrame
    skipped: dict[str, str]
    sessions: int
    trials: int

    def _contents(self) -> Mapping[str, object]:
        return {
            "sessions": self.sessions,
            "trials": self.trials,
            "statistics": " ".join(self.table["statistic"].unique()),
            "skipped": " ".join(self.skipped) or "none",
        }


def compute_behaviour(
    sessions: Sessions,
    *,
    better: Sequence[np.ndarray] | None = None,
    lags: int = 5,
    autocorrelation_lags: int = 20,
    before: int = 10,
    after: int = 20,
    longest_run: int = 20,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Behaviour:
    """Computes how choices depend on earlier choices and rewards.

    Statistics are pooled over the free choices of all sessions. A trial is rewarded if its reward
    is above 0. A missed trial interrupts everything that spans it. A forced trial counts as the
    past of free choices, but not as a choice. The statistics, with their `at` in brackets, are:

    - `win_stay`, `lose_shift` (0): probability that a choice repeats that of the trial before, if
      that was rewarded; and that it differs, if that was not.
    - `choice_autocorrelation` (lag): (P(same) - q) / (1 - q) for two free choices at this distance.
      q is the probability of equal choices by chance, the sum of the squared frequencies of the
      arms over all sessions. For two arms it is the correlation. It includes preferences that
      persist over a session.
    - `switch_curve` (trial relative to a change of the better arm; 0 is the first trial after it):
      probability of the arm that is better after the change. Only trials of the two adjacent blocks
      count.
    - `choice_weight`, `reward_weight` (lag) and `bias` (0): logistic regression of choosing arm 1,
      in log odds (Lau & Glimcher 2005). Its inputs are the past choices (arm 0: -1, arm 1: +1) and
      the past rewarded choices (the same if rewarded, else 0). It needs two arms. The fit is
      maximum likelihood with a ridge of `behaviour_statistics.RIDGE`.
    - `run_survival` (n): probability that a run of choices of one arm is longer than n. It uses the
      Kaplan-Meier estimator, because forced trials, missed trials and ends of sessions censor runs.

    Intervals are from a bootstrap over sessions, which computes every statistic, including the
    regression, again from each bootstrap sample. With one session they are NaN.

    Args:
        sessions: Sessions of animals, or of `SimulatedSessions.to_table()`.
        better: For each session `[trials]` integers, its better arms, as `better_arms_of` returns
            them; `None` skips the switch curve.
        lags: Number of past trials in the regression.
        autocorrelation_lags: Largest lag of the autocorrelation.
        before: Trials before a change in the switch curve.
        after: Trials after a change in the switch curve.
        longest_run: Largest n of the run lengths.
        replicates: Number of bootstrap samples.
        seed: Seed of the bootstrap samples.
        confidence: Confidence level of the intervals.

    Returns:
        The statistics.

    Raises:
        ValueError: If `better` has other sessions or lengths, or a number is below 1.

    Example:

    >>> from keras_disrnn import bandit
    >>> from keras_disrnn.analysis import compute_behaviour
    >>> from keras_disrnn.data import sessions_from_table
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), bandit.BlockBandit(), num_sessions=3, num_trials=40, seed=0
    ... )
    >>> behaviour = compute_behaviour(
    ...     sessions_from_table(played.to_table()), lags=2, replicates=10
    ... )
    >>> behaviour.sessions, behaviour.trials
    (3, 120)
    """
    for name in ("lags", "autocorrelation_lags", "before", "after", "longest_run", "replicates"):
        check_integer(name, locals()[name])
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    trials = statistics.Trials(sessions)
    parts = [
        statistics.stay(trials),
        statistics.autocorrelation(trials, autocorrelation_lags),
        statistics.runs(trials, longest_run),
    ]
    skipped = {}
    if better is None:
        skipped["switch_curve"] = "it is not known which arm is better on each trial"
    else:
        arms = _padded(better, sessions)
        switches = statistics.switch_curve(trials, arms, before, after)
        if switches is None:
            skipped["switch_curve"] = "the better arm never changes within a session"
        else:
            parts.append(switches)
    if sessions.num_arms == 2:
        parts.append(statistics.regression(trials, lags))
    else:
        skipped["regression"] = f"it needs two arms, and there are {sessions.num_arms}"
    count = sessions.num_sessions
    drawn = draw_sessions(count, replicates, seed)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    rows: list[tuple] = []
    for names, at, sums, estimate in parts:
        values, n = estimate([part.sum(axis=0, dtype=np.float64)[None] for part in sums])
        low, high, se = np.full((3, values.shape[1]), np.nan)
        if count > 1:
            draws, _ = estimate([np.tensordot(drawn.astype(np.float64), part, 1) for part in sums])
            # A ratio is NaN in bootstrap samples, or in all of them, without the trials it needs.
            some = ~np.isnan(draws).all(axis=0)
            low[some], high[some] = np.nanquantile(draws[:, some], ends, axis=0)
            se[some] = np.nanstd(draws[:, some], axis=0)
        rows += zip(names, at, values[0], low, high, se, n[0], strict=True)
    names = ["statistic", "at", "value", "lower", "upper", "se", "n"]
    table = pd.DataFrame(rows, columns=names).astype({"at": int, "n": int})
    return Behaviour(table, skipped, count, int(trials.free.sum()))


def compute_behaviour_distances(animal: Behaviour, models: Mapping[str, Behaviour]) -> pd.DataFrame:
    """Computes how far the behaviour of models is from that of an animal, for each statistic.

    The distance is the root mean square of the model's value minus the animal's over the numbers of
    a statistic (lags, trials from a change, ...). It has the units of the statistic: probabilities,
    correlations, log odds. The `floor` is the root mean square of the animal's bootstrap standard
    errors. It is the expected distance of a perfect model, because the animal's data are finite.

    Args:
        animal: The statistics of the animal.
        models: Name to the statistics of a model's sessions, with the same settings.

    Returns:
        A table with one row for each model and statistic: `model`, `statistic`, `distance`,
        `floor`, `ratio` (distance / floor) and `n`, the number of numbers that were compared.
        Statistics that the animal or the model lacks are left out.

    Example:

    >>> from keras_disrnn import bandit
    >>> from keras_disrnn.analysis import compute_behaviour, compute_behaviour_distances
    >>> from keras_disrnn.data import sessions_from_table
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), bandit.BlockBandit(), num_sessions=3, num_trials=40, seed=0
    ... )
    >>> behaviour = compute_behaviour(
    ...     sessions_from_table(played.to_table()), lags=2, replicates=10
    ... )
    >>> distances = compute_behaviour_distances(behaviour, {"same": behaviour})
    >>> float(distances["distance"].max())
    0.0
    """
    rows = []
    for name, behaviour in models.items():
        both = animal.table.merge(behaviour.table, on=["statistic", "at"], suffixes=("", "_model"))
        both = both[both["value"].notna() & both["value_model"].notna()]
        for statistic, part in both.groupby("statistic", sort=False):
            distance = np.sqrt(np.mean((part["value_model"] - part["value"]) ** 2))
            floor = np.sqrt(np.mean(part["se"] ** 2))
            rows.append((name, statistic, distance, floor, divide(distance, floor), len(part)))
    names = ["model", "statistic", "distance", "floor", "ratio", "n"]
    return pd.DataFrame(rows, columns=names)


def better_arms_of(
    table: pd.DataFrame, sessions: Sessions, columns: str | Sequence[str]
) -> list[np.ndarray] | None:
    """Reads the better arm on each trial from the table that sessions were read from.

    Args:
        table: The table that `sessions` were read from with `sessions_from_table`.
        sessions: The sessions.
        columns: One column with the number of the better arm; or for each arm, in order, a column
            with its reward probability.

    Returns:
        For each session `[trials]` integers; or `None` if no session has blocks, because the
        probabilities drift or the better arm never changes.

    Raises:
        ValueError: If the sessions are not from a table, a column is missing or has values that are
            not arms, or the number of columns is wrong.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis import better_arms_of
    >>> from keras_disrnn.data import sessions_from_table
    >>> table = pd.DataFrame(
    ...     {"subject": "m1", "session": 1, "choice": [0, 1], "reward": [1, 0], "arm": [0, 1]}
    ... )
    >>> better_arms_of(table, sessions_from_table(table), "arm")[0].tolist()
    [0, 1]
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    found = find_rows("table", table, sessions)
    if len(columns) not in (1, sessions.num_arms):
        raise ValueError(
            f"columns: expected one (the better arm) or {sessions.num_arms} (the reward "
            f"probability of each arm), got {len(columns)}: {', '.join(columns)}"
        )
    check_columns("table", table, columns)
    for column in columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise ValueError(f"table: expected numbers in column {column!r}, got other values")
    values = table[columns].to_numpy(np.float64)
    if len(columns) == 1:
        arms = values[np.concatenate(found), 0]
        bad = ~np.isin(arms, np.arange(sessions.num_arms))
        if bad.any():
            row = np.concatenate(found)[np.argmax(bad)]
            raise ValueError(
                f"table: expected an arm from 0 to {sessions.num_arms - 1} in column "
                f"{columns[0]!r}, got {values[row, 0]:g} in row {row}"
            )
        better = [values[rows, 0].astype(int) for rows in found]
    else:
        by_session = [values[rows] for rows in found]
        if any(better_arms(p) is None and np.ptp(p, axis=0).any() for p in by_session):
            return None
        better = [np.argmax(p, axis=-1) for p in by_session]
    return better if any(np.ptp(arms) > 0 for arms in better) else None


def _padded(better: Sequence[np.ndarray], sessions: Sessions) -> np.ndarray:
    """The better arms as one array `[sessions, trials]`, -1 after the end of a session."""
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
