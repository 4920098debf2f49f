"""Models fitted to the training part of a data set, and scored side by side on both parts."""

import dataclasses
import functools
import shutil
import time
import urllib.parse
from pathlib import Path
from typing import Literal

import pandas as pd

from keras_disrnn.analysis import (
    comparison_latex,
    comparison_markdown,
    compute_comparison,
    compute_fold_comparison,
    true_predictions,
)
from keras_disrnn.data import leave_one_subject_out
from keras_disrnn.experiments.data import load_data, load_sessions
from keras_disrnn.experiments.folder import ResultFolder
from keras_disrnn.experiments.run import make_model, possible_training
from keras_disrnn.experiments.selection import SelectionSettings, select
from keras_disrnn.experiments.settings import SyntheticData, TableData, plain_config
from keras_disrnn.experiments.tensorboard import stage_boards
from keras_disrnn.io.keras_file import load_model, save_model
from keras_disrnn.models import baselines
from keras_disrnn.plots import plot_comparison, save_figure
from keras_disrnn.training.fit import check_training, fingerprint, train
from keras_disrnn.training.stages import STAGES
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.files import write_text

COGNITIVE = {
    "Q": baselines.QLearning,
    "FQ": baselines.ForgettingQLearning,
    "DFQ": baselines.DifferentialForgettingQLearning,
    "actor-critic": baselines.LeakyActorCritic,
}
"""The cognitive models of the table, by name."""

DISRNN = "DisRNN"
TRUE_AGENT = "true agent"


@dataclasses.dataclass(frozen=True)
class ComparisonSettings:
    """Which models are compared, and how they are fitted and scored.

    Args:
        cognitive: Which cognitive models, of "Q", "FQ", "DFQ" and "actor-critic".
        per_subject: Whether the naive and the cognitive models are fitted to each subject, and not
            to all together. GRU and DisRNN are always fitted to all.
        starts: Random starts of each cognitive fit.
        gru_units: Width of the GRU; 0 leaves it out.
        gru_steps: Most steps of its training.
        disrnn: Whether to fit a DisRNN.
        leave_one_subject_out: Whether to leave each subject out in turn, and to score its sessions
            by the models of the others, in place of the data's own held-out sessions.
        against: The model that differences are taken to.
        replicates: Resamples of the bootstrap.
        models: Further models to score: name to a `.keras` file, such as the `model.keras` of a
            run folder. They must have been fitted to the same training sessions.
    """

    cognitive: list[Literal["Q", "FQ", "DFQ", "actor-critic"]] = dataclasses.field(
        default_factory=lambda: list(COGNITIVE)
    )
    per_subject: bool = False
    starts: int = 8
    gru_units: int = 16
    gru_steps: int = 400
    disrnn: bool = True
    leave_one_subject_out: bool = False
    against: str = "naive"
    replicates: int = 2000
    models: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OptionalTable(TableData):
    """A table with one row a trial; without one, synthetic data."""

    table: str | None = None


def fit_disrnn(sessions, model, training, seed, folder=None):
    """Fits the DisRNN of the table.

    Args:
        sessions: `keras_disrnn.data.Sessions`, the training part.
        model: `ModelSettings`.
        training: `TrainingSettings`; or `SelectionSettings`, to choose the penalties by the
            training part alone.
        seed: Of initial weights, noise and batches.
        folder: Where it keeps what an interrupted fit goes on from, or `None`.

    Returns:
        A trained `DisRNNModel`.
    """
    if folder is not None:
        folder.mkdir(exist_ok=True)
    if isinstance(training, SelectionSettings):
        make = functools.partial(make_model, sessions, model)
        paths = None if folder is None else folder / "paths"
        report = functools.partial(print, flush=True)
        return select(make, sessions, settings=training, seed=seed, folder=paths, report=report)[0]
    with training.scope():
        network = make_model(sessions, model, seed)
    training = possible_training(sessions, training)
    checkpoint = None if folder is None else folder / "checkpoint.npz"
    train(
        network,
        sessions,
        **training.arguments(),
        seed=seed,
        checkpoint=checkpoint,
        callbacks=stage_boards(training.tensorboard),
        verbose=0,
    )
    return network


