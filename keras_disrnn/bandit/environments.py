"""Environments: how the arms' reward probabilities start, and how they change."""

import dataclasses
from typing import Protocol

import numpy as np

from keras_disrnn.bandit.checks import check_integer, check_number


class Environment(Protocol):
    """What `simulate` asks of an environment. All sessions of a block move one trial at a time.

    The environment draws nothing itself: it says how many random numbers a session needs and
    `simulate` hands them over, so that a session's luck never depends on its neighbours. The state
    is any float64 array with sessions as its last axis.

    Attributes:
        arms: The number of arms.
        start_uniforms: How many uniform draws from [0, 1) start a session.
        trial_normals: How many standard normal draws each trial takes.
    """

    arms: int
    start_uniforms: int
    trial_normals: int

    def initial_state(self, uniforms: np.ndarray) -> np.ndarray:
        """State before the first trial, from `uniforms` `(start_uniforms, sessions)`."""

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
        arms: Number of arms, at least 2.

    Raises:
        TypeError: If `sigma` is no number or `arms` no integer.
        ValueError: If one of them is out of range.
    """

    sigma: float = 0.1
    arms: int = 2

    def __post_init__(self):
        check_number("sigma", self.sigma, 0)
        check_integer("arms", self.arms, 2)

    @property
    def start_uniforms(self):
        return self.arms

    @property
    def trial_normals(self):
        return self.arms

    def initial_state(self, uniforms):
        return uniforms

    def reward_probability(self, state):
        return state

    def advance(self, state, choice, reward, normals):
        moved = self.sigma * normals
        moved += state
        # In place, and in less time than np.clip.
        return np.minimum(np.maximum(moved, 0.0, out=moved), 1.0, out=moved)
