"""Baselines: Keras models with the calls of `DisRNNModel`.

A baseline is called, evaluated, saved and exported as `DisRNNModel` is.
"""

from keras_disrnn.models.baselines.fitting import Fit, fit_subjects, subject_estimates
from keras_disrnn.models.baselines.gru import GRU
from keras_disrnn.models.baselines.learners import (
    DifferentialForgettingQLearning,
    ForgettingQLearning,
    LeakyActorCritic,
    QLearning,
)
from keras_disrnn.models.baselines.naive import Naive
from keras_disrnn.models.baselines.pooling import PooledFit, fit_partially_pooled
from keras_disrnn.models.baselines.regression import ValueRegression
from keras_disrnn.models.baselines.strategy_learners import (
    BayesianBelief,
    CompareToThreshold,
    RecursiveLogistic,
    WinStayLoseShift,
)
from keras_disrnn.models.baselines.value_learners import (
    BiasedForgettingQLearning,
    ChoiceKernelQLearning,
    DualRateQLearning,
    FastSlowQLearning,
)

__all__ = [
    "GRU",
    "BayesianBelief",
    "BiasedForgettingQLearning",
    "ChoiceKernelQLearning",
    "CompareToThreshold",
    "DifferentialForgettingQLearning",
    "DualRateQLearning",
    "FastSlowQLearning",
    "Fit",
    "ForgettingQLearning",
    "LeakyActorCritic",
    "Naive",
    "PooledFit",
    "QLearning",
    "RecursiveLogistic",
    "ValueRegression",
    "WinStayLoseShift",
    "fit_partially_pooled",
    "fit_subjects",
    "subject_estimates",
]


def __dir__() -> list[str]:
    return sorted(__all__)
