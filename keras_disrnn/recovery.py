"""Whether the whole procedure finds a known agent again: data, penalties, both stages, the truth.

For each seed, sessions of an agent are made, a model is fitted to them with penalties chosen by
`keras_disrnn.selection`, and held against the agent: its graph, its likelihood, its variables.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.optimize
import tensorflow as tf

from keras_disrnn import bandit, native
from keras_disrnn.analysis.evaluation import compute_evaluation
from keras_disrnn.analysis.graph import (
    choice_part,
    compute_graph,
    describe_graph,
    make_graph,
    same_graph,
)
from keras_disrnn.data import Columns, sessions_from_table
from keras_disrnn.files import write_text
from keras_disrnn.model import DisRNNModel
from keras_disrnn.selection import select
from keras_disrnn.training import compute_latents

COLUMNS = Columns(dopamine="dopamine", trial="trial")
"""The columns of `SimulatedSessions.to_table()`."""


def _graph(updates, choice, dopamine):
    """A graph from what each latent, the choice readout and the dopamine readout read."""
    edges = [(source, latent) for latent, sources in updates.items() for source in sources]
    edges += [(source, "choice readout") for source in choice]
    edges += [(source, "dopamine readout") for source in dopamine]
    return make_graph(edges)


_OUTCOME = ("choice", "reward")
_TWO_VALUES = _graph({"q0": _OUTCOME, "q1": _OUTCOME}, ("q0", "q1"), ("q0", "q1", *_OUTCOME))
_ONE_VALUE = _graph({"s": _OUTCOME}, ("s",), ("s", *_OUTCOME))


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a fit of an agent's choices must find.

    Attributes:
        make: Makes the agent.
        graph: Its graph, the dopamine readout ("pre") included. Written in the smallest form that
            the choices can tell: where two arms' variables mirror each other it has one.
        variables: Functions from the agent's variables `(S, T, V)` to each latent that the graph
            has, by name.
    """

    make: type
    graph: object
    variables: dict


TRUTHS = {
    "q_learning": Truth(
        bandit.QLearning, _TWO_VALUES, {"Q0": lambda v: v[..., 0], "Q1": lambda v: v[..., 1]}
    ),
    "differential_forgetting_q_learning": Truth(
        bandit.DifferentialForgettingQLearning,
        _TWO_VALUES,
        {"Q0": lambda v: v[..., 0], "Q1": lambda v: v[..., 1]},
    ),
    # Both values decay alike, so their difference is updated from itself, and it is all that
    # choice reads. Their sum is in no choice: dopamine, which has the chosen value, can be
    # predicted as far as the difference tells it.
    "forgetting_q_learning": Truth(
        bandit.ForgettingQLearning, _ONE_VALUE, {"Q1 - Q0": lambda v: v[..., 1] - v[..., 0]}
    ),
    "reward_seeking": Truth(bandit.RewardSeeking, _ONE_VALUE, {"s": lambda v: v[..., 0]}),
    # With two arms the preferences mirror each other. The critic teaches the actor, choice does
    # not read it, and dopamine, r - v, reads nothing but it and the reward.
    "leaky_actor_critic": Truth(
        bandit.LeakyActorCritic,
        _graph({"theta": (*_OUTCOME, "v"), "v": ("reward",)}, ("theta",), ("v", "reward")),
        {"theta1 - theta0": lambda v: v[..., 1] - v[..., 0], "v": lambda v: v[..., 2]},
    ),
}
"""The agents by name, with default parameters, and what must be found of each."""


@dataclasses.dataclass(frozen=True)
class RecoverySettings:
    """The sessions of each seed.

    Args:
        sessions: Training sessions.
        trials: Trials in a session.
        held_out_sessions: Further sessions, for the scores.
        drift: Standard deviation of the change of p(reward) from trial to trial.
    """

    sessions: int = 300
    trials: int = 200
    held_out_sessions: int = 300
    drift: float = 0.1


def simulate_agent(name, settings, seed):
    """Training and held-out sessions of an agent at the drifting bandit.

    Args:
        name: A name of `TRUTHS`.
        settings: `RecoverySettings`.
        seed: Of the sessions.

    Returns:
        Two pairs of `Sessions` and the `SimulatedSessions` they were made from.
    """
    parts, first = [], 0
    for count in (settings.sessions, settings.held_out_sessions):
        played = bandit.simulate(
            TRUTHS[name].make(),
            bandit.DriftingBandit(sigma=settings.drift),
            sessions=count,
            trials=settings.trials,
            seed=seed,
            first_session=first,
        )
        parts.append((sessions_from_table(played.to_table(), COLUMNS), played))
        first += count
    return parts


