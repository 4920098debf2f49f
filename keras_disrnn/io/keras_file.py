"""Models in `.keras` files."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.models.finite import check_weights
from keras_disrnn.utils.checksums import check_zip
from keras_disrnn.utils.files import PARTIAL, naming_disk_errors

_COUNTS_OF_0_1_0 = {"observations", "arms", "signals"}
"""Arguments that every model of version 0.1.0 had, under other names today."""

_TRUSTED = ("keras", "keras_disrnn", "builtins")


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Write a model to a `.keras` file, atomically.

    Args:
        model: A model of this package.
        path: The file. An older file there is replaced.

    Raises:
        ValueError: If a weight is not finite.
    """
    check_weights(model)
    path = Path(path)
    with (
        naming_disk_errors(path),
        tempfile.TemporaryDirectory(PARTIAL, f".{path.name}.", path.parent) as folder,
    ):
        partial = Path(folder) / path.name
        model.save(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)


def load_model(
    path: str | os.PathLike, kind: type[keras.Model] | None = DisRNNModel
) -> keras.Model:
    """Read a model from a `.keras` file without running code that the file names.

    A `DisRNNModel` that version 0.1.0 saved is read too. Its baselines are refused.

    Args:
        path: The file.
        kind: Class of the model; `None` for any class of Keras and of this package.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, holds another model, or names other code.

    Example:
        >>> import tempfile
        >>> import keras_disrnn
        >>> from keras_disrnn.io.keras_file import load_model, save_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(keras_disrnn.DisRNNModel(num_latents=2), f"{folder}/model.keras")
        ...     load_model(f"{folder}/model.keras").num_latents
        2
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a .keras file, got no such file")
    kept = "restore it from a copy, or fit again"
    check_zip(path, "a model saved as a .keras file", remedy=kept)
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        _check_config(path, config, kind)
        return keras.models.load_model(path, safe_mode=True)
    except _ForeignModel:
        raise
    except Exception as error:
        raise ValueError(
            f"{path}: expected a model saved as a .keras file, got a file that cannot be read "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); {kept}"
        ) from error


class _ForeignModel(ValueError):
    """The file can be read, but it holds something else."""


def _check_config(path: Path, config: Any, kind: type[keras.Model] | None) -> None:
    """Refuse a foreign model before Keras reads the configuration, which names code to import."""
    found: dict[str, Any] = {"class_name": type(config).__name__}
    if isinstance(config, dict):
        found = config
    if kind is not None:
        registered = keras.saving.get_registered_name(kind)
        if found.get("registered_name") != registered:
            raise _ForeignModel(
                f"{path}: expected a {kind.__name__}, got a {found.get('class_name')}"
            )
    if found.get("config", {}).keys() >= _COUNTS_OF_0_1_0 and (
        found.get("registered_name") != keras.saving.get_registered_name(DisRNNModel)
    ):
        raise _ForeignModel(
            f"{path}: expected a {found.get('class_name')} of this version, got one of version "
            "0.1.0; fit it again"
        )
    for module in _modules(config):
        if module.split(".")[0] not in _TRUSTED:
            raise _ForeignModel(
                f"{path}: expected code of Keras and keras_disrnn only, got {module!r}; "
                "load it with keras.models.load_model if you trust it"
            )


def _modules(config: Any) -> Iterator[str]:
    """Yield every module that a Keras configuration names."""
    if isinstance(config, dict):
        if isinstance(config.get("module"), str):
            yield config["module"]
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _modules(item)
