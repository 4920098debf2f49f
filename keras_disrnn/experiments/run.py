"""A run: from data to a fitted model, its figures, its export and its report, in one folder.

The folder holds

- `config.yaml`, every setting, as the command line reads it with `--config`;
- `environment.json`, the versions, the machine, and a digest of the data;
- `checkpoint.npz`, the state from which an interrupted run resumes;
- `history.csv`, the metrics of each epoch; or, if the run selected its penalties, the scales it
  tried (`choice_penalties.csv`, `dopamine_penalties.csv`) and the trained `paths/`;
- `sessions.csv`, the scores of each session;
- `metrics.json`, the scores of the training sessions and of the held-out sessions;
- `model.keras` and `saved_model/`, the fitted model, for Keras and for TensorFlow alone;
- `figures/`, each as PNG and PDF; `paper_model` and `paper_structure` fit the page of a paper;
- `SHA256SUMS`, the sums of the files that other commands read;
- `report.html`, which is written last.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from keras_disrnn.data import Sessions, summary
from keras_disrnn.experiments.data import RunData, load_data
from keras_disrnn.experiments.figures import draw
from keras_disrnn.experiments.folder import ResultFolder
from keras_disrnn.experiments.metrics import compute_metrics
from keras_disrnn.experiments.prepared_settings import TfdsData
from keras_disrnn.experiments.report import write_report
from keras_disrnn.experiments.selection import check_selection, select
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import (
    ModelSettings,
    SyntheticData,
    TableData,
    TrainingSettings,
    plain_config,
)
from keras_disrnn.experiments.stored_run import RESULTS
from keras_disrnn.experiments.tensorboard import check_tensorboard, stage_boards
from keras_disrnn.io.keras_file import save_model
from keras_disrnn.io.saved_model import export
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.training.fit import check_training, train
from keras_disrnn.training.optimizers import make_optimizer
from keras_disrnn.training.stages import STAGES, stage_of
from keras_disrnn.training.verdict import FitWarning, chance_likelihood, judge_fit
from keras_disrnn.utils import distribute
from keras_disrnn.utils.checksums import CHECKSUMS, write_checksums
from keras_disrnn.utils.files import write_json
from keras_disrnn.utils.tables import write_csv


class PrintEpochs(keras.callbacks.Callback):
    """Print one line per epoch: the step, the main scores, the open latents and the time."""

    _SHOWN = (
        ("loss", "loss"),
        ("choice_normalized_likelihood", "likelihood"),
        ("dopamine_r2", "dopamine R^2"),
    )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        parts = []
        for name, label in self._SHOWN:
            if name in logs:
                parts.append(f"{label} {logs[name]:.4f}")
                if f"val_{name}" in logs:
                    parts[-1] += f" (held out {logs[f'val_{name}']:.4f})"
        if "core" not in self.model.frozen:
            parts.append(f"open latents {logs['open_latent']:.0f}")
        seconds = time.monotonic() - self._began
        left = seconds * (self.params["epochs"] - epoch - 1)
        step = (epoch + 1) * self.params["steps"]
        total = self.params["epochs"] * self.params["steps"]
        print(
            f"{stage_of(self.model)} {step}/{total}: {', '.join(parts)}, "
            f"{seconds:.1f} s, {left:.0f} s left in this stage",
            flush=True,
        )


def run(
    command: str,
    out: str | os.PathLike[str],
    *,
    data: TableData | TfdsData | SyntheticData,
    model: ModelSettings,
    training: TrainingSettings | SelectionSettings,
    seed: int,
    full: bool = True,
) -> dict[str, Any]:
    """Fit a model and write the run folder. An interrupted run is resumed.

    Args:
        command: Name of the command, for the record.
        out: The run folder.
        data: The data.
        model: Shape and penalties of the model. A selection scales these penalties.
        training: The stages of training, or `SelectionSettings` to select the penalties.
        seed: Seed of the synthetic data, the initial weights, the noise and the batches.
        full: Whether to draw the figures and export the model.

    Returns:
        The contents of metrics.json.

    Raises:
        FileExistsError: If the folder holds a finished run, a run of other settings, or other
            files.
        FileNotFoundError, ValueError: If a setting or the data are wrong. Nothing is written then.
    """
    began = time.monotonic()
    out = Path(out)
    selects = isinstance(training, SelectionSettings)
    key = "selection" if selects else "training"
    config = plain_config({"data": data, "model": model, key: training, "seed": seed})
    folder = ResultFolder(out, config, command=command, last="report.html")
    sessions = load_data(data, seed)
    if isinstance(training, SelectionSettings):
        network = make_model(sessions.train, model, seed)
        sessions = sessions.for_model(network)
        check_selection(network, sessions.train, training, seed)
    else:
        training = training.completed()
        with training.scope():
            network = make_model(sessions.train, model, seed)
        sessions = sessions.for_model(network)
        check_stages(network, sessions.train, training, sessions.held_out)
    summaries = {"training": summary(sessions.train), "held out": summary(sessions.held_out)}
    for part, table in summaries.items():
        print(f"\nSessions, {part}:\n{table.to_string()}")
    seconds = {"data": time.monotonic() - began}

    with folder.begin(data=sessions.digest):
        # Sums from before an interruption do not fit files that are written anew.
        (out / CHECKSUMS).unlink(missing_ok=True)
        print(f"\n{'Resuming in' if folder.resumes else 'Writing to'} {out}\n")
        history: pd.DataFrame | None = None
        tables: dict[str, pd.DataFrame] = {}
        details: dict[str, Any]
        if isinstance(training, SelectionSettings):
            began = time.monotonic()
            network, tables, details = _select(
                sessions, model, training, seed=seed, folder=out / "paths"
            )
            seconds["selection"] = time.monotonic() - began
            for stage, table in tables.items():
                write_csv(out / f"{stage}_penalties.csv", table)
        else:
            checkpoint = out / "checkpoint.npz"
            history = _train(network, sessions, training, seed=seed, checkpoint=checkpoint)
            write_csv(out / "history.csv", history)
            stages = history.groupby("stage")
            seconds |= {stage: float(value) for stage, value in stages["seconds"].sum().items()}
            details = {
                "steps": {
                    stage: {"asked": getattr(training, f"{stage}_steps"), "taken": int(taken)}
                    for stage, taken in stages["step"].max().items()
                }
            }
            if training.strategy is not None:
                details["replicas"] = distribute.replicas(network)

        began = time.monotonic()
        metrics, per_session = compute_metrics(network, sessions)
        metrics |= details
        metrics["notes"] = _judge(network, sessions, metrics, history)
        write_csv(out / "sessions.csv", per_session)
        if full:
            draw(
                network,
                sessions,
                out / "figures",
                history=history,
                metrics=metrics,
                selections=tables,
            )
        seconds["evaluation and figures"] = time.monotonic() - began

        began = time.monotonic()
        save_model(network, out / "model.keras")
        write_json(out / "metrics.json", metrics)
        if full:
            # An interruption may have left an export, which may be damaged.
            shutil.rmtree(out / "saved_model", ignore_errors=True)
            export(network, out / "saved_model", run=out)
        seconds["export"] = time.monotonic() - began
        metrics["seconds"] = seconds
        write_json(out / "metrics.json", metrics)
        write_checksums(out, RESULTS)
        write_report(out, config, summaries, tables)
    return metrics


def _select(
    sessions: RunData, model: ModelSettings, settings: SelectionSettings, *, seed: int, folder: Path
) -> tuple[DisRNNModel, dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the selected model, the table of penalty scales of each stage, and what was chosen."""
    network, selections = select(
        lambda model_seed: make_model(sessions.train, model, model_seed),
        sessions.train,
        settings=settings,
        seed=seed,
        folder=folder,
        report=lambda line: print(line, flush=True),
    )
    tables = {stage: found.table for stage, found in selections.items()}
    chosen = {
        stage: {"scale": found.scale, "notes": found.notes} for stage, found in selections.items()
    }
    return network, tables, {"selection": chosen}


