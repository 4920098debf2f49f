"""Compare our training step with the reference's, side by side in one run.

    python benchmarks/compare.py --reference-python PATH/TO/python --shapes A B C D

`PATH/TO/python` is an interpreter with the authors' package (`pip install
disentangled-rnns==0.1.8`), in its own environment. The programs take turns of a few steps
each, so that a change of the machine's speed affects all of them. Only one of them computes at a
time. The table shows medians over the turns. It also shows the ratio of each turn (reference /
ours; above 1, ours is faster) with its smallest and largest value.

Shapes:

- A: the reference's example (300 sessions x 200 trials, 5 latents, update networks 8 x 4, choice
  4 x 2);
- B: its neural notebook (50 x 100, 7 latents, 16 x 4, choice 2 x 2, dopamine 4 x 2, everything
  trained together);
- C: the data of a laboratory (1,000 x 500, 5 latents, 16 x 5);
- D: the dLight recordings beside the repository;
- E: a batch of a cohort (64 x 500, networks as in A).

Both train on the same sessions with the same penalties. Our side runs whole steps of `fit` with
its metrics, the reference runs steps of `train_network`. Rows of the table:

- a training step (of stage 1; of the joint stage in B);
- the time to the first step, with imports and compilation (on our side, to the end of the first
  turn, which is more than one step);
- a prediction pass: the noiseless outputs of all sessions, after compilation;
- a step of stage 2 on latents that were computed once, beside the reference's training step;
- peak memory.
"""

import argparse
import dataclasses
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PENALTIES = {"latent": 1e-2, "update_obs": 1e-3, "update_latent": 1e-3, "choice": 1e-3}
DOPAMINE_PENALTY = 1e-4
L2 = 1e-5
DLIGHT = Path(__file__).parents[2] / "shared" / "data" / "dlight_bandit" / "trials.csv.gz"


@dataclasses.dataclass(frozen=True)
class Shape:
    """The model and data that both sides fit, and the number of steps in a turn."""

    num_sessions: int
    num_trials: int
    num_latents: int
    update: tuple[int, int]
    choice: tuple[int, int] = (4, 2)
    dopamine: tuple[int, int] | None = None
    """The dopamine readout of the joint training. Without it, that of stage 2 is 8 x 2."""
    steps: int = 10


SHAPES = {
    "A": Shape(300, 200, 5, (8, 4)),
    "B": Shape(50, 100, 7, (16, 4), (2, 2), (4, 2), steps=20),
    "C": Shape(1000, 500, 5, (16, 5), steps=2),
    "D": Shape(0, 0, 5, (8, 4)),
    "E": Shape(64, 500, 5, (8, 4), steps=5),
}


# === The programs that take turns ===


class Turns:
    """The turns of a program: report the time of each, and wait for the next.

    Args:
        steps: Steps in a turn.
        first: Steps in the first turn.
        predict: Function for a prediction pass, or `None`.
    """

    def __init__(self, steps, first, predict=None):
        self._steps = steps
        self._first = first
        self._predict = predict
        self._count = 0
        self.began = time.perf_counter()

    def after(self, steps):
        """Count steps that are done."""
        self._count += steps
        if self._count < self._first or (self._count - self._first) % self._steps:
            return
        self._report(steps=self._first if self._count == self._first else self._steps)
        self._wait()

    def _report(self, **values):
        seconds = time.perf_counter() - self.began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "mebibytes": memory, **values}), flush=True)

    def _wait(self):
        gc.collect()
        while (order := sys.stdin.readline().strip()) == "predict":
            self.began = time.perf_counter()
            self._predict()
            self._report(steps=1)
        if order != "go":
            os._exit(0)
        self.began = time.perf_counter()


def make_model(shape, signals, implementation="auto"):
    """Make our model of a shape, and build it."""
    import keras_disrnn

    dopamine_units, num_dopamine_layers = shape.dopamine or (8, 2)
    model = keras_disrnn.DisRNNModel(
        num_signals=signals,
        num_latents=shape.num_latents,
        update_units=shape.update[0],
        num_update_layers=shape.update[1],
        choice_units=shape.choice[0],
        num_choice_layers=shape.choice[1],
        dopamine_units=dopamine_units,
        num_dopamine_layers=num_dopamine_layers,
        dopamine_timing="post",
        **{f"{name}_penalty": value for name, value in PENALTIES.items()},
        dopamine_penalty=DOPAMINE_PENALTY,
        l2_scale=L2,
        implementation=implementation,
        seed=0,
    )
    return model


