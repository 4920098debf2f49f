"""Agents that choose between arms and report a prediction error as their dopamine."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from keras_disrnn.bandit.rules import (
    NUMPY,
    PARAMETER_RANGES,
    ActorCriticRule,
    RewardSeekingRule,
    Rule,
    ValueRule,
    is_chosen,
)
from keras_disrnn.utils.checks import check_number


class Agent(Protocol):
    """The methods that `simulate` needs of an agent.

    An agent holds parameters only. Its state, which changes from trial to trial, is a float64 array
    of shape `(variables, sessions)`. Many sessions advance together, one trial at a time. Sessions
    are the last axis, so that one variable of all sessions is contiguous in memory.

    Example:

    >>> from keras_disrnn import bandit
    >>> agent: bandit.Agent = bandit.QLearning()
    >>> state = agent.initial_state(num_sessions=3, num_arms=2)
    >>> agent.choice_probability(state).shape
    (2, 3)
    """

    @property
    def name(self) -> str:
        """A short name. It becomes the subject of the sessions that the agent plays."""

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        """Return the names of the state's variables.

        Args:
            num_arms: Number of arms.

        Raises:
            ValueError: If the agent cannot play that many arms.
        """

    def initial_state(self, num_sessions: int, num_arms: int) -> np.ndarray:
        """Return the state before the first trial, `(variables, sessions)`."""

    def choice_probability(self, state: np.ndarray) -> np.ndarray:
        """Return the probability of each choice, `(arms, sessions)`; each column sums to 1."""

    def update(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Learn from one trial. The given state does not change.

        Args:
            state: `(variables, sessions)`, before the trial's outcome.
            choice: Integers `(sessions,)`, the chosen arm.
            reward: Floats `(sessions,)`.

        Returns:
            The new state, and the dopamine of the trial, `(sessions,)`.
        """


