"""The information bottleneck: Gaussian noise on a signal, and what passing it costs."""

import keras
from keras import ops

from keras_disrnn.utils.distribute import draw_share

MIN_SIGMA = 1e-5
INITIAL_SIGMA_RANGE = (0.0, 0.05)


@keras.saving.register_keras_serializable("keras_disrnn")
class InformationBottleneck(keras.layers.Layer):
    """Adds learned Gaussian noise to each element of its input, for a price.

    Every element `x` has a learned multiplier `m` and noise level `sigma = |s| + 1e-5`. In training
    the output is `m x + sigma eps` with `eps ~ N(0, 1)` drawn anew for every element, row and
    session; at inference it is `m x`. The cost of an element is the KL divergence of
    `N(m x, sigma^2)` from `N(0, 1)` (Miller et al. 2023): near `sigma = 0` the bottleneck is open
    and costly, at `sigma = 1` with `m x = 0` it is closed and free.

    Example:

    >>> bottleneck = InformationBottleneck()
    >>> bottleneck(numpy.ones((4, 7, 3), "float32"), training=True).shape
    TensorShape([4, 7, 3])

    Args:
        multiplier: Whether each element has a learned multiplier (the latent bottleneck has none).
        num_networks: `None`, or the number of networks that each read the whole input through
            bottlenecks of their own. Then the layer works in columns: see Call arguments.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.

    Call arguments:
        inputs: `(..., elements)`; with `networks`, `(..., elements, sessions)`.
        training: Whether to add the noise.
        noise: Standard normal draws of the output's shape to use in place of fresh ones.

    Returns:
        A tensor of the inputs' shape; with `networks`, `(..., networks, elements, sessions)`.
    """

    def __init__(self, multiplier=True, num_networks=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.has_multiplier = bool(multiplier)
        self.num_networks = num_networks
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        elements = input_shape[-1] if self.num_networks is None else input_shape[-2]
        shape = (elements,) if self.num_networks is None else (self.num_networks, elements)
        # Kept out of autocasting: in float16 a sigma of 1e-5 has no square.
        low, high = INITIAL_SIGMA_RANGE
        self.raw_sigma = self.add_weight(
            shape=shape,
            initializer=keras.initializers.RandomUniform(low, high, seed=self.seed_generator),
            name="raw_sigma",
            autocast=False,
        )
        self.raw_multiplier = None
        if self.has_multiplier:
            self.raw_multiplier = self.add_weight(
                shape=shape, initializer="ones", name="multiplier", autocast=False
            )

    @property
    def sigma(self):
        """Noise levels, shape `(elements,)` or `(networks, elements)`."""
        return ops.abs(self.raw_sigma) + MIN_SIGMA

    @property
    def multiplier(self):
        """Multipliers of the shape of `sigma`, or `None` for a bottleneck without."""
        if self.raw_multiplier is None:
            return None
        return ops.convert_to_tensor(self.raw_multiplier)

    def _as_columns(self, parameter):
        return parameter if self.num_networks is None else parameter[..., None]

    def mean(self, inputs):
        """The noiseless output `m x`."""
        if self.num_networks is not None:
            inputs = ops.expand_dims(inputs, -3)
        if self.raw_multiplier is None:
            return inputs
        return inputs * ops.cast(self._as_columns(self.multiplier), inputs.dtype)

    def draw_noise(self, shape, axis=0):
        """Standard normal draws of `shape`, a new set at each call; `axis` is that of sessions."""
        return draw_share(
            lambda shape: keras.random.normal(
                shape, dtype=self.compute_dtype, seed=self.seed_generator
            ),
            shape,
            axis,
        )

    def scale_noise(self, noise):
        """`sigma eps` for standard normal draws of the output's shape."""
        return ops.cast(self._as_columns(self.sigma), noise.dtype) * noise

    def call(self, inputs, training=False, noise=None):
        mean = self.mean(inputs)
        if not training:
            return mean
        if noise is None:
            noise = self.draw_noise(ops.shape(mean), 0 if self.num_networks is None else -1)
        return mean + self.scale_noise(noise)

    def kl(self, inputs, elements=slice(None)):
        """The cost of passing `inputs`: KL divergence from N(0, 1), in nats, summed over elements.

        Args:
            inputs: `(..., elements)`, whether or not the layer has `networks`: the cost needs only
                the squares, `1/2 sum(m^2 x^2 + sigma^2 - 1 - log sigma^2)`.
            elements: The slice of the layer's elements that the inputs are, for their share.

        Returns:
            A tensor `(...)`, float32 or wider.
        """
        dtype = cost_dtype(self.dtype_policy)
        variance = ops.square(ops.cast(self.sigma[..., elements], dtype))
        constant = ops.sum(variance - 1.0 - ops.log(variance))
        squares = ops.square(ops.cast(inputs, dtype))
        if self.raw_multiplier is None:
            information = ops.sum(squares, axis=-1)
        else:
            weights = ops.square(ops.cast(self.multiplier[..., elements], dtype))
            if self.num_networks is not None:
                weights = ops.sum(weights, axis=0)
            # A product with a vector; multiplying and summing takes TensorFlow twice as long.
            rows = ops.reshape(squares, (-1, squares.shape[-1]))
            information = ops.reshape(ops.matmul(rows, weights[:, None]), ops.shape(squares)[:-1])
        return 0.5 * (information + constant)

    def compute_output_shape(self, input_shape):
        if self.num_networks is None:
            return tuple(input_shape)
        return (*input_shape[:-2], self.num_networks, *input_shape[-2:])

    def get_config(self):
        return {
            **super().get_config(),
            "multiplier": self.has_multiplier,
            "num_networks": self.num_networks,
            "seed": self.seed,
        }


def cost_dtype(policy):
    """The dtype of costs and losses: float32, or float64 where the variables are."""
    return "float64" if policy.variable_dtype == "float64" else "float32"
