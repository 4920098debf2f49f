"""Read a finished run: its model, its settings and its results."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pandas as pd

from keras_disrnn.data import Columns
from keras_disrnn.experiments.begin import CONFIG, ENVIRONMENT
from keras_disrnn.experiments.folder import read_config
from keras_disrnn.experiments.prepared_settings import TfdsData
from keras_disrnn.experiments.settings import SyntheticData, TableData, TrainingSettings
from keras_disrnn.io.keras_file import load_model
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.utils.checksums import check_checksums
from keras_disrnn.utils.files import read_json

RESULTS = (
    "environment.json",
    "metrics.json",
    "model.keras",
    "sessions.csv",
    "history.csv",
    "choice_penalties.csv",
    "dopamine_penalties.csv",
)
"""The files of a run whose sums are kept, because other commands read them."""

MODEL = "model.keras"

RESTORE = "restore it from a copy, or fit again in a new folder"


def load_run(
    folder: str | os.PathLike[str],
) -> tuple[DisRNNModel, TableData | TfdsData | SyntheticData, int]:
    """Read a finished run.

    Args:
        folder: The folder of a run.

    Returns:
        `(model, data settings, seed)`.

    Raises:
        FileNotFoundError: If the folder is not that of a finished run.
        ValueError: If a file in it cannot be read.
    """
    folder = Path(folder)
    for name in (CONFIG, MODEL, "report.html"):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder}: expected the folder of a finished run, got no {name} in it"
            )
    config = read_config(folder)
    check_checksums(folder, (MODEL, ENVIRONMENT))
    return load_model(folder / MODEL), read_data(config["data"]), config["seed"]


def read_data(data: dict[str, Any]) -> TableData | TfdsData | SyntheticData:
    """Convert the settings of data in `config.yaml` to the class of its kind.

    Args:
        data: The settings in plain types.
    """
    if "table" in data:
        return TableData(**{**data, "columns": Columns(**data["columns"])})
    return TfdsData(**data) if "tfds" in data else SyntheticData(**data)


def load_training(folder: str | os.PathLike[str]) -> TrainingSettings:
    """Read the `TrainingSettings` of a finished run.

    Args:
        folder: The folder of a run.

    Returns:
        The settings. They are the default ones if the run selected its penalties.
    """
    config = read_config(folder)
    # Runs of version 0.1.0 name no course. They took the one that is now called "reference".
    given = {"course": "reference", **config["training"]} if "training" in config else {}
    return TrainingSettings(**given).completed()


def load_results(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the results of a finished run that `draw` shows besides the model.

    Args:
        folder: The folder of a run.

    Returns:
        The arguments `history`, `metrics` and `selections` of `draw`.

    Raises:
        ValueError: If a file is damaged.
    """
    folder = Path(folder)
    check_checksums(folder, RESULTS)
    history = folder / "history.csv"
    return {
        "history": pd.read_csv(history) if history.exists() else None,
        "metrics": read_json(folder / "metrics.json", "the scores of a run", remedy=RESTORE),
        "selections": {
            stage: pd.read_csv(table)
            for stage in ("choice", "dopamine")
            if (table := folder / f"{stage}_penalties.csv").exists()
        },
    }


def digest_model(folder: str | os.PathLike[str]) -> str:
    """Compute a digest of the model of a run, to recognise a model that has changed.

    Args:
        folder: The folder of a run.
    """
    with open(Path(folder) / MODEL, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