def compute_recovery(model, name, sessions, played):
    """Holds a fitted model against the agent whose sessions these are.

    Args:
        model: A `DisRNNModel` fitted to other sessions of the agent.
        name: The agent's name in `TRUTHS`.
        sessions: Held-out `Sessions`.
        played: The `SimulatedSessions` they were made from.

    Returns:
        A dict: `choice_graph` and `graph`, whether the graph without and with the dopamine readout
        is the agent's up to renaming; `found`, it in words; `likelihood`, `true_likelihood`,
        `difference` and `difference_se` (normalized, paired by session); `dopamine_r2`; and for
        each variable of the agent `NAME: latent`, its partner in the best one-to-one match,
        `NAME: r`, their absolute correlation, and `NAME: linear_r2`, the R^2 of a linear map from
        all latents of the graph.
    """
    truth = TRUTHS[name]
    graph = compute_graph(model)
    result = {
        "choice_graph": same_graph(choice_part(graph), choice_part(truth.graph)),
        "graph": same_graph(graph, truth.graph),
        "found": describe_graph(graph),
    }
    scores = compute_evaluation(
        model, sessions, batch_size=256, reference=played.chosen_probability
    ).summary
    choice = scores["choice"]
    result |= {
        "likelihood": choice["normalized_likelihood"],
        "true_likelihood": choice["reference_normalized_likelihood"],
        "difference": choice["difference"],
        "difference_se": choice["difference_se"],
    }
    if "dopamine" in scores:
        result["dopamine_r2"] = scores["dopamine"]["r2"]
    # The latents after row t are what trial t is chosen from, as the agent's variables are.
    latents = compute_latents(model, sessions.features)[:, :-1].reshape(-1, model.core.cell.latents)
    kept = sorted(node for node, kind in graph.nodes(data="kind") if kind == "latent")
    columns = latents[:, [int(node[1:]) - 1 for node in kept]].astype(np.float64)
    variables = np.stack(
        [
            np.asarray(of(played.variables), np.float64).reshape(-1)
            for of in truth.variables.values()
        ],
        axis=-1,
    )
    return result | _match(columns, kept, variables, list(truth.variables))


def _match(latents, latent_names, variables, variable_names):
    """Best one-to-one match by |r|, and linear maps."""
    result = {}
    correlation = np.zeros((len(variable_names), len(latent_names)))
    moving = latents.std(axis=0) > 0
    if moving.any():
        both = np.corrcoef(variables.T, latents[:, moving].T)
        correlation[:, moving] = np.abs(both[: len(variable_names), len(variable_names) :])
    rows, columns = scipy.optimize.linear_sum_assignment(-correlation)
    partner = dict(zip(rows, columns, strict=True))
    design = np.column_stack([latents, np.ones(len(latents))])
    fitted = design @ np.linalg.lstsq(design, variables, rcond=None)[0]
    left = ((variables - fitted) ** 2).sum(axis=0) / (
        (variables - variables.mean(axis=0)) ** 2
    ).sum(axis=0)
    for index, name in enumerate(variable_names):
        column = partner.get(index)
        result |= {
            f"{name}: latent": None if column is None else latent_names[column],
            f"{name}: r": 0.0 if column is None else float(correlation[index, column]),
            f"{name}: linear_r2": float(1 - left[index]),
        }
    return result


