"""Measure whether fits of the cognitive models find the parameters that agents played with.

    python benchmarks/parameter_recovery.py --out parameter_recovery.md [--models DFQ belief]

For each model, parameters are drawn from plausible ranges, an agent with them plays, and the model
is fitted to its sessions from several starts. The table has, for each parameter, the correlation of
true and fitted values over the draws, the median absolute error, and how often the 95% interval
contains the truth. `--targets joint` fits choice and dopamine with noise of the size of the signal.
"""

import argparse
import time

import numpy as np

RATE, SLOPE = (0.1, 0.9), (1.0, 6.0)
PLAUSIBLE = {
    "Q": {"alpha": RATE, "kappa_1": (0.5, 3.0), "kappa_2": (0.5, 3.0)},
    "FQ": {"alpha": RATE, "kappa_1": (0.5, 3.0), "kappa_2": (-0.5, 1.5)},
    "DFQ": {"alpha_1": RATE, "alpha_2": (0.05, 0.6), "kappa_1": (1, 3), "kappa_2": (-0.5, 1.5)},
    "actor-critic": {"alpha_critic": RATE, "learn": (0.3, 2.0), "forget": (0.01, 0.3)},
    "two-rate Q": {"alpha_reward": RATE, "alpha_omission": RATE, "beta": SLOPE},
    "kernel Q": {"alpha": RATE, "beta": SLOPE, "alpha_kernel": RATE, "beta_kernel": (-2.0, 3.0)},
    "fast-slow Q": {
        "alpha_fast": (0.4, 0.9),
        "alpha_slow": (0.02, 0.2),
        "weight": (0.3, 0.7),
        "beta": (3.0, 8.0),
    },
    "biased DFQ": {
        "alpha_1": RATE,
        "alpha_2": (0.05, 0.6),
        "kappa_1": (1, 3),
        "kappa_2": (-0.5, 1.5),
        "bias": (-1.0, 1.0),
    },
    "belief": {"p_high": (0.6, 0.9), "p_low": (0.1, 0.4), "hazard": (0.01, 0.2), "beta": SLOPE},
    "logistic": {"stickiness": (-1.0, 1.5), "evidence": (0.5, 2.5), "tau": (0.7, 5.0)},
    "threshold": {"alpha": RATE, "threshold": (0.2, 0.7), "beta": (2.0, 10.0)},
    "WSLS": {"stay": (0.55, 0.97), "shift": (0.1, 0.9)},
}
"""The ranges of the draws, by the name of the model in `keras-disrnn compare`."""


def recover(name, given):
    """Return the true and the fitted parameters of each draw, and whether intervals hold them."""
    from keras_disrnn import bandit
    from keras_disrnn.data import Sessions
    from keras_disrnn.experiments.comparison_plan import COGNITIVE

    kind, ranges = COGNITIVE[name], PLAUSIBLE[name]
    true, found, inside, agree = [], [], [], []
    for draw in range(given.draws):
        seed = given.seed + draw
        rng = np.random.default_rng(seed)
        values = {key: rng.uniform(*ranges[key]) for key in kind.parameter_names()}
        played = bandit.simulate(
            kind(**values).agent(),
            bandit.BlockBandit(),
            num_sessions=given.sessions,
            num_trials=given.trials,
            seed=seed,
        )
        noise = played.dopamine.std() * rng.normal(size=played.dopamine.shape)
        sessions = Sessions.from_trials(
            played.choice, played.reward, dopamine=played.dopamine + noise
        )
        fit = kind().fit_sessions(sessions, given.targets, starts=given.starts, seed=seed)
        table = fit.estimates.set_index("parameter").loc[list(values)]
        truth = np.array(list(values.values()))
        true.append(truth)
        found.append(table["estimate"])
        inside.append(
            np.where(
                table["se"].isna(), np.nan, (table["lower"] < truth) & (truth < table["upper"])
            )
        )
        agree.append(sum(loss < fit.loss + 0.01 for loss in fit.start_losses) / given.starts)
    return np.array(true), np.array(found), np.array(inside, float), float(np.mean(agree))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(PLAUSIBLE), choices=list(PLAUSIBLE))
    parser.add_argument("--targets", default="choice", choices=["choice", "joint"])
    parser.add_argument("--draws", type=int, default=20, help="number of agents of each model")
    parser.add_argument("--sessions", type=int, default=16, help="sessions of each agent")
    parser.add_argument("--trials", type=int, default=300, help="trials of each session")
    parser.add_argument("--starts", type=int, default=4, help="random starts of each fit")
    parser.add_argument("--seed", type=int, default=5000, help="seed of the first draw")
    parser.add_argument("--out", help="file for the table, in Markdown")
    given = parser.parse_args()
    if given.draws < 3:
        raise SystemExit("--draws: expected at least 3, for a correlation, got fewer")

    from keras_disrnn.utils.files import write_text

    lines = [
        f"{given.draws} agents of each model, {given.sessions} sessions of {given.trials} trials, "
        f"fitted to {given.targets} from {given.starts} starts, seeds from {given.seed}.",
        "",
        "| model | parameter | range | correlation | median error | in interval | starts agree |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for name in given.models:
        began = time.process_time()
        true, found, inside, agree = recover(name, given)
        for index, (parameter, (low, high)) in enumerate(PLAUSIBLE[name].items()):
            known = np.isfinite(inside[:, index])
            held = f"{inside[known, index].sum():.0f} of {known.sum()}"
            correlation = np.corrcoef(true[:, index], found[:, index])[0, 1]
            error = np.median(np.abs(true[:, index] - found[:, index]))
            lines.append(
                f"| {name} | `{parameter}` | {low:g} to {high:g} | {correlation:.2f} | "
                f"{error:.3f} | {held} | {agree:.0%} |"
            )
        print(f"{name}: {time.process_time() - began:.0f} CPU seconds", flush=True)
        if given.out:
            write_text(given.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
