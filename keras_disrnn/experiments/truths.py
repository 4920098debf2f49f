"""What a fit of each known agent must find: its graph, its variables and its learning rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import networkx
import numpy as np

from keras_disrnn.analysis.graph import make_graph
from keras_disrnn.bandit import WinStayLoseShift
from keras_disrnn.bandit.rules import NUMPY


def _make_graph(
    updates: Mapping[str, Iterable[str]], *, choice: Iterable[str], dopamine: Iterable[str]
) -> networkx.DiGraph:
    """Make a graph from the inputs of each latent, of the choice and of the dopamine readout."""
    edges = [(source, latent) for latent, sources in updates.items() for source in sources]
    edges += [(source, "choice readout") for source in choice]
    edges += [(source, "dopamine readout") for source in dopamine]
    return make_graph(edges)


_OUTCOME = ("choice", "reward")
_TWO_VALUES = _make_graph(
    {"q0": _OUTCOME, "q1": _OUTCOME}, choice=("q0", "q1"), dopamine=("q0", "q1", *_OUTCOME)
)
_ONE_VALUE = _make_graph({"s": _OUTCOME}, choice=("s",), dopamine=("s", *_OUTCOME))
_FOUR_VALUES = _make_graph(
    {name: _OUTCOME for name in ("fast0", "fast1", "slow0", "slow1")},
    choice=("fast0", "fast1", "slow0", "slow1"),
    dopamine=("fast0", "fast1", "slow0", "slow1", *_OUTCOME),
)
_Q = {"Q0": lambda v: v[..., 0], "Q1": lambda v: v[..., 1]}


def _variable(index: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that picks one variable of an agent."""
    return lambda variables: variables[..., index]


def _last(variables: np.ndarray) -> np.ndarray:
    """Return the last choice of two arms: -1, 1, or 0 before the first trial."""
    return variables[..., 1] - variables[..., 0]


def _stay_or_shift(variables: np.ndarray) -> np.ndarray:
    """Return the logit of arm 1 of an agent that wins and stays."""
    logits = WinStayLoseShift().rule.logits(np.moveaxis(variables, -1, 0), NUMPY)
    return logits[1] - logits[0]


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a fit of an agent's choices must find.

    Attributes:
        graph: The agent's graph, with the dopamine readout ("pre"). It has the fewest latents that
            explain the choices: one where the variables of two arms mirror each other.
        variables: For each latent of the graph, by name, the function that computes it from the
            agent's variables `(S, T, V)`.
        rates: Names of variables, and the agent's parameter that is the learning rate of each.
    """

    graph: networkx.DiGraph
    variables: dict[str, Callable[[np.ndarray], np.ndarray]]
    rates: dict[str, str]


TRUTHS = {
    "q_learning": Truth(_TWO_VALUES, _Q, {"Q0": "alpha", "Q1": "alpha"}),
    "differential_forgetting_q_learning": Truth(
        _TWO_VALUES, _Q, {"Q0": "alpha_1", "Q1": "alpha_1"}
    ),
    # Both values decay at the same rate, so their difference is updated from itself, and choice
    # reads nothing else. No choice depends on their sum. Dopamine depends on the chosen value, so
    # the difference predicts it only in part.
    "forgetting_q_learning": Truth(
        _ONE_VALUE, {"Q1 - Q0": lambda v: v[..., 1] - v[..., 0]}, {"Q1 - Q0": "alpha"}
    ),
    "reward_seeking": Truth(_ONE_VALUE, {"s": lambda v: v[..., 0]}, {"s": "alpha"}),
    # With two arms the preferences mirror each other. The critic updates the actor, and choice does
    # not read it. Dopamine is r - v, so it reads the critic and the reward only.
    "leaky_actor_critic": Truth(
        _make_graph(
            {"theta": (*_OUTCOME, "v"), "v": ("reward",)},
            choice=("theta",),
            dopamine=("v", "reward"),
        ),
        {"theta1 - theta0": lambda v: v[..., 1] - v[..., 0], "v": lambda v: v[..., 2]},
        {"v": "alpha_critic"},
    ),
    # The rate of a value depends on the reward, so there is no single one to compare.
    "dual_rate_q_learning": Truth(_TWO_VALUES, _Q, {}),
    # The kernels of two arms mirror each other, but for a constant that choice does not see.
    "choice_kernel_q_learning": Truth(
        _make_graph(
            {"q0": _OUTCOME, "q1": _OUTCOME, "c": ("choice",)},
            choice=("q0", "q1", "c"),
            dopamine=("q0", "q1", *_OUTCOME),
        ),
        _Q | {"C1 - C0": lambda v: v[..., 3] - v[..., 2]},
        {"Q0": "alpha", "Q1": "alpha", "C1 - C0": "alpha_kernel"},
    ),
    "fast_slow_q_learning": Truth(
        _FOUR_VALUES,
        {name: _variable(index) for index, name in enumerate(("F0", "F1", "S0", "S1"))},
        {"F0": "alpha_fast", "F1": "alpha_fast", "S0": "alpha_slow", "S1": "alpha_slow"},
    ),
    "biased_forgetting_q_learning": Truth(_TWO_VALUES, _Q, {"Q0": "alpha_1", "Q1": "alpha_1"}),
    # A belief is not updated at one rate.
    "bayesian_belief": Truth(_ONE_VALUE, {"belief": _variable(0)}, {}),
    # Choice reads the evidence and the last choice; dopamine reads the evidence.
    "recursive_logistic": Truth(
        _make_graph(
            {"phi": _OUTCOME, "side": ("choice",)},
            choice=("phi", "side"),
            dopamine=("phi", *_OUTCOME),
        ),
        {"phi": _variable(0), "side": _variable(1)},
        {},
    ),
    # A new arm is worth the threshold, so the value and dopamine depend on the last choice too.
    "compare_to_threshold": Truth(
        _make_graph(
            {"side": ("choice",), "v": (*_OUTCOME, "side")},
            choice=("side", "v"),
            dopamine=("side", "v", *_OUTCOME),
        ),
        {"last": _last, "v": _variable(2)},
        {},
    ),
    # What the last trial says of the next choice, stay with the arm or shift to the other, is one
    # number. It keeps nothing of the trials before.
    "win_stay_lose_shift": Truth(
        _make_graph({"s": _OUTCOME}, choice=("s",), dopamine=("reward",)),
        {"logit": _stay_or_shift},
        {},
    ),
}
"""What must be found of each agent, by the agent's name, at its default parameters."""
