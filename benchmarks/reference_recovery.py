"""Count how often the authors' package recovers known agents, with its settings, on our seeds.

    python benchmarks/reference_recovery.py --reference-python PYTHON --agent q_learning \
        --sessions 100 --trials 100 --seeds 3 --out runs/reference

The sessions of each seed are those of `keras-disrnn recover`. The reference trains as in its own
example, on choices only: 1,000 steps of warm-up without noise and penalties, then penalties of 1e-2
on latents and 1e-3 elsewhere, Adam at 1e-3, all sessions at each step. `keras_disrnn.io.reference`
reads its parameters, and the program compares them with the agent as it compares ours, without
dopamine. PYTHON has `disentangled-rnns`. Without `--reference-python`, this package trains with the
same settings and stages, in a tenth of the time. Then the draws differ, and gradients are clipped
before Adam instead of after. Seeds that are in the folder are not fitted again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

CONFIG = {
    "obs_size": 2,
    "output_size": 2,
    "latent_size": 5,
    "update_net_n_units_per_layer": 8,
    "update_net_n_layers": 4,
    "choice_net_n_units_per_layer": 4,
    "choice_net_n_layers": 2,
    "latent_penalty": 1e-2,
    "update_net_obs_penalty": 1e-3,
    "update_net_latent_penalty": 1e-3,
    "choice_net_latent_penalty": 1e-3,
    "l2_scale": 1e-5,
    "activation": "leaky_relu",
    "max_latent_value": 2.0,
}
"""Settings of the reference's example."""


def fit_reference(source, target, warmup, steps, seed):
    """Train in the reference's own environment, and write the parameters."""
    import dataclasses

    import jax
    import optax
    from disentangled_rnns.library import disrnn, rnn_utils

    with np.load(source) as arrays:
        data = rnn_utils.DatasetRNNCategorical(
            arrays["features"].swapaxes(0, 1),
            arrays["choice"].swapaxes(0, 1)[..., None],
            n_classes=2,
            batch_mode="single",
        )
    config = disrnn.DisRnnConfig(**CONFIG)
    free = {name: 0.0 for name in CONFIG if name.endswith("_penalty")}
    calm = dataclasses.replace(config, noiseless_mode=True, **free)
    params = None
    for stage, settings, count in (("warm-up", calm, warmup), ("penalised", config, steps)):
        # As in its example, each stage has its own optimizer.
        params, _, _ = rnn_utils.train_network(
            lambda settings=settings: disrnn.HkDisentangledRNN(settings),
            data,
            None,
            opt=optax.adam(1e-3),
            random_key=jax.random.PRNGKey(seed),
            params=params,
            loss="penalized_categorical",
            loss_param=1.0,
            n_steps=count,
            report_progress_by="none",
        )
        print(stage, "done", flush=True)
    flat = {
        f"{module}|{name}": np.asarray(array)
        for module, arrays in params.items()
        for name, array in arrays.items()
    }
    np.savez(target, **flat)


def fit_here(sessions, warmup, steps, seed):
    """Train a model of this package in the same way."""
    from keras_disrnn import DisRNNModel, train

    # The other settings of the example are this package's defaults.
    model = DisRNNModel(latent_penalty=CONFIG["latent_penalty"], seed=seed)
    train(
        model,
        sessions,
        warmup_steps=warmup,
        stage1_steps=steps,
        stage2_steps=0,
        learning_rate=1e-3,
        settle_steps=0,
        seed=seed,
        verbose=0,
    )
    return model


def fit_there(python, sessions, fitted, warmup, steps, seed):
    """Let the reference train in its own process, and read its parameters."""
    from keras_disrnn.io.reference import from_haiku

    source = fitted.with_name(f"{fitted.stem}-data.npz")
    choice = np.where(sessions.choice_weight > 0, sessions.choice, -1)
    np.savez(source, features=sessions.features, choice=choice)
    command = [python, __file__, "--fit", source, fitted, str(seed)]
    command += ["--warmup", str(warmup), "--steps", str(steps)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    source.unlink()
    params = {}
    with np.load(fitted) as arrays:
        for key in arrays.files:
            module, name = key.split("|")
            params.setdefault(module, {})[name] = arrays[key]
    return from_haiku(params, {**CONFIG, "noiseless_mode": False})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference-python")
    parser.add_argument("--agent", default="q_learning")
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", default="runs/reference_recovery")
    parser.add_argument("--fit", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fit:
        source, target, seed = given.fit
        fit_reference(source, target, given.warmup, given.steps, int(seed))
        return
    import pandas as pd

    from keras_disrnn.experiments.data import simulate_data
    from keras_disrnn.experiments.recovery import compute_recovery
    from keras_disrnn.experiments.settings import SyntheticData

    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    data = SyntheticData(num_sessions=given.sessions, num_trials=given.trials, agent=given.agent)
    rows = []
    for seed in range(given.seeds):
        stem = "reference" if given.reference_python else "here"
        stem += f"-{given.agent}-{given.sessions}x{given.trials}"
        stem += f"-{given.warmup}-{given.steps}-{seed}"
        fitted, result = out / f"{stem}.npz", out / f"{stem}.json"
        if not result.exists():
            began = time.monotonic()
            parts = simulate_data(data, seed)
            course = (given.warmup, given.steps, seed)
            if given.reference_python:
                model = fit_there(given.reference_python, parts["train"][0], fitted, *course)
            else:
                model = fit_here(parts["train"][0], *course)
            held_out, played = parts["held_out"]
            row = compute_recovery(model, data.make_agent(), sessions=held_out, played=played)
            # No dopamine readout was trained, so only the graph of choice counts.
            row = {"seed": seed, **row, "seconds": time.monotonic() - began}
            result.write_text(json.dumps(row, indent=2))
        rows.append(json.loads(result.read_text()))
        print({name: rows[-1][name] for name in ("seed", "choice_graph", "found", "difference")})
    table = pd.DataFrame(rows)
    print(
        f"{given.agent}, {given.sessions} x {given.trials}: graph on "
        f"{int(table['choice_graph'].sum())} of {len(table)} seeds, likelihood "
        f"{table['difference'].mean():+.5f} on average"
    )


if __name__ == "__main__":
    main()
