"""Whether the whole procedure finds a known agent again: data, penalties, both stages, the truth.

For each seed, sessions of an agent are made, a model is fitted to them with penalties chosen by
`keras_disrnn.selection`, and held against the agent: its graph, its likelihood, its variables.
"""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.optimize

from keras_disrnn.analysis.evaluation import compute_evaluation
from keras_disrnn.analysis.formulas import compute_formulas
from keras_disrnn.analysis.graph import (
    choice_part,
    compute_graph,
    describe_graph,
    make_graph,
    same_graph,
)
from keras_disrnn.experiments.data import simulate_data
from keras_disrnn.experiments.run import make_model
from keras_disrnn.experiments.selection import select
from keras_disrnn.experiments.settings import plain_config
from keras_disrnn.experiments.workers import run_tasks
from keras_disrnn.io.keras_file import save_model
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.utils.files import write_text


def _graph(updates, choice, dopamine):
    """A graph from what each latent, the choice readout and the dopamine readout read."""
    edges = [(source, latent) for latent, sources in updates.items() for source in sources]
    edges += [(source, "choice readout") for source in choice]
    edges += [(source, "dopamine readout") for source in dopamine]
    return make_graph(edges)


_OUTCOME = ("choice", "reward")
_TWO_VALUES = _graph({"q0": _OUTCOME, "q1": _OUTCOME}, ("q0", "q1"), ("q0", "q1", *_OUTCOME))
_Q = {"Q0": lambda v: v[..., 0], "Q1": lambda v: v[..., 1]}
_ONE_VALUE = _graph({"s": _OUTCOME}, ("s",), ("s", *_OUTCOME))


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a fit of an agent's choices must find.

    Attributes:
        graph: Its graph, the dopamine readout ("pre") included. Written in the smallest form that
            the choices can tell: where two arms' variables mirror each other it has one.
        variables: Functions from the agent's variables `(S, T, V)` to each latent that the graph
            has, by name.
        rates: Name of a variable to the agent's parameter that is its learning rate.
    """

    graph: object
    variables: dict
    rates: dict


TRUTHS = {
    "q_learning": Truth(
        _TWO_VALUES,
        _Q,
        {"Q0": "alpha", "Q1": "alpha"},
    ),
    "differential_forgetting_q_learning": Truth(
        _TWO_VALUES,
        _Q,
        {"Q0": "alpha_1", "Q1": "alpha_1"},
    ),
    # Both values decay alike, so their difference is updated from itself, and it is all that
    # choice reads. Their sum is in no choice: dopamine, which has the chosen value, can be
    # predicted as far as the difference tells it.
    "forgetting_q_learning": Truth(
        _ONE_VALUE, {"Q1 - Q0": lambda v: v[..., 1] - v[..., 0]}, {"Q1 - Q0": "alpha"}
    ),
    "reward_seeking": Truth(_ONE_VALUE, {"s": lambda v: v[..., 0]}, {"s": "alpha"}),
    # With two arms the preferences mirror each other. The critic teaches the actor, choice does
    # not read it, and dopamine, r - v, reads nothing but it and the reward.
    "leaky_actor_critic": Truth(
        _graph({"theta": (*_OUTCOME, "v"), "v": ("reward",)}, ("theta",), ("v", "reward")),
        {"theta1 - theta0": lambda v: v[..., 1] - v[..., 0], "v": lambda v: v[..., 2]},
        {"v": "alpha_critic"},
    ),
}
"""The agents by name, with default parameters, and what must be found of each."""


def compute_recovery(model, agent, sessions, played):
    """Holds a fitted model against the agent whose sessions these are.

    Args:
        model: A `DisRNNModel` fitted to other sessions of the agent.
        agent: The agent, of `keras_disrnn.bandit`.
        sessions: Held-out `Sessions`.
        played: The `SimulatedSessions` they were made from.

    Returns:
        A dict: `choice_graph` and `graph`, whether the graph without and with the dopamine readout
        is the agent's up to renaming; `found`, it in words; `likelihood`, `true_likelihood`,
        `difference` and `difference_se` (normalized, paired by session); `dopamine_r2`; and for
        each variable of the agent `NAME: latent`, its partner in the best one-to-one match,
        `NAME: r`, their absolute correlation, `NAME: linear_r2`, the R^2 of a linear map from all
        latents of the graph, and, where it has a learning rate, `NAME: true_alpha` and
        `NAME: alpha`, that of its partner's update rule (see `Formulas.learning_rates`; of the
        choices the one that moves it most).
    """
    truth = TRUTHS[agent.name]
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
    latents = predict_latents(model, sessions.features)[:, :-1].reshape(
        -1, model.core.cell.num_latents
    )
    kept = sorted(node for node, kind in graph.nodes(data="kind") if kind == "latent")
    columns = latents[:, [int(node[1:]) - 1 for node in kept]].astype(np.float64)
    variables = np.stack(
        [
            np.asarray(of(played.variables), np.float64).reshape(-1)
            for of in truth.variables.values()
        ],
        axis=-1,
    )
    result |= _match(columns, kept, variables, list(truth.variables))
    rates = compute_formulas(model, sessions).learning_rates().groupby("latent")["alpha"].max()
    for name, parameter in truth.rates.items():
        result[f"{name}: true_alpha"] = getattr(agent, parameter)
        result[f"{name}: alpha"] = rates.get(result[f"{name}: latent"], None)
    return result


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


def recover(out, seeds, data, model, selection, *, workers=1, report=print):
    """Fits an agent's sessions for several seeds and holds each fit against the truth.

    Args:
        out: The folder of results: `seed-N/` with `model.keras`, the tables of the selection and
            `result.json` for each seed, and `recovery.csv`. Seeds that are there already, of the
            same settings, are taken as they are.
        seeds: The seeds, each of the sessions, the initial weights, the noise and the batches.
        data: `keras_disrnn.run.SyntheticData`.
        model: `keras_disrnn.run.ModelSettings`.
        selection: `SelectionSettings`.
        workers: Processes side by side, each with one thread.
        report: Called with a line of text as each seed ends.

    Returns:
        A `pandas.DataFrame`, one row a seed, with what `compute_recovery` gives, `scale` and
        `dopamine_scale`, `notes` (what was not clear-cut) and `seconds`.

    Raises:
        ValueError: If the folder holds results of other settings.
    """
    out = Path(out)
    config = plain_config({"data": data, "model": model, "selection": selection})
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "config.json"
    if stored.exists() and json.loads(stored.read_text(encoding="utf-8")) != config:
        raise ValueError(f"{out}: holds results of other settings; choose another folder")
    write_text(stored, json.dumps(config, indent=2))
    left = [seed for seed in seeds if not (out / f"seed-{seed}" / "result.json").exists()]
    arguments = [(out, seed, data, model, selection) for seed in left]
    engine = "inline" if workers == 1 else "local"
    for outcome in run_tasks(_recover_seed, arguments, engine=engine, workers=workers):
        if outcome.error is not None:
            raise outcome.error
        report(_line(outcome.value))
    rows = [
        json.loads((out / f"seed-{seed}" / "result.json").read_text(encoding="utf-8"))
        for seed in seeds
    ]
    table = pd.DataFrame(rows)
    write_text(out / "recovery.csv", table.to_csv(index=False))
    return table


def _recover_seed(out, seed, data, model, selection):
    began = time.monotonic()
    folder = out / f"seed-{seed}"
    parts = simulate_data(data, seed)
    train = parts["train"][0]
    fitted, selections = select(
        lambda model_seed: make_model(train, model, model_seed),
        train,
        selection,
        seed=seed,
        folder=folder / "paths",
    )
    result = {"agent": data.agent, "seed": seed}
    result |= compute_recovery(fitted, data.make_agent(), *parts["held_out"])
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
    save_model(fitted, folder / "model.keras")
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
        `dopamine_r2_min`, `r_min`, the smallest correlation of a variable with its latent, and
        `alpha_error`, the mean distance of the learning rates from the agent's (of latents that
        were found).
    """
    correlations = table[[name for name in table if name.endswith(": r")]]
    names = [name.removesuffix(": alpha") for name in table if name.endswith(": alpha")]
    errors = np.array(
        [table[f"{name}: alpha"] - table[f"{name}: true_alpha"] for name in names], np.float64
    )
    errors = np.abs(errors[np.isfinite(errors)])
    return {
        "agent": table["agent"].iloc[0],
        "seeds": len(table),
        "graph": int(table["graph"].sum()),
        "choice_graph": int(table["choice_graph"].sum()),
        "difference": float(table["difference"].mean()),
        "difference_min": float(table["difference"].min()),
        "dopamine_r2_min": float(table["dopamine_r2"].min()),
        "r_min": float(correlations.min(axis=None)),
        "alpha_error": float(errors.mean()) if errors.size else float("nan"),
    }
