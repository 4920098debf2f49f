"""Measure the time until a fit has found a known agent, ours beside the authors' package.

    python benchmarks/time_to_model.py --cases q_learning-100x100 --seeds 2 \
        --reference-python PYTHON --courses example best --out runs/time_to_model

A fit is right at a check if its graph is the agent's, and its held-out likelihood is at most a
tolerance below the true agent's. The tolerance belongs to the case: 0.0005 at 300 x 200 trials,
0.0015 at 100 x 100. The time counts until the first check at which the fit is right, if the fit is
also right at its end. Otherwise the fit has failed. Checks come at epochs, and the clock stands
still in them. Their models are scored after the fit, as `keras-disrnn recover` scores them.

Ours is `train(course="standard")`. Each seed has a process of its own, which fits the same model
twice: the first fit traces its steps, and the second fit can use them again. "Choice" is the graph
of choice, without latents whose own bottleneck is closed: the graph of the same model without its
dopamine readout. "Whole" is the whole graph in stage 2, as `keras-disrnn recover` compares it. The
authors' example has no dopamine, and their model of both trains them together. So its fits are
compared with our choice alone. PYTHON has `disentangled-rnns`. Its courses are

- `example`: that of the authors' `example.py`, with its penalties: 1,000 steps of warm-up, 3,000
  steps with penalties, all sessions at every step, Adam at 1e-3;
- `example-ours`: the same with our penalty of latents, 3e-3 instead of 1e-2;
- `best`: the best one that we found for it: our penalties, batches of 12,800 trials, Adam at 1e-2
  with a cosine decay over the last 200 steps, 100 + 1,000 steps.

Seconds without imports. Each fit is one JSON file in the folder. A fit is not repeated, unless its
course has other settings since, or it had reached a smaller limit. A fit that has not ended after
`--limit` processor seconds has failed, unless it is right at its last check.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from reference_recovery import CONFIG


@dataclasses.dataclass(frozen=True)
class Case:
    """An agent, the number of its sessions and trials, and the largest loss of likelihood."""

    agent: str
    num_sessions: int
    num_trials: int
    tolerance: float


CASES = {
    "q_learning-300x200": Case("q_learning", 300, 200, 0.0005),
    "q_learning-100x100": Case("q_learning", 100, 100, 0.0015),
    "reward_seeking-300x200": Case("reward_seeking", 300, 200, 0.0005),
    "leaky_actor_critic-300x200": Case("leaky_actor_critic", 300, 200, 0.0005),
}

EXAMPLE = {
    "warmup_steps": 1000,
    "steps": 3000,
    "learning_rate": 1e-3,
    "decay_steps": 0,
    "batch_trials": None,
    "latent_penalty": CONFIG["latent_penalty"],
    "check_every": 100,
}
COURSES = {
    "example": EXAMPLE,
    "example-ours": {**EXAMPLE, "latent_penalty": 3e-3},
    "best": {
        "warmup_steps": 100,
        "steps": 1000,
        "learning_rate": 1e-2,
        "decay_steps": 200,
        "batch_trials": 12_800,
        "latent_penalty": 3e-3,
        "check_every": 50,
    },
}
"""Courses of the authors' package."""


def make_data(case, seed):
    """Return the simulated sessions of a case."""
    from keras_disrnn.experiments.data import simulate_data
    from keras_disrnn.experiments.settings import SyntheticData

    settings = SyntheticData(
        agent=case.agent, num_sessions=case.num_sessions, num_trials=case.num_trials
    )
    return simulate_data(settings, seed)


def score(model, case, parts):
    """Return whether the graphs of a model are the agent's, and its loss of likelihood."""
    from keras_disrnn.analysis import compute_bottlenecks, compute_evaluation
    from keras_disrnn.analysis.graph import choice_part, compute_graph, describe_graph, same_graph
    from keras_disrnn.experiments.recovery import TRUTHS
    from keras_disrnn.utils.thresholds import OPEN_BELOW

    truth, graph = TRUTHS[case.agent].graph, compute_graph(model)
    # Before stage 2, the dopamine readout reads all latents, so that closed ones stay in the graph.
    rows = compute_bottlenecks(model).query("group == 'latent'")
    of_choice = graph.copy()
    of_choice.remove_nodes_from(rows["target"][rows["sigma"] >= OPEN_BELOW])
    sessions, played = parts["held_out"]
    found = compute_evaluation(
        model, sessions, batch_size=256, reference=played.chosen_probability
    ).summary["choice"]
    return {
        "choice_graph": same_graph(choice_part(of_choice), choice_part(truth)),
        "graph": same_graph(graph, truth),
        "difference": float(found["difference"]),
        "found": describe_graph(graph),
    }


# === Our fits ===


