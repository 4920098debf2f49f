"""Agents playing bandits, simulated many sessions at once."""

from keras_disrnn.bandit.agents import Agent, QLearning
from keras_disrnn.bandit.environments import DriftingBandit, Environment
from keras_disrnn.bandit.simulate import SimulatedSessions, simulate

__all__ = ["Agent", "DriftingBandit", "Environment", "QLearning", "SimulatedSessions", "simulate"]