def run_ours(shape, arrays, implementation, stage2, jit="auto"):
    began = time.perf_counter()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(len(os.sched_getaffinity(0)))
    import keras

    import keras_disrnn
    from keras_disrnn import native

    native.yield_processors()  # as the command line does
    signals = 1 if shape.dopamine or stage2 else 0
    model = make_model(shape, signals, implementation)
    stage = "stage2" if stage2 else "joint" if signals else "stage1"
    keras_disrnn.compile_stage(
        model,
        stage,
        steps_per_execution=shape.steps,
        jit_compile={"auto": "auto", "yes": True, "no": False}[jit],
    )
    inputs = features = arrays["features"]
    if stage2:
        inputs = {"features": features, "latents": keras_disrnn.predict_latents(model, features)}
    turns = Turns(shape.steps, shape.steps, lambda: model.predict_on_batch(features))
    turns.began = began
    targets = {"choice": arrays["choice"]}
    weights = {"choice": arrays["choice_weight"]}
    if signals:
        targets["dopamine"], weights["dopamine"] = arrays["dopamine"], arrays["dopamine_weight"]
    batches = tf.data.Dataset.from_tensors((inputs, targets, weights)).repeat()

    class Step(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            turns.after(shape.steps)

    model.fit(
        batches, steps_per_epoch=shape.steps * 10**5, verbose=0, shuffle=False, callbacks=[Step()]
    )


def run_reference(shape, arrays):
    began = time.perf_counter()
    import haiku
    import jax
    from disentangled_rnns.library import disrnn, neuro_disrnn, rnn_utils

    features = np.nan_to_num(arrays["features"], nan=0.0).swapaxes(0, 1)
    choice = np.where(arrays["choice_weight"] > 0, arrays["choice"], -1).swapaxes(0, 1)[..., None]
    settings = {
        "obs_size": 2,
        "output_size": 2,
        "latent_size": shape.num_latents,
        "update_net_n_units_per_layer": shape.update[0],
        "update_net_n_layers": shape.update[1],
        "choice_net_n_units_per_layer": shape.choice[0],
        "choice_net_n_layers": shape.choice[1],
        "latent_penalty": PENALTIES["latent"],
        "update_net_obs_penalty": PENALTIES["update_obs"],
        "update_net_latent_penalty": PENALTIES["update_latent"],
        "choice_net_latent_penalty": PENALTIES["choice"],
        "l2_scale": L2,
    }
    if shape.dopamine:
        config = neuro_disrnn.DisRnnWNeuralActivityConfig(
            **settings,
            neural_activity_net_n_units_per_layer=shape.dopamine[0],
            neural_activity_net_n_layers=shape.dopamine[1],
            neural_activity_net_latent_penalty=DOPAMINE_PENALTY,
        )
        make = neuro_disrnn.HkNeuroDisentangledRNN
        recorded = arrays["dopamine_weight"] > 0
        dopamine = np.where(recorded, arrays["dopamine"], np.nan).swapaxes(0, 1)
        data = rnn_utils.DatasetRNNMixed(
            features, np.concatenate([choice, dopamine], -1), n_classes=2
        )
        loss = "penalized_hybrid"
    else:
        config = disrnn.DisRnnConfig(**settings)
        make = disrnn.HkDisentangledRNN
        data = rnn_utils.DatasetRNNCategorical(features, choice, n_classes=2)
        loss = "penalized_categorical"

    # The reference's own eval_network compiles at every call.
    def unroll(xs):
        core = make(dataclasses.replace(config, noiseless_mode=True))
        return haiku.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    network = haiku.transform(unroll)
    apply = jax.jit(network.apply)
    key = jax.random.PRNGKey(0)
    params = []

    def predict():
        if not params:
            params.append(network.init(key, features))
        jax.block_until_ready(apply(params[0], key, features))

    turns = Turns(shape.steps, 1, predict)
    turns.began = began

    class Batches:
        """Return the whole data set at each call. A call means that the step before is done."""

        batch_mode = "whole"
        calls = 0

        def __next__(self):
            self.calls += 1
            # The first two calls only read shapes. They come before the first step.
            if self.calls > 3:
                turns.after(1)
            return data.get_all()

        def get_all(self):
            return data.get_all()

    # It fetches the loss at the end of each turn, so the steps are really done by then.
    rnn_utils.train_network(
        lambda: make(config),
        Batches(),
        None,
        loss=loss,
        loss_param=1.0 if loss == "penalized_categorical" else {"likelihood_weight": 0.5},
        n_steps=10**6,
        log_losses_every=shape.steps,
        report_progress_by="none",
    )


# === The comparison ===


def make_arrays(name):
    """Return the sessions that both sides fit, as arrays of our `Sessions`."""
    from keras_disrnn import bandit
    from keras_disrnn.data import Columns, sessions_from_table

    if name == "D":
        if not DLIGHT.exists():
            sys.exit(f"shape D: expected the recordings in {DLIGHT}, got no such file")
        sessions = sessions_from_table(
            DLIGHT,
            Columns(
                session="session_id",
                choice="choice_right",
                forced="forced_choice",
                dopamine="dlight_response",
            ),
        )
    else:
        shape = SHAPES[name]
        played = bandit.simulate(
            bandit.QLearning(),
            bandit.DriftingBandit(),
            num_sessions=shape.num_sessions,
            num_trials=shape.num_trials,
            seed=0,
        )
        sessions = sessions_from_table(played.to_table(), Columns(dopamine="dopamine"))
    names = ("features", "choice", "choice_weight", "dopamine", "dopamine_weight")
    return {name: getattr(sessions, name) for name in names}


class Program:
    """One of the programs, in its own process. By default the reference runs on the CPU."""

    def __init__(self, python, side, name, folder, implementation, *, jit="auto", platform="cpu"):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if platform:
            environment["JAX_PLATFORMS"] = platform
        self._log = folder / f"{side}.log"
        self._process = subprocess.Popen(
            [
                *(python, __file__, "--program", side, "--shapes", name),
                *("--arrays", str(folder / "arrays.npz"), "--implementation", implementation),
                *("--jit", jit),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=environment,
        )

    def turn(self, order="go"):
        """Return the seconds of a step, and the peak memory in MiB."""
        if order:
            self._process.stdin.write(f"{order}\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                result = json.loads(line)
                return result["seconds"] / result["steps"], result["mebibytes"]
        sys.exit(f"a program ended early:\n{self._log.read_text()[-3000:]}")

    def stop(self):
        self._process.stdin.write("stop\n")
        self._process.stdin.close()
        self._process.wait()


def compare(name, reference_python, turns, implementation):
    """Measure a shape. Return {quantity: {side: values of the turns}}."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        np.savez(folder / "arrays.npz", **make_arrays(name))
        pythons = {"ours": sys.executable, "stage2": sys.executable}
        if reference_python:
            pythons["reference"] = reference_python
        programs = {}
        found = {what: {} for what in ("step", "first", "predict", "memory")}
        for side, python in pythons.items():
            programs[side] = Program(python, side, name, folder, implementation)
            steps = SHAPES[name].steps if side != "reference" else 1
            found["first"][side] = [programs[side].turn(order=None)[0] * steps]
            # Do not count the set-up in the first steps and the compilation of the prediction.
            programs[side].turn()
            if side != "stage2":
                programs[side].turn("predict")
        for _ in range(turns):
            for side, program in programs.items():
                seconds, memory = program.turn()
                found["step"].setdefault(side, []).append(seconds)
                found["memory"][side] = [memory]
            for side, program in programs.items():
                if side != "stage2":
                    found["predict"].setdefault(side, []).append(program.turn("predict")[0])
        for program in programs.values():
            program.stop()
    return found


def row(ours, reference):
    """Return the cells of a row of the table: both medians, and the ratios of the turns."""
    cells = [f"{statistics.median(ours):.4g}"]
    if reference is None:
        return [*cells, "–", "–"]
    ratios = [r / o for r, o in zip(reference, ours, strict=True)]
    spread = f" ({min(ratios):.3g} to {max(ratios):.3g})" if len(ratios) > 1 else ""
    return [
        *cells,
        f"{statistics.median(reference):.4g}",
        f"{statistics.median(ratios):.3g}{spread}",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference-python", help="interpreter with the authors' package")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["A", "B"])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--implementation", default="auto", help="of our layers")
    parser.add_argument(
        "--program", choices=("ours", "stage2", "reference"), help=argparse.SUPPRESS
    )
    parser.add_argument("--arrays", help=argparse.SUPPRESS)
    parser.add_argument("--jit", choices=("auto", "yes", "no"), default="auto", help="our XLA")
    arguments = parser.parse_args()
    if arguments.program:
        arrays = dict(np.load(arguments.arrays))
        shape = SHAPES[arguments.shapes[0]]
        if arguments.program == "reference":
            run_reference(shape, arrays)
        else:
            stage2 = arguments.program == "stage2"
            run_ours(shape, arrays, arguments.implementation, stage2, arguments.jit)
        return
    print("shape | what | ours | reference | reference / ours (smallest to largest)", flush=True)
    print("---|---|---|---|---")
    for name in arguments.shapes:
        found = compare(name, arguments.reference_python, arguments.turns, arguments.implementation)
        for label, what, side in (
            ("training step, s", "step", "ours"),
            ("to the first step, s", "first", "ours"),
            ("prediction pass, s", "predict", "ours"),
            ("stage 2 step, s", "step", "stage2"),
            ("peak memory, MiB", "memory", "ours"),
        ):
            cells = row(found[what][side], found[what].get("reference"))
            print(f"{name} | {label} | {' | '.join(cells)}", flush=True)
        shares = [
            a / b for a, b in zip(found["step"]["stage2"], found["step"]["ours"], strict=True)
        ]
        print(
            f"{name} | stage 2 step / our training step | {statistics.median(shares):.3g} | – | –"
        )


if __name__ == "__main__":
    main()
