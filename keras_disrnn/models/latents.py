"""Latents of many sessions, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_disrnn.utils.memory import empty_aligned

if TYPE_CHECKING:
    from keras_disrnn.models.disrnn_model import DisRNNModel


def predict_latents(model: DisRNNModel, features: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Compute the latents after each time step without noise, batch by batch.

    Args:
        model: A `DisRNNModel`.
        features: `(sessions, time steps, observations)`.
        batch_size: Number of sessions in a batch.

    Returns:
        An array `(sessions, time steps, latents)`.

    Raises:
        ValueError: If the features are no real numbers, or of no session.

    Example:
        >>> import keras_disrnn
        >>> import numpy as np
        >>> from keras_disrnn.models.latents import predict_latents
        >>> model = keras_disrnn.DisRNNModel(num_latents=3, seed=0)
        >>> predict_latents(model, np.zeros((5, 11, 2), "float32"), batch_size=2).shape
        (5, 11, 3)
    """
    features = np.asarray(features)
    if features.dtype.kind not in "fiub":
        raise ValueError(f"features: expected real numbers, got the type {features.dtype}")
    found: np.ndarray | None = None
    for start in range(0, len(features), batch_size):
        part = slice(start, start + batch_size)
        latents = keras.ops.convert_to_numpy(model.compute_latents(features[part]))
        if found is None:
            found = empty_aligned((len(features), *latents.shape[1:]), latents.dtype)
        found[part] = latents
    if found is None:
        raise ValueError("features: expected at least one session, got none")
    return found