def _train(
    network: DisRNNModel,
    sessions: RunData,
    training: TrainingSettings,
    *,
    seed: int,
    checkpoint: Path,
) -> pd.DataFrame:
    if training.strategy is not None:
        print(f"Each batch is distributed over {distribute.replicas(network)} replica(s)\n")
    with warnings.catch_warnings():
        # The run itself says what is wrong with the fit, from the scores without noise.
        warnings.simplefilter("ignore", FitWarning)
        # The split has said it.
        warnings.filterwarnings("ignore", "split: expected different trials")
        return train(
            network,
            sessions.train,
            sessions.held_out,
            **training.arguments(),
            seed=seed,
            checkpoint=checkpoint,
            callbacks=[PrintEpochs(), *stage_boards(training.tensorboard)],
            verbose=0,
        )


def _judge(
    network: DisRNNModel,
    sessions: RunData,
    metrics: Mapping[str, Any],
    history: pd.DataFrame | None,
) -> list[str]:
    """Warn of what is wrong with a fit, and return the sentences for the report."""
    likelihoods = {
        name: (
            metrics[part]["choice"]["normalized_likelihood"],
            chance_likelihood(sessions.train, getattr(sessions, part)),
        )
        for part, name in (("train", "training"), ("held_out", "held-out"))
        if "choice" in metrics[part]
    }
    notes = judge_fit(network, likelihoods=likelihoods, history=history)
    for note in notes:
        warnings.warn(note, FitWarning, stacklevel=3)
    return notes


