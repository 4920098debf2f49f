"""A process forked after TensorFlow had computed is refused, because it would hang."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
import keras_disrnn
from keras_disrnn import baselines
from keras_disrnn.data import Sessions
import tensorflow as tf

SESSIONS = Sessions.from_trials([[0, 1, 1]], [[1, 0, 1]])
CALLS = {
    "model": lambda: keras_disrnn.DisRNNModel(num_latents=1, num_signals=0),
    "baseline": lambda: baselines.QLearning(),
    "batches": lambda: SESSIONS.dataset(),
    "train": lambda: keras_disrnn.train(model, SESSIONS),
}

def fork(call):
    # Returns what the call says in a new process.
    read, write = os.pipe()
    if os.fork() == 0:
        signal.alarm(30)  # Ends a process that hangs.
        try:
            CALLS[call]()
            os.write(write, b"computed")
        except RuntimeError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.wait()
    return os.read(read, 1000).decode() or "hung"

print("before", fork("batches"), flush=True)
model = CALLS["model"]()
for call in CALLS:
    print(call, fork(call), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_after_tensorflow_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=200
    )
    lines = done.stdout.splitlines()
    assert lines[:1] == ["before computed"], done.stderr
    assert [line.split()[0] for line in lines[1:]] == ["model", "baseline", "batches", "train"]
    for line in lines[1:]:
        assert "process: expected one in which TensorFlow can compute, got one forked" in line
        assert "get_context('spawn')" in line
