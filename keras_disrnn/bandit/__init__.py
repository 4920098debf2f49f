"""Agents that play bandits, many sessions at once.

`ModelAgent` and `agent_from_model` load when they are first used, because they need TensorFlow.
"""

from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in ("ModelAgent", "agent_from_model"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from keras_disrnn.bandit import model_agent

    globals()[name] = value = getattr(model_agent, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