class _Player:
    """The methods of an `Agent`, from its `rule`."""

    if TYPE_CHECKING:

        @property
        def rule(self) -> Rule: ...

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        return self.rule.variable_names(num_arms)

    def initial_state(self, num_sessions: int, num_arms: int) -> np.ndarray:
        return np.repeat(self.rule.initial_state(num_arms)[:, None], num_sessions, axis=1)

    def choice_probability(self, state: np.ndarray) -> np.ndarray:
        return NUMPY.softmax(self.rule.logits(state, NUMPY))

    def update(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        rule = self.rule
        chosen = is_chosen(choice, rule.num_arms(state))
        return rule.update(state, chosen, reward, NUMPY)


@dataclasses.dataclass(frozen=True)
class RuleAgent(_Player):
    """An agent that plays by any rule of `keras_disrnn.bandit.rules`.

    Args:
        rule: The rule, with its parameters.
        name: The subject of the agent's sessions.

    Example:

    >>> from keras_disrnn import bandit
    >>> rule = bandit.ValueRule(alpha_1=0.3, alpha_2=0.1, kappa_1=2.0, kappa_2=0.5)
    >>> bandit.RuleAgent(rule, "mouse").variable_names(2)
    ('q0', 'q1')
    """

    rule: Rule
    name: str


class NamedAgent(_Player):
    """An agent whose parameters are its fields."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number(name, value, *PARAMETER_RANGES[name])


@dataclasses.dataclass(frozen=True)
class QLearning(NamedAgent):
    """Q-learning with a softmax choice rule. Its dopamine is the reward prediction error.

    `ValueRule` has the equations, here with a target equal to the reward and no forgetting. The
    values start at 0.5. Jain et al. (2025) and Miller et al. (2023) made their synthetic data with
    this agent. It plays any number of arms from two. Its variables are `q0`, `q1`, ..., by arm.

    Args:
        alpha: Learning rate, from 0 to 1.
        beta: Inverse temperature of the softmax, at least 0; with 0 choices are random.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> from keras_disrnn import bandit
    >>> agent = bandit.QLearning(alpha=0.5)
    >>> played = bandit.simulate(
    ...     agent, bandit.DriftingBandit(), num_sessions=3, num_trials=10, seed=0
    ... )
    >>> played.choice.shape
    (3, 10)
    """

    name: ClassVar[str] = "q_learning"

    alpha: float = 0.3
    beta: float = 3.0

    @property
    def rule(self) -> Rule:
        return ValueRule(self.alpha, 0.0, 1.0, 0.0, beta=self.beta, initial_value=0.5)


@dataclasses.dataclass(frozen=True)
class DifferentialForgettingQLearning(NamedAgent):
    """Differential forgetting Q-learning, DFQ (Ito & Doya 2009).

    `ValueRule` has the equations. The values start at 0, and the softmax has no temperature:
    `kappa_1` and `kappa_2` set the scale of the values. Dopamine is in the same units. The agent
    plays any number of arms from two. Its variables are `q0`, `q1`, ..., by arm. The defaults are
    only an example.

    Args:
        alpha_1: Learning rate of the chosen value, from 0 to 1.
        alpha_2: Forgetting rate of the other values, from 0 to 1. With 0 this is Q-learning with
            initial values of 0; with `alpha_1` it is `ForgettingQLearning`.
        kappa_1: Value of a reward.
        kappa_2: Cost of a missing reward.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.DifferentialForgettingQLearning(alpha_1=0.5, kappa_1=2.0)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'q0': 0.0, 'q1': 1.0}, [2.0])
    """

    name: ClassVar[str] = "differential_forgetting_q_learning"

    alpha_1: float = 0.4
    _: dataclasses.KW_ONLY
    alpha_2: float = 0.1
    kappa_1: float = 2.5
    kappa_2: float = 0.5

    @property
    def rule(self) -> Rule:
        return ValueRule(self.alpha_1, self.alpha_2, self.kappa_1, self.kappa_2)


@dataclasses.dataclass(frozen=True)
class ForgettingQLearning(NamedAgent):
    """Forgetting Q-learning, FQ: DFQ with equal learning and forgetting rates (Ito & Doya 2009).

    `DifferentialForgettingQLearning` with `alpha_1 = alpha_2 = alpha`.

    Args:
        alpha: Learning rate of the chosen value and forgetting rate of the others, from 0 to 1.
        kappa_1: Value of a reward.
        kappa_2: Cost of a missing reward.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.ForgettingQLearning(alpha=0.5, kappa_1=1.0)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'q0': 0.0, 'q1': 0.5}, [1.0])
    """

    name: ClassVar[str] = "forgetting_q_learning"

    alpha: float = 0.3
    _: dataclasses.KW_ONLY
    kappa_1: float = 2.5
    kappa_2: float = 0.5

    @property
    def rule(self) -> Rule:
        return ValueRule(self.alpha, self.alpha, self.kappa_1, self.kappa_2)


@dataclasses.dataclass(frozen=True)
class RewardSeeking(NamedAgent):
    """An agent with one signed value that points to the rewarded arm (Jain et al. 2025).

    `RewardSeekingRule` has the equations. The value `s` is 0 at the start of a session. A
    positive value favours arm 1 and a negative value arm 0. The agent plays two arms. Its variable
    is `s`. The defaults are only an example.

    Args:
        alpha: Learning rate, from 0 to 1.
        beta: Inverse temperature of the softmax, at least 0.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.RewardSeeking(alpha=0.5)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'s': 0.5}, [1.0])
    """

    name: ClassVar[str] = "reward_seeking"

    alpha: float = 0.3
    beta: float = 1.5

    @property
    def rule(self) -> Rule:
        return RewardSeekingRule(self.alpha, self.beta)


@dataclasses.dataclass(frozen=True)
class LeakyActorCritic(NamedAgent):
    """A critic with one value, and an actor with leaky preferences (Miller et al. 2023).

    `ActorCriticRule` has the equations. The critic's value `v` starts at 0.5 and each arm's
    preference `theta` at 0. The agent plays any number of arms from two. Its variables are
    `theta0`, `theta1`, ..., by arm, and `v`.

    Args:
        alpha_critic: Learning rate of the critic, from 0 to 1.
        learn: Learning rate of the actor, at least 0.
        forget: Share of each preference that leaks away on every trial, from 0 to 1.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.LeakyActorCritic(alpha_critic=0.5)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'theta0': -0.25, 'theta1': 0.25, 'v': 0.75}, [0.5])
    """

    name: ClassVar[str] = "leaky_actor_critic"

    alpha_critic: float = 0.3
    _: dataclasses.KW_ONLY
    learn: float = 1.0
    forget: float = 0.05

    @property
    def rule(self) -> Rule:
        return ActorCriticRule(self.alpha_critic, self.learn, self.forget)


@dataclasses.dataclass(frozen=True)
class MappedDopamine:
    """Another agent with its dopamine mapped to `gain * dopamine + offset`.

    Args:
        agent: The `Agent` that plays.
        gain: Slope of the map, in the units of a recording.
        offset: Offset of the map, in the same units.
        name: The subject of the agent's sessions.

    Raises:
        ValueError: If `gain` or `offset` is not a finite number.

    Example:

    >>> from keras_disrnn import bandit
    >>> agent = bandit.MappedDopamine(bandit.QLearning(), gain=2.0, offset=1.0, name="mouse")
    >>> agent.variable_names(2)
    ('q0', 'q1')
    """

    agent: Agent
    _: dataclasses.KW_ONLY
    gain: float
    offset: float
    name: str

    def __post_init__(self) -> None:
        check_number("gain", self.gain, -math.inf)
        check_number("offset", self.offset, -math.inf)

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        return self.agent.variable_names(num_arms)

    def initial_state(self, num_sessions: int, num_arms: int) -> np.ndarray:
        return self.agent.initial_state(num_sessions, num_arms)

    def choice_probability(self, state: np.ndarray) -> np.ndarray:
        return self.agent.choice_probability(state)

    def update(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        state, dopamine = self.agent.update(state, choice, reward)
        return state, self.gain * dopamine + self.offset
