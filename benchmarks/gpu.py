"""Measure this package on a GPU: numbers, steps and a fit. It needs less than eight minutes.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --quick --out gpu.json      # tiny, also without a GPU

The program installs nothing. Each part is a process of its own with a time limit, so one that fails
or hangs does not end the others. The file is written anew after each part. Parts that the budget
leaves no time for are named as left out. The last ones are the least important.

- `device`: the GPU, the versions, the rate of a large float32 product, and the time of one small
  operation in a chain of a thousand.
- `numbers`: outputs, gradients and 50 training steps of one model without noise, in the native
  library on the CPU, in Keras operations on the CPU, and on the GPU with and without XLA. TF32 is
  off, except in the row that says so. The rows are differences from the native library.
- `step`: seconds of a training step of stage 1, as in `benchmarks/compare.py`: shapes A and C, and
  E, a batch of a cohort. Ours with XLA, ours without, ours on the CPU of the same machine, and the
  reference's on the same card, if JAX finds the card. Else the file says what JAX finds.
  `--reference-python` names the reference's interpreter; by default it is this one.
- `fit`: `train(course="standard")` of a Q-learner (300 x 200) on the GPU and on the CPU.
- `promise`: what a CUDA kernel could gain. The arithmetic of a step at the measured rate of the
  card is one bound. The other is the chain: each time step waits for the one before, and each layer
  for the layer below. `CHAIN_NANOSECONDS` is what a layer takes inside one kernel. It is assumed,
  not measured.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import compare
import numpy as np
from growth import operations

CHAIN_NANOSECONDS = 50.0
"""A layer of up to 16 units: about 16 dependent multiplications, an activation and a barrier."""

PASSES = 3
"""A training step goes through the time steps forward, again and backward."""

HIDE = {"CUDA_VISIBLE_DEVICES": "-1"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the same computation.

    Attributes:
        implementation: That of our layers.
        jit: `jit_compile` of Keras.
        on_cpu: Whether the GPU is hidden.
        tf32: Whether products of float32 may round as TF32.
    """

    implementation: str
    jit: str = "no"
    on_cpu: bool = False
    tf32: bool = False


VARIANTS = {
    "native, CPU": Variant("auto", on_cpu=True),
    "Keras, CPU": Variant("keras", on_cpu=True),
    "GPU": Variant("keras"),
    "GPU, XLA": Variant("keras", jit="yes"),
    "GPU, XLA, TF32": Variant("keras", jit="yes", tf32=True),
}

# Name, variant or shape, and time limit in seconds; the most important first.
PARTS = [
    ("device", "", 60),
    ("numbers", "native, CPU", 60),
    ("numbers", "GPU, XLA", 60),
    ("numbers", "GPU", 60),
    ("step", "A", 90),
    ("step", "E", 100),
    ("fit", "GPU", 80),
    ("fit", "native, CPU", 60),
    ("step", "C", 110),
    ("numbers", "GPU, XLA, TF32", 40),
    ("numbers", "Keras, CPU", 40),
]
SHAPES = ("A", "E", "C")


class Notes:
    """What a part has found so far. It is written at once, so that a time limit loses nothing."""

    def __init__(self, file):
        self._file, self._values = Path(file), {}

    def add(self, **values):
        self._values |= values
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self._values))
        part.replace(self._file)


def seconds_of(function, turns=5):
    """Return the seconds of a call, the best of some after the first."""
    function()
    times = []
    for _ in range(turns):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


# === Parts ===


def measure_device(notes, quick):
    import keras
    import tensorflow as tf

    import keras_disrnn

    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    notes.add(
        gpus=names,
        tensorflow=tf.__version__,
        keras=keras.__version__,
        keras_disrnn=keras_disrnn.__version__,
        cores=os.cpu_count(),
    )
    size = 256 if quick else 8192
    matrix = tf.random.normal((size, size))
    for name, enabled in (("float32", False), ("TF32", True)):
        tf.config.experimental.enable_tensor_float_32_execution(enabled)
        seconds = seconds_of(lambda: tf.matmul(matrix, matrix)[0, 0].numpy())
        notes.add(**{f"{name}_gflops": 2 * size**3 / seconds / 1e9})
    length = 1000

    @tf.function
    def chain(values):
        return tf.while_loop(
            lambda i, _: i < length, lambda i, v: (i + 1, tf.tanh(v)), (0, values)
        )[1]

    values = tf.zeros((64, 8))
    notes.add(operation_us=seconds_of(lambda: chain(values).numpy()) / length * 1e6)


