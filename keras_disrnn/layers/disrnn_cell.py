"""One trial of the DisRNN core."""

import keras
import numpy as np
from keras import ops

from keras_disrnn.layers.information_bottleneck import InformationBottleneck
from keras_disrnn.layers.residual_mlp import ResidualMLP
from keras_disrnn.utils.checks import check_integer


@keras.saving.register_keras_serializable("keras_disrnn")
class DisRNNCell(keras.layers.Layer):
    """Updates the latents by one trial (Miller et al. 2023).

    Each latent has an update network of its own, which reads every observation and every previous
    latent, each through its own bottleneck, and gives a weight `w = sigmoid(u)` and a target
    `c tanh(v / c)`. The latent moves to `(1 - w) z + w target` and passes its latent bottleneck.

    Args:
        num_latents: Number of latents.
        update_units: Width of each update network.
        num_update_layers: Number of hidden layers of each update network.
        activation: Name of a Keras activation (leaky ReLU has slope 0.01).
        max_latent_value: The bound `c` of the targets.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.

    Call arguments:
        inputs: Features of one row, `(sessions, observations)`.
        states: A list of one tensor, the latents before the row, `(sessions, latents)`.
        training: Whether to add noise.

    Returns:
        The latents after the row, `(sessions, latents)`, and the list of the new states.
    """

    def __init__(
        self,
        num_latents,
        update_units=8,
        num_update_layers=4,
        activation="leaky_relu",
        max_latent_value=2.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_integer("num_latents", num_latents)
        if not max_latent_value > 0:
            raise ValueError(f"max_latent_value: expected a number above 0, got {max_latent_value}")
        self.num_latents = num_latents
        self.update_units = update_units
        self.num_update_layers = num_update_layers
        self.activation = activation
        self.max_latent_value = float(max_latent_value)
        self.seed = seed
        self.state_size = num_latents
        self.output_size = num_latents

        seeds = derive_seeds(seed, 5)
        policy = self.dtype_policy
        self.update_obs_bottleneck = InformationBottleneck(
            num_networks=num_latents, seed=seeds[0], name="update_obs_bottleneck", dtype=policy
        )
        self.update_latent_bottleneck = InformationBottleneck(
            num_networks=num_latents, seed=seeds[1], name="update_latent_bottleneck", dtype=policy
        )
        self.latent_bottleneck = InformationBottleneck(
            multiplier=False, seed=seeds[2], name="latent_bottleneck", dtype=policy
        )
        self.update_network = ResidualMLP(
            2,
            update_units,
            num_update_layers,
            activation,
            num_networks=num_latents,
            seed=seeds[3],
            name="update_network",
            dtype=policy,
        )
        self._initial_seed = seeds[4]

    def build(self, input_shape):
        observations = input_shape[-1]
        self.num_observations = observations
        self.initial_latents = self.add_weight(
            shape=(self.num_latents,),
            initializer=keras.initializers.RandomUniform(-0.1, 0.1, seed=self._initial_seed),
            name="initial_latents",
        )
        self.update_obs_bottleneck.build((None, observations, None))
        self.update_latent_bottleneck.build((None, self.num_latents, None))
        self.latent_bottleneck.build((None, self.num_latents))
        self.update_network.build((None, self.num_latents, observations + self.num_latents, None))

    def get_initial_state(self, batch_size=None):
        """The learned initial latents, the same for every session: `[(sessions, latents)]`."""
        initial = ops.cast(self.initial_latents, self.compute_dtype)
        return [ops.broadcast_to(initial, (batch_size, self.num_latents))]

    def draw_noise(self, rows, sessions):
        """The standard normal draws that a pass over `rows` rows of `sessions` sessions uses up.

        Returns:
            A dict of `update_obs (rows, latents, observations, sessions)`, `update_latent (rows,
            latents, latents, sessions)` and `latent (rows, latents, sessions)`.
        """
        n = self.num_latents
        shapes = (
            ("update_obs", self.update_obs_bottleneck, (rows, n, self.num_observations, sessions)),
            ("update_latent", self.update_latent_bottleneck, (rows, n, n, sessions)),
            ("latent", self.latent_bottleneck, (rows, n, sessions)),
        )
        return {name: bottleneck.draw_noise(shape, -1) for name, bottleneck, shape in shapes}

    def project(self, columns, noise=None):
        """All of the update networks' input layer that does not depend on the previous latents.

        The noise of the bottlenecks on the previous latents belongs to it too: the input layer is
        linear, so `W (m z + sigma eps) = W m z + W sigma eps`.

        Args:
            columns: Features as `(rows, observations, sessions)`.
            noise: As `draw_noise` gives it, or `None` for a noiseless pass.

        Returns:
            The stream's fixed part `(rows, latents, units, sessions)`.
        """
        network, reads = self.update_network, self.update_obs_bottleneck
        if noise is None:
            kernel = network.input_kernel[:, : self.num_observations]
            kernel = kernel * ops.cast(reads.multiplier, kernel.dtype)[:, :, None]
            kernel = ops.reshape(ops.swapaxes(kernel, 1, 2), (-1, self.num_observations))
            stream = ops.reshape(
                ops.matmul(kernel, columns),
                (-1, self.num_latents, self.update_units, ops.shape(columns)[-1]),
            )
            return stream + ops.expand_dims(network.input_bias, -1)
        inputs = ops.concatenate(
            [
                reads(columns, training=True, noise=noise["update_obs"]),
                self.update_latent_bottleneck.scale_noise(noise["update_latent"]),
            ],
            axis=-2,
        )
        return network.enter(inputs)

    def advancer(self):
        """The function that does one noiseless update, for use within a loop.

        Returns:
            A function of a row of `project`, `(latents, units, sessions)`, and the latents before
            the row, `(latents, sessions)`, that gives the means after it, `(latents, sessions)`.
        """
        kernel = self.update_network.input_kernel[:, self.num_observations :]
        kernel = (
            kernel * ops.cast(self.update_latent_bottleneck.multiplier, kernel.dtype)[:, :, None]
        )
        kernel = ops.reshape(ops.swapaxes(kernel, 1, 2), (-1, self.num_latents))
        leave = self.update_network.leaver()
        bound = self.max_latent_value

        def advance(stream, latents):
            recurrent = ops.matmul(kernel, latents)
            outputs = leave(
                stream + ops.reshape(recurrent, (self.num_latents, self.update_units, -1))
            )
            weight = ops.sigmoid(outputs[:, 0])
            target = bound * ops.tanh(outputs[:, 1] / bound)
            return (1.0 - weight) * latents + weight * target

        return advance

    def call(self, inputs, states, training=False):
        columns = ops.expand_dims(ops.transpose(inputs), 0)
        latents = ops.transpose(states[0])
        noise = self.draw_noise(1, ops.shape(inputs)[0]) if training else None
        new = self.advancer()(self.project(columns, noise)[0], latents)
        new = ops.transpose(new)
        if training:
            scaled = self.latent_bottleneck.scale_noise(ops.transpose(noise["latent"][0]))
            new = new + scaled
        return new, [new]

    def update(self, inputs, latents):
        """The update rule: the latents after one noiseless trial.

        Args:
            inputs: Features `(points, observations)`.
            latents: The latents before the trial, `(points, latents)`.

        Returns:
            The latents after it, `(points, latents)`.
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        latents = ops.convert_to_tensor(latents, dtype=self.compute_dtype)
        return self(inputs, [latents])[0]

    def costs(self, inputs, previous, means):
        """What each group of bottlenecks costs, in nats.

        Args:
            inputs: Features `(..., observations)`.
            previous: Latents before the row, `(..., latents)`.
            means: Latents after it, before their noise, `(..., latents)`.

        Returns:
            A dict of tensors `(...)`: `latent`, `update_obs`, `update_latent`.
        """
        return {
            "latent": self.latent_bottleneck.kl(means),
            "update_obs": self.update_obs_bottleneck.kl(inputs),
            "update_latent": self.update_latent_bottleneck.kl(previous),
        }

    def compute_output_shape(self, input_shape, states_shape=None):
        shape = (input_shape[0], self.num_latents)
        return shape, [shape]

    def get_config(self):
        return {
            **super().get_config(),
            "num_latents": self.num_latents,
            "update_units": self.update_units,
            "num_update_layers": self.num_update_layers,
            "activation": self.activation,
            "max_latent_value": self.max_latent_value,
            "seed": self.seed,
        }


def derive_seeds(seed, count):
    """`count` integer seeds that differ from each other and follow from `seed`; or all `None`."""
    if seed is None:
        return [None] * count
    return [int(state) & 0x7FFFFFFF for state in np.random.SeedSequence(seed).generate_state(count)]
