"""Why a training diverged: which value is no longer finite, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_disrnn.data import Sessions
from keras_disrnn.models.disrnn_model import DisRNNModel

LARGE_PENALTY = 1e3
"""A penalty weight from which on the penalty, and not the learning rate, is named as the cause."""

LARGE_VALUE = 1e3
"""An observation or a dopamine response from which on the data are named as the cause."""


def name_cause(
    model: DisRNNModel, logs: Mapping[str, Any], sessions: Sessions | None = None
) -> str:
    """Name the values that are no longer finite, and what to change.

    Args:
        model: The model, with weights that are still finite.
        logs: The loss and the metrics of the step.
        sessions: The training sessions, or `None` if they are unknown.

    Returns:
        Two parts of a sentence: the values, and the advice.

    Example:
        >>> import keras_disrnn
        >>> from keras_disrnn.training.divergence import name_cause
        >>> model = keras_disrnn.DisRNNModel(num_latents=1, latent_penalty=1e38, seed=0)
        >>> name_cause(model, {"loss": float("inf"), "penalty_latent": float("inf")})
        'penalty_latent is inf; latent_penalty is 1e+38: lower it'
    """
    broken = {k: float(v) for k, v in logs.items() if k != "loss" and not np.isfinite(v)}
    values = ", ".join(f"{name} is {value:g}" for name, value in broken.items())
    return f"{values}; {_advice(model, sessions)}" if values else _advice(model, sessions)


def _advice(model: DisRNNModel, sessions: Sessions | None) -> str:
    weights = {
        name: getattr(model, name)
        for name, part in model._cost_groups().values()
        if model.penalised and part.trainable
    }
    largest = max(weights, key=lambda name: weights[name], default=None)
    if largest is not None and weights[largest] >= LARGE_PENALTY:
        return f"{largest} is {weights[largest]:g}: lower it"
    if sessions is not None:
        values = np.abs(np.nan_to_num(sessions.features)).max(axis=(0, 1), initial=0)
        names = sessions.observation_names
        reach = dict(zip(names, values[: len(names)].tolist(), strict=True))
        recorded = np.abs(np.where(sessions.dopamine_weight > 0, sessions.dopamine, 0.0))
        signals = recorded.max(axis=(0, 1), initial=0).tolist()
        reach |= dict(zip(sessions.signal_names, signals, strict=True))
        furthest = max(reach, key=lambda name: reach[name])
        if reach[furthest] >= LARGE_VALUE:
            return f"{furthest!r} reaches {reach[furthest]:g}: standardise it"
    optimizer = model.optimizer
    rate = None if optimizer is None else keras.ops.convert_to_numpy(optimizer.learning_rate)
    now = "" if rate is None else f" than {float(rate):g}"
    return f"try a smaller learning rate{now}"