def check_stages(
    model: DisRNNModel,
    sessions: Sessions,
    training: TrainingSettings,
    held_out: Sessions | None = None,
) -> None:
    """Check that a model can be trained on sessions with these settings.

    Args:
        model: The model.
        sessions: The training sessions, as the model reads them.
        training: The settings.
        held_out: The held-out sessions, as the model reads them.

    Raises:
        ValueError: If a setting is wrong, or the sessions do not match the model.
    """
    training = training.completed()
    steps = {stage: getattr(training, f"{stage}_steps") for stage in STAGES}
    check_training(
        model,
        sessions,
        steps,
        held_out=held_out,
        steps_per_epoch=training.steps_per_epoch,
        learning_rate=training.learning_rate,
        settle_steps=training.settle_steps,
        batch_size=training.batch_size,
        buckets=training.buckets,
        choice_weight=training.choice_weight,
    )
    if not any(steps.values()):
        raise ValueError(
            "training: expected steps in at least one stage, got 0 in all; give "
            "--training.stage1_steps a number above 0"
        )
    make_optimizer(training.optimizer, learning_rate=training.learning_rate)
    check_tensorboard(training.tensorboard)


def make_model(sessions: Sessions, settings: ModelSettings, seed: int) -> DisRNNModel:
    """Make a `DisRNNModel` for sessions.

    Args:
        sessions: The sessions, which determine the numbers of observations, arms and signals. With
            `subject_units` they also determine the subjects, in the order of their sessions.
        settings: The settings.
        seed: Seed of the initial weights and the noise.

    Returns:
        The model, built.

    Raises:
        ValueError: If the model should distinguish subjects, but there is only one.

    Example:

    >>> from keras_disrnn.data import Sessions
    >>> from keras_disrnn.experiments.run import make_model
    >>> from keras_disrnn.experiments.settings import ModelSettings
    >>> sessions = Sessions.from_trials([[0, 1, 2]], [[1, 0, 1]])
    >>> make_model(sessions, ModelSettings(num_latents=2), seed=0).num_arms
    3
    """
    names: tuple[str, ...] = ()
    if settings.subject_units:
        names = sessions.subject_names or tuple(dict.fromkeys(sessions.subjects))
        if len(names) < 2:
            raise ValueError(
                "subject_units: expected 0 or sessions of at least 2 subjects, got sessions of "
                f"{names[0]!r} alone; name the column of subjects, or set subject_units to 0"
            )
    model = DisRNNModel(
        num_observations=sessions.with_subjects(names).num_observations,
        num_arms=sessions.num_arms,
        num_signals=sessions.num_signals,
        subjects=names,
        **dataclasses.asdict(settings),
        seed=seed,
    )
    return model
