"""Baselines: Keras models that are called, evaluated, saved and exported as `DisRNNModel` is."""

from keras_disrnn.models.baselines.actor_critic import LeakyActorCritic
from keras_disrnn.models.baselines.differential import DifferentialForgettingQLearning
from keras_disrnn.models.baselines.fitting import Fit
from keras_disrnn.models.baselines.forgetting import ForgettingQLearning
from keras_disrnn.models.baselines.gru import GRU
from keras_disrnn.models.baselines.naive import Naive
from keras_disrnn.models.baselines.q_learning import QLearning
from keras_disrnn.models.baselines.subjects import fit_subjects, subject_estimates

__all__ = [
    "GRU",
    "DifferentialForgettingQLearning",
    "Fit",
    "ForgettingQLearning",
    "LeakyActorCritic",
    "Naive",
    "QLearning",
    "fit_subjects",
    "subject_estimates",
]


def __dir__() -> list[str]:
    return sorted(__all__)
