"""Test whether the whole procedure recovers a known agent.

For each seed, an agent plays sessions, `select` fits a model to them, and the model is compared
with the agent: its graph, its likelihood and its variables.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.optimize

from keras_disrnn.analysis.evaluation import compute_evaluation
from keras_disrnn.analysis.formulas import compute_formulas
from keras_disrnn.analysis.graph import (
    choice_part,
    compute_graph,
    describe_graph,
    same_graph,
)
from keras_disrnn.experiments.data import simulate_data
from keras_disrnn.experiments.folder import ResultFolder
from keras_disrnn.experiments.run import make_model
from keras_disrnn.experiments.selection import check_selection, select
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import ModelSettings, SyntheticData, plain_config
from keras_disrnn.experiments.truths import TRUTHS
from keras_disrnn.experiments.workers import run_tasks
from keras_disrnn.io.keras_file import save_model
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.checksums import check_checksums, write_checksums
from keras_disrnn.utils.files import read_json, write_json
from keras_disrnn.utils.tables import write_csv

if TYPE_CHECKING:
    from keras_disrnn.bandit import SimulatedSessions
    from keras_disrnn.data import Sessions
    from keras_disrnn.models.disrnn_model import DisRNNModel


def compute_recovery(
    model: DisRNNModel, agent: Any, *, sessions: Sessions, played: SimulatedSessions
) -> dict[str, Any]:
    """Compare a fitted model with the agent whose sessions it was fitted to.

    Args:
        model: The fitted `DisRNNModel`.
        agent: The agent, of `keras_disrnn.bandit`.
        sessions: Held-out sessions of the agent.
        played: The simulated sessions that `sessions` were made from.

    Returns:
        A dict:

        - `choice_graph` and `graph`: whether the graph without and with the dopamine readout is
          the agent's, up to the names of the latents; `found`: the graph in words;
        - `likelihood`, `true_likelihood`, `difference` and `difference_se`: normalized likelihood
          of the model and of the agent, paired by session;
        - `dopamine_r2`, if dopamine was recorded;
        - for each variable of the agent, `NAME: latent`, its partner in the best one-to-one match,
          `NAME: r`, their absolute correlation, and `NAME: linear_r2`, the R^2 of a linear map from
          all latents of the graph;
        - for each variable with a learning rate, `NAME: true_alpha` and `NAME: alpha`, that of its
          partner's update rule (see `Formulas.learning_rates`; the largest over choices).
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
    # The latents after time step t determine the choice of trial t, as the agent's variables do.
    latents = predict_latents(model, sessions.features)[:, :-1].reshape(
        -1, model.core.cell.num_latents
    )
    names = sorted(node for node, kind in graph.nodes(data="kind") if kind == "latent")
    values = latents[:, [int(name[1:]) - 1 for name in names]].astype(np.float64)
    variables = np.stack(
        [
            np.asarray(compute(played.variables), np.float64).reshape(-1)
            for compute in truth.variables.values()
        ],
        axis=-1,
    )
    result |= _match(values, names, variables, list(truth.variables))
    rates = compute_formulas(model, sessions).learning_rates().groupby("latent")["alpha"].max()
    for name, parameter in truth.rates.items():
        result[f"{name}: true_alpha"] = getattr(agent, parameter)
        result[f"{name}: alpha"] = rates.get(result[f"{name}: latent"], None)
    return result


def _match(
    latents: np.ndarray,
    latent_names: list[str],
    variables: np.ndarray,
    variable_names: list[str],
) -> dict[str, Any]:
    """Match variables to latents by |r|, and fit linear maps from all latents."""
    result: dict[str, Any] = {}
    correlation = np.zeros((len(variable_names), len(latent_names)))
    moving = latents.std(axis=0) > 0
    if moving.any():
        both = np.corrcoef(variables.T, latents[:, moving].T)
        correlation[:, moving] = np.abs(both[: len(variable_names), len(variable_names) :])
    rows, columns = scipy.optimize.linear_sum_assignment(-correlation)
    partner = dict(zip(rows, columns, strict=True))
    design = np.column_stack([latents, np.ones(len(latents))])
    fitted = design @ np.linalg.lstsq(design, variables, rcond=None)[0]
    residual = ((variables - fitted) ** 2).sum(axis=0)
    total = ((variables - variables.mean(axis=0)) ** 2).sum(axis=0)
    for index, name in enumerate(variable_names):
        column = partner.get(index)
        result |= {
            f"{name}: latent": None if column is None else latent_names[column],
            f"{name}: r": 0.0 if column is None else float(correlation[index, column]),
            f"{name}: linear_r2": float(1 - residual[index] / total[index]),
        }
    return result


