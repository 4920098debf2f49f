"""The information bottleneck: a learned amount of noise on a signal, with a KL penalty."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_disrnn.layers.penalty import add_penalty, average_cost, check_weight
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.distribute import draw_share
from keras_disrnn.utils.seeds import check_seed
from keras_disrnn.utils.types import Shape, Tensor, cost_dtype

MIN_SIGMA = 1e-5
INITIAL_SIGMA_RANGE = (0.0, 0.05)


@keras.saving.register_keras_serializable("keras_disrnn")
class InformationBottleneck(keras.layers.Layer):
    """Adds learned Gaussian noise to each input element.

    Each element `x` has a learned multiplier `m` and a learned noise level `sigma = |s| + 1e-5`. In
    training the output is `m x + sigma eps`. The noise `eps ~ N(0, 1)` is independent between
    elements, time steps and sessions. At inference the output is `m x`.

    The cost of an element is the information that it transmits in nats: the KL divergence of
    `N(m x, sigma^2)` from `N(0, 1)`, which is `(m^2 x^2 + sigma^2 - 1 - log sigma^2) / 2` (Miller
    et al. 2023). Near `sigma = 0` a bottleneck is open and its cost is large. At `sigma = 1` and
    `m x = 0` it is closed and its cost is 0.

    Args:
        use_multiplier: Whether each element has a learned multiplier. The latent bottlenecks of
            `DisRNNCell` have none.
        num_networks: `None`, or the number of networks that read the input, each through its own
            bottlenecks. The layer then works in columns; see Call arguments.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.
        penalty_weight: `None`, or the weight of the KL penalty. With a weight the layer adds
            `penalty_weight` times the mean KL divergence of a time step to the loss of the model it
            is used in. A frozen layer adds nothing.
        **kwargs: As for `keras.layers.Layer`.

    Call arguments:
        inputs: `(..., elements)`; with `num_networks`, `(..., elements, sessions)`.
        training: Whether to add noise.
        noise: Standard normal draws of the output's shape, to use instead of new ones.
        switch: Boolean tensor. False turns the noise off, without tracing the function again.
        mask: Boolean `(...)`. Time steps where it is false do not count in the penalty. It has no
            effect on the output. Not supported with `num_networks`.

    Returns:
        A tensor of the inputs' shape; with `num_networks`, `(..., networks, elements, sessions)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras_disrnn
    >>> import numpy
    >>> bottleneck = keras_disrnn.InformationBottleneck(penalty_weight=1e-3, seed=0)
    >>> outputs = bottleneck(numpy.ones((4, 7, 3), "float32"), training=True)
    >>> tuple(outputs.shape), len(bottleneck.losses)
    ((4, 7, 3), 1)
    """

    def __init__(
        self,
        *,
        use_multiplier: bool = True,
        num_networks: int | None = None,
        seed: int | None = None,
        penalty_weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_networks is not None:
            num_networks = check_integer("num_networks", num_networks)
        self.use_multiplier = bool(use_multiplier)
        self.num_networks = num_networks
        self.seed = check_seed(seed)
        self.penalty_weight = check_weight("penalty_weight", penalty_weight)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        elements = input_shape[-1] if self.num_networks is None else input_shape[-2]
        shape = (elements,) if self.num_networks is None else (self.num_networks, elements)
        # No autocast: in float16 the square of 1e-5 is 0.
        low, high = INITIAL_SIGMA_RANGE
        self.raw_sigma = self.add_weight(
            shape=shape,
            initializer=keras.initializers.RandomUniform(low, high, seed=self.seed_generator),
            name="raw_sigma",
            autocast=False,
        )
        self.raw_multiplier = None
        if self.use_multiplier:
            self.raw_multiplier = self.add_weight(
                shape=shape, initializer="ones", name="multiplier", autocast=False
            )

    @property
    def sigma(self) -> Tensor:
        """Noise levels, a tensor `(elements,)` or `(networks, elements)`."""
        return ops.abs(self.raw_sigma) + MIN_SIGMA

    @property
    def multiplier(self) -> Tensor | None:
        """Multipliers, a tensor of the shape of `sigma`; `None` without `use_multiplier`."""
        if self.raw_multiplier is None:
            return None
        return ops.convert_to_tensor(self.raw_multiplier)

    def _as_columns(self, parameter: Tensor) -> Tensor:
        return parameter if self.num_networks is None else parameter[..., None]

    def mean(self, inputs: Tensor) -> Tensor:
        """Compute the output without noise, `m x`, from the inputs of a call."""
        if self.num_networks is not None:
            inputs = ops.expand_dims(inputs, -3)
        if self.raw_multiplier is None:
            return inputs
        return inputs * ops.cast(self._as_columns(self.multiplier), inputs.dtype)

    def draw_noise(self, shape: tuple[Any, ...], axis: int = 0) -> Tensor:
        """Draw standard normal noise of a shape, new at each call; `axis` is that of sessions."""
        return draw_share(
            lambda shape: keras.random.normal(
                shape, dtype=self.compute_dtype, seed=self.seed_generator
            ),
            shape,
            axis,
        )

    def scale_noise(self, noise: Tensor) -> Tensor:
        """Multiply standard normal noise of the output's shape by the noise levels."""
        return ops.cast(self._as_columns(self.sigma), noise.dtype) * noise

    def call(
        self,
        inputs: Tensor,
        training: bool = False,
        noise: Tensor | None = None,
        mask: Tensor | None = None,
        switch: Tensor | None = None,
    ) -> Tensor:
        if self.penalty_weight is not None:
            rows = inputs if self.num_networks is None else ops.swapaxes(inputs, -1, -2)
            add_penalty(self, self.penalty_weight, average_cost(self.kl(rows), mask))
        mean = self.mean(inputs)
        if not training:
            return mean
        if noise is None:
            noise = self.draw_noise(ops.shape(mean), 0 if self.num_networks is None else -1)
        if switch is not None:
            noise = noise * ops.cast(switch, noise.dtype)
        return mean + self.scale_noise(noise)

    def kl(self, inputs: Tensor, elements: slice = slice(None)) -> Tensor:
        """Compute the information transmitted: the KL divergence from N(0, 1), over all elements.

        Args:
            inputs: `(..., elements)`, also with `num_networks`: the cost depends on the squares
                alone, `1/2 sum(m^2 x^2 + sigma^2 - 1 - log sigma^2)`.
            elements: Which of the layer's elements the inputs are. The result counts only these.

        Returns:
            A tensor `(...)` in nats, in float32 or float64.
        """
        dtype = cost_dtype(self.dtype_policy)
        variance = ops.square(ops.cast(self.sigma[..., elements], dtype))
        constant = ops.sum(variance - 1.0 - ops.log(variance))
        squares = ops.square(ops.cast(inputs, dtype))
        if self.multiplier is None:
            information = ops.sum(squares, axis=-1)
        else:
            weights = ops.square(ops.cast(self.multiplier[..., elements], dtype))
            if self.num_networks is not None:
                weights = ops.sum(weights, axis=0)
            # A product with a vector: multiply and sum take TensorFlow twice as long.
            rows = ops.reshape(squares, (-1, squares.shape[-1]))
            information = ops.reshape(ops.matmul(rows, weights[:, None]), ops.shape(squares)[:-1])
        return 0.5 * (information + constant)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.num_networks is None:
            return tuple(input_shape)
        return (*input_shape[:-2], self.num_networks, *input_shape[-2:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **get_arguments(self, InformationBottleneck)}
