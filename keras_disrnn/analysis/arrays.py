"""Arithmetic and conversions that the analyses share."""

from __future__ import annotations

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from keras_disrnn.utils.types import Tensor


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Converts a tensor of the backend to a float64 array."""
    # Keras is imported late, so that figures of stored tables do not load it.
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float64)


def to_tensor(array: ArrayLike) -> Tensor:
    """Converts an array to a float32 tensor of the backend."""
    import keras

    return keras.ops.convert_to_tensor(np.asarray(array, np.float32))


def divide(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """Divides with broadcasting; the quotient is NaN where the denominator is not above 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def log_softmax(logits: ArrayLike) -> np.ndarray:
    """Computes log probabilities over the last axis, in float64 and without overflow."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: ArrayLike) -> np.ndarray:
    """Computes probabilities over the last axis, in float64 and without overflow."""
    return scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)
