"""Measure whole commands: wall time, processor time, memory and phases.

    python benchmarks/commands.py demo select --out runs/commands
    python benchmarks/commands.py study --mice trials.csv.gz --fits 96 --out runs/commands

- `demo`: the synthetic experiment, as in the README.
- `select`: penalties selected on 300 x 200 trials of a Q-learner with dopamine. Of 450 sessions
  every third is held out.
- `study`: fits of mice x 4 penalty scales x 2 seeds, and two baselines of each mouse. `--mice`
  names a table with the columns mouse, date, trial, right and reward. Nine sessions of each mouse
  count. `--fits` asks for a number of DisRNNs.

`--small` takes few trials and steps, to see that everything runs. `--course` names the course of
`demo` and `study`; by default it is that of the command.

Processor time and memory are those of the command with its workers. Memory is the largest sum of
their proportional set sizes, read five times a second. So pages that workers share count once. It
needs Linux. Phases come from `metrics.json`, and for `select` and `study` from the times at which
the command printed its lines. "Start, report" is all else: the start, imports and the report. The
folder gets one JSON file for each command, and keeps the run beside it.
"""

import argparse
import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SCALES = [0.3, 1.0, 3.0, 10.0]
SMALL_TRAINING = {
    "warmup_steps": 20,
    "stage1_steps": 40,
    "stage2_steps": 20,
    "steps_per_epoch": 20,
    "settle_steps": 0,
}
SMALL_SELECTION = {
    "scales": [1.0, 3.0],
    "dopamine_scales": [1.0, 3.0],
    "warmup_steps": 20,
    "steps": 20,
    "dopamine_steps": 20,
    "separation_steps": 0,
    "settle_steps": 20,
}


# === A command, and what it takes ===


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a command took.

    Attributes:
        wall: Wall seconds.
        cpu: Processor seconds of the command and its workers.
        mebibytes: Largest memory of both together, or `None` where /proc does not say.
        lines: The lines it printed, each with the wall seconds since the start.
    """

    wall: float
    cpu: float
    mebibytes: float | None
    lines: list[tuple[float, str]]


def processes_of(root):
    """Return the ids of a process and its descendants."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold spaces.
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    found, new = set(), {root}
    while new:
        found |= new
        new = {process for process, parent in parents.items() if parent in new} - found
    return found


def memory_of(processes):
    """Return the sum of the proportional set sizes of processes in MiB."""
    total = 0
    for process in processes:
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(size) for size in re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE))
    return total / 1024


