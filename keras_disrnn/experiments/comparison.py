"""Fit models to the training part of a data set, and compare their scores on both parts."""

from __future__ import annotations

import functools
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from keras_disrnn.analysis import (
    comparison_latex,
    comparison_markdown,
    compute_comparison,
    compute_fold_comparison,
    compute_seed_spread,
    true_predictions,
)
from keras_disrnn.analysis.seeds import seed_spread_markdown
from keras_disrnn.data import Sessions, leave_one_subject_out
from keras_disrnn.experiments.comparison_plan import Plan, plan_models
from keras_disrnn.experiments.comparison_settings import ComparisonSettings, OptionalTable
from keras_disrnn.experiments.data import load_data, load_sessions
from keras_disrnn.experiments.figures import save_figures
from keras_disrnn.experiments.folder import ResultFolder
from keras_disrnn.experiments.run import check_stages, make_model
from keras_disrnn.experiments.selection import check_selection
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import (
    ModelSettings,
    SyntheticData,
    TableData,
    TrainingSettings,
    plain_config,
)
from keras_disrnn.io.keras_file import load_model, save_model
from keras_disrnn.models import baselines
from keras_disrnn.plots import plot_comparison
from keras_disrnn.training.fit import fingerprint
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.checksums import check_checksums
from keras_disrnn.utils.files import write_text
from keras_disrnn.utils.tables import write_csv

TRUE_AGENT = "true agent"


def choose_data(data: OptionalTable, synthetic: SyntheticData) -> OptionalTable | SyntheticData:
    """Return the data to compare models on: the table, or synthetic sessions if there is none.

    Args:
        data: The table, or none.
        synthetic: The synthetic sessions.

    Returns:
        One of the two.

    Raises:
        ValueError: If there is no table, but other settings of one are given.

    Example:

    >>> from keras_disrnn.experiments.comparison import OptionalTable, choose_data
    >>> from keras_disrnn.experiments.settings import SyntheticData
    >>> choose_data(OptionalTable(), SyntheticData(num_sessions=10)).num_sessions
    10
    """
    if data.table is not None:
        return data
    # The parser makes lists of tuples, so compare plain values.
    given, default = (plain_config({"data": each}) for each in (data, OptionalTable()))
    if given != default:
        raise ValueError(
            "data.table: expected a file, because other settings of data are given, got none"
        )
    return synthetic


def compare(
    out: str | os.PathLike[str],
    *,
    data: TableData | SyntheticData,
    settings: ComparisonSettings,
    model: ModelSettings,
    training: TrainingSettings | SelectionSettings,
    seed: int = 0,
) -> pd.DataFrame:
    """Fit models, score them and write the table. An interrupted comparison is resumed.

    Args:
        out: The folder: `config.yaml` and `environment.json`; the models in `models`; the table of
            `compute_comparison` as `table.csv`, `table.md` and `table.tex`; the figures `scores`
            and `differences`; `parameters.csv`, of the cognitive models; and, with several seeds of
            the GRU, `seeds.csv`.
        data: The data.
        settings: Which models are fitted, and how they are scored.
        model: Shape and penalties of the DisRNN.
        training: The stages of its training, or `SelectionSettings`.
        seed: Seed of the synthetic data, starts, initial weights, noise, batches and bootstrap.

    Returns:
        The table of `compute_comparison`, or that of `compute_fold_comparison` if each subject is
        left out in turn.

    Raises:
        FileExistsError: If the folder holds a finished comparison, one of other settings, or other
            files.
        FileNotFoundError, ValueError: If a setting, the data or a model file are wrong.
    """
    out = Path(out)
    kind = "synthetic" if isinstance(data, SyntheticData) else "data"
    way = "selection" if isinstance(training, SelectionSettings) else "training"
    config = {kind: data, "settings": settings, "model": model, way: training, "seed": seed}
    config = plain_config(config)
    folder = ResultFolder(out, config, command="compare", last="table.csv")
    check_integer("num_bootstrap_samples", settings.num_bootstrap_samples, 1)
    check_integer("num_starts", settings.num_starts, 1)
    check_integer("seed", seed, 0)
    check_integer("gru_units", settings.gru_units, 0)
    check_integer("gru_steps", settings.gru_steps, 1)
    check_integer("gru_seeds", settings.gru_seeds, 1)
    if settings.leave_one_subject_out:
        _check_left_out(data, settings, model)
    ways: dict[str, Any] = {
        "replicates": settings.num_bootstrap_samples,
        "seed": seed,
        "against": settings.against,
    }
    planned = functools.partial(
        plan_models, settings=settings, model=model, training=training, seed=seed
    )
    if settings.leave_one_subject_out and isinstance(data, TableData):
        sessions = load_sessions(data)
        plan = planned(sessions, known=False)
        _check(plan, {}, sessions, settings, model, training, seed)

        def fit() -> tuple[pd.DataFrame, pd.DataFrame]:
            folds, estimates = {}, []
            for split in leave_one_subject_out(sessions):
                subject = split.held_out.subjects[0]
                print(f"Without {subject}:")
                place = f"models/{_file_name(f'without {subject}')}"
                folds[subject], found = _fit(plan, split.train, folder, place)
                estimates.append(found.assign(left_out=subject))
            table = compute_fold_comparison(folds, sessions, **ways)
            return table, pd.concat(estimates, ignore_index=True)

        digest = fingerprint(sessions)
    else:
        loaded = {name: load_model(path, kind=None) for name, path in settings.models.items()}
        parts = load_data(data, seed)
        by_part = {"train": parts.train, "held_out": parts.held_out}
        if parts.truth is not None:
            loaded[TRUE_AGENT] = {
                part: true_predictions(each, parts.truth[part]) for part, each in by_part.items()
            }
        known = set(parts.held_out.subjects) <= set(parts.train.subjects)
        plan = planned(parts.train, known=known)
        _check(plan, loaded, parts.train, settings, model, training, seed, [parts.held_out])

        def fit() -> tuple[pd.DataFrame, pd.DataFrame]:
            fitted, estimates = _fit(plan, parts.train, folder, "models")
            return compute_comparison({**fitted, **loaded}, by_part, **ways), estimates

        digest = parts.digest

    with folder.begin(data=digest):
        table, estimates = fit()
        text = comparison_markdown(table)
        if settings.gru_seeds > 1 and settings.gru_units:
            spread = compute_seed_spread(table)
            write_csv(out / "seeds.csv", spread)
            text += f"\n{seed_spread_markdown(spread)}"
        write_text(out / "table.md", text)
        write_text(out / "table.tex", comparison_latex(table))
        write_csv(out / "parameters.csv", estimates)
        for name, differences in (("scores", False), ("differences", True)):
            save_figures(out / name, plot_comparison, table, differences=differences)
        write_csv(out / "table.csv", table)
    return table


