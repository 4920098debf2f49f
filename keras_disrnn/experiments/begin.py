"""How the folder of a result begins: its settings, its record, its lock, and what is left in it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from keras_disrnn.utils.checksums import CHECKSUMS, check_checksums, check_zip
from keras_disrnn.utils.files import (
    LOCK,
    PARTIAL,
    begin_partial,
    naming_disk_errors,
    read_json,
    remove_partial,
    write_json,
    write_text,
)
from keras_disrnn.utils.locks import FileLock
from keras_disrnn.utils.plain_files import parse_yaml
from keras_disrnn.version import __version__

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
DIVERGED = "diverged.txt"
"""The mark of a folder whose training diverged, with the reason."""

_RESTORE = "restore it from a copy, or choose a new folder"


def names_in(path: Path) -> set[str]:
    """Return the names in a folder, without what a killed process left.

    Args:
        path: The folder.
    """
    return {
        child.name
        for child in path.iterdir()
        if child.name != LOCK and not (child.name.startswith(".") and PARTIAL in child.name)
    }


def is_workless(path: Path) -> bool:
    """Return whether a command began a folder, and nothing has been computed in it.

    Args:
        path: The folder.
    """
    try:
        read_environment(path)
    except (OSError, ValueError):
        return False
    return _holds_marks_only(path)


def _holds_marks_only(path: Path) -> bool:
    return all(
        name in (CONFIG, ENVIRONMENT, DIVERGED)
        or ((path / name).is_dir() and _holds_marks_only(path / name))
        for name in names_in(path)
    )


def lock_folder(path: Path) -> FileLock:
    """Keep other processes out of a folder.

    Args:
        path: The folder. It exists.

    Returns:
        The lock.

    Raises:
        FileExistsError: If another process works in the folder.
    """
    lock = FileLock(path / LOCK)
    if not lock.acquire():
        raise FileExistsError(
            f"{path}: expected a folder that no command works in, got one in which "
            f"{lock.holder()} works; wait until it ends, or choose a new folder"
        )
    return lock


def make_folder(path: Path, config: dict[str, Any], environment: dict[str, Any]) -> FileLock:
    """Make the folder of a result in one step, so that it is whole or absent.

    Args:
        path: The folder. It does not exist.
        config: The settings.
        environment: The record for `environment.json`.

    Returns:
        The lock of the folder.

    Raises:
        FileExistsError: If another process has made the folder meanwhile.
        OSError: If the folder cannot be written.
    """
    place = Path(os.path.realpath(path))
    with naming_disk_errors(path):
        partial, lock = begin_partial(place)
        try:
            fill_folder(partial, config, environment)
            _rename(partial, place, lock)
        except BaseException as error:
            lock.release()
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError) and place.exists():
                raise FileExistsError(
                    f"{path}: expected a new folder, got one that another process has begun; "
                    "choose a new folder"
                ) from error
            raise
    return lock


def fill_folder(path: Path, config: dict[str, Any], environment: dict[str, Any]) -> None:
    """Write the files that make an existing folder the folder of a result.

    Args:
        path: The folder. It may have been begun, but nothing was computed in it.
        config: The settings.
        environment: The record for `environment.json`.
    """
    # The settings go first and come last: a folder without them has not begun.
    (path / CONFIG).unlink(missing_ok=True)
    for name in names_in(path) - {ENVIRONMENT}:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink()
    environment = {**environment, "settings": digest_settings(config)}
    write_json(path / ENVIRONMENT, environment, checked=True)
    write_config(path, config)


def set_aside(path: Path, lock: FileLock) -> None:
    """Rename a folder whose training diverged, so that another can be begun in its place.

    Args:
        path: The folder.
        lock: Its lock, which is given back.
    """
    place = Path(os.path.realpath(path))
    number = 1
    while os.path.lexists(kept := place.with_name(f"{place.name}-diverged-{number}")):
        number += 1
    _rename(place, kept, lock)
    lock.release()
    logger.warning(
        "%s: is begun again, because its training diverged with other settings; the old folder is "
        "now %s",
        path,
        kept.name,
    )


def _rename(path: Path, place: Path, lock: FileLock) -> None:
    if os.name == "nt":  # Windows does not rename a folder with an open file.
        lock.release()
        path.rename(place)
        lock.move(place / LOCK)
        lock.acquire()
    else:
        path.rename(place)
        lock.move(place / LOCK)


def remove_partials(path: Path) -> None:
    """Remove the files and folders that killed processes left incomplete in a folder.

    Args:
        path: The folder, whose lock this process holds.
    """
    for left in list(path.rglob(f".*{PARTIAL}")):
        with contextlib.suppress(OSError):
            remove_partial(left)


def check_files(path: Path) -> None:
    """Check what was computed in a folder, before more is computed.

    Args:
        path: The folder.

    Raises:
        ValueError: If a file is damaged. The message names it.
    """
    again = "remove it to compute it again"
    for file in sorted(path.rglob("*.npz")):
        kind = "a checkpoint" if file.name == "checkpoint.npz" else "a finished part of this result"
        check_zip(file, kind, remedy=again)
    # A run writes its own results anew, so only those of its parts count.
    for sums in sorted(path.glob(f"*/**/{CHECKSUMS}")):
        check_checksums(sums.parent, remedy=f"remove {sums.parent} to compute it again")


def write_config(folder: str | os.PathLike[str], config: dict[str, Any]) -> None:
    """Write config.yaml, which the command line reads with `--config`.

    Args:
        folder: The folder.
        config: The settings in plain types.
    """
    write_text(Path(folder) / CONFIG, yaml.safe_dump(config, sort_keys=False))


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read config.yaml, and check that nothing but the path of the table was changed in it.

    Args:
        folder: The folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    path = Path(folder) / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected the settings of a result, got no such file")
    try:
        found = parse_yaml(path.read_bytes(), path)
    except ValueError as error:
        raise ValueError(f"{error}; {_RESTORE}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected settings, got {found!r:.80}; {_RESTORE}")
    if (Path(folder) / ENVIRONMENT).exists():
        digest = read_environment(folder).get("settings")
        if digest is not None and digest != digest_settings(found):
            raise ValueError(
                f"{path}: expected the settings that the result was begun with, got a file that "
                "has changed since or is damaged; restore it from a copy (only the path of the "
                "table may change)"
            )
    return found


def digest_settings(config: dict[str, Any]) -> str:
    """Compute a digest of settings. The path of a table does not count, because data move.

    Args:
        config: The settings in plain types.
    """
    data = config.get("data")
    if isinstance(data, dict):
        config = {**config, "data": {k: v for k, v in data.items() if k != "table"}}
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def read_environment(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read environment.json.

    Args:
        folder: The folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    path = Path(folder) / ENVIRONMENT
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: expected the record of the command that began the folder, got no such file; "
            f"{_RESTORE}"
        )
    found = read_json(path, "the record of a command", remedy=_RESTORE)
    if not isinstance(found, dict) or "command" not in found:
        raise ValueError(f"{path}: expected the record of a command, got another file; {_RESTORE}")
    return found


def describe_environment(command: str) -> dict[str, Any]:
    """Describe the command, the time, the versions and the machine, for `environment.json`.

    Args:
        command: Name of the command.
    """
    packages = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "pandas")
    return {
        "command": command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        # The metadata of an editable installation keep the version of its first day.
        "versions": {
            "keras-disrnn": __version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
