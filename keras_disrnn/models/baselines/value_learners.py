"""Cognitive models with the rules of `keras_disrnn.bandit.value_rules`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_disrnn.bandit.rules import Rule
from keras_disrnn.bandit.value_rules import (
    BiasedForgettingRule,
    ChoiceKernelRule,
    DualRateRule,
    FastSlowRule,
)
from keras_disrnn.models.baselines.cognitive import CognitiveModel
from keras_disrnn.models.baselines.fitting import Parameter
from keras_disrnn.models.baselines.learners import KAPPA_STARTS, RATE_STARTS

BETA_STARTS = (0.5, 8.0)
WEIGHT_STARTS = (-2.0, 2.0)


@keras.saving.register_keras_serializable("keras_disrnn")
class DualRateQLearning(CognitiveModel):
    """Q-learning with different rates for reward and omission (Frank et al. 2007).

    `bandit.DualRateRule` has the equations. The prediction error is in units of reward, so a fit to
    dopamine alone includes a gain and an offset. It leaves choice at chance, because dopamine says
    nothing of the temperature.

    Args:
        alpha_reward: Learning rate of a rewarded trial, from 0 to 1.
        alpha_omission: Learning rate of a trial without a reward, from 0 to 1.
        beta: Inverse temperature of the softmax, at least 0.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.DualRateQLearning(alpha_reward=0.5, alpha_omission=0.2, beta=3.0)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    alpha_reward = Parameter(RATE_STARTS)
    alpha_omission = Parameter(RATE_STARTS)
    beta = Parameter(BETA_STARTS)

    DOPAMINE_PARAMETERS = ("alpha_reward", "alpha_omission")
    OWN_SCALE = False

    def __init__(
        self,
        alpha_reward: float | None = None,
        *,
        alpha_omission: float | None = None,
        beta: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {"alpha_reward": alpha_reward, "alpha_omission": alpha_omission, "beta": beta}
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return DualRateRule(**parameters)


@keras.saving.register_keras_serializable("keras_disrnn")
class ChoiceKernelQLearning(CognitiveModel):
    """Q-learning with a kernel of past choices: perseveration (Wilson & Collins 2019).

    `bandit.ChoiceKernelRule` has the equations. The prediction error is in units of reward, so a
    fit to dopamine alone includes a gain and an offset. It determines the rate of the values only,
    and leaves choice at chance.

    Args:
        alpha: Learning rate of the values, from 0 to 1.
        beta: Inverse temperature of the values, at least 0.
        alpha_kernel: Learning rate of the kernel, from 0 to 1.
        beta_kernel: Weight of the kernel; below 0 for alternation.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.ChoiceKernelQLearning(
    ...     alpha=0.3, beta=3.0, alpha_kernel=0.2, beta_kernel=1.5
    ... )
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    alpha = Parameter(RATE_STARTS)
    beta = Parameter(BETA_STARTS)
    alpha_kernel = Parameter(RATE_STARTS)
    beta_kernel = Parameter(WEIGHT_STARTS)

    DOPAMINE_PARAMETERS = ("alpha",)
    OWN_SCALE = False

    def __init__(
        self,
        alpha: float | None = None,
        *,
        beta: float | None = None,
        alpha_kernel: float | None = None,
        beta_kernel: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {
            "alpha": alpha,
            "beta": beta,
            "alpha_kernel": alpha_kernel,
            "beta_kernel": beta_kernel,
        }
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return ChoiceKernelRule(**parameters)


@keras.saving.register_keras_serializable("keras_disrnn")
class FastSlowQLearning(CognitiveModel):
    """Q-learning on two time scales (Iigaya et al. 2019).

    `bandit.FastSlowRule` has the equations. Of two solutions that only exchange the values, a fit
    returns the one with the larger `alpha_fast`. The prediction error is in units of reward, so a
    fit to dopamine alone includes a gain and an offset. It leaves choice at chance.

    Args:
        alpha_fast: Learning rate of the fast values, from 0 to 1.
        alpha_slow: Learning rate of the slow values, from 0 to 1.
        weight: Share of the fast value in the mixture, from 0 to 1.
        beta: Inverse temperature of the softmax, at least 0.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.FastSlowQLearning(alpha_fast=0.5, alpha_slow=0.05, weight=0.5, beta=5.0)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    alpha_fast = Parameter((0.3, 0.95))
    alpha_slow = Parameter((0.01, 0.3))
    weight = Parameter(RATE_STARTS)
    beta = Parameter(BETA_STARTS)

    DOPAMINE_PARAMETERS = ("alpha_fast", "alpha_slow", "weight")
    OWN_SCALE = False

    def __init__(
        self,
        alpha_fast: float | None = None,
        *,
        alpha_slow: float | None = None,
        weight: float | None = None,
        beta: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {
            "alpha_fast": alpha_fast,
            "alpha_slow": alpha_slow,
            "weight": weight,
            "beta": beta,
        }
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return FastSlowRule(**parameters)

    def in_order(self, values: np.ndarray, targets: str) -> np.ndarray:
        fast, slow, weight, *rest = values
        return values if fast >= slow else np.array([slow, fast, 1 - weight, *rest])


@keras.saving.register_keras_serializable("keras_disrnn")
class BiasedForgettingQLearning(CognitiveModel):
    """`DifferentialForgettingQLearning` with a bias, for two arms (Hattori et al. 2019).

    `bandit.BiasedForgettingRule` has the equations. A fit to dopamine alone leaves the bias at 0.

    Args:
        alpha_1: Learning rate of the chosen value, from 0 to 1.
        alpha_2: Forgetting rate of the other value, from 0 to 1.
        kappa_1: Value of a reward.
        kappa_2: Cost of a missing reward.
        bias: Added to the logit of arm 1.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.BiasedForgettingQLearning(
    ...     alpha_1=0.3, alpha_2=0.1, kappa_1=1.5, kappa_2=0.5, bias=0.3
    ... )
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    alpha_1 = Parameter(RATE_STARTS)
    alpha_2 = Parameter(RATE_STARTS)
    kappa_1 = Parameter(KAPPA_STARTS, scales=True)
    kappa_2 = Parameter(KAPPA_STARTS, scales=True)
    bias = Parameter(WEIGHT_STARTS)

    DOPAMINE_PARAMETERS = ("alpha_1", "alpha_2", "kappa_1", "kappa_2")

    def __init__(
        self,
        alpha_1: float | None = None,
        *,
        alpha_2: float | None = None,
        kappa_1: float | None = None,
        kappa_2: float | None = None,
        bias: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {
            "alpha_1": alpha_1,
            "alpha_2": alpha_2,
            "kappa_1": kappa_1,
            "kappa_2": kappa_2,
            "bias": bias,
        }
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return BiasedForgettingRule(**parameters)
