"""Differential forgetting Q-learning."""

import keras

from keras_disrnn.models.baselines.fitting import Parameter
from keras_disrnn.models.baselines.values import KAPPAS, RATE, ValueModel


@keras.saving.register_keras_serializable("keras_disrnn")
class DifferentialForgettingQLearning(ValueModel):
    """Differential forgetting Q-learning, DFQ (Ito & Doya 2009).

    Each arm has a value `Q`, 0 at the start of a session. On every trial

        p(choice = a) = exp(Q_a) / sum_b exp(Q_b)
        target        = kappa_1 if rewarded, -kappa_2 if not
        dopamine      = target - Q_choice          (the value before the update)
        Q_choice     <- (1 - alpha_1) Q_choice + alpha_1 target
        Q_other      <- (1 - alpha_2) Q_other

    With rewards other than 0 and 1 the target is `(kappa_1 + kappa_2) reward - kappa_2`.

    Args:
        alpha_1: Learning rate of the chosen value, from 0 to 1.
        alpha_2: Forgetting rate of the others, from 0 to 1.
        kappa_1: What a reward is worth.
        kappa_2: How aversive its omission is.
        gain, offset, num_observations, num_arms, num_signals: As for `CognitiveModel`.
    """

    PARAMETERS = (Parameter("alpha_1", **RATE), Parameter("alpha_2", **RATE), *KAPPAS)

    def __init__(self, alpha_1=None, alpha_2=None, kappa_1=None, kappa_2=None, **kwargs):
        parameters = {
            "alpha_1": alpha_1,
            "alpha_2": alpha_2,
            "kappa_1": kappa_1,
            "kappa_2": kappa_2,
        }
        super().__init__(parameters, **kwargs)

    @staticmethod
    def rates(parameters):
        return parameters["alpha_1"], parameters["alpha_2"]
