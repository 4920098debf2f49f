"""Adam over all weights as one vector."""

import keras
import tensorflow as tf
from keras import ops

from keras_disrnn.utils.distribute import sum_over_replicas


@keras.saving.register_keras_serializable("keras_disrnn")
class FlatAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`, computed on all weights at once.

    The weights of a disentangled RNN are many and small, and Keras' Adam runs some twenty
    operations on each. Here the gradients are laid end to end and clipped and turned into steps
    together; the steps are those of Keras' Adam but for the rounding of the norm.

    Under a `tf.distribute` strategy the gradients of all replicas are summed before they are
    clipped (Keras' Adam clips each replica's own), and each replica takes the same step. The state
    is the same under any strategy and under none.

    Args:
        learning_rate, beta_1, beta_2, epsilon, global_clipnorm, name: As for
            `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        global_clipnorm=None,
        name="flat_adam",
    ):
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, global_clipnorm=global_clipnorm, name=name
        )

    def build(self, variables):
        if self.built:
            return
        # Keras' Adam would make two variables for each weight.
        super(keras.optimizers.Adam, self).build(variables)
        self._sizes = [variable.value.shape.num_elements() for variable in variables]
        shape, dtype = (sum(self._sizes),), variables[0].dtype
        self._momentum = self.add_variable(shape, dtype=dtype, name="momentum")
        self._velocity = self.add_variable(shape, dtype=dtype, name="velocity")

    def _backend_apply_gradients(self, grads, trainable_variables):
        dtype = self._momentum.dtype
        # A weight that gets no gradient stays as it is with zeros, too: its momentum is zero.
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

    def get_config(self):
        config = super().get_config()
        names = ("name", "learning_rate", "beta_1", "beta_2", "epsilon", "global_clipnorm")
        return {name: config[name] for name in names}