def _check_left_out(
    data: TableData | SyntheticData, settings: ComparisonSettings, model: ModelSettings
) -> None:
    """Check that subjects can be left out in turn."""
    for name in ("per_subject", "models"):
        if getattr(settings, name):
            raise ValueError(
                f"{name}: expected none with leave_one_subject_out, because no model is "
                f"scored on a subject that it was fitted to, got {getattr(settings, name)}"
            )
    if model.subject_units and settings.disrnn:
        raise ValueError(
            "subject_units: expected 0 with leave_one_subject_out, because a model has no "
            f"embedding of a subject that it was not fitted to, got {model.subject_units}"
        )
    if isinstance(data, SyntheticData):
        raise ValueError(
            "leave_one_subject_out: expected a table of several subjects, got synthetic sessions "
            "of one subject"
        )


def _check(
    plan: Plan,
    loaded: Mapping[str, Any],
    sessions: Sessions,
    settings: ComparisonSettings,
    model: ModelSettings,
    training: TrainingSettings | SelectionSettings,
    seed: int,
    others: Sequence[Sessions] = (),
) -> None:
    """Check before the first fit that all fits can begin."""
    names = [*plan, *loaded]
    for name in loaded:
        if name in plan:
            raise ValueError(
                f"models: expected names that the table does not have yet, got {name!r}"
            )
    if settings.against not in names:
        raise ValueError(
            f"against: expected one of {', '.join(map(repr, names))}, got {settings.against!r}"
        )
    if settings.disrnn:
        network = make_model(sessions, model, seed)
        train_part, *others = (part.for_model(network) for part in (sessions, *others))
        if isinstance(training, SelectionSettings):
            check_selection(network, train_part, training, seed)
        else:
            check_stages(network, train_part, training, *others)


def _file_name(name: str) -> str:
    """Return the name of a model or a subject with special characters quoted as in a URL."""
    return urllib.parse.quote(name, safe=" ,+()")


def _fit(
    plan: Plan, sessions: Sessions, folder: ResultFolder, place: str
) -> tuple[dict[str, Any], pd.DataFrame]:
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
    fitted: dict[str, Any] = {}
    estimates = []
    for name, fit in plan.items():
        began = time.monotonic()
        new: list[bool] = []

        def compute(fit: Callable[..., Any] = fit, new: list[bool] = new) -> Any:
            new.append(True)
            return fit(sessions, fitted, unfinished)

        part = f"{place}/{_file_name(name)}"
        fitted[name] = folder.step_folder(part, compute, _write, _read)
        shutil.rmtree(unfinished, ignore_errors=True)
        took = f"{time.monotonic() - began:.1f} s" if new else "read, fitted before"
        print(f"{name}: {took}", flush=True)
        table = folder.path / part / "parameters.csv"
        if table.exists():
            # Python's parser of numbers returns exactly the value that was written.
            found = pd.read_csv(table, engine="python", dtype={"subject": str})
            found.insert(0, "model", name)
            estimates.append(found)
    return fitted, pd.concat(estimates, ignore_index=True) if estimates else pd.DataFrame()


_ALL = "(all)"


def _write(model: Any, folder: Path) -> None:
    """Write a model, or one per subject, and the parameters of a cognitive model."""
    by_subject = model if isinstance(model, dict) else {_ALL: model}
    for subject, one in by_subject.items():
        file = "model.keras" if one is model else f"{_file_name(subject)}.keras"
        save_model(one, folder / file)
    if getattr(next(iter(by_subject.values())), "last_fit", None) is not None:
        table = baselines.subject_estimates(by_subject)
        write_csv(folder / "parameters.csv", table)


def _read(folder: Path) -> Any:
    """Read what `_write` wrote."""
    check_checksums(folder, remedy=f"remove {folder} to fit the model again")
    if (folder / "model.keras").exists():
        return load_model(folder / "model.keras", kind=None)
    return {
        urllib.parse.unquote(path.stem): load_model(path, kind=None)
        for path in folder.glob("*.keras")
    }
