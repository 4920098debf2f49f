"""The folder of a result: how it begins, how it resumes, and how it is read again."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml

from keras_disrnn.data import Columns
from keras_disrnn.experiments.settings import SyntheticData, TableData, TrainingSettings
from keras_disrnn.io.keras_file import load_model
from keras_disrnn.models.disrnn_model import NAMES_OF_0_1_0, DisRNNModel
from keras_disrnn.utils.files import absolute_path, new_folder, write_json, write_text
from keras_disrnn.utils.state import load_state, save_state

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
LOCK = ".lock"

RENAMED: dict[str, dict[str, str]] = {
    "model": NAMES_OF_0_1_0,
    "table": {"arms": "num_arms"},
    "synthetic": {
        "sessions": "num_sessions",
        "held_out_sessions": "num_held_out_sessions",
        "trials": "num_trials",
    },
}
"""Settings that version 0.1.0 wrote under another name: group to old name to new name."""

_T = TypeVar("_T")

Step = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""Type of `ResultFolder.step` and of `compute_step`."""


class ResultFolder:
    """A folder that one command fills, and that the same command resumes after an interruption.

    Making the object checks the folder and writes nothing. `begin` then writes the settings to
    `config.yaml`, and the versions and the machine to `environment.json`. After that the command
    writes its results with `step`, `step_folder` and the functions of `keras_disrnn.utils.files`.
    It writes the file `last` at the end. A folder with that file is finished and is never changed.

    A command with several parts calls `step` for each of them. The first run computes a part and
    keeps it. A resumed run reads it. A part counts only when it is complete, because it is written
    atomically. Code that also runs without a folder takes a function `step` as an argument, with
    `compute_step` as the default.

    A folder of parts inside another result, such as the paths of a selection, can itself be a
    `ResultFolder`.

    Args:
        path: The folder. It may be absent, empty, or begun by the same command.
        config: The settings in plain types, as `plain_config` returns them. The command line reads
            them with `--config`.
        command: Name of the command.
        last: Name of the file that is written last. `None` for a folder that can always grow.
        may_change: Whether the folder accepts other settings when it resumes. `begin` then
            replaces `config.yaml`.

    Attributes:
        path: The folder.
        resumes: Whether the folder was begun before.

    Raises:
        FileExistsError: If the folder holds a finished result, a result of other settings or of
            another command, or other files.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from keras_disrnn.experiments.folder import ResultFolder
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     for _ in range(2):
    ...         folder = ResultFolder(f"{parent}/out", {"seed": 1}, command="fit", last="end.txt")
    ...         folder.begin()
    ...         state = folder.step("part", lambda: print("computed") or {"sum": np.arange(3)})
    computed
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: dict[str, Any],
        *,
        command: str,
        last: str | None = None,
        may_change: bool = False,
    ) -> None:
        self.path = Path(path)
        self.resumes = False
        self._config, self._command, self._may_change = config, command, may_change
        if not self.path.exists():
            return
        self.resumes = self._check(last)

    def _check(self, last: str | None) -> bool:
        """Return whether the existing folder can be resumed, or raise."""
        path = self.path
        if not path.is_dir():
            raise FileExistsError(f"{path}: expected a folder, got a file; choose a new folder")
        names = sorted(child.name for child in path.iterdir())
        # A command that was stopped at once leaves these and nothing else.
        if all(
            name.startswith((LOCK, ENVIRONMENT, f".{ENVIRONMENT}", f".{CONFIG}")) for name in names
        ):
            return False
        stored = _read_yaml(path / CONFIG)
        environment = _read_json(path / ENVIRONMENT)
        if last is not None and (path / last).exists() and stored is not None:
            raise FileExistsError(
                f"{path}: expected a new folder or an unfinished result, got a finished result "
                f"({last} is there); choose a new folder"
            )
        # Version 0.1.0 wrote studies and recoveries without environment.json.
        old = ("study.sqlite", "config.json")
        if _is_old(stored) or (environment is None and any(name in names for name in old)):
            raise FileExistsError(
                f"{path}: expected a result of this version, got one that keras-disrnn 0.1.0 "
                "began; finish it with that version, or choose a new folder"
            )
        if stored is None or environment is None:
            raise FileExistsError(
                f"{path}: expected a new folder or an unfinished result, got other files "
                f"({names[0]}); choose a new folder"
            )
        if environment.get("command") != self._command:
            raise FileExistsError(
                f"{path}: expected a result of the command {self._command!r}, got one of "
                f"{environment.get('command')!r}; choose a new folder"
            )
        if not self._may_change:
            for setting, before, now in _differences(_with_absolute_table(stored), self._config):
                raise FileExistsError(
                    f"{path}: expected the settings of its {CONFIG}, got another {setting} "
                    f"({now!r}, not {before!r}); give the same settings to resume, or choose a "
                    "new folder"
                )
        return True

    def begin(self, data: str | None = None) -> None:
        """Write what identifies the result, or check it if the folder resumes.

        Args:
            data: A digest of the data that the result depends on (`fingerprint` computes one of
                `Sessions`, and `RunData.digest` has one of both parts). A folder begun with other
                data is refused.

        Raises:
            ValueError: If the folder was begun with other data.
        """
        if self.resumes:
            stored = read_digest(self.path)
            if stored and data and not data.startswith(stored):
                raise ValueError(
                    f"{self.path}: expected the data that it was begun with, got data that have "
                    "changed since; choose a new folder"
                )
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            environment = _describe_environment(self._command)
            write_json(
                self.path / ENVIRONMENT, environment | ({} if data is None else {"data": data})
            )
        if not self.resumes or self._may_change:
            # The settings come second: a folder with both files has everything that `begin` writes.
            write_config(self.path, self._config)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process from working in the folder.

        The operating system releases the lock when the process ends, for whatever reason.

        Raises:
            FileExistsError: If another process works in the folder.
            OSError: If the folder cannot be written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path / LOCK, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise FileExistsError(
                    f"{self.path}: expected a folder that no command works in, got one in which "
                    "another process runs; wait until it ends"
                ) from error
            raise OSError(f"{self.path}: expected a folder to write in, got {error}") from error
        try:
            yield
        finally:
            connection.close()

    def step(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a part of the result. Compute it and keep it if it is not there yet.

        Args:
            name: Name of the part, unique in the folder. It is kept in `parts/NAME.npz`.
            compute: Function that returns the part as `save_state` takes it.

        Returns:
            The part.

        Raises:
            ValueError: If the part is there but cannot be read.
        """
        file = self.path / "parts" / f"{name}.npz"
        if not file.exists():
            state = compute()
            file.parent.mkdir(parents=True, exist_ok=True)
            save_state(file, state)
        # A new part is read back too, so that an interruption cannot change a type.
        return load_state(file, "a finished part of this result")

    def step_folder(
        self,
        name: str,
        compute: Callable[[], _T],
        write: Callable[[_T, Path], Any],
        read: Callable[[Path], _T],
    ) -> _T:
        """Return a part of the result that is a folder, such as a saved model.

        Args:
            name: Name of the folder in this one.
            compute: Function that returns the part.
            write: Function of the part and a new folder that writes it there.
            read: Function of the folder that returns the part.

        Returns:
            The part, as `read` returns it.
        """
        place = self.path / name
        if not place.exists():
            value = compute()
            with new_folder(place) as made:
                write(value, made)
        return read(place)

    def discard_steps(self) -> None:
        """Remove the parts that `step` kept. Call it after the last file is written."""
        shutil.rmtree(self.path / "parts", ignore_errors=True)


