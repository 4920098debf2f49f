"""The leaky actor-critic."""

import keras
from keras import ops

from keras_disrnn.bandit import agents
from keras_disrnn.models.baselines.cognitive import CognitiveModel
from keras_disrnn.models.baselines.fitting import Parameter
from keras_disrnn.models.baselines.values import RATE


@keras.saving.register_keras_serializable("keras_disrnn")
class LeakyActorCritic(CognitiveModel):
    """A critic of one value, and an actor of preferences that leak (Miller et al. 2023).

    The critic's value `v` starts at 0.5, each arm's preference `theta` at 0. On every trial

        p = softmax(theta)
        dopamine      = reward - v                 (the value before the update)
        theta_choice <- (1 - forget) theta_choice + learn dopamine (1 - p_choice)
        theta_other  <- (1 - forget) theta_other - learn dopamine p_other
        v            <- (1 - alpha_critic) v + alpha_critic reward

    Its prediction error is in rewards, so a fit to dopamine alone has a gain and an offset; it
    finds the critic only, and leaves an actor that does not learn.

    Args:
        alpha_critic: The critic's learning rate, from 0 to 1.
        learn: The actor's learning rate, at least 0.
        forget: How much the preferences leak on each trial, from 0 to 1.
        gain, offset, num_observations, num_arms, num_signals: As for `CognitiveModel`.
    """

    PARAMETERS = (
        Parameter("alpha_critic", **RATE),
        Parameter("learn", 0, float("inf"), (0.1, 3.0)),
        Parameter("forget", **RATE),
    )
    DOPAMINE_PARAMETERS = ("alpha_critic",)
    OWN_SCALE = False

    def __init__(self, alpha_critic=None, learn=None, forget=None, **kwargs):
        parameters = {"alpha_critic": alpha_critic, "learn": learn, "forget": forget}
        super().__init__(parameters, **kwargs)

    @classmethod
    def played_as(cls, parameters):
        return agents.LeakyActorCritic(**parameters)

    @staticmethod
    def initial_values(parameters, arms, dtype):
        return ops.concatenate([ops.zeros((arms,), dtype), ops.full((1,), 0.5, dtype)])

    @classmethod
    def update(cls, parameters, choice, reward, values):
        theta, critic = values[..., :-1], values[..., -1:]
        error = reward - critic
        theta = (1 - parameters["forget"]) * theta + parameters["learn"] * error * (
            choice - ops.softmax(theta, axis=-1)
        )
        return ops.concatenate([theta, critic + parameters["alpha_critic"] * error], axis=-1)

    @classmethod
    def error(cls, parameters, choice, reward, values):
        return (reward - values[..., -1:])[..., 0]

    @classmethod
    def logits(cls, parameters, state):
        return state[..., :-2]

    @classmethod
    def _arms(cls, state):
        return state.shape[-1] - 2