def recover(out, agent, seeds, settings, model, selection, *, workers=1, report=print):
    """Fits an agent's sessions for several seeds and holds each fit against the truth.

    Args:
        out: The folder of results: `seed-N/` with `model.keras`, the tables of the selection and
            `result.json` for each seed, and `recovery.csv`. Seeds that are there already, of the
            same settings, are taken as they are.
        agent: A name of `TRUTHS`.
        seeds: The seeds, each of the sessions, the initial weights, the noise and the batches.
        settings: `RecoverySettings`.
        model: Dict of arguments of `DisRNNModel`.
        selection: `SelectionSettings`.
        workers: Processes side by side, each with one thread.
        report: Called with a line of text as each seed ends.

    Returns:
        A `pandas.DataFrame`, one row a seed, with what `compute_recovery` gives, `scale` and
        `dopamine_scale`, `notes` (what was not clear-cut) and `seconds`.

    Raises:
        ValueError: If the agent is unknown, or the folder holds results of other settings.
    """
    if agent not in TRUTHS:
        raise ValueError(f"agent: expected one of {', '.join(TRUTHS)}, got {agent!r}")
    out = Path(out)
    config = json.loads(
        json.dumps(
            {
                "agent": agent,
                "data": dataclasses.asdict(settings),
                "model": model,
                "selection": dataclasses.asdict(selection),
            }
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "config.json"
    if stored.exists() and json.loads(stored.read_text(encoding="utf-8")) != config:
        raise ValueError(f"{out}: holds results of other settings; choose another folder")
    write_text(stored, json.dumps(config, indent=2))
    left = [seed for seed in seeds if not (out / f"seed-{seed}" / "result.json").exists()]
    arguments = [(out, agent, seed, settings, model, selection) for seed in left]
    if workers == 1:
        for given in arguments:
            report(_line(_recover_seed(*given)))
    else:
        # Spawned, because TensorFlow's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, context, _use_one_thread) as pool:
            waiting = [pool.submit(_recover_seed, *given) for given in arguments]
            for done in concurrent.futures.as_completed(waiting):
                report(_line(done.result()))
    rows = [
        json.loads((out / f"seed-{seed}" / "result.json").read_text(encoding="utf-8"))
        for seed in seeds
    ]
    table = pd.DataFrame(rows)
    write_text(out / "recovery.csv", table.to_csv(index=False))
    return table


def _use_one_thread():
    tf.config.threading.set_intra_op_parallelism_threads(1)
    native.yield_processors()


def _recover_seed(out, agent, seed, settings, model, selection):
    began = time.monotonic()
    folder = out / f"seed-{seed}"
    (train, _), (held_out, played) = simulate_agent(agent, settings, seed)

    def make(model_seed):
        made = DisRNNModel(
            observations=train.observations,
            arms=train.arms,
            signals=train.signals,
            **model,
            seed=model_seed,
        )
        made.build((None, None, train.observations))
        return made

    fitted, selections = select(make, train, selection, seed=seed, folder=folder / "paths")
    result = {"agent": agent, "seed": seed}
    result |= compute_recovery(fitted, agent, held_out, played)
    notes = []
    for stage, found in selections.items():
        write_text(folder / f"{stage}_penalties.csv", found.table.to_csv(index=False))
        notes += found.notes
    result |= {
        "scale": selections["choice"].scale,
        "dopamine_scale": selections["dopamine"].scale,
        "notes": " ".join(notes),
        "seconds": time.monotonic() - began,
    }
    fitted.save(folder / "model.keras")
    write_text(folder / "result.json", json.dumps(result, indent=2))
    return result


def _line(result):
    graph = "found" if result["graph"] else f"not found ({result['found']})"
    return (
        f"{result['agent']}, seed {result['seed']}: graph {graph}, likelihood "
        f"{result['difference']:+.5f}, dopamine R^2 {result['dopamine_r2']:.4f}, "
        f"penalties x{result['scale']:g} and x{result['dopamine_scale']:g}, "
        f"{result['seconds']:.0f} s"
    )


def summarize_recovery(table):
    """One row of rates and means from the table of `recover`.

    Args:
        table: What `recover` returned.

    Returns:
        A dict: `agent`, `seeds`, `graph` and `choice_graph` (how many seeds have it),
        `difference` and `difference_min` (normalized likelihood minus the true agent's),
        `dopamine_r2_min`, and `r_min`, the smallest correlation of a variable with its latent.
    """
    correlations = table[[name for name in table if name.endswith(": r")]]
    return {
        "agent": table["agent"].iloc[0],
        "seeds": len(table),
        "graph": int(table["graph"].sum()),
        "choice_graph": int(table["choice_graph"].sum()),
        "difference": float(table["difference"].mean()),
        "difference_min": float(table["difference"].min()),
        "dopamine_r2_min": float(table["dopamine_r2"].min()),
        "r_min": float(correlations.min(axis=None)),
    }
