"""The work of the smaller commands: read a run or a model, and write what the user asks for."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from keras_disrnn.analysis import (
    compute_embedding_correlations,
    compute_embeddings,
    compute_subject_rates,
    open_embeddings,
)
from keras_disrnn.data import (
    Columns,
    Sessions,
    read_table,
    sessions_from_table,
)
from keras_disrnn.data import summary as summarize_sessions
from keras_disrnn.experiments.behaviour import compare_behaviour
from keras_disrnn.experiments.behaviour_settings import BehaviourSettings
from keras_disrnn.experiments.data import load_run_data, load_sessions
from keras_disrnn.experiments.figures import check_formats, draw, save_figures
from keras_disrnn.experiments.metrics import compute_metrics, score_sessions
from keras_disrnn.experiments.prepared_settings import TfdsData
from keras_disrnn.experiments.recovery import check_recovery, recover, summarize_recovery
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import (
    SYNTHETIC_COLUMNS,
    ModelSettings,
    SyntheticData,
    TableData,
)
from keras_disrnn.experiments.stored_run import load_results, load_run
from keras_disrnn.io.keras_file import load_model, save_model
from keras_disrnn.io.reference import read_reference, write_reference
from keras_disrnn.io.saved_model import export
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.plots import (
    plot_embeddings,
    plot_recovery,
    plot_recovery_by_sessions,
)
from keras_disrnn.utils.files import check_new, new_folder, write_json
from keras_disrnn.utils.tables import check_columns, write_csv

logger = logging.getLogger(__name__)


def evaluate_run(
    run: str | os.PathLike[str],
    table: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Score the model of a run.

    Args:
        run: The folder of a finished run.
        table: Another table with the columns of the run's table. All of its sessions are scored. By
            default the run's own data are scored.
        out: A new JSON file for the scores.

    Returns:
        The scores: the contents of metrics.json for the run's own data, or those of one part for
        another table.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError, ValueError: If the run or the table cannot be read.
    """
    if out is not None:
        check_new(out, "file")
    if table is None:
        metrics, _ = compute_metrics(*load_run_data(run))
    else:
        model, data, _ = load_run(run)
        metrics = score_sessions(model, _read_like(model, data, table))
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_json(out, metrics)
    return metrics


def print_summary(data: TableData | TfdsData) -> None:
    """Print what data hold, by subject: counts, rates, and each observation and signal.

    Args:
        data: The table and its columns, or the prepared data set. Both parts are counted.
    """
    sessions = load_sessions(data)
    print(f"{sessions}\n\n{summarize_sessions(sessions).T.to_string()}")


def print_behaviour(
    out: str | os.PathLike[str], data: TableData, *, settings: BehaviourSettings, seed: int
) -> None:
    """Compare how models play with how animals play, and print the distances.

    Args:
        out: The new folder.
        data: As for `compare_behaviour`.
        settings: As for `compare_behaviour`.
        seed: As for `compare_behaviour`.
    """
    found, distances = compare_behaviour(out, data, settings=settings, seed=seed)
    for statistic, reason in found["animals"].skipped.items():
        print(f"Left out {statistic}: {reason}")
    if len(distances):
        print(distances.round(4).to_string(index=False))
    print(f"Wrote {out}")


def _read_like(
    model: DisRNNModel,
    data: TableData | TfdsData | SyntheticData,
    table: str | os.PathLike[str],
) -> Sessions:
    """Read a table as the model reads its own, also if it lacks an arm or dopamine."""
    columns = SYNTHETIC_COLUMNS
    if isinstance(data, TableData):
        columns = data.columns
    elif isinstance(data, TfdsData):
        # A prepared data set has the columns of `trials_table`.
        columns = Columns(dopamine="dopamine")
    names = columns.signal_names
    found = read_table(table)
    recorded = [name for name in names if name in found and found[name].notna().any()]
    if len(recorded) < len(names):
        absent = ", ".join(name for name in names if name not in recorded)
        logger.warning("%s: has no values of %s, which are not scored", table, absent)
    sessions = sessions_from_table(
        table,
        dataclasses.replace(columns, dopamine=recorded or None),
        num_arms=model.num_arms,
        reward_kind="binary" if isinstance(data, SyntheticData) else data.reward_kind,
    )
    if not 0 < len(recorded) < len(names):
        return sessions
    arrays: Any = {}
    for name in ("dopamine", "dopamine_weight"):
        arrays[name] = np.zeros((*sessions.choice.shape, len(names)), np.float32)
        arrays[name][..., [names.index(each) for each in recorded]] = getattr(sessions, name)
    return dataclasses.replace(sessions, signal_names=names, **arrays)


def export_run(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: Literal["saved_model", "reference"] = "saved_model",
) -> str | None:
    """Export the model of a run, or of a `.keras` file.

    Args:
        run: The folder of a finished run, or a `.keras` file.
        out: The new folder.
        format: `"saved_model"`, or `"reference"` for the files of the package `disentangled-rnns`.

    Returns:
        The SHA-256 of the manifest of a SavedModel; `None` for the other format.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError, ValueError: If there is no such model, or it cannot be exported.
    """
    check_new(out)
    if Path(run).is_file():
        model, record = load_model(run, kind=None), None
    else:
        (model, _, _), record = load_run(run), run
    if format == "reference":
        write_reference(model, out)
        return None
    return export(model, out, run=record)


