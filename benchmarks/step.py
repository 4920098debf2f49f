"""Where the time of our training step goes.

    python benchmarks/step.py --shapes A B

For shapes of compare.py: the time of a step of `fit`, that of each pass of the native library in
it (the pass itself, and the Python around it), and what is left, TensorFlow's operations (Adam,
sums, metrics) and Keras. Passes that run side by side are counted in full.
"""

import argparse
import statistics
import time

import numpy as np
from compare import SHAPES, make_arrays, make_model


def profile(name, steps=40):
    """Milliseconds a step by part; the first part is the whole."""
    import keras
    import tensorflow as tf

    import keras_disrnn
    from keras_disrnn.native import likelihood, passes

    times = {}

    def clock(label, function):
        def timed(*arguments, **options):
            start = time.perf_counter()
            result = function(*arguments, **options)
            times.setdefault(label, []).append(time.perf_counter() - start)
            return result

        return timed

    def watch(module, label):
        whole = module.differentiable

        def differentiable(forward, backward, *arguments, **options):
            return whole(
                clock(f"{label}, forward", forward),
                clock(f"{label}, backward", backward),
                *arguments,
                **options,
            )

        module.differentiable = differentiable
        return whole

    modules = {passes: "core and readouts", likelihood: "likelihood"}
    plain = {module: watch(module, label) for module, label in modules.items()}
    arrays, shape = make_arrays(name), SHAPES[name]
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
            if len(ends) == 1:  # what was traced does not count
                times.clear()

    model.fit(batches, steps_per_epoch=steps + 10, shuffle=False, verbose=0, callbacks=[Clock()])
    for module, function in plain.items():
        module.differentiable = function
    whole = statistics.median(np.diff(ends)) / 10
    parts = {name: sum(values) / steps for name, values in sorted(times.items())}
    return {"whole step": whole, **parts, "all else": whole - sum(parts.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["A", "B"])
    arguments = parser.parse_args()
    from keras_disrnn import native

    native.yield_processors()
    print("shape | part | ms a step\n---|---|---")
    for name in arguments.shapes:
        for part, seconds in profile(name).items():
            print(f"{name} | {part} | {np.round(1e3 * seconds, 2)}", flush=True)


if __name__ == "__main__":
    main()
