"""Measure what a study costs beside its fits, what a kill costs, and a study of twelve mice.

    python benchmarks/study.py engine [--engines local ray] [--workers 1 2]
    python benchmarks/study.py kill [--kills 3]
    python benchmarks/study.py mice [--steps 300 700] [--reference-python PATH/TO/python]

- `engine`: empty tasks show the time to the first result (starting workers, importing TensorFlow)
  and the time of each further task. Then each engine and number of workers runs the same small
  study. The table shows wall time and throughput relative to one local worker. It also shows the
  share of the workers' time without a fit, and the largest memory of a worker.
- `kill`: SIGKILL ends the study at random moments, and it starts again each time. The program
  compares the sum of the wall times with a study without kills, and the numbers of both.
- `mice`: 12 mice x 4 penalty scales x 2 seeds = 96 fits of the mouse_bandit recordings beside the
  repository. With the reference's interpreter, the program also measures the reference's training
  step on the sessions of each mouse, times the same number of steps. Its compilation, once per fit,
  is listed separately.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
import yaml

MICE = Path(__file__).parents[2] / "shared" / "data" / "mouse_bandit" / "trials.csv.gz"
SMALL = {
    "scales": [1.0, 3.0],
    "training": {"warmup_steps": 100, "stage1_steps": 200, "stage2_steps": 0},
    "baselines": {"names": []},
}


def nothing(number):
    return number


def write_small(folder):
    """Write a table of four Q-learners, and the config of a study with eight fits of it."""
    from keras_disrnn import bandit

    tables = []
    for subject in range(4):
        played = bandit.simulate(
            bandit.QLearning(),
            bandit.DriftingBandit(),
            num_sessions=30,
            num_trials=150,
            seed=subject,
        )
        table = played.to_table()[["session", "choice", "reward"]]
        tables.append(
            table.assign(
                subject=f"s{subject}", session=f"s{subject}-" + table["session"].astype(str)
            )
        )
    pd.concat(tables).to_csv(folder / "trials.csv", index=False)
    return write_config(
        folder, {"data": {"simulated": {"table": str(folder / "trials.csv")}}, **SMALL}
    )


def write_config(folder, config):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def command(config, out, **options):
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [
        sys.executable,
        "-m",
        "keras_disrnn",
        "study",
        f"--config={config}",
        f"--out={out}",
        *flags,
    ]


def run_to_end(config, out, **options):
    """Run a study in its own process, and return its wall seconds."""
    began = time.monotonic()
    subprocess.run(command(config, out, **options), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def fits_of(out):
    return pd.read_csv(out / "fits.csv")


# === Engines ===


def measure_engines(folder, engines, workers):
    from keras_disrnn.experiments.workers import run_tasks

    print("engine | to the first result, s | a further task, ms\n---|---|---")
    for engine in engines:
        began, times = time.monotonic(), []
        for _ in run_tasks(nothing, [(number,) for number in range(200)], engine=engine, workers=1):
            times.append(time.monotonic() - began)
        further = (times[-1] - times[0]) / (len(times) - 1)
        print(f"{engine} | {times[0]:.1f} | {1000 * further:.2f}", flush=True)
    config = write_small(folder)
    print(
        "\nengine | workers | wall, s | throughput relative to one local worker | "
        "workers' time without a fit | a fit, s | memory of a worker, MiB\n" + "---|" * 6 + "---"
    )
    base = None
    for engine in engines:
        for count in workers:
            out = folder / f"{engine}-{count}"
            wall = run_to_end(config, out, engine=engine, workers=count)
            fits = fits_of(out)
            base = base or wall
            idle = 1 - fits["seconds"].sum() / (wall * count)
            print(
                f"{engine} | {count} | {wall:.1f} | {base / wall:.2f} | {idle:.0%} | "
                f"{fits['seconds'].mean():.2f} | {fits['mebibytes'].max():.0f}",
                flush=True,
            )


# === Kills ===


def measure_kills(folder, kills):
    config = write_small(folder)
    whole = run_to_end(config, folder / "whole", workers=1)
    generator = random.Random(0)
    print(f"without kills: {whole:.1f} s", flush=True)
    spent, out = 0.0, folder / "killed"
    for number in range(kills):
        wait = generator.uniform(0.3, 0.9) * whole / (1 + number / 2)
        process = subprocess.Popen(command(config, out, workers=1), stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        spent += wait
        done = len(list(out.glob("fits/*/fit.json")))
        print(f"killed after {wait:.1f} s, {done} fits done", flush=True)
    last = run_to_end(config, out, workers=1)
    spent += last
    columns = ["key", "likelihood", "loss", "graph"]
    same = fits_of(out)[columns].equals(fits_of(folder / "whole")[columns])
    print(
        f"last {last:.1f} s; together {spent:.1f} s, {spent / whole:.2f} times the study "
        f"without kills, {(spent - whole) / kills:.1f} s per kill; the same numbers: {same}"
    )


# === Twelve mice ===


def write_mice(folder, steps, sessions, *, table=MICE, num_mice=None, num_trials=None):
    """Write the first sessions of mice, and the config of a study of them."""
    trials = pd.read_csv(table)
    trials = trials[trials["mouse"].isin(trials["mouse"].unique()[:num_mice])]
    # Dates repeat between mice.
    trials["session"] = trials["mouse"] + " " + trials["date"].astype(str)
    place = trials.groupby("mouse")["session"].transform(lambda names: pd.factorize(names)[0])
    trials = trials[place < sessions]
    if num_trials is not None:
        trials = trials.groupby("session", sort=False).head(num_trials)
    trials.to_csv(folder / "mice.csv", index=False)
    columns = {"subject": "mouse", "session": "session", "choice": "right", "trial": "trial"}
    warmup, stage1 = steps
    return write_config(
        folder,
        {
            "data": {"mice": {"table": str(folder / "mice.csv"), "columns": columns}},
            "scales": [0.3, 1.0, 3.0, 10.0],
            "seeds": [0, 1],
            "training": {
                "warmup_steps": warmup,
                "stage1_steps": stage1,
                "stage2_steps": 0,
                "learning_rate": 5e-3,
            },
            "baselines": {"names": ["naive", "FQ, choice"], "num_starts": 2},
        },
    )


def measure_mice(folder, out, steps, sessions, engine, workers, reference_python):
    if not MICE.exists():
        sys.exit(f"mice: expected the recordings in {MICE}, got no such file")
    config = write_mice(folder, steps, sessions)
    wall = run_to_end(config, out, engine=engine, workers=workers)
    fits = fits_of(out)
    own = fits[fits["model"] == "DisRNN"]
    print(
        f"{len(own)} fits of {sum(steps)} steps (and {len(fits) - len(own)} baselines) in "
        f"{wall:.0f} s with {workers} workers; in the fits {own['seconds'].sum():.0f} s; memory of "
        f"a worker at most {fits['mebibytes'].max():.0f} MiB; {dict(fits['state'].value_counts())}",
        flush=True,
    )
    if reference_python:
        measure_reference(folder, config, own, wall, steps, reference_python)


def measure_reference(folder, config, own, wall, steps, reference_python):
    import compare

    from keras_disrnn.data import Columns
    from keras_disrnn.experiments.data import load_data
    from keras_disrnn.experiments.settings import TableData

    data = dict(yaml.safe_load(config.read_text())["data"]["mice"])
    table = TableData(data["table"], Columns(**data["columns"]))
    first, total = 0.0, 0.0
    for mouse, fits in own.groupby("subject"):
        train = load_data(TableData(table.table, table.columns, subjects=[mouse]), 0).train
        names = ("features", "choice", "choice_weight", "dopamine", "dopamine_weight")
        # Leave out time steps that no session has, as the reference does.
        rows = int(train.trials_per_session.max()) + 1
        place = folder / f"reference-{mouse}"
        place.mkdir()
        np.savez(place / "arrays.npz", **{name: getattr(train, name)[:, :rows] for name in names})
        program = compare.Program(reference_python, "reference", "D", place, "auto")
        first += program.turn(order=None)[0] * len(fits)
        seconds = min(program.turn()[0] for _ in range(3))
        program.stop()
        total += seconds * sum(steps) * len(fits)
        print(f"{mouse}: {seconds:.3f} s per step of the reference", flush=True)
    print(
        f"reference, one fit after another: {total:.0f} s for the same steps, and {first:.0f} s "
        f"for imports and compilation, {(total + first) / wall:.1f} times the study's wall time "
        f"(steps alone {total / wall:.1f})"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("engine", "kill", "mice"))
    parser.add_argument(
        "--engines", nargs="+", default=["local"], choices=("inline", "local", "ray")
    )
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument(
        "--steps", nargs=2, type=int, default=[300, 700], help="of the warm-up and of stage 1"
    )
    parser.add_argument("--sessions", type=int, default=25, help="of each mouse, at most")
    parser.add_argument("--reference-python", help="interpreter with the authors' package")
    parser.add_argument("--out", help="folder that keeps the study (mice only)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        if arguments.what == "engine":
            measure_engines(folder, arguments.engines, arguments.workers)
        elif arguments.what == "kill":
            measure_kills(folder, arguments.kills)
        else:
            measure_mice(
                folder,
                Path(arguments.out or folder / "study"),
                arguments.steps,
                arguments.sessions,
                arguments.engines[0],
                arguments.workers[-1],
                arguments.reference_python,
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
