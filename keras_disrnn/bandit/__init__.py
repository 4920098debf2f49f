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
    from keras_disrnn.bandit.strategy_agents import (
        BayesianBelief,
        CompareToThreshold,
        RecursiveLogistic,
        WinStayLoseShift,
    )
    from keras_disrnn.bandit.strategy_rules import (
        BeliefRule,
        RecursiveLogisticRule,
        ThresholdRule,
        WinStayLoseShiftRule,
    )
    from keras_disrnn.bandit.value_agents import (
        BiasedForgettingQLearning,
        ChoiceKernelQLearning,
        DualRateQLearning,
        FastSlowQLearning,
    )
    from keras_disrnn.bandit.value_rules import (
        BiasedForgettingRule,
        ChoiceKernelRule,
        DualRateRule,
        FastSlowRule,
    )

__all__ = [
    "SESSIONS_PER_GROUP",
    "ActorCriticRule",
    "Agent",
    "BayesianBelief",
    "BeliefRule",
    "BiasedForgettingQLearning",
    "BiasedForgettingRule",
    "BlockBandit",
    "ChoiceKernelQLearning",
    "ChoiceKernelRule",
    "CompareToThreshold",
    "DifferentialForgettingQLearning",
    "DriftingBandit",
    "DualRateQLearning",
    "DualRateRule",
    "Environment",
    "FastSlowQLearning",
    "FastSlowRule",
    "ForgettingQLearning",
    "LeakyActorCritic",
    "MappedDopamine",
    "ModelAgent",
    "QLearning",
    "RecursiveLogistic",
    "RecursiveLogisticRule",
    "RewardSeeking",
    "RewardSeekingRule",
    "Rule",
    "RuleAgent",
    "ScheduledBandit",
    "SimulatedSessions",
    "ThresholdRule",
    "ValueRule",
    "WinStayLoseShift",
    "WinStayLoseShiftRule",
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
            "BayesianBelief": "keras_disrnn.bandit.strategy_agents",
            "BeliefRule": "keras_disrnn.bandit.strategy_rules",
            "BiasedForgettingQLearning": "keras_disrnn.bandit.value_agents",
            "BiasedForgettingRule": "keras_disrnn.bandit.value_rules",
            "BlockBandit": "keras_disrnn.bandit.environments",
            "ChoiceKernelQLearning": "keras_disrnn.bandit.value_agents",
            "ChoiceKernelRule": "keras_disrnn.bandit.value_rules",
            "CompareToThreshold": "keras_disrnn.bandit.strategy_agents",
            "DifferentialForgettingQLearning": "keras_disrnn.bandit.agents",
            "DriftingBandit": "keras_disrnn.bandit.environments",
            "DualRateQLearning": "keras_disrnn.bandit.value_agents",
            "DualRateRule": "keras_disrnn.bandit.value_rules",
            "Environment": "keras_disrnn.bandit.environments",
            "FastSlowQLearning": "keras_disrnn.bandit.value_agents",
            "FastSlowRule": "keras_disrnn.bandit.value_rules",
            "ForgettingQLearning": "keras_disrnn.bandit.agents",
            "LeakyActorCritic": "keras_disrnn.bandit.agents",
            "MappedDopamine": "keras_disrnn.bandit.agents",
            "ModelAgent": "keras_disrnn.bandit.model_agent",
            "QLearning": "keras_disrnn.bandit.agents",
            "RecursiveLogistic": "keras_disrnn.bandit.strategy_agents",
            "RecursiveLogisticRule": "keras_disrnn.bandit.strategy_rules",
            "RewardSeeking": "keras_disrnn.bandit.agents",
            "RewardSeekingRule": "keras_disrnn.bandit.rules",
            "Rule": "keras_disrnn.bandit.rules",
            "RuleAgent": "keras_disrnn.bandit.agents",
            "SESSIONS_PER_GROUP": "keras_disrnn.bandit.simulation",
            "ScheduledBandit": "keras_disrnn.bandit.environments",
            "SimulatedSessions": "keras_disrnn.bandit.sessions",
            "ThresholdRule": "keras_disrnn.bandit.strategy_rules",
            "ValueRule": "keras_disrnn.bandit.rules",
            "WinStayLoseShift": "keras_disrnn.bandit.strategy_agents",
            "WinStayLoseShiftRule": "keras_disrnn.bandit.strategy_rules",
            "agent_from_model": "keras_disrnn.bandit.model_agent",
            "better_arms": "keras_disrnn.bandit.environments",
            "simulate": "keras_disrnn.bandit.simulation",
        },
    )