def compute_step(_: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Compute a part and keep nothing: the stand-in for `ResultFolder.step` without a folder."""
    return compute()


def write_config(folder: str | os.PathLike[str], config: dict[str, Any]) -> None:
    """Write config.yaml, which the command line reads with `--config`.

    Args:
        folder: The folder.
        config: The settings in plain types.
    """
    write_text(Path(folder) / CONFIG, yaml.safe_dump(config, sort_keys=False))


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read config.yaml of a result, with the setting names of this version.

    Args:
        folder: The folder.

    Returns:
        The settings. Names that version 0.1.0 wrote are replaced by today's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    path = Path(folder) / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{folder}: expected the folder of a result, got no {CONFIG} in it")
    config = _read_yaml(path)
    if config is None:
        raise ValueError(f"{path}: expected settings, got a file that cannot be read")
    return {
        name: _rename(value, RENAMED[group]) if (group := _group_of(name, value)) else value
        for name, value in config.items()
    }


def read_digest(folder: str | os.PathLike[str]) -> str | None:
    """Read the digest of the data of a result.

    Args:
        folder: The folder.

    Returns:
        The digest that `ResultFolder.begin` stored. Older folders have a digest of the training
        sessions alone, which is the beginning of that of both parts, or none.
    """
    return (_read_json(Path(folder) / ENVIRONMENT) or {}).get("data")


def load_run(
    folder: str | os.PathLike[str],
) -> tuple[DisRNNModel, TableData | SyntheticData, int]:
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
    for name in (CONFIG, "model.keras", "report.html"):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder}: expected the folder of a finished run, got no {name} in it"
            )
    config = read_config(folder)
    return load_model(folder / "model.keras"), read_data(config["data"]), config["seed"]


def read_data(data: dict[str, Any]) -> TableData | SyntheticData:
    """Convert the settings of data in `config.yaml` to `TableData` or `SyntheticData`.

    Args:
        data: The settings in plain types.
    """
    if "table" in data:
        return TableData(**{**data, "columns": Columns(**data["columns"])})
    return SyntheticData(**data)


def load_training(folder: str | os.PathLike[str]) -> TrainingSettings:
    """Read the `TrainingSettings` of a finished run.

    Args:
        folder: The folder of a run.

    Returns:
        The settings. They are the default ones if the run selected its penalties.
    """
    return TrainingSettings(**read_config(folder).get("training", {}))


def load_results(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the results of a finished run that `draw` shows besides the model.

    Args:
        folder: The folder of a run.

    Returns:
        The arguments `history`, `metrics` and `selections` of `draw`.
    """
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


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}".strip("."))
    elif before != now:
        yield path, before, now


def _with_absolute_table(config: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the absolute path of the table. Version 0.1.0 wrote a relative one."""
    data = config.get("data")
    if not (isinstance(data, dict) and isinstance(data.get("table"), str)):
        return config
    return {**config, "data": {**data, "table": absolute_path(data["table"])}}


def _group_of(name: str, value: Any) -> str | None:
    if name == "data" and isinstance(value, dict):
        return "table" if "table" in value else "synthetic"
    return name if name in RENAMED and isinstance(value, dict) else None


def _rename(settings: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in settings.items()}


def _is_old(config: dict[str, Any] | None) -> bool:
    """Whether settings have names that only version 0.1.0 wrote."""
    return any(
        RENAMED[group].keys() & value.keys()
        for name, value in (config or {}).items()
        if (group := _group_of(name, value))
    )


def _read_yaml(path: Path) -> dict[str, Any] | None:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _describe_environment(command: str) -> dict[str, Any]:
    packages = ("keras-disrnn", "tensorflow", "keras", "tensorflow-datasets", "numpy", "pandas")
    return {
        "command": command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