def measure(arguments, every=0.2):
    """Run `keras-disrnn` with arguments to its end, and return what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_disrnn", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    peak, ended = [0.0], threading.Event()

    def watch():
        while not ended.wait(every):
            peak[0] = max(peak[0], memory_of(processes_of(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    lines = [(time.perf_counter() - began, line.rstrip("\n")) for line in process.stdout]
    code = process.wait()
    wall = time.perf_counter() - began
    ended.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        text = "\n".join(line for _, line in lines[-20:])
        sys.exit(f"{' '.join(map(str, arguments))}: ended with {code}:\n{text}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(wall, cpu, peak[0] or None, lines)


def flags(group, values):
    return [f"--{group}.{name}={json.dumps(value)}" for name, value in values.items()]


# === Phases ===


def phases_of_run(folder, taken):
    """Return the phases of a run by name, from its `metrics.json`."""
    phases = json.loads((folder / "metrics.json").read_text())["seconds"]
    return {**phases, "start, report": taken.wall - sum(phases.values())}


def phases_of_selection(folder, taken):
    """Return the phases of a run that selected its penalties, with the paths apart."""
    phases = phases_of_run(folder, taken)
    paths, before = {}, None
    for when, line in taken.lines:
        label = re.split(r", penalty scale|:", line)[0]
        if not label.startswith(("choice", "dopamine")):
            continue
        # A line comes after the work that it tells of. The first one gives only a start.
        if before is not None:
            rest = ", last steps" if label in ("choice", "dopamine") else ""
            name = f"of the selection: {label}{rest}"
            paths[name] = paths.get(name, 0.0) + when - before
        before = when
    if paths:
        first = phases["selection"] - sum(paths.values())
        paths = {"of the selection: to the first scale": first, **paths}
    return {**phases, **paths}


def phases_of_study(folder, taken):
    """Return the phases of a study. Those of its fits are sums over the fits."""
    import pandas as pd

    progress = [when for when, line in taken.lines if re.match(r"\d+ of \d+ done", line)]
    phases = {
        "start, checks": progress[0],
        "fits": progress[-1] - progress[0],
        "results, report": taken.wall - progress[-1],
    }
    fits = pd.read_csv(folder / "fits.csv")
    for kind, rows in (("DisRNN", fits["scale"].notna()), ("baselines", fits["scale"].isna())):
        # A baseline stands once for each scale.
        seconds = fits[rows].drop_duplicates("key")["seconds"]
        phases[f"in the fits: {kind} ({len(seconds)})"] = float(seconds.sum())
    for place in folder.glob("fits/*/run/metrics.json"):
        for name, seconds in json.loads(place.read_text()).get("seconds", {}).items():
            label = f"in the fits: {name}"
            phases[label] = phases.get(label, 0.0) + seconds
    return phases


# === The commands ===


def run_demo(out, given):
    arguments = ["demo", f"--out={out}", f"--seed={given.seed}"]
    if given.course:
        arguments.append(f"--training.course={given.course}")
    if given.small:
        few = {"num_sessions": 20, "num_held_out_sessions": 20, "num_trials": 30}
        arguments += [*flags("data", few), *flags("training", SMALL_TRAINING)]
    taken = measure(arguments)
    return taken, phases_of_run(out, taken)


def run_select(out, given):
    from keras_disrnn import bandit

    num_sessions, num_trials = (30, 30) if given.small else (450, 200)
    played = bandit.simulate(
        bandit.QLearning(),
        bandit.DriftingBandit(),
        num_sessions=num_sessions,
        num_trials=num_trials,
        seed=given.seed,
    )
    table = out.with_name(f"{out.name}.csv")
    played.to_table().to_csv(table, index=False)
    arguments = ["select", f"--out={out}", f"--seed={given.seed}", f"--data.table={table}"]
    arguments += ["--data.columns.dopamine=dopamine", "--data.columns.trial=trial"]
    if given.small:
        arguments += flags("selection", SMALL_SELECTION)
    taken = measure(arguments)
    return taken, phases_of_selection(out, taken)


def run_study(out, given):
    import yaml
    from study import write_config, write_mice

    if given.mice is None:
        sys.exit("study: expected --mice with a table, got none")
    folder = out.with_name(f"{out.name}-data")
    folder.mkdir(exist_ok=True)
    num_scales = min(given.fits, len(SCALES))
    num_seeds = min(2, max(1, given.fits // num_scales))
    num_mice = max(1, given.fits // (num_scales * num_seeds))
    config = write_mice(
        folder,
        (100, 200),
        9,
        table=given.mice,
        num_mice=num_mice,
        num_trials=30 if given.small else None,
    )

    settings = yaml.safe_load(config.read_text())
    settings |= {"scales": SCALES[:num_scales], "seeds": list(range(num_seeds))}
    settings["training"] = {"stage2_steps": 0}
    if given.course:
        settings["training"]["course"] = given.course
    if given.small:
        settings["training"] = {**SMALL_TRAINING, "stage2_steps": 0}
        settings["num_bootstrap_samples"] = 50
    config = write_config(folder, settings)
    arguments = ["study", f"--config={config}", f"--out={out}"]
    if given.workers:
        arguments.append(f"--workers={given.workers}")
    taken = measure(arguments)
    return taken, phases_of_study(out, taken)


COMMANDS = {"demo": run_demo, "select": run_select, "study": run_study}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="+", choices=COMMANDS)
    parser.add_argument("--small", action="store_true", help="few trials and steps")
    parser.add_argument("--course", help="of demo and study")
    parser.add_argument("--mice", help="table of the recordings for study")
    parser.add_argument("--fits", type=int, default=96, help="DisRNNs of study")
    parser.add_argument("--workers", type=int, help="of study")
    parser.add_argument("--seed", type=int, default=3000)
    parser.add_argument("--out", default="runs/commands", help="an earlier run there is removed")
    given = parser.parse_args()
    from keras_disrnn.utils.files import write_text

    place = Path(given.out)
    place.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in given.commands:
        shutil.rmtree(place / name, ignore_errors=True)
        taken, phases = COMMANDS[name](place / name, given)
        found[name] = {
            "wall": taken.wall,
            "cpu": taken.cpu,
            "mebibytes": taken.mebibytes,
            "phases": phases,
            "flags": {key: value for key, value in vars(given).items() if key != "commands"},
        }
        write_text(place / f"{name}.json", json.dumps(found[name], indent=1))
    print("| command | wall, s | processor, s | memory, MiB |\n|---|---|---|---|")
    for name, values in found.items():
        memory = "–" if values["mebibytes"] is None else f"{values['mebibytes']:.0f}"
        print(f"| {name} | {values['wall']:.1f} | {values['cpu']:.1f} | {memory} |")
    print("\n| command | phase | wall, s |\n|---|---|---|")
    for name, values in found.items():
        for phase, seconds in values["phases"].items():
            print(f"| {name} | {phase} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
