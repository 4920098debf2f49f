"""Measure what `settle_steps` saves and costs, on agents with a known graph.

    python benchmarks/settling.py --agents q_learning reward_seeking --seeds 6

For each agent and seed, the program trains one model as `keras-disrnn fit` does, with every step.
It records where each window would have ended a stage, and the weights at that step. It compares
these weights and the last ones with the agent, as `keras-disrnn recover` does: graph and held-out
likelihood after stage 1, graph and dopamine R^2 after stage 2. Fits that are in the folder are not
repeated.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pandas as pd


def make_watch(windows, steps_per_epoch):
    """Return a callback that records where each window would end a stage, and the weights."""
    from keras_disrnn.training.courses import COURSES
    from keras_disrnn.training.settling import has_settled, trained_sigmas

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.ends, self._losses, self._sigmas = {}, [], []

        def on_epoch_end(self, epoch, logs=None):
            self._losses.append(logs["loss"])
            self._sigmas.append(trained_sigmas(self.model))
            for window in set(windows) - set(self.ends):
                epochs = window // steps_per_epoch
                if len(self._losses) > epochs and has_settled(
                    self._losses[-epochs:],
                    self._sigmas[-epochs - 1 :],
                    settle_loss=COURSES["reference"].settle_loss,
                    settle_sigma=COURSES["reference"].settle_sigma,
                ):
                    self.ends[window] = (epoch + 1) * steps_per_epoch, self.model.get_weights()

    return Watch()


def fit(data, seed, given):
    """Return the rows of one seed: each stage after each window, and after all steps."""
    from keras_disrnn import DisRNNModel, train
    from keras_disrnn.experiments.data import simulate_data
    from keras_disrnn.experiments.recovery import compute_recovery

    parts = simulate_data(data, seed)
    model = DisRNNModel(seed=seed)
    rows = []
    for stage, before in (("stage1", given.warmup), ("stage2", 0)):
        watch = make_watch(given.windows, steps_per_epoch=100)
        counts = dict.fromkeys(("stage1_steps", "stage2_steps"), 0)
        train(
            model,
            parts["train"][0],
            **{**counts, "warmup_steps": before, f"{stage}_steps": given.steps},
            settle_steps=0,
            seed=seed,
            callbacks=[watch],
            verbose=0,
        )
        ends = {"all steps": (given.steps, model.get_weights())}
        ends |= {window: watch.ends.get(window, ends["all steps"]) for window in given.windows}
        for window, (end, weights) in ends.items():
            model.set_weights(weights)
            held_out, played = parts["held_out"]
            found = compute_recovery(model, data.make_agent(), sessions=held_out, played=played)
            # Before stage 2, the dopamine readout is untrained.
            names = (
                {"graph": "choice_graph", "score": "difference"}
                if stage == "stage1"
                else {"graph": "graph", "score": "dopamine_r2"}
            )
            kept = {name: found[value] for name, value in names.items()}
            kept |= {"stage": stage, "window": str(window), "seed": seed, "steps": end}
            rows.append(kept | {"found": found["found"]})
        model.set_weights(ends["all steps"][1])
    return rows


def print_table(table, agent, given):
    print(
        f"\n{agent}, {given.sessions} x {given.trials}, {given.seeds} seeds\n\nstage | window | "
        "steps, mean (fewest to most) | steps saved | graph found | the graph of all steps | "
        "likelihood (stage 1) or dopamine R^2 (stage 2) minus that of all steps, mean (worst)\n"
        + "---|" * 6
        + "---"
    )
    for (stage, window), found in table.groupby(["stage", "window"], sort=False):
        found = found.set_index("seed")
        whole = table[(table["stage"] == stage) & (table["window"] == "all steps")]
        whole = whole.set_index("seed")
        lost = found["score"] - whole["score"]
        print(
            f"{stage} | {window} | {found['steps'].mean():.0f} ({found['steps'].min()} to "
            f"{found['steps'].max()}) | {1 - found['steps'].mean() / given.steps:.0%} | "
            f"{found['graph'].sum()} of {len(found)} | "
            f"{(found['found'] == whole['found']).sum()} of {len(found)} | "
            f"{lost.mean():+.5f} ({lost.min():+.5f})",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="+", default=["q_learning"])
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=9000, help="of each stage")
    parser.add_argument("--windows", nargs="+", type=int, default=[500, 1000])
    parser.add_argument("--out", default="runs/settling")
    given = parser.parse_args()

    from keras_disrnn.experiments.settings import SyntheticData
    from keras_disrnn.utils.files import write_text

    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    settings = f"{given.sessions}x{given.trials}-{given.warmup}-{given.steps}"
    settings += "".join(f"-{window}" for window in given.windows)
    for agent in given.agents:
        rows = []
        for seed in range(given.seeds):
            file = out / f"{agent}-{settings}-{seed}.json"
            if not file.exists():
                data = SyntheticData(
                    num_sessions=given.sessions, num_trials=given.trials, agent=agent
                )
                made = fit(data, seed, given)
                write_text(file, json.dumps(made, indent=2))
            rows += json.loads(file.read_text())
        print_table(pd.DataFrame(rows), agent, given)


if __name__ == "__main__":
    main()