def measure_numbers(notes, quick, variant, folder):
    """Outputs, gradients and the losses of some steps, against the file of the first variant."""
    import keras
    import tensorflow as tf

    import keras_disrnn
    from keras_disrnn.training.plan import STAGES

    tf.config.experimental.enable_tensor_float_32_execution(variant.tf32)
    arrays = make_arrays("A", quick)
    shape = dataclasses.replace(compare.SHAPES["A"], dopamine=(8, 2))
    model = compare.make_model(shape, 1, variant.implementation)
    # Other devices may draw other initial weights.
    stored = folder / "numbers.npz"
    first = dict(np.load(stored)) if stored.exists() else None
    if first is not None:
        model.set_weights([first[f"weight {i}"] for i in range(len(model.get_weights()))])
    before = model.get_weights()
    found = {f"weight {i}": value for i, value in enumerate(before)}
    calm = dataclasses.replace(STAGES["joint"], noise=False)
    names = ("choice", "dopamine")
    targets = {name: arrays[name] for name in names}
    weights = {name: arrays[f"{name}_weight"] for name in names}
    batch = tf.data.Dataset.from_tensors((arrays["features"], targets, weights)).repeat()
    # A step of plain gradient descent changes the weights by the gradient.
    keras_disrnn.compile_stage(
        model,
        calm,
        optimizer=keras.optimizers.SGD(1.0),
        jit_compile={"yes": True, "no": False}[variant.jit],
    )
    outputs = model.predict_on_batch(arrays["features"])
    found |= {name: outputs[name] for name in names}
    model.fit(batch, steps_per_epoch=1, verbose=0, shuffle=False)
    gradients = [
        (old - new).ravel()
        for old, new in zip(before, model.get_weights(), strict=True)
        if old.dtype.kind == "f"  # integers are the states of random generators
    ]
    found["gradient"] = np.concatenate(gradients)
    model.set_weights(before)
    # The rate is a variable of the traced step.
    model.optimizer.learning_rate.assign(0.1)
    epochs = 3 if quick else 50
    history = model.fit(batch, epochs=epochs, steps_per_epoch=1, verbose=0, shuffle=False)
    found["losses"] = np.array(history.history["loss"])
    if first is None:
        np.savez(stored, **found)
        first = found
    for name in (*names, "gradient", "losses"):
        scale = np.abs(first[name]).max()
        notes.add(**{name: float(np.abs(found[name] - first[name]).max() / scale)})


def measure_steps(notes, quick, name, folder, reference_python):
    """Seconds of a training step of a shape."""
    np.savez(folder / "arrays.npz", **make_arrays(name, quick))
    programs = {
        "ours, XLA": (sys.executable, "keras", "yes", {}),
        "ours": (sys.executable, "keras", "no", {}),
        "reference": (reference_python, "auto", "auto", {}),
        "ours, CPU": (sys.executable, "auto", "auto", HIDE),
    }
    for label, (python, implementation, jit, variables) in programs.items():
        side = "reference" if label == "reference" else "ours"
        if side == "reference":
            platform = platform_of_reference(python)
            notes.add(**{"reference runs on": platform})
            if platform.startswith("no reference") or (platform == "cpu" and not quick):
                continue
        kept = dict(os.environ)
        os.environ.update(variables)
        try:
            program = compare.Program(
                python, side, name, folder, implementation, jit=jit, platform=None
            )
            first = program.turn(order=None)[0]
            once = program.turn()[0]
            slow = once * compare.SHAPES[name].steps > 2
            times = [program.turn()[0] for _ in range(1 if quick or slow else 3)]
            program.stop()
        except SystemExit as failed:
            notes.add(**{f"{label}: failed": str(failed)[-500:]})
            continue
        finally:
            os.environ.clear()
            os.environ.update(kept)
        steps = 1 if side == "reference" else compare.SHAPES[name].steps
        notes.add(**{label: float(np.median(times)), f"{label}: first turn": first * steps})


def platform_of_reference(python):
    """Return where JAX computes in an interpreter, or why there is no reference."""
    question = "import disentangled_rnns, jax; print(jax.devices()[0].device_kind)"
    answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=False)
    if answer.returncode:
        return f"no reference: {(answer.stderr.strip().splitlines() or ['?'])[-1][:200]}"
    return answer.stdout.strip()


def measure_fit(notes, quick):
    """Train as a user does, and compare the fit with the agent."""
    import keras

    import keras_disrnn
    from keras_disrnn.experiments.data import simulate_data
    from keras_disrnn.experiments.recovery import compute_recovery
    from keras_disrnn.experiments.settings import SyntheticData
    from keras_disrnn.native import yield_processors

    yield_processors()
    few = {"num_sessions": 8, "num_trials": 10, "num_held_out_sessions": 8} if quick else {}
    data = SyntheticData(**few)
    parts = simulate_data(data, 3000)
    model = keras_disrnn.DisRNNModel(seed=3000)
    began = time.perf_counter()

    class Watch(keras.callbacks.Callback):
        steps = 0

        def on_epoch_end(self, epoch, logs=None):
            self.steps += self.params["steps"]
            notes.add(seconds=time.perf_counter() - began, steps=self.steps, ended=False)

    short = {"warmup_steps": 2, "stage1_steps": 2, "stage2_steps": 2} if quick else {}
    keras_disrnn.train(
        model,
        parts["train"][0],
        course="standard",
        seed=3000,
        callbacks=[Watch()],
        verbose=0,
        **short,
    )
    notes.add(seconds=time.perf_counter() - began, ended=True)
    held_out, played = parts["held_out"]
    found = compute_recovery(model, data.make_agent(), sessions=held_out, played=played)
    names = ("graph", "difference", "dopamine_r2")
    notes.add(**{name: float(found[name]) for name in names})


