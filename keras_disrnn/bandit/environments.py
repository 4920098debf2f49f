"""Environments: the arms' reward probabilities, and how they change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

import numpy as np
import pandas as pd
import scipy.special

from keras_disrnn.utils.checks import check_integer, check_number
from keras_disrnn.utils.ids import factorize_ids
from keras_disrnn.utils.tables import check_columns


class Environment(Protocol):
    """The methods that `simulate` needs of an environment.

    Many sessions advance together, one trial at a time. The state is any float64 array with
    sessions as its last axis. The environment does not draw random numbers. It says how many a
    session needs, and `simulate` passes them, so that no session depends on the others.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> environment: bandit.Environment = bandit.DriftingBandit()
    >>> uniforms = np.full((environment.start_uniforms, 1), 0.25)
    >>> state = environment.initial_state(uniforms, np.arange(1))
    >>> environment.reward_probability(state).tolist()
    [[0.25], [0.25]]
    """

    @property
    def num_arms(self) -> int:
        """Number of arms."""

    @property
    def start_uniforms(self) -> int:
        """Number of uniform draws from [0, 1) that start a session."""

    @property
    def trial_normals(self) -> int:
        """Number of standard normal draws for each trial."""

    def num_trials(self, indices: np.ndarray) -> np.ndarray | None:
        """Return the largest number of trials of each session, or `None` for no limit.

        Args:
            indices: `(sessions,)`, the index of each session among all sessions of the seed.

        Returns:
            Integers `(sessions,)`, or `None`.
        """

    def initial_state(self, uniforms: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return the state before the first trial.

        Args:
            uniforms: `(start_uniforms, sessions)`, draws from [0, 1).
            indices: `(sessions,)`, the index of each session among all sessions of the seed.
        """

    def reward_probability(self, state: np.ndarray) -> np.ndarray:
        """Return the probability that each arm pays 1, `(arms, sessions)`."""

    def advance(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray, normals: np.ndarray
    ) -> np.ndarray:
        """Return the state after a trial. The given state does not change.

        Args:
            state: The state during the trial.
            choice: Integers `(sessions,)`, the chosen arm.
            reward: `(sessions,)`, 0 or 1.
            normals: `(trial_normals, sessions)`, standard normal draws.
        """


