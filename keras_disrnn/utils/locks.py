"""Locks that the operating system releases when their process ends, for whatever reason."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a file system answers that has no locks, such as some network file systems."""


class FileLock:
    """A lock that one process at a time can hold. Its file says who holds it.

    The file is removed when the lock is released. A file that a killed process left does no harm,
    whatever is in it: the lock is a property of the open file and not of its contents.

    Args:
        path: The file. Its folder must exist.

    Example:

    >>> import tempfile
    >>> from keras_disrnn.utils.locks import FileLock
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = FileLock(f"{folder}/.lock"), FileLock(f"{folder}/.lock")
    ...     first.acquire(), second.acquire()
    (True, False)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock.

        Returns:
            Whether it was free. If not, `holder` says who has it.

        Raises:
            OSError: If the file cannot be opened.
        """
        while True:
            file = open(self.path, "a+b")  # noqa: SIM115 - the lock lives as long as the file
            try:
                _lock(file)
            except BlockingIOError:
                file.close()
                return False
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    file.close()
                    raise
                logger.warning(
                    "%s: the file system has no locks, so nothing stops a second process from "
                    "working in this folder",
                    self.path.parent,
                )
            if self._is_at_path(file):
                break
            # Its holder removed the file after we opened it.
            file.close()
        self._file = file
        # A full disk must not prevent a lock, whose file only informs.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
            file.flush()
        return True

    def _is_at_path(self, file: IO[bytes]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def holder(self) -> str:
        """Describe the process that has the lock, for a message."""
        try:
            found: Any = json.loads(self.path.read_bytes())
            return f"process {found['process']} on {found['host']}"
        except (OSError, ValueError, TypeError, KeyError):
            return "another process"

    def move(self, path: str | os.PathLike[str]) -> None:
        """Say where the file of the lock is after its folder was renamed.

        Args:
            path: The file.
        """
        self.path = Path(path)

    def release(self) -> None:
        """Give the lock back and remove its file."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):  # Windows keeps open files, and removes it below.
            self.path.unlink()
        with contextlib.suppress(OSError):
            file.close()
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                self.path.unlink()


if sys.platform == "win32":
    import msvcrt

    _FAR = 2**30
    """A byte behind the contents, because Windows lets nobody read a locked byte."""

    def _lock(file: IO[bytes]) -> None:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        finally:
            file.seek(0)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
