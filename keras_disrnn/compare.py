"""Models fitted to the training part of a data set, and scored side by side on both parts."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Literal

import pandas as pd

from keras_disrnn import baselines
from keras_disrnn.analysis import (
    comparison_latex,
    comparison_markdown,
    compute_comparison,
    compute_fold_comparison,
    true_predictions,
)
from keras_disrnn.checks import check_integer
from keras_disrnn.data import leave_one_subject_out
from keras_disrnn.files import write_text
from keras_disrnn.plots import plot_comparison, save_figure
from keras_disrnn.run import (
    SyntheticData,
    TableData,
    load_data,
    load_model,
    load_sessions,
    make_model,
    plain_config,
    possible_training,
    write_config,
)
from keras_disrnn.selection import SelectionSettings, select
from keras_disrnn.training import STAGES, check_training, train

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


def fit_disrnn(sessions, model, training, seed):
    """Fits the DisRNN of the table.

    Args:
        sessions: `keras_disrnn.data.Sessions`, the training part.
        model: `ModelSettings`.
        training: `TrainingSettings`; or `SelectionSettings`, to choose the penalties by the
            training part alone.
        seed: Of initial weights, noise and batches.

    Returns:
        A trained `DisRNNModel`.
    """
    if isinstance(training, SelectionSettings):
        make = functools.partial(make_model, sessions, model)
        return select(make, sessions, training, seed=seed)[0]
    network = make_model(sessions, model, seed)
    settings = dataclasses.asdict(possible_training(sessions, training))
    train(network, sessions, **settings, seed=seed, verbose=0)
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
        Dict of name to a function of the training `Sessions` and the models fitted before (dict of
        name to model), which returns a model, or a dict of subject to model.
    """
    shape = {
        "arms": sessions.arms,
        "observations": sessions.observations,
        "signals": sessions.signals,
    }

    def each(make, *arguments, **options):
        def fit(sessions, fitted):
            if settings.per_subject:
                return baselines.fit_subjects(make, sessions, *arguments, **options)
            one = make()
            one.fit_sessions(sessions, *arguments, **options)
            return one

        return fit

    plan = {"naive": each(functools.partial(baselines.Naive, **shape))}
    targets = ("choice", "dopamine", "joint") if sessions.signals == 1 else ("choice", "joint")
    for name in settings.cognitive:
        make = functools.partial(COGNITIVE[name], **shape)
        for target in targets if sessions.signals else ("choice",):
            label = f"{name}, {target}"
            plan[label] = each(make, target, starts=settings.starts, seed=seed)
            if target == "choice" and sessions.signals:
                plan[f"{label}, affine"] = functools.partial(_calibrate, label)
    if settings.gru_units:
        for label, signals in (("GRU, choice", 0), ("GRU, joint", sessions.signals)):
            if label == "GRU, choice" or signals:
                make = functools.partial(
                    baselines.GRU, settings.gru_units, seed, **{**shape, "signals": signals}
                )
                plan[label] = functools.partial(_fit_gru, make, settings.gru_steps)
    if settings.disrnn:
        plan[DISRNN] = lambda sessions, fitted: fit_disrnn(sessions, model, training, seed)
    return plan


def compare(out, data, settings, model, training, seed):
    """Fits the models of a table, scores them and writes the table.

    Args:
        out: The new folder: `config.yaml`; the table of `compute_comparison` as `table.csv`,
            `table.md` and `table.tex`; `scores` and `differences`, figures as PNG and PDF; and
            `parameters.csv`, of the cognitive models.
        data: `SyntheticData` or `TableData`.
        settings: `ComparisonSettings`.
        model, training: `ModelSettings` and `TrainingSettings` (or `SelectionSettings`) of the
            DisRNN.
        seed: Of synthetic data, starts, initial weights, noise, batches and resamples.

    Returns:
        The table of `compute_comparison`, or with one subject left out that of
        `compute_fold_comparison`.

    Raises:
        FileExistsError: If the folder exists.
        FileNotFoundError, ValueError: If a setting, the data or a model file are wrong.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists already; choose a new folder")
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
        for split in leave_one_subject_out(sessions):
            subject = split.held_out.subjects[0]
            print(f"Without {subject}:")
            folds[subject] = _fit(plan, split.train)
            estimates.append(_estimates(folds[subject]).assign(left_out=subject))
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
        fitted = _fit(plan, parts.train)
        table = compute_comparison({**fitted, **loaded}, sessions, **ways)
        estimates = _estimates(fitted)

    out.mkdir(parents=True)
    kind = "synthetic" if isinstance(data, SyntheticData) else "data"
    way = "selection" if isinstance(training, SelectionSettings) else "training"
    config = {kind: data, "settings": settings, "model": model, way: training, "seed": seed}
    write_config(out, plain_config(config))
    write_text(out / "table.csv", table.to_csv(index=False))
    write_text(out / "table.md", comparison_markdown(table))
    write_text(out / "table.tex", comparison_latex(table))
    write_text(out / "parameters.csv", estimates.to_csv(index=False))
    for name, differences in (("scores", False), ("differences", True)):
        for ending in ("png", "pdf"):
            save_figure(out / f"{name}.{ending}", plot_comparison, table, differences=differences)
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
                training.steps_per_epoch,
                training.learning_rate,
                training.settle_steps,
            )


def _fit(plan, sessions):
    fitted = {}
    for name, fit in plan.items():
        began = time.monotonic()
        fitted[name] = fit(sessions, fitted)
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    return fitted


def _fit_gru(make, steps, sessions, fitted):
    gru = make()
    gru.fit_sessions(sessions, steps=steps)
    return gru


def _calibrate(name, sessions, fitted):
    model = fitted[name]
    if isinstance(model, dict):
        return {
            subject: one.calibrate(baselines.subject_sessions(sessions, subject))
            for subject, one in model.items()
        }
    return model.calibrate(sessions)


def _estimates(fitted):
    """The parameters of the cognitive models that were fitted, a calibrated copy's left out."""
    tables = []
    for name, model in fitted.items():
        by_subject = model if isinstance(model, dict) else {"(all)": model}
        first = next(iter(by_subject.values()))
        if isinstance(first, tuple(COGNITIVE.values())) and not name.endswith(", affine"):
            estimates = baselines.subject_estimates(by_subject)
            estimates.insert(0, "model", name)
            tables.append(estimates)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
