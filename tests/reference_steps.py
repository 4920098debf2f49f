"""Steps of `test_exchange` in an interpreter with the authors' package, `disentangled-rnns`.

    python reference_steps.py train {plain,neural,multisubject} FOLDER
    python reference_steps.py score {plain,neural,multisubject} FOLDER

`train` takes a few steps on random sessions and writes the sessions and the outputs. It writes the
parameters and the configuration as users of that package do: as JSON, and as pickles of NumPy and
of JAX arrays. `score` reads FOLDER/back as they would and writes the outputs.
"""

import dataclasses
import json
import pickle
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from disentangled_rnns.library import disrnn, multisubject_disrnn, neuro_disrnn, rnn_utils

KINDS = {
    "plain": (disrnn.DisRnnConfig, disrnn.HkDisentangledRNN, "penalized_categorical"),
    "neural": (
        neuro_disrnn.DisRnnWNeuralActivityConfig,
        neuro_disrnn.HkNeuroDisentangledRNN,
        "penalized_hybrid",
    ),
    "multisubject": (
        multisubject_disrnn.MultisubjectDisRnnConfig,
        multisubject_disrnn.MultisubjectDisRnn,
        "penalized_categorical",
    ),
}
SUBJECTS = {"max_n_subjects": 3, "subject_embedding_size": 2, "update_net_subj_penalty": 1e-3}
SESSIONS, ROWS = 12, 25


def outputs(network, config, params, features):
    config = dataclasses.replace(config, noiseless_mode=True)
    found, _ = rnn_utils.eval_network(lambda: network(config), params, np.swapaxes(features, 0, 1))
    found = np.swapaxes(np.asarray(found), 0, 1)
    arrays = {"choice_logits": found[..., :2]}
    return arrays | ({"dopamine": found[..., 2]} if found.shape[-1] > 3 else {})


def train(kind, folder):
    make_config, network, loss = KINDS[kind]
    rng = np.random.default_rng(0)
    features = rng.integers(0, 2, (SESSIONS, ROWS, 2)).astype("float32")
    features[:, 0] = 0
    choices = rng.integers(0, 2, (SESSIONS, ROWS, 1))
    choices[:, -1] = -1
    responses = rng.normal(size=choices.shape).astype("float32")
    more = {}
    if kind == "multisubject":
        more = SUBJECTS
        subjects = np.arange(SESSIONS)[:, None, None] % SUBJECTS["max_n_subjects"]
        subjects = np.broadcast_to(subjects, (SESSIONS, ROWS, 1))
        features = np.concatenate([subjects, features], axis=-1).astype("float32")
    neural = kind == "neural"
    targets = np.concatenate([choices, responses], axis=-1) if neural else choices
    make_data = rnn_utils.DatasetRNNMixed if neural else rnn_utils.DatasetRNNCategorical
    data = make_data(
        xs=np.swapaxes(features, 0, 1),
        ys=np.swapaxes(targets, 0, 1),
        x_names=[*(["Subject ID"] if more else []), "choice", "reward"],
        batch_mode="single",
    )
    config = make_config(
        obs_size=2,
        output_size=2,
        latent_size=3,
        update_net_n_units_per_layer=8,
        update_net_n_layers=2,
        choice_net_n_units_per_layer=4,
        choice_net_n_layers=2,
        latent_penalty=1e-3,
        update_net_obs_penalty=1e-3,
        update_net_latent_penalty=1e-3,
        choice_net_latent_penalty=1e-3,
        l2_scale=1e-5,
        x_names=data.x_names,
        y_names=data.y_names,
        **more,
    )
    params, _, _ = rnn_utils.train_network(
        lambda: network(config),
        data,
        None,
        opt=optax.adam(1e-3),
        random_key=jax.random.PRNGKey(0),
        loss=loss,
        n_steps=5,
        report_progress_by="none",
    )
    fields = dataclasses.asdict(config)
    (folder / "params.json").write_text(json.dumps(params, cls=rnn_utils.NpJnpJsonEncoder))
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "params.jax.pkl").write_bytes(pickle.dumps(params))
    (folder / "params.pkl").write_bytes(pickle.dumps(jax.tree.map(np.asarray, params)))
    (folder / "config.pkl").write_bytes(pickle.dumps(config))
    np.savez(
        folder / "data.npz",
        features=features,
        choices=choices[..., 0],
        responses=responses,
        **outputs(network, config, params, features),
    )


def score(kind, folder):
    make_config, network, _ = KINDS[kind]
    params = rnn_utils.to_np(json.loads((folder / "back" / "params.json").read_text()))
    config = make_config(**json.loads((folder / "back" / "config.json").read_text()))
    features = np.load(folder / "data.npz")["features"]
    np.savez(folder / "scored.npz", **outputs(network, config, params, features))


if __name__ == "__main__":
    {"train": train, "score": score}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
