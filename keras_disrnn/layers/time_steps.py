"""Padding and previous latents: what layers and models do with the time steps of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import ops

from keras_disrnn.utils.types import Tensor

_FEW = 8
"""Up to this number of observations, separate operations are faster than a reduction."""


def find_real_time_steps(features: Tensor) -> Tensor:
    """Find the time steps that are not padding.

    Args:
        features: `(..., observations)`. A time step is padding if all of its features are NaN.

    Returns:
        A boolean tensor `(...)`.
    """
    missing = ops.isnan(features)
    count = features.shape[-1]
    if count is None or not 1 <= count <= _FEW:
        return ops.logical_not(ops.all(missing, axis=-1))
    # A reduction over so short an axis takes TensorFlow much longer.
    nothing = missing[..., 0]
    for index in range(1, count):
        nothing = ops.logical_and(nothing, missing[..., index])
    return ops.logical_not(nothing)


def remove_padding(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Replace padding by zeros.

    Args:
        features: `(..., observations)`. A time step is padding if all of its features are NaN.
        mask: Boolean `(...)`. False marks further time steps to skip.

    Returns:
        The features with zeros in every skipped time step, and a boolean tensor `(...)` that is
        true in the other time steps.

    Example:

    >>> import numpy
    >>> from keras_disrnn.layers.time_steps import remove_padding
    >>> features, real = remove_padding(numpy.array([[1.0, 0.0], [numpy.nan, numpy.nan]]))
    >>> features.numpy().tolist(), real.numpy().tolist()
    ([[1.0, 0.0], [0.0, 0.0]], [True, False])
    """
    real = find_real_time_steps(features)
    if mask is not None:
        real = ops.logical_and(real, mask)
    return ops.where(real[..., None], features, ops.zeros_like(features)), real


def get_previous_latents(latents: Tensor, initial_latents: Tensor) -> Tensor:
    """Shift latents by one time step, so that each time step has the latents before it.

    Args:
        latents: Latents after each time step, `(sessions, time steps, latents)`.
        initial_latents: Latents before the first time step, `(latents,)` or `(sessions, latents)`.

    Returns:
        Latents before each time step, `(sessions, time steps, latents)`.
    """
    # The last one is left out at the end, so that there may be no time steps at all.
    first = ops.cast(initial_latents, latents.dtype)[..., None, :]
    first = ops.broadcast_to(first, (ops.shape(latents)[0], 1, latents.shape[-1]))
    return ops.concatenate([first, latents], axis=1)[:, :-1]


def scan_time_steps(
    step: Callable[[Tensor, tuple[Any, ...]], Tensor], inputs: tuple[Tensor, ...], initial: Tensor
) -> Tensor:
    """Run a function over the time steps, each with the state after the one before.

    Args:
        step: Function of the state and of the inputs of one time step. It returns the next state.
        inputs: Tensors `(time steps, ...)`. There may be no time steps.
        initial: The state before the first time step.

    Returns:
        The state after each time step, `(time steps, ...)`.
    """
    # ops.scan of Keras 3.15 fails if the number of sessions is unknown.
    if inputs[0].shape[0]:
        return tf.scan(step, inputs, initial)
    # tf.scan fails without any time step, so it gets one more, which is left out again.
    count = tf.shape(inputs[0])[0]
    more = tf.maximum(1 - count, 0)
    padded = tuple(tf.pad(x, [[0, more]] + [[0, 0]] * (len(x.shape) - 1)) for x in inputs)
    return tf.scan(step, padded, initial)[:count]
