"""Write files and folders atomically: a reader never sees a file that is half written."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.locks import FileLock

LOCK = ".lock"
"""Name of the lock of a folder, in it."""

PARTIAL = ".partial"
"""End of the names of files and folders that are not complete yet. They begin with a dot."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_new(path: str | os.PathLike[str], kind: Literal["file", "folder"] = "folder") -> Path:
    """Check that nothing exists at a path, so that a command overwrites nothing.

    Args:
        path: Where the command is going to write.
        kind: What it is going to write, for the message: `"file"` or `"folder"`.

    Returns:
        `path` as a `pathlib.Path`.

    Raises:
        FileExistsError: If something exists at `path`.
        OSError: If nothing can be written there.

    Example:

    >>> from keras_disrnn.utils.files import check_new
    >>> check_new(".")
    Traceback (most recent call last):
        ...
    FileExistsError: .: expected a new folder, got one that exists; choose another name
    """
    path = Path(path)
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path}: expected a new {kind}, got one that exists; choose another name"
        )
    check_writable(path)
    return path


def check_exists(path: str | os.PathLike[str], kind: Literal["file", "folder"] = "file") -> None:
    """Check that a file or a folder exists, before work begins.

    Args:
        path: What a command is going to read.
        kind: What it is, for the message: `"file"` or `"folder"`.

    Raises:
        FileNotFoundError: If there is nothing at `path`. The message suggests a similar name.

    Example:

    >>> from keras_disrnn.utils.files import check_exists
    >>> check_exists("trials-of-nobody.csv")
    Traceback (most recent call last):
        ...
    FileNotFoundError: trials-of-nobody.csv: expected a file, got no such file
    """
    path = Path(path)
    if not os.path.exists(path):
        here = os.listdir(path.parent) if os.path.isdir(path.parent) else []
        raise FileNotFoundError(
            f"{path}: expected a {kind}, got no such {kind}{suggest(path.name, here)}"
        )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a file or a folder can be written at a path, before work begins.

    Args:
        path: The file or the folder. Folders above it may be absent.

    Raises:
        OSError: If a folder above it is a file, or is not to be written to.

    Example:

    >>> from keras_disrnn.utils.files import check_writable
    >>> check_writable("runs/mice/scores.json")
    """
    place = Path(path)
    for folder in (place, *place.parents):
        if not os.path.lexists(folder):
            continue
        if folder != place and not folder.is_dir():
            raise NotADirectoryError(
                f"{path}: expected a place in a folder, got one in the file {folder}; choose "
                "another name"
            )
        if not os.access(folder, os.W_OK):
            raise PermissionError(
                f"{path}: expected a place to write to, got {folder}, which is read-only; choose "
                "another name"
            )
        return


@contextlib.contextmanager
def naming_disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which file could not be written, because the error of a full disk does not.

    Args:
        path: The file that is being written.

    Raises:
        OSError: The error of the block, with the path.
    """
    try:
        yield
    except OSError as error:
        # An error without a system's message is one of this package, and names its file.
        if error.strerror is None or error.errno not in {*_NO_SPACE, errno.EIO, errno.EROFS}:
            raise
        hint = "; free some space, and give the command again" if error.errno in _NO_SPACE else ""
        place = error.filename or path
        named = OSError(f"{place}: expected to write the file, got: {error.strerror}{hint}")
        named.errno = error.errno
        raise named from error


