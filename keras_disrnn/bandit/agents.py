"""Agents that choose between arms and report a prediction error as their dopamine."""

import dataclasses
from typing import ClassVar, Protocol

import numpy as np

from keras_disrnn.bandit.checks import check_number


class Agent(Protocol):
    """What `simulate` asks of an agent. All sessions of a block move one trial at a time.

    An agent holds parameters only; what changes from trial to trial is its state, a float64 array
    of shape `(variables, sessions)`, one row for each named variable. Sessions come last so that
    one variable of all sessions lies together in memory and every operation runs along them.

    Attributes:
        name: A short name, used as the subject of the sessions that the agent plays.
    """

    name: str

    def variable_names(self, arms: int) -> tuple[str, ...]:
        """Names of the state's rows when there are `arms` arms.

        Raises:
            ValueError: If the agent cannot play that many arms.
        """

    def initial_state(self, sessions: int, arms: int) -> np.ndarray:
        """State before the first trial, shape `(variables, sessions)`."""

    def choice_probability(self, state: np.ndarray) -> np.ndarray:
        """Probability of choosing each arm, shape `(arms, sessions)`; each column sums to 1."""

    def update(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Learns from one trial. The state given is left as it is.

        Args:
            state: `(variables, sessions)`, before the trial's outcome.
            choice: `(sessions,)`, integers, the chosen arm.
            reward: `(sessions,)`, floats.

        Returns:
            The new state, and the dopamine of the trial, shape `(sessions,)`.
        """


@dataclasses.dataclass(frozen=True)
class QLearning:
    """Q-learning with a softmax choice rule; its dopamine is the reward prediction error.

    Each arm has a value `Q`, 0.5 at the start of a session. On every trial

        p(choice = a) = exp(beta Q_a) / sum_b exp(beta Q_b)
        dopamine      = reward - Q_choice          (the value before the update)
        Q_choice     <- Q_choice + alpha dopamine

    and the values of the other arms stay. It is the agent of the synthetic data of Jain et al.
    (2025) and of Miller et al. (2023), and plays any number of arms from two.

    Its variables are called `q0`, `q1`, ..., by arm.

    Args:
        alpha: Learning rate, from 0 to 1.
        beta: Inverse temperature of the softmax, at least 0; 0 chooses blindly.

    Raises:
        TypeError: If a parameter is no number.
        ValueError: If a parameter is out of range.
    """

    name: ClassVar[str] = "q_learning"
    initial_value: ClassVar[float] = 0.5

    alpha: float = 0.3
    beta: float = 3.0

    def __post_init__(self):
        check_number("alpha", self.alpha, 0, 1)
        check_number("beta", self.beta, 0)

    def variable_names(self, arms):
        return tuple(f"q{arm}" for arm in range(arms))

    def initial_state(self, sessions, arms):
        return np.full((arms, sessions), self.initial_value)

    def choice_probability(self, state):
        return _softmax(self.beta * state)

    def update(self, state, choice, reward):
        dopamine = reward - value_of_chosen(state, choice)
        chosen = choice == np.arange(len(state), dtype=choice.dtype)[:, None]
        return np.where(chosen, state + self.alpha * dopamine, state), dopamine


def value_of_chosen(values, choice):
    """The chosen arm's value in each session.

    Args:
        values: `(arms, sessions)`.
        choice: `(sessions,)`, integers from 0 to arms - 1.

    Returns:
        `(sessions,)`.
    """
    # One pass for each arm is faster than an indexed look-up for the few arms that bandits have.
    chosen = values[0]
    for arm in range(1, len(values)):
        chosen = np.where(choice == arm, values[arm], chosen)
    return chosen


def _softmax(logits):
    """Softmax over the first axis. Logits are shifted by their maximum, so none overflows."""
    weights = np.exp(logits - logits.max(axis=0))
    return weights / weights.sum(axis=0)