def plan_models(sessions, settings, model, training, seed):
    """What is to be fitted: each cognitive model to choices, to dopamine and to both, and so on.

    Args:
        sessions: `keras_disrnn.data.Sessions`, for the number of arms, observations and signals.
        settings: `ComparisonSettings`.
        model, training: `ModelSettings` and `TrainingSettings` (or `SelectionSettings`) of the
            DisRNN.
        seed: Of starts, initial weights, noise and batches.

    Returns:
        Dict of name to a function of the training `Sessions`, the models fitted before (dict of
        name to model) and a folder to keep unfinished work in (or `None`), which returns a model,
        or a dict of subject to model.
    """
    shape = {
        "num_arms": sessions.num_arms,
        "num_observations": sessions.num_observations,
        "num_signals": sessions.num_signals,
    }

    def each(make, *arguments, **options):
        def fit(sessions, fitted, folder):
            if settings.per_subject:
                return baselines.fit_subjects(make, sessions, *arguments, **options)
            one = make()
            one.fit_sessions(sessions, *arguments, **options)
            return one

        return fit

    plan = {"naive": each(functools.partial(baselines.Naive, **shape))}
    targets = ("choice", "dopamine", "joint") if sessions.num_signals == 1 else ("choice", "joint")
    for name in settings.cognitive:
        make = functools.partial(COGNITIVE[name], **shape)
        for target in targets if sessions.num_signals else ("choice",):
            label = f"{name}, {target}"
            plan[label] = each(make, target, starts=settings.starts, seed=seed)
            if target == "choice" and sessions.num_signals:
                plan[f"{label}, affine"] = functools.partial(_calibrate, label)
    if settings.gru_units:
        for label, signals in (("GRU, choice", 0), ("GRU, joint", sessions.num_signals)):
            if label == "GRU, choice" or signals:
                make = functools.partial(
                    baselines.GRU,
                    settings.gru_units,
                    seed=seed,
                    **{**shape, "num_signals": signals},
                )
                plan[label] = functools.partial(_fit_gru, make, settings.gru_steps)
    if settings.disrnn:
        plan[DISRNN] = lambda sessions, fitted, folder: fit_disrnn(
            sessions, model, training, seed, folder
        )
    return plan


def compare(out, data, settings, model, training, seed):
    """Fits the models of a table, scores them and writes the table.

    One that was interrupted goes on: models that are in its folder are not fitted again.

    Args:
        out: The folder: `config.yaml` and `environment.json`; the models in `models`; the table of
            `compute_comparison` as `table.csv`, `table.md` and `table.tex`; `scores` and
            `differences`, figures as PNG and PDF; and `parameters.csv`, of the cognitive models.
        data: `SyntheticData` or `TableData`.
        settings: `ComparisonSettings`.
        model, training: `ModelSettings` and `TrainingSettings` (or `SelectionSettings`) of the
            DisRNN.
        seed: Of synthetic data, starts, initial weights, noise, batches and resamples.

    Returns:
        The table of `compute_comparison`, or with one subject left out that of
        `compute_fold_comparison`.

    Raises:
        FileExistsError: If the folder holds a finished comparison, one of other settings, or
            anything else.
        FileNotFoundError, ValueError: If a setting, the data or a model file are wrong.
    """
    out = Path(out)
    kind = "synthetic" if isinstance(data, SyntheticData) else "data"
    way = "selection" if isinstance(training, SelectionSettings) else "training"
    config = {kind: data, "settings": settings, "model": model, way: training, "seed": seed}
    config = plain_config(config)
    folder = ResultFolder(out, config, command="compare", last="table.csv")
    check_integer("replicates", settings.replicates, 1)
    check_integer("starts", settings.starts, 1)
    if settings.leave_one_subject_out:
        for name in ("per_subject", "models"):
            if getattr(settings, name):
                raise ValueError(
                    f"{name}: expected none with leave_one_subject_out, whose models must not have "
                    f"seen the subject that they are scored on, got {getattr(settings, name)}"
                )
        if model.subject_units and settings.disrnn:
            raise ValueError(
                "subject_units: expected 0 with leave_one_subject_out, as a model has no embedding "
                f"of a subject that it has not seen, got {model.subject_units}"
            )
        if isinstance(data, SyntheticData):
            raise ValueError(
                "leave_one_subject_out: expected a table of several subjects, got synthetic "
                "sessions, which are of one"
            )
    ways = {"replicates": settings.replicates, "seed": seed, "against": settings.against}
    planned = functools.partial(
        plan_models, settings=settings, model=model, training=training, seed=seed
    )
    if settings.leave_one_subject_out:
        sessions = load_sessions(data)
        plan = planned(sessions)
        _check(plan, {}, sessions, settings, model, training, seed)
        folds, estimates = {}, []
        folder.begin(data=fingerprint(sessions))
        for split in leave_one_subject_out(sessions):
            subject = split.held_out.subjects[0]
            print(f"Without {subject}:")
            place = f"models/{_file_name(f'without {subject}')}"
            folds[subject], found = _fit(plan, split.train, folder, place)
            estimates.append(found.assign(left_out=subject))
        table = compute_fold_comparison(folds, sessions, **ways)
        estimates = pd.concat(estimates, ignore_index=True)
    else:
        loaded = {name: load_model(path, kind=None) for name, path in settings.models.items()}
        parts = load_data(data, seed)
        sessions = {"train": parts.train, "held_out": parts.held_out}
        if parts.truth is not None:
            loaded[TRUE_AGENT] = {
                part: true_predictions(each, parts.truth[part]) for part, each in sessions.items()
            }
        plan = planned(parts.train)
        held_out = [parts.held_out] if model.subject_units else []
        _check(plan, loaded, parts.train, settings, model, training, seed, held_out)
        folder.begin(data=fingerprint(parts.train))
        fitted, estimates = _fit(plan, parts.train, folder, "models")
        table = compute_comparison({**fitted, **loaded}, sessions, **ways)

    write_text(out / "table.md", comparison_markdown(table))
    write_text(out / "table.tex", comparison_latex(table))
    write_text(out / "parameters.csv", estimates.to_csv(index=False))
    for name, differences in (("scores", False), ("differences", True)):
        for ending in ("png", "pdf"):
            save_figure(out / f"{name}.{ending}", plot_comparison, table, differences=differences)
    write_text(out / "table.csv", table.to_csv(index=False))
    return table


