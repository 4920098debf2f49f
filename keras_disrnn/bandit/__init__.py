"""Agents playing bandits, simulated many sessions at once."""

from keras_disrnn.bandit.agents import (
    Agent,
    DifferentialForgettingQLearning,
    ForgettingQLearning,
    LeakyActorCritic,
    QLearning,
    RewardSeeking,
)
from keras_disrnn.bandit.environments import DriftingBandit, Environment
from keras_disrnn.bandit.simulate import SESSIONS_PER_GROUP, SimulatedSessions, simulate

__all__ = [
    "SESSIONS_PER_GROUP",
    "Agent",
    "DifferentialForgettingQLearning",
    "DriftingBandit",
    "Environment",
    "ForgettingQLearning",
    "LeakyActorCritic",
    "QLearning",
    "RewardSeeking",
    "SimulatedSessions",
    "simulate",
]
