"""Refuse to compute in a forked process in which TensorFlow would hang.

TensorFlow's threads do not survive a fork. A process that was forked after TensorFlow had computed
waits for them for ever, without a message.
"""

from __future__ import annotations

import os
import sys

_after_tensorflow = False


def _note_fork() -> None:
    """Note, in the new process, whether TensorFlow had computed before the fork."""
    global _after_tensorflow
    # TensorFlow has no public way to ask this without starting it.
    module = sys.modules.get("tensorflow.python.eager.context")
    context = getattr(module, "_context", None)
    _after_tensorflow |= bool(getattr(context, "_initialized", False))


if hasattr(os, "register_at_fork"):  # Not on Windows, which has no fork.
    os.register_at_fork(after_in_child=_note_fork)


def check_process() -> None:
    """Check that TensorFlow can compute in this process.

    Raises:
        RuntimeError: If the process was forked after TensorFlow had computed.
    """
    if _after_tensorflow:
        raise RuntimeError(
            "process: expected one in which TensorFlow can compute, got one forked after "
            "TensorFlow had computed, in which it hangs; start processes with "
            "multiprocessing.get_context('spawn'), or use threads or keras-disrnn study"
        )
