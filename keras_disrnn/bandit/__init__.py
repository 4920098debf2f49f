"""Agents that play bandits, many sessions at once.

Names load on first use. Of them, only `ModelAgent` and `agent_from_model` need TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_disrnn.utils.lazy import load_lazily

if TYPE_CHECKING:
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
    from keras_disrnn.bandit.model_agent import ModelAgent, agent_from_model
    from keras_disrnn.bandit.rules import ActorCriticRule, RewardSeekingRule, Rule, ValueRule
    from keras_disrnn.bandit.sessions import SimulatedSessions
    from keras_disrnn.bandit.simulation import SESSIONS_PER_GROUP, simulate

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
    __getattr__, __dir__ = load_lazily(
        __name__,
        names={
            "ActorCriticRule": "keras_disrnn.bandit.rules",
            "Agent": "keras_disrnn.bandit.agents",
            "BlockBandit": "keras_disrnn.bandit.environments",
            "DifferentialForgettingQLearning": "keras_disrnn.bandit.agents",
            "DriftingBandit": "keras_disrnn.bandit.environments",
            "Environment": "keras_disrnn.bandit.environments",
            "ForgettingQLearning": "keras_disrnn.bandit.agents",
            "LeakyActorCritic": "keras_disrnn.bandit.agents",
            "MappedDopamine": "keras_disrnn.bandit.agents",
            "ModelAgent": "keras_disrnn.bandit.model_agent",
            "QLearning": "keras_disrnn.bandit.agents",
            "RewardSeeking": "keras_disrnn.bandit.agents",
            "RewardSeekingRule": "keras_disrnn.bandit.rules",
            "Rule": "keras_disrnn.bandit.rules",
            "RuleAgent": "keras_disrnn.bandit.agents",
            "SESSIONS_PER_GROUP": "keras_disrnn.bandit.simulation",
            "ScheduledBandit": "keras_disrnn.bandit.environments",
            "SimulatedSessions": "keras_disrnn.bandit.sessions",
            "ValueRule": "keras_disrnn.bandit.rules",
            "agent_from_model": "keras_disrnn.bandit.model_agent",
            "better_arms": "keras_disrnn.bandit.environments",
            "simulate": "keras_disrnn.bandit.simulation",
        },
    )