def _check(plan, loaded, sessions, settings, model, training, seed, others=()):
    """Refuses, before any fit, what would end one later."""
    names = [*plan, *loaded]
    for name in loaded:
        if name in plan:
            raise ValueError(f"models: expected names other than those of the table, got {name!r}")
    if settings.against not in names:
        raise ValueError(
            f"against: expected one of {', '.join(map(repr, names))}, got {settings.against!r}"
        )
    if settings.disrnn and not isinstance(training, SelectionSettings):
        training = possible_training(sessions, training)
        steps = {stage: getattr(training, f"{stage}_steps") for stage in STAGES}
        network = make_model(sessions, model, seed)
        for part in (sessions, *others):
            check_training(
                network,
                part.for_model(network),
                steps,
                steps_per_epoch=training.steps_per_epoch,
                learning_rate=training.learning_rate,
                settle_steps=training.settle_steps,
            )


def _file_name(name):
    """Of a model or a subject: what a file system may not like is written as in an address."""
    return urllib.parse.quote(name, safe=" ,+()")


def _fit(plan, sessions, folder, place):
    """Fit the models that are not in the folder yet.

    Args:
        plan: The models, as `plan_models` returns them.
        sessions: The training `Sessions`.
        folder: The `ResultFolder` of the comparison.
        place: Where in it the models are kept.

    Returns:
        Dict of name to model (or dict of subject to model), and a table of the parameters of the
        cognitive models. The table leaves out calibrated copies.
    """
    unfinished = folder.path / place / "unfinished"
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    fitted, estimates = {}, []
    for name, fit in plan.items():
        began, new = time.monotonic(), []

        def compute(fit=fit, new=new):
            new.append(True)
            return fit(sessions, fitted, unfinished)

        part = f"{place}/{_file_name(name)}"
        fitted[name] = folder.step_folder(part, compute, _write, _read)
        shutil.rmtree(unfinished, ignore_errors=True)
        took = f"{time.monotonic() - began:.1f} s" if new else "read, fitted before"
        print(f"{name}: {took}", flush=True)
        table = folder.path / part / "parameters.csv"
        if table.exists():
            # Python's own parser of numbers gives back what was written, to the last digit.
            found = pd.read_csv(table, engine="python", dtype={"subject": str})
            found.insert(0, "model", name)
            estimates.append(found)
    return fitted, pd.concat(estimates, ignore_index=True) if estimates else pd.DataFrame()


_ALL = "(all)"


def _write(model, folder):
    """Writes a model, or one for each subject, with the parameters of a cognitive one."""
    by_subject = model if isinstance(model, dict) else {_ALL: model}
    for subject, one in by_subject.items():
        file = "model.keras" if one is model else f"{_file_name(subject)}.keras"
        save_model(one, folder / file)
    if getattr(next(iter(by_subject.values())), "last_fit", None) is not None:
        table = baselines.subject_estimates(by_subject)
        write_text(folder / "parameters.csv", table.to_csv(index=False))


def _read(folder):
    """What `_write` wrote."""
    if (folder / "model.keras").exists():
        return load_model(folder / "model.keras", kind=None)
    return {
        urllib.parse.unquote(path.stem): load_model(path, kind=None)
        for path in folder.glob("*.keras")
    }


def _fit_gru(make, steps, sessions, fitted, folder):
    gru = make()
    gru.fit_sessions(sessions, steps=steps)
    return gru


def _calibrate(name, sessions, fitted, folder):
    model = fitted[name]
    if isinstance(model, dict):
        return {
            subject: one.calibrate(sessions.of_subjects([subject]))
            for subject, one in model.items()
        }
    return model.calibrate(sessions)
