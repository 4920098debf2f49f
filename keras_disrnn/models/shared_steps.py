"""Traced steps that all models of one shape share, so that only the first fit of a shape traces."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
import tensorflow as tf

MOST_KEPT = 32
"""How many shared steps are kept. The one that was not used for the longest time goes first."""

MOST_TRACES = 16
"""How often a shared step is traced for other shapes of batches before it is made anew."""

REPLACED = (
    "call", "train_step", "test_step", "predict_step", "compute_loss", "compute_metrics",
    "get_metrics_result",
)  # fmt: skip
"""Methods that a step runs. A model with one of its own as an attribute does not share steps."""


class SharedSteps(keras.Model):
    """A model that runs the traced steps of other models of the same shape.

    TensorFlow binds a traced step to the variables of the model that traced it. Here the variables
    are arguments of the step, so the next model runs the same step with its own variables: weights,
    random generators, optimizer, metrics. The results do not depend on who traced the step.

    A subclass defines `step_key`, and `state_variables` if it has some. Otherwise every model
    traces its own steps.
    """

    def step_key(self, kind: str) -> Hashable | None:
        """Return everything that a traced step holds as a constant.

        Args:
            kind: `"train"`, `"test"` or `"predict"`.

        Returns:
            A key that is the same for models that can share the step, or `None` to share nothing.
        """
        return None

    def state_variables(self) -> list[tf.Variable]:
        """Return the variables of TensorFlow that a step reads beside those of Keras."""
        return []

    def compiled_as(self, settings: Hashable, targets: Any, outputs: Any) -> None:
        """Say what the model was compiled with. After any other `compile` it shares no training.

        Args:
            settings: Everything of `compile` that a traced step holds as a constant.
            targets: Targets of one batch, of any values.
            outputs: Outputs of the model for one batch, of any values.
        """
        if not hasattr(self, "_compile_metrics") or not hasattr(self, "_compile_loss"):
            # They are internal to Keras. A version without them traces each model.
            return
        for part in (self._compile_metrics, self._compile_loss):
            # Keras builds these in a trace, which a model that shares a step does not have.
            if part is not None and not part.built:
                part.build(targets, outputs)
        self._compiled_as = _Compiled(settings, _compiled_objects(self))

    @property
    def compiled_settings(self) -> Hashable | None:
        """What `compiled_as` was given, if the model was not compiled in another way since."""
        found: _Compiled | None = getattr(self, "_compiled_as", None)
        if found is None:
            return None
        now = _compiled_objects(self)
        same = all(a is b for a, b in zip(found.objects, now, strict=True))
        return found.settings if same else None

    def make_train_function(self, force: bool = False) -> Any:
        return self._share("train", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Any:
        return self._share("test", super().make_test_function, force)

    def make_predict_function(self, force: bool = False) -> Any:
        return self._share("predict", super().make_predict_function, force)

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        # At the end of an epoch Keras computes the results of its last step again.
        latest = self.__dict__.get("_latest_results")
        return logs if logs is latest else super()._get_metrics_result_or_logs(logs)

    def _share(self, kind: str, make: Callable[..., Any], force: bool) -> Any:
        name = f"{kind}_function"
        before = getattr(self, name, None)
        result = make(force)
        own = getattr(self, name, None)
        if own is not before and own is not None:
            setattr(self, name, _sharing(self, kind, own))
        return result


def clear_shared_steps() -> None:
    """Forget all shared steps. The next fit traces again."""
    with _lock:
        _steps.clear()


def count_traces() -> int:
    """Return how many traces the shared steps hold."""
    with _lock:
        return sum(step.function.experimental_get_tracing_count() for step in _steps.values())


class _Step:
    """A step as a function of the variables and the data of the model that calls it."""

    def __init__(self, kind: str, key: Hashable) -> None:
        self.shareable = True
        # A trace for shapes in general may round a sum differently, and then the numbers of a fit
        # would depend on the fits before it. A prediction has no sums over a batch.
        # TensorFlow counts the traces of a partial function, and not those of all steps together.
        self.function = tf.function(
            functools.partial(_trace, kind, key),
            autograph=False,
            reduce_retracing=kind == "predict",
        )


class _HoldsState(Exception):
    """A trace depends on more than its arguments and its key, so another model must not run it."""


_steps: collections.OrderedDict[tuple, _Step] = collections.OrderedDict()
_lock = threading.Lock()
_calling = threading.local()


def _sharing(model: SharedSteps, kind: str, own: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that runs the shared step, or the model's own if it shares none."""
    key = None if _runs_alone(model) else model.step_key(kind)
    if key is None:
        return own
    variables, names = _variables(model, kind)
    # Variables are matched by their order.
    steps = None if kind == "predict" else model.steps_per_execution
    key = (kind, key, names, steps, model.jit_compile)

    latest: list[Any] = [None, None]

    def function(data: Any) -> Any:
        step = _find(key)
        if not step.shareable or not (kind == "predict" or isinstance(data, tf.data.Iterator)):
            return own(data)
        before = getattr(_calling, "model", None)
        _calling.model = model
        try:
            if kind == "predict":
                return step.function(variables, data)
            if latest[0] != data.element_spec:
                # Looking the trace up at each call takes as long as a short step.
                latest[1] = step.function.get_concrete_function(variables, data)
                latest[0] = data.element_spec
            taken, results = latest[1](variables, data)
        except _HoldsState:
            step.shareable = False
            return own(data)
        finally:
            _calling.model = before
        if taken == 0:
            raise StopIteration
        # Keras would look for layers in an attribute that is a dict.
        model.__dict__["_latest_results"] = results
        return results

    return function


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """What a model was compiled with. Keras would look for layers in a plain tuple."""

    settings: Hashable | None
    objects: tuple[Any, ...]


