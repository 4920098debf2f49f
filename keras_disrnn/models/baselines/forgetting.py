"""Forgetting Q-learning."""

import keras

from keras_disrnn.models.baselines.fitting import Parameter
from keras_disrnn.models.baselines.values import KAPPAS, RATE, ValueModel


@keras.saving.register_keras_serializable("keras_disrnn")
class ForgettingQLearning(ValueModel):
    """Forgetting Q-learning, FQ: `DifferentialForgettingQLearning` with `alpha_1 = alpha_2`.

    Args:
        alpha: Learning rate of the chosen value and forgetting rate of the others, from 0 to 1.
        kappa_1: What a reward is worth.
        kappa_2: How aversive its omission is.
        gain, offset, num_observations, num_arms, num_signals: As for `CognitiveModel`.
    """

    PARAMETERS = (Parameter("alpha", **RATE), *KAPPAS)

    def __init__(self, alpha=None, kappa_1=None, kappa_2=None, **kwargs):
        super().__init__({"alpha": alpha, "kappa_1": kappa_1, "kappa_2": kappa_2}, **kwargs)

    @staticmethod
    def rates(parameters):
        return parameters["alpha"], parameters["alpha"]
