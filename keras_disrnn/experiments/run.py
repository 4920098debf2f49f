"""A run: from data to a fitted model, its figures, its export and its report, in one folder.

The folder holds

- `config.yaml`, every setting, as the command line takes it with `--config`;
- `environment.json`, the versions and the machine;
- `checkpoint.npz`, the state that an interrupted run goes on from;
- `history.csv`, the metrics of each epoch, or, where the penalties were chosen, what was tried
  (`choice_penalties.csv`, `dopamine_penalties.csv`, and the trained `paths/`);
- `sessions.csv`, the scores of each session;
- `metrics.json`, the scores of the training and of the held-out sessions;
- `model.keras` and `saved_model/`, the fitted model, for Keras and for TensorFlow alone;
- `figures/`, each as PNG and as PDF, of which `paper_model` and `paper_structure` are made for a
  page of a paper; and `report.html`, which is written last.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import time
import zipfile
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import yaml

from keras_disrnn import bandit, distribute
from keras_disrnn.analysis import (
    compute_bottlenecks,
    compute_choice_rule,
    compute_dopamine_predictions,
    compute_dopamine_rule,
    compute_embeddings,
    compute_evaluation,
    compute_session_trace,
    compute_update_rules,
    count_bottlenecks,
    open_embeddings,
    open_latents,
)
from keras_disrnn.analysis.graph import compute_graph, graph_to_dict
from keras_disrnn.checks import check_integer
from keras_disrnn.data import (
    Columns,
    Sessions,
    sessions_from_table,
    split_by_id,
    split_by_session,
    split_by_subject,
    summary,
)
from keras_disrnn.export import export
from keras_disrnn.files import write_text
from keras_disrnn.model import PENALTIES, SUBJECT_PENALTIES, DisRNNModel, check_penalty
from keras_disrnn.plots import (
    plot_bottlenecks,
    plot_choice_rule,
    plot_dopamine_rule,
    plot_dopamine_scatter,
    plot_embeddings,
    plot_learning_curves,
    plot_model,
    plot_selection,
    plot_session,
    plot_structure,
    plot_update_rules,
    save_figure,
)
from keras_disrnn.report import write_report
from keras_disrnn.selection import SelectionSettings, select
from keras_disrnn.training import STAGES, check_training, stage_of, train

AGENTS = (
    bandit.QLearning,
    bandit.ForgettingQLearning,
    bandit.DifferentialForgettingQLearning,
    bandit.RewardSeeking,
    bandit.LeakyActorCritic,
)
"""The agents that can play the synthetic data."""

# === Settings ===


@dataclasses.dataclass(frozen=True)
class SyntheticData:
    """Sessions of an agent at a drifting two-armed bandit.

    Args:
        sessions: Training sessions.
        held_out_sessions: Further sessions, to score the model on.
        trials: Trials in a session.
        agent: Who plays (see `keras_disrnn.bandit`).
        parameters: The agent's parameters by name; one that is not given has its default.
        drift: Standard deviation of the change of p(reward) from trial to trial.

    Raises:
        ValueError: If the agent or a parameter is not as `keras_disrnn.bandit` knows it.
    """

    sessions: int = 300
    held_out_sessions: int = 300
    trials: int = 200
    agent: Literal[
        "q_learning",
        "forgetting_q_learning",
        "differential_forgetting_q_learning",
        "reward_seeking",
        "leaky_actor_critic",
    ] = "q_learning"
    parameters: dict[str, float] = dataclasses.field(default_factory=dict)
    drift: float = 0.1

    def __post_init__(self):
        self.make_agent()

    def make_agent(self):
        """The agent, of `keras_disrnn.bandit`."""
        kinds = {kind.name: kind for kind in AGENTS}
        if self.agent not in kinds:
            raise ValueError(f"agent: expected one of {', '.join(kinds)}, got {self.agent!r}")
        kind = kinds[self.agent]
        known = [field.name for field in dataclasses.fields(kind)]
        for name in self.parameters:
            if name not in known:
                raise ValueError(
                    f"parameters: expected names of {', '.join(known)}, those of {self.agent}, "
                    f"got {name!r}"
                )
        return kind(**self.parameters)


@dataclasses.dataclass(frozen=True)
class TableData:
    """A table with one row a trial, and which of its sessions are held out.

    Args:
        table: CSV (also .csv.gz), TSV or Parquet file.
        columns: Which column holds what.
        arms: Number of arms; by default one more than the largest choice, at least 2.
        reward_kind: Whether rewards are 0 or 1 ("binary") or any number ("real").
        held_out_every: Every n-th session of each subject is held out.
        held_out_offset: The first of them, counted from 0.
        held_out_sessions: Ids of the sessions to hold out, in place of every n-th.
        held_out_subjects: Subjects to hold out, in place of every n-th session.
        subjects: Subjects to take, of both parts; by default all.
    """

    table: str
    columns: Columns = dataclasses.field(default_factory=Columns)
    arms: int | None = None
    reward_kind: Literal["binary", "real"] = "binary"
    held_out_every: int = 3
    held_out_offset: int = 2
    held_out_sessions: list[str] = dataclasses.field(default_factory=list)
    held_out_subjects: list[str] = dataclasses.field(default_factory=list)
    subjects: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The model's shape and its penalties (see `DisRNNModel`).

    Args:
        latents: Number of latents.
        update_units: Width of each update network.
        update_layers: Hidden layers of each update network.
        choice_units: Width of the choice readout.
        choice_layers: Hidden layers of the choice readout.
        dopamine_units: Width of the dopamine readout.
        dopamine_layers: Hidden layers of the dopamine readout.
        activation: Name of a Keras activation.
        max_latent_value: Bound of the latents' targets.
        dopamine_latents: Whether the dopamine readout reads the latents before the trial's
            outcome ("pre") or after the update by it ("post").
        latent_penalty: Price of a nat through the latent bottlenecks.
        update_obs_penalty: Price of a nat from the observations to the update networks.
        update_latent_penalty: Price of a nat from the latents to the update networks.
        choice_penalty: Price of a nat into the choice readout.
        dopamine_penalty: Price of a nat into the dopamine readout.
        l2_scale: Price of squared hidden weights.
        subject_units: Dimensions of an embedding of the table's subjects; 0 for a model that takes
            all sessions for one subject's.
        subject_penalty: Price of a nat through the bottleneck of the embedding itself.
        update_subject_penalty: Price of a nat from the embedding to the update networks.
        choice_subject_penalty: Price of a nat from the embedding into the choice readout.
        dopamine_subject_penalty: Price of a nat from the embedding into the dopamine readout.
    """

    latents: int = 5
    update_units: int = 8
    update_layers: int = 4
    choice_units: int = 4
    choice_layers: int = 2
    dopamine_units: int = 8
    dopamine_layers: int = 2
    activation: str = "leaky_relu"
    max_latent_value: float = 2.0
    dopamine_latents: Literal["pre", "post"] = "pre"
    latent_penalty: float = 3e-3
    update_obs_penalty: float = 1e-3
    update_latent_penalty: float = 1e-3
    choice_penalty: float = 1e-3
    dopamine_penalty: float = 1e-3
    l2_scale: float = 1e-5
    subject_units: int = 0
    subject_penalty: float = 3e-4
    update_subject_penalty: float = 3e-4
    choice_subject_penalty: float = 3e-4
    dopamine_subject_penalty: float = 3e-4

    def __post_init__(self):
        for name in PENALTIES + SUBJECT_PENALTIES:
            check_penalty(name, getattr(self, name))
        check_integer("subject_units", self.subject_units, 0)


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """The stages of training (see `train`).

    Args:
        warmup_steps: Steps without noise and penalties.
        stage1_steps: Steps of the core and the choice readout.
        stage2_steps: Steps of the dopamine readout on the frozen core; left out where the data
            have no dopamine.
        joint_steps: Steps of everything together; 0 for none.
        steps_per_epoch: Steps between two validations and checkpoints.
        batch_size: Sessions in a step; by default all.
        buckets: Classes of session length that batches are drawn within, to have little padding.
        learning_rate: Of Adam.
        choice_weight: Weight of choice against dopamine in the joint stage.
        settle_steps: End a stage with penalties once neither the loss nor a bottleneck has changed
            over so many steps; 0 to take every step. By default 500 steps, or a little more where
            `steps_per_epoch` does not divide them.
        tensorboard: A folder for TensorBoard's logs.
        strategy: "mirrored" shares each batch out to all GPUs of this machine
            (`tf.distribute.MirroredStrategy`); by default there is one replica.
    """

    warmup_steps: int = 1000
    stage1_steps: int = 3000
    stage2_steps: int = 3000
    joint_steps: int = 0
    steps_per_epoch: int = 100
    batch_size: int | None = None
    buckets: int = 1
    learning_rate: float = 1e-3
    choice_weight: float = 0.5
    settle_steps: int | None = None
    tensorboard: str | None = None
    strategy: Literal["mirrored"] | None = None

    def arguments(self):
        """Those that `train` takes: all but the strategy, which a model is made under."""
        found = dataclasses.asdict(self)
        del found["strategy"]
        return found

    def scope(self):
        """The scope to make the model in."""
        if self.strategy is None:
            return contextlib.nullcontext()
        return tf.distribute.MirroredStrategy().scope()


