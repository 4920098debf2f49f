"""The DisRNN core, one time step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_disrnn.layers.information_bottleneck import InformationBottleneck
from keras_disrnn.layers.residual_mlp import ResidualMLP
from keras_disrnn.utils.checks import check_integer, check_number
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.seeds import check_seed, derive_seeds
from keras_disrnn.utils.types import Shape, Tensor


@keras.saving.register_keras_serializable("keras_disrnn")
class DisRNNCell(keras.layers.Layer):
    """Updates the latents by one time step (Miller et al. 2023).

    Each latent has its own update network. The network reads every observation and every previous
    latent, each through its own bottleneck, and has two outputs `u` and `v`. They give a weight
    `w = sigmoid(u)` and a target `c tanh(v / c)`. The latent moves to `(1 - w) z + w target` and
    then passes its latent bottleneck.

    The cell also works in `keras.layers.RNN`. A cell cannot add a loss, so it has no penalties, and
    it knows no padding: `keras_disrnn.DisRNN` has both.

    Args:
        num_latents: Number of latents.
        update_units: Width of each update network.
        num_update_layers: Number of hidden layers of each update network.
        activation: Name of a Keras activation. `"leaky_relu"` has slope 0.01.
        max_latent_value: The bound `c` of the targets.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.
        **kwargs: As for `keras.layers.Layer`.

    Call arguments:
        inputs: Features of one time step, `(sessions, observations)`.
        states: A list of one tensor, the latents before the time step, `(sessions, latents)`.
        training: Whether to add noise.

    Returns:
        The latents after the time step, `(sessions, latents)`, and a list of the same tensor, which
        is the new state.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras, keras_disrnn
    >>> import numpy
    >>> layer = keras.layers.RNN(keras_disrnn.DisRNNCell(num_latents=3), return_sequences=True)
    >>> tuple(layer(numpy.zeros((4, 7, 2), "float32")).shape)
    (4, 7, 3)
    """

    def __init__(
        self,
        num_latents: int,
        *,
        update_units: int = 8,
        num_update_layers: int = 4,
        activation: str = "leaky_relu",
        max_latent_value: float = 2.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_latents = check_integer("num_latents", num_latents)
        self.update_units = check_integer("update_units", update_units)
        self.num_update_layers = check_integer("num_update_layers", num_update_layers, least=0)
        self.activation = activation
        self.max_latent_value = check_number("max_latent_value", max_latent_value, least=0)
        if self.max_latent_value == 0:
            raise ValueError("max_latent_value: expected a number above 0, got 0")
        self.seed = check_seed(seed)
        self.state_size = self.num_latents
        self.output_size = self.num_latents

        seeds = derive_seeds(self.seed, 5)
        policy = self.dtype_policy
        self.update_obs_bottleneck = InformationBottleneck(
            num_networks=num_latents, seed=seeds[0], name="update_obs_bottleneck", dtype=policy
        )
        self.update_latent_bottleneck = InformationBottleneck(
            num_networks=num_latents, seed=seeds[1], name="update_latent_bottleneck", dtype=policy
        )
        self.latent_bottleneck = InformationBottleneck(
            use_multiplier=False, seed=seeds[2], name="latent_bottleneck", dtype=policy
        )
        self.update_network = ResidualMLP(
            2,
            units=update_units,
            num_layers=num_update_layers,
            activation=activation,
            num_networks=num_latents,
            seed=seeds[3],
            name="update_network",
            dtype=policy,
        )
        self._initial_seed = seeds[4]

    def build(self, input_shape: Shape) -> None:
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

    def get_initial_state(self, batch_size: Tensor | int | None = None) -> list[Tensor]:
        """Return the learned initial latents, a list of one tensor `(sessions, latents)`."""
        initial = ops.cast(self.initial_latents, self.compute_dtype)
        return [ops.broadcast_to(initial, (batch_size, self.num_latents))]

    def draw_noise(self, num_time_steps: Tensor | int, num_sessions: Tensor | int) -> dict:
        """Draw the standard normal noise of all bottlenecks, for a pass over whole sessions.

        Args:
            num_time_steps: Number of time steps.
            num_sessions: Number of sessions.

        Returns:
            A dict of three tensors: `update_obs (time steps, latents, observations, sessions)`,
            `update_latent (time steps, latents, latents, sessions)` and `latent (time steps,
            latents, sessions)`.
        """
        steps, n = num_time_steps, self.num_latents
        shapes = (
            ("update_obs", self.update_obs_bottleneck, (steps, n, self.num_observations)),
            ("update_latent", self.update_latent_bottleneck, (steps, n, n)),
            ("latent", self.latent_bottleneck, (steps, n)),
        )
        return {
            name: bottleneck.draw_noise((*shape, num_sessions), axis=-1)
            for name, bottleneck, shape in shapes
        }

    def project_inputs(self, columns: Tensor, noise: dict | None = None) -> Tensor:
        """Compute the part of the update networks' input layer that needs no previous latents.

        The noise of the bottlenecks on the previous latents is part of it: the input layer is
        linear, so `W (m z + sigma eps) = W m z + W sigma eps`.

        Args:
            columns: Features as `(time steps, observations, sessions)`.
            noise: The result of `draw_noise`, or `None` for no noise.

        Returns:
            A tensor `(time steps, latents, units, sessions)`.
        """
        network, bottleneck = self.update_network, self.update_obs_bottleneck
        if noise is None:
            kernel = self._scale_kernel(
                network.input_kernel[:, : self.num_observations], bottleneck.multiplier
            )
            stream = ops.reshape(
                ops.matmul(kernel, columns),
                (
                    ops.shape(columns)[0],
                    self.num_latents,
                    self.update_units,
                    ops.shape(columns)[-1],
                ),
            )
            return stream + ops.expand_dims(network.input_bias, -1)
        inputs = ops.concatenate(
            [
                bottleneck(columns, training=True, noise=noise["update_obs"]),
                self.update_latent_bottleneck.scale_noise(noise["update_latent"]),
            ],
            axis=-2,
        )
        return network.project_inputs(inputs)

    @staticmethod
    def _scale_kernel(kernel: Tensor, multiplier: Tensor) -> Tensor:
        """Multiply the rows of each network's kernel, and stack all networks' units."""
        kernel = kernel * ops.cast(multiplier, kernel.dtype)[:, :, None]
        return ops.reshape(ops.swapaxes(kernel, 1, 2), (-1, kernel.shape[1]))

    def make_update_function(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Make the function that computes one update without noise.

        Use it inside a loop: the weights are read once, before the loop.

        Returns:
            A function of one time step of `project_inputs`, `(latents, units, sessions)`, and the
            latents before it, `(latents, sessions)`. It returns the latents after the time step,
            before their noise, `(latents, sessions)`.
        """
        kernel = self._scale_kernel(
            self.update_network.input_kernel[:, self.num_observations :],
            self.update_latent_bottleneck.multiplier,
        )
        run_network = self.update_network.make_stream_function()
        bound = self.max_latent_value

        def update(stream: Tensor, latents: Tensor) -> Tensor:
            recurrent = ops.matmul(kernel, latents)
            outputs = run_network(
                stream + ops.reshape(recurrent, (self.num_latents, self.update_units, -1))
            )
            weight = ops.sigmoid(outputs[:, 0])
            target = bound * ops.tanh(outputs[:, 1] / bound)
            return (1.0 - weight) * latents + weight * target

        return update

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        columns = ops.expand_dims(ops.transpose(inputs), 0)
        latents = ops.transpose(states[0])
        noise = self.draw_noise(1, ops.shape(inputs)[0]) if training else None
        new = self.make_update_function()(self.project_inputs(columns, noise)[0], latents)
        new = ops.transpose(new)
        if noise is not None:
            new = new + self.latent_bottleneck.scale_noise(ops.transpose(noise["latent"][0]))
        return new, [new]

    def update(self, inputs: Tensor, latents: Tensor) -> Tensor:
        """Apply the update rule once, without noise.

        Args:
            inputs: Features `(points, observations)`.
            latents: Latents before the time step, `(points, latents)`.

        Returns:
            Latents after the time step, `(points, latents)`.
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        latents = ops.convert_to_tensor(latents, dtype=self.compute_dtype)
        return self(inputs, [latents])[0]

    def costs(self, inputs: Tensor, previous: Tensor, means: Tensor) -> dict[str, Tensor]:
        """Compute the information that each group of bottlenecks transmits, in nats.

        Args:
            inputs: Features `(..., observations)`.
            previous: Latents before the time step, `(..., latents)`.
            means: Latents after it, before their noise, `(..., latents)`.

        Returns:
            A dict of tensors `(...)`: `latent`, `update_obs` and `update_latent`.
        """
        return {
            "latent": self.latent_bottleneck.kl(means),
            "update_obs": self.update_obs_bottleneck.kl(inputs),
            "update_latent": self.update_latent_bottleneck.kl(previous),
        }

    def compute_output_shape(
        self, input_shape: Shape, states_shape: Any = None
    ) -> tuple[tuple[int | None, int], list[tuple[int | None, int]]]:
        shape = (input_shape[0], self.num_latents)
        return shape, [shape]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **get_arguments(self, DisRNNCell)}
