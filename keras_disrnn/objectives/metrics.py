"""Metrics of the fit and of the bottlenecks, as Keras metrics."""

import keras
from keras import ops

from keras_disrnn.objectives.losses import log_likelihood
from keras_disrnn.utils.distribute import sum_over_replicas
from keras_disrnn.utils.thresholds import OPEN_BELOW


@keras.saving.register_keras_serializable("keras_disrnn")
class NormalizedLikelihood(keras.metrics.Metric):
    """`exp(mean log p(choice))`: 0.5 is chance for two arms, higher is better.

    The paper's Table 1 calls it "Choice NLL". Called with choices `(sessions, rows)`, logits
    `(sessions, rows, arms)` and weights `(sessions, rows)`.
    """

    def __init__(self, name="normalized_likelihood", **kwargs):
        super().__init__(name=name, **kwargs)
        self.log_likelihood = self.add_variable((), "zeros", name="log_likelihood")
        self.choices = self.add_variable((), "zeros", name="choices")

    def update_state(self, y_true, y_pred, sample_weight=None):
        log_p = log_likelihood(y_true, ops.cast(y_pred, self.dtype))
        weight = ops.ones_like(log_p) if sample_weight is None else sample_weight
        weight = ops.cast(weight, self.dtype)
        self.log_likelihood.assign_add(ops.sum(weight * log_p))
        self.choices.assign_add(ops.sum(weight))

    def result(self):
        return ops.exp(ops.divide_no_nan(self.log_likelihood, self.choices))


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineR2(keras.metrics.Metric):
    """Explained variance of the dopamine responses, `1 - SSE / SST`, about the targets' own mean.

    With several signals, the mean over signals of each one's R^2. Called with responses and
    predictions `(sessions, rows, signals)` and weights of that shape.

    Args:
        num_signals: Number of dopamine signals.
    """

    def __init__(self, num_signals=1, name="r2", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_signals = num_signals
        # Every replica has the sums of all: means could not be added.
        self.count, self.mean, self.deviation, self.error = (
            self.add_variable((num_signals,), "zeros", aggregation="only_first_replica", name=name)
            for name in ("count", "mean", "deviation", "error")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.cast(y_true, self.dtype)
        y_pred = ops.cast(y_pred, self.dtype)
        weight = ops.ones_like(y_true) if sample_weight is None else sample_weight
        weight = ops.cast(weight, self.dtype)
        over = (0, 1)
        error = ops.sum(weight * ops.square(y_true - y_pred), axis=over)
        # Batches are merged by their means (Chan et al. 1979): a sum of squares would lose the
        # variance of a signal with a large offset to rounding.
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

    def result(self):
        return ops.mean(1.0 - ops.divide_no_nan(self.error, self.deviation))

    def get_config(self):
        return {**super().get_config(), "num_signals": self.num_signals}


@keras.saving.register_keras_serializable("keras_disrnn")
class DopamineMeanSquaredError(keras.metrics.Mean):
    """Mean squared error over the dopamine targets with weight, in the targets' units squared."""

    def __init__(self, name="mse", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        error = ops.square(ops.cast(y_pred, self.dtype) - ops.cast(y_true, self.dtype))
        super().update_state(error, sample_weight=sample_weight)


class OpenBottlenecks(keras.metrics.Metric):
    """How many bottlenecks of a group have `sigma` below a threshold, read from the weights.

    Args:
        bottlenecks: The built `InformationBottleneck` layers of the group.
        threshold: Open is below this sigma.
    """

    def __init__(self, bottlenecks, threshold=OPEN_BELOW, name="open", **kwargs):
        super().__init__(name=name, **kwargs)
        self._bottlenecks = bottlenecks
        self.threshold = threshold

    def update_state(self, *args, **kwargs):
        """Nothing to gather: the weights are read when the result is asked for."""

    def result(self):
        counts = [
            ops.sum(ops.cast(bottleneck.sigma < self.threshold, self.dtype))
            for bottleneck in self._bottlenecks
        ]
        return sum(counts[1:], counts[0])