SYNTHETIC_COLUMNS = Columns(dopamine="dopamine", trial="trial")
"""The columns of `SimulatedSessions.to_table()`."""

# === Data ===


@dataclasses.dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        train, held_out: The two parts.
        truth: For synthetic data, the true agent's probability of each choice that it made,
            `(sessions, trials)`, by part.
    """

    train: Sessions
    held_out: Sessions
    truth: dict[str, np.ndarray] | None = None

    def for_model(self, model):
        """The data as the model reads them (see `Sessions.for_model`)."""
        train_part, held_out = (part.for_model(model) for part in (self.train, self.held_out))
        return dataclasses.replace(self, train=train_part, held_out=held_out)


def load_sessions(settings):
    """Reads every session of the table that `TableData` describes, of its subjects."""
    return _take_subjects(_read(settings), settings, "table")


def _read(settings):
    return sessions_from_table(
        settings.table, settings.columns, arms=settings.arms, reward_kind=settings.reward_kind
    )


def _take_subjects(sessions, settings, part):
    if not settings.subjects:
        return sessions
    for name in settings.subjects:
        if name not in sessions.subjects:
            known = ", ".join(map(repr, dict.fromkeys(sessions.subjects)))
            raise ValueError(
                f"subjects: expected subjects with sessions in the {part}, got {name!r}; there are "
                f"{known}"
            )
    return sessions.of_subjects(settings.subjects)


def _without_padding(*parts):
    """The parts without the last rows where none of them has a session any more."""
    rows = 1 + max(int(part.trials_per_session.max()) for part in parts)
    names = ("features", "choice", "choice_weight", "dopamine", "dopamine_weight")
    return [
        dataclasses.replace(
            part, **{name: np.ascontiguousarray(getattr(part, name)[:, :rows]) for name in names}
        )
        for part in parts
    ]


def load_data(settings, seed):
    """Makes or reads the data that settings describe.

    Args:
        settings: `SyntheticData` or `TableData`.
        seed: Of the synthetic sessions.

    Returns:
        A `RunData`.

    Raises:
        FileNotFoundError, ValueError: If the data are not as the settings say.
    """
    if isinstance(settings, SyntheticData):
        parts = simulate_data(settings, seed)
        return RunData(
            **{part: sessions for part, (sessions, _) in parts.items()},
            truth={part: played.chosen_probability for part, (_, played) in parts.items()},
        )
    sessions = _read(settings)
    if settings.held_out_sessions and settings.held_out_subjects:
        raise ValueError("held_out_sessions and held_out_subjects: expected one of them, got both")
    if settings.held_out_sessions:
        split = split_by_id(sessions, settings.held_out_sessions)
    elif settings.held_out_subjects:
        split = split_by_subject(sessions, settings.held_out_subjects)
    else:
        split = split_by_session(
            sessions, settings.held_out_every, settings.held_out_offset, within_subject=True
        )
    if not settings.subjects:
        return RunData(split.train, split.held_out)
    # Split first, so that a subject's sessions are held out alike, alone or with the others.
    parts = [
        _take_subjects(part, settings, f"{name} part")
        for name, part in (("training", split.train), ("held-out", split.held_out))
    ]
    return RunData(*_without_padding(*parts))


def simulate_data(settings, seed):
    """Plays the sessions that `SyntheticData` describes.

    Args:
        settings: `SyntheticData`.
        seed: Of the sessions.

    Returns:
        Dict of part, `"train"` and `"held_out"`, to its `Sessions` and the `SimulatedSessions` that
        they were made from.
    """
    agent = settings.make_agent()
    environment = bandit.DriftingBandit(sigma=settings.drift)
    parts, first = {}, 0
    for part, count in (("train", settings.sessions), ("held_out", settings.held_out_sessions)):
        played = bandit.simulate(
            agent,
            environment,
            sessions=count,
            trials=settings.trials,
            seed=seed,
            first_session=first,
        )
        first += count
        parts[part] = sessions_from_table(played.to_table(), SYNTHETIC_COLUMNS), played
    return parts


# === The run ===


class PrintEpochs(keras.callbacks.Callback):
    """One short line an epoch: where training is, the main scores, the open latents, the time."""

    _SHOWN = (
        ("loss", "loss"),
        ("choice_normalized_likelihood", "likelihood"),
        ("dopamine_r2", "dopamine R^2"),
    )

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
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


BATCH_SIZE = 256
"""Sessions at a time where nothing is trained."""


def run(command, out, data, model, training, seed, *, full=True):
    """Fits a model and writes the run folder; goes on with a run that was interrupted.

    Args:
        command: Name of the command, for the record.
        out: The run folder.
        data: `SyntheticData` or `TableData`.
        model: `ModelSettings`.
        training: `TrainingSettings`; or `SelectionSettings`, to choose the penalties, of which
            `model` then has those at the multiple 1.
        seed: Of the synthetic data, the initial weights, the noise and the batches.
        full: Whether to draw the figures and to export the model, too.

    Returns:
        The contents of metrics.json.

    Raises:
        FileExistsError: If the folder holds a finished run, a run of other settings, or anything
            else.
        FileNotFoundError, ValueError: If a setting or the data are wrong; nothing is written then.
    """
    began = time.monotonic()
    out = Path(out)
    selects = isinstance(training, SelectionSettings)
    config = plain_config(
        {
            "data": data,
            "model": model,
            "selection" if selects else "training": training,
            "seed": seed,
        }
    )
    resumes = check_folder(out, config, "report.html")
    sessions = load_data(data, seed)
    strategy = None if selects else training.strategy
    with contextlib.nullcontext() if selects else training.scope():
        network = make_model(sessions.train, model, seed)
    sessions = sessions.for_model(network)
    if not selects:
        training = possible_training(sessions.train, training)
        steps = {stage: getattr(training, f"{stage}_steps") for stage in STAGES}
        check_training(
            network,
            sessions.train,
            steps,
            training.steps_per_epoch,
            training.learning_rate,
            training.settle_steps,
        )
    summaries = {
        "training": summary(sessions.train),
        "held out": summary(sessions.held_out),
    }
    for part, table in summaries.items():
        print(f"\nSessions, {part}:\n{table.to_string()}")
    seconds = {"data": time.monotonic() - began}

    if not resumes:
        begin_folder(out, config, command)
    print(f"\n{'Going on in' if resumes else 'Writing to'} {out}\n")
    history, selections = None, {}
    if selects:
        began = time.monotonic()
        network, selections = select(
            lambda model_seed: make_model(sessions.train, model, model_seed),
            sessions.train,
            training,
            seed=seed,
            folder=out / "paths",
            report=lambda line: print(line, flush=True),
        )
        seconds["selection"] = time.monotonic() - began
    else:
        if strategy is not None:
            print(f"Each batch is shared out to {distribute.replicas(network)} replica(s)\n")
        history = train(
            network,
            sessions.train,
            sessions.held_out,
            **training.arguments(),
            seed=seed,
            checkpoint=out / "checkpoint.npz",
            callbacks=[PrintEpochs()],
            verbose=0,
        )
        stages = history.groupby("stage")["seconds"].sum()
        seconds |= {stage: float(value) for stage, value in stages.items()}

    began = time.monotonic()
    tables = {stage: found.table for stage, found in selections.items()}
    if history is not None:
        write_text(out / "history.csv", history.to_csv(index=False))
    for stage, table in tables.items():
        write_text(out / f"{stage}_penalties.csv", table.to_csv(index=False))
    metrics, per_session = compute_metrics(network, sessions)
    if selects:
        metrics["selection"] = {
            stage: {"scale": found.scale, "notes": found.notes}
            for stage, found in selections.items()
        }
    else:
        taken = history.groupby("stage")["step"].max()
        metrics["steps"] = {
            stage: {"asked": count, "taken": int(taken[stage])}
            for stage, count in steps.items()
            if count
        }
        if strategy is not None:
            metrics["replicas"] = distribute.replicas(network)
    write_text(out / "sessions.csv", per_session.to_csv(index=False))
    if full:
        draw(network, sessions, out / "figures", history, metrics, selections=tables)
    seconds["evaluation and figures"] = time.monotonic() - began

    began = time.monotonic()
    save_model(network, out / "model.keras")
    write_json(out / "metrics.json", metrics)
    if full and not (out / "saved_model").exists():
        export(network, out / "saved_model", run=out)
    seconds["export"] = time.monotonic() - began
    metrics["seconds"] = seconds
    write_json(out / "metrics.json", metrics)
    write_report(out, config, summaries, tables)
    return metrics


def check_folder(out, config, last):
    """Whether a folder holds this very run, not finished; raises where it holds anything else.

    Args:
        out: The folder.
        config: The settings, as `write_config` writes them.
        last: Name of the file that is written last.

    Raises:
        FileExistsError: If the folder holds a finished run, a run of other settings, or anything
            else.
    """
    if not out.exists():
        return False
    if out.is_dir() and not any(out.iterdir()):
        return False
    try:
        stored = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        stored = None
    if not isinstance(stored, dict):
        raise FileExistsError(f"{out}: exists and is no run folder; choose a new folder")
    if (out / last).exists():
        raise FileExistsError(f"{out}: holds a finished run; choose a new folder")
    for path in _differences(stored, config):
        raise FileExistsError(
            f"{out}: holds an unfinished run with another setting of {path}; choose a new folder, "
            "or the same settings to go on with it"
        )
    return True


def begin_folder(out, config, command):
    """Makes the folder of a run, which tells from then on what it is."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "environment.json", _environment(command))
    write_config(out, config)


