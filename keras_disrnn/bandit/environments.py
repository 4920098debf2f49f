"""Environments: how the arms' reward probabilities start, and how they change."""

import dataclasses
from typing import ClassVar, Protocol

import numpy as np
import pandas as pd
import scipy.special

from keras_disrnn.utils.checks import check_integer, check_number


class Environment(Protocol):
    """What `simulate` asks of an environment. All sessions of a block move one trial at a time.

    The environment draws nothing itself: it says how many random numbers a session needs and
    `simulate` hands them over, so that a session's luck never depends on its neighbours. The state
    is any float64 array with sessions as its last axis.

    Attributes:
        num_arms: The number of arms.
        start_uniforms: How many uniform draws from [0, 1) start a session.
        trial_normals: How many standard normal draws each trial takes.
    """

    num_arms: int
    start_uniforms: int
    trial_normals: int

    def trials(self, sessions: np.ndarray) -> np.ndarray | None:
        """How many trials each session has at most, `(sessions,)`; `None` for any number.

        Args:
            sessions: `(sessions,)`, the index of each among all sessions of the seed.
        """

    def initial_state(self, uniforms: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """State before the first trial.

        Args:
            uniforms: `(start_uniforms, sessions)`, draws from [0, 1).
            sessions: `(sessions,)`, the index of each among all sessions of the seed.
        """

    def reward_probability(self, state: np.ndarray) -> np.ndarray:
        """Probability that each arm pays 1 and not 0, shape `(arms, sessions)`."""

    def advance(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray, normals: np.ndarray
    ) -> np.ndarray:
        """State after a trial. The state given is left as it is.

        Args:
            state: The state that the trial was played in.
            choice: `(sessions,)`, integers, the chosen arm.
            reward: `(sessions,)`, 0 or 1.
            normals: `(trial_normals, sessions)`, standard normal draws.
        """


@dataclasses.dataclass(frozen=True)
class DriftingBandit:
    """A bandit whose reward probabilities drift (Miller et al. 2023, Jain et al. 2025).

    Each arm pays 1 with its own probability, and 0 otherwise. The probabilities start uniform in
    [0, 1] in every session. After each trial every arm's probability, the chosen one's and the
    others', moves by a normal step of standard deviation `sigma` and is clipped to [0, 1].

    Args:
        sigma: Standard deviation of the step, at least 0; 0 keeps the probabilities as they start.
        num_arms: Number of arms, at least 2.

    Raises:
        ValueError: If `sigma` is no number, `num_arms` no integer, or one of them out of range.
    """

    sigma: float = 0.1
    num_arms: int = 2

    def __post_init__(self):
        check_number("sigma", self.sigma, 0)
        check_integer("num_arms", self.num_arms, 2)

    @property
    def start_uniforms(self):
        return self.num_arms

    @property
    def trial_normals(self):
        return self.num_arms

    def trials(self, sessions):
        return None

    def initial_state(self, uniforms, sessions):
        return uniforms

    def reward_probability(self, state):
        return state

    def advance(self, state, choice, reward, normals):
        moved = self.sigma * normals
        moved += state
        # In place, and in less time than np.clip.
        return np.minimum(np.maximum(moved, 0.0, out=moved), 1.0, out=moved)


@dataclasses.dataclass(frozen=True)
class BlockBandit:
    """A bandit of blocks: one arm is better until it has paid enough (Parker et al. 2016).

    One arm pays with probability `high`, the others with `low`; which one starts is drawn for each
    session. After at least `rewards` rewards, of any arm, plus a geometric number of them, another
    arm becomes the better one: from the reward of that number on, each ends the block with
    probability `switch`, so that 0, 1, 2, ... further ones are needed. In Parker et al. (2016) the
    levers pay with 0.7 and 0.1, and a block takes 10 rewards and a geometric number of p = 0.4;
    that this number starts from 0 is our reading.

    Args:
        high: Probability of reward of the better arm.
        low: Of the others, below `high`.
        rewards: Least number of rewards in a block, at least 1.
        switch: Probability that each reward from that number on ends the block, above 0.
        num_arms: Number of arms, at least 2.

    Raises:
        ValueError: If a number is of the wrong type or out of range.
    """

    high: float = 0.7
    low: float = 0.1
    rewards: int = 10
    switch: float = 0.4
    num_arms: int = 2

    start_uniforms: ClassVar[int] = 1
    trial_normals: ClassVar[int] = 1

    def __post_init__(self):
        check_number("high", self.high, 0, 1)
        check_number("low", self.low, 0, 1)
        check_integer("rewards", self.rewards, 1)
        check_number("switch", self.switch, 0, 1)
        check_integer("num_arms", self.num_arms, 2)
        if not self.low < self.high:
            raise ValueError(f"low: expected a number below high ({self.high:g}), got {self.low:g}")
        if self.switch == 0:
            raise ValueError("switch: expected a number above 0, got 0: no block would ever end")

    def trials(self, sessions):
        return None

    def initial_state(self, uniforms, sessions):
        return np.stack([np.floor(uniforms[0] * self.num_arms), np.zeros(uniforms.shape[1])])

    def reward_probability(self, state):
        return np.where(state[0] == np.arange(self.num_arms)[:, None], self.high, self.low)

    def advance(self, state, choice, reward, normals):
        better, count = state[0], state[1] + reward
        uniform = scipy.special.ndtr(normals[0])
        ends = (reward > 0) & (count >= self.rewards) & (uniform < self.switch)
        # Below `switch` the draw is uniform again: it says which of the other arms comes.
        others = self.num_arms - 1
        step = 1 + np.minimum(np.floor(uniform * (others / self.switch)), others - 1)
        return np.stack(
            [np.where(ends, (better + step) % self.num_arms, better), np.where(ends, 0.0, count)]
        )


class ScheduledBandit:
    """A bandit whose reward probabilities are given, trial by trial, by the user.

    Session i is played on the i-th schedule; after the last one they begin again. Sessions may
    differ in length. It replays, for instance, the blocks that an animal had.

    Args:
        reward_probability: `(sessions, trials, arms)`, or a sequence with one `(trials, arms)`
            array a session.
        names: A name of each session for errors; by default its index.

    Raises:
        ValueError: If a shape is wrong or a value is no probability; the message names the session
            and the trial.
    """

    start_uniforms = 0
    trial_normals = 0

    def __init__(self, reward_probability, names=None):
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
        self.sessions = len(parts)
        self.num_arms = parts[0].shape[1]
        self.lengths = np.array([len(part) for part in parts])
        # Trials first, as they are played; a shorter session goes on at its last probabilities.
        self._by_trial = np.empty((self.lengths.max(), self.num_arms, self.sessions))
        for index, part in enumerate(parts):
            self._by_trial[: len(part), :, index] = part
            self._by_trial[len(part) :, :, index] = part[-1]

    @classmethod
    def from_table(cls, table, columns, session="session"):
        """The schedule of a table with one row a trial, such as an animal's.

        Args:
            table: A `pandas.DataFrame`; the rows of a session stand together, in order.
            columns: The columns of the arms' reward probabilities, by arm.
            session: The column of session ids.

        Returns:
            A `ScheduledBandit`, its sessions in the order of the table.

        Raises:
            ValueError: If a column is not there or holds no numbers, the rows of a session do not
                stand together, or a value is no probability.
        """
        for column in (session, *columns):
            if column not in table.columns:
                raise ValueError(
                    f"table: no column {column!r}, got the columns "
                    f"{', '.join(map(str, table.columns))}"
                )
        codes, names = pd.factorize(table[session])
        starts = np.flatnonzero(np.diff(codes, prepend=-2))
        if len(starts) != len(names) or (codes < 0).any():
            raise ValueError(
                f"table: expected the rows of each session of column {session!r} to stand together "
                f"and to be named, got {len(names)} names in {len(starts)} stretches of rows"
            )
        try:
            values = table[list(columns)].to_numpy(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"table: expected numbers in the columns {', '.join(columns)}: {error}"
            ) from error
        return cls(np.split(values, starts[1:]), names=list(names))

    def trials(self, sessions):
        return self.lengths[sessions % self.sessions]

    def initial_state(self, uniforms, sessions):
        return np.stack([np.zeros(len(sessions)), sessions % self.sessions])

    def reward_probability(self, state):
        return self._by_trial[int(state[0, 0])][:, state[1].astype(np.intp)]

    def advance(self, state, choice, reward, normals):
        last = len(self._by_trial) - 1
        return np.stack([np.minimum(state[0] + 1, last), state[1]])


MOST_CHANGES = 0.2
"""Where probabilities change on more than this share of trials they drift, and are no blocks."""


def better_arms(reward_probability):
    """Which arm is the better one on each trial, where there are blocks.

    Args:
        reward_probability: `(trials, arms)` of one session.

    Returns:
        `(trials,)` integers; or `None` where the probabilities never change, or change on more than
        a fifth of the trials, as in a `DriftingBandit`: those are no blocks.
    """
    changed = (np.diff(reward_probability, axis=0) != 0).any(axis=-1)
    if not changed.any() or changed.mean() > MOST_CHANGES:
        return None
    return np.argmax(reward_probability, axis=-1)
