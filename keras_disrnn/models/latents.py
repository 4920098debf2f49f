"""Latents of many sessions, in batches."""

import keras
import numpy as np


def predict_latents(model, features, batch_size=256):
    """The noiseless latents after each row, batch by batch.

    Args:
        model: A `DisRNNModel`.
        features: `(sessions, rows, observations)`.
        batch_size: Sessions at a time.

    Returns:
        An array `(sessions, rows, latents)`.
    """
    batches = [
        keras.ops.convert_to_numpy(model.compute_latents(features[start : start + batch_size]))
        for start in range(0, len(features), batch_size)
    ]
    return np.concatenate(batches)