def fit_here(case, seed, files, limit):
    """Fit the same model once for each file, and write what each fit took."""
    began = time.perf_counter()
    import keras

    import keras_disrnn
    from keras_disrnn.native import yield_processors
    from keras_disrnn.training.stages import stage_of

    yield_processors()  # as the command line does
    imports = {"imports_wall": time.perf_counter() - began, "imports_cpu": time.process_time()}
    from reference_course import Clock

    class Check(keras.callbacks.Callback):
        def __init__(self, clock):
            super().__init__()
            self.clock, self.rows, self.kept, self.before = clock, [], [], 0
            self.stage = None

        def on_epoch_end(self, epoch, logs=None):
            wall, cpu = self.clock.seconds()
            step = (epoch + 1) * self.params["steps"]
            self.rows.append(
                {"stage": stage_of(self.model), "step": step, "wall": wall, "cpu": cpu}
            )
            self.clock.leave_out(lambda: self.kept.append(self.model.get_weights()))
            if cpu > limit:
                raise TimeoutError

    parts = make_data(case, seed)
    for file in files:
        clock = Clock()
        model, check, ended = keras_disrnn.DisRNNModel(seed=seed), Check(clock), "finished"
        try:
            keras_disrnn.train(
                model, parts["train"][0], course="standard", seed=seed, callbacks=[check], verbose=0
            )
        except TimeoutError:
            ended = f"limit of {limit:g} processor seconds"
        wall, cpu = clock.seconds()
        about = {
            "course": our_course(),
            "limit": limit,
            "ended": ended,
            "wall": wall,
            "cpu": cpu,
            **imports,
        }
        for row, weights in zip(check.rows, check.kept, strict=True):
            model.set_weights(weights)
            row |= score(model, case, parts)
        write(file, {**about, "checks": check.rows})


# === The reference's fits ===


