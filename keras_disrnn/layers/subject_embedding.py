"""Subjects as points in a small space, which the networks read through bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_disrnn.layers.information_bottleneck import InformationBottleneck
from keras_disrnn.layers.penalty import add_penalty, average_cost, check_weight
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.ids import id_texts
from keras_disrnn.utils.seeds import check_seed, derive_seeds
from keras_disrnn.utils.types import Shape, Tensor

_LARGEST_INDEX = {"float16": 2**11, "bfloat16": 2**8}
"""Up to here half precision represents every whole number."""


@keras.saving.register_keras_serializable("keras_disrnn")
class SubjectEmbedding(keras.layers.Layer):
    """Turns the index of a session's subject into an embedding, through a bottleneck.

    The embedding is `kernel[subject] + bias`, a linear map of the subject's one-hot code. Each
    dimension then passes a bottleneck without a multiplier, with new noise in every time step. This
    is the multi-subject model of the authors' package `disentangled-rnns`. Each network reads
    the embedding through its own further bottlenecks. A frozen embedding adds no noise.

    Args:
        num_subjects: Number of subjects.
        units: Number of dimensions of the embedding.
        seed: Integer seed of the initial values and of the noise, or `None` for a random one.
        penalty_weight: As for `InformationBottleneck`. The mean is over embeddings. `DisRNNModel`
            adds its own penalties and uses `None`.
        **kwargs: As for `keras.layers.Layer`.

    Call arguments:
        inputs: Indices `(...)` of subjects, counted from 0, as floats or integers. Any other value
            gives NaN.
        training: Whether to add noise.

    Returns:
        The embeddings `(..., units)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> import keras_disrnn
    >>> import numpy
    >>> embedding = keras_disrnn.SubjectEmbedding(5, units=2, seed=0)
    >>> tuple(embedding(numpy.array([0.0, 4.0])).shape)
    (2, 2)
    """

    def __init__(
        self,
        num_subjects: int,
        *,
        units: int,
        seed: int | None = None,
        penalty_weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_subjects = check_integer("num_subjects", num_subjects)
        self.units = check_integer("units", units)
        most = _LARGEST_INDEX.get(self.compute_dtype)
        if most is not None and num_subjects > most:
            raise ValueError(
                f"num_subjects: expected at most {most} in {self.compute_dtype}, which cannot "
                f"represent larger indices, got {num_subjects}; use another dtype policy"
            )
        self.seed = check_seed(seed)
        self.penalty_weight = check_weight("penalty_weight", penalty_weight)
        seeds = derive_seeds(self.seed, 2)
        self.bottleneck = InformationBottleneck(
            use_multiplier=False, seed=seeds[0], name="bottleneck", dtype=self.dtype_policy
        )
        self._initial_seed = seeds[1]

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            shape=(self.num_subjects, self.units),
            # Haiku's default for a linear map, which the authors' package has.
            initializer=keras.initializers.TruncatedNormal(
                stddev=self.num_subjects**-0.5, seed=self._initial_seed
            ),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.bottleneck.build((None, self.units))

    @property
    def table(self) -> Tensor:
        """The embedding of every subject, a tensor `(subjects, units)`."""
        return ops.convert_to_tensor(self.kernel) + ops.convert_to_tensor(self.bias)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        inputs = ops.cast(inputs, self.compute_dtype)
        known = (inputs >= 0) & (inputs < self.num_subjects) & (inputs == ops.floor(inputs))
        index = ops.cast(ops.where(known, inputs, ops.zeros_like(inputs)), "int32")
        # Not a gather: not every optimizer takes its sparse gradient.
        table = ops.cast(self.table, self.compute_dtype)
        mean = ops.matmul(ops.one_hot(index, self.num_subjects, dtype=table.dtype), table)
        mean = ops.where(known[..., None], mean, ops.full_like(mean, np.nan))
        if self.penalty_weight is not None:
            add_penalty(self, self.penalty_weight, average_cost(self.bottleneck.kl(mean)))
        return self.bottleneck(mean, training=True) if training and self.trainable else mean

    def read_sessions(
        self,
        index: Tensor,
        real: Tensor,
        *,
        training: bool = False,
        noise: Tensor | None = None,
        switch: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the embedding and its cost in every time step of sessions.

        This is for models that add the cost to their loss themselves: leave `penalty_weight` at
        `None`.

        Args:
            index: The subject in each time step, `(sessions, time steps)`; NaN where it is missing.
                A session has one subject: a session with different indices gets NaN.
            real: Boolean `(sessions, time steps)`. A session without any real time step gets zeros.
                A time step that is not real has no cost.
            training: Whether to add noise.
            noise: Standard normal draws `(sessions, time steps, units)`, to use instead of new
                ones.
            switch: Boolean tensor. False turns the noise off, without tracing the function again.

        Returns:
            The embedding `(sessions, time steps, units)`, and the information that it transmits in
            each time step, in nats, `(sessions, time steps)`, in float32 or float64.
        """
        given = ops.logical_not(ops.isnan(index))
        infinite = ops.full_like(index, np.inf)
        # Without `initial`, Keras refuses sessions without time steps.
        highest = ops.max(ops.where(given, index, -infinite), axis=1, initial=-np.inf)
        lowest = ops.min(ops.where(given, index, infinite), axis=1, initial=np.inf)
        subject = ops.where(highest == lowest, highest, ops.full_like(highest, -1.0))
        empty = ops.logical_not(ops.any(real, axis=1))
        mean = self(subject, training=False)
        mean = ops.where(empty[:, None], ops.zeros_like(mean), mean)[:, None]
        embedding = ops.broadcast_to(mean, (*ops.shape(index), self.units))
        if training and self.trainable:
            embedding = self.bottleneck(embedding, training=True, noise=noise, switch=switch)
        return embedding, ops.where(real, self.bottleneck.kl(mean), 0.0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **get_arguments(self, SubjectEmbedding)}


def check_subjects(subjects: int | Sequence[str]) -> tuple[str, ...]:
    """Return the names of subjects as a tuple.

    Args:
        subjects: Names in the order of their index, or a number of subjects, for the names `"0"`,
            `"1"`, ...

    Returns:
        The names.

    Raises:
        ValueError: If they are neither, or if a name occurs twice.

    Example:

    >>> from keras_disrnn.layers.subject_embedding import check_subjects
    >>> check_subjects(2), check_subjects(["anna", "bert"])
    (('0', '1'), ('anna', 'bert'))
    """
    if isinstance(subjects, int) and not isinstance(subjects, bool) and subjects >= 0:
        return tuple(map(str, range(subjects)))
    if isinstance(subjects, list | tuple):
        names = tuple(id_texts("subjects", subjects))
        twice = [name for name in names if names.count(name) > 1]
        if not twice:
            return names
        raise ValueError(f"subjects: expected different names, got {twice[0]!r} more than once")
    raise ValueError(f"subjects: expected names, or their number, got {subjects!r}")
