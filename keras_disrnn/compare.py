"""Baselines fitted to the training part of a data set and scored on both parts."""

import dataclasses
from pathlib import Path
from typing import Literal

import keras
import pandas as pd

from keras_disrnn import baselines
from keras_disrnn.analysis import comparison_markdown, compute_comparison
from keras_disrnn.bandit.checks import check_integer
from keras_disrnn.files import write_text
from keras_disrnn.run import load_data

COGNITIVE = {
    "Q": baselines.QLearning,
    "FQ": baselines.ForgettingQLearning,
    "DFQ": baselines.DifferentialForgettingQLearning,
    "actor-critic": baselines.LeakyActorCritic,
}
"""The cognitive models of the table, by name."""


@dataclasses.dataclass(frozen=True)
class BaselineSettings:
    """How the baselines are fitted and scored.

    Args:
        cognitive: Which cognitive models, of "Q", "FQ", "DFQ" and "actor-critic".
        per_subject: Whether the naive and the cognitive models are fitted to each subject, and not
            to all together. The GRU is always fitted to all.
        starts: Random starts of each cognitive fit.
        gru_units: Width of the GRU; 0 leaves it out.
        gru_steps: Most steps of its training.
        replicates: Resamples of the bootstrap.
        models: Further models to score: name to a `.keras` file, such as the `model.keras` of a
            run folder.
    """

    cognitive: list[Literal["Q", "FQ", "DFQ", "actor-critic"]] = dataclasses.field(
        default_factory=lambda: list(COGNITIVE)
    )
    per_subject: bool = False
    starts: int = 8
    gru_units: int = 16
    gru_steps: int = 400
    replicates: int = 2000
    models: dict[str, str] = dataclasses.field(default_factory=dict)


def fit_baselines(sessions, settings, seed):
    """Fits every baseline: each cognitive model to choices, to dopamine and to both.

    Args:
        sessions: `keras_disrnn.data.Sessions`, the training part.
        settings: `BaselineSettings`.
        seed: Of starts and initial weights.

    Returns:
        Dict of name to model, or to a dict of subject to model; and a `pandas.DataFrame` of the
        parameters, with the columns `model`, `subject` and those of a `Fit`'s estimates.

    Raises:
        ValueError: If a model cannot be fitted.
    """
    shape = {
        "arms": sessions.arms,
        "observations": sessions.observations,
        "signals": sessions.signals,
    }

    def each(make, *arguments, **options):
        if settings.per_subject:
            return baselines.fit_subjects(make, sessions, *arguments, **options)
        model = make()
        model.fit_sessions(sessions, *arguments, **options)
        return model

    models, tables = {"naive": each(lambda: baselines.Naive(**shape))}, []
    targets = ("choice", "dopamine", "joint") if sessions.signals == 1 else ("choice", "joint")
    for name in settings.cognitive:
        kind = COGNITIVE[name]
        for target in targets if sessions.signals else ("choice",):
            model = each(lambda kind=kind: kind(**shape), target, starts=settings.starts, seed=seed)
            label = f"{name}, {target}"
            models[label] = model
            by_subject = model if settings.per_subject else {"(all)": model}
            estimates = baselines.subject_estimates(by_subject)
            estimates.insert(0, "model", label)
            tables.append(estimates)
            if target == "choice" and sessions.signals:
                if settings.per_subject:
                    models[f"{label}, affine"] = {
                        subject: one.calibrate(baselines.subject_sessions(sessions, subject))
                        for subject, one in model.items()
                    }
                else:
                    models[f"{label}, affine"] = model.calibrate(sessions)
    if settings.gru_units:
        for label, signals in (("GRU, choice", 0), ("GRU, joint", sessions.signals)):
            if label == "GRU, choice" or signals:
                gru = baselines.GRU(settings.gru_units, seed, **{**shape, "signals": signals})
                gru.fit_sessions(sessions, steps=settings.gru_steps)
                models[label] = gru
    return models, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def compare(out, data, settings, seed):
    """Fits the baselines, scores them and further models, and writes the tables.

    Args:
        out: The new folder: `table.csv`, `table.md` (see `compute_comparison`) and
            `parameters.csv`.
        data: `SyntheticData` or `TableData`.
        settings: `BaselineSettings`.
        seed: Of synthetic data, starts, initial weights and resamples.

    Returns:
        The table of `compute_comparison`.

    Raises:
        FileExistsError: If the folder exists.
        FileNotFoundError, ValueError: If a setting, the data or a model file are wrong.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists already; choose a new folder")
    check_integer("replicates", settings.replicates, 1)
    check_integer("starts", settings.starts, 1)
    loaded = {name: keras.saving.load_model(path) for name, path in settings.models.items()}
    sessions = load_data(data, seed)
    models, estimates = fit_baselines(sessions.train, settings, seed)
    table = compute_comparison(
        {**models, **loaded},
        {"train": sessions.train, "held_out": sessions.held_out},
        replicates=settings.replicates,
        seed=seed,
    )
    out.mkdir(parents=True)
    write_text(out / "table.csv", table.to_csv(index=False))
    write_text(out / "table.md", comparison_markdown(table))
    write_text(out / "parameters.csv", estimates.to_csv(index=False))
    return table
