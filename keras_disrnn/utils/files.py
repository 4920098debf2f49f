"""Writing files and folders so that a reader never sees half of one."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np


def write_atomically(path, write):
    """Writes a file beside `path` and moves it there once it is whole and on the disk.

    Args:
        path: Where the file goes; an older one there is replaced.
        write: Called with the open binary file.
    """
    path = Path(path)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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


def write_text(path, text):
    """Writes `text` to `path` atomically, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


@contextlib.contextmanager
def new_folder(path):
    """Gives a folder to fill that becomes `path` when all is done, and vanishes after an error.

    Args:
        path: The new folder.

    Raises:
        FileExistsError: If it exists. Nothing is ever overwritten.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path}: exists already; exports never overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield partial
        os.chmod(partial, 0o777 & ~_umask())
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def plain(value):
    """`value` in JSON's types; a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path, value):
    """Writes a dict of scores as JSON, atomically; numbers that are not finite become null."""
    write_text(path, json.dumps(plain(value), indent=2))
