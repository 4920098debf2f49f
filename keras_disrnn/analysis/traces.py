"""What a model held and predicted, trial by trial: of a session, or beside a user's own table."""

import keras
import numpy as np
import pandas as pd

from keras_disrnn.analysis.bottlenecks import latent_names
from keras_disrnn.models.latents import predict_latents


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
    session = sessions.subset([index % sessions.n_sessions]).for_model(model)
    features = keras.ops.convert_to_tensor(session.features)
    outputs = {name: keras.ops.convert_to_numpy(output) for name, output in model(features).items()}
    outputs["latents"] = keras.ops.convert_to_numpy(model.compute_latents(features))
    return pd.DataFrame(_trials(session, outputs))


def add_predictions(table, sessions, model, *, batch_size=None):
    """A user's own table with what a model held and predicted, row for row.

    Args:
        table: The `pandas.DataFrame` that `sessions` were read from by `sessions_from_table`.
        sessions: `keras_disrnn.data.Sessions`: all of the table's, or a part such as the held-out
            ones; the rows of other sessions get NaN.
        model: A built `DisRNNModel`, or any Keras model from features to `{"choice": [S, R, arms]}`
            and perhaps `"dopamine": [S, R, K]`, or such a dict of arrays that it gave for
            `sessions.dataset()`, in which `"latents": [S, R, L]` are welcome too.
        batch_size: Sessions a batch; `None` for all at once.

    Returns:
        A copy of `table`, in its order and with its index, and the further columns

        - `choice_probability_0`, ...: probability of each arm before the choice.
        - `choice_likelihood`: of these the one of the choice that was made, forced ones included;
          NaN on missed trials.
        - `z1`, `z2`, ..., where the model has latents: from before the trial's outcome.
        - for each signal that the model predicts, `predicted_NAME` (NaN on missed trials) and
          `error_NAME`, the recorded value minus it (NaN where none was recorded).

    Raises:
        ValueError: If the sessions are not from a table of that length, the table has one of the
            columns already, or the outputs have other shapes.
    """
    if not isinstance(table, pd.DataFrame):
        raise ValueError(
            f"table: expected the DataFrame the sessions were read from, got {type(table).__name__}"
        )
    if sessions.rows is None:
        raise ValueError("sessions: expected sessions read from a table, got others")
    rows = np.concatenate(sessions.rows)
    if rows.max() >= len(table):
        raise ValueError(
            f"table: expected the table the sessions were read from, with more than {rows.max()} "
            f"rows, got {len(table)}"
        )
    outputs = model if isinstance(model, dict) else _outputs(model, sessions, batch_size)
    _check_outputs(outputs, sessions)
    told = _trials(sessions, outputs)
    probabilities = [name for name in told if name.startswith("choice_probability_")]
    new = {name: told[name] for name in probabilities}
    choice = told["choice"]
    made = np.nan_to_num(choice).astype(int)
    every = np.stack([told[name] for name in probabilities], axis=-1)
    likelihood = np.take_along_axis(every, made[:, None], axis=-1)[:, 0]
    new["choice_likelihood"] = np.where(np.isnan(choice), np.nan, likelihood)
    new |= {name: told[name] for name in told if name[:1] == "z" and name[1:].isdigit()}
    for name in sessions.signal_names if "dopamine" in outputs else ():
        new[f"predicted_{name}"] = told[f"predicted_{name}"]
        new[f"error_{name}"] = told[f"recorded_{name}"] - told[f"predicted_{name}"]
    taken = [name for name in new if name in table.columns]
    if taken:
        raise ValueError(
            f"table: has a column {taken[0]!r} already; rename it, or give the table without it"
        )
    columns = {}
    for name, values in new.items():
        columns[name] = np.full(len(table), np.nan)
        columns[name][rows] = values
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)


def _outputs(model, sessions, batch_size):
    sessions = sessions.for_model(model)
    outputs = dict(model.predict(sessions.dataset(batch_size), verbose=0))
    if hasattr(model, "compute_latents"):
        outputs["latents"] = predict_latents(model, sessions.features, batch_size or 256)
    return outputs


def _check_outputs(outputs, sessions):
    if "choice" not in outputs:
        raise ValueError(f"model: expected an output 'choice', got {', '.join(map(str, outputs))}")
    expected = {"choice": sessions.num_arms, "dopamine": sessions.num_signals, "latents": None}
    for name, width in expected.items():
        if name not in outputs:
            continue
        shape = np.shape(outputs[name])
        want = (*sessions.features.shape[:2], shape[-1] if width is None else width)
        if len(shape) != 3 or shape != want:
            raise ValueError(
                f"model: expected an output {name!r} of shape {want} for these sessions, got "
                f"{shape}"
            )


def _trials(sessions, outputs):
    """The columns of `compute_session_trace` for the trials of all sessions, one after the other.

    Args:
        sessions: S sessions of R rows.
        outputs: Arrays `[S, R, width]` under `"choice"` (logits), `"dopamine"`, `"latents"`; the
            last two may be absent.
    """
    lengths = sessions.trials_per_session
    session = np.repeat(np.arange(sessions.n_sessions), lengths)
    trial = np.concatenate([np.arange(length) for length in lengths])
    # Trial t is predicted from row t, and what happened in it stands in row t + 1.
    before, after = (session, trial), (session, trial + 1)
    happened = sessions.features[after]
    missed = np.isnan(happened).all(axis=-1)
    counted = sessions.choice_weight[before] > 0
    columns = {
        "session": np.asarray(sessions.ids, dtype=object)[session],
        "trial": trial,
        "kind": np.select([missed, ~counted], ["missed", "forced"], "free"),
        "choice": happened[:, 0],
        "reward": happened[:, 1],
    }
    logits = np.asarray(outputs["choice"])[before].astype(np.float64)
    exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probability = exponential / exponential.sum(axis=-1, keepdims=True)
    columns |= {
        f"choice_probability_{arm}": probability[:, arm] for arm in range(probability.shape[-1])
    }
    if "latents" in outputs:
        latents = np.asarray(outputs["latents"])[before]
        names = latent_names(latents.shape[-1])
        columns |= {name: latents[:, i] for i, name in enumerate(names)}
    if "dopamine" in outputs:
        predicted = np.asarray(outputs["dopamine"])[after]
        for signal, name in enumerate(sessions.signal_names):
            recorded = sessions.dopamine[after][:, signal]
            recorded_counts = sessions.dopamine_weight[after][:, signal] > 0
            columns[f"recorded_{name}"] = np.where(recorded_counts, recorded, np.nan)
            columns[f"predicted_{name}"] = np.where(missed, np.nan, predicted[:, signal])
    return columns
