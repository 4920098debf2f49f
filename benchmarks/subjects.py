"""Write tables of Q-learners with many learning rates, for a model of several subjects.

    python benchmarks/subjects.py --out FOLDER

The program writes `trials.csv`, `new_trials.csv` (subjects that the model must not see in training)
and `known.csv` (the learning rate of each subject). docs/subjects.md describes their use.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from keras_disrnn import bandit


def play(names, alphas, sessions, trials, seed):
    """Return one table of all subjects, and their learning rates."""
    tables = []
    for number, (name, alpha) in enumerate(zip(names, alphas, strict=True)):
        played = bandit.simulate(
            bandit.QLearning(alpha=float(alpha)),
            bandit.DriftingBandit(),
            num_sessions=sessions,
            num_trials=trials,
            seed=seed + number,
        )
        table = played.to_table().assign(subject=name)
        table["session"] = name + "-" + table["session"]
        tables.append(table)
    return pd.concat(tables, ignore_index=True), pd.DataFrame({"subject": names, "alpha": alphas})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of the tables")
    parser.add_argument("--subjects", type=int, default=24)
    parser.add_argument("--new-subjects", type=int, default=8)
    parser.add_argument("--sessions", type=int, default=30, help="of each subject")
    parser.add_argument("--trials", type=int, default=200, help="of each session")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(given.seed)
    facts = []
    for kind, count, file in (
        ("q", given.subjects, "trials.csv"),
        ("new", given.new_subjects, "new_trials.csv"),
    ):
        # In random order, so that the number of a subject says nothing about its rate.
        alphas = rng.permutation(np.linspace(0.1, 0.9, count)).round(3)
        names = [f"{kind}{index:02d}" for index in range(count)]
        seed = 1000 * given.seed + (0 if kind == "q" else 500)
        table, known = play(names, alphas, given.sessions, given.trials, seed)
        table.to_csv(given.out / file, index=False)
        facts.append(known)
    pd.concat(facts).to_csv(given.out / "known.csv", index=False)


if __name__ == "__main__":
    main()
