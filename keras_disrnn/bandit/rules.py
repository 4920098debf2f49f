"""The equations of the cognitive models.

Each rule is written once. The agents of `keras_disrnn.bandit` play by it in NumPy, and the models
of `keras_disrnn.baselines` fit it with the gradients of a tensor library. A rule holds its
parameters, which may be numbers or scalar tensors. Its state is an array with the variables as the
first axis, `(variables, ...)`; the other axes are any axes of sessions and trials.

This module has what all rules share, and the rules of the first agents. `value_rules` has further
rules that learn values, and `strategy_rules` those that infer, compare or repeat.

To add a rule, write it in one of these modules, add the ranges of its parameters to
`PARAMETER_RANGES`, and give it an agent in `keras_disrnn.bandit` and a model in
`keras_disrnn.models.baselines`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = Any
"""A NumPy array or a tensor."""

INSIDE = (1e-3, 1 - 1e-3)
"""The range of a probability whose logarithm or logit is taken."""

PARAMETER_RANGES = {
    "alpha": (0, 1),
    "alpha_1": (0, 1),
    "alpha_2": (0, 1),
    "alpha_critic": (0, 1),
    "alpha_fast": (0, 1),
    "alpha_kernel": (0, 1),
    "alpha_omission": (0, 1),
    "alpha_reward": (0, 1),
    "alpha_slow": (0, 1),
    "beta": (0, math.inf),
    "beta_kernel": (-math.inf, math.inf),
    "bias": (-math.inf, math.inf),
    "evidence": (0, math.inf),
    "forget": (0, 1),
    "hazard": (0, 0.5),
    "kappa_1": (-math.inf, math.inf),
    "kappa_2": (-math.inf, math.inf),
    "learn": (0, math.inf),
    "p_high": INSIDE,
    "p_low": INSIDE,
    "shift": INSIDE,
    "stay": INSIDE,
    "stickiness": (-math.inf, math.inf),
    "tau": (0.1, 1000),
    "threshold": (0, 1),
    "weight": (0, 1),
}
"""The smallest and the largest value of each parameter, by name, for agents and models."""


class ArrayOps(NamedTuple):
    """The array functions that rules need, from one array library.

    Attributes:
        where: `where(condition, x, y)`.
        concatenate: `concatenate(arrays)`, along the first axis.
        softmax: `softmax(logits)`, over the first axis.
        exp: `exp(x)`, of an array or a parameter.
        log: `log(x)`, of an array or a parameter.
    """

    where: Callable[..., Array]
    concatenate: Callable[..., Array]
    softmax: Callable[[Array], Array]
    exp: Callable[[Array], Array]
    log: Callable[[Array], Array]


class Rule(Protocol):
    """A learning rule: how a trial changes the state, and how the state sets the next choice.

    Example:

    >>> from keras_disrnn.bandit import Rule, ValueRule
    >>> rule: Rule = ValueRule(alpha_1=0.5, alpha_2=0.1, kappa_1=1.0, kappa_2=0.0)
    >>> rule.variable_names(num_arms=2)
    ('q0', 'q1')
    """

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        """Return the names of the state's variables.

        Raises:
            ValueError: If the rule does not apply to that many arms.
        """

    def initial_state(self, num_arms: int) -> np.ndarray:
        """Return the state before the first trial, float64 `(variables,)`."""

    def num_arms(self, state: Array) -> int:
        """Return the number of arms that a state belongs to."""

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        """Return the logits of the next choice, `(arms, ...)`, from the state."""

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        """Return the state after a trial, and the trial's prediction error, `(...)`.

        Args:
            state: The state before the trial's outcome, `(variables, ...)`. It does not change.
            chosen: Boolean `(arms, ...)`, true for the chosen arm.
            reward: `(...)`.
            ops: The functions of the arrays' library.
        """


class ValueRule(NamedTuple):
    """One value for each arm; the chosen value learns and the others decay (Ito & Doya 2009).

    With the value `Q` of each arm, every trial computes

        p(choice = a) = exp(beta Q_a) / sum_b exp(beta Q_b)
        target        = (kappa_1 + kappa_2) reward - kappa_2
        error         = target - Q_choice          (the value before the update)
        Q_choice     <- Q_choice + alpha_1 error
        Q_other      <- (1 - alpha_2) Q_other

    Attributes:
        alpha_1: Learning rate of the chosen value.
        alpha_2: Forgetting rate of the other values.
        kappa_1: Target of a trial with a reward of 1.
        kappa_2: Minus the target of a trial without a reward.
        beta: Inverse temperature of the softmax.
        initial_value: Each value before the first trial.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import ValueRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = ValueRule(alpha_1=0.5, alpha_2=0.1, kappa_1=1.0, kappa_2=0.0)
    >>> state = rule.initial_state(num_arms=2)
    >>> state, error = rule.update(state, np.array([True, False]), 1.0, NUMPY)
    >>> state.round(3).tolist(), float(error)
    ([0.5, 0.0], 1.0)
    """

    alpha_1: Any
    alpha_2: Any
    kappa_1: Any
    kappa_2: Any
    beta: Any = 1.0
    initial_value: float = 0.0

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        return names_by_arm("q", num_arms)

    def initial_state(self, num_arms: int) -> np.ndarray:
        return np.full(num_arms, self.initial_value)

    def num_arms(self, state: Array) -> int:
        return state.shape[0]

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        return self.beta * state

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        target = (self.kappa_1 + self.kappa_2) * reward - self.kappa_2
        error = target - value_of_chosen(state, chosen, ops.where)
        learnt = state + self.alpha_1 * error
        return ops.where(chosen, learnt, (1 - self.alpha_2) * state), error


class RewardSeekingRule(NamedTuple):
    """One signed value that points to the rewarded arm of two (Jain et al. 2025).

    With a = -1 for arm 0 and +1 for arm 1, and r = -1 for no reward and +1 for a reward, every
    trial computes from the value `s`

        p(choice = 0), p(choice = 1) = softmax(-beta s, +beta s)
        error = r - a s                            (the value before the update)
        s    <- s + alpha a error

    Attributes:
        alpha: Learning rate.
        beta: Inverse temperature of the softmax.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import RewardSeekingRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = RewardSeekingRule(alpha=0.5, beta=1.0)
    >>> state = rule.initial_state(num_arms=2)
    >>> state, error = rule.update(state, np.array([True, False]), 1.0, NUMPY)
    >>> state.round(3).tolist(), float(error)
    ([-0.5], 1.0)
    """

    alpha: Any
    beta: Any

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        check_two_arms("RewardSeeking", num_arms)
        return ("s",)

    def initial_state(self, num_arms: int) -> np.ndarray:
        return np.zeros(1)

    def num_arms(self, state: Array) -> int:
        return 2

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        logit = self.beta * state
        return ops.concatenate([-logit, logit])

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        signed_reward, value = 2.0 * reward - 1.0, state[0]
        error = ops.where(chosen[1], signed_reward - value, signed_reward + value)
        step = self.alpha * error
        return state + ops.where(chosen[1], step, -step), error


class ActorCriticRule(NamedTuple):
    """A critic with one value, and an actor with leaky preferences (Miller et al. 2023).

    With the critic's value `v` and the preference `theta` of each arm, every trial computes

        p = softmax(theta)
        error         = reward - v                 (the value before the update)
        theta_choice <- (1 - forget) theta_choice + learn error (1 - p_choice)
        theta_other  <- (1 - forget) theta_other - learn error p_other
        v            <- v + alpha_critic error

    The state holds the preferences first and the critic's value last.

    Attributes:
        alpha_critic: Learning rate of the critic.
        learn: Learning rate of the actor.
        forget: Share of each preference that leaks away on every trial.
        initial_value: The critic's value before the first trial.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import ActorCriticRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = ActorCriticRule(alpha_critic=0.5, learn=1.0, forget=0.1)
    >>> state = rule.initial_state(num_arms=2)[:, None]
    >>> state, error = rule.update(state, np.array([[True], [False]]), np.ones(1), NUMPY)
    >>> state[:, 0].round(3).tolist(), error.tolist()
    ([0.25, -0.25, 0.75], [0.5])
    """

    alpha_critic: Any
    learn: Any
    forget: Any
    initial_value: float = 0.5

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        return (*names_by_arm("theta", num_arms), "v")

    def initial_state(self, num_arms: int) -> np.ndarray:
        return np.append(np.zeros(num_arms), self.initial_value)

    def num_arms(self, state: Array) -> int:
        return state.shape[0] - 1

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        return state[:-1]

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        theta = state[:-1]
        error = reward - state[-1]
        probability = ops.softmax(theta)
        gradient = ops.where(chosen, 1 - probability, -probability)
        theta = (1 - self.forget) * theta + self.learn * error * gradient
        value = state[-1:] + self.alpha_critic * error
        return ops.concatenate([theta, value]), error


def value_of_chosen(values: Array, chosen: Array, where: Callable[..., Array] = np.where) -> Array:
    """Return the value of the chosen arm, `(...)`; `values` and `chosen` are `(arms, ...)`.

    `where` is that of the arrays' library.
    """
    # For the few arms of a bandit, one pass for each arm is faster than an indexed look-up.
    found = where(chosen[1], values[1], values[0])
    for arm in range(2, values.shape[0]):
        found = where(chosen[arm], values[arm], found)
    return found


def names_by_arm(name: str, num_arms: int) -> tuple[str, ...]:
    """Return the name of a variable that each arm has, with the number of the arm."""
    return tuple(f"{name}{arm}" for arm in range(num_arms))


def chosen_ones(chosen: Array, reward: Array, ops: ArrayOps) -> Array:
    """Return 1 for the chosen arm and 0 for the others, `(arms, ...)`, in the type of `reward`."""
    zero = 0.0 * reward
    return ops.where(chosen, zero + 1.0, zero)


def sigmoid(logit: Array, ops: ArrayOps) -> Array:
    """Compute 1 / (1 + exp(-logit)) without overflow."""
    size = ops.exp(-ops.where(logit < 0, -logit, logit))
    return ops.where(logit < 0, size, 1.0 + 0.0 * size) / (1.0 + size)


def check_two_arms(name: str, num_arms: int) -> None:
    """Raise a ValueError unless there are two arms. `name` is that of the agent."""
    if num_arms != 2:
        raise ValueError(f"num_arms: expected 2 arms for {name}, got {num_arms}")


def is_chosen(choice: np.ndarray, num_arms: int) -> np.ndarray:
    """Return which arm is chosen, boolean `(arms, sessions)`, from arms `(sessions,)`."""
    return choice == _arms(num_arms, choice.dtype)


@functools.cache
def _arms(num_arms: int, dtype: np.dtype) -> np.ndarray:
    return np.arange(num_arms, dtype=dtype)[:, None]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Compute the softmax of logits `(arms, sessions)` over the first axis, without overflow."""
    if len(logits) == 2:
        # One exponential instead of two. Past 700 it would overflow, where the share is 0 anyway.
        probability = np.empty_like(logits)
        odds = np.exp(np.minimum(logits[0] - logits[1], 700.0))
        np.divide(1.0, 1.0 + odds, out=probability[1])
        np.multiply(odds, probability[1], out=probability[0])
        return probability
    weights = np.exp(logits - logits.max(axis=0))
    return weights / weights.sum(axis=0)


NUMPY = ArrayOps(np.where, np.concatenate, softmax, np.exp, np.log)
"""The functions of NumPy. Their softmax takes one axis of sessions."""