def import_model(
    params: str | os.PathLike[str],
    out: str | os.PathLike[str],
    configuration: str | os.PathLike[str] | None = None,
) -> DisRNNModel:
    """Convert a model of the package `disentangled-rnns` to a `.keras` file.

    Args:
        params: Its parameters, a JSON file or a pickled dict of arrays.
        out: The new `.keras` file.
        configuration: The fields of its configuration, a JSON file or a pickle.

    Returns:
        The model.

    Raises:
        FileExistsError: If `out` exists.
        ValueError: If `out` does not end in .keras, or the files hold no such model.
    """
    path = check_new(out, "file")
    if path.suffix != ".keras":
        raise ValueError(f"{out}: expected a name that ends in .keras, got {path.name!r}")
    model = read_reference(params, configuration)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, path)
    return model


def plot_run(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    formats: Sequence[str] = ("png", "pdf"),
) -> None:
    """Draw the figures of a run again.

    Args:
        run: The folder of a finished run.
        out: The new folder of figures.
        formats: File name extensions, such as png, pdf and svg.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError, ValueError: If the run cannot be read.
    """
    check_new(out)
    check_formats(formats)
    model, data = load_run_data(run)
    results = load_results(run)
    with new_folder(out) as folder:
        draw(model, data, folder, formats=formats, **results)


class SubjectReport(NamedTuple):
    """What `report_subjects` found.

    Attributes:
        table: One row per subject: its embedding, and the learning rates of its update rules.
        dimensions: Names of the open dimensions of the embedding.
        correlations: Spearman's rank correlations with known properties; `None` without those.
    """

    table: pd.DataFrame
    dimensions: list[str]
    correlations: pd.DataFrame | None


def report_subjects(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    known: str | os.PathLike[str] | None = None,
    column: str = "subject",
) -> SubjectReport:
    """Write and draw what the model of a run has learned about each subject.

    Args:
        run: The folder of a finished run of a model with subjects.
        out: The new folder: `embeddings.csv` and the figure `embeddings`. With `known` also
            `correlations.csv` and the figures `known_embeddings` and `known_rates`.
        known: A table with one row per subject and columns of numbers to compare them with.
        column: The column of subjects in that table.

    Returns:
        A `SubjectReport`.

    Raises:
        FileExistsError: If `out` exists.
        FileNotFoundError, ValueError: If the run or the table cannot be read, or the model has no
            subjects.
    """
    check_new(out)
    facts = None
    if known is not None:
        facts = read_table(known, text=[column])
        check_columns(str(known), facts, [column])
        facts = facts.assign(subject=facts[column])
    model, data = load_run_data(run)
    embeddings, dimensions = compute_embeddings(model), open_embeddings(model)
    correlations = [] if facts is None else [compute_embedding_correlations(embeddings, facts)]
    rates = compute_subject_rates(model, data.train)
    figures: dict[str, tuple[Any, ...]] = {"embeddings": (embeddings,)}
    if facts is not None:
        correlations.append(compute_embedding_correlations(rates, facts))
        figures |= {"known_embeddings": (embeddings, facts), "known_rates": (rates, facts)}
    report = SubjectReport(
        embeddings.merge(rates, on="subject", how="left"),
        dimensions,
        pd.concat(correlations, ignore_index=True) if correlations else None,
    )
    with new_folder(out) as folder:
        write_csv(folder / "embeddings.csv", report.table)
        if report.correlations is not None:
            write_csv(folder / "correlations.csv", report.correlations)
        for name, shown in figures.items():
            only = None if name == "known_rates" else dimensions
            save_figures(folder / name, plot_embeddings, *shown, dimensions=only)
    return report


def recover_sizes(
    out: str | os.PathLike[str],
    seeds: Sequence[int],
    *,
    data: SyntheticData,
    model: ModelSettings,
    selection: SelectionSettings,
    sizes: Sequence[int] = (),
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Test the recovery of an agent (see `recover`) by number of sessions, and draw the results.

    Args:
        out: The folder. Each of several sizes has a folder in it.
        seeds: As for `recover`.
        data: As for `recover`.
        model: As for `recover`.
        selection: As for `recover`.
        sizes: Numbers of training sessions to use instead of `data.num_sessions`.
        workers: As for `recover`.
        report: As for `recover`.

    Returns:
        The table of `recover` with a column `sessions`.

    Raises:
        FileExistsError, ValueError: As for `recover`.
    """
    out = Path(out)
    tables = []
    settings: Any = {"model": model, "selection": selection, "workers": workers}
    data_by_size = {
        size: dataclasses.replace(data, num_sessions=size) for size in sizes or [data.num_sessions]
    }
    for own in data_by_size.values():
        check_recovery(seeds, data=own, **settings)
    for size, own in data_by_size.items():
        place = out / f"sessions-{size}" if sizes else out
        table = recover(place, seeds, data=own, report=report, **settings)
        tables.append(table.assign(sessions=size))
        if sizes:
            report(f"sessions: {size}")
        for name, value in summarize_recovery(table).items():
            report(f"{name}: {value:.5g}" if isinstance(value, float) else f"{name}: {value}")
    table = pd.concat(tables, ignore_index=True)
    if sizes:
        write_csv(out / "recovery.csv", table)
    save_figures(out / "recovery", plot_recovery_by_sessions if sizes else plot_recovery, table)
    return table
