"""Rules that learn values, beyond those of `keras_disrnn.bandit.rules`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_disrnn.bandit.rules import (
    Array,
    ArrayOps,
    ValueRule,
    check_two_arms,
    chosen_ones,
    names_by_arm,
    value_of_chosen,
)


class DualRateRule(NamedTuple):
    """One value for each arm, with a learning rate of rewards and one of omissions.

    With the value `Q` of each arm, every trial computes

        p(choice = a) = exp(beta Q_a) / sum_b exp(beta Q_b)
        error         = reward - Q_choice          (the value before the update)
        Q_choice     <- Q_choice + alpha_reward error     if reward > 0
        Q_choice     <- Q_choice + alpha_omission error   otherwise

    With rewards of 0 and 1 this is the model of separate rates for positive and negative prediction
    errors (Frank, Moustafa, Haughey, Curran & Hutchison 2007; Niv, Edlund, Dayan & O'Doherty 2012).

    Attributes:
        alpha_reward: Learning rate of a rewarded trial.
        alpha_omission: Learning rate of a trial without a reward.
        beta: Inverse temperature of the softmax.
        initial_value: Each value before the first trial.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import DualRateRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = DualRateRule(alpha_reward=0.5, alpha_omission=0.1, beta=3.0)
    >>> state = rule.initial_state(num_arms=2)
    >>> state, error = rule.update(state, np.array([True, False]), 1.0, NUMPY)
    >>> state.round(3).tolist(), float(error)
    ([0.75, 0.5], 0.5)
    """

    alpha_reward: Any
    alpha_omission: Any
    beta: Any
    initial_value: float = 0.5

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
        error = reward - value_of_chosen(state, chosen, ops.where)
        step = ops.where(reward > 0, self.alpha_reward * error, self.alpha_omission * error)
        return ops.where(chosen, state + step, state), error


class ChoiceKernelRule(NamedTuple):
    """Values, and a kernel of past choices (Wilson & Collins 2019, model 5).

    With the value `Q` and the kernel `C` of each arm, every trial computes

        p(choice = a) = exp(beta Q_a + beta_kernel C_a) / sum_b exp(beta Q_b + beta_kernel C_b)
        error         = reward - Q_choice          (the value before the update)
        Q_choice     <- Q_choice + alpha error
        C_choice     <- C_choice + alpha_kernel (1 - C_choice)
        C_other      <- C_other + alpha_kernel (0 - C_other)

    A positive `beta_kernel` is perseveration, a negative one is alternation. The state holds the
    values first, then the kernel.

    Attributes:
        alpha: Learning rate of the values.
        beta: Inverse temperature of the values.
        alpha_kernel: Learning rate of the kernel.
        beta_kernel: Weight of the kernel.
        initial_value: Each value before the first trial. The kernel starts at 0.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import ChoiceKernelRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = ChoiceKernelRule(alpha=0.5, beta=3.0, alpha_kernel=0.2, beta_kernel=1.0)
    >>> state = rule.initial_state(num_arms=2)
    >>> state, error = rule.update(state, np.array([True, False]), 1.0, NUMPY)
    >>> state.round(3).tolist(), float(error)
    ([0.75, 0.5, 0.2, 0.0], 0.5)
    """

    alpha: Any
    beta: Any
    alpha_kernel: Any
    beta_kernel: Any
    initial_value: float = 0.5

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        return names_by_arm("q", num_arms) + names_by_arm("c", num_arms)

    def initial_state(self, num_arms: int) -> np.ndarray:
        return np.append(np.full(num_arms, self.initial_value), np.zeros(num_arms))

    def num_arms(self, state: Array) -> int:
        return state.shape[0] // 2

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        arms = self.num_arms(state)
        return self.beta * state[:arms] + self.beta_kernel * state[arms:]

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        arms = self.num_arms(state)
        values, kernel = state[:arms], state[arms:]
        error = reward - value_of_chosen(values, chosen, ops.where)
        values = ops.where(chosen, values + self.alpha * error, values)
        kernel = kernel + self.alpha_kernel * (chosen_ones(chosen, reward, ops) - kernel)
        return ops.concatenate([values, kernel]), error


class FastSlowRule(NamedTuple):
    """A fast and a slow value for each arm, which choice mixes (Iigaya et al. 2019).

    With the values `F` and `S` of each arm, every trial computes

        Q_a           = weight F_a + (1 - weight) S_a
        p(choice = a) = exp(beta Q_a) / sum_b exp(beta Q_b)
        error         = reward - Q_choice          (the values before the update)
        F_choice     <- F_choice + alpha_fast (reward - F_choice)
        S_choice     <- S_choice + alpha_slow (reward - S_choice)

    The error is that of the mixture. Corrado, Sugrue, Seung and Newsome (2005) have two time scales
    of past rewards, Iigaya, Ahmadian, Sugrue, Corrado, Loewenstein, Newsome and Fusi (2019) the
    mixture of learners. The state holds the fast values first.

    Attributes:
        alpha_fast: Learning rate of the fast values.
        alpha_slow: Learning rate of the slow values.
        weight: Share of the fast value in the mixture.
        beta: Inverse temperature of the softmax.
        initial_value: Each value before the first trial.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import FastSlowRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = FastSlowRule(alpha_fast=0.5, alpha_slow=0.1, weight=0.5, beta=3.0)
    >>> state = rule.initial_state(num_arms=2)
    >>> state, error = rule.update(state, np.array([True, False]), 1.0, NUMPY)
    >>> state.round(3).tolist(), float(error)
    ([0.75, 0.5, 0.55, 0.5], 0.5)
    """

    alpha_fast: Any
    alpha_slow: Any
    weight: Any
    beta: Any
    initial_value: float = 0.5

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        return names_by_arm("fast", num_arms) + names_by_arm("slow", num_arms)

    def initial_state(self, num_arms: int) -> np.ndarray:
        return np.full(2 * num_arms, self.initial_value)

    def num_arms(self, state: Array) -> int:
        return state.shape[0] // 2

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        return self.beta * self._mixture(state)

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        arms = self.num_arms(state)
        fast, slow = state[:arms], state[arms:]
        error = reward - value_of_chosen(self._mixture(state), chosen, ops.where)
        fast = ops.where(chosen, fast + self.alpha_fast * (reward - fast), fast)
        slow = ops.where(chosen, slow + self.alpha_slow * (reward - slow), slow)
        return ops.concatenate([fast, slow]), error

    def _mixture(self, state: Array) -> Array:
        arms = self.num_arms(state)
        return self.weight * state[:arms] + (1 - self.weight) * state[arms:]


class BiasedForgettingRule(NamedTuple):
    """Forgetting values and a constant bias, for two arms (Ito & Doya 2009; Hattori et al. 2019).

    The values are those of `ValueRule`, whose softmax here has one more term:

        p(choice = 1) = 1 / (1 + exp(-(Q_1 - Q_0 + bias)))

    Hattori, Danskin, Babic, Mlynaryk and Komiyama (2019) fitted such a bias with forgetting.

    Attributes:
        alpha_1: Learning rate of the chosen value.
        alpha_2: Forgetting rate of the other value.
        kappa_1: Target of a trial with a reward of 1.
        kappa_2: Minus the target of a trial without a reward.
        bias: Added to the logit of arm 1.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import BiasedForgettingRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = BiasedForgettingRule(alpha_1=0.5, alpha_2=0.1, kappa_1=1.0, kappa_2=0.0, bias=0.4)
    >>> rule.logits(rule.initial_state(num_arms=2)[:, None], NUMPY).ravel().tolist()
    [0.0, 0.4]
    """

    alpha_1: Any
    alpha_2: Any
    kappa_1: Any
    kappa_2: Any
    bias: Any

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        check_two_arms("BiasedForgettingQLearning", num_arms)
        return self._values.variable_names(num_arms)

    def initial_state(self, num_arms: int) -> np.ndarray:
        return self._values.initial_state(num_arms)

    def num_arms(self, state: Array) -> int:
        return 2

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        return ops.concatenate([state[:1], state[1:] + self.bias])

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        return self._values.update(state, chosen, reward, ops)

    @property
    def _values(self) -> ValueRule:
        return ValueRule(self.alpha_1, self.alpha_2, self.kappa_1, self.kappa_2)
