"""Subjects as points of a small space, which the networks read through bottlenecks."""

import keras
import numpy as np
from keras import ops

from keras_disrnn.layers.disrnn_cell import derive_seeds
from keras_disrnn.layers.information_bottleneck import InformationBottleneck
from keras_disrnn.utils.checks import check_integer

_WHOLE_NUMBERS = {"float16": 2**11, "bfloat16": 2**8}
"""Up to where half precision tells whole numbers apart."""


@keras.saving.register_keras_serializable("keras_disrnn")
class SubjectEmbedding(keras.layers.Layer):
    """From the index of a session's subject to its embedding, through the global bottleneck.

    A linear map of the subject's one-hot code, `kernel[subject] + bias`, then one bottleneck for
    each dimension, without a multiplier, whose noise is drawn anew for every row (the multi-subject
    model of the authors' package `disentangled-rnns`). The networks read what comes out of it, each
    through further bottlenecks of its own. A frozen embedding has no noise.

    Example:

    >>> embedding = SubjectEmbedding(subjects=5, units=2)
    >>> index = numpy.zeros((3, 11), "float32")
    >>> embedding.read_sessions(index, real=index == 0)[0].shape
    TensorShape([3, 11, 2])

    Args:
        subjects: Number of subjects.
        units: Number of dimensions.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.

    Call arguments:
        inputs: Indices from 0, `(...)`, as floats; what is no index gives NaN.

    Returns:
        The embeddings without noise, `(..., units)`.
    """

    def __init__(self, subjects, units, seed=None, **kwargs):
        super().__init__(**kwargs)
        check_integer("subjects", subjects)
        check_integer("units", units)
        most = _WHOLE_NUMBERS.get(self.compute_dtype)
        if most is not None and subjects > most:
            raise ValueError(
                f"subjects: expected at most {most} in {self.compute_dtype}, which cannot tell "
                f"larger indices apart, got {subjects}; use another dtype policy"
            )
        self.subjects = subjects
        self.units = units
        self.seed = seed
        seeds = derive_seeds(seed, 2)
        self.bottleneck = InformationBottleneck(
            multiplier=False, seed=seeds[0], name="bottleneck", dtype=self.dtype_policy
        )
        self._initial_seed = seeds[1]

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(self.subjects, self.units),
            # Haiku's default for a linear map of so many inputs.
            initializer=keras.initializers.TruncatedNormal(
                stddev=self.subjects**-0.5, seed=self._initial_seed
            ),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.bottleneck.build((None, self.units))

    @property
    def table(self):
        """The embedding of every subject, a tensor `(subjects, units)`."""
        return ops.convert_to_tensor(self.kernel) + ops.convert_to_tensor(self.bias)

    def call(self, inputs):
        known = (inputs >= 0) & (inputs < self.subjects) & (inputs == ops.floor(inputs))
        place = ops.cast(ops.where(known, inputs, ops.zeros_like(inputs)), "int32")
        # Not a gather: its gradient is sparse, which optimizers would have to be asked to bear.
        table = ops.cast(self.table, self.compute_dtype)
        found = ops.matmul(ops.one_hot(place, self.subjects, dtype=table.dtype), table)
        return ops.where(known[..., None], found, ops.full_like(found, np.nan))

    def read_sessions(self, index, real, training=False, noise=None, switch=None):
        """The embedding in every row of sessions, and what it costs.

        Args:
            index: The subject in each row, `(sessions, rows)`; NaN where it is not told. A session
                has one subject: where indices differ within it, it gets NaN.
            real: Boolean `(sessions, rows)`; a session without a real row gets zeros, and a row
                that is not real costs nothing.
            training: Whether to add the bottleneck's noise.
            noise: Standard normal draws `(sessions, rows, units)` to use in place of fresh ones.
            switch: Boolean tensor; false turns the noise off after all.

        Returns:
            `(sessions, rows, units)`, and the KL cost of a row in nats, `(sessions, rows)`, float32
            or wider.
        """
        told = ops.logical_not(ops.isnan(index))
        infinite = ops.full_like(index, np.inf)
        highest = ops.max(ops.where(told, index, -infinite), axis=1)
        lowest = ops.min(ops.where(told, index, infinite), axis=1)
        one = ops.where(highest == lowest, highest, ops.full_like(highest, -1.0))
        empty = ops.logical_not(ops.any(real, axis=1))
        mean = self(one)
        mean = ops.where(empty[:, None], ops.zeros_like(mean), mean)[:, None]
        shape = (*ops.shape(index), self.units)
        embedding = ops.broadcast_to(mean, shape)
        if training and self.trainable:
            if noise is None:
                noise = self.bottleneck.draw_noise(shape)
            if switch is not None:
                noise = noise * ops.cast(switch, noise.dtype)
            embedding = self.bottleneck(embedding, training=True, noise=noise)
        return embedding, ops.where(real, self.bottleneck.kl(mean), 0.0)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "subjects": self.subjects,
            "units": self.units,
            "seed": self.seed,
        }


def check_subjects(subjects):
    """Names of subjects as a tuple of strings.

    Args:
        subjects: Names in the order of their index, or their number, for names `"0"`, `"1"`, ...

    Raises:
        ValueError: If they are neither, or a name comes twice.
    """
    if isinstance(subjects, int) and not isinstance(subjects, bool) and subjects >= 0:
        return tuple(map(str, range(subjects)))
    if isinstance(subjects, list | tuple) and all(isinstance(name, str) for name in subjects):
        names = tuple(subjects)
        twice = [name for name in names if names.count(name) > 1]
        if not twice:
            return names
        raise ValueError(f"subjects: expected names that differ, got {twice[0]!r} more than once")
    raise ValueError(f"subjects: expected names, or their number, got {subjects!r}")
