"""The readouts: from the latents to choice logits, and to the dopamine response."""

import keras

from keras_disrnn.bottleneck import InformationBottleneck
from keras_disrnn.cell import derive_seeds
from keras_disrnn.res_mlp import ResidualMLP


class _Readout(keras.layers.Layer):
    """A bottleneck on each input, then a residual MLP.

    A frozen readout runs as at inference, without noise, also under `training=True`.
    """

    def __init__(self, outputs, units, layers, activation="leaky_relu", seed=None, **kwargs):
        super().__init__(**kwargs)
        self.outputs = outputs
        self.units = units
        self.layers = layers
        self.activation = activation
        self.seed = seed
        seeds = derive_seeds(seed, 2)
        policy = self.dtype_policy
        self.bottleneck = InformationBottleneck(seed=seeds[0], name="bottleneck", dtype=policy)
        self.network = ResidualMLP(
            outputs, units, layers, activation, seed=seeds[1], name="network", dtype=policy
        )

    def build(self, input_shape):
        self.bottleneck.build(input_shape)
        self.network.build(input_shape)

    def call(self, inputs, training=False, noise=None):
        return self.network(
            self.bottleneck(inputs, training=bool(training and self.trainable), noise=noise)
        )

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.outputs)

    def get_config(self):
        return {
            **super().get_config(),
            "outputs": self.outputs,
            "units": self.units,
            "layers": self.layers,
            "activation": self.activation,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("keras_disrnn")
class ChoiceReadout(_Readout):
    """From the latents to choice logits.

    Args:
        outputs: Number of arms.
        units, layers, activation: Shape of the residual MLP.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.

    Call arguments:
        inputs: Latents `(..., latents)`.
        training: Whether to add the bottlenecks' noise.
        noise: Standard normal draws of the inputs' shape to use in place of fresh ones.

    Returns:
        Logits `(..., arms)`.
    """


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineReadout(_Readout):
    """From the latents and the trial's own choice and reward to the dopamine response.

    Args:
        outputs: Number of dopamine signals.
        units, layers, activation: Shape of the residual MLP.
        latents: `"pre"` to read the latents as they were before the trial's outcome, which is
            what the prediction error of the paper, `r_t - Q_t(a_t)`, speaks of; `"post"` to read
            them after the update, as the authors' package does.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.

    Call arguments:
        inputs: `(..., latents + 2)`: the latents, then choice and reward.
        training: Whether to add the bottlenecks' noise.
        noise: Standard normal draws of the inputs' shape to use in place of fresh ones.

    Returns:
        Predicted responses `(..., signals)`, in the units of the targets.
    """

    def __init__(
        self,
        outputs,
        units,
        layers,
        activation="leaky_relu",
        latents="pre",
        seed=None,
        **kwargs,
    ):
        super().__init__(outputs, units, layers, activation, seed, **kwargs)
        if latents not in ("pre", "post"):
            raise ValueError(f"latents: expected 'pre' or 'post', got {latents!r}")
        self.latents = latents

    def get_config(self):
        return {**super().get_config(), "latents": self.latents}
