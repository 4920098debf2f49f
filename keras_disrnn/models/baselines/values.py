"""The equations of the forgetting Q-learners."""

from keras import ops

from keras_disrnn.bandit import agents
from keras_disrnn.models.baselines.cognitive import CognitiveModel
from keras_disrnn.models.baselines.fitting import Parameter

RATE = {"lower": 0, "upper": 1, "start": (0.05, 0.95)}
KAPPA = {"lower": -float("inf"), "upper": float("inf"), "start": (0.0, 4.0), "scales": True}
KAPPAS = (Parameter("kappa_1", **KAPPA), Parameter("kappa_2", **KAPPA))


class ValueModel(CognitiveModel):
    """Values that start at 0, of which the chosen one moves and the others fade.

    A subclass names its two rates by `rates`.
    """

    @staticmethod
    def rates(parameters):
        """Learning rate of the chosen value and forgetting rate of the others."""
        raise NotImplementedError

    @classmethod
    def played_as(cls, parameters):
        return agents.DifferentialForgettingQLearning(
            *cls.rates(parameters), parameters["kappa_1"], parameters["kappa_2"]
        )

    @staticmethod
    def initial_values(parameters, arms, dtype):
        return ops.zeros((arms,), dtype)

    @classmethod
    def update(cls, parameters, choice, reward, values):
        learn, forget = cls.rates(parameters)
        target = cls._target(parameters, reward)
        return choice * (values + learn * (target - values)) + (1 - choice) * (1 - forget) * values

    @classmethod
    def error(cls, parameters, choice, reward, values):
        return ops.sum(choice * (cls._target(parameters, reward) - values), axis=-1)

    @staticmethod
    def _target(parameters, reward):
        worth, cost = parameters["kappa_1"], parameters["kappa_2"]
        return (worth + cost) * reward - cost
