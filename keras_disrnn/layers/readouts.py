"""The readouts: from the latents to choice logits, and to dopamine responses."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_disrnn.layers.implementation import check_implementation, runs_natively, seed_or_noise
from keras_disrnn.layers.information_bottleneck import InformationBottleneck
from keras_disrnn.layers.penalty import check_weight
from keras_disrnn.layers.residual_mlp import ResidualMLP
from keras_disrnn.layers.time_steps import get_previous_latents, remove_padding
from keras_disrnn.native import run_readout
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.seeds import check_seed, derive_seeds
from keras_disrnn.utils.types import Shape, Tensor

CHOICE_AND_REWARD = 2
"""The first two observations are the trial's choice and reward; the dopamine readout reads them."""


class _Readout(keras.layers.Layer):
    """A bottleneck on each input, then a residual MLP.

    A frozen readout adds no noise, also with `training=True`.
    """

    _num_own_observations = 0
    """How many observations of the time step it reads, after the latents."""

    def __init__(
        self,
        num_outputs: int,
        *,
        units: int,
        num_layers: int,
        activation: str = "leaky_relu",
        seed: int | None = None,
        implementation: str = "auto",
        subject_units: int = 0,
        penalty_weight: float | None = None,
        l2_scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_implementation(implementation)
        self.num_outputs = check_integer("num_outputs", num_outputs)
        self.units = check_integer("units", units)
        self.num_layers = check_integer("num_layers", num_layers, least=0)
        self.activation = activation
        self.seed = check_seed(seed)
        self.implementation = implementation
        self.subject_units = check_integer("subject_units", subject_units, least=0)
        self.penalty_weight = check_weight("penalty_weight", penalty_weight)
        self.l2_scale = check_weight("l2_scale", l2_scale)
        self.supports_masking = True
        seeds = derive_seeds(self.seed, 2)
        policy = self.dtype_policy
        self.bottleneck = InformationBottleneck(
            seed=seeds[0], penalty_weight=penalty_weight, name="bottleneck", dtype=policy
        )
        self.network = ResidualMLP(
            num_outputs,
            units=units,
            num_layers=num_layers,
            activation=activation,
            seed=seeds[1],
            l2_scale=l2_scale,
            name="network",
            dtype=policy,
        )

    @property
    def reads_previous(self) -> bool:
        """Whether it reads the latents before the time step, not after it."""
        return False

    @property
    def num_observed(self) -> int:
        """Number of inputs after the latents: observations, then the subject's embedding."""
        return self._num_own_observations + self.subject_units

    def build(self, input_shape: Shape) -> None:
        self.bottleneck.build(input_shape)
        self.network.build(input_shape)

    def call(
        self,
        inputs: Tensor,
        training: bool = False,
        noise: Tensor | None = None,
        mask: Tensor | None = None,
        switch: Tensor | None = None,
    ) -> Tensor:
        noisy = bool(training and self.trainable)
        return self.network(
            self.bottleneck(inputs, training=noisy, noise=noise, mask=mask, switch=switch)
        )

    def read_sessions(
        self,
        latents: Tensor,
        features: Tensor,
        initial_latents: Tensor,
        *,
        training: bool = False,
        noise: Tensor | None = None,
        switch: Tensor | None = None,
        real: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the outputs and the cost of every time step, natively if possible.

        This is for models that add the cost to their loss themselves: leave `penalty_weight` and
        `l2_scale` at `None`.

        Args:
            latents: Latents after each time step, `(sessions, time steps, latents)`.
            features: `(sessions, time steps, observations)`. The first `num_observed` are read. A
                time step of NaN has no cost.
            initial_latents: Latents before the first time step, `(latents,)`.
            training: Whether to add noise.
            noise: Standard normal draws `(sessions, time steps, inputs)`, to use instead of new
                ones.
            switch: Boolean tensor. False turns the noise off, without tracing the function again.
            real: Boolean `(sessions, time steps)`, for callers that have used `remove_padding`
                themselves: the time steps that have a cost. `features` must then have no padding.

        Returns:
            The outputs `(sessions, time steps, outputs)`, and the information (nats) that the
            bottlenecks transmit in each time step, `(sessions, time steps)`, float32 or float64.
        """
        noisy = bool(training and self.trainable)
        if runs_natively(self):
            seed, noise = seed_or_noise(noisy, noise, self.bottleneck.seed_generator)
            outputs, cost = run_readout(
                self,
                *(ops.cast(x, self.compute_dtype) for x in (latents, features, initial_latents)),
                seed=seed,
                noise=noise,
                switch=switch,
            )
            return outputs, cost if real is None else ops.where(real, cost, 0.0)
        if real is None:
            features, real = remove_padding(features)
        inputs = latents
        if self.reads_previous:
            inputs = get_previous_latents(latents, initial_latents)
        if self.num_observed:
            observed = ops.cast(features[..., : self.num_observed], inputs.dtype)
            inputs = ops.concatenate([inputs, observed], axis=-1)
        cost = ops.where(real, self.bottleneck.kl(inputs), 0.0)
        return self(inputs, training=noisy, noise=noise, switch=switch), cost

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.num_outputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **get_arguments(self, _Readout)}


@keras.saving.register_keras_serializable("keras_disrnn")
class ChoiceReadout(_Readout):
    """Computes choice logits from the latents (Miller et al. 2023).

    Each input passes its own bottleneck. A residual MLP reads what comes out.

    Args:
        num_outputs: Number of arms.
        units: Width of the residual MLP.
        num_layers: Number of its hidden layers.
        activation: Name of a Keras activation. `"leaky_relu"` has slope 0.01.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.
        implementation: `"auto"`, `"native"` or `"keras"`, as for `DisRNN`. It is for
            `read_sessions`; a call of the layer runs Keras operations.
        subject_units: Dimensions of the subject's embedding, which it reads after the latents.
        penalty_weight: As for `InformationBottleneck`. `DisRNNModel` adds its own penalties and
            uses `None`.
        l2_scale: `None`, or the weight of the L2 penalty on the MLP's hidden weights.
        **kwargs: As for `keras.layers.Layer`.

    Call arguments:
        inputs: Latents `(..., latents)`, followed by the subject's embedding if there is one.
        training: Whether to add noise.
        noise: Standard normal draws of the inputs' shape, to use instead of new ones.
        switch: Boolean tensor. False turns the noise off, without tracing the function again.
        mask: Boolean `(...)`. Time steps where it is false do not count in the penalty.

    Returns:
        Logits `(..., arms)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras_disrnn
    >>> import numpy
    >>> readout = keras_disrnn.ChoiceReadout(2, units=4, num_layers=2, seed=0)
    >>> tuple(readout(numpy.zeros((3, 11, 5), "float32")).shape)
    (3, 11, 2)
    """


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineReadout(_Readout):
    """Computes dopamine responses from the latents and the trial's choice and reward.

    Each input passes its own bottleneck. A residual MLP reads what comes out (Jain et al. 2025).

    Args:
        num_outputs: Number of dopamine signals.
        units: Width of the residual MLP.
        num_layers: Number of its hidden layers.
        activation: Name of a Keras activation. `"leaky_relu"` has slope 0.01.
        timing: `"pre"` reads the latents before the trial's outcome. The paper defines the
            prediction error from these, `r_t - Q_t(a_t)`. `"post"` reads them after the update by
            the trial, as the authors' package does.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.
        implementation: `"auto"`, `"native"` or `"keras"`, as for `DisRNN`. It is for
            `read_sessions`; a call of the layer runs Keras operations.
        subject_units: Dimensions of the subject's embedding, which it reads last.
        penalty_weight: As for `ChoiceReadout`.
        l2_scale: As for `ChoiceReadout`.
        **kwargs: As for `keras.layers.Layer`.

    Call arguments:
        inputs: `(..., latents + 2 + subject_units)`: the latents, choice and reward, and the
            subject's embedding.
        training: Whether to add noise.
        noise: Standard normal draws of the inputs' shape, to use instead of new ones.
        switch: Boolean tensor. False turns the noise off, without tracing the function again.
        mask: Boolean `(...)`. Time steps where it is false do not count in the penalty.

    Returns:
        Predicted responses `(..., signals)`, in the units of the targets.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras_disrnn
    >>> import numpy
    >>> readout = keras_disrnn.DopamineReadout(1, units=8, num_layers=2, timing="post", seed=0)
    >>> tuple(readout(numpy.zeros((3, 11, 5 + 2), "float32")).shape)
    (3, 11, 1)
    """

    _num_own_observations = CHOICE_AND_REWARD

    def __init__(self, num_outputs: int, *, timing: str = "pre", **kwargs: Any) -> None:
        super().__init__(num_outputs, **kwargs)
        if timing not in ("pre", "post"):
            raise ValueError(f"timing: expected 'pre' or 'post', got {timing!r}")
        self.timing = timing

    @property
    def reads_previous(self) -> bool:
        return self.timing == "pre"

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **get_arguments(self, DopamineReadout)}
