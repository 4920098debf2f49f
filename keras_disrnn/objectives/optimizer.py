"""Adam on all weights as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_disrnn.utils.distribute import sum_over_replicas
from keras_disrnn.utils.types import Tensor


@keras.saving.register_keras_serializable("keras_disrnn")
class FlatAdam(keras.optimizers.Adam):
    """Computes `keras.optimizers.Adam` on all weights at once.

    A disentangled RNN has many small weights, and Keras' Adam runs about twenty operations on each.
    This optimizer concatenates the gradients into one vector, clips it and computes one step. The
    steps are those of Keras' Adam, up to rounding of the norm.

    Under a `tf.distribute` strategy the gradients of all replicas are summed before clipping, and
    each replica takes the same step. (Keras' Adam clips the gradients of each replica.) The state
    does not depend on the strategy.

    Args:
        learning_rate: A number or a `keras.optimizers.schedules.LearningRateSchedule`.
        beta_1: Decay rate of the first moment.
        beta_2: Decay rate of the second moment.
        epsilon: Small number against division by zero.
        global_clipnorm: `None`, or the largest norm of all gradients together.
        name: Name of the optimizer.

    Example:

    >>> import keras
    >>> from keras_disrnn.objectives.optimizer import FlatAdam
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(FlatAdam(1e-2, global_clipnorm=1.0), "mse")
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        global_clipnorm: float | None = None,
        name: str = "flat_adam",
    ) -> None:
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, global_clipnorm=global_clipnorm, name=name
        )

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        # Skip Adam's own build, which makes two variables for each weight.
        super(keras.optimizers.Adam, self).build(variables)
        self._sizes = [variable.value.shape.num_elements() for variable in variables]
        shape, dtype = (sum(self._sizes),), variables[0].dtype
        self._momentum = self.add_variable(shape, dtype=dtype, name="momentum")
        self._velocity = self.add_variable(shape, dtype=dtype, name="velocity")

    def _backend_apply_gradients(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable]
    ) -> None:
        dtype = self._momentum.dtype
        # A weight without a gradient gets zeros. It does not move, because its momentum is zero.
        parts = [ops.zeros((size,), dtype) for size in self._sizes]
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            part = ops.reshape(ops.cast(gradient, dtype), (-1,))
            parts[self._get_variable_index(variable)] = part
        gradient = sum_over_replicas(ops.concatenate(parts))
        (gradient,) = self._clip_gradients([gradient])

        step = ops.cast(self.iterations + 1, dtype)
        rate = ops.cast(self.learning_rate, dtype)
        rate *= ops.sqrt(1 - ops.power(ops.cast(self.beta_2, dtype), step))
        rate /= 1 - ops.power(ops.cast(self.beta_1, dtype), step)
        momentum = self._momentum + (gradient - self._momentum) * (1 - self.beta_1)
        velocity = self._velocity + (ops.square(gradient) - self._velocity) * (1 - self.beta_2)
        self.assign(self._momentum, momentum)
        self.assign(self._velocity, velocity)
        change = momentum * rate / (ops.sqrt(velocity) + self.epsilon)
        changes = tf.split(change, self._sizes)
        for variable in trainable_variables:
            part = changes[self._get_variable_index(variable)]
            self.assign_sub(variable, ops.reshape(part, variable.shape))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        names = ("name", "learning_rate", "beta_1", "beta_2", "epsilon", "global_clipnorm")
        return {name: config[name] for name in names}
