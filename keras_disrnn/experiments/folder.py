"""The folder of a run: begun, continued and read again."""

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import pandas as pd
import yaml

from keras_disrnn.data import Columns
from keras_disrnn.experiments.settings import SyntheticData, TableData, TrainingSettings
from keras_disrnn.io.keras_file import load_model
from keras_disrnn.utils.files import write_json, write_text


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