@dataclasses.dataclass(frozen=True)
class DriftingBandit:
    """A bandit with drifting reward probabilities (Miller et al. 2023, Jain et al. 2025).

    Each arm pays 1 with its own probability, and 0 otherwise. In every session the probabilities
    start uniform in [0, 1]. After each trial the probability of every arm moves by a normal step
    and is clipped to [0, 1].

    Args:
        sigma: Standard deviation of the step, at least 0; with 0 the probabilities never change.
        num_arms: Number of arms, at least 2.

    Raises:
        ValueError: If a number has the wrong type or is out of range.

    Example:

    >>> from keras_disrnn import bandit
    >>> environment = bandit.DriftingBandit(0.05, num_arms=3)
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), environment, num_sessions=2, num_trials=5, seed=0
    ... )
    >>> played.reward_probability.shape
    (2, 5, 3)
    """

    sigma: float = 0.1
    num_arms: int = 2

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0)
        check_integer("num_arms", self.num_arms, 2)

    @property
    def start_uniforms(self) -> int:
        return self.num_arms

    @property
    def trial_normals(self) -> int:
        return self.num_arms

    def num_trials(self, indices: np.ndarray) -> None:
        return None

    def initial_state(self, uniforms: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return uniforms

    def reward_probability(self, state: np.ndarray) -> np.ndarray:
        return state

    def advance(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray, normals: np.ndarray
    ) -> np.ndarray:
        moved = self.sigma * normals
        moved += state
        # In place, and faster than np.clip.
        return np.minimum(np.maximum(moved, 0.0, out=moved), 1.0, out=moved)


@dataclasses.dataclass(frozen=True)
class BlockBandit:
    """A bandit with blocks, in each of which one arm is better (Parker et al. 2016).

    The better arm pays with probability `high`, and the other arms with probability `low`. The
    first better arm of a session is random. Once a block has `rewards` rewards, from any arm, that
    reward and each later one end the block with probability `switch`. Then another arm becomes the
    better one. So a block has `rewards` rewards plus a geometric number of them.

    In Parker et al. (2016) the levers pay with 0.7 and 0.1, and a block has 10 rewards plus a
    geometric number with p = 0.4. That this number starts from 0 is our reading.

    Args:
        high: Reward probability of the better arm.
        low: Reward probability of the other arms, below `high`.
        rewards: Smallest number of rewards in a block, at least 1.
        switch: Probability that a reward ends the block once it has enough rewards, above 0.
        num_arms: Number of arms, at least 2.

    Raises:
        ValueError: If a number has the wrong type or is out of range.

    Example:

    >>> from keras_disrnn import bandit
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), bandit.BlockBandit(0.8, 0.2), num_sessions=2, num_trials=90, seed=0
    ... )
    >>> played.better_arm.shape
    (2, 90)
    """

    high: float = 0.7
    low: float = 0.1
    _: dataclasses.KW_ONLY
    rewards: int = 10
    switch: float = 0.4
    num_arms: int = 2

    start_uniforms: ClassVar[int] = 1
    trial_normals: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_number("high", self.high, 0, 1)
        check_number("low", self.low, 0, 1)
        check_integer("rewards", self.rewards, 1)
        check_number("switch", self.switch, 0, 1)
        check_integer("num_arms", self.num_arms, 2)
        if not self.low < self.high:
            raise ValueError(f"low: expected a number below high ({self.high:g}), got {self.low:g}")
        if self.switch == 0:
            raise ValueError("switch: expected a number above 0, got 0; no block would ever end")

    def num_trials(self, indices: np.ndarray) -> None:
        return None

    def initial_state(self, uniforms: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return np.stack([np.floor(uniforms[0] * self.num_arms), np.zeros(uniforms.shape[1])])

    def reward_probability(self, state: np.ndarray) -> np.ndarray:
        return np.where(state[0] == np.arange(self.num_arms)[:, None], self.high, self.low)

    def advance(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray, normals: np.ndarray
    ) -> np.ndarray:
        better, count = state[0], state[1] + reward
        uniform = scipy.special.ndtr(normals[0])
        ends = (reward > 0) & (count >= self.rewards) & (uniform < self.switch)
        # A draw below `switch` is uniform there, so it can also choose the next arm.
        others = self.num_arms - 1
        step = 1 + np.minimum(np.floor(uniform * (others / self.switch)), others - 1)
        return np.stack(
            [np.where(ends, (better + step) % self.num_arms, better), np.where(ends, 0.0, count)]
        )


class ScheduledBandit:
    """A bandit with given reward probabilities for each trial.

    Session i has schedule i; after the last schedule comes the first again. Schedules may have
    different lengths. For example, it can replay the blocks of an animal.

    Args:
        reward_probability: `(sessions, trials, arms)`, or one array `(trials, arms)` for each
            session.
        names: Names of the sessions for error messages; by default their indices.

    Raises:
        ValueError: If a shape is wrong or a value is not a probability. The message names the
            session and the trial.

    Example:

    >>> from keras_disrnn import bandit
    >>> schedule = bandit.ScheduledBandit([[[0.8, 0.2], [0.2, 0.8]], [[0.5, 0.5]]])
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), schedule, num_sessions=schedule.num_sessions, seed=0
    ... )
    >>> played.lengths.tolist()
    [2, 1]
    """

    start_uniforms: int = 0
    trial_normals: int = 0

    def __init__(
        self,
        reward_probability: Iterable[np.ndarray | Sequence[Sequence[float]]],
        *,
        names: Iterable[object] | None = None,
    ) -> None:
        parts = [np.asarray(part, np.float64) for part in reward_probability]
        if not parts:
            raise ValueError("reward_probability: expected at least one session, got none")
        names = range(len(parts)) if names is None else list(names)
        for name, part in zip(names, parts, strict=True):
            if part.ndim != 2 or part.shape[0] < 1 or part.shape[1] < 2:
                raise ValueError(
                    "reward_probability: expected (trials, arms) in each session, with at least 1 "
                    f"trial and 2 arms, got shape {part.shape} in session {name!r}"
                )
            if part.shape[1] != parts[0].shape[1]:
                raise ValueError(
                    f"reward_probability: expected {parts[0].shape[1]} arms in every session, as "
                    f"in the first, got {part.shape[1]} in session {name!r}"
                )
            bad = ~((part >= 0) & (part <= 1))
            if bad.any():
                trial, arm = np.argwhere(bad)[0]
                raise ValueError(
                    "reward_probability: expected numbers from 0 to 1, got "
                    f"{part[trial, arm]:g} for arm {arm} in trial {trial} of session {name!r}"
                )
        self.num_sessions = len(parts)
        self.num_arms = parts[0].shape[1]
        self.lengths = np.array([len(part) for part in parts])
        # Trials first, in the order of play. Shorter schedules are padded with their last
        # probabilities.
        self._by_trial = np.empty((self.lengths.max(), self.num_arms, self.num_sessions))
        for index, part in enumerate(parts):
            self._by_trial[: len(part), :, index] = part
            self._by_trial[len(part) :, :, index] = part[-1]

    @classmethod
    def from_table(
        cls, table: pd.DataFrame, columns: Sequence[str], *, session: str = "session"
    ) -> ScheduledBandit:
        """Read the schedules from a table with one row for each trial, such as an animal's.

        Args:
            table: A `pandas.DataFrame`. The rows of a session are adjacent and in order.
            columns: The columns with the arms' reward probabilities, by arm.
            session: The column with the session ids.

        Returns:
            A `ScheduledBandit` with its sessions in the order of the table.

        Raises:
            ValueError: If a column is missing or not numeric, the rows of a session are not
                adjacent, or a value is not a probability.
        """
        check_columns("table", table, (session, *columns))
        codes, names = factorize_ids(table[session])
        starts = np.flatnonzero(np.diff(codes, prepend=-2))
        if len(starts) != len(names) or (codes < 0).any():
            raise ValueError(
                f"table: expected adjacent rows for each session of column {session!r}, and an id "
                f"in every row, got {len(names)} ids in {len(starts)} groups of rows"
            )
        try:
            values = table[list(columns)].to_numpy(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"table: expected numbers in the columns {', '.join(columns)}, got other values: "
                f"{error}"
            ) from error
        return cls(np.split(values, starts[1:]), names=names)

    def num_trials(self, indices: np.ndarray) -> np.ndarray:
        return self.lengths[indices % self.num_sessions]

    def initial_state(self, uniforms: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return np.stack([np.zeros(len(indices)), indices % self.num_sessions])

    def reward_probability(self, state: np.ndarray) -> np.ndarray:
        return self._by_trial[int(state[0, 0])][:, state[1].astype(np.intp)]

    def advance(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray, normals: np.ndarray
    ) -> np.ndarray:
        last = len(self._by_trial) - 1
        return np.stack([np.minimum(state[0] + 1, last), state[1]])


MOST_CHANGES = 0.2
"""Probabilities that change on a larger share of trials drift, and do not form blocks."""


def better_arms(reward_probability: np.ndarray) -> np.ndarray | None:
    """Return the better arm on each trial of a session with blocks.

    Args:
        reward_probability: `(trials, arms)`, of one session.

    Returns:
        Integers `(trials,)`, or `None` without blocks: if the probabilities never change, or change
        on more than a fifth of the trials, as in a `DriftingBandit`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> bandit.better_arms(np.repeat([[0.7, 0.1], [0.1, 0.7]], 5, axis=0)).tolist()
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    """
    changed = (np.diff(reward_probability, axis=0) != 0).any(axis=-1)
    if not changed.any() or changed.mean() > MOST_CHANGES:
        return None
    return np.argmax(reward_probability, axis=-1)
