"""The residual multilayer perceptron, alone or as a bank of independent networks."""

import keras
from keras import ops

from keras_disrnn.utils.checks import check_integer

LEAKY_SLOPE = 0.01


def get_activation(name):
    """The activation function of that Keras name; leaky ReLU has the reference's slope of 0.01."""
    if not isinstance(name, str):
        raise ValueError(
            "activation: expected the name of a Keras activation, such as 'leaky_relu', "
            f"got {name!r}"
        )
    if name == "leaky_relu":
        return lambda x: ops.leaky_relu(x, negative_slope=LEAKY_SLOPE)
    return keras.activations.get(name)


@keras.saving.register_keras_serializable("keras_disrnn")
class ResidualMLP(keras.layers.Layer):
    """A linear map onto a stream, hidden layers that add to it, and a linear map off it.

    `stream = x W_in + b_in`; for each hidden layer `stream += f(stream W + b)`; output
    `stream W_out + b_out`. Without hidden layers it is two linear maps.

    Args:
        num_outputs: Number of outputs.
        units: Width of the stream and of each hidden layer.
        num_layers: Number of hidden layers, 0 or more.
        activation: Name of a Keras activation. `"leaky_relu"` has slope 0.01.
        num_networks: `None`, or the number of independent networks of this shape to run side by side
            as one batched product. Then the layer works in columns: see Call arguments.
        seed: Integer seed of the initial weights, or `None` for a random one.

    Call arguments:
        inputs: `(..., inputs)`; with `networks`, `(..., networks, inputs, sessions)`.

    Returns:
        `(..., outputs)`; with `networks`, `(..., networks, outputs, sessions)`.
    """

    def __init__(
        self,
        num_outputs,
        units,
        num_layers,
        activation="leaky_relu",
        num_networks=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_integer("num_outputs", num_outputs)
        check_integer("units", units)
        check_integer("num_layers", num_layers, 0)
        self.num_outputs = num_outputs
        self.units = units
        self.num_layers = num_layers
        self.activation = activation
        self.num_networks = num_networks
        self.seed = seed
        self._activate = get_activation(activation)

    def build(self, input_shape):
        inputs = input_shape[-1] if self.num_networks is None else input_shape[-2]
        bank = () if self.num_networks is None else (self.num_networks,)
        generator = keras.random.SeedGenerator(self.seed)

        def kernel(name, shape, fan):
            # A fan of zero belongs to a stack of no layers, which has no values to draw.
            initializer = keras.initializers.RandomNormal(
                stddev=1.0 / max(fan, 1) ** 0.5, seed=generator
            )
            return self.add_weight(shape=shape, initializer=initializer, name=name)

        def bias(name, shape):
            return self.add_weight(shape=shape, initializer="zeros", name=name)

        units, layers = self.units, self.num_layers
        self.input_kernel = kernel("input_kernel", (*bank, inputs, units), inputs)
        self.input_bias = bias("input_bias", (*bank, units))
        self.hidden_kernel = kernel("hidden_kernel", (layers, *bank, units, units), units * layers)
        self.hidden_bias = bias("hidden_bias", (layers, *bank, units))
        self.output_kernel = kernel("output_kernel", (*bank, units, self.num_outputs), units)
        self.output_bias = bias("output_bias", (*bank, self.num_outputs))

    def _affine(self, kernel, bias):
        """The affine map of these weights, transposed and sliced once, however often it is used."""
        if self.num_networks is None:
            return lambda inputs: ops.matmul(inputs, kernel) + bias
        kernel = ops.swapaxes(kernel, -1, -2)
        bias = ops.expand_dims(bias, -1)
        return lambda inputs: ops.matmul(kernel, inputs) + bias

    def enter(self, inputs):
        """The stream before the hidden layers: as the outputs, with units in their place."""
        return self._affine(self.input_kernel, self.input_bias)(inputs)

    def leaver(self):
        """The function from the stream of `enter` to the outputs, for use within a loop."""
        hidden = [
            self._affine(self.hidden_kernel[layer], self.hidden_bias[layer])
            for layer in range(self.num_layers)
        ]
        output = self._affine(
            ops.convert_to_tensor(self.output_kernel), ops.convert_to_tensor(self.output_bias)
        )

        def leave(stream):
            for layer in hidden:
                stream = stream + self._activate(layer(stream))
            return output(stream)

        return leave

    def call(self, inputs):
        return self.leaver()(self.enter(inputs))

    def l2(self):
        """Sum of the squared hidden weights; biases and the outer maps do not count."""
        return ops.sum(ops.square(ops.convert_to_tensor(self.hidden_kernel)))

    def compute_output_shape(self, input_shape):
        if self.num_networks is None:
            return (*input_shape[:-1], self.num_outputs)
        return (*input_shape[:-2], self.num_outputs, input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "units": self.units,
            "num_layers": self.num_layers,
            "activation": self.activation,
            "num_networks": self.num_networks,
            "seed": self.seed,
        }