def _compiled_objects(model: keras.Model) -> tuple[Any, ...]:
    """Return the objects that `compile` sets."""
    names = ("optimizer", "loss", "_compile_loss", "_compile_metrics")
    return tuple(getattr(model, name, None) for name in names)


def _runs_alone(model: SharedSteps) -> bool:
    """Return whether a model needs a step of its own, whatever its shape."""
    return (
        model.run_eagerly
        or tf.config.functions_run_eagerly()
        or model.distribute_strategy.num_replicas_in_sync > 1
        or tf.distribute.has_strategy()
        or any(name in vars(model) for name in REPLACED)
    )


def _find(key: tuple[Any, ...]) -> _Step:
    with _lock:
        step = _steps.get(key)
        if step is None or step.function.experimental_get_tracing_count() > MOST_TRACES:
            step = _steps[key] = _Step(*key[:2])
        _steps.move_to_end(key)
        while len(_steps) > MOST_KEPT:
            _steps.popitem(last=False)
        return step


def _variables(model: SharedSteps, kind: str) -> tuple[list[tf.Variable], tuple[Hashable, ...]]:
    """Return what a step reads and writes, and what it is recognised by."""
    variables = list(model.variables)
    if kind != "predict":
        variables += [variable for metric in model.metrics for variable in metric.variables]
    if kind == "train":
        variables += model.optimizer.variables
    variables = list({id(variable): variable for variable in variables}.values())
    names = tuple((variable.name, variable.trainable) for variable in variables)
    return [*(variable.value for variable in variables), *model.state_variables()], names


# === What is traced ===


def _trace(kind: str, key: Hashable, variables: Sequence[tf.Variable], data: Any) -> Any:
    # The model of this call, not of the first one: a batch of another shape traces again.
    model = _calling.model
    with tf.init_scope():
        # It may have changed after the model took this step.
        changed = model.step_key(kind) != key
    if changed:
        raise _HoldsState
    results = _predict(model, data) if kind == "predict" else _run_steps(model, kind, data)
    # TensorFlow counts the variables among the arguments as captures while it traces.
    given = {id(variable.handle) for variable in variables}
    captures = tf.compat.v1.get_default_graph().captures
    if any(id(outer) not in given for outer, _ in captures):
        raise _HoldsState
    return results


def _without_optionals(data: Any) -> Any:
    """Return the batch with `None` where Keras has put an empty optional."""
    return keras.tree.map_structure(
        lambda part: None if isinstance(part, tf.experimental.Optional) else part, data
    )


def _run_steps(model: SharedSteps, kind: str, batches: tf.data.Iterator) -> tuple[Any, Any]:
    """Run the steps of one execution, and return their number and the results of the last one."""

    def run_step(data: Any) -> None:
        # The results are those of the metrics, so they are computed once and not at each step.
        model.__dict__["get_metrics_result"] = dict
        try:
            getattr(model, f"{kind}_step")(_without_optionals(data))
        finally:
            del model.__dict__["get_metrics_result"]

    if model.jit_compile:
        run_step = tf.function(run_step, autograph=False, jit_compile=True)
    most = model.steps_per_execution
    if most == 1:
        run_step(batches.get_next())
        return tf.constant(1), model.get_metrics_result()

    def goes_on(taken: tf.Tensor, batch: tf.experimental.Optional) -> tf.Tensor:
        return tf.logical_and(taken < most, batch.has_value())

    def go_on(taken: tf.Tensor, batch: tf.experimental.Optional) -> Any:
        run_step(batch.get_value())
        following = tf.cond(taken + 1 < most, batches.get_next_as_optional, lambda: batch)
        return taken + 1, following

    first = (tf.constant(0), batches.get_next_as_optional())
    taken, _ = tf.while_loop(goes_on, go_on, first)
    return taken, model.get_metrics_result()


def _predict(model: SharedSteps, batches: Sequence[Any]) -> Any:
    """Predict the batches, and join them."""
    predict_step = model.predict_step
    if model.jit_compile:
        predict_step = tf.function(predict_step, autograph=False, jit_compile=True)
    outputs = [predict_step(_without_optionals(batch)) for batch in batches]
    if len(outputs) == 1:
        return outputs[0]
    return keras.tree.map_structure(lambda *parts: tf.concat(parts, axis=0), *outputs)
