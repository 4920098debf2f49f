"""Agents with the rules of `keras_disrnn.bandit.value_rules`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from keras_disrnn.bandit.agents import NamedAgent
from keras_disrnn.bandit.rules import Rule
from keras_disrnn.bandit.value_rules import (
    BiasedForgettingRule,
    ChoiceKernelRule,
    DualRateRule,
    FastSlowRule,
)


@dataclasses.dataclass(frozen=True)
class DualRateQLearning(NamedAgent):
    """Q-learning with different rates for reward and omission (Frank et al. 2007).

    `DualRateRule` has the equations. The values start at 0.5. Its variables are `q0`, `q1`, ..., by
    arm. It plays any number of arms from two. The defaults are only an example.

    Args:
        alpha_reward: Learning rate of a rewarded trial, from 0 to 1.
        alpha_omission: Learning rate of a trial without a reward, from 0 to 1.
        beta: Inverse temperature of the softmax, at least 0.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.DualRateQLearning(alpha_reward=0.5)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'q0': 0.5, 'q1': 0.75}, [0.5])
    """

    name: ClassVar[str] = "dual_rate_q_learning"

    alpha_reward: float = 0.5
    _: dataclasses.KW_ONLY
    alpha_omission: float = 0.2
    beta: float = 3.0

    @property
    def rule(self) -> Rule:
        return DualRateRule(**vars(self))


@dataclasses.dataclass(frozen=True)
class ChoiceKernelQLearning(NamedAgent):
    """Q-learning with a kernel of past choices: perseveration (Wilson & Collins 2019).

    `ChoiceKernelRule` has the equations. The values start at 0.5 and the kernel at 0. Its variables
    are `q0`, `q1`, ..., and `c0`, `c1`, ..., by arm. It plays any number of arms from two. The
    defaults are only an example.

    Args:
        alpha: Learning rate of the values, from 0 to 1.
        beta: Inverse temperature of the values, at least 0.
        alpha_kernel: Learning rate of the kernel, from 0 to 1.
        beta_kernel: Weight of the kernel; below 0 for alternation.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.ChoiceKernelQLearning(alpha=0.5, alpha_kernel=0.2)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'q0': 0.5, 'q1': 0.75, 'c0': 0.0, 'c1': 0.2}, [0.5])
    """

    name: ClassVar[str] = "choice_kernel_q_learning"

    alpha: float = 0.3
    _: dataclasses.KW_ONLY
    beta: float = 3.0
    alpha_kernel: float = 0.2
    beta_kernel: float = 1.5

    @property
    def rule(self) -> Rule:
        return ChoiceKernelRule(**vars(self))


@dataclasses.dataclass(frozen=True)
class FastSlowQLearning(NamedAgent):
    """Q-learning on two time scales (Iigaya et al. 2019).

    `FastSlowRule` has the equations. All values start at 0.5. Its variables are `fast0`, `fast1`,
    ..., and `slow0`, `slow1`, ..., by arm. It plays any number of arms from two. The defaults are
    only an example.

    Args:
        alpha_fast: Learning rate of the fast values, from 0 to 1.
        alpha_slow: Learning rate of the slow values, from 0 to `alpha_fast`.
        weight: Share of the fast value in the mixture, from 0 to 1.
        beta: Inverse temperature of the softmax, at least 0.

    Raises:
        ValueError: If a parameter is not a number or out of range, or `alpha_slow` is the larger
            rate.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.FastSlowQLearning(alpha_fast=0.5, alpha_slow=0.1)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'fast0': 0.5, 'fast1': 0.75, 'slow0': 0.5, 'slow1': 0.55}, [0.5])
    """

    name: ClassVar[str] = "fast_slow_q_learning"

    alpha_fast: float = 0.5
    _: dataclasses.KW_ONLY
    alpha_slow: float = 0.05
    weight: float = 0.5
    beta: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha_slow > self.alpha_fast:
            raise ValueError(
                f"alpha_slow: expected at most alpha_fast, {self.alpha_fast}, got {self.alpha_slow}"
            )

    @property
    def rule(self) -> Rule:
        return FastSlowRule(**vars(self))


@dataclasses.dataclass(frozen=True)
class BiasedForgettingQLearning(NamedAgent):
    """Differential forgetting Q-learning with a bias to one of two arms (Hattori et al. 2019).

    `BiasedForgettingRule` has the equations. The values start at 0. Its variables are `q0` and
    `q1`. It plays two arms. The defaults are only an example.

    Args:
        alpha_1: Learning rate of the chosen value, from 0 to 1.
        alpha_2: Forgetting rate of the other value, from 0 to 1.
        kappa_1: Value of a reward.
        kappa_2: Cost of a missing reward.
        bias: Added to the logit of arm 1.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> from keras_disrnn import bandit
    >>> agent = bandit.BiasedForgettingQLearning(bias=0.5)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> agent.choice_probability(state)[:, 0].round(3).tolist()
    [0.378, 0.622]
    """

    name: ClassVar[str] = "biased_forgetting_q_learning"

    alpha_1: float = 0.4
    _: dataclasses.KW_ONLY
    alpha_2: float = 0.1
    kappa_1: float = 2.5
    kappa_2: float = 0.5
    bias: float = 0.3

    @property
    def rule(self) -> Rule:
        return BiasedForgettingRule(**vars(self))
