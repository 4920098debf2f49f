"""Rules that infer the better arm, compare with a threshold, or repeat what has won."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from keras_disrnn.bandit.rules import (
    Array,
    ArrayOps,
    check_two_arms,
    chosen_ones,
    names_by_arm,
    sigmoid,
    value_of_chosen,
)


class BeliefRule(NamedTuple):
    """A Bayesian belief over which of two arms is the better one (Hampton et al. 2006).

    The task is taken as a hidden Markov chain: one arm pays with probability `p_high`, the other
    with `p_low`, and the two change places with probability `hazard` after each trial. With the
    belief `b`, the probability that arm 1 is the better one, every trial computes

        p(choice = 1) = 1 / (1 + exp(-beta (2 b - 1)))
        c     = b if arm 1 was chosen, else 1 - b
        error = reward - (c p_high + (1 - c) p_low)              (the belief before the trial)
        c    <- c L_high / (c L_high + (1 - c) L_low),  L_x = p_x if reward > 0, else 1 - p_x
        c    <- (1 - hazard) c + hazard (1 - c)
        b    <- c if arm 1 was chosen, else 1 - c

    Hampton, Bossaerts and O'Doherty (2006) have the inference and the choice by the belief. Costa,
    Tran, Turchi and Averbeck (2015) have it for reversal learning, and Beron, Neufeld, Linderman
    and Sabatini (2022) for mice. The prediction error of a belief is that of Babayan, Uchida and
    Gershman (2018).

    Attributes:
        p_high: Reward probability of the better arm.
        p_low: Reward probability of the other arm.
        hazard: Probability that the arms change places after a trial.
        beta: Inverse temperature of the choice.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import BeliefRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = BeliefRule(p_high=0.8, p_low=0.2, hazard=0.1, beta=3.0)
    >>> state = rule.initial_state(num_arms=2)
    >>> state, error = rule.update(state, np.array([False, True]), 1.0, NUMPY)
    >>> state.round(3).tolist(), float(error)
    ([0.74], 0.5)
    """

    p_high: Any
    p_low: Any
    hazard: Any
    beta: Any

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        check_two_arms("BayesianBelief", num_arms)
        return ("belief",)

    def initial_state(self, num_arms: int) -> np.ndarray:
        return np.full(1, 0.5)

    def num_arms(self, state: Array) -> int:
        return 2

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        return self.beta * ops.concatenate([1.0 - state, state])

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        belief = ops.where(chosen[1], state[0], 1.0 - state[0])
        error = reward - (belief * self.p_high + (1.0 - belief) * self.p_low)
        rewarded = reward > 0
        high = belief * ops.where(rewarded, self.p_high, 1.0 - self.p_high)
        low = (1.0 - belief) * ops.where(rewarded, self.p_low, 1.0 - self.p_low)
        belief = high / (high + low)
        belief = (1.0 - self.hazard) * belief + self.hazard * (1.0 - belief)
        return (0.0 * state) + ops.where(chosen[1], belief, 1.0 - belief), error


class RecursiveLogisticRule(NamedTuple):
    """Logistic regression in recursive form, for two arms (Beron et al. 2022).

    With a = -1 for arm 0 and +1 for arm 1, the evidence `phi` and the last choice `side` (0 before
    the first trial), every trial computes

        p(choice = 1) = 1 / (1 + exp(-(stickiness side + phi)))
        error = reward - 1 / (1 + exp(-a phi))     (the evidence before the trial)
        phi  <- exp(-1 / tau) phi + evidence a reward
        side <- a

    In Beron, Neufeld, Linderman and Sabatini (2022), `stickiness` is alpha and `evidence` is beta.
    They show that `phi` stands for the log odds of the belief of `BeliefRule`. So the error is the
    reward minus the belief that the chosen arm is the better one; the paper has no error.

    Attributes:
        stickiness: Weight of the last choice.
        evidence: Weight of a reward.
        tau: Decay time of the evidence, in trials.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import RecursiveLogisticRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = RecursiveLogisticRule(stickiness=0.5, evidence=2.0, tau=1.5)
    >>> state = rule.initial_state(num_arms=2)
    >>> state, error = rule.update(state, np.array([False, True]), 1.0, NUMPY)
    >>> state.round(3).tolist(), float(error)
    ([2.0, 1.0], 0.5)
    """

    stickiness: Any
    evidence: Any
    tau: Any

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        check_two_arms("RecursiveLogistic", num_arms)
        return ("phi", "side")

    def initial_state(self, num_arms: int) -> np.ndarray:
        return np.zeros(2)

    def num_arms(self, state: Array) -> int:
        return 2

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        phi, side = state[:1], state[1:]
        logit = self.stickiness * side + phi
        return ops.concatenate([0.0 * logit, logit])

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        phi = state[:1]
        side = 2.0 * chosen_ones(chosen[1:], reward, ops) - 1.0
        error = reward - sigmoid(side * phi, ops)[0]
        phi = ops.exp(-1.0 / self.tau) * phi + self.evidence * side * reward
        return ops.concatenate([phi, side]), error


class ThresholdRule(NamedTuple):
    """One value, that of staying, which is compared with a threshold: stay or switch.

    With the value `v` and the last choice, every trial computes

        p(choice = last choice) = 1 / (1 + exp(-beta (v - threshold)))
        v    <- threshold                          if the choice is another than the last one
        error = reward - v
        v    <- v + alpha error

    The other arms are equally likely, as are all arms in the first trial. A new arm is worth as
    much as the threshold. Foraging theory compares the current option with a threshold in this
    way (Constantino & Daw 2015), and Zid, Laurie, Levine-Champagne, Shourkeshti, Harrell, Herman
    and Ebitz (2024) apply the comparison to bandits. The state holds which arm was chosen last, as
    one 1 and zeros elsewhere (only zeros before the first trial), and then the value.

    Attributes:
        alpha: Learning rate.
        threshold: The threshold, in the unit of a reward.
        beta: Inverse temperature of the choice.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import ThresholdRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = ThresholdRule(alpha=0.5, threshold=0.4, beta=5.0)
    >>> state = rule.initial_state(num_arms=2)
    >>> state, error = rule.update(state, np.array([False, True]), 1.0, NUMPY)
    >>> state.round(3).tolist(), float(error)
    ([0.0, 1.0, 0.7], 0.6)
    """

    alpha: Any
    threshold: Any
    beta: Any

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        return (*names_by_arm("last", num_arms), "v")

    def initial_state(self, num_arms: int) -> np.ndarray:
        # No choice is the last one yet, so the first choice begins from the threshold.
        return np.zeros(num_arms + 1)

    def num_arms(self, state: Array) -> int:
        return state.shape[0] - 1

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        return _stay_logits(state[:-1], self.beta * (state[-1:] - self.threshold))

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        stayed = value_of_chosen(state[:-1], chosen, ops.where)
        value = stayed * state[-1] + (1.0 - stayed) * self.threshold
        error = reward - value
        last = chosen_ones(chosen, reward, ops)
        # The sum gives the value the axis of variables.
        value = 0.0 * state[-1:] + value + self.alpha * error
        return ops.concatenate([last, value]), error


class WinStayLoseShiftRule(NamedTuple):
    """Noisy win-stay, lose-shift (Robbins 1952; Worthy, Hawthorne & Otto 2013).

    Every trial computes from the last trial's choice and outcome

        p(choice = last choice) = stay        if it was rewarded
        p(choice = last choice) = 1 - shift   otherwise

    The other arms are equally likely, as are all arms in the first trial. The rule has no value and
    expects nothing, so its error is the reward itself. The state holds which arm was chosen last,
    as one 1 and zeros elsewhere (only zeros before the first trial), and then the win, 1 or 0.

    Attributes:
        stay: Probability of staying after a reward.
        shift: Probability of another choice after no reward.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.bandit import WinStayLoseShiftRule
    >>> from keras_disrnn.bandit.rules import NUMPY
    >>> rule = WinStayLoseShiftRule(stay=0.9, shift=0.6)
    >>> state = rule.initial_state(num_arms=2)[:, None]
    >>> state, error = rule.update(state, np.array([[False], [True]]), np.ones(1), NUMPY)
    >>> NUMPY.softmax(rule.logits(state, NUMPY)).ravel().round(3).tolist()
    [0.1, 0.9]
    """

    stay: Any
    shift: Any

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        return (*names_by_arm("last", num_arms), "win")

    def initial_state(self, num_arms: int) -> np.ndarray:
        return np.zeros(num_arms + 1)

    def num_arms(self, state: Array) -> int:
        return state.shape[0] - 1

    def logits(self, state: Array, ops: ArrayOps) -> Array:
        won = ops.log(self.stay) - ops.log(1.0 - self.stay)
        lost = ops.log(1.0 - self.shift) - ops.log(self.shift)
        win = state[-1:]
        return _stay_logits(state[:-1], win * won + (1.0 - win) * lost)

    def update(
        self, state: Array, chosen: Array, reward: Array, ops: ArrayOps
    ) -> tuple[Array, Array]:
        last = chosen_ones(chosen, reward, ops)
        zero = 0.0 * state[-1:] + 0.0 * reward
        win = ops.where(reward > 0, zero + 1.0, zero)
        return ops.concatenate([last, win]), 1.0 * reward


def _stay_logits(last: Array, stay: Array) -> Array:
    """Return logits with which the last choice has a probability, and the others share the rest.

    Args:
        last: 1 for the last choice and 0 elsewhere, `(arms, ...)`.
        stay: The logit of staying, `(1, ...)`.
    """
    return last * (stay + math.log(max(last.shape[0] - 1, 1)))
