"""The readouts: from the latents to choice logits, and to the dopamine response."""

import keras
from keras import ops

from keras_disrnn.layers.disrnn import clean, shift
from keras_disrnn.layers.disrnn_cell import derive_seeds
from keras_disrnn.layers.implementation import check_implementation, runs_natively, seed_or_noise
from keras_disrnn.layers.information_bottleneck import InformationBottleneck
from keras_disrnn.layers.residual_mlp import ResidualMLP
from keras_disrnn.native import run_readout
from keras_disrnn.utils.checks import check_integer

CHOICE_AND_REWARD = 2
"""The first two observations are the trial's choice and reward; the dopamine readout reads them."""


class _Readout(keras.layers.Layer):
    """A bottleneck on each input, then a residual MLP.

    A frozen readout runs as at inference, without noise, also under `training=True`.
    """

    row_observations = 0
    """How many of the observations of the row it reads, after the latents."""
    reads_previous = False
    """Whether it reads the latents as they were before the row."""

    def __init__(
        self,
        num_outputs,
        units,
        num_layers,
        activation="leaky_relu",
        seed=None,
        implementation="auto",
        subject_units=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_implementation(implementation)
        check_integer("subject_units", subject_units, 0)
        self.num_outputs = num_outputs
        self.units = units
        self.num_layers = num_layers
        self.activation = activation
        self.seed = seed
        self.implementation = implementation
        self.subject_units = subject_units
        seeds = derive_seeds(seed, 2)
        policy = self.dtype_policy
        self.bottleneck = InformationBottleneck(seed=seeds[0], name="bottleneck", dtype=policy)
        self.network = ResidualMLP(
            num_outputs, units, num_layers, activation, seed=seeds[1], name="network", dtype=policy
        )

    @property
    def observed(self):
        """How many further inputs it reads after the latents: observations, then the embedding."""
        return self.row_observations + self.subject_units

    def build(self, input_shape):
        self.bottleneck.build(input_shape)
        self.network.build(input_shape)

    def call(self, inputs, training=False, noise=None):
        return self.network(
            self.bottleneck(inputs, training=bool(training and self.trainable), noise=noise)
        )

    def read_sessions(
        self, latents, features, initial_latents, training=False, noise=None, switch=None
    ):
        """Runs over whole sessions: `call`, and what it costs, natively where that can be.

        Args:
            latents: After each row, `(sessions, rows, latents)`.
            features: `(sessions, rows, observations)`, of which the first `observed` are read; a
                row of NaN costs nothing.
            initial_latents: Before the first row, `(latents,)`.
            training: Whether to add the bottlenecks' noise.
            noise: Standard normal draws `(sessions, rows, inputs)` to use in place of fresh ones.
            switch: Boolean tensor; false turns the noise off after all. For noise that is turned on
                and off without tracing anew.

        Returns:
            The outputs `(sessions, rows, outputs)`, and the KL cost of each row in nats,
            `(sessions, rows)`, float32 or wider.
        """
        noisy = bool(training and self.trainable)
        if runs_natively(self):
            seed, noise = seed_or_noise(noisy, noise, self.bottleneck.seed_generator)
            inputs = (ops.cast(x, self.compute_dtype) for x in (latents, features, initial_latents))
            return run_readout(
                self, *inputs, self.observed, self.reads_previous, seed, noise, switch
            )
        seen, real = clean(features)
        read = latents
        if self.reads_previous:
            initial = ops.cast(initial_latents, latents.dtype)
            shape = (ops.shape(latents)[0], latents.shape[-1])
            read = shift(latents, ops.broadcast_to(initial, shape))
        if self.observed:
            seen = ops.cast(seen[..., : self.observed], read.dtype)
            read = ops.concatenate([read, seen], axis=-1)
        cost = ops.where(real, self.bottleneck.kl(read), 0.0)
        if noisy and switch is not None:
            if noise is None:
                noise = self.bottleneck.draw_noise(ops.shape(read))
            noise = noise * ops.cast(switch, noise.dtype)
        return self(read, training=noisy, noise=noise), cost

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_outputs)

    def get_config(self):
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "units": self.units,
            "num_layers": self.num_layers,
            "activation": self.activation,
            "seed": self.seed,
            "implementation": self.implementation,
            "subject_units": self.subject_units,
        }


@keras.saving.register_keras_serializable("keras_disrnn")
class ChoiceReadout(_Readout):
    """From the latents to choice logits.

    Args:
        num_outputs: Number of arms.
        units, num_layers, activation: Shape of the residual MLP.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.
        implementation: Of `read_sessions`: `"auto"`, `"native"` or `"keras"`, as for `DisRNN`.
        subject_units: Dimensions of the subject's embedding, which it reads after the latents.

    Call arguments:
        inputs: Latents `(..., latents)`, and the embedding where there is one.
        training: Whether to add the bottlenecks' noise.
        noise: Standard normal draws of the inputs' shape to use in place of fresh ones.

    Returns:
        Logits `(..., arms)`.
    """


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineReadout(_Readout):
    """From the latents and the trial's own choice and reward to the dopamine response.

    Args:
        num_outputs: Number of dopamine signals.
        units, num_layers, activation: Shape of the residual MLP.
        timing: `"pre"` to read the latents as they were before the trial's outcome, which is
            what the prediction error of the paper, `r_t - Q_t(a_t)`, speaks of; `"post"` to read
            them after the update, as the authors' package does.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.
        implementation: Of `read_sessions`: `"auto"`, `"native"` or `"keras"`, as for `DisRNN`.
        subject_units: Dimensions of the subject's embedding, which it reads last.

    Call arguments:
        inputs: `(..., latents + 2 + subject_units)`: the latents, choice and reward, the embedding.
        training: Whether to add the bottlenecks' noise.
        noise: Standard normal draws of the inputs' shape to use in place of fresh ones.

    Returns:
        Predicted responses `(..., signals)`, in the units of the targets.
    """

    row_observations = CHOICE_AND_REWARD

    def __init__(
        self,
        num_outputs,
        units,
        num_layers,
        activation="leaky_relu",
        timing="pre",
        seed=None,
        implementation="auto",
        subject_units=0,
        **kwargs,
    ):
        super().__init__(
            num_outputs,
            units,
            num_layers,
            activation,
            seed,
            implementation,
            subject_units,
            **kwargs,
        )
        if timing not in ("pre", "post"):
            raise ValueError(f"timing: expected 'pre' or 'post', got {timing!r}")
        self.timing = timing

    @property
    def reads_previous(self):
        return self.timing == "pre"

    def get_config(self):
        return {**super().get_config(), "timing": self.timing}
