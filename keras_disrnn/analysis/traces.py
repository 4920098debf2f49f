"""The latents and predictions of a model, trial by trial: of a session, or in a user's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_disrnn.analysis.arrays import softmax, to_numpy, to_tensor
from keras_disrnn.analysis.bottlenecks import is_latent, latent_names
from keras_disrnn.analysis.predictions import without_untrained
from keras_disrnn.data.rows import find_rows
from keras_disrnn.models.latents import predict_latents

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.models.disrnn_model import DisRNNModel


def compute_session_trace(model: DisRNNModel, sessions: Sessions, index: int) -> pd.DataFrame:
    """Tabulates the trials of one session, with the latents and predictions of a model.

    Args:
        model: A built `DisRNNModel`.
        sessions: The sessions.
        index: Which session, from 0; negative values count from the last.

    Returns:
        A table with one row for each trial and the columns

        - `session`, `trial` (from 0).
        - `kind`: `"free"`, `"forced"` (an input, but not a target) or `"missed"`.
        - `choice`, `reward`: NaN on missed trials.
        - `choice_probability_0`, ...: probability of each arm before the choice.
        - `z1`, `z2`, ...: the latents that this prediction reads, from before the outcome.
        - with a trained dopamine readout, for each signal `recorded_NAME` (NaN if it has no
          weight) and `predicted_NAME` (NaN on missed trials).

    Raises:
        IndexError: If there is no such session.
        ValueError: If the choice readout was never trained.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_session_trace
    >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1, 1]], [[1, 0, 1]])
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> compute_session_trace(model, sessions, 0)["choice"].tolist()
    [0.0, 1.0, 1.0]
    """
    if not -sessions.num_sessions <= index < sessions.num_sessions:
        raise IndexError(
            f"index: expected a session from 0 to {sessions.num_sessions - 1}, got {index}"
        )
    session = sessions.subset([index % sessions.num_sessions]).for_model(model)
    features = to_tensor(session.features)
    outputs = without_untrained(
        model, {name: to_numpy(output) for name, output in model(features).items()}
    )
    outputs["latents"] = to_numpy(model.compute_latents(features))
    _check_outputs(outputs, session)
    return pd.DataFrame(_trials(session, outputs))


def add_predictions(
    table: pd.DataFrame, sessions: Sessions, model: Any, *, batch_size: int | None = None
) -> pd.DataFrame:
    """Adds the latents and predictions of a model to a user's own table.

    Args:
        table: The table that `sessions` were read from with `sessions_from_table`. If it was
            sorted since, its index tells where the rows belong.
        sessions: All sessions of the table, or a part such as the held-out ones. Rows of other
            sessions get NaN.
        model: A built `DisRNNModel`, or any Keras model from features to
            `{"choice": [S, T, arms], "dopamine": [S, T, K]}`, of which `"dopamine"` is optional. Or
            the outputs of such a model for `sessions.dataset()`, as a dict of arrays, which may
            also have `"latents"` `[S, T, L]`.
        batch_size: Sessions in a batch; `None` for all in one.

    Returns:
        A copy of `table`, with its order and index, and these further columns:

        - `choice_probability_0`, ...: probability of each arm before the choice.
        - `choice_likelihood`: probability of the choice that was made, also if it was forced; NaN
          on missed trials.
        - `z1`, `z2`, ...: the latents, if the model has any, from before the outcome.
        - for each signal that the model predicts, `predicted_NAME` (NaN on missed trials) and
          `error_NAME`: the recorded value minus the prediction (NaN if none was recorded).

    Raises:
        ValueError: If the sessions are not from that table, the table already has one of the
            columns, or the outputs have other shapes.

    Example:

    >>> import keras_disrnn
    >>> import pandas as pd
    >>> from keras_disrnn.analysis import add_predictions
    >>> table = pd.DataFrame(
    ...     {"subject": "m1", "session": 1, "choice": [0, 1, 1], "reward": [1, 0, 1]}
    ... )
    >>> sessions = keras_disrnn.data.sessions_from_table(table)
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> add_predictions(table, sessions, model).shape
    (3, 8)
    """
    if not isinstance(table, pd.DataFrame):
        raise ValueError(
            f"table: expected the DataFrame the sessions were read from, got {type(table).__name__}"
        )
    rows = np.concatenate(find_rows("table", table, sessions))
    outputs = model if isinstance(model, dict) else _outputs(model, sessions, batch_size)
    _check_outputs(outputs, sessions)
    trials = _trials(sessions, outputs)
    new = {name: trials[name] for name in trials if name.startswith("choice_probability_")}
    choice = trials["choice"]
    made = np.nan_to_num(choice).astype(int)
    likelihood = np.stack(list(new.values()))[made, np.arange(len(made))]
    new["choice_likelihood"] = np.where(np.isnan(choice), np.nan, likelihood)
    new |= {name: trials[name] for name in trials if is_latent(name)}
    for name in sessions.signal_names if "dopamine" in outputs else ():
        new[f"predicted_{name}"] = trials[f"predicted_{name}"]
        new[f"error_{name}"] = trials[f"recorded_{name}"] - trials[f"predicted_{name}"]
    taken = [name for name in new if name in table.columns]
    if taken:
        raise ValueError(
            f"table: expected no column {taken[0]!r}, got one; rename it, or pass the table "
            "without it"
        )
    found = pd.DataFrame(new, index=rows, dtype=np.float64).reindex(range(len(table)))
    return pd.concat([table, found.set_axis(table.index)], axis=1)


def _outputs(model: Any, sessions: Sessions, batch_size: int | None) -> dict[str, np.ndarray]:
    sessions = sessions.for_model(model)
    outputs = without_untrained(model, model.predict(sessions.dataset(batch_size), verbose=0))
    if hasattr(model, "compute_latents"):
        outputs["latents"] = predict_latents(model, sessions.features, batch_size or 256)
    return outputs


def _check_outputs(outputs: Mapping[str, np.ndarray], sessions: Sessions) -> None:
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


def _trials(sessions: Sessions, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Computes the columns of `compute_session_trace` for all trials of all sessions, in order.

    Args:
        sessions: S sessions of T time steps.
        outputs: Arrays `[S, T, width]`: `"choice"` (logits) and, optionally, `"dopamine"` and
            `"latents"`.
    """
    lengths = sessions.trials_per_session
    session = np.repeat(np.arange(sessions.num_sessions), lengths)
    trial = np.concatenate([np.arange(length) for length in lengths])
    # Time step t predicts trial t, and time step t + 1 describes what happened in it.
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
    probability = softmax(np.asarray(outputs["choice"])[before])
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
