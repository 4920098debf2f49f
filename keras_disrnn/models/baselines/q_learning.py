"""Q-learning."""

import keras

from keras_disrnn.models.baselines.fitting import Parameter
from keras_disrnn.models.baselines.values import KAPPAS, RATE, ValueModel


@keras.saving.register_keras_serializable("keras_disrnn")
class QLearning(ValueModel):
    """Q-learning: `DifferentialForgettingQLearning` that forgets nothing (`alpha_2 = 0`).

    `bandit.QLearning(alpha, beta)`, whose values start at 0.5, is the same model with
    `kappa_1 = kappa_2 = beta / 2` for choice, and 1 / 2 for dopamine.

    Args:
        alpha: Learning rate, from 0 to 1.
        kappa_1: What a reward is worth.
        kappa_2: How aversive its omission is.
        gain, offset, num_observations, num_arms, num_signals: As for `CognitiveModel`.
    """

    PARAMETERS = (Parameter("alpha", **RATE), *KAPPAS)

    def __init__(self, alpha=None, kappa_1=None, kappa_2=None, **kwargs):
        super().__init__({"alpha": alpha, "kappa_1": kappa_1, "kappa_2": kappa_2}, **kwargs)

    @staticmethod
    def rates(parameters):
        return parameters["alpha"], 0.0
