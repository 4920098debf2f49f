"""Agents that choose between arms and report a prediction error as their dopamine."""

import dataclasses
import functools
import math
from typing import ClassVar, Protocol

import numpy as np

from keras_disrnn.utils.checks import check_number


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
        ValueError: If a parameter is no number or out of range.
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
        return softmax(self.beta * state)

    def update(self, state, choice, reward):
        dopamine = reward - value_of_chosen(state, choice)
        return np.where(_is_chosen(state, choice), state + self.alpha * dopamine, state), dopamine


class _ForgettingValues:
    """Values that start at 0, of which the chosen one moves and the others fade."""

    def variable_names(self, arms):
        return tuple(f"q{arm}" for arm in range(arms))

    def initial_state(self, sessions, arms):
        return np.zeros((arms, sessions))

    def choice_probability(self, state):
        return softmax(state)

    def update(self, state, choice, reward):
        target = (self.kappa_1 + self.kappa_2) * reward - self.kappa_2
        dopamine = target - value_of_chosen(state, choice)
        moved = state + self.alpha_1 * dopamine
        return np.where(_is_chosen(state, choice), moved, (1 - self.alpha_2) * state), dopamine


@dataclasses.dataclass(frozen=True)
class DifferentialForgettingQLearning(_ForgettingValues):
    """Differential forgetting Q-learning, DFQ (Ito & Doya 2009).

    Each arm has a value `Q`, 0 at the start of a session. On every trial

        p(choice = a) = exp(Q_a) / sum_b exp(Q_b)
        target        = kappa_1 if rewarded, -kappa_2 if not
        dopamine      = target - Q_choice          (the value before the update)
        Q_choice     <- (1 - alpha_1) Q_choice + alpha_1 target
        Q_other      <- (1 - alpha_2) Q_other

    The softmax has no temperature of its own: the scale of the values is in `kappa_1` and
    `kappa_2`, and dopamine comes in the same units. Plays any number of arms from two. Its
    variables are called `q0`, `q1`, ..., by arm. The defaults are only an example.

    Args:
        alpha_1: Learning rate of the chosen value, from 0 to 1.
        alpha_2: Forgetting rate of the others, from 0 to 1; 0 is Q-learning from 0, `alpha_1` is
            `ForgettingQLearning`.
        kappa_1: What a reward is worth.
        kappa_2: How aversive its omission is.

    Raises:
        ValueError: If a parameter is no number or out of range.
    """

    name: ClassVar[str] = "differential_forgetting_q_learning"

    alpha_1: float = 0.4
    alpha_2: float = 0.1
    kappa_1: float = 2.5
    kappa_2: float = 0.5

    def __post_init__(self):
        check_number("alpha_1", self.alpha_1, 0, 1)
        check_number("alpha_2", self.alpha_2, 0, 1)
        check_number("kappa_1", self.kappa_1, -math.inf)
        check_number("kappa_2", self.kappa_2, -math.inf)


@dataclasses.dataclass(frozen=True)
class ForgettingQLearning(_ForgettingValues):
    """Forgetting Q-learning: DFQ that forgets as fast as it learns (Ito & Doya 2009).

    `DifferentialForgettingQLearning` with `alpha_1 = alpha_2 = alpha`; see there.

    Args:
        alpha: Learning rate of the chosen value and forgetting rate of the others, from 0 to 1.
        kappa_1: What a reward is worth.
        kappa_2: How aversive its omission is.

    Raises:
        ValueError: If a parameter is no number or out of range.
    """

    name: ClassVar[str] = "forgetting_q_learning"

    alpha: float = 0.3
    kappa_1: float = 2.5
    kappa_2: float = 0.5

    def __post_init__(self):
        check_number("alpha", self.alpha, 0, 1)
        check_number("kappa_1", self.kappa_1, -math.inf)
        check_number("kappa_2", self.kappa_2, -math.inf)

    @property
    def alpha_1(self):
        """The learning rate."""
        return self.alpha

    @property
    def alpha_2(self):
        """The forgetting rate, which is the same."""
        return self.alpha


@dataclasses.dataclass(frozen=True)
class RewardSeeking:
    """One signed value that follows the arm that pays (Jain et al. 2025).

    The value `s`, 0 at the start of a session, is for arm 1 where positive, for arm 0 where
    negative. On every trial, with a = -1 for arm 0 and +1 for arm 1, and r = -1 for no reward and
    +1 for a reward,

        p(choice = 0), p(choice = 1) = softmax(-beta s, +beta s)
        dopamine = r - a s                         (the value before the update)
        s       <- s + alpha a dopamine

    It plays two arms. Its variable is called `s`. The defaults are only an example.

    Args:
        alpha: Learning rate, from 0 to 1.
        beta: Inverse temperature, at least 0.

    Raises:
        ValueError: If a parameter is no number or out of range.
    """

    name: ClassVar[str] = "reward_seeking"

    alpha: float = 0.3
    beta: float = 1.5

    def __post_init__(self):
        check_number("alpha", self.alpha, 0, 1)
        check_number("beta", self.beta, 0)

    def variable_names(self, arms):
        if arms != 2:
            raise ValueError(f"RewardSeeking plays bandits of 2 arms, got {arms}")
        return ("s",)

    def initial_state(self, sessions, arms):
        return np.zeros((1, sessions))

    def choice_probability(self, state):
        logit = self.beta * state[0]
        return softmax((-logit, logit))

    def update(self, state, choice, reward):
        side = 2.0 * choice - 1.0
        dopamine = 2.0 * reward - 1.0 - side * state[0]
        return state + self.alpha * side * dopamine, dopamine


