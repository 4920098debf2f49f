"""Cognitive models with the rules of `keras_disrnn.bandit.strategy_rules`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_disrnn.bandit.rules import Rule
from keras_disrnn.bandit.strategy_rules import (
    BeliefRule,
    RecursiveLogisticRule,
    ThresholdRule,
    WinStayLoseShiftRule,
)
from keras_disrnn.models.baselines.cognitive import CognitiveModel
from keras_disrnn.models.baselines.fitting import Parameter
from keras_disrnn.models.baselines.learners import RATE_STARTS
from keras_disrnn.models.baselines.value_learners import BETA_STARTS, WEIGHT_STARTS


@keras.saving.register_keras_serializable("keras_disrnn")
class BayesianBelief(CognitiveModel):
    """A Bayesian belief over the better of two arms (Hampton et al. 2006).

    `bandit.BeliefRule` has the equations. Dopamine is the prediction error of the belief, in units
    of reward. A fit to dopamine alone includes a gain and an offset, and leaves choice at chance.
    It cannot tell the arms' names apart, so it returns the solution with the larger `p_high`.

    Args:
        p_high: Reward probability of the better arm, from 0.001 to 0.999.
        p_low: Reward probability of the other arm, from 0.001 to 0.999.
        hazard: Probability that the arms change places after a trial, from 0 to 0.5.
        beta: Inverse temperature of the choice, at least 0.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.BayesianBelief(p_high=0.75, p_low=0.25, hazard=0.05, beta=3.0)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    p_high = Parameter((0.55, 0.95))
    p_low = Parameter((0.05, 0.45))
    hazard = Parameter((0.01, 0.3))
    beta = Parameter(BETA_STARTS)

    DOPAMINE_PARAMETERS = ("p_high", "p_low", "hazard")
    OWN_SCALE = False

    def __init__(
        self,
        p_high: float | None = None,
        *,
        p_low: float | None = None,
        hazard: float | None = None,
        beta: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {"p_high": p_high, "p_low": p_low, "hazard": hazard, "beta": beta}
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return BeliefRule(**parameters)

    def in_order(self, values: np.ndarray, targets: str) -> np.ndarray:
        high, low, *rest = values
        # Choice does tell the arms apart: an agent that goes to the worse one has a larger p_low.
        return values if targets != "dopamine" or high >= low else np.array([low, high, *rest])


@keras.saving.register_keras_serializable("keras_disrnn")
class RecursiveLogistic(CognitiveModel):
    """Logistic regression in recursive form, for two arms (Beron et al. 2022).

    `bandit.RecursiveLogisticRule` has the equations. The prediction error is in units of reward, so
    a fit to dopamine alone includes a gain and an offset. It leaves the stickiness at 0.

    Args:
        stickiness: Weight of the last choice (alpha of the paper).
        evidence: Weight of a reward, at least 0 (beta of the paper).
        tau: Decay time of the evidence in trials, from 0.1 to 1000.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.RecursiveLogistic(stickiness=0.5, evidence=1.5, tau=2.0)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    stickiness = Parameter(WEIGHT_STARTS)
    evidence = Parameter((0.2, 3.0))
    tau = Parameter((0.5, 8.0))

    DOPAMINE_PARAMETERS = ("evidence", "tau")
    OWN_SCALE = False

    def __init__(
        self,
        stickiness: float | None = None,
        *,
        evidence: float | None = None,
        tau: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {"stickiness": stickiness, "evidence": evidence, "tau": tau}
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return RecursiveLogisticRule(**parameters)


@keras.saving.register_keras_serializable("keras_disrnn")
class CompareToThreshold(CognitiveModel):
    """One value that is compared with a threshold: stay or switch (Zid et al. 2024).

    `bandit.ThresholdRule` has the equations. The prediction error is in units of reward, so a fit
    to dopamine alone includes a gain and an offset. It leaves choice at chance.

    Args:
        alpha: Learning rate, from 0 to 1.
        threshold: The threshold in the unit of a reward, from 0 to 1.
        beta: Inverse temperature of the choice, at least 0.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.CompareToThreshold(alpha=0.4, threshold=0.4, beta=5.0)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    alpha = Parameter(RATE_STARTS)
    threshold = Parameter(RATE_STARTS)
    beta = Parameter(BETA_STARTS)

    DOPAMINE_PARAMETERS = ("alpha", "threshold")
    OWN_SCALE = False

    def __init__(
        self,
        alpha: float | None = None,
        *,
        threshold: float | None = None,
        beta: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {"alpha": alpha, "threshold": threshold, "beta": beta}
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return ThresholdRule(**parameters)


@keras.saving.register_keras_serializable("keras_disrnn")
class WinStayLoseShift(CognitiveModel):
    """Noisy win-stay, lose-shift (Worthy et al. 2013).

    `bandit.WinStayLoseShiftRule` has the equations. Dopamine is the reward, because the rule
    expects nothing. No parameter changes it, so there is no fit to dopamine alone.

    Args:
        stay: Probability of staying after a reward, from 0.001 to 0.999.
        shift: Probability of another choice after no reward, from 0.001 to 0.999.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.WinStayLoseShift(stay=0.85, shift=0.6)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    stay = Parameter(RATE_STARTS)
    shift = Parameter(RATE_STARTS)

    DOPAMINE_PARAMETERS = ()
    OWN_SCALE = False

    def __init__(
        self,
        stay: float | None = None,
        *,
        shift: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {"stay": stay, "shift": shift}
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return WinStayLoseShiftRule(**parameters)
