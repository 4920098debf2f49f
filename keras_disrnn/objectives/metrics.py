"""Keras metrics of the fit and of the bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_disrnn.objectives.losses import log_likelihood
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.distribute import sum_over_replicas
from keras_disrnn.utils.thresholds import OPEN_BELOW
from keras_disrnn.utils.types import Tensor


@keras.saving.register_keras_serializable("keras_disrnn")
class NormalizedLikelihood(keras.metrics.Metric):
    """Normalized likelihood of the choices, `exp(mean log p(choice))`. NaN without choices.

    Higher is better; 0.5 is chance for two arms. Table 1 of Jain et al. (2025) calls it "Choice
    NLL".

    Args:
        name: Name of the metric.
        **kwargs: As for `keras.metrics.Metric`.

    Call arguments:
        y_true: Choices `(sessions, time steps)`, counted from 0.
        y_pred: Logits `(sessions, time steps, arms)`.
        sample_weight: `(sessions, time steps)`.

    Example:

    >>> import numpy
    >>> from keras_disrnn.objectives.metrics import NormalizedLikelihood
    >>> metric = NormalizedLikelihood()
    >>> metric.update_state(numpy.array([[0, 1]]), numpy.zeros((1, 2, 2), "float32"))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, name: str = "normalized_likelihood", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.log_likelihood = self.add_variable((), "zeros", name="log_likelihood")
        self.choices = self.add_variable((), "zeros", name="choices")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        log_p = log_likelihood(y_true, ops.cast(y_pred, self.dtype))
        weight = ops.ones_like(log_p) if sample_weight is None else sample_weight
        weight = ops.cast(weight, self.dtype)
        self.log_likelihood.assign_add(ops.sum(weight * log_p))
        self.choices.assign_add(ops.sum(weight))

    def result(self) -> Tensor:
        mean = ops.divide_no_nan(self.log_likelihood, self.choices)
        return ops.where(self.choices > 0, ops.exp(mean), float("nan"))


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineR2(keras.metrics.Metric):
    """Explained variance of the dopamine responses, `1 - SSE / SST`, about the targets' mean.

    With several signals it is the mean of the R^2 of those that have targets. It is NaN without
    targets, and if all targets of a signal are equal.

    Args:
        num_signals: Number of dopamine signals.
        name: Name of the metric.
        **kwargs: As for `keras.metrics.Metric`.

    Call arguments:
        y_true: Responses `(sessions, time steps, signals)`.
        y_pred: Predictions of the same shape.
        sample_weight: Weights of the same shape.

    Raises:
        ValueError: If `num_signals` is not a whole number of at least 1.

    Example:

    >>> import numpy
    >>> from keras_disrnn.objectives.metrics import DopamineR2
    >>> metric, target = DopamineR2(), numpy.array([[[1.0], [2.0], [3.0]]], "float32")
    >>> metric.update_state(target, target)
    >>> float(metric.result())
    1.0
    """

    def __init__(self, num_signals: int = 1, *, name: str = "r2", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.num_signals = check_integer("num_signals", num_signals)
        # Each replica keeps the sums of all replicas, because means cannot be added.
        self.count, self.mean, self.deviation, self.error = (
            self.add_variable((num_signals,), "zeros", aggregation="only_first_replica", name=name)
            for name in ("count", "mean", "deviation", "error")
        )

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y_true = ops.cast(y_true, self.dtype)
        y_pred = ops.cast(y_pred, self.dtype)
        weight = ops.ones_like(y_true) if sample_weight is None else sample_weight
        weight = ops.cast(weight, self.dtype)
        over = (0, 1)
        error = ops.sum(weight * ops.square(y_true - y_pred), axis=over)
        # Merge batches by their means (Chan et al. 1979). With a sum of squares, rounding would
        # lose the variance of a signal with a large offset.
        error, count, total = sum_over_replicas(
            (error, ops.sum(weight, axis=over), ops.sum(weight * y_true, axis=over))
        )
        mean = ops.divide_no_nan(total, count)
        deviation = sum_over_replicas(ops.sum(weight * ops.square(y_true - mean), axis=over))
        self.error.assign_add(error)
        total = self.count + count
        step = ops.divide_no_nan(count, total)
        gap = mean - self.mean
        self.deviation.assign_add(deviation + ops.square(gap) * self.count * step)
        self.mean.assign_add(gap * step)
        self.count.assign(total)

    def result(self) -> Tensor:
        scores = 1.0 - ops.divide_no_nan(self.error, self.deviation)
        scores = ops.where(self.deviation > 0, scores, float("nan"))
        recorded = self.count > 0
        total = ops.sum(ops.where(recorded, scores, 0.0))
        count = ops.sum(ops.cast(recorded, self.dtype))
        return ops.where(count > 0, ops.divide_no_nan(total, count), float("nan"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_signals": self.num_signals}


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineMeanSquaredError(keras.metrics.Mean):
    """Mean squared error of the dopamine responses over the targets with weight.

    The unit is that of the targets, squared. It is NaN without targets.

    Args:
        name: Name of the metric.
        **kwargs: As for `keras.metrics.Mean`.

    Call arguments:
        y_true: Responses `(sessions, time steps, signals)`.
        y_pred: Predictions of the same shape.
        sample_weight: Weights of the same shape.
    """

    def __init__(self, name: str = "mse", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        error = ops.square(ops.cast(y_pred, self.dtype) - ops.cast(y_true, self.dtype))
        super().update_state(error, sample_weight=sample_weight)

    def result(self) -> Tensor:
        return ops.where(self.count > 0, super().result(), float("nan"))


class OpenBottlenecks(keras.metrics.Metric):
    """Number of open bottlenecks of a group, read from the weights.

    `DisRNNModel` makes these metrics itself. They are not saved, because they hold layers.

    Args:
        bottlenecks: The built `InformationBottleneck` layers of the group.
        threshold: A bottleneck is open if its sigma is below this.
        name: Name of the metric.
        **kwargs: As for `keras.metrics.Metric`.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.objectives.metrics import OpenBottlenecks
    >>> bottleneck = keras_disrnn.InformationBottleneck()
    >>> bottleneck.build((None, 3))
    >>> float(OpenBottlenecks([bottleneck]).result())
    3.0
    """

    def __init__(
        self,
        bottlenecks: Sequence[keras.layers.Layer],
        *,
        threshold: float = OPEN_BELOW,
        name: str = "open",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._bottlenecks = bottlenecks
        self.threshold = threshold

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `result` reads the weights."""

    def result(self) -> Tensor:
        counts = [
            ops.sum(ops.cast(bottleneck.sigma < self.threshold, self.dtype))
            for bottleneck in self._bottlenecks
        ]
        return sum(counts[1:], counts[0])