def fit_there(python, case, seed, course, file, limit):
    """Let the authors' package fit, and score each of its checks."""
    from keras_disrnn.io.reference import from_haiku
    from keras_disrnn.training.courses import COURSES as OURS

    parts = make_data(case, seed)
    sessions = parts["train"][0]
    settings, course = course, dict(course)
    batch_size = None
    if trials := course.pop("batch_trials"):
        # The same rule as that of our course.
        rule = dataclasses.replace(OURS["standard"], batch_trials=trials)
        batch_size = rule.batch_size(sessions.num_sessions, case.num_trials)
    course["batch_size"] = batch_size
    with tempfile.TemporaryDirectory() as folder:
        source, fitted = Path(folder) / "data.npz", Path(folder) / "fitted.npz"
        choice = np.where(sessions.choice_weight > 0, sessions.choice, -1)
        np.savez(source, features=sessions.features, choice=choice)
        program = Path(__file__).with_name("reference_course.py")
        command = [python, program, source, fitted, "--course", json.dumps(course)]
        command += ["--seed", str(seed), "--limit", str(limit)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
        with np.load(fitted) as arrays:
            about = json.loads(str(arrays["checks"]))
            flat = {name: arrays[name] for name in arrays.files if name != "checks"}
    kept = [{} for _ in about["checks"]]
    for key, array in flat.items():
        number, module, name = key.split("|")
        kept[int(number)].setdefault(module, {})[name] = array
    config = {**CONFIG, "latent_penalty": course["latent_penalty"], "noiseless_mode": False}
    model = None
    for row, params in zip(about["checks"], kept, strict=True):
        here = from_haiku(params, config)
        # One model for all checks, so that the scores are traced once.
        model = model or here
        model.set_weights(here.get_weights())
        row |= score(model, case, parts)
    last = about["checks"][-1]
    about |= {"wall": last["wall"], "cpu": last["cpu"], "batch_size": batch_size}
    write(file, {"course": settings, "limit": limit, **about})


# === Files ===


def write(file, values):
    from keras_disrnn.utils.files import write_text

    write_text(file, json.dumps(values, indent=1))


def is_done(file, course, limit):
    """Whether a file holds a fit by a course as it is now, to its end or to the limit."""
    if not file.exists():
        return False
    stored = json.loads(file.read_text())
    whole = stored["ended"] == "finished" or stored["limit"] >= limit
    return stored["course"] == course and whole


def our_course():
    from keras_disrnn.training.courses import COURSES as OURS

    return dataclasses.asdict(OURS["standard"])


# === The table ===


def time_to(fit, tolerance, graph="choice_graph"):
    """Return the wall and processor seconds until a fit was right, or `None`."""
    stages = ("stage1", "stage2") if graph == "choice_graph" else ("stage2",)
    right = [
        (row["wall"], row["cpu"])
        for row in fit["checks"]
        if row["stage"] in stages and row[graph] and row["difference"] >= -tolerance
    ]
    last = fit["checks"][-1]
    if not right or not last[graph] or last["difference"] < -tolerance:
        return None
    return right[0]


def median(values):
    return f"{statistics.median(values):.1f}" if values else "–"


def print_row(label, fits, tolerance, graph="choice_graph"):
    """Print the row of one kind of fit. Return the times by seed."""
    times = {seed: time_to(fit, tolerance, graph) for seed, fit in fits.items()}
    reached = [time for time in times.values() if time is not None]
    cells = [
        f"{len(reached)} of {len(times)}",
        f"{median([cpu for _, cpu in reached])}, {median([wall for wall, _ in reached])}",
        f"{median([fit['cpu'] for fit in fits.values()])}, "
        f"{median([fit['wall'] for fit in fits.values()])}",
        f"{statistics.mean(fit['checks'][-1]['difference'] for fit in fits.values()):+.5f}",
    ]
    print(f"| {label} | {' | '.join(cells)} |", flush=True)
    for seed, time_taken in times.items():
        if time_taken is None:
            fit, last = fits[seed], fits[seed]["checks"][-1]
            print(
                f"| – seed {seed} | not reached in {fit['cpu']:.0f} s of the processor "
                f"({fit['ended']}) | | | {last['difference']:+.5f}, {last['found']} |"
            )
    return times


def print_ratio(label, theirs, ours, spent):
    """Print how many times longer a fit of the reference takes, over the seeds.

    Where only the reference fails, the processor time that it `spent` gives a lower bound.
    """
    both = [seed for seed in theirs if seed in ours]
    failed = [seed for seed in both if theirs[seed] is None or ours[seed] is None]
    ratios = [
        [their / our for their, our in zip(theirs[seed], ours[seed], strict=True)]
        for seed in both
        if seed not in failed
    ]
    text = ", ".join(
        f"{name} {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        for name, values in zip(("wall", "processor"), zip(*ratios, strict=True), strict=False)
    )
    bounds = [spent[seed] / ours[seed][1] for seed in failed if ours[seed] is not None]
    if bounds:
        text += f"; above {min(bounds):.1f} (processor) where only the reference failed"
    text = text.removeprefix("; ") or "no ratio"
    print(f"{label}: {text}; {len(failed)} of {len(both)} seeds failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["q_learning-300x200"])
    parser.add_argument("--first", type=int, default=3000, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reference-python", help="interpreter with the authors' package")
    parser.add_argument("--courses", nargs="*", choices=COURSES, default=["example", "best"])
    parser.add_argument("--no-ours", action="store_true", help="do not run fits of ours")
    parser.add_argument("--limit", type=float, default=3600, help="processor seconds of a fit")
    parser.add_argument("--out", default="runs/time_to_model")
    parser.add_argument("--fit", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fit:
        name, seed, *files = given.fit
        fit_here(CASES[name], int(seed), [Path(file) for file in files], given.limit)
        return
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    seeds = range(given.first, given.first + given.seeds)
    for name in given.cases:
        for seed in seeds:
            files = [out / f"{name}-ours-{place}-{seed}.json" for place in ("first", "next")]
            if not given.no_ours and not all(
                is_done(file, our_course(), given.limit) for file in files
            ):
                command = [sys.executable, __file__, "--limit", str(given.limit)]
                subprocess.run([*command, "--fit", name, str(seed), *files], check=True)
            for course in given.courses if given.reference_python else ():
                file = out / f"{name}-{course}-{seed}.json"
                settings = COURSES[course]
                if not is_done(file, settings, given.limit):
                    python = given.reference_python
                    fit_there(python, CASES[name], seed, settings, file, given.limit)
        print_case(name, out, seeds)


def print_case(name, out, seeds):
    """Print the table of a case from the files that are there."""
    case = CASES[name]
    print(
        f"\n{name}, seeds {seeds[0]} to {seeds[-1]}, within {case.tolerance}\n\n"
        "| fits | right | until right: processor, wall, s | whole fit: processor, wall, s | "
        "likelihood minus the agent's, mean |\n" + "|---" * 5 + "|"
    )
    times, spent = {}, {}
    for kind in ("ours-first", "ours-next", *COURSES):
        fits = {
            seed: json.loads(file.read_text())
            for seed in seeds
            if (file := out / f"{name}-{kind}-{seed}.json").exists()
        }
        if not fits:
            continue
        times[kind] = print_row(f"{kind}, choice", fits, case.tolerance)
        spent[kind] = {seed: fit["cpu"] for seed, fit in fits.items()}
        if kind.startswith("ours"):
            print_row(f"{kind}, whole", fits, case.tolerance, "graph")
    print()
    for kind in COURSES:
        for ours in ("ours-first", "ours-next"):
            if kind in times and ours in times:
                print_ratio(f"{kind} / {ours}", times[kind], times[ours], spent[kind])


if __name__ == "__main__":
    main()
