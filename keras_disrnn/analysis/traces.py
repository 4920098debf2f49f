"""One session, trial by trial, as a model sees it."""

import keras
import numpy as np
import pandas as pd

from keras_disrnn.analysis.bottlenecks import latent_names


def compute_session_trace(model, sessions, index):
    """What happened and what a model held and predicted at each trial of one session.

    Args:
        model: A built `DisRNNModel`.
        sessions: `keras_disrnn.data.Sessions`.
        index: Which session, from 0; negative values count from the last.

    Returns:
        A `pandas.DataFrame` with one row a trial and the columns

        - `session`, `trial` (from 0).
        - `kind`: `"free"`, `"forced"` (instructed: an input, not a target) or `"missed"`.
        - `choice`, `reward`: NaN on missed trials.
        - `choice_probability_0`, ...: probability of each arm before the choice.
        - `z1`, `z2`, ...: the latents that this prediction reads, from before the trial's outcome.
        - with a dopamine readout, for each signal `recorded_NAME` (NaN where it does not count) and
          `predicted_NAME` (NaN on missed trials).

    Raises:
        IndexError: If there is no such session.
    """
    if not -sessions.n_sessions <= index < sessions.n_sessions:
        raise IndexError(
            f"index: expected a session from 0 to {sessions.n_sessions - 1}, got {index}"
        )
    session = sessions.subset([index % sessions.n_sessions])
    trials = int(session.trials_per_session[0])
    features = keras.ops.convert_to_tensor(session.features)
    outputs = {
        name: keras.ops.convert_to_numpy(output)[0] for name, output in model(features).items()
    }
    latents = keras.ops.convert_to_numpy(model.latents(features))[0]
    # Trial t is predicted from row t, and what happened in it stands in row t + 1.
    before, after = slice(0, trials), slice(1, trials + 1)
    happened = session.features[0, after]
    missed = np.isnan(happened).all(axis=-1)
    counted = session.choice_weight[0, before] > 0
    columns = {
        "session": session.ids[0],
        "trial": np.arange(trials),
        "kind": np.select([missed, ~counted], ["missed", "forced"], "free"),
        "choice": happened[:, 0],
        "reward": happened[:, 1],
    }
    logits = outputs["choice"][before].astype(np.float64)
    exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probability = exponential / exponential.sum(axis=-1, keepdims=True)
    columns |= {
        f"choice_probability_{arm}": probability[:, arm] for arm in range(probability.shape[-1])
    }
    names = latent_names(latents.shape[-1])
    columns |= {name: latents[before, i] for i, name in enumerate(names)}
    if "dopamine" in outputs:
        for signal, name in enumerate(session.signal_names):
            recorded = session.dopamine[0, after, signal]
            recorded_counts = session.dopamine_weight[0, after, signal] > 0
            columns[f"recorded_{name}"] = np.where(recorded_counts, recorded, np.nan)
            predicted = outputs["dopamine"][after, signal]
            columns[f"predicted_{name}"] = np.where(missed, np.nan, predicted)
    return pd.DataFrame(columns)