@dataclasses.dataclass(frozen=True)
class LeakyActorCritic:
    """A critic of one value, and an actor of preferences that leak (Miller et al. 2023).

    The critic's value `v` starts at 0.5, each arm's preference `theta` at 0. On every trial

        p = softmax(theta)
        dopamine      = reward - v                 (the value before the update)
        theta_choice <- (1 - forget) theta_choice + learn dopamine (1 - p_choice)
        theta_other  <- (1 - forget) theta_other - learn dopamine p_other
        v            <- (1 - alpha_critic) v + alpha_critic reward

    Plays any number of arms from two. Its variables are called `theta0`, `theta1`, ..., by arm, and
    `v`.

    Args:
        alpha_critic: The critic's learning rate, from 0 to 1.
        learn: The actor's learning rate, at least 0.
        forget: How much the preferences leak on each trial, from 0 to 1.

    Raises:
        ValueError: If a parameter is no number or out of range.
    """

    name: ClassVar[str] = "leaky_actor_critic"
    initial_value: ClassVar[float] = 0.5

    alpha_critic: float = 0.3
    learn: float = 1.0
    forget: float = 0.05

    def __post_init__(self):
        check_number("alpha_critic", self.alpha_critic, 0, 1)
        check_number("learn", self.learn, 0)
        check_number("forget", self.forget, 0, 1)

    def variable_names(self, arms):
        return (*(f"theta{arm}" for arm in range(arms)), "v")

    def initial_state(self, sessions, arms):
        state = np.zeros((arms + 1, sessions))
        state[-1] = self.initial_value
        return state

    def choice_probability(self, state):
        return softmax(state[:-1])

    def update(self, state, choice, reward):
        theta, value = state[:-1], state[-1]
        dopamine = reward - value
        gradient = _is_chosen(theta, choice) - softmax(theta)
        updated = np.empty_like(state)
        updated[:-1] = (1 - self.forget) * theta + self.learn * dopamine * gradient
        updated[-1] = value + self.alpha_critic * dopamine
        return updated, dopamine


@dataclasses.dataclass(frozen=True)
class MappedDopamine:
    """Another agent, whose dopamine goes through an affine map: `gain * dopamine + offset`.

    Args:
        agent: An `Agent`.
        gain, offset: The map, to the units of a recording.
        name: The subject of its sessions.
    """

    agent: Agent
    gain: float
    offset: float
    name: str

    def __post_init__(self):
        check_number("gain", self.gain, -math.inf)
        check_number("offset", self.offset, -math.inf)

    def variable_names(self, arms):
        return self.agent.variable_names(arms)

    def initial_state(self, sessions, arms):
        return self.agent.initial_state(sessions, arms)

    def choice_probability(self, state):
        return self.agent.choice_probability(state)

    def update(self, state, choice, reward):
        state, dopamine = self.agent.update(state, choice, reward)
        return state, self.gain * dopamine + self.offset


def value_of_chosen(values, choice):
    """The chosen arm's value in each session.

    Args:
        values: `(arms, sessions)`.
        choice: `(sessions,)`, integers from 0 to arms - 1.

    Returns:
        `(sessions,)`.
    """
    # One pass for each arm is faster than an indexed look-up for the few arms that bandits have.
    chosen = np.where(choice, values[1], values[0])
    for arm in range(2, len(values)):
        chosen = np.where(choice == arm, values[arm], chosen)
    return chosen


def _is_chosen(values, choice):
    """Where an arm is the chosen one, bool of the shape of `values`, `(arms, sessions)`."""
    return choice == _arms(len(values), choice.dtype)


@functools.cache
def _arms(arms, dtype):
    return np.arange(arms, dtype=dtype)[:, None]


def softmax(logits):
    """Softmax over the first axis, `(arms, sessions)`, without overflow."""
    if len(logits) == 2:
        # One exponential is half the work; past 700 it would overflow, and the share is 0 anyway.
        probability = np.empty((2, len(logits[0])))
        odds = np.exp(np.minimum(logits[0] - logits[1], 700.0))
        np.divide(1.0, 1.0 + odds, out=probability[1])
        np.multiply(odds, probability[1], out=probability[0])
        return probability
    weights = np.exp(logits - logits.max(axis=0))
    return weights / weights.sum(axis=0)
