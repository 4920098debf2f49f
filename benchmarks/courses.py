"""Compare the courses of `train` on agents with a known graph.

    python benchmarks/courses.py --agents q_learning --sessions 100 --trials 100 --seeds 3

For each agent and seed, the program fits one model by each course, at the default penalties. It
compares the fit with the agent, as `keras-disrnn recover` does, on sessions that no fit has seen.
CPU seconds are those of training alone, on one processor; the first fit traces each stage. Seeds
from 1000 are those on which the course was chosen. The table in docs/performance.md has those from
2000. Fits that are in the folder are not repeated.

    python benchmarks/courses.py --recordings recordings.yaml

fits recordings instead. The file has, by name, the settings of a table, as the section `data` of
the settings of `keras-disrnn fit`: `{dlight: {table: trials.csv, columns: {subject: mouse}}}`.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd
import yaml


def fit_recording(settings, seed, course):
    """Return the row of one fit of a table."""
    from keras_disrnn import train
    from keras_disrnn.analysis import compute_bottlenecks
    from keras_disrnn.data import Columns
    from keras_disrnn.experiments.data import load_data
    from keras_disrnn.experiments.metrics import score_sessions
    from keras_disrnn.experiments.run import make_model
    from keras_disrnn.experiments.settings import ModelSettings, TableData
    from keras_disrnn.utils.thresholds import OPEN_BELOW

    columns = Columns(**settings.get("columns", {}))
    parts = load_data(TableData(**{**settings, "columns": columns}), seed)
    model = make_model(parts.train, ModelSettings(), seed)
    began = time.process_time()
    history = train(model, parts.train, course=course, seed=seed, verbose=0)
    seconds = time.process_time() - began
    scores = score_sessions(model, parts.held_out)
    return {
        "seed": seed,
        "cpu_seconds": seconds,
        "steps": int(history["step"].groupby(history["stage"]).max().sum()),
        "open": int((compute_bottlenecks(model)["sigma"] < OPEN_BELOW).sum()),
        "likelihood": float(scores["choice"]["normalized_likelihood"]),
        "dopamine_r2": float(scores["dopamine"]["r2"]) if "dopamine" in scores else None,
    }


def fit(data, seed, course):
    """Return the row of one fit."""
    from keras_disrnn import DisRNNModel, train
    from keras_disrnn.experiments.data import simulate_data
    from keras_disrnn.experiments.recovery import compute_recovery

    parts = simulate_data(data, seed)
    model = DisRNNModel(seed=seed)
    began = time.process_time()
    history = train(model, parts["train"][0], course=course, seed=seed, verbose=0)
    seconds = time.process_time() - began
    held_out, played = parts["held_out"]
    found = compute_recovery(model, data.make_agent(), sessions=held_out, played=played)
    steps = history.groupby("stage")["step"].max()
    variables = [value for name, value in found.items() if name.endswith(": r")]
    return {
        "seed": seed,
        "cpu_seconds": seconds,
        "stage1": int(steps["stage1"]),
        "stage2": int(steps["stage2"]),
        "choice_graph": bool(found["choice_graph"]),
        "graph": bool(found["graph"]),
        "difference": float(found["difference"]),
        "dopamine_r2": float(found["dopamine_r2"]),
        "least_r": float(min(variables)),
        "found": found["found"],
    }


def print_table(table, agent, given):
    print(
        f"\n{agent}, {given.sessions} x {given.trials}, seeds {given.first} to "
        f"{given.first + given.seeds - 1}\n\ncourse | CPU seconds, mean | steps of stage 1 and 2, "
        "mean | choice graph, whole graph | likelihood minus the agent's, mean (worst) | "
        "dopamine R^2, worst | \\|r\\| of a variable, worst\n" + "---|" * 6 + "---"
    )
    for course, rows in table.groupby("course", sort=False):
        print(
            f"{course} | {rows['cpu_seconds'].mean():.1f} | {rows['stage1'].mean():.0f}, "
            f"{rows['stage2'].mean():.0f} | {rows['choice_graph'].sum()}, {rows['graph'].sum()} of "
            f"{len(rows)} | {rows['difference'].mean():+.5f} ({rows['difference'].min():+.5f}) | "
            f"{rows['dopamine_r2'].min():.4f} | {rows['least_r'].min():.3f}",
            flush=True,
        )


def print_recording(table, name):
    print(
        f"\n{name}\n\ncourse | seeds | CPU seconds, mean | steps, mean | open bottlenecks, mean | "
        "held-out likelihood, mean (range) | dopamine R^2, mean\n" + "---|" * 6 + "---"
    )
    for course, rows in table.groupby("course", sort=False):
        likelihood, r2 = rows["likelihood"], rows["dopamine_r2"].astype(float)
        print(
            f"{course} | {len(rows)} | {rows['cpu_seconds'].mean():.1f} | "
            f"{rows['steps'].mean():.0f} | {rows['open'].mean():.1f} | {likelihood.mean():.4f} "
            f"({likelihood.min():.4f} to {likelihood.max():.4f}) | "
            f"{'–' if r2.isna().all() else format(r2.mean(), '.4f')}",
            flush=True,
        )


def fit_all(given, name, fit_one):
    """Return the rows of all courses and seeds, from their files where these exist."""
    from keras_disrnn.utils.files import write_text

    rows = []
    for course in given.courses:
        for seed in range(given.first, given.first + given.seeds):
            file = Path(given.out) / f"{name}-{course}-{seed}.json"
            if not file.exists():
                write_text(file, json.dumps(fit_one(seed, course), indent=2))
            rows.append({"course": course, **json.loads(file.read_text())})
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="+", default=["q_learning"])
    parser.add_argument("--courses", nargs="+", default=["standard", "reference"])
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--recordings", help="a YAML file of tables, which replaces the agents")
    parser.add_argument("--out", default="runs/courses")
    given = parser.parse_args()

    import tensorflow as tf

    from keras_disrnn.experiments.settings import SyntheticData
    from keras_disrnn.native import yield_processors

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    yield_processors()
    Path(given.out).mkdir(parents=True, exist_ok=True)
    if given.recordings:
        for name, settings in yaml.safe_load(Path(given.recordings).read_text()).items():
            print_recording(fit_all(given, name, partial(fit_recording, settings)), name)
        return
    for agent in given.agents:
        data = SyntheticData(num_sessions=given.sessions, num_trials=given.trials, agent=agent)
        name = f"{agent}-{given.sessions}x{given.trials}"
        print_table(fit_all(given, name, partial(fit, data)), agent, given)


if __name__ == "__main__":
    main()
