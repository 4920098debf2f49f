"""The folder of a result: how it begins, how it resumes, and how it is read again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from keras_disrnn.experiments.begin import (
    CONFIG,
    DIVERGED,
    ENVIRONMENT,
    check_files,
    describe_environment,
    fill_folder,
    is_workless,
    lock_folder,
    make_folder,
    names_in,
    read_environment,
    read_settings,
    remove_partials,
    set_aside,
    write_config,
)
from keras_disrnn.models.disrnn_model import NAMES_OF_0_1_0
from keras_disrnn.utils.checksums import write_checksums
from keras_disrnn.utils.files import absolute_path, check_writable, new_folder, write_text
from keras_disrnn.utils.locks import FileLock
from keras_disrnn.utils.state import load_state, save_state

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

OLD = {"study.sqlite", "config.json"}
"""Files of the studies and recoveries of version 0.1.0, which had no `environment.json`."""

_T = TypeVar("_T")

Step = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""Type of `ResultFolder.step` and of `compute_step`."""


class ResultFolder:
    """A folder that one command fills, and that the same command resumes after an interruption.

    Making the object checks the folder and writes nothing. `begin` then makes the folder, with the
    settings in `config.yaml`, and the versions, the machine and a digest of the data in
    `environment.json`. It keeps other processes out until its block ends. In the block the command
    writes its results with `step`, `step_folder` and the functions of `keras_disrnn.utils.files`.
    It writes the file `last` at the end. A folder with that file is finished and is never changed.

    A new folder is built beside its place and renamed, so that it appears with both files or not at
    all. A folder in which nothing was computed yet is begun again, also with other settings. So is
    one whose training diverged: it is renamed, and stays.

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
        resumes: Whether the folder was begun before, and goes on.

    Raises:
        FileExistsError: If the folder holds a finished result, a result of other settings or of
            another command, or other files.
        OSError: If nothing can be written there.
        ValueError: If `config.yaml` or `environment.json` is damaged.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from keras_disrnn.experiments.folder import ResultFolder
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     for _ in range(2):
    ...         folder = ResultFolder(f"{parent}/out", {"seed": 1}, command="fit", last="end.txt")
    ...         with folder.begin():
    ...             part = folder.step("part", lambda: print("computed") or {"sum": np.arange(3)})
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
        self._config, self._command, self._may_change = config, command, may_change
        self._last = last
        check_writable(self.path)
        self.resumes = self._check()

    def _check(self, data: str | None = None) -> bool:
        """Return whether the folder resumes, or raise.

        If it does not resume, it is absent, empty, or to be begun again.
        """
        path = self.path
        if not os.path.lexists(path):
            return False
        if not path.is_dir():
            raise FileExistsError(f"{path}: expected a folder, got a file; choose a new folder")
        names = names_in(path)
        if names <= {ENVIRONMENT}:
            return False
        if not names & {CONFIG, ENVIRONMENT, *OLD}:
            raise FileExistsError(
                f"{path}: expected a new folder or an unfinished result, got other files "
                f"({min(names)}); choose a new folder"
            )
        if self._last in names and names >= {CONFIG, ENVIRONMENT}:
            raise FileExistsError(
                f"{path}: expected a new folder or an unfinished result, got a finished result "
                f"({self._last} is there); choose a new folder"
            )
        if ENVIRONMENT not in names and names & OLD:
            raise _error_of_0_1_0(path)
        try:
            self._match(data)
        except (OSError, ValueError) as error:
            if is_workless(path) or (isinstance(error, _Mismatch) and DIVERGED in names):
                return False
            raise
        return True

    def _match(self, data: str | None) -> None:
        """Check that the folder is one of this command, these settings and these data."""
        path = self.path
        environment = read_environment(path)
        if environment["command"] != self._command:
            raise _OtherSettings(
                f"{path}: expected a result of the command {self._command!r}, got one of "
                f"{environment['command']!r}; choose a new folder"
            )
        if not self._may_change:
            stored = read_settings(path)
            if _is_old(stored):
                raise _error_of_0_1_0(path)
            for setting, before, now in _differences(_with_absolute_table(stored), self._config):
                raise _OtherSettings(
                    f"{path}: expected the settings of its {CONFIG}, got another {setting} "
                    f"({now!r}, not {before!r}); give the same settings to resume, or choose a "
                    "new folder"
                )
        # Older folders have a digest of a part of the data, or none.
        if data and not data.startswith(environment.get("data", "")):
            raise _OtherData(
                f"{path}: expected the data that it was begun with, got data that have "
                "changed since; choose a new folder"
            )

    @contextlib.contextmanager
    def begin(self, data: str | None = None) -> Iterator[None]:
        """Make the folder, or resume it, and keep other processes out of it during the block.

        The operating system gives the folder free when the process ends, for whatever reason.

        Args:
            data: A digest of the data that the result depends on (`fingerprint` computes one of
                `Sessions`, and `RunData.digest` has one of both parts). A folder begun with other
                data is refused.

        Raises:
            FileExistsError: If another process works in the folder, or if it was begun with other
                data.
            OSError: If the folder cannot be written to.
                ValueError: If a file in the folder is damaged.
        """
        lock = self._take(data)
        try:
            yield
        except FloatingPointError as error:
            write_text(self.path / DIVERGED, f"{error}\n")
            raise
        finally:
            lock.release()

    def _take(self, data: str | None) -> FileLock:
        """Make or resume the folder, and return its lock."""
        environment = describe_environment(self._command) | ({} if data is None else {"data": data})
        if not self.path.is_dir():
            self.resumes = False
            return make_folder(self.path, self._config, environment)
        lock = lock_folder(self.path)
        try:
            # The folder may have changed while the data were read.
            self.resumes = self._check(data)
            remove_partials(self.path)
            if self.resumes:
                if self._may_change:
                    write_config(self.path, self._config)
                else:
                    check_files(self.path)
                (self.path / DIVERGED).unlink(missing_ok=True)
            elif (self.path / DIVERGED).exists() and not is_workless(self.path):
                set_aside(self.path, lock)
                return make_folder(self.path, self._config, environment)
            else:
                fill_folder(self.path, self._config, environment)
        except BaseException:
            lock.release()
            raise
        return lock

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
                write_checksums(made)
        return read(place)

    def discard_steps(self) -> None:
        """Remove the parts that `step` kept. Call it after the last file is written."""
        shutil.rmtree(self.path / "parts", ignore_errors=True)


def compute_step(_: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Compute a part and keep nothing: the stand-in for `ResultFolder.step` without a folder."""
    return compute()


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
    config = read_settings(folder)
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
    return read_environment(folder).get("data")


class _Mismatch(Exception):
    """The folder is one of another command, of other settings or of other data."""


class _OtherSettings(_Mismatch, FileExistsError):
    pass


class _OtherData(_Mismatch, ValueError):
    pass


def _error_of_0_1_0(path: Path) -> FileExistsError:
    return FileExistsError(
        f"{path}: expected a result of this version, got one that keras-disrnn 0.1.0 "
        "began; finish it with that version, or choose a new folder"
    )


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
