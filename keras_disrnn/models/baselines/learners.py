"""The cognitive models, each a rule of `keras_disrnn.bandit.rules` with its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_disrnn.bandit.rules import ActorCriticRule, Rule, ValueRule
from keras_disrnn.models.baselines.cognitive import CognitiveModel
from keras_disrnn.models.baselines.fitting import Parameter

RATE_STARTS = (0.05, 0.95)
KAPPA_STARTS = (0.0, 4.0)


class _SingleRateModel(CognitiveModel):
    """A model with one rate and the two values of an outcome."""

    alpha = Parameter(RATE_STARTS)
    kappa_1 = Parameter(KAPPA_STARTS, scales=True)
    kappa_2 = Parameter(KAPPA_STARTS, scales=True)

    def __init__(
        self,
        alpha: float | None = None,
        *,
        kappa_1: float | None = None,
        kappa_2: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__({"alpha": alpha, "kappa_1": kappa_1, "kappa_2": kappa_2}, **kwargs)


@keras.saving.register_keras_serializable("keras_disrnn")
class QLearning(_SingleRateModel):
    """Q-learning: `DifferentialForgettingQLearning` without forgetting (`alpha_2 = 0`).

    The agent `bandit.QLearning(alpha, beta)` is the same model with `kappa_1 = kappa_2 = beta / 2`
    for choice, and with `kappa_1 = kappa_2 = 1 / 2` for dopamine. The agent's values start at 0.5
    and the model's at 0.

    Args:
        alpha: Learning rate, from 0 to 1.
        kappa_1: Value of a reward.
        kappa_2: Cost of a missing reward.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.QLearning(alpha=0.3, kappa_1=1.5, kappa_2=1.5)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return ValueRule(parameters["alpha"], 0.0, parameters["kappa_1"], parameters["kappa_2"])


@keras.saving.register_keras_serializable("keras_disrnn")
class ForgettingQLearning(_SingleRateModel):
    """Forgetting Q-learning, FQ: `DifferentialForgettingQLearning` with `alpha_1 = alpha_2`.

    Args:
        alpha: Learning rate of the chosen value and forgetting rate of the others, from 0 to 1.
        kappa_1: Value of a reward.
        kappa_2: Cost of a missing reward.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.ForgettingQLearning(alpha=0.3, kappa_1=1.5, kappa_2=0.5)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        alpha = parameters["alpha"]
        return ValueRule(alpha, alpha, parameters["kappa_1"], parameters["kappa_2"])


@keras.saving.register_keras_serializable("keras_disrnn")
class DifferentialForgettingQLearning(CognitiveModel):
    """Differential forgetting Q-learning, DFQ (Ito & Doya 2009).

    `bandit.ValueRule` has the equations.

    Args:
        alpha_1: Learning rate of the chosen value, from 0 to 1.
        alpha_2: Forgetting rate of the other values, from 0 to 1.
        kappa_1: Value of a reward.
        kappa_2: Cost of a missing reward.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.DifferentialForgettingQLearning(
    ...     alpha_1=0.3, alpha_2=0.1, kappa_1=1.5, kappa_2=0.5
    ... )
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    alpha_1 = Parameter(RATE_STARTS)
    alpha_2 = Parameter(RATE_STARTS)
    kappa_1 = Parameter(KAPPA_STARTS, scales=True)
    kappa_2 = Parameter(KAPPA_STARTS, scales=True)

    def __init__(
        self,
        alpha_1: float | None = None,
        *,
        alpha_2: float | None = None,
        kappa_1: float | None = None,
        kappa_2: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {
            "alpha_1": alpha_1, "alpha_2": alpha_2, "kappa_1": kappa_1, "kappa_2": kappa_2,
        }  # fmt: skip
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return ValueRule(**parameters)


@keras.saving.register_keras_serializable("keras_disrnn")
class LeakyActorCritic(CognitiveModel):
    """A critic with one value, and an actor with leaky preferences (Miller et al. 2023).

    `bandit.ActorCriticRule` has the equations. The prediction error is in units of reward, so a fit
    to dopamine alone includes a gain and an offset. Such a fit determines the critic only and
    leaves an actor that does not learn.

    Args:
        alpha_critic: Learning rate of the critic, from 0 to 1.
        learn: Learning rate of the actor, at least 0.
        forget: Share of each preference that leaks away on every trial, from 0 to 1.
        **kwargs: `gain`, `offset` and `fitted_to` of `CognitiveModel`; `num_observations`,
            `num_arms` and `num_signals` of `Baseline`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.LeakyActorCritic(alpha_critic=0.3, learn=1.0, forget=0.1)
    >>> model(np.zeros((3, 11, 2), "float32"))["choice"].shape
    TensorShape([3, 11, 2])
    """

    alpha_critic = Parameter(RATE_STARTS)
    learn = Parameter((0.1, 3.0))
    forget = Parameter(RATE_STARTS)

    DOPAMINE_PARAMETERS = ("alpha_critic",)
    OWN_SCALE = False

    def __init__(
        self,
        alpha_critic: float | None = None,
        *,
        learn: float | None = None,
        forget: float | None = None,
        **kwargs: Any,
    ) -> None:
        parameters = {"alpha_critic": alpha_critic, "learn": learn, "forget": forget}
        super().__init__(parameters, **kwargs)

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        return ActorCriticRule(**parameters)
