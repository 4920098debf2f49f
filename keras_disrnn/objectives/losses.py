"""Losses of choices and of dopamine responses: means over the targets with weight."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_disrnn import native
from keras_disrnn.utils.distribute import mean_over_replicas, scale_loss
from keras_disrnn.utils.types import Tensor

_REDUCTION = "mean_with_sample_weight"


def log_likelihood(choice: Tensor, logits: Tensor) -> Tensor:
    """Compute the log likelihood of choices, `log p(choice)`.

    Args:
        choice: Arms `(...)`, counted from 0.
        logits: `(..., arms)`.

    Returns:
        A tensor `(...)` in nats.

    Example:

    >>> import numpy
    >>> from keras_disrnn.objectives.losses import log_likelihood
    >>> numpy.exp(log_likelihood(numpy.array([1]), numpy.array([[0.0, 0.0]]))).tolist()
    [0.5]
    """
    if (
        not native.is_disabled()
        and native.why_not_of_dtype(keras.backend.standardize_dtype(logits.dtype)) is None
    ):
        return native.run_log_likelihood(ops.cast(choice, logits.dtype), logits)
    # Arm by arm: TensorFlow's softmax takes several times as long over such a short axis.
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
    """A mean over the targets with weight, over all replicas of a `tf.distribute` strategy."""

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        if self.reduction != _REDUCTION:
            return super().__call__(y_true, y_pred, sample_weight)
        return scale_loss(self.mean(y_true, y_pred, sample_weight))

    def mean(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Compute the mean, the same on every replica."""
        mean = super().__call__(y_true, y_pred, sample_weight)
        # Without weights a replica counts by its sessions, which all have as many time steps.
        weight = ops.shape(y_pred)[0] if sample_weight is None else ops.sum(sample_weight)
        return mean_over_replicas(mean, weight)


@keras.saving.register_keras_serializable("keras_disrnn")
class ChoiceCrossentropy(_MeanOverTargets):
    """Mean cross-entropy of the choices over the targets with weight, in nats.

    Args:
        name: Name of the loss.
        reduction: As for `keras.losses.Loss`. By default targets count by their weights alone.
        **kwargs: As for `keras.losses.Loss`.

    Call arguments:
        y_true: Choices `(sessions, time steps)`, counted from 0. With weight 0 any arm is valid.
        y_pred: Logits `(sessions, time steps, arms)`.
        sample_weight: `(sessions, time steps)`.

    Example:

    >>> import numpy
    >>> from keras_disrnn.objectives.losses import ChoiceCrossentropy
    >>> loss = ChoiceCrossentropy()(numpy.array([[0, 1]]), numpy.zeros((1, 2, 2), "float32"))
    >>> round(float(loss), 4)
    0.6931
    """

    def __init__(
        self, name: str = "choice_crossentropy", *, reduction: str = _REDUCTION, **kwargs: Any
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return -log_likelihood(y_true, y_pred)


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineMSE(_MeanOverTargets):
    """Mean squared error of the dopamine responses over the targets with weight.

    The unit is that of the targets, squared.

    Args:
        name: Name of the loss.
        reduction: As for `keras.losses.Loss`. By default targets count by their weights alone.
        **kwargs: As for `keras.losses.Loss`.

    Call arguments:
        y_true: Responses `(sessions, time steps, signals)`.
        y_pred: Predictions of the same shape.
        sample_weight: Weights of the same shape: each signal can have its own missing values.

    Example:

    >>> import numpy
    >>> from keras_disrnn.objectives.losses import DopamineMSE
    >>> target = numpy.array([[[1.0], [9.0]]], "float32")
    >>> float(DopamineMSE()(target, numpy.zeros_like(target), target < 5))
    1.0
    """

    def __init__(
        self, name: str = "dopamine_mse", *, reduction: str = _REDUCTION, **kwargs: Any
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.square(y_pred - ops.cast(y_true, y_pred.dtype))


@keras.saving.register_keras_serializable("keras_disrnn")
class LogDopamineMSE(DopamineMSE):
    """The dopamine loss of the joint stage, `log(1 + MSE)`, on the scale of a cross-entropy.

    Its gradient is that of the mean squared error, divided by `1 + MSE`.

    Args:
        name: Name of the loss.
        **kwargs: As for `DopamineMSE`.
    """

    def __init__(self, name: str = "log_dopamine_mse", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def mean(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Compute the loss, the same on every replica."""
        return ops.log1p(super().mean(y_true, y_pred, sample_weight))
