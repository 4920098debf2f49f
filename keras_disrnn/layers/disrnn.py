"""The DisRNN core over whole sessions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_disrnn.layers.disrnn_cell import DisRNNCell
from keras_disrnn.layers.implementation import check_implementation, runs_natively, seed_or_noise
from keras_disrnn.layers.penalty import add_penalty, average_cost, check_weight
from keras_disrnn.layers.time_steps import (
    find_real_time_steps,
    get_previous_latents,
    remove_padding,
    scan_time_steps,
)
from keras_disrnn.native import COSTS, run_core
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.types import Shape, Tensor


@keras.saving.register_keras_serializable("keras_disrnn")
class DisRNN(keras.layers.RNN):
    """Runs a `DisRNNCell` over sessions: features in, latents out.

    Everything that does not depend on the previous latents is computed for all time steps at once:
    the observation bottlenecks, all noise, the input projections and all costs. The loop over time
    steps only has the recurrence. A frozen core (`trainable = False`) adds no noise, also with
    `training=True`.

    On the CPU the layer can run in the native library (`keras_disrnn.native`), as Keras' GRU can
    run in cuDNN. The results are the same up to rounding, but the noise has other draws.

    Masks: a time step is skipped if all of its features are NaN (padding), or if `mask` is false.
    The latents stay as they are, and the penalty leaves the time step out. The output has a mask of
    both kinds, so that the next layers and Keras' losses leave the time step out too.

    Args:
        num_latents: Number of latents.
        update_units: Width of each update network.
        num_update_layers: Number of hidden layers of each update network.
        activation: Name of a Keras activation. `"leaky_relu"` has slope 0.01.
        max_latent_value: Bound of the update networks' targets.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.
        implementation: `"keras"` runs Keras operations. `"native"` runs the native library.
            `"auto"` runs the native library if it can: no GPU, no XLA, float32 or float64, one of
            `keras_disrnn.native.ACTIVATIONS`, and the library is built. Otherwise it runs Keras
            operations and logs the reason. Exported models always have Keras operations.
        penalty_weight: `None`, or the weight of the KL penalty: one number, or a dict with a number
            for each of `"latent"`, `"update_obs"` and `"update_latent"`. With a weight the layer
            adds the weighted mean KL divergence of a time step to the loss of the model it is used
            in. A frozen core adds nothing. `DisRNNModel` adds its own penalties and uses `None`.
        l2_scale: `None`, or the weight of the L2 penalty on the update networks' hidden weights.
        **kwargs: `name`, `dtype` and `trainable`, as for `keras.layers.Layer`.

    Call arguments:
        sequences: Features `(sessions, time steps, observations)`.
        initial_state: Latents before the first time step, `(sessions, latents)`, or a list of that
            tensor. By default the learned initial latents.
        mask: Boolean `(sessions, time steps)`. False marks time steps to skip.
        training: Whether to add noise.
        return_costs: Whether to return the costs of the bottlenecks too.
        noise: The result of `DisRNNCell.draw_noise`, to use instead of new draws.
        switch: Boolean tensor. False turns the noise off, without tracing the function again.
        real: Boolean `(sessions, time steps)`, for callers that have used `remove_padding`
            themselves: the time steps to run. `sequences` must then have no padding, and `mask` is
            not read.

    Returns:
        Latents after each time step, `(sessions, time steps, latents)`. With `return_costs` also a
        dict of the information that each group of bottlenecks transmits in a time step, in nats,
        `(sessions, time steps)`: `latent`, `update_obs` and `update_latent`. Skipped time steps
        have 0.

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: With `implementation="native"`, if the library cannot run.

    Example:

    >>> import keras_disrnn
    >>> import numpy
    >>> core = keras_disrnn.DisRNN(num_latents=5, seed=0)
    >>> tuple(core(numpy.zeros((3, 11, 2), "float32")).shape)
    (3, 11, 5)

    In any Keras model, with its penalty:

    >>> import keras
    >>> core = keras_disrnn.DisRNN(num_latents=5, penalty_weight=1e-3)
    >>> model = keras.Sequential([keras.Input((None, 2)), core, keras.layers.Dense(2)])
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
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
        implementation: str = "auto",
        penalty_weight: float | dict[str, float] | None = None,
        l2_scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_implementation(implementation)
        unknown = sorted(set(kwargs) - {"name", "dtype", "trainable"})
        if unknown:
            raise ValueError(
                "DisRNN: expected its own arguments, name, dtype or trainable, got "
                f"the unknown argument {unknown[0]!r}"
            )
        cell = DisRNNCell(
            num_latents,
            update_units=update_units,
            num_update_layers=num_update_layers,
            activation=activation,
            max_latent_value=max_latent_value,
            seed=seed,
            dtype=kwargs.get("dtype"),
            name="cell",
        )
        super().__init__(cell, return_sequences=True, **kwargs)
        self.num_latents = cell.num_latents
        self.update_units = cell.update_units
        self.num_update_layers = cell.num_update_layers
        self.activation = activation
        self.max_latent_value = cell.max_latent_value
        self.seed = cell.seed
        self.implementation = implementation
        self.penalty_weight = _check_weights(penalty_weight)
        self.l2_scale = check_weight("l2_scale", l2_scale)
        self.supports_masking = True

    def build(self, sequences_shape: Shape, initial_state_shape: Any = None) -> None:
        if not self.cell.built:
            self.cell.build((sequences_shape[0], sequences_shape[-1]))

    def call(
        self,
        sequences: Tensor,
        initial_state: Tensor | list[Tensor] | None = None,
        mask: Tensor | None = None,
        training: bool = False,
        return_costs: bool = False,
        noise: dict | None = None,
        switch: Tensor | None = None,
        real: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        sequences = ops.cast(sequences, self.compute_dtype)
        if initial_state is None:
            initial_state = self.cell.get_initial_state(ops.shape(sequences)[0])
        if isinstance(initial_state, list | tuple):
            (initial_state,) = initial_state
        initial_state = ops.cast(initial_state, self.compute_dtype)
        noisy = bool(training and self.trainable)
        with_costs = return_costs or self.penalty_weight is not None
        native = runs_natively(self)
        if real is None and (not native or self.penalty_weight is not None):
            sequences, real = remove_padding(sequences, mask)
        if native:
            seed, noise = seed_or_noise(noisy, noise, self.cell.latent_bottleneck.seed_generator)
            latents, costs = run_core(
                self.cell,
                sequences,
                initial_state,
                mask=mask if real is None else real,
                seed=seed,
                noise=noise,
                switch=switch,
                costs=with_costs,
            )
        else:
            latents, costs = self._run_keras(
                sequences, real, initial_state, noise, switch, noisy, with_costs
            )
        self._add_penalties(costs, real)
        return (latents, costs) if return_costs else latents

    def _run_keras(
        self,
        features: Tensor,
        real: Tensor,
        initial_state: Tensor,
        noise: dict | None,
        switch: Tensor | None,
        noisy: bool,
        with_costs: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        columns = ops.transpose(features, (1, 2, 0))
        if not noisy:
            noise = None
        elif noise is None:
            noise = self.cell.draw_noise(ops.shape(features)[1], ops.shape(features)[0])
        if noise is not None and switch is not None:
            noise = {name: draws * ops.cast(switch, draws.dtype) for name, draws in noise.items()}
        latent_noise = None
        if noise is not None:
            latent_noise = self.cell.latent_bottleneck.scale_noise(
                ops.transpose(noise["latent"], (2, 0, 1))
            )
        latents = self._recur(columns, initial_state, real, noise, latent_noise)
        if not with_costs:
            return latents, {}
        means = latents if latent_noise is None else latents - latent_noise
        costs = self.cell.costs(features, get_previous_latents(latents, initial_state), means)
        return latents, {name: ops.where(real, cost, 0.0) for name, cost in costs.items()}

    def _recur(
        self,
        columns: Tensor,
        initial_state: Tensor,
        real: Tensor,
        noise: dict | None,
        latent_noise: Tensor | None,
    ) -> Tensor:
        update = self.cell.make_update_function()
        inputs = [self.cell.project_inputs(columns, noise), ops.transpose(real)[:, None, :]]
        if latent_noise is not None:
            inputs.append(ops.transpose(latent_noise, (1, 2, 0)))

        def run_time_step(latents: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
            new = update(inputs[0], latents)
            if latent_noise is not None:
                new = new + inputs[2]
            return ops.where(inputs[1], new, latents)

        latents = scan_time_steps(run_time_step, tuple(inputs), ops.transpose(initial_state))
        return ops.transpose(latents, (2, 0, 1))

    def _add_penalties(self, costs: dict[str, Tensor], real: Tensor | None) -> None:
        if self.penalty_weight is not None:
            for group in COSTS:
                add_penalty(self, self.penalty_weight[group], average_cost(costs[group], real))
        if self.l2_scale is not None:
            add_penalty(self, self.l2_scale, self.cell.update_network.l2())

    def compute_mask(self, inputs: Tensor, mask: Tensor | list | None = None) -> Tensor:
        """Compute the mask `(sessions, time steps)` of the output: false in skipped time steps."""
        mask = keras.tree.flatten(mask)[0]
        real = find_real_time_steps(keras.tree.flatten(inputs)[0])
        return real if mask is None else ops.logical_and(real, mask)

    def compute_output_shape(
        self, sequences_shape: Shape, initial_state_shape: Any = None
    ) -> Shape:
        return (*sequences_shape[:-1], self.num_latents)

    def get_config(self) -> dict[str, Any]:
        # The arguments of the cell are those of this layer. keras.layers.RNN would store the cell.
        return {**keras.layers.Layer.get_config(self), **get_arguments(self, DisRNN)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DisRNN:
        return cls(**config)


def _check_weights(weight: float | dict[str, float] | None) -> dict[str, float] | None:
    """Return the penalty weight of each group of bottlenecks, or `None`."""
    if weight is None:
        return None
    if not isinstance(weight, dict):
        return dict.fromkeys(COSTS, check_weight("penalty_weight", weight))
    if set(weight) != set(COSTS):
        raise ValueError(
            f"penalty_weight: expected a number, or a dict with a number for each of {COSTS}, "
            f"got {weight!r}"
        )
    return {name: check_weight(f"penalty_weight[{name!r}]", weight[name]) for name in COSTS}