def expand_home(value: Any) -> Any:
    """Replace a leading `~` by the home directory, also in lists, dicts and dataclasses.

    A shell leaves the `~` of `--out=~/run` as it is, and so do configuration files.

    Args:
        value: A path, or settings with paths. Other values are returned as they are.

    Example:

    >>> from keras_disrnn.utils.files import expand_home
    >>> expand_home(["a~b", 3])
    ['a~b', 3]
    """
    if isinstance(value, str):
        return os.path.expanduser(value)
    if isinstance(value, list):
        return [expand_home(item) for item in value]
    if isinstance(value, dict):
        return {key: expand_home(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        expanded = expand_home(fields)
        return value if expanded == fields else dataclasses.replace(value, **expanded)
    return value


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return a path that does not depend on the current folder. An address stays as it is.

    Args:
        path: A path, which may begin with `~`, or an address such as `https://...`.

    Example:

    >>> from keras_disrnn.utils.files import absolute_path
    >>> absolute_path("/data/../trials.csv")
    '/trials.csv'
    """
    text = os.fspath(path)
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside `path`, and move it to `path` once it is complete and on the disk.

    Args:
        path: The file. An existing one is replaced.
        write: Function that receives the open binary file and writes the contents.

    Raises:
        OSError: If the file cannot be written. The message names it.
    """
    path = Path(path)
    with naming_disk_errors(path):
        handle, partial = tempfile.mkstemp(PARTIAL, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, 0o666 & ~_umask())
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text to a file atomically, in UTF-8.

    Args:
        path: The file. An existing one is replaced.
        text: The contents.
    """
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: str | os.PathLike[str], value: Any, *, checked: bool = False) -> None:
    """Write a value as JSON atomically. Numbers that are not finite become null.

    Args:
        path: The file. An existing one is replaced.
        value: Any structure that `plain` accepts.
        checked: Whether to add a digest, so that `read_json` finds every damage. The value must be
            a dict then.
    """
    value = plain(value)
    if checked:
        value = {**value, _DIGEST: _digest_json(value)}
    write_text(path, json.dumps(value, indent=2))


_DIGEST = "sha256"
"""The key of the digest of a JSON file."""


def _digest_json(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(
    path: str | os.PathLike[str],
    kind: str,
    *,
    remedy: str = "remove it to compute it again",
) -> Any:
    """Read a JSON file that this package wrote, and check its digest if it has one.

    Args:
        path: The file.
        kind: What the file should hold, for the error message.
        remedy: What the user can do about a damaged file, for the error message.

    Returns:
        The value, without its digest.

    Raises:
        ValueError: If the file is damaged.
    """
    text = Path(path).read_bytes()
    try:
        value = json.loads(text)
        digest = value.pop(_DIGEST, None) if isinstance(value, dict) else None
        if digest is not None and digest != _digest_json(value):
            raise ValueError("its contents do not match their digest")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{Path(path)}: expected {kind}, got a file that cannot be read ({error}); {remedy}"
        ) from error
    return value


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` at the end, or is removed after an error.

    Args:
        path: The new folder.

    Yields:
        The folder to fill.

    Raises:
        FileExistsError: If something exists at `path`. Nothing is overwritten.
        OSError: If the folder cannot be written. The message names it.
    """
    path = check_new(path)
    with naming_disk_errors(path):
        partial, lock = begin_partial(path)
        try:
            yield partial
            lock.release()
            os.rename(partial, path)
        except BaseException:
            lock.release()
            shutil.rmtree(partial, ignore_errors=True)
            raise


def begin_partial(path: str | os.PathLike[str]) -> tuple[Path, FileLock]:
    """Make a hidden folder beside `path`, to be filled and then renamed to `path`.

    Folders that killed processes left there are removed first.

    Args:
        path: The folder that it will become. Folders above it are made.

    Returns:
        The hidden folder, and the lock in it, which this process holds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{PARTIAL}"):
        remove_partial(left)
    partial = Path(tempfile.mkdtemp(PARTIAL, f".{path.name}.", path.parent))
    os.chmod(partial, 0o777 & ~_umask())
    lock = FileLock(partial / LOCK)
    lock.acquire()
    return partial, lock


def remove_partial(path: Path) -> None:
    """Remove a file or a folder that a killed process left incomplete.

    Args:
        path: The file or folder. A folder in which a process works stays.
    """
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    lock = FileLock(path / LOCK)
    if lock.acquire():
        lock.release()
        shutil.rmtree(path, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def plain(value: Any) -> Any:
    """Convert a structure of Python and NumPy values to the types of JSON.

    Args:
        value: Dicts, lists, tuples and scalars, nested in any way.

    Returns:
        The same structure of dicts, lists and Python scalars. Numbers that are not finite are
        `None`.

    Example:

    >>> from keras_disrnn.utils.files import plain
    >>> plain({"score": float("nan"), 2: (1, 2)})
    {'score': None, '2': [1, 2]}
    """
    import numpy as np

    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
