"""CPU seconds of the first fit of a shape in a process, and of the next ones.

    python benchmarks/refit.py
    python benchmarks/refit.py --sessions 100 --trials 100 --fits 3 --together 2

Models of one shape share their traced steps. The program fits models of different seeds one after
the other, and gives the CPU seconds of each phase. "model" makes and compiles the model. "tracing"
is what the first execution and the first validation of a stage take longer than the median one.
"steps" and "validation" are all executions and validations without that. "all else" is the data,
the callbacks and the ends of epochs. Each fit is then scored: "evaluation".

With `--together` the program also compares ways to make several fits at a time: in threads of this
process, in processes, and one after the other. Each process imports and traces anew. Compare the
wall times of one run with each other, on a machine that does nothing else.
"""

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PHASES = ("model", "tracing", "steps", "validation", "all else", "evaluation", "sum")


def make_clock():
    """Return a callback that records the CPU seconds of executions and validations by stage."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.spans = []

        def on_train_begin(self, logs=None):
            self.spans.append({"steps": [], "validation": []})

        def on_train_batch_begin(self, batch, logs=None):
            self._began = time.process_time()

        def on_train_batch_end(self, batch, logs=None):
            self.spans[-1]["steps"].append(time.process_time() - self._began)

        def on_test_begin(self, logs=None):
            self._test_began = time.process_time()

        def on_test_end(self, logs=None):
            self.spans[-1]["validation"].append(time.process_time() - self._test_began)

    return Clock()


def fit(train_part, held_out, seed, given):
    """Return the CPU seconds of each phase of one fit, and its number of steps."""
    import keras_disrnn
    from keras_disrnn.analysis import compute_evaluation

    clock, began = make_clock(), time.process_time()
    model = keras_disrnn.DisRNNModel(num_signals=train_part.num_signals, seed=seed)
    seconds = dict.fromkeys(PHASES, 0.0)
    seconds["model"] = time.process_time() - began
    began = time.process_time()
    history = keras_disrnn.train(
        model,
        train_part,
        held_out,
        course=given.course,
        stage1_steps=given.steps,
        stage2_steps=given.steps,
        seed=seed,
        callbacks=[clock],
        verbose=0,
    )
    whole = time.process_time() - began
    for stage in clock.spans:
        for phase, (first, *others) in stage.items():
            usual = statistics.median(others) if others else first
            seconds["tracing"] += max(0.0, first - usual)
            seconds[phase] += min(first, usual) + sum(others)
    seconds["all else"] = whole - sum(seconds[n] for n in ("tracing", "steps", "validation"))
    began = time.process_time()
    compute_evaluation(model, held_out)
    seconds["evaluation"] = time.process_time() - began
    seconds["sum"] = sum(seconds.values())
    return seconds, int(history.groupby("stage")["step"].max().sum())


def compare_ways(given, train_part, held_out):
    """Print the wall seconds of several fits at a time, in three ways."""
    count = given.together
    print(f"\n{count} fits, wall seconds (CPU seconds)\n\nway | wall | CPU\n---|---|---")

    def say(way, work):
        began = time.monotonic(), os.times()
        work()
        ended = time.monotonic(), os.times()
        cpu = sum(ended[1][:4]) - sum(began[1][:4])
        print(f"{way} | {ended[0] - began[0]:.1f} | {cpu:.1f}", flush=True)

    def one(seed):
        fit(train_part, held_out, seed, given)

    def in_threads():
        threads = [threading.Thread(target=one, args=(seed,)) for seed in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def in_processes():
        command = [sys.executable, __file__, "--sessions", str(given.sessions), "--trials"]
        command += [str(given.trials), "--course", given.course, "--fits", "1", "--threads", "1"]
        command += [] if given.steps is None else ["--steps", str(given.steps)]
        for process in [
            subprocess.Popen([*command, "--first", str(seed)], stdout=subprocess.DEVNULL)
            for seed in range(count)
        ]:
            process.wait()

    say("one after the other, in this process", lambda: [one(seed) for seed in range(count)])
    say("in threads of this process", in_threads)
    say("in processes of one thread each, with import and tracing", in_processes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--course", default="standard")
    parser.add_argument("--steps", type=int, help="the most steps of stage 1, and of stage 2")
    parser.add_argument("--fits", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0 for all processors")
    parser.add_argument("--together", type=int, default=0, help="fits at a time to compare")
    given = parser.parse_args()

    import tensorflow as tf

    from keras_disrnn.experiments.data import simulate_data
    from keras_disrnn.experiments.settings import SyntheticData
    from keras_disrnn.native import yield_processors
    from keras_disrnn.training.verdict import FitWarning

    if given.threads:
        tf.config.threading.set_intra_op_parallelism_threads(given.threads)
        tf.config.threading.set_inter_op_parallelism_threads(given.threads)
    yield_processors()
    warnings.simplefilter("ignore", FitWarning)
    settings = SyntheticData(num_sessions=given.sessions, num_trials=given.trials)
    train_part, held_out = (part[0] for part in simulate_data(settings, seed=0).values())
    print(f"{given.sessions} x {given.trials}, course {given.course!r}, CPU seconds\n")
    print("fit | steps | " + " | ".join(PHASES) + "\n" + "---|" * (len(PHASES) + 1) + "---")
    for number in range(given.fits):
        seconds, steps = fit(train_part, held_out, given.first + number, given)
        cells = " | ".join(f"{seconds[phase]:.2f}" for phase in PHASES)
        print(f"{number + 1} | {steps} | {cells}", flush=True)
    if given.together:
        compare_ways(given, train_part, held_out)


if __name__ == "__main__":
    main()
