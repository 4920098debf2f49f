"""Agents with the rules of `keras_disrnn.bandit.strategy_rules`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from keras_disrnn.bandit.agents import NamedAgent
from keras_disrnn.bandit.rules import Rule
from keras_disrnn.bandit.strategy_rules import (
    BeliefRule,
    RecursiveLogisticRule,
    ThresholdRule,
    WinStayLoseShiftRule,
)


@dataclasses.dataclass(frozen=True)
class BayesianBelief(NamedAgent):
    """An agent that infers which of two arms is the better one (Hampton et al. 2006).

    `BeliefRule` has the equations. Its variable `belief` is the probability that arm 1 is the
    better one, at first 0.5. It plays two arms. Its dopamine is the prediction error of the belief.
    The defaults are only an example.

    Args:
        p_high: Reward probability of the better arm, from 0.001 to 0.999.
        p_low: Reward probability of the other arm, from 0.001 to `p_high`.
        hazard: Probability that the arms change places after a trial, from 0 to 0.5.
        beta: Inverse temperature of the choice, at least 0.

    Raises:
        ValueError: If a parameter is not a number or out of range, or `p_low` is the larger
            probability.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.BayesianBelief(p_high=0.8, p_low=0.2, hazard=0.1)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'belief': 0.74}, [0.5])
    """

    name: ClassVar[str] = "bayesian_belief"

    p_high: float = 0.75
    _: dataclasses.KW_ONLY
    p_low: float = 0.25
    hazard: float = 0.05
    beta: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p_low > self.p_high:
            raise ValueError(f"p_low: expected at most p_high, {self.p_high}, got {self.p_low}")

    @property
    def rule(self) -> Rule:
        return BeliefRule(**vars(self))


@dataclasses.dataclass(frozen=True)
class RecursiveLogistic(NamedAgent):
    """Logistic regression in recursive form (Beron et al. 2022).

    `RecursiveLogisticRule` has the equations. Its variables are the evidence `phi` and the last
    choice `side` (-1 or 1); both start at 0. It plays two arms. The defaults are only an example.

    Args:
        stickiness: Weight of the last choice (alpha of the paper).
        evidence: Weight of a reward, at least 0 (beta of the paper).
        tau: Decay time of the evidence in trials, from 0.1 to 1000.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.RecursiveLogistic(evidence=2.0)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'phi': 2.0, 'side': 1.0}, [0.5])
    """

    name: ClassVar[str] = "recursive_logistic"

    stickiness: float = 0.5
    _: dataclasses.KW_ONLY
    evidence: float = 1.5
    tau: float = 2.0

    @property
    def rule(self) -> Rule:
        return RecursiveLogisticRule(**vars(self))


@dataclasses.dataclass(frozen=True)
class CompareToThreshold(NamedAgent):
    """An agent that stays while the value of staying is above a threshold (Zid et al. 2024).

    `ThresholdRule` has the equations. Its variables are `last0`, `last1`, ..., which are 1 for the
    arm that was chosen last, and the value `v`. It plays any number of arms from two. The defaults
    are only an example.

    Args:
        alpha: Learning rate, from 0 to 1.
        threshold: The threshold in the unit of a reward, from 0 to 1.
        beta: Inverse temperature of the choice, at least 0.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.CompareToThreshold(alpha=0.5, threshold=0.4)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> dict(zip(agent.variable_names(2), state[:, 0].round(3).tolist())), dopamine.tolist()
    ({'last0': 0.0, 'last1': 1.0, 'v': 0.7}, [0.6])
    """

    name: ClassVar[str] = "compare_to_threshold"

    alpha: float = 0.4
    _: dataclasses.KW_ONLY
    threshold: float = 0.4
    beta: float = 5.0

    @property
    def rule(self) -> Rule:
        return ThresholdRule(**vars(self))


@dataclasses.dataclass(frozen=True)
class WinStayLoseShift(NamedAgent):
    """Noisy win-stay, lose-shift (Worthy et al. 2013).

    `WinStayLoseShiftRule` has the equations. Its variables are `last0`, `last1`, ..., which are 1
    for the arm that was chosen last, and `win`. It expects nothing, so its dopamine is the reward.
    It plays any number of arms from two. The defaults are only an example.

    Args:
        stay: Probability of staying after a reward, from 0.001 to 0.999.
        shift: Probability of another choice after no reward, from 0.001 to 0.999.

    Raises:
        ValueError: If a parameter is not a number or out of range.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import bandit
    >>> agent = bandit.WinStayLoseShift(stay=0.9)
    >>> state = agent.initial_state(num_sessions=1, num_arms=2)
    >>> state, dopamine = agent.update(state, np.array([1]), np.array([1.0]))
    >>> agent.choice_probability(state)[:, 0].round(3).tolist()
    [0.1, 0.9]
    """

    name: ClassVar[str] = "win_stay_lose_shift"

    stay: float = 0.85
    _: dataclasses.KW_ONLY
    shift: float = 0.6

    @property
    def rule(self) -> Rule:
        return WinStayLoseShiftRule(**vars(self))
