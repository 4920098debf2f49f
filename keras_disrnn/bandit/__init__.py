"""Agents playing bandits, simulated many sessions at once."""

from keras_disrnn.bandit.agents import (
    Agent,
    DifferentialForgettingQLearning,
    ForgettingQLearning,
    LeakyActorCritic,
    MappedDopamine,
    QLearning,
    RewardSeeking,
)
from keras_disrnn.bandit.environments import (
    BlockBandit,
    DriftingBandit,
    Environment,
    ScheduledBandit,
    better_arms,
)
from keras_disrnn.bandit.model_agent import ModelAgent, agent_from_model
from keras_disrnn.bandit.simulate import SESSIONS_PER_GROUP, SimulatedSessions, simulate

__all__ = [
    "SESSIONS_PER_GROUP",
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
    "ScheduledBandit",
    "SimulatedSessions",
    "agent_from_model",
    "better_arms",
    "simulate",
]


def __dir__() -> list[str]:
    return sorted(__all__)
