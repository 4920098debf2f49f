"""Losses of choices and of dopamine responses, normalised by the weights of the targets."""

import keras
from keras import ops

from keras_disrnn import native
from keras_disrnn.utils.distribute import mean_over_replicas, scale_loss

_REDUCTION = "mean_with_sample_weight"


def log_likelihood(choice, logits):
    """`log p(choice)` of each target, in nats.

    Args:
        choice: Integers from 0, `(...)`.
        logits: `(..., arms)`.

    Returns:
        A tensor `(...)`.
    """
    if (
        not native.is_disabled()
        and native.why_not_of_dtype(keras.backend.standardize_dtype(logits.dtype)) is None
    ):
        return native.run_log_likelihood(ops.cast(choice, logits.dtype), logits)
    # Arm by arm, because TensorFlow's softmax takes several times as long over so short an axis.
    arms = [logits[..., arm] for arm in range(logits.shape[-1])]
    top = arms[0]
    chosen = arms[0]
    for arm, logit in enumerate(arms[1:], start=1):
        top = ops.maximum(top, logit)
        chosen = ops.where(choice == arm, logit, chosen)
    top = ops.stop_gradient(top)
    total = sum(ops.exp(logit - top) for logit in arms)
    return chosen - top - ops.log(total)


class _MeanOverTargets(keras.losses.Loss):
    """A mean over the targets with weight, of all replicas where a strategy has several."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        if self.reduction != _REDUCTION:
            return super().__call__(y_true, y_pred, sample_weight)
        return scale_loss(self.mean(y_true, y_pred, sample_weight))

    def mean(self, y_true, y_pred, sample_weight=None):
        """The mean, the same on every replica."""
        mean = super().__call__(y_true, y_pred, sample_weight)
        # Without weights replicas count by their sessions, whose rows are as many.
        weight = ops.shape(y_pred)[0] if sample_weight is None else ops.sum(sample_weight)
        return mean_over_replicas(mean, weight)


@keras.saving.register_keras_serializable("keras_disrnn")
class ChoiceCrossentropy(_MeanOverTargets):
    """Mean cross-entropy of the choices over the targets with weight, in nats.

    Call arguments:
        y_true: Choices `(sessions, rows)`, integers; where the weight is 0 any valid arm.
        y_pred: Logits `(sessions, rows, arms)`.
        sample_weight: `(sessions, rows)`.
    """

    def __init__(self, name="choice_crossentropy", reduction=_REDUCTION, **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        return -log_likelihood(y_true, y_pred)


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineMSE(_MeanOverTargets):
    """Mean squared error over the dopamine targets with weight, in the targets' units squared.

    Call arguments:
        y_true, y_pred: `(sessions, rows, signals)`.
        sample_weight: `(sessions, rows, signals)`: signals can miss values of their own.
    """

    def __init__(self, name="dopamine_mse", reduction=_REDUCTION, **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        return ops.square(y_pred - ops.cast(y_true, y_pred.dtype))


@keras.saving.register_keras_serializable("keras_disrnn")
class LogDopamineMSE(DopamineMSE):
    """`log(1 + MSE)`: the dopamine part of the joint stage, on the scale of a cross-entropy.

    The gradient is that of the mean squared error, damped while the error is large.
    """

    def __init__(self, name="log_dopamine_mse", **kwargs):
        super().__init__(name=name, **kwargs)

    def mean(self, y_true, y_pred, sample_weight=None):
        return ops.log1p(super().mean(y_true, y_pred, sample_weight))
