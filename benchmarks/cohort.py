"""Fit a cohort of many subjects by the command line: time and memory of each phase, and the result.

    python benchmarks/cohort.py --out runs/cohort
    python benchmarks/cohort.py --out runs/small --subjects 60 --new-subjects 6 --sessions 10 \
        --trials 200

The subjects are Q-learners with learning rates from 0.1 to 0.9. Their choices, rewards and dopamine
go into Parquet files, a few subjects in each row group, so that the cohort is never in memory as a
whole. Then three commands run, each in its own process: `fit` for most of the subjects, `subjects`
for their embeddings, and `adapt` for the others, which the fit has not seen. A file that is there
is not written again, and a finished run is not repeated.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

PENALTY_SCALE = 0.3
SUBJECTS_PER_GROUP = 8
COLUMNS = ["--data.columns.dopamine", "dopamine", "--data.columns.trial", "trial"]


def play(name, alpha, given, seed):
    """Return the table of one subject, and its sessions with the likelihood of the true agent."""
    from keras_disrnn import bandit

    played = bandit.simulate(
        bandit.QLearning(alpha=float(alpha)),
        bandit.DriftingBandit(),
        num_sessions=given.sessions,
        num_trials=given.trials,
        seed=seed,
    )
    ids = [f"{name}-{index:03d}" for index in range(given.sessions)]
    table = {
        "subject": np.repeat(name, played.choice.size),
        "session": np.repeat(ids, given.trials),
        "trial": np.tile(np.arange(given.trials), given.sessions),
        "choice": played.choice.ravel().astype(np.int64),
        "reward": played.reward.ravel().astype(np.float64),
        "dopamine": played.dopamine.ravel().astype(np.float64),
    }
    log_likelihood = np.log(played.chosen_probability.astype(np.float64)).sum(axis=1)
    truth = pd.DataFrame({"session": ids, "true_log_likelihood": log_likelihood})
    return table, truth.assign(subject=name)


def write_table(path, names, alphas, given, first_seed):
    """Write the table of some subjects by row groups. Return their sessions."""
    import pyarrow
    import pyarrow.parquet

    truths, writer, partial = [], None, path.with_suffix(".partial")
    for start in range(0, len(names), SUBJECTS_PER_GROUP):
        group = range(start, min(start + SUBJECTS_PER_GROUP, len(names)))
        played = [play(names[i], alphas[i], given, first_seed + i) for i in group]
        truths += [truth for _, truth in played]
        tables = [pyarrow.table(table) for table, _ in played]
        table = pyarrow.concat_tables(tables).combine_chunks()
        writer = writer or pyarrow.parquet.ParquetWriter(partial, table.schema)
        writer.write_table(table, row_group_size=len(table))
    writer.close()
    partial.rename(path)
    return pd.concat(truths)


def write_cohort(given):
    """Write the tables of both parts, and what is known of their subjects and sessions."""
    paths = given.out / "trials.parquet", given.out / "new_trials.parquet"
    known, truth = given.out / "known.csv", given.out / "truth.csv"
    if all(path.exists() for path in (*paths, known, truth)):
        return
    rng = np.random.default_rng(given.seed)
    names = [f"q{index:03d}" for index in range(given.subjects)]
    # In random order, so that the number of a subject says nothing about its rate.
    alphas = rng.permutation(np.linspace(0.1, 0.9, given.subjects)).round(3)
    cut = given.subjects - given.new_subjects
    seed = 10_000 * given.seed
    truths = [write_table(paths[0], names[:cut], alphas[:cut], given, seed)]
    if given.new_subjects:
        truths.append(write_table(paths[1], names[cut:], alphas[cut:], given, seed + cut))
    pd.concat(truths).to_csv(truth, index=False)
    pd.DataFrame({"subject": names, "alpha": alphas}).to_csv(known, index=False)


def run(title, arguments, log):
    """Run a command of the command line. Return its row: seconds, and the peak of its memory."""
    command = [sys.executable, "-m", "keras_disrnn", *map(str, arguments)]
    print(f"\n$ keras-disrnn {shlex.join(map(str, arguments))}", flush=True)
    began = time.perf_counter()
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        # The usage of this process and of those that it has waited for.
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{title} failed:\n{Path(log).read_text()[-3000:]}")
    return {
        "command": title,
        "wall, s": round(wall, 1),
        "CPU, s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak memory, MB": round(usage.ru_maxrss / 1024),
    }


def best_rank_correlation(embeddings, rates):
    """Return the rank correlation of rates with the embedding, along two directions.

    The first is the principal direction, and the second the best of 180 in two dimensions.
    """
    from scipy.stats import spearmanr

    centred = embeddings - embeddings.mean(axis=0)
    principal = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    angles = np.linspace(0, np.pi, 180, endpoint=False)
    directions = [centred[:, :2] @ [np.cos(a), np.sin(a)][: centred.shape[1]] for a in angles]
    found = [abs(spearmanr(values, rates).statistic) for values in (principal, *directions)]
    return found[0], max(found)


def gap(scores, truth):
    """Return the normalized likelihood of sessions, and that of the true agents."""
    both = scores.merge(truth, on="session", validate="one_to_one")
    count = both["n_choices"].sum()
    sums = both[["log_likelihood", "true_log_likelihood"]].sum()
    return tuple(float(np.exp(value / count)) for value in sums)


def fit_and_score(given):
    """Run the commands. Return the rows of the commands, and the results."""
    from keras_disrnn.models.penalties import DEFAULTS

    out, rows = given.out, []
    fit, subjects, new = out / "fit", out / "subjects", out / "adapted"
    model = ["--model.subject_units", given.subject_units]
    for name, value in DEFAULTS.items():
        model += [f"--model.{name}", f"{value * PENALTY_SCALE:g}"]
    command = ["fit", "--data.table", out / "trials.parquet", "--out", fit, *COLUMNS, *model]
    command += ["--training.course", "standard", "--seed", given.seed, *given.flags]
    command += ["--data.held_out_every", given.held_out_every]
    command += ["--data.held_out_offset", given.held_out_every - 1]
    if not (fit / "report.html").exists():
        rows.append(run("fit", command, out / "fit.log"))
    if not subjects.exists():
        command = ["subjects", "--run", fit, "--out", subjects, "--known", out / "known.csv"]
        rows.append(run("subjects", command, out / "subjects.log"))
    adapted = (out / "new_trials.parquet").exists()
    if adapted and not (new / "metrics.json").exists():
        command = ["adapt", "--run", fit, "--data.table", out / "new_trials.parquet", "--out", new]
        rows.append(run("adapt", [*command, *COLUMNS], out / "adapt.log"))
    return rows, list(results(given, fit, subjects, new if adapted else None))


def results(given, fit, subjects, new):
    """Yield the rows of the result."""
    known = pd.read_csv(given.out / "known.csv").set_index("subject")["alpha"]
    truth = pd.read_csv(given.out / "truth.csv")[["session", "true_log_likelihood"]]
    metrics = json.loads((fit / "metrics.json").read_text())
    sessions = pd.read_csv(fit / "sessions.csv")
    for part in ("train", "held_out"):
        ours, true = gap(sessions[sessions["part"] == part], truth)
        yield (
            f"{part}: likelihood, true agents', gap",
            f"{ours:.5f}, {true:.5f}, {ours - true:+.5f}",
        )
        yield f"{part}: R2 of dopamine", f"{metrics[part]['dopamine']['r2']:.5f}"
    table = pd.read_csv(subjects / "embeddings.csv")
    names = [name for name in table if name.startswith("subject ") and name[8:].isdigit()]
    first, best = best_rank_correlation(table[names].to_numpy(), known[table["subject"]])
    yield "rank correlation of embeddings: first direction, best", f"{first:.4f}, {best:.4f}"
    yield (
        "open latents, dimensions",
        ", ".join(metrics["open_latents"] + metrics["open_embeddings"]),
    )
    into = {}
    for source, target in metrics["graph"]["edges"]:
        into.setdefault(target, []).append(source)
    yield "graph", "; ".join(f"{', '.join(own)} > {target}" for target, own in into.items())
    for phase, seconds in metrics["seconds"].items():
        yield f"wall seconds of fit, {phase}", f"{seconds:.1f}"
    for stage, steps in metrics["steps"].items():
        yield f"steps, {stage}", steps["taken"]
    if new is None:
        return
    sessions = pd.read_csv(new / "sessions.csv")
    sessions = sessions[sessions["part"] == "held_out"]
    for moment in ("before", "after"):
        ours, true = gap(sessions[sessions["moment"] == moment], truth)
        yield (
            f"new subjects {moment} adaptation: likelihood, true agents', gap",
            f"{ours:.5f}, {true:.5f}, {ours - true:+.5f}",
        )
    table = pd.read_csv(new / "subjects.csv")
    first, best = best_rank_correlation(table[names].to_numpy(), known[table["subject"]])
    yield "new subjects: rank correlation, first direction, best", f"{first:.4f}, {best:.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of tables and runs")
    parser.add_argument("--subjects", type=int, default=614)
    parser.add_argument("--new-subjects", type=int, default=60, help="of them, not in the fit")
    parser.add_argument("--sessions", type=int, default=40, help="of each subject")
    parser.add_argument("--trials", type=int, default=500, help="of each session")
    parser.add_argument("--held-out-every", type=int, default=10)
    parser.add_argument("--subject-units", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--simulate-only", action="store_true")
    parser.add_argument("flags", nargs="*", help="further flags of fit, after --")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    write_cohort(given)
    print(f"Wrote {given.subjects * given.sessions * given.trials:,} trials to {given.out}")
    print(f"in {time.process_time() - began:.1f} CPU seconds")
    if given.simulate_only:
        return
    rows, found = fit_and_score(given)
    for title, table in (
        ("commands", pd.DataFrame(rows)),
        ("result", pd.DataFrame(found, columns=["result", "value"])),
    ):
        lines = [list(table), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
        print(f"\n{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
