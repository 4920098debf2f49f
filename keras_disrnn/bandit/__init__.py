"""Agents that play bandits, many sessions at once.

`ModelAgent` and `agent_from_model` load when they are first used, because they need TensorFlow.
"""

from typing import TYPE_CHECKING

from keras_disrnn.bandit.agents import (
    Agent,
    DifferentialForgettingQLearning,
    ForgettingQLearning,
    LeakyActorCritic,
    MappedDopamine,
    QLearning,
    RewardSeeking,
    RuleAgent,
)
from keras_disrnn.bandit.environments import (
    BlockBandit,
    DriftingBandit,
    Environment,
    ScheduledBandit,
    better_arms,
)
from keras_disrnn.bandit.rules import ActorCriticRule, RewardSeekingRule, Rule, ValueRule
from keras_disrnn.bandit.sessions import SimulatedSessions
from keras_disrnn.bandit.simulation import SESSIONS_PER_GROUP, simulate
from keras_disrnn.utils.lazy import load_lazily

if TYPE_CHECKING:
    from keras_disrnn.bandit.model_agent import ModelAgent, agent_from_model

__all__ = [
    "SESSIONS_PER_GROUP",
    "ActorCriticRule",
    "Agent",
    "BlockBandit",
    "DifferentialForgettingQLearning",
    "DriftingBandit",
    "Environment",
    "ForgettingQLearning",
    "LeakyActorCritic",
    "MappedDopamine",
    "ModelAgent",
    "QLearning",
    "RewardSeeking",
    "RewardSeekingRule",
    "Rule",
    "RuleAgent",
    "ScheduledBandit",
    "SimulatedSessions",
    "ValueRule",
    "agent_from_model",
    "better_arms",
    "simulate",
]


if not TYPE_CHECKING:
    _late = dict.fromkeys(("ModelAgent", "agent_from_model"), "keras_disrnn.bandit.model_agent")
    __getattr__, __dir__ = load_lazily(__name__, names=_late)
