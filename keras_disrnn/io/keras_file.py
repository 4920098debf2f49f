"""Models in `.keras` files."""

import json
import os
import zipfile
from pathlib import Path

import keras

from keras_disrnn.models.disrnn_model import DisRNNModel


def save_model(model, path):
    """Writes a model as a `.keras` file, atomically."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial.keras")
    try:
        model.save(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
