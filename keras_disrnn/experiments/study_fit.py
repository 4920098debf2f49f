"""Make one fit of a study, in its own folder."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from keras_disrnn.analysis import compute_evaluation
from keras_disrnn.analysis.graph import graph_from_dict
from keras_disrnn.analysis.studies import StudyFit, describe
from keras_disrnn.data import Columns
from keras_disrnn.experiments.begin import read_settings, write_config
from keras_disrnn.experiments.data import load_data
from keras_disrnn.experiments.run import run
from keras_disrnn.experiments.settings import (
    BATCH_SIZE,
    ModelSettings,
    TableData,
    TrainingSettings,
)
from keras_disrnn.experiments.study_plan import (
    BaselineSettings,
    PlannedFit,
    digest_file,
    plan_baselines,
)
from keras_disrnn.io.keras_file import save_model
from keras_disrnn.utils.checksums import check_checksums, write_checksums
from keras_disrnn.utils.files import read_json, write_json
from keras_disrnn.utils.tables import write_csv

SESSIONS = "sessions.csv"

AGAIN = "give --retry_failed true to make the fit again"
"""What the user can do about a damaged fit."""


def make_fit(folder: Path, fit: PlannedFit, figures: bool = False) -> dict[str, Any]:
    """Make a fit, or resume it if it was interrupted.

    The folder then holds `run/`, for a DisRNN a run folder as `fit` makes it; `log.txt`; and
    `fit.json`, the result, which is written last.

    Args:
        folder: The folder of the fit.
        fit: The fit.
        figures: Whether to draw figures and to export the model.

    Returns:
        The contents of `fit.json`: `scores`, the row of the study's table; `graph`, for a DisRNN;
        and `config`.

    Raises:
        ValueError: If the data file has changed since the fit was planned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (
        open(folder / "log.txt", "a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
    ):
        try:
            table = fit.config["data"]["table"]
            if digest_file(table) != fit.digest:
                raise ValueError(
                    f"{table}: expected the table as it was when the study began, got one "
                    "that has changed since; give the command again"
                )
            if "baseline" in fit.config:
                found = _make_baseline(folder / "run", fit.config)
            else:
                found = _make_disrnn(folder / "run", fit.config, figures)
        except Exception:
            traceback.print_exc(file=log)
            raise
        finally:
            # A worker makes many models, and Keras would keep all of them.
            keras.backend.clear_session()
    found["scores"] = {
        "seconds": time.monotonic() - began,
        "mebibytes": _peak_memory(),
        **found["scores"],
    }
    found["config"] = fit.config
    (folder / "failure.json").unlink(missing_ok=True)
    write_json(folder / "fit.json", found, checked=True)
    return found


def read_fit(folder: Path, fit: PlannedFit) -> StudyFit:
    """Read a finished fit.

    Args:
        folder: The folder of the fit.
        fit: The fit.

    Returns:
        The fit with its scores, its graph and its sessions.

    Raises:
        FileNotFoundError, ValueError: If a file of it is missing or damaged.
    """
    stored = read_scores(folder)
    sessions = pd.read_csv(folder / "run" / SESSIONS, dtype={"session": str, "subject": str})
    return StudyFit(
        data=fit.data,
        subject=fit.subject,
        model=fit.model,
        scale=fit.scale,
        seed=fit.seed,
        scores=stored["scores"],
        graph=None if stored["graph"] is None else graph_from_dict(stored["graph"]),
        sessions=sessions,
    )


def read_scores(folder: Path) -> dict[str, Any]:
    """Read `fit.json` of a finished fit, and check the other file that a study reads.

    Args:
        folder: The folder of the fit.

    Returns:
        The contents of `fit.json`.

    Raises:
        FileNotFoundError, ValueError: If a file is missing or damaged.
    """
    stored = read_json(folder / "fit.json", "the result of a fit", remedy=AGAIN)
    if not (folder / "run" / SESSIONS).exists():
        raise FileNotFoundError(
            f"{folder / 'run' / SESSIONS}: expected the sessions of a fit, got no file; {AGAIN}"
        )
    check_checksums(folder / "run", remedy=AGAIN)
    return stored


def _make_disrnn(out: Path, config: dict[str, Any], figures: bool) -> dict[str, Any]:
    _remove_other_run(out, config)
    if not _has_finished(out):
        model, training = ModelSettings(**config["model"]), TrainingSettings(**config["training"])
        run(
            "fit",
            out,
            data=_read_data(config),
            model=model,
            training=training,
            seed=config["seed"],
            full=figures,
        )
    metrics = read_json(out / "metrics.json", "the scores of a run")
    history = pd.read_csv(out / "history.csv")
    of_choice = history[history["stage"] != "stage2"]
    graph = graph_from_dict(metrics["graph"])
    scores = _select_scores(metrics) | {
        "loss": float((of_choice if len(of_choice) else history)["loss"].iloc[-1]),
        "parameters": metrics["parameters"],
        "open_latents": len(metrics["open_latents"]),
        "edges": graph.number_of_edges(),
        "graph": describe(graph),
        # These include the time before an interruption.
        "seconds": sum(metrics["seconds"].values()),
    }
    return {"scores": scores, "graph": metrics["graph"]}


def _make_baseline(out: Path, config: dict[str, Any]) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    sessions = load_data(_read_data(config), config["seed"])
    settings = dict(config["baseline"])
    name = settings.pop("name")
    plan = plan_baselines(sessions.train, BaselineSettings(**settings), config["seed"])
    model = plan[name](sessions.train, {}, None)
    metrics, tables = {}, []
    for part in ("train", "held_out"):
        evaluation = compute_evaluation(model, getattr(sessions, part), batch_size=BATCH_SIZE)
        metrics[part] = evaluation.summary
        tables.append(evaluation.per_session.assign(part=part))
    metrics["parameters"] = getattr(model, "parameter_count", None) or model.count_params()
    write_config(out, config)
    write_csv(out / SESSIONS, pd.concat(tables))
    if getattr(model, "last_fit", None) is not None:
        write_csv(out / "estimates.csv", model.last_fit.estimates)
    write_json(out / "metrics.json", metrics)
    save_model(model, out / "model.keras")
    write_checksums(out)
    scores = _select_scores(metrics)
    # Seeds are compared by what training minimizes, here without penalties.
    scores |= {"loss": -scores["train_likelihood"], "parameters": metrics["parameters"]}
    return {"scores": scores, "graph": None}


def _read_data(config: dict[str, Any]) -> TableData:
    return TableData(**{**config["data"], "columns": Columns(**config["data"]["columns"])})


def _remove_other_run(out: Path, config: dict[str, Any]) -> None:
    """Remove an unfinished run that cannot be resumed, because its data file was elsewhere."""
    if not (out / "config.yaml").exists() or (out / "report.html").exists():
        return
    if read_settings(out) != config:
        shutil.rmtree(out)


def _has_finished(out: Path) -> bool:
    """Return whether a run is finished and whole. Remove one that is finished and damaged."""
    if not (out / "report.html").exists():
        return False
    try:
        check_checksums(out)
    except ValueError:
        shutil.rmtree(out)
        return False
    return True


def _select_scores(metrics: dict[str, Any]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for part, prefix in (("train", "train_"), ("held_out", "")):
        choice, dopamine = (metrics[part].get(output, {}) for output in ("choice", "dopamine"))
        scores |= {
            f"{prefix}likelihood": choice.get("normalized_likelihood"),
            f"{prefix}likelihood_se": choice.get("normalized_likelihood_se"),
            f"{prefix}mse": dopamine.get("mse"),
            f"{prefix}r2": dopamine.get("r2"),
        }
    return scores


def _peak_memory() -> float | None:
    """Return the peak memory of this process in MiB, or `None` if the system has no record."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, other systems KiB.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
