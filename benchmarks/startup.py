"""Measure how long the command line takes to answer, and what the end of a run costs.

    python benchmarks/startup.py --turns 3

Each row is a new process. It is compared with `python -c pass` and with an import of TensorFlow in
the same turn, so that a busy machine slows all of them. Seconds are those of the processor, of all
threads. The last rows are the phases of a short demo after its training, and `plot` of the same
run: its data have the usual size, but its model is hardly trained, so most of its latents are open,
and each is drawn.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PHASES = """
import json, sys, time
from keras_disrnn.experiments import run
from keras_disrnn.experiments.settings import ModelSettings, SyntheticData, TrainingSettings
spent = {}
def timed(name):
    function = getattr(run, name)
    def call(*args, **kwargs):
        began = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] = time.process_time() - began
    setattr(run, name, call)
for name in ("compute_metrics", "draw", "save_model", "export", "write_report"):
    timed(name)
steps = dict(warmup_steps=20, stage1_steps=20, stage2_steps=20, steps_per_epoch=10)
run.run(
    "demo", sys.argv[1], data=SyntheticData(), model=ModelSettings(),
    training=TrainingSettings(**steps), seed=0,
)
print(json.dumps(spent))
"""

FIGURE = """
import sys
import keras_disrnn
from keras_disrnn.analysis import compute_bottlenecks
from keras_disrnn.plots import plot_bottlenecks, save_figure
save_figure(sys.argv[1], plot_bottlenecks, compute_bottlenecks(keras_disrnn.DisRNNModel(seed=0)))
"""

COMMAND = ["-m", "keras_disrnn"]

ROWS = {
    "python -c pass": ["-c", "pass"],
    "import tensorflow": ["-c", "import tensorflow"],
    "import keras_disrnn": ["-c", "import keras_disrnn"],
    "--version": [*COMMAND, "--version"],
    "--help": [*COMMAND, "--help"],
    "fit --help": [*COMMAND, "fit", "--help"],
    "unknown command": [*COMMAND, "fti"],
    "unknown flag": [*COMMAND, "demo", "--oot=x"],
    "wrong value": [*COMMAND, "demo", "--out=x", "--training.stage1_steps=abc"],
    "number out of range": [*COMMAND, "demo", "--out=x", "--data.num_sessions=-3"],
    "table that is not there": [*COMMAND, "fit", "--data.table=trails.csv", "--out=x"],
    "one figure": ["-c", FIGURE, "FOLDER/figure.png"],
}


def measure(arguments, folder):
    """Return the processor seconds of a Python process, and what it printed."""
    arguments = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3, help="how often each row is measured")
    parser.add_argument("--no-run", action="store_true", help="leave out the demo")
    given = parser.parse_args()
    seconds = {name: [] for name in ROWS}
    phases = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.turns):
            for name, arguments in ROWS.items():
                seconds[name].append(measure(arguments, Path(folder))[0])
            if not given.no_run:
                _, printed = measure(["-c", PHASES, f"{folder}/run{turn}"], Path(folder))
                for name, spent in json.loads(printed.splitlines()[-1]).items():
                    phases.setdefault(name, []).append(spent)
                again = ["plot", f"--run=run{turn}", f"--out=figures{turn}"]
                row = seconds.setdefault("plot of a finished run", [])
                row.append(measure([*COMMAND, *again], Path(folder))[0])
    nothing, tensorflow = seconds["python -c pass"], seconds["import tensorflow"]

    def ratio(values, others):
        return statistics.median(a / b for a, b in zip(values, others, strict=True))

    print(f"Medians of {given.turns} turns; seconds of the processor\n")
    print("| process | seconds | times `python -c pass` | times `import tensorflow` |")
    print("|---|---|---|---|")
    for name, values in seconds.items():
        print(
            f"| {name} | {statistics.median(values):.2f} | {ratio(values, nothing):.1f} | "
            f"{ratio(values, tensorflow):.3f} |"
        )
    if phases:
        print(
            "\n| phase at the end of a run | seconds | times `import tensorflow` |\n|---|---|---|"
        )
        for name, values in phases.items():
            print(f"| {name} | {statistics.median(values):.2f} | {ratio(values, tensorflow):.2f} |")


if __name__ == "__main__":
    main()