def make_arrays(name, quick):
    if not quick:
        return compare.make_arrays(name)
    rng = np.random.default_rng(0)
    choice = rng.integers(0, 2, (4, 6))
    return {
        "features": rng.integers(0, 2, (4, 6, 2)).astype("float32"),
        "choice": choice.astype("int32"),
        "choice_weight": np.ones((4, 6), "float32"),
        "dopamine": rng.normal(size=(4, 6, 1)).astype("float32"),
        "dopamine_weight": np.ones((4, 6, 1), "float32"),
    }


def promise(parts, quick):
    """Return what a CUDA kernel could gain on each shape that was measured."""
    rows = {}
    rate = parts.get("device", {}).get("float32_gflops")
    for name in SHAPES:
        steps = parts.get(f"step {name}", {})
        times = [steps[label] for label in ("ours, XLA", "ours") if label in steps]
        if not times or rate is None:
            continue
        shape = compare.SHAPES[name]
        sessions, trials = (4, 5) if quick else (shape.num_sessions, shape.num_trials)
        units, layers = shape.update
        gflop = operations(sessions, trials, shape.num_latents, units, layers) / 1e9
        arithmetic = gflop / rate
        chain = PASSES * (trials + 1) * (layers + 2) * CHAIN_NANOSECONDS * 1e-9
        bound = max(arithmetic, chain)
        rows[name] = {
            "measured": min(times),
            "arithmetic": arithmetic,
            "chain": chain,
            "gain at most": min(times) / bound,
        }
    return rows


# === The program ===


def run_part(given, name, what, limit, folder):
    """Run a part in a process of its own. Return what it found, and how it ended."""
    file = folder / f"{name} {what}.json"
    command = [sys.executable, __file__, "--part", name, what, str(folder), "--out", str(file)]
    command += ["--reference-python", given.reference_python]
    command += ["--quick"] if given.quick else []
    environment = dict(os.environ)
    if name in ("numbers", "fit") and VARIANTS[what].on_cpu:
        environment |= HIDE
    began = time.perf_counter()
    log = folder / f"{name} {what}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            ended = process.wait(limit)
        except subprocess.TimeoutExpired:
            ended = f"time limit of {limit:.0f} s"
        finally:
            # A part may have started programs of its own.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    found = json.loads(file.read_text()) if file.exists() else {}
    if ended:
        found["error"] = f"ended with {ended}: {log.read_text()[-800:]}"
    return {**found, "part_seconds": time.perf_counter() - began}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="gpu.json")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to try the program")
    parser.add_argument("--budget", type=float, default=460, help="seconds of all parts")
    parser.add_argument("--parts", nargs="*", help="such as: device, 'step A'; by default all")
    parser.add_argument("--reference-python", default=sys.executable)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        name, what, folder = given.part
        notes, folder = Notes(given.out), Path(folder)
        if name == "device":
            measure_device(notes, given.quick)
        elif name == "numbers":
            measure_numbers(notes, given.quick, VARIANTS[what], folder)
        elif name == "fit":
            measure_fit(notes, given.quick)
        else:
            measure_steps(notes, given.quick, what, folder, given.reference_python)
        return
    began, found = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, what, limit in PARTS:
            label = f"{name} {what}".strip()
            if given.parts and not {name, label} & set(given.parts):
                continue
            left = given.budget - (time.perf_counter() - began)
            if left < 5:
                found[label] = {"error": "left out: the budget is spent"}
            else:
                # Tiny shapes show whether a part runs, on any machine.
                limit = left if given.quick else min(limit, left)
                found[label] = run_part(given, name, what, limit, Path(folder))
            found["promise"] = promise(found, given.quick)
            Path(given.out).write_text(json.dumps(found, indent=1))
            print(f"{label}: {found[label].get('part_seconds', 0):.0f} s", flush=True)
    print_tables(found)


def print_tables(found):
    device = found.get("device", {})
    print(f"\nGPU: {', '.join(map(str, device.get('gpus') or ['none']))}")
    for label, values in found.items():
        if label == "promise":
            continue
        print(f"\n| {label} | |\n|---|---|")
        for name, value in values.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", " ")
            print(f"| {name} | {shown[:200]} |")
    print(
        "\n| shape | our best step, s | arithmetic, s | chain, s | a kernel gains at most |\n"
        "|---|---|---|---|---|"
    )
    for name, row in found.get("promise", {}).items():
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in row.values())} |")


if __name__ == "__main__":
    main()
