"""Run commands in children that are killed, or whose disk is full, at a chosen file operation.

`Warm` is a process that has imported TensorFlow and computed nothing. It forks a child for each
command, so that a command starts at once. In the child, every function of Python that changes a
file counts. At the chosen count the child is killed, or all later writing fails.

`python tests/fault_injection.py TABLE.csv PAGE.md` puts a table of results into a page.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

REMOVES = ("unlink", "rmdir")

SECONDS = 1200
"""A child that runs longer hangs, and is ended."""


class Warm:
    """A process that runs commands in forked children."""

    def __init__(self):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def begin(self, arguments, root, *, fault="none", at=0, log=None):
        """Start a command.

        Args:
            arguments: The words after `keras-disrnn`.
            root: The working directory. Operations outside of it do not count.
            fault: "none"; "kill" at an operation; "full", where writing fails from an operation on;
                "limit", where no file can grow above `at` bytes; or "states", which copies what
                each operation finds, as a kill would leave it, to the folder ROOT.states.
            at: The operation, counted from 1, or the limit.
            log: File for one line per operation.
        """
        request = {"arguments": arguments, "root": str(root), "fault": fault, "at": at, "log": log}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def end(self):
        """Wait for the command. Return its exit status (negative: a signal) and its output."""
        return json.loads(self._process.stdout.readline())

    def run(self, *args, **kwargs):
        self.begin(*args, **kwargs)
        return self.end()

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def state_of(root):
    """Compute a digest of what a resumed command can read, without temporaries and figures."""
    digest = hashlib.sha256()
    for path in sorted(Path(root).rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not any(part in f"/{name}" for part in (".partial", "/.lock")):
            if "figures/" in name or name.endswith((".png", ".pdf")):
                continue
            # Times differ from run to run.
            timed = name.endswith((".json", ".csv", ".html", ".md", ".sqlite", "SHA256SUMS"))
            timed = timed or name.endswith(("log.txt", "checkpoint.npz", ".pb", ".keras"))
            content = b"" if timed else path.read_bytes()
            digest.update(f"{name} {_epochs(path)}".encode() + content)
    return digest.hexdigest()[:16]


def _epochs(path):
    """Return which stage and epoch a checkpoint has."""
    if path.name != "checkpoint.npz":
        return ""
    with np.load(path) as arrays:
        state = json.loads(arrays["state.json"].tobytes())
    return f"{state['stage']} {state['epoch']}"


def _serve():
    import keras_disrnn.cli
    import keras_disrnn.io.saved_model

    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        output = Path(request["root"]).with_suffix(".output")
        pid = os.fork()
        if pid == 0:
            _run(keras_disrnn.cli.main, output, **request)
        _, status = os.waitpid(pid, 0)
        text = output.read_text(errors="replace")
        print(json.dumps([os.waitstatus_to_exitcode(status), text]), flush=True)


def _run(main, output, arguments, root, fault, at, log):
    status = 99
    try:
        signal.alarm(SECONDS)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.chdir(root)
        if fault == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))
        else:
            _install(Path(root), fault, at, log)
        status = main(arguments)
    except SystemExit as exit:
        status = exit.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _install(root, fault, at, log):
    """Wrap the functions that change files."""
    root = os.path.realpath(root)
    lines = None if log is None else io.open(log, "w", buffering=1)  # noqa: SIM115, UP020
    count, busy = 0, False

    def operate(name, path):
        nonlocal count, busy
        if busy:
            return
        place = os.path.realpath(path)
        if not place.startswith(root):
            return
        count += 1
        if lines:
            lines.write(f"{name} {os.path.relpath(place, root)}\n")
        if fault == "kill" and count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "states":
            busy = True
            copy = Path(f"{root}.states") / f"{state_of(root)}"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(root, copy)
            busy = False
        if fault == "full" and count >= at and name not in REMOVES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def wrap(module, name, path_of, writes=lambda *args, **kwargs: True):
        function = getattr(module, name)

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            if writes(*args, **kwargs):
                with contextlib.suppress(TypeError, ValueError, FileNotFoundError):
                    place = path_of(*args, **kwargs)
                    if place is not None:
                        operate(name, place)
            return function(*args, **kwargs)

        setattr(module, name, wrapped)

    def first(path, *args, dir_fd=None, **kwargs):
        if isinstance(path, int):
            path = f"/proc/self/fd/{path}"
        elif dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        return os.fspath(path)

    def creates(path, flags, *args, **kwargs):
        return bool(flags & os.O_CREAT)

    def opens_to_write(file, mode="r", *args, **kwargs):
        return isinstance(file, str | os.PathLike) and any(letter in mode for letter in "wax+")

    for name in ("mkdir", "unlink", "rmdir", "rename", "replace", "fsync"):
        wrap(os, name, first)
    wrap(os, "open", first, creates)
    wrap(builtins, "open", first, opens_to_write)
    io.open = builtins.open
    # A SavedModel is written by C++, so count that as one operation before and one after.
    import tensorflow as tf

    save = tf.saved_model.save

    def save_and_count(module, path, *args, **kwargs):
        operate("saved_model.save", path)
        save(module, path, *args, **kwargs)
        operate("saved_model.saved", path)

    tf.saved_model.save = save_and_count


def write_page(table, page):
    """Replace the table between the marks of a page."""
    import pandas as pd

    from keras_disrnn.utils.tables import to_markdown

    begin, end = "<!-- the table of faults -->\n", "<!-- the end of the table -->"
    text = Path(page).read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    rows = to_markdown(pd.read_csv(table).convert_dtypes())
    Path(page).write_text(f"{before}{begin}\n{rows}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        write_page(*sys.argv[1:])
    else:
        _serve()