def recover(
    out: str | Path,
    seeds: Iterable[int],
    *,
    data: SyntheticData,
    model: ModelSettings,
    selection: SelectionSettings,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Fit an agent's sessions for several seeds and compare each fit with the agent.

    Args:
        out: The folder of results: `config.yaml`, `seed-N/` for each seed with `model.keras`, the
            tables of the selection and `result.json`, and `recovery.csv`. Seeds that are finished
            are not fitted again.
        seeds: The seeds. Each is the seed of the sessions, the initial weights, the noise and the
            batches.
        data: The agent and the number of its sessions.
        model: The shape of the model and its penalties at scale 1.
        selection: How the penalties are selected.
        workers: Number of processes, each with one thread.
        report: Function that receives a line of text as each seed ends.

    Returns:
        A `pandas.DataFrame` with one row per seed: what `compute_recovery` returns, `scale` and
        `dopamine_scale` (the chosen penalty scales), `notes` (what was not clear-cut) and
        `seconds`.

    Raises:
        FileExistsError: If the folder holds results of other settings, or anything else, or if
            another process works in it.
        ValueError: If a setting is wrong, or a file in the folder is damaged.
    """
    seeds = list(seeds)
    check_recovery(seeds, data=data, model=model, selection=selection, workers=workers)
    folder = ResultFolder(
        out,
        plain_config({"data": data, "model": model, "selection": selection}),
        command="recover",
    )
    results = [folder.path / f"seed-{seed}" / "result.json" for seed in seeds]
    with folder.begin():
        # A damaged result is found before the first fit.
        found = {path: _read_result(path) for path in results if path.exists()}
        tasks = [
            (result.parent, seed, data, model, selection)
            for seed, result in zip(seeds, results, strict=True)
            if result not in found
        ]
        engine: Literal["inline", "local"] = "inline" if workers == 1 else "local"
        for outcome in run_tasks(_recover_seed, tasks, engine=engine, workers=workers):
            if outcome.error is not None:
                raise outcome.error
            report(_describe_result(outcome.value))
        table = pd.DataFrame([_read_result(path) for path in results])
        write_csv(folder.path / "recovery.csv", table)
    return table


def check_recovery(
    seeds: Sequence[int],
    *,
    data: SyntheticData,
    model: ModelSettings,
    selection: SelectionSettings,
    workers: int = 1,
) -> None:
    """Check the arguments of `recover` before it begins.

    Args:
        seeds: As for `recover`.
        data: As for `recover`.
        model: As for `recover`.
        selection: As for `recover`.
        workers: As for `recover`.

    Raises:
        ValueError: If one of them is wrong.
    """
    if not seeds:
        raise ValueError("num_seeds: expected a whole number of at least 1, got 0")
    for seed in seeds:
        check_integer("seeds", seed, 0)
    check_integer("workers", workers)
    for name in ("num_sessions", "num_held_out_sessions", "num_trials"):
        check_integer(name, getattr(data, name))
    # Few and short sessions have the shape of all.
    few = dataclasses.replace(
        data,
        num_sessions=min(data.num_sessions, selection.num_folds),
        num_held_out_sessions=1,
        num_trials=min(data.num_trials, 10),
    )
    sessions = simulate_data(few, seeds[0])["train"][0]
    network = make_model(sessions, model, seeds[0])
    check_selection(network, sessions.for_model(network), selection, seeds[0])


def _recover_seed(
    folder: Path,
    seed: int,
    data: SyntheticData,
    model: ModelSettings,
    selection: SelectionSettings,
) -> dict[str, Any]:
    began = time.monotonic()
    parts = simulate_data(data, seed)
    train = parts["train"][0]
    fitted, selections = select(
        lambda model_seed: make_model(train, model, model_seed),
        train,
        settings=selection,
        seed=seed,
        folder=folder / "paths",
    )
    sessions, played = parts["held_out"]
    result: dict[str, Any] = {"agent": data.agent, "seed": seed}
    result |= compute_recovery(fitted, data.make_agent(), sessions=sessions, played=played)
    for stage, found in selections.items():
        write_csv(folder / f"{stage}_penalties.csv", found.table)
    result |= {
        "scale": selections["choice"].scale,
        "dopamine_scale": selections["dopamine"].scale,
        "notes": " ".join(note for found in selections.values() for note in found.notes),
        "seconds": time.monotonic() - began,
    }
    save_model(fitted, folder / "model.keras")
    write_checksums(folder)
    write_json(folder / "result.json", result, checked=True)
    return result


def _read_result(path: Path) -> dict[str, Any]:
    check_checksums(path.parent, remedy=f"remove {path.parent} to compute it again")
    return read_json(path, "the result of a seed")


def _describe_result(result: Mapping[str, Any]) -> str:
    graph = "found" if result["graph"] else f"not found ({result['found']})"
    return (
        f"{result['agent']}, seed {result['seed']}: graph {graph}, likelihood "
        f"{result['difference']:+.5f}, dopamine R^2 {result['dopamine_r2']:.4f}, penalty scales "
        f"{result['scale']:g} and {result['dopamine_scale']:g}, {result['seconds']:.0f} s"
    )


def summarize_recovery(table: pd.DataFrame) -> dict[str, Any]:
    """Compute counts and means over the seeds of a recovery.

    Args:
        table: The table that `recover` returns.

    Returns:
        A dict:

        - `agent`, and `seeds`, how many there are;
        - `graph` and `choice_graph`: how many seeds have the agent's graph;
        - `difference` and `difference_min`: normalized likelihood minus the true agent's, mean and
          minimum;
        - `dopamine_r2_min`; `r_min`: smallest correlation of a variable with its latent;
        - `alpha_error`: mean absolute error of the learning rates of the latents that were found.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.experiments.recovery import summarize_recovery
    >>> table = pd.DataFrame(
    ...     {
    ...         "agent": "reward_seeking", "graph": [True, False], "choice_graph": True,
    ...         "difference": [0.0, -0.002], "dopamine_r2": 0.99,
    ...         "s: r": [0.99, 0.9], "s: alpha": 0.25, "s: true_alpha": 0.3,
    ...     }
    ... )
    >>> summary = summarize_recovery(table)
    >>> summary["graph"], summary["difference_min"]
    (1, -0.002)
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
