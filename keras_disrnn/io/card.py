"""The model card of an export: everything that is known about the model, in Markdown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import pandas as pd
import yaml

from keras_disrnn.analysis import compute_bottlenecks, open_latents
from keras_disrnn.analysis.scores import tabulate_scores, untrained_note
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.plots.captions import FIGURES
from keras_disrnn.utils.checksums import check_checksums
from keras_disrnn.utils.files import read_json, write_text
from keras_disrnn.utils.plain_files import parse_yaml
from keras_disrnn.utils.tables import escape_markdown, markdown_block, markdown_code
from keras_disrnn.utils.thresholds import OPEN_BELOW
from keras_disrnn.version import __version__

if TYPE_CHECKING:
    from keras_disrnn.models.baselines.base import Baseline

Z_95 = 1.96
"""Half the width of a 95 % interval, in standard errors."""


class Record(NamedTuple):
    """The files of a run folder that describe its model.

    Attributes:
        config: The settings, from `config.yaml`.
        metrics: The scores, from `metrics.json`.
        environment: The versions and the command, from `environment.json`.
        sessions: The table of sessions, from `sessions.csv`.
        figures: Names of figures and their PNG files.
    """

    config: dict[str, Any]
    metrics: dict[str, Any]
    environment: dict[str, Any]
    sessions: pd.DataFrame
    figures: dict[str, Path]


def read_record(folder: str | os.PathLike[str]) -> Record:
    """Read the `Record` of a run folder.

    Args:
        folder: The run folder.

    Returns:
        Its record.

    Raises:
        FileNotFoundError: If the folder lacks a file.
        ValueError: If a file is damaged.

    Example:

    >>> from keras_disrnn.io.card import read_record
    >>> read_record("no_such_run")
    Traceback (most recent call last):
        ...
    FileNotFoundError: no_such_run: expected a run folder with config.yaml, got none
    """
    folder = Path(folder)
    for name in ("config.yaml", "metrics.json", "environment.json", "sessions.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: expected a run folder with {name}, got none")
    kept = "restore it from a copy, or export the model.keras of the run"
    check_checksums(folder, ("metrics.json", "environment.json", "sessions.csv"), remedy=kept)
    try:
        file = folder / "config.yaml"
        config = parse_yaml(file.read_bytes(), file)
        if not isinstance(config["data"], dict):
            raise TypeError("it has no settings of data")
    except (ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder / 'config.yaml'}: expected the settings of a run, got a file that cannot be "
            f"read ({reason}); {kept}"
        ) from error
    metrics, environment = (
        read_json(folder / name, f"the {what} of a run", remedy=kept)
        for name, what in (("metrics.json", "scores"), ("environment.json", "record"))
    )
    if "table" in config["data"]:
        # A card travels with the model, and a whole path would tell whose computer made it.
        config["data"]["table"] = Path(config["data"]["table"]).name
    if "data_dir" in config["data"]:
        config["data"]["data_dir"] = Path(config["data"]["data_dir"]).name
    files = {name: folder / "figures" / f"{name}.png" for name in FIGURES}
    return Record(
        config=config,
        metrics=metrics,
        environment=environment,
        sessions=pd.read_csv(folder / "sessions.csv", dtype={"session": str, "subject": str}),
        figures={name: file for name, file in files.items() if file.is_file()},
    )


def write_card(
    file: Path,
    *,
    title: str,
    model: DisRNNModel | Baseline,
    contract: dict[str, Any],
    record: Record | None,
) -> None:
    """Write the model card, and copy its figures into `figures/` beside it.

    Args:
        file: The card.
        title: Name of the model.
        model: The model.
        contract: The inputs and outputs of its endpoints.
        record: The record of its run; `None` if there is no run folder.
    """
    if record:
        (file.parent / "figures").mkdir()
        for name, figure in record.figures.items():
            shutil.copyfile(figure, file.parent / "figures" / f"{name}.png")
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_disrnn.io"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters["text"] = escape_markdown
    pages.filters["code"] = markdown_code
    pages.filters["yaml"] = lambda value: markdown_block(
        yaml.safe_dump(value, sort_keys=False).rstrip(), "yaml"
    )
    page = pages.get_template("card.md").render(
        title=title,
        version=__version__,
        model=_settings(model),
        kind=type(model).__name__,
        contract=contract,
        record=record,
        parts=_parts(record) if record else None,
        scores=tabulate_scores(record.metrics, _interval) if record else None,
        notes=[
            *filter(None, [untrained_note({"untrained": getattr(model, "untrained", ())})]),
            *(record.metrics.get("notes", []) if record else []),
        ],
        figures={name: FIGURES[name] for name in record.figures} if record else {},
        open_below=OPEN_BELOW,
        latents=open_latents(model) if isinstance(model, DisRNNModel) else None,
        bottlenecks=_open_bottlenecks(model, record),
    )
    write_text(file, page)


def _settings(model: DisRNNModel | Baseline) -> dict[str, Any]:
    """Return the model's arguments that are plain values."""
    plain = (str, int, float, bool, type(None))
    config = model.get_config()
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, plain) and name not in ("name", "trainable")
    }


def _open_bottlenecks(
    model: DisRNNModel | Baseline, record: Record | None
) -> list[tuple[str, str, str, str]] | None:
    """Return the open bottlenecks as rows of (group, reader, source, sigma).

    Bottlenecks between closed latents are left out, because no information passes through them.
    """
    if not isinstance(model, DisRNNModel):
        return None
    names = None
    if record:
        columns = record.config["data"].get("columns") or {}
        names = ("choice", "reward", *(columns.get("observations") or ()))
        names = names if len(names) == model.num_trial_observations else None
    table = compute_bottlenecks(model, names)
    latents = set(open_latents(model))
    closed = set(table.loc[table["group"] == "latent", "source"]) - latents
    is_open = table["sigma"] < OPEN_BELOW
    table = table[is_open & ~table["source"].isin(closed) & ~table["target"].isin(closed)]
    return [(row.group, row.target, row.source, f"{row.sigma:.3f}") for row in table.itertuples()]


def _parts(record: Record) -> list[tuple[str, int, int, int]]:
    """Return rows of (part, subjects, sessions, free choices)."""
    return [
        (name, rows["subject"].nunique(), len(rows), int(rows["n_choices"].sum()))
        for part, name in (("train", "training"), ("held_out", "held out"))
        for rows in [record.sessions[record.sessions["part"] == part]]
    ]


def _interval(scores: Mapping[str, Any], key: str) -> str:
    """Format a score with its 95 % interval."""
    value, error = scores.get(key), scores.get(f"{key}_se")
    if value is None:
        return "–"
    if error is None:
        return f"{value:.4g} (no interval)"
    return f"{value:.4g} ({value - Z_95 * error:.4g} to {value + Z_95 * error:.4g})"
