"""Compare exported models with the reference, one trial of one session at a time.

    python benchmarks/export_step.py --reference-python PATH/TO/python

`PATH/TO/python` is an interpreter with the authors' package (`pip install
disentangled-rnns==0.1.8`). Its `step_network` receives its compiled function again at each call.
All models have 5 latents and update networks 8 x 4 with random weights. Each runs in one thread on
one processor, in its own process. They take turns. A step is one call: from NumPy arrays
of choice, reward and latents to NumPy arrays of the logits and the new latents (in C, from and to
its own memory). Our models predict dopamine too. The table shows milliseconds: the median step of
the fastest turn and of the middle turn, and the 95 % quantile of the middle turn.

- ours, endpoint: `model.step` of `tensorflow.saved_model.load`.
- ours, C: `exports/step.c`, compiled by gcc (left out without gcc).
- ours, LiteRT: the file of `exports/to_litert.py`, in the interpreter `ai-edge-litert` (left out if
  it is not installed).
- reference: `step_network` as it is, and with `convert_params_to_np=False`, which saves a
  conversion at each call.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EXPORTS = Path(__file__).parents[1] / "exports"
LATENTS = 5


def take_turns(step, trials):
    """Time `step(features, state)`, which returns the new state, after each input line."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (trials, 1, 2)).astype("float32")
    state = None
    for row in rows[:50]:
        state = step(row, state)
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds, state = [], None
        for row in rows:
            start = time.perf_counter()
            state = step(row, state)
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


def run_endpoint(folder, trials):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = tf.saved_model.load(str(folder / "model"))
    first = model.initial_state(1)["latents"].numpy()

    def step(features, state):
        outputs = model.step(features, first if state is None else state)
        outputs["choice"].numpy()
        return outputs["latents"].numpy()

    take_turns(step, trials)


def run_litert(folder, trials):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(folder / "step.tflite"), num_threads=1)
    runner = interpreter.get_signature_runner("step")
    first = np.zeros((1, LATENTS), "float32")

    def step(features, state):
        return runner(features=features, latents=first if state is None else state)["latents"]

    take_turns(step, trials)


def run_reference(_folder, trials, convert=True):
    import jax
    from disentangled_rnns.library import disrnn, rnn_utils

    config = disrnn.DisRnnConfig(
        obs_size=2,
        output_size=2,
        latent_size=LATENTS,
        update_net_n_units_per_layer=8,
        update_net_n_layers=4,
        choice_net_n_units_per_layer=4,
        choice_net_n_layers=2,
        noiseless_mode=True,
    )

    def make():
        return disrnn.HkDisentangledRNN(config)

    import haiku

    key = jax.random.PRNGKey(0)

    def unroll(xs):
        core = make()
        return core(xs, core.initial_state(1))

    params = haiku.transform(unroll).init(key, np.zeros((1, 2), "float32"))
    params = rnn_utils.to_np(params)
    first = rnn_utils.get_initial_state(make, params)
    apply = None

    def step(features, state):
        nonlocal apply
        state = first if state is None else state
        logits, state, apply = rnn_utils.step_network(
            make, params, state, features, apply, convert_params_to_np=convert
        )
        np.asarray(logits)
        return jax.block_until_ready(state)

    take_turns(step, trials)


def run_reference_bare(folder, trials):
    run_reference(folder, trials, convert=False)


PROGRAMS = {
    "ours, endpoint": run_endpoint,
    "ours, LiteRT": run_litert,
    "reference": run_reference,
    "reference, no conversion": run_reference_bare,
}


class Program:
    """One of the programs, in its own process on one processor."""

    def __init__(self, name, python, folder, trials):
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._log = folder / "log"
        self._process = subprocess.Popen(
            [python, __file__, "--program", name, "--folder", folder, "--trials", str(trials)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=environment,
        )
        self._read()

    def _read(self):
        for line in self._process.stdout:
            if line.startswith(("ready", "[")):
                return line
        sys.exit(f"a program ended early:\n{self._log.read_text()[-3000:]}")

    def turn(self):
        """Return the median and the 95 % quantile of the steps, in seconds."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return np.quantile(json.loads(self._read()), (0.5, 0.95))

    def stop(self):
        self._process.stdin.close()
        self._process.wait()


class CProgram:
    """The program exports/step.c, which computes the median of a turn itself."""

    def __init__(self, folder, trials):
        import tensorflow as tf

        home = Path(tf.__file__).parent
        self._command = [str(folder / "step"), str(folder / "model"), str(folder / "trials.csv")]
        subprocess.run(
            [
                *("gcc", "-O2", "-o", folder / "step", EXPORTS / "step.c", "-lm"),
                *(f"-I{home / 'include'}", f"-L{home}", f"-Wl,-rpath,{home}"),
                *("-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"),
            ],
            check=True,
        )
        rows = np.random.default_rng(0).integers(0, 2, (trials, 2))
        np.savetxt(folder / "trials.csv", rows, "%d", ",", header="choice,reward", comments="")

    def turn(self):
        done = subprocess.run(self._command, capture_output=True, text=True, check=True)
        line = done.stderr.strip().splitlines()[-1]
        words = line.replace(",", "").split()
        return [float(words[words.index(name) + 1]) / 1e3 for name in ("median", "below")]

    def stop(self):
        pass


def make_export(folder):
    import keras_disrnn
    from keras_disrnn.io.saved_model import export

    model = keras_disrnn.DisRNNModel(num_latents=LATENTS, seed=0)
    export(model, folder / "model")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference-python", help="interpreter with the authors' package")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    processor = max(os.sched_getaffinity(0))
    if arguments.program:
        os.sched_setaffinity(0, {processor})
        PROGRAMS[arguments.program](arguments.folder, arguments.trials)
        return

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_export(folder)
        os.sched_setaffinity(0, {processor})
        programs = {}

        def add(name, python=sys.executable):
            programs[name] = Program(name, python, folder, arguments.trials)

        add("ours, endpoint")
        if shutil.which("gcc"):
            programs["ours, C"] = CProgram(folder, arguments.trials)
        if importlib.util.find_spec("ai_edge_litert"):
            subprocess.run(
                [
                    sys.executable,
                    EXPORTS / "to_litert.py",
                    folder / "model",
                    folder / "step.tflite",
                ],
                check=True,
                capture_output=True,
            )
            add("ours, LiteRT")
        if arguments.reference_python:
            add("reference", arguments.reference_python)
            add("reference, no conversion", arguments.reference_python)

        turns = {name: [] for name in programs}
        for _ in range(arguments.turns):
            for name, program in programs.items():
                turns[name].append(program.turn())
        for program in programs.values():
            program.stop()

    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print("program | fastest turn's median | median | 95 % below\n---|---|---|---")
    for name, seconds in turns.items():
        medians, below = zip(*seconds, strict=True)
        figures = min(medians), np.median(medians), np.median(below)
        print(name, *(f"{1e3 * value:.3f}" for value in figures), sep=" | ")


if __name__ == "__main__":
    main()
