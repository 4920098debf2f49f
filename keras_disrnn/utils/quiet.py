"""Import TensorFlow without the messages of its C++ library."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
"""The environment variable with the least severity of TensorFlow's messages, from 0 to 3."""

_SILENT = "3"

_MESSAGE = re.compile(rb"[IWE]\d{4} |WARNING: All log messages before absl|To enable the following")


def import_tensorflow() -> None:
    """Import Keras and TensorFlow. Without the user's own choice of messages, there are none.

    `TF_CPP_MIN_LOG_LEVEL` is the user's choice: `0` shows every message. TensorFlow does not obey
    the variable while it is imported. So its messages are then removed from the standard error.

    Example:

    >>> from keras_disrnn.utils.quiet import import_tensorflow
    >>> import_tensorflow()
    """
    if "keras" in sys.modules:
        return
    silent = os.environ.setdefault(VARIABLE, _SILENT) == _SILENT
    with _without_messages() if silent else contextlib.nullcontext():
        importlib.import_module("keras")


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    r"""Show warnings as lines of the command line, without the source code that gave them.

    Example:

    >>> import warnings
    >>> from keras_disrnn.utils.quiet import plain_warnings
    >>> with plain_warnings():
    ...     warnings.formatwarning("choice: a third arm", UserWarning, "reader.py", 10)
    'keras-disrnn: warning: choice: a third arm\n'
    """
    before = warnings.formatwarning
    warnings.formatwarning = _format_plainly
    try:
        yield
    finally:
        warnings.formatwarning = before


def _format_plainly(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"keras-disrnn: warning: {message}\n"


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Hold the standard error back, and then write what is not a message of TensorFlow."""
    try:
        kept = os.dup(2)
    except OSError:  # The program has no standard error.
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not _MESSAGE.match(line):
                    os.write(2, line)
