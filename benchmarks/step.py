"""Measure the parts of our training step.

    python benchmarks/step.py --shapes A B C
    python benchmarks/step.py --shapes 64x200 32x100 16x800 --stages stage1 stage2

`A` to `D` are the shapes of compare.py, with all sessions at every step. `64x200` stands for
batches of 64 sessions of 200 trials, drawn from 300 sessions as `train` draws them, for the default
model with dopamine.

The program prints the time of a step of `fit`, and of each pass of the native library in it. The
rest is batches, Keras, and TensorFlow's operations (Adam, sums, metrics). The time of a step is
that of the fastest 10 of its kind, that of a pass is its lower quartile. CPU time is that of all
threads, and says more than wall time when the machine is busy.
"""

import argparse
import time

import numpy as np
from compare import SHAPES, make_arrays, make_model

DRAWN_FROM = 300
PER_EXECUTION = 10


def make_task(name, stage):
    """Return our model of a shape and stage, and its batches without end."""
    import tensorflow as tf

    import keras_disrnn

    if name in SHAPES:
        arrays, shape = make_arrays(name), SHAPES[name]
        if shape.dopamine and stage == "stage1":
            stage = "joint"
        kinds = ("choice",) if stage == "stage1" else ("choice", "dopamine")
        model = make_model(shape, len(kinds) - 1)
        targets = {kind: arrays[kind] for kind in kinds}
        weights = {kind: arrays[f"{kind}_weight"] for kind in kinds}
        inputs = arrays["features"]
        if stage == "stage2":
            latents = keras_disrnn.predict_latents(model, inputs)
            inputs = {"features": inputs, "latents": latents}
        return model, stage, tf.data.Dataset.from_tensors((inputs, targets, weights)).repeat()
    from keras_disrnn import bandit
    from keras_disrnn.data import Columns, sessions_from_table
    from keras_disrnn.training.fit import with_latents

    size, trials = map(int, name.split("x"))
    played = bandit.simulate(
        bandit.QLearning(),
        bandit.DriftingBandit(),
        num_sessions=DRAWN_FROM,
        num_trials=trials,
        seed=0,
    )
    sessions = sessions_from_table(played.to_table(), Columns(dopamine="dopamine"))
    model = keras_disrnn.DisRNNModel(seed=0)
    if stage == "stage2":
        (sessions,) = with_latents(model, sessions)
    return model, stage, sessions.dataset(size, shuffle=True, steps=10**6)


def profile(name, stage, executions):
    """Return {part: (wall seconds, CPU seconds)} of a step. The first part is the whole step."""
    import keras

    import keras_disrnn
    from keras_disrnn.native import Pass, likelihood

    times = {}

    def now():
        return np.array([time.perf_counter(), time.process_time()])

    def clock(label, function):
        def timed(*arguments, **options):
            start = now()
            result = function(*arguments, **options)
            times.setdefault(label(*arguments), []).append(now() - start)
            return result

        return timed

    plain = {}
    for owner, names in ((Pass, ("forward", "backward")), (likelihood, ("_forward", "_backward"))):
        for method in names:
            way = method.strip("_")
            label = (
                (lambda native, *_, way=way: f"{type(native).__name__.lower()}, {way}")
                if owner is Pass
                else (lambda *_, way=way: f"likelihood, {way}")
            )
            plain[owner, method] = getattr(owner, method)
            setattr(owner, method, clock(label, plain[owner, method]))
    model, stage, batches = make_task(name, stage)
    times.clear()  # latents of stage 2
    keras_disrnn.compile_stage(model, stage, steps_per_execution=PER_EXECUTION)
    ends = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ends.append(now())
            if len(ends) == 1:  # the traced steps do not count
                times.clear()

    steps = executions * PER_EXECUTION
    model.fit(
        batches,
        steps_per_epoch=steps + PER_EXECUTION,
        shuffle=False,
        verbose=0,
        callbacks=[Clock()],
    )
    for (owner, method), function in plain.items():
        setattr(owner, method, function)
    whole = np.min(np.diff(ends, axis=0), axis=0) / PER_EXECUTION
    parts = {
        part: len(values) / steps * np.quantile(values, 0.25, axis=0)
        for part, values in sorted(times.items())
    }
    return {"whole step": whole, **parts, "all else": whole - sum(parts.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["A", "B"], help="A to D, or like 64x200")
    parser.add_argument("--stages", nargs="+", choices=("stage1", "stage2"), default=["stage1"])
    parser.add_argument("--executions", type=int, default=8, help="of ten steps each")
    arguments = parser.parse_args()
    from keras_disrnn import native

    native.yield_processors()
    print("shape | stage | part | wall, ms | CPU, ms\n---|---|---|---|---")
    for name in arguments.shapes:
        for stage in arguments.stages:
            for part, seconds in profile(name, stage, arguments.executions).items():
                wall, cpu = np.round(1e3 * seconds, 2)
                print(f"{name} | {stage} | {part} | {wall} | {cpu}", flush=True)


if __name__ == "__main__":
    main()
