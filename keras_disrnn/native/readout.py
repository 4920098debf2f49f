"""A readout on the CPU: the forward pass, and the exact backward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from tensorflow import Tensor

from keras_disrnn.native.passes import Pass, run
from keras_disrnn.native.tensors import network_weights, to_tensors


class ReadoutParameters(NamedTuple):
    """A readout's parameters or their gradients, in the layout of its weights.

    `sigma` are noise levels (positive), not the raw weights. Shapes: `input_kernel (inputs,
    units)`, `input_bias (units,)`, `hidden_kernel (layers, units, units)`, `hidden_bias (layers,
    units)`, `output_kernel (units, outputs)`, `output_bias (outputs,)`, `multiplier` and `sigma
    (inputs,)`.
    """

    input_kernel: Any
    input_bias: Any
    hidden_kernel: Any
    hidden_bias: Any
    output_kernel: Any
    output_bias: Any
    multiplier: Any
    sigma: Any

    @classmethod
    def of_readout(cls, readout: keras.layers.Layer) -> ReadoutParameters:
        """Return the parameters of a built readout as tensors."""
        bottleneck = readout.bottleneck
        weights = (*network_weights(readout.network), bottleneck.multiplier, bottleneck.sigma)
        return cls(*to_tensors(weights))


class Readout(Pass):
    """A readout of one architecture, on NumPy arrays.

    The inputs are the latents after each time step, `(sessions, time steps, latents)`, the features
    `(sessions, time steps, observations)` and the initial latents `(latents,)`. The network reads
    the latents and the first `observed` observations. A time step of NaN has no cost, and its
    observations are read as 0. The only cost is that of the bottlenecks. The noise is one array
    `(sessions, time steps, inputs)`.

    Args:
        activation: As for `Pass`.
        observed: How many observations the network reads.
        previous: Whether it reads the latents before the time step, not after it.
        **settings: `threads` and `instructions`, as for `Pass`.
    """

    readout = 1
    inputs = ("z", "features", "initial")
    output = "y"
    noise = ("latent_noise",)
    costs = ("bottleneck",)

    def __init__(
        self, activation: str, *, observed: int = 0, previous: bool = False, **settings: Any
    ) -> None:
        super().__init__(activation, **settings)
        self._observed = observed
        self._previous = previous

    def _sizes(
        self, arrays: dict[str, np.ndarray], parameters: ReadoutParameters
    ) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
        rows = arrays["features"].shape[:2]
        layers, units = parameters.hidden_bias.shape
        (outputs,) = parameters.output_bias.shape
        width = arrays["z"].shape[-1]
        inputs = width + self._observed
        numbers = {
            "latents": width,
            "units": units,
            "layers": layers,
            "outputs": outputs,
            "observed": self._observed,
            "previous": int(self._previous),
        }
        return numbers, {
            "z": (*rows, width),
            "initial": (width,),
            "outputs": (*rows, outputs),
            "input_kernel": (inputs, units),
            "input_bias": (units,),
            "hidden_kernel": (layers, units, units),
            "output_kernel": (units, outputs),
            "multiplier": (inputs,),
            "sigma": (inputs,),
            "latent_noise": (*rows, inputs),
        }


def run_readout(
    readout: keras.layers.Layer,
    latents: Tensor,
    features: Tensor,
    initial: Tensor,
    *,
    seed: Tensor | None = None,
    noise: Tensor | None = None,
    switch: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a built readout over sessions, with gradients, in eager mode or in a graph.

    Args:
        readout: The layer.
        latents: Tensor `(sessions, time steps, latents)`, after each time step.
        features: Tensor `(sessions, time steps, observations)`. A time step of NaN has no cost.
        initial: Tensor `(latents,)`.
        seed: Integer tensor, to draw noise, as for `Pass.forward`; or `None`.
        noise: Standard normal draws `(sessions, time steps, inputs)` to use instead; or `None`.
            They have no gradients.
        switch: Boolean tensor. False turns the noise off.

    Returns:
        Outputs `(sessions, time steps, outputs)`, and the cost of each time step, `(sessions, time
        steps)`.
    """
    outputs, (cost,) = run(
        Readout(readout.activation, observed=readout.num_observed, previous=readout.reads_previous),
        (latents, features, initial),
        ReadoutParameters.of_readout(readout),
        readout.num_outputs,
        seed=seed if noise is None else None,
        noise=None if noise is None else (noise,),
        switch=switch,
    )
    return outputs, cost