def _differences(stored, given, path=""):
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted(stored.keys() | given.keys()):
            yield from _differences(stored.get(key), given.get(key), f"{path}.{key}".strip("."))
    elif stored != given:
        yield path


def possible_training(sessions, training):
    """`TrainingSettings` without the stages that sessions without dopamine cannot have."""
    if sessions.signals and sessions.dopamine_weight.any():
        return training
    return dataclasses.replace(training, stage2_steps=0, joint_steps=0)


def make_model(sessions, settings, seed):
    """A built `DisRNNModel` of `ModelSettings`, for the kind of sessions.

    With `subject_units` it is one of the sessions' subjects, in the order they come in.

    Raises:
        ValueError: If there is one subject only to tell apart.
    """
    names = ()
    if settings.subject_units:
        names = sessions.subject_names or tuple(dict.fromkeys(sessions.subjects))
        if len(names) < 2:
            raise ValueError(
                "subject_units: expected sessions of at least 2 subjects to tell apart, got those "
                f"of {names[0]!r} alone; name the column of subjects, or leave subject_units at 0"
            )
    model = DisRNNModel(
        observations=sessions.with_subjects(names).observations,
        arms=sessions.arms,
        signals=sessions.signals,
        subjects=names,
        **dataclasses.asdict(settings),
        seed=seed,
    )
    model.build((None, None, model.observations))
    return model


