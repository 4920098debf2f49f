"""Measure the parts of our training step.

    python benchmarks/step.py --shapes A B

For the shapes of compare.py, the program prints the time of a step of `fit`, and of each pass of
the native library in it. The rest is TensorFlow's operations (Adam, sums, metrics) and Keras.
Passes that run in parallel are counted in full.
"""

import argparse
import statistics
import time

import numpy as np
from compare import SHAPES, make_arrays, make_model


def profile(shape_name, steps=40):
    """Return the seconds of each part of a step. The first part is the whole step."""
    import keras
    import tensorflow as tf

    import keras_disrnn
    from keras_disrnn.native import Pass, likelihood

    times = {}

    def clock(label, function):
        def timed(*arguments, **options):
            start = time.perf_counter()
            result = function(*arguments, **options)
            times.setdefault(label(*arguments), []).append(time.perf_counter() - start)
            return result

        return timed

    plain = {}
    for owner, names in ((Pass, ("forward", "backward")), (likelihood, ("_forward", "_backward"))):
        for name in names:
            way = name.strip("_")
            label = (
                (lambda native, *_, way=way: f"{type(native).__name__.lower()}, {way}")
                if owner is Pass
                else (lambda *_, way=way: f"likelihood, {way}")
            )
            plain[owner, name] = getattr(owner, name)
            setattr(owner, name, clock(label, plain[owner, name]))
    arrays, shape = make_arrays(shape_name), SHAPES[shape_name]
    signals = 1 if shape.dopamine else 0
    model = make_model(shape, signals)
    keras_disrnn.compile_stage(model, "joint" if signals else "stage1", steps_per_execution=10)
    kinds = ("choice", "dopamine")[: 1 + signals]
    targets = {kind: arrays[kind] for kind in kinds}
    weights = {kind: arrays[f"{kind}_weight"] for kind in kinds}
    batches = tf.data.Dataset.from_tensors((arrays["features"], targets, weights)).repeat()
    ends = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ends.append(time.perf_counter())
            if len(ends) == 1:  # the traced step does not count
                times.clear()

    model.fit(batches, steps_per_epoch=steps + 10, shuffle=False, verbose=0, callbacks=[Clock()])
    for (owner, name), function in plain.items():
        setattr(owner, name, function)
    whole = statistics.median(np.diff(ends)) / 10
    parts = {name: sum(values) / steps for name, values in sorted(times.items())}
    return {"whole step": whole, **parts, "all else": whole - sum(parts.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["A", "B"])
    arguments = parser.parse_args()
    from keras_disrnn import native

    native.yield_processors()
    print("shape | part | ms per step\n---|---|---")
    for name in arguments.shapes:
        for part, seconds in profile(name).items():
            print(f"{name} | {part} | {np.round(1e3 * seconds, 2)}", flush=True)


if __name__ == "__main__":
    main()
