"""The core on the CPU: the forward pass, and the exact backward pass through time."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from tensorflow import Tensor

from keras_disrnn.native.passes import Pass, run
from keras_disrnn.native.tensors import network_weights, to_tensors

COSTS = ("latent", "update_obs", "update_latent")
"""Names of the costs of the core's bottlenecks."""

NOISE = ("update_obs", "update_latent", "latent")
"""Keys of the noise that `DisRNNCell.draw_noise` gives, in the order of the library."""


class Parameters(NamedTuple):
    """The cell's parameters or their gradients, in the layout of the weights of `DisRNNCell`.

    The fields `..._sigma` are noise levels (positive), not the raw weights. Shapes, with `inputs =
    observations + latents`: `input_kernel (latents, inputs, units)`, `input_bias (latents, units)`,
    `hidden_kernel (layers, latents, units, units)`, `hidden_bias (layers, latents, units)`,
    `output_kernel (latents, units, 2)`, `output_bias (latents, 2)`, `obs_multiplier` and
    `obs_sigma (latents, observations)`, `latent_multiplier` and `update_sigma (latents, latents)`,
    `latent_sigma (latents,)`.
    """

    input_kernel: Any
    input_bias: Any
    hidden_kernel: Any
    hidden_bias: Any
    output_kernel: Any
    output_bias: Any
    obs_multiplier: Any
    obs_sigma: Any
    latent_multiplier: Any
    update_sigma: Any
    latent_sigma: Any

    @classmethod
    def of_cell(cls, cell: keras.layers.Layer) -> Parameters:
        """Return the parameters of a built `DisRNNCell` as tensors."""
        observations, previous = cell.update_obs_bottleneck, cell.update_latent_bottleneck
        weights = (
            *network_weights(cell.update_network),
            observations.multiplier,
            observations.sigma,
            previous.multiplier,
            previous.sigma,
            cell.latent_bottleneck.sigma,
        )
        return cls(*to_tensors(weights))


class Recurrence(Pass):
    """The core of one architecture, on NumPy arrays.

    The inputs are the features `(sessions, time steps, observations)`, where a time step of NaN is
    skipped, and the initial latents `(sessions, latents)`. The output is the latents after each
    time step. The costs are `COSTS`. The noise has the order and shapes of
    `DisRNNCell.draw_noise`.

    Args:
        activation: As for `Pass`.
        max_latent_value: Bound of the update networks' targets.
        **settings: `threads` and `instructions`, as for `Pass`.
    """

    readout = 0
    inputs = ("features", "initial")
    output = "z"
    noise = ("obs_noise", "update_noise", "latent_noise")
    costs = COSTS

    def __init__(self, activation: str, max_latent_value: float, **settings: Any) -> None:
        super().__init__(activation, **settings)
        self._bound = max_latent_value

    def _sizes(
        self, arrays: dict[str, np.ndarray], parameters: Parameters
    ) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
        sessions, time_steps, observations = arrays["features"].shape
        layers, latents, units = parameters.hidden_bias.shape
        numbers = {
            "latents": latents,
            "units": units,
            "layers": layers,
            "max_latent_value": self._bound,
        }
        return numbers, {
            "initial": (sessions, latents),
            "outputs": (sessions, time_steps, latents),
            "input_kernel": (latents, observations + latents, units),
            "input_bias": (latents, units),
            "hidden_kernel": (layers, latents, units, units),
            "output_kernel": (latents, units, 2),
            "output_bias": (latents, 2),
            "obs_multiplier": (latents, observations),
            "obs_sigma": (latents, observations),
            "latent_multiplier": (latents, latents),
            "update_sigma": (latents, latents),
            "latent_sigma": (latents,),
            "obs_noise": (time_steps, latents, observations, sessions),
            "update_noise": (time_steps, latents, latents, sessions),
            "latent_noise": (time_steps, latents, sessions),
        }


def run_core(
    cell: keras.layers.Layer,
    features: Tensor,
    initial: Tensor,
    *,
    mask: Tensor | None = None,
    seed: Tensor | None = None,
    noise: dict[str, Tensor] | None = None,
    switch: Tensor | None = None,
    costs: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a built `DisRNNCell` over sessions, with gradients, in eager mode or in a graph.

    Args:
        cell: The cell.
        features: Tensor `(sessions, time steps, observations)`. A time step of NaN is skipped.
        initial: Tensor `(sessions, latents)`.
        mask: Boolean tensor `(sessions, time steps)`. False marks further time steps to skip.
        seed: Integer tensor, to draw noise, as for `Pass.forward`; or `None`.
        noise: The result of `DisRNNCell.draw_noise`, to use instead; or `None`. It has no
            gradients.
        switch: Boolean tensor. False turns the noise off.
        costs: Whether to compute the costs.

    Returns:
        Latents after each time step, `(sessions, time steps, latents)`. And a dict of the costs of
        each time step, `(sessions, time steps)`, 0 in skipped time steps; empty without `costs`.
    """
    latents, found = run(
        Recurrence(cell.activation, cell.max_latent_value),
        (features, initial),
        Parameters.of_cell(cell),
        initial.shape[1],
        mask=mask,
        seed=seed,
        noise=None if noise is None else [noise[name] for name in NOISE],
        switch=switch,
        costs=costs,
    )
    return latents, dict(zip(COSTS, found, strict=False))
