"""The residual multilayer perceptron, as one network or as several independent networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_disrnn.layers.penalty import add_penalty, check_weight
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.seeds import check_seed
from keras_disrnn.utils.types import Shape, Tensor

LEAKY_SLOPE = 0.01
"""Slope of leaky ReLU in the authors' package; Keras' default is 0.2."""


def get_activation(name: str) -> Callable[[Tensor], Tensor]:
    """Look up an activation function by its Keras name; leaky ReLU has slope 0.01.

    Raises:
        ValueError: If it is not the name of a Keras activation.
    """
    if name == "leaky_relu":
        return lambda x: ops.leaky_relu(x, negative_slope=LEAKY_SLOPE)
    try:
        if not isinstance(name, str):
            raise ValueError("not a name")
        return keras.activations.get(name)
    except ValueError:
        raise ValueError(
            "activation: expected the name of a Keras activation, such as 'leaky_relu', "
            f"got {name!r}"
        ) from None


@keras.saving.register_keras_serializable("keras_disrnn")
class ResidualMLP(keras.layers.Layer):
    """A residual multilayer perceptron: a linear map, hidden layers that add to it, a linear map.

    `stream = x W_in + b_in`. Each hidden layer adds `f(stream W + b)` to the stream. The output is
    `stream W_out + b_out`. Without hidden layers the network is two linear maps. The initial
    weights are normal with standard deviation `1 / sqrt(inputs)` (input), `1 / sqrt(units
    num_layers)` (hidden) and `1 / sqrt(units)` (output). The biases start at 0.

    Args:
        num_outputs: Number of outputs.
        units: Width of the stream and of each hidden layer.
        num_layers: Number of hidden layers, 0 or more.
        activation: Name of a Keras activation. `"leaky_relu"` has slope 0.01.
        num_networks: `None`, or the number of independent networks to compute at once. The layer
            then works in columns; see Call arguments.
        seed: Integer seed of the initial weights, or `None` for a random one.
        l2_scale: `None`, or the weight of the L2 penalty. With a weight the layer adds `l2_scale`
            times `l2()` to the loss of the model it is used in. A frozen layer adds nothing.
        **kwargs: As for `keras.layers.Layer`.

    Call arguments:
        inputs: `(..., inputs)`; with `num_networks`, `(..., networks, inputs, sessions)`.

    Returns:
        `(..., outputs)`; with `num_networks`, `(..., networks, outputs, sessions)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras_disrnn
    >>> import numpy
    >>> network = keras_disrnn.ResidualMLP(2, units=4, num_layers=3, l2_scale=1e-5, seed=0)
    >>> tuple(network(numpy.ones((5, 7, 3), "float32")).shape), len(network.losses)
    ((5, 7, 2), 1)
    """

    def __init__(
        self,
        num_outputs: int,
        *,
        units: int,
        num_layers: int,
        activation: str = "leaky_relu",
        num_networks: int | None = None,
        seed: int | None = None,
        l2_scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = check_integer("num_outputs", num_outputs)
        self.units = check_integer("units", units)
        self.num_layers = check_integer("num_layers", num_layers, least=0)
        if num_networks is not None:
            num_networks = check_integer("num_networks", num_networks)
        self.num_networks = num_networks
        self.activation = activation
        self.seed = check_seed(seed)
        self.l2_scale = check_weight("l2_scale", l2_scale)
        self.supports_masking = True
        self._activate = get_activation(activation)

    def build(self, input_shape: Shape) -> None:
        inputs = input_shape[-1] if self.num_networks is None else input_shape[-2]
        networks = () if self.num_networks is None else (self.num_networks,)
        generator = keras.random.SeedGenerator(self.seed)

        def kernel(name: str, shape: Shape, fan: int) -> keras.Variable:
            # The fan is 0 for an empty stack of hidden layers, which has no values to draw.
            initializer = keras.initializers.RandomNormal(
                stddev=1.0 / max(fan, 1) ** 0.5, seed=generator
            )
            return self.add_weight(shape=shape, initializer=initializer, name=name)

        def bias(name: str, shape: Shape) -> keras.Variable:
            return self.add_weight(shape=shape, initializer="zeros", name=name)

        units, layers = self.units, self.num_layers
        self.input_kernel = kernel("input_kernel", (*networks, inputs, units), inputs)
        self.input_bias = bias("input_bias", (*networks, units))
        self.hidden_kernel = kernel(
            "hidden_kernel", (layers, *networks, units, units), units * layers
        )
        self.hidden_bias = bias("hidden_bias", (layers, *networks, units))
        self.output_kernel = kernel("output_kernel", (*networks, units, self.num_outputs), units)
        self.output_bias = bias("output_bias", (*networks, self.num_outputs))

    def _affine(self, kernel: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
        """Make a function for `x kernel + bias` that transposes the weights only once."""
        if self.num_networks is None:
            return lambda inputs: ops.matmul(inputs, kernel) + bias
        kernel = ops.swapaxes(kernel, -1, -2)
        bias = ops.expand_dims(bias, -1)
        return lambda inputs: ops.matmul(kernel, inputs) + bias

    def project_inputs(self, inputs: Tensor) -> Tensor:
        """Compute the stream before the hidden layers.

        Args:
            inputs: As for a call of the layer.

        Returns:
            A tensor like the outputs, but with `units` in place of `num_outputs`.
        """
        return self._affine(self.input_kernel, self.input_bias)(inputs)

    def make_stream_function(self) -> Callable[[Tensor], Tensor]:
        """Make the function from the stream of `project_inputs` to the outputs.

        Use it inside a loop: the weights are read once, before the loop.

        Returns:
            A function of the stream that returns the outputs.
        """
        hidden = [
            self._affine(self.hidden_kernel[layer], self.hidden_bias[layer])
            for layer in range(self.num_layers)
        ]
        output = self._affine(
            ops.convert_to_tensor(self.output_kernel), ops.convert_to_tensor(self.output_bias)
        )

        def run(stream: Tensor) -> Tensor:
            for layer in hidden:
                stream = stream + self._activate(layer(stream))
            return output(stream)

        return run

    def call(self, inputs: Tensor) -> Tensor:
        if self.l2_scale is not None:
            add_penalty(self, self.l2_scale, self.l2())
        return self.make_stream_function()(self.project_inputs(inputs))

    def l2(self) -> Tensor:
        """Sum the squares of the hidden weights. Biases and the outer maps do not count."""
        return ops.sum(ops.square(ops.convert_to_tensor(self.hidden_kernel)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.num_networks is None:
            return (*input_shape[:-1], self.num_outputs)
        return (*input_shape[:-2], self.num_outputs, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **get_arguments(self, ResidualMLP)}
