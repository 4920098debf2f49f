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
from keras_disrnn.bandit.simulate import SimulatedSessions, simulate

__all__ = [
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
