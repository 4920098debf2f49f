"""The training step of `DisRNNModel`: the loss with its penalties, the metrics and the data."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_disrnn import native
from keras_disrnn.layers.information_bottleneck import InformationBottleneck
from keras_disrnn.models.penalties import PENALTIES, PenaltyWeight, check_penalty
from keras_disrnn.models.trained import TrainedParts, changed_parts
from keras_disrnn.objectives.metrics import OpenBottlenecks
from keras_disrnn.utils import distribute
from keras_disrnn.utils.forks import check_process
from keras_disrnn.utils.types import Tensor, cost_dtype

_RIGHT_WAY = "model.fit(sessions.dataset(), ...) or keras_disrnn.train(model, sessions)"

_NO_TEST = -1.0

_NO_CONSTANTS = {*PENALTIES, "seed", "name", "trained", "subjects", "reference"}
"""What the configuration of a model or a part has beside the constants of its traced steps."""


class PenalisedModel(TrainedParts):
    """A model whose loss adds the penalties of its bottlenecks and weights.

    `DisRNNModel` is its only subclass. It defines the `parts`, the `bottlenecks`, the
    `penalty_names`, `num_signals` and `num_subjects`, and stores the costs of each forward pass
    with `_keep_costs`.
    """

    latent_penalty = PenaltyWeight()
    update_obs_penalty = PenaltyWeight()
    update_latent_penalty = PenaltyWeight()
    choice_penalty = PenaltyWeight()
    dopamine_penalty = PenaltyWeight()
    l2_scale = PenaltyWeight()
    subject_penalty = PenaltyWeight()
    update_subject_penalty = PenaltyWeight()
    choice_subject_penalty = PenaltyWeight()
    dopamine_subject_penalty = PenaltyWeight()

    def __init__(self, *, penalties: Mapping[str, float], **kwargs: Any) -> None:
        check_process()
        super().__init__(**kwargs)
        # Keras does not record whether the model was created under a strategy, so record it here.
        self.made_under = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
        # These are variables, so that they can change without another trace of the training step.
        # They are not weights of the model.
        self._penalties = {
            name: tf.Variable(check_penalty(name, weight), trainable=False, dtype=tf.float64)
            for name, weight in penalties.items()
        }
        self._noise = tf.Variable(True, trainable=False)
        self._penalised = tf.Variable(True, trainable=False)
        # Number of weighted targets of each output in the test steps so far; -1 before the first.
        self._tested = {
            name: tf.Variable(
                _NO_TEST,
                trainable=False,
                dtype=tf.float64,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for name in ("choice", "dopamine")
        }
        # A forward pass stores its costs here for the loss of the same step. Distribution
        # strategies run each replica in its own thread, so each thread has its own slot.
        self._pass = threading.local()

    def _make_metrics(self) -> None:
        """Create the metrics of the penalties and of the bottlenecks, once the parts are built."""
        self.penalty_metrics = {
            group: keras.metrics.Mean(name=f"penalty_{group}") for group in self._cost_groups()
        }
        self.open_metrics = [
            OpenBottlenecks(layers, name=f"open_{group}")
            for group, layers in self.bottlenecks.items()
        ]

    # === What the subclass defines ===

    @property
    def penalty_names(self) -> tuple[str, ...]:
        """Names of the penalties that this model has."""
        raise NotImplementedError

    @property
    def parts(self) -> dict[str, keras.layers.Layer]:
        """The parts that train separately: name to layer."""
        raise NotImplementedError

    @property
    def bottlenecks(self) -> dict[str, list[InformationBottleneck]]:
        """The groups of bottlenecks: name to list of `InformationBottleneck` layers."""
        raise NotImplementedError

    # === Switches ===

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the parts that do not train. A new value takes effect at the next `compile`."""
        return tuple(name for name, part in self.parts.items() if not part.trainable)

    @frozen.setter
    def frozen(self, names: Sequence[str]) -> None:
        unknown = sorted(set(names) - set(self.parts))
        if unknown:
            raise ValueError(f"frozen: expected names of {tuple(self.parts)}, got {unknown[0]!r}")
        for name, part in self.parts.items():
            part.trainable = name not in names

    @property
    def noise(self) -> bool:
        """Whether training adds noise. It can be set at any time, also between calls of `fit`."""
        return bool(self._noise.numpy())

    @noise.setter
    def noise(self, on: bool) -> None:
        self._noise.assign(bool(on))

    @property
    def penalised(self) -> bool:
        """Whether the loss includes the penalties. It can be set at any time, like `noise`."""
        return bool(self._penalised.numpy())

    @penalised.setter
    def penalised(self, on: bool) -> None:
        self._penalised.assign(bool(on))

    # === What was trained ===

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that train separately."""
        return tuple(self.parts)

    def _parts_in_step(self) -> Iterable[str]:
        losses = self.loss if isinstance(self.loss, Mapping) else None
        for name, part in self.parts.items():
            output = name.removesuffix("_readout")
            # A readout without a loss of its output only shrinks by its penalties.
            fitted = losses is None or output == name or losses.get(output) is not None
            if part.trainable and fitted:
                yield name

    def set_weights(self, weights: Sequence[Any]) -> None:
        set_weights = super().set_weights
        _, changed = changed_parts(self.parts, lambda: set_weights(weights))
        self.mark_trained(changed)

    def load_weights(self, *args: Any, **kwargs: Any) -> Any:
        load = super().load_weights
        result, changed = changed_parts(self.parts, lambda: load(*args, **kwargs))
        self.mark_trained(changed)
        return result

    # === Loss ===

    def _cost_groups(self) -> dict[str, tuple[str, keras.layers.Layer]]:
        """Group of costs to the name of its penalty and the layer that the penalty regularises."""
        parts = self.parts
        return {
            group: (name, parts[part])
            for name in self.penalty_names
            for group, part in PENALTIES[name].groups.items()
            if part in parts
        }

    def _target_of(self, part: keras.layers.Layer) -> str:
        """Return the output whose targets the penalties of a part are divided by."""
        return "dopamine" if part is self.parts.get("dopamine_readout") else "choice"

    def _keep_costs(self, costs: dict[str, Tensor], observed: Tensor) -> None:
        self._pass.costs, self._pass.observed = costs, observed

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the compiled losses plus the penalties of the parts that train.

        A penalty is summed over the time steps that are not masked. The sum is divided by the
        number of weighted targets: choices for the core and the choice readout, dopamine responses
        for the dopamine readout. Both numbers refer to the whole batch, also if a `tf.distribute`
        strategy splits it.

        Args:
            x: The inputs of the step.
            y: The targets, a dict of `choice` and, with dopamine, `dopamine`.
            y_pred: The outputs of the model for `x`, from the latest call.
            sample_weight: Weights with the keys of `y`. Targets of weight 0 do not count.
            training: Whether the step trains.

        Returns:
            The loss, a scalar tensor.

        Raises:
            ValueError: If `y` comes without weights, or without the targets of an output.
        """
        self._check_targets(y, sample_weight)
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        costs, observed = self._pass.costs, self._pass.observed
        dtype = cost_dtype(self.dtype_policy)
        penalised = ops.cast(tf.convert_to_tensor(self._penalised), dtype)
        terms, totals = {}, {}
        targets = {
            name: _count_targets(name, observed, sample_weight, dtype)
            for name in ("choice", *(["dopamine"] if self.num_signals else []))
        }
        for group, (name, part) in self._cost_groups().items():
            if not part.trainable:
                continue
            terms[group] = name, self._target_of(part)
            totals[group] = ops.sum(costs[group])
            if group in ("l2", "dopamine_l2"):
                # The L2 cost counts once per time step, as the costs of the bottlenecks do.
                totals[group] = totals[group] * ops.sum(ops.cast(observed, dtype))
        totals, targets = distribute.sum_over_replicas((totals, targets))
        if not training:
            for name, count in targets.items():
                tested = self._tested[name]
                tested.assign(ops.maximum(tested, 0.0) + ops.cast(count, "float64"))
        for group, (name, target) in terms.items():
            weight = ops.cast(tf.convert_to_tensor(self._penalties[name]), dtype)
            penalty = weight * penalised * ops.divide_no_nan(totals[group], targets[target])
            self.penalty_metrics[group].update_state(penalty)
            loss = loss + ops.cast(distribute.scale_loss(penalty), loss.dtype)
        return loss

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of a step, without the penalties of frozen parts."""
        hidden = {
            id(self.penalty_metrics[group])
            for group, (_, part) in (self._cost_groups() if self.built else {}).items()
            if not part.trainable
        }
        return [metric for metric in super().metrics if id(metric) not in hidden]

    # === Steps that models of one shape share ===

    def step_key(self, kind: str) -> Hashable | None:
        # The classes of users may hold anything.
        if PenalisedModel not in type(self).__bases__:
            return None
        settings = self.compiled_settings if kind != "predict" else ()
        if settings is None:
            return None
        own = self.get_config()
        configs = [own, *(part.get_config() for part in self.parts.values())]
        constants = [{k: v for k, v in c.items() if k not in _NO_CONSTANTS} for c in configs]
        layers = tuple((type(layer), layer.trainable) for layer in self._flatten_layers())
        runs = native.is_disabled(), native.why_not(own["activation"], self.dtype_policy)
        text = json.dumps([constants, self.num_subjects, runs], sort_keys=True, default=str)
        return text, layers, settings

    def state_variables(self) -> list[tf.Variable]:
        variables = [*self._penalties.values(), self._noise, self._penalised]
        return [*variables, *self._tested.values()]

    # === Saving of the compiled state ===

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        return {**config, "noise": self.noise, "penalised": self.penalised} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = _rename_signals(config)
        self.noise = config.pop("noise", True)
        self.penalised = config.pop("penalised", True)
        super().compile_from_config(config)

    # === Steps, with one replica or several ===

    def train_step(self, data: Any) -> dict[str, Tensor]:
        with distribute.share(data) as data:
            return super().train_step(data)

    def test_step(self, data: Any) -> dict[str, Tensor]:
        with distribute.share(data) as data:
            return super().test_step(data)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras 3.15 averages a batch over all replicas here, only to learn its shapes. That fails
        # if the replicas are in several processes, so pass a batch of this process instead.
        if iterator is not None and distribute.replicas(self) > 1:
            data_batch = distribute.local_batch(self.made_under, iterator)
        super()._maybe_symbolic_build(iterator if data_batch is None else None, data_batch)

    def get_metrics_result(self) -> dict[str, Tensor]:
        """Return the metrics, also within a replica's step those of all replicas.

        In an evaluation, the losses and penalties of an output without any target are NaN. In
        training they are 0, because a batch without targets must not stop the fit.
        """
        variables = [variable for metric in self.metrics for variable in metric.variables]
        results = distribute.with_sums(self, variables, super().get_metrics_result)
        for output, tested in self._tested.items():
            for name in self._results_of(output) & results.keys():
                result = ops.convert_to_tensor(results[name])
                undefined = ops.equal(tf.convert_to_tensor(tested), 0.0)
                results[name] = ops.where(undefined, float("nan"), result)
        return results

    def _results_of(self, output: str) -> set[str]:
        """Names of the results that need targets of an output: its losses and its penalties."""
        losses = self.loss
        if isinstance(losses, Mapping):
            losses = losses.get(output)
        groups = self._cost_groups() if self.built else {}
        return {
            *(
                f"penalty_{group}"
                for group, (_, part) in groups.items()
                if self._target_of(part) == output
            ),
            *(["loss", f"{output}_loss"] if losses is not None else []),
        }

    def reset_metrics(self) -> None:
        super().reset_metrics()
        for tested in self._tested.values():
            tested.assign(_NO_TEST)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train the model. The arguments are those of `keras.Model.fit`.

        The data must come with sample weights, which leave out padding, forced and missed trials
        and the last time step. `Sessions.dataset` gives such data. Under a `tf.distribute`
        strategy of several replicas, the data must be a `tf.data.Dataset`.

        Raises:
            ValueError: If the data have no sample weights.
        """
        self._check_data(super().fit, args, kwargs)
        return distribute.run(self, super().fit, args, kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss and the metrics. The arguments are those of `keras.Model.evaluate`.

        The data must come with sample weights, as for `fit`.

        Raises:
            ValueError: If the data have no sample weights.
        """
        self._check_data(super().evaluate, args, kwargs)
        return distribute.run(self, super().evaluate, args, kwargs)

    # === Checks of the data ===

    def _check_targets(self, y: Any, sample_weight: Any) -> None:
        """Refuse targets without weights, and targets that the outputs do not have.

        Without weights the last time step, padding, forced and missed trials would count as choices
        of the first arm. Targets that are not shifted by one trial would give the answer away.
        """
        if y is None:
            return
        if not isinstance(y, Mapping):
            raise ValueError(
                "y: expected a dict of 'choice', the next trial's choice at each time step, and "
                f"'dopamine', got {type(y).__name__}; call {_RIGHT_WAY}"
            )
        outputs = ["choice", "dopamine"] if self.num_signals else ["choice"]
        if sorted(y) != outputs:
            raise ValueError(
                f"y: expected the targets {outputs}, those of a model with "
                f"num_signals={self.num_signals}, got {sorted(y)}; make the model with "
                "num_signals=sessions.num_signals"
            )
        weights = sample_weight if isinstance(sample_weight, Mapping) else {}
        missing = [name for name in y if weights.get(name) is None]
        if missing:
            raise ValueError(
                f"sample_weight: expected a dict with the weights of {missing[0]!r}, 0 on padding, "
                f"forced and missed trials and the last time step, got "
                f"{'none' if sample_weight is None else type(sample_weight).__name__}; "
                f"call {_RIGHT_WAY}"
            )

    def _check_data(self, method: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
        """Check the targets before Keras traces the step, so that the error is short."""
        given = inspect.signature(method).bind_partial(*args, **kwargs).arguments
        validation = given.get("validation_data")
        if isinstance(validation, tuple | list):
            validation = (*validation, None, None)[:3]
        else:
            validation = (validation, None, None)
        training = (given.get("x"), given.get("y"), given.get("sample_weight"))
        for x, y, sample_weight in (training, validation):
            if y is None and hasattr(x, "element_spec"):
                _, y, sample_weight = (*_as_tuple(x.element_spec), None, None)[:3]
            self._check_targets(y, sample_weight)


def _count_targets(name: str, observed: Tensor, sample_weight: Any, dtype: str) -> Tensor:
    """Count the time steps that have a weighted target of that name."""
    if sample_weight is None:
        return ops.sum(ops.cast(observed, dtype))
    weighted = sample_weight[name] > 0
    if len(weighted.shape) == 3:
        weighted = ops.any(weighted, axis=-1)
    return ops.sum(ops.cast(weighted, dtype))


def _rename_signals(config: Any) -> Any:
    """Translate the arguments of metrics that version 0.1.0 saved."""
    if isinstance(config, Mapping):
        return {
            "num_signals" if key == "signals" else key: _rename_signals(value)
            for key, value in config.items()
        }
    return [_rename_signals(item) for item in config] if isinstance(config, list) else config


def _as_tuple(spec: Any) -> tuple:
    return tuple(spec) if isinstance(spec, tuple | list) else (spec,)
