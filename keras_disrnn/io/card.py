"""The model card of an export: what is known about the model, in Markdown."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
import yaml

from keras_disrnn.analysis import compute_bottlenecks, open_latents
from keras_disrnn.analysis.scores import tabulate_scores
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.objectives.metrics import OPEN_BELOW
from keras_disrnn.plots.captions import FIGURES
from keras_disrnn.utils.files import write_text
from keras_disrnn.version import __version__

Z_95 = 1.96
"""Half the width of a 95 % interval, in standard errors."""


class Record(NamedTuple):
    """What a run folder knows of its model.

    Attributes:
        config, metrics, environment: Its files of these names.
        sessions: Its table of sessions.
        figures: Name to PNG file.
    """

    config: dict
    metrics: dict
    environment: dict
    sessions: pd.DataFrame
    figures: dict


def read_record(folder):
    """Reads the `Record` of a run folder.

    Raises:
        FileNotFoundError: If the folder lacks a file.
    """
    folder = Path(folder)
    for name in ("config.yaml", "metrics.json", "environment.json", "sessions.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: expected a run folder, but {name} is not there")
    texts = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in ("config.yaml", "metrics.json", "environment.json")
    }
    files = {name: folder / "figures" / f"{name}.png" for name in FIGURES}
    return Record(
        yaml.safe_load(texts["config.yaml"]),
        json.loads(texts["metrics.json"]),
        json.loads(texts["environment.json"]),
        pd.read_csv(folder / "sessions.csv", dtype={"session": str, "subject": str}),
        {name: file for name, file in files.items() if file.is_file()},
    )


def write_card(file, title, model, contract, record):
    """Writes the model card, and its figures into `figures/` beside it.

    Args:
        file: The card.
        title: Name of the model.
        model: The model.
        contract: What its endpoints take and give.
        record: The `Record` of its run, or `None`.
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
    pages.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    pages.filters["yaml"] = lambda value: yaml.safe_dump(value, sort_keys=False).rstrip()
    page = pages.get_template("card.md").render(
        title=title,
        version=__version__,
        model=_settings(model),
        kind=type(model).__name__,
        contract=contract,
        record=record,
        parts=_parts(record) if record else None,
        scores=tabulate_scores(record.metrics, _interval) if record else None,
        figures={name: FIGURES[name] for name in record.figures} if record else {},
        open_below=OPEN_BELOW,
        latents=open_latents(model) if isinstance(model, DisRNNModel) else None,
        bottlenecks=_open_bottlenecks(model, record),
    )
    write_text(file, page)


def _settings(model):
    """The model's arguments that are plain values."""
    plain = (str, int, float, bool, type(None))
    kept = {k: v for k, v in model.get_config().items() if k not in ("name", "trainable")}
    return {k: v for k, v in kept.items() if isinstance(v, plain)}


def _open_bottlenecks(model, record):
    """Rows of (group, what reads, what is read, sigma) of the bottlenecks that are open.

    Of those between latents that are closed nothing is said: no information comes in or out.
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
    table = table[(table["sigma"] < OPEN_BELOW) & ~table["source"].isin(closed)]
    table = table[~table["target"].isin(closed)]
    return [(r.group, r.target, r.source, f"{r.sigma:.3f}") for r in table.itertuples()]


def _parts(record):
    """Rows of (part, subjects, sessions, free choices)."""
    return [
        (name, rows["subject"].nunique(), len(rows), int(rows["n_choices"].sum()))
        for part, name in (("train", "training"), ("held_out", "held out"))
        for rows in [record.sessions[record.sessions["part"] == part]]
    ]


def _interval(scores, key):
    """A score with its 95 % interval."""
    value, error = scores.get(key), scores.get(f"{key}_se")
    if value is None:
        return "–"
    if error is None:
        return f"{value:.4g} (no interval)"
    return f"{value:.4g} ({value - Z_95 * error:.4g} to {value + Z_95 * error:.4g})"
