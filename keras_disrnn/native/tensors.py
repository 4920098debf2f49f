"""Calls of NumPy functions from TensorFlow, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow import Tensor


def to_tensors(values: Iterable[Any]) -> list[Tensor]:
    """Convert Keras variables to TensorFlow tensors."""
    # Twice: Keras converts its variable to a variable of TensorFlow.
    return [tf.convert_to_tensor(keras.ops.convert_to_tensor(value)) for value in values]


def network_weights(network: keras.layers.Layer) -> tuple[keras.Variable, ...]:
    """Return the six weights of a built `ResidualMLP` in the order of the library."""
    return (
        network.input_kernel,
        network.input_bias,
        network.hidden_kernel,
        network.hidden_bias,
        network.output_kernel,
        network.output_bias,
    )


def differentiable(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Sequence[Tensor],
    extras: Iterable[Tensor],
    shapes: Sequence[Any],
    saved: int = 0,
    flat: int = 0,
) -> list[Tensor]:
    """Call a pair of functions of NumPy arrays from TensorFlow, in eager mode or in a graph.

    Args:
        forward: Function of the inputs and extras. It returns a list of arrays.
        backward: Function of the inputs, the extras, the results of `forward`, and the gradients
            with respect to the returned results. It returns the gradients of the inputs, those of
            the last `flat` inputs in one vector.
        inputs: Tensors of one floating dtype.
        extras: Tensors that have no gradient.
        shapes: Static shapes of the returned results. They have the dtype of the inputs.
        saved: How many further results `forward` has, which only `backward` reads.
        flat: How many of the last inputs have their gradients in one vector. Their shapes must be
            known. TensorFlow takes some 10 microseconds for each array that a function returns.

    Returns:
        A list of tensors.
    """
    extras = [tf.stop_gradient(tf.convert_to_tensor(extra)) for extra in extras]

    @tf.custom_gradient
    def call(*inputs: Tensor) -> Any:
        dtypes = [inputs[0].dtype] * (len(shapes) + saved)
        results = tf.numpy_function(forward, [*inputs, *extras], dtypes, stateful=False)
        results = tf.nest.flatten(results)
        for result, shape in zip(results, shapes, strict=False):
            result.set_shape(shape)

        # Define a second derivative that raises an error. Otherwise TensorFlow would return None.
        @tf.custom_gradient
        def first(*tensors: Tensor) -> Any:
            alone = len(inputs) - flat
            dtypes = [inputs[0].dtype] * (alone + bool(flat))
            gradients = tf.numpy_function(backward, list(tensors), dtypes, stateful=False)
            # TensorFlow returns a single result as a tensor, not as a list.
            gradients = tf.nest.flatten(gradients)
            if flat:
                sizes = [tensor.shape.num_elements() for tensor in inputs[alone:]]
                gradients[-1].set_shape([sum(sizes)])
                parts = tf.split(gradients.pop(), sizes)
                gradients += [
                    tf.reshape(part, tensor.shape)
                    for part, tensor in zip(parts, inputs[alone:], strict=True)
                ]
            for gradient, tensor in zip(gradients, inputs, strict=True):
                gradient.set_shape(tensor.shape)
            return gradients, second

        def second(*_: Tensor) -> Any:
            raise NotImplementedError(
                "implementation: expected 'keras' for second derivatives, got the native library, "
                "which has no second derivatives"
            )

        return results[: len(shapes)], lambda *upstream: first(
            *inputs, *extras, *results, *upstream
        )

    return call(*inputs)
