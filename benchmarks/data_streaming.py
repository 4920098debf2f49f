"""Build and read `bandit_dopamine` at growing sizes: trials per second, and peak memory.

    python benchmarks/data_streaming.py --trials 1e6 1e7 1e8

One process builds each size. Another reads it as batches, and a third reads it as sessions in
memory. So each process has its own peak. The peak of a stream is printed after each quarter. Up to
16 files are read in parallel (the default of TFDS), and then one at a time. `--fit` also trains a
small model on the streamed batches. `--beam N` builds the smallest size again with Apache Beam on N
local worker processes, and compares the examples. The program deletes what it built.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TRIALS = 200
BATCH = 100
FEATURES = ("subject", "session", "choice", "reward", "dopamine")


def builder_of(folder, trials):
    from keras_disrnn.datasets import Builder, SimulatedConfig

    config = SimulatedConfig(
        name=f"trials_{trials}",
        num_train_sessions=trials // TRIALS,
        num_validation_sessions=1,
        num_test_sessions=1,
        num_trials=TRIALS,
    )
    return Builder(config=config, data_dir=folder)


def split_of(folder, trials, files=16):
    import tensorflow_datasets as tfds

    # How many files are read in parallel. 16 is the default of TFDS.
    read_config = tfds.ReadConfig(interleave_cycle_length=int(files))
    wanted = tfds.decode.PartialDecoding(dict.fromkeys(FEATURES, True))
    return builder_of(folder, trials).as_dataset(
        split="train", decoders=wanted, read_config=read_config
    )


def build(folder, trials):
    builder_of(folder, trials).download_and_prepare()


def build_beam(folder, trials, workers):
    import tensorflow_datasets as tfds
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(
        runner="DirectRunner",
        direct_num_workers=int(workers),
        direct_running_mode="multi_processing",
    )
    builder_of(folder, trials).download_and_prepare(
        download_config=tfds.download.DownloadConfig(beam_options=options)
    )


def stream(folder, trials, files=16):
    from keras_disrnn.data import stream_from_tfds

    read, by_quarter = 0, []
    for x, _, _ in stream_from_tfds(split_of(folder, trials, files), BATCH):
        read += len(x)
        if read * TRIALS >= trials * (len(by_quarter) + 1) / 4:
            by_quarter.append(peak_memory())
    assert read == trials // TRIALS, read
    return by_quarter


def fit(folder, trials):
    import keras_disrnn
    from keras_disrnn.data import stream_from_tfds

    batches = stream_from_tfds(split_of(folder, trials), BATCH, num_trials=TRIALS)
    model = keras_disrnn.DisRNNModel(num_latents=2, update_units=4, num_update_layers=1, seed=0)
    keras_disrnn.compile_stage(model, "warmup")
    model.fit(batches, epochs=1, shuffle=False, verbose=0)


def in_memory(folder, trials):
    from keras_disrnn.data import sessions_from_tfds

    sessions = sessions_from_tfds(split_of(folder, trials))
    assert sessions.num_trials == trials


def compare(folder, trials, other):
    import numpy as np

    pairs = zip(
        builder_of(folder, trials).as_dataset(split="train").as_numpy_iterator(),
        builder_of(other, trials).as_dataset(split="train").as_numpy_iterator(),
        strict=True,
    )
    for one, same in pairs:
        for name, value in one.items():
            np.testing.assert_array_equal(value, same[name])


def peak_memory():
    """Return the peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(what, *arguments):
    """Run a function in its own process. Return its seconds and its peaks in MB."""
    command = [sys.executable, __file__, "--worker", what, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def worker(what, folder, trials, *rest):
    import keras_disrnn.datasets  # noqa: F401  imports do not count

    started = time.perf_counter()
    by_quarter = globals()[what](folder, int(trials), *rest)
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, by_quarter or [peak_memory()]]))


def report(trials, what, seconds, peaks):
    peaks = ", ".join(f"{peak:,.0f}" for peak in peaks)
    print(f"{trials:,} | {what} | {trials / seconds:,.0f} | {peaks}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--in-memory-up-to", type=float, default=1e7)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--beam", type=int, metavar="N")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(*arguments.worker)
        return
    print("trials | what | trials per second | peak memory, MB\n---|---|---|---")
    for index, size in enumerate(sorted(arguments.trials)):
        trials = int(size) // TRIALS * TRIALS
        with tempfile.TemporaryDirectory() as folder:
            report(trials, "build", *run("build", folder, trials))
            report(trials, "stream", *run("stream", folder, trials))
            report(trials, "stream, one file at a time", *run("stream", folder, trials, 1))
            if arguments.fit:
                report(trials, "stream and fit, one pass", *run("fit", folder, trials))
            if size <= arguments.in_memory_up_to:
                report(trials, "into memory", *run("in_memory", folder, trials))
            if arguments.beam and index == 0:
                other = os.path.join(folder, "beam")
                done = run("build_beam", other, trials, arguments.beam)
                report(trials, f"build, Beam, {arguments.beam} workers", *done)
                run("compare", folder, trials, other)
                print(f"{trials:,} | Beam's examples are identical, in the same order | | ")


if __name__ == "__main__":
    main()
