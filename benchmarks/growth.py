"""Measure how the time of a training step grows, beside the arithmetic that it needs.

    python benchmarks/growth.py

The program starts from the shape of the reference's example (300 sessions x 200 trials, 5 latents,
update networks of 8 units x 4 layers) and changes one quantity at a time. A row shows the median
time of a step of `fit` in stage 1. It also shows the multiplications and additions of the update
networks in that step: forward, again in the backward pass, and twice for the gradients. The last
column is their share of the machine's peak. The peak is the rate of a large float32 matrix product,
measured before each shape.
"""

import argparse
import os
import statistics
import time

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BASE = {"sessions": 300, "trials": 200, "latents": 5, "units": 8}
LAYERS = 4
VALUES = {
    "trials": (100, 300, 1000, 3000, 10_000),
    "sessions": (30, 100, 300, 1000, 3000),
    "latents": (2, 5, 10, 20),
    "units": (4, 8, 16, 32, 64),
}


def peak():
    """Return the floating point operations per second of a matrix product, the best of five."""
    size = 1536
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def operations(sessions, trials, latents, units, layers=LAYERS):
    """Count the multiplications and additions of the update networks in one step."""
    weights = (latents + 2) * units + layers * units**2 + 2 * units
    return 4 * 2 * weights * latents * sessions * (trials + 1)


def step_seconds(turns, sessions, trials, latents, units):
    """Return the time of a step of `fit` in each turn."""
    import keras
    import tensorflow as tf

    import keras_disrnn

    keras.backend.clear_session()
    rng = np.random.default_rng(0)
    features = rng.integers(0, 2, (sessions, trials + 1, 2)).astype("float32")
    choice = rng.integers(0, 2, (sessions, trials + 1)).astype("int32")
    weight = np.ones_like(choice, "float32")
    model = keras_disrnn.DisRNNModel(
        num_signals=0, num_latents=latents, update_units=units, num_update_layers=LAYERS, seed=0
    )
    steps = 5
    keras_disrnn.compile_stage(model, "stage1", steps_per_execution=steps)
    batches = tf.data.Dataset.from_tensors(
        (features, {"choice": choice}, {"choice": weight})
    ).repeat()
    times = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self._began = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            times.append((time.perf_counter() - self._began) / steps)

    model.fit(
        batches, steps_per_epoch=steps * (turns + 1), shuffle=False, verbose=0, callbacks=[Clock()]
    )
    return times[1:]  # the first turn compiles


def main():
    from keras_disrnn import native

    native.yield_processors()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quantities", nargs="+", choices=VALUES, default=list(VALUES))
    arguments = parser.parse_args()
    print(
        "quantity | value | step, ms | arithmetic, Gflop | Gflop/s | share of the peak", flush=True
    )
    print("---|---|---|---|---|---")
    for quantity in arguments.quantities:
        for value in VALUES[quantity]:
            shape = {**BASE, quantity: value}
            rate = peak()
            seconds = statistics.median(step_seconds(arguments.turns, **shape))
            work = operations(**shape)
            print(
                f"{quantity} | {value} | {1e3 * seconds:.4g} | {work / 1e9:.3g} | "
                f"{work / seconds / 1e9:.3g} | {work / seconds / rate:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