def save_model(model, path):
    """Writes a model as a `.keras` file, atomically."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial.keras")
    try:
        model.save(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def compute_metrics(model, sessions):
    """The scores of metrics.json.

    Args:
        model: The fitted model.
        sessions: A `RunData`.

    Returns:
        A dict of `train` and `held_out`, each with `choice` and `dopamine` scores as
        `compute_evaluation` gives them (with a true agent, its score and the difference to it are
        among them), `open_latents`, the names of the latents with an open bottleneck, with subjects
        `open_embeddings`, those of the embedding's dimensions, `bottlenecks`, the counts, `graph`,
        the nodes and edges that are open, and `parameters`, how many there are; and a DataFrame
        with one row a session.
    """
    sessions = sessions.for_model(model)
    metrics, tables = {}, []
    for part in ("train", "held_out"):
        reference = None if sessions.truth is None else sessions.truth[part]
        evaluation = compute_evaluation(
            model, getattr(sessions, part), batch_size=BATCH_SIZE, reference=reference
        )
        scores = evaluation.summary
        if reference is not None:
            choice = scores["choice"]
            scores["true_agent"] = {
                "choice": {"normalized_likelihood": choice.pop("reference_normalized_likelihood")},
                "difference": choice.pop("difference"),
                "difference_se": choice.pop("difference_se"),
            }
        metrics[part] = scores
        tables.append(evaluation.per_session.assign(part=part))
    metrics["open_latents"] = open_latents(model)
    if model.subjects:
        metrics["open_embeddings"] = open_embeddings(model)
    bottlenecks = compute_bottlenecks(model, sessions.train.observation_names)
    metrics["bottlenecks"] = count_bottlenecks(bottlenecks).to_dict("index")
    metrics["graph"] = graph_to_dict(compute_graph(model))
    metrics["parameters"] = model.count_params()
    return metrics, pd.concat(tables, ignore_index=True)


def score_sessions(model, sessions):
    """Scores of a model on `Sessions`, as metrics.json has them for one part."""
    sessions = sessions.for_model(model)
    for name in ("observations", "arms"):
        want, got = getattr(model, name), getattr(sessions, name)
        if want != got:
            raise ValueError(f"{name}: the model was made for {want}, the table has {got}")
    return compute_evaluation(model, sessions, batch_size=BATCH_SIZE).summary


def draw(
    model, sessions, folder, history=None, metrics=None, formats=("png", "pdf"), selections=None
):
    """Draws the figures of a fitted model; one that fails warns, and the others are drawn.

    Args:
        model: The fitted model.
        sessions: A `RunData`.
        folder: Where the figures go.
        history: What `train` returned, for the learning curves.
        metrics: What `compute_metrics` returned, for the true agent's score in them.
        formats: Endings of the files.
        selections: Stage to the table of penalties tried, where they were chosen.
    """
    sessions = sessions.for_model(model)
    train_part, held_out = sessions.train, sessions.held_out
    features = train_part.features[:BATCH_SIZE]
    dopamine = model.dopamine_readout is not None and held_out.dopamine_weight.any()
    # Computed where a figure asks for them, so that what fails there leaves the others.
    bottlenecks = functools.cache(lambda: compute_bottlenecks(model, train_part.observation_names))
    choice_rule = functools.cache(lambda: compute_choice_rule(model, features))
    update_rules = functools.cache(lambda: compute_update_rules(model, features))
    dopamine_rule = functools.cache(
        lambda: compute_dopamine_rule(model, features) if dopamine else None
    )
    figures = {
        "bottlenecks": lambda: plot_bottlenecks(bottlenecks()),
        "choice_rule": lambda: plot_choice_rule(choice_rule()),
        "update_rules": lambda: plot_update_rules(update_rules()),
        "session": lambda: plot_session(
            compute_session_trace(model, held_out, 0), latents=open_latents(model) or None
        ),
        "paper_model": lambda: plot_model(
            bottlenecks(), choice_rule(), update_rules(), dopamine_rule()
        ),
        "paper_structure": lambda: plot_structure(bottlenecks()),
    }
    if dopamine:
        figures["dopamine_rule"] = lambda: plot_dopamine_rule(dopamine_rule())
        figures["dopamine"] = lambda: plot_dopamine_scatter(
            compute_dopamine_predictions(model, held_out, batch_size=BATCH_SIZE)
        )
    if model.subjects:
        figures["subjects"] = lambda: plot_embeddings(
            compute_embeddings(model), dimensions=open_embeddings(model)
        )
    if history is not None:
        truth = (metrics or {}).get("held_out", {}).get("true_agent")
        references = truth and {
            "choice_normalized_likelihood": truth["choice"]["normalized_likelihood"]
        }
        figures["learning_curves"] = lambda: plot_learning_curves(history, references=references)
    if selections:
        figures["penalties"] = lambda: plot_selection(selections)
    for name, plot in figures.items():
        for ending in formats:
            save_figure(Path(folder) / f"{name}.{ending}", plot)


def load_run(folder):
    """Reads a finished run.

    Args:
        folder: A run folder.

    Returns:
        `(model, data settings, seed)`.

    Raises:
        FileNotFoundError: If it is no folder of a finished run.
        ValueError: If a file in it cannot be read.
    """
    folder = Path(folder)
    for name in ("config.yaml", "model.keras", "report.html"):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder}: expected the folder of a finished run, but {name} is not there"
            )
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    data = dict(config["data"])
    if "table" in data:
        data["columns"] = Columns(**data["columns"])
        data = TableData(**data)
    else:
        data = SyntheticData(**data)
    return load_model(folder / "model.keras"), data, config["seed"]


def load_training(folder):
    """The `TrainingSettings` of a finished run; the default ones where it chose its penalties."""
    config = yaml.safe_load((Path(folder) / "config.yaml").read_text(encoding="utf-8"))
    return TrainingSettings(**config.get("training", {}))


def load_results(folder):
    """What `draw` shows of a finished run beside its model, as keywords of it."""
    folder = Path(folder)
    history = folder / "history.csv"
    return {
        "history": pd.read_csv(history) if history.exists() else None,
        "metrics": json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        "selections": {
            stage: pd.read_csv(table)
            for stage in ("choice", "dopamine")
            if (table := folder / f"{stage}_penalties.csv").exists()
        },
    }


def load_model(path, kind=DisRNNModel):
    """Reads a model from a `.keras` file, without running code that the file names.

    Args:
        path: The file.
        kind: Class of the model; `None` for any of Keras and this package.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, holds another model, or names other code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        _check_config(path, config, kind)
        return keras.models.load_model(path, safe_mode=True)
    except _ForeignModel:
        raise
    except Exception as error:
        raise ValueError(
            f"{path}: expected a model saved as a .keras file, but it cannot be read "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from error


class _ForeignModel(ValueError):
    """The file is whole and holds something else."""


def _check_config(path, config, kind):
    """Refuses what is not ours before Keras makes anything of it: a config names code to import."""
    found = config if isinstance(config, dict) else {"class_name": type(config).__name__}
    if kind is not None:
        registered = keras.saving.get_registered_name(kind)
        if found.get("registered_name") != registered:
            raise _ForeignModel(
                f"{path}: expected a {kind.__name__}, got a {found.get('class_name')}"
            )
    for module in _modules(config):
        if module.split(".")[0] not in ("keras", "keras_disrnn", "builtins"):
            raise _ForeignModel(
                f"{path}: expected code of Keras and keras_disrnn alone, but it names {module!r}; "
                "load it with keras.models.load_model if you trust it"
            )


def _modules(config):
    """Every module that a Keras config names."""
    if isinstance(config, dict):
        if isinstance(config.get("module"), str):
            yield config["module"]
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _modules(item)


def plain_config(settings):
    """A dict of settings, of which some are dataclasses, in the types of YAML and JSON."""
    return json.loads(
        json.dumps(
            {
                name: _as_dict(value) if dataclasses.is_dataclass(value) else value
                for name, value in settings.items()
            }
        )
    )


def _as_dict(settings):
    found = dataclasses.asdict(settings)
    if isinstance(settings, ModelSettings) and not settings.subject_units:
        # As before there were any, so that a folder of then is taken for what it is.
        for name in ("subject_units", *SUBJECT_PENALTIES):
            del found[name]
    if isinstance(settings, TrainingSettings) and settings.strategy is None:
        del found["strategy"]
    return found


def write_config(folder, config):
    """Writes config.yaml, as the command line takes it with `--config`."""
    write_text(Path(folder) / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def _environment(command):
    packages = ("keras-disrnn", "tensorflow", "keras", "tensorflow-datasets", "numpy", "pandas")
    return {
        "command": command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def plain(value):
    """`value` in JSON's types; a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path, value):
    """Writes a dict of scores as JSON, atomically; numbers that are not finite become null."""
    write_text(path, json.dumps(plain(value), indent=2))
