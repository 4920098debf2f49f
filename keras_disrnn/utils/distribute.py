"""Data-parallel training: each replica of a `tf.distribute` strategy computes a share of a batch.

Every replica receives the whole batch and takes its share of the sessions. So shares may differ in
size, or be empty, and each session has the same noise as in a single process. Sums over the batch
(numbers of targets, gradients, sums of metrics) are sums over all replicas.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_disrnn.utils.types import Tensor

STRATEGIES = (
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
    tf.distribute.OneDeviceStrategy,
)
"""The strategies that a model can be trained under."""


def replicas(model: keras.Model) -> int:
    """Return the number of replicas that a model is trained on; 1 without a strategy."""
    return 1 if model.made_under is None else model.made_under.num_replicas_in_sync


def check_strategy(model: keras.Model, steps_per_execution: int = 1) -> None:
    """Check that a model can be trained under the strategy that it was made under.

    Args:
        model: The model.
        steps_per_execution: As for `compile`.

    Raises:
        ValueError: If it cannot be trained.
    """
    strategy = model.distribute_strategy
    if tf.distribute.has_strategy() and model.made_under is not tf.distribute.get_strategy():
        raise ValueError(
            "model: expected one made in the scope of this "
            f"{type(tf.distribute.get_strategy()).__name__}, got one made outside; make it "
            "(or load it) in the scope"
        )
    if model.made_under is not None and not isinstance(strategy, STRATEGIES):
        raise ValueError(
            "model: expected one made under MirroredStrategy (the GPUs of one machine), "
            "MultiWorkerMirroredStrategy (several machines), OneDeviceStrategy or no strategy, "
            f"got one made under {type(strategy).__name__}"
        )
    if replicas(model) > 1 and steps_per_execution != 1:
        # TensorFlow 2.21 loses tensors if it reduces over replicas in its loop over steps.
        raise ValueError(
            f"steps_per_execution: expected 1 under {type(strategy).__name__} of "
            f"{replicas(model)} replicas, got {steps_per_execution}"
        )


def scope(model: keras.Model) -> contextlib.AbstractContextManager:
    """Return the scope of the strategy that a model was made under, if there is one."""
    return contextlib.nullcontext() if model.made_under is None else model.made_under.scope()


def is_chief(model: keras.Model) -> bool:
    """Return whether this process writes files: the first of several workers does."""
    return model.made_under is None or model.made_under.extended.should_checkpoint


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Return whether a strategy has workers besides this process."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and (
        strategy.num_replicas_in_sync > len(strategy.extended.worker_devices)
    )


# === Data ===


_DATA = {
    "fit": (("x", "steps_per_epoch"), ("validation_data", "validation_steps")),
    "evaluate": (("x", "steps"),),
}
"""Arguments that hold batches, each with the argument for the number of batches in a pass."""

_WHOLE = "_keras_disrnn_whole"
"""Attribute that marks data whose batches already go to all replicas."""


def run(
    model: keras.Model,
    method: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call Keras' `fit` or `evaluate`, and hand whole batches to every replica.

    Args:
        model: The model.
        method: Keras' method.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        What the method returns.

    Raises:
        ValueError: If the strategy cannot be used, or if there are several replicas and the data
            are not a `tf.data.Dataset`. Keras would split other data.
    """
    check_strategy(model)
    if replicas(model) == 1:
        return method(*args, **kwargs)
    strategy = model.made_under
    given = inspect.signature(method).bind(*args, **kwargs).arguments
    given.update(given.pop("kwargs", {}))
    for name, steps in _DATA[method.__name__]:
        batches = given.get(name)
        # To evaluate within `fit`, Keras passes on the data that this function has made.
        if batches is None or hasattr(batches, _WHOLE):
            continue
        if not isinstance(batches, tf.data.Dataset):
            raise ValueError(
                f"{name}: expected a tf.data.Dataset of whole batches under "
                f"{type(strategy).__name__}, got {type(batches).__name__}; use Sessions.dataset"
            )
        count = int(batches.cardinality())
        if given.get(steps) is None and count > 0:
            batches, given[steps] = batches.repeat(), count
        given[name] = _hand_to_all(strategy, batches)
    return method(**given)


def _hand_to_all(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> Any:
    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        # The replicas of a worker take turns with the elements of its data set.
        copies = context.num_replicas_in_sync // context.num_input_pipelines
        return batches.flat_map(
            lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(copies)
        ).prefetch(copies)

    distributed = strategy.distribute_datasets_from_function(make)
    setattr(distributed, _WHOLE, True)
    return distributed


def local_batch(strategy: tf.distribute.Strategy, iterator: Any) -> Any:
    """Return the first batch of a Keras iterator over steps, as one local replica has it."""
    _, _, batches = next(iter(iterator))
    return keras.tree.map_structure(
        lambda part: strategy.experimental_local_results(part)[0], next(batches)
    )


# === Within a step ===

_step = threading.local()


@contextlib.contextmanager
def share(batch: Any) -> Iterator[Any]:
    """Take a replica's share of the sessions. Noise inside the context is that of the whole batch.

    Args:
        batch: Structure of tensors, arrays or `None`. Their first axis is that of sessions.

    Yields:
        The share. Outside a replica, or with a single replica, the batch itself.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        yield batch
        return
    given = next(part for part in keras.tree.flatten(batch) if part is not None)
    sessions = ops.shape(given)[0]
    first, end = (
        (context.replica_id_in_sync_group + i) * sessions // context.num_replicas_in_sync
        for i in range(2)
    )
    before = getattr(_step, "share", None)
    _step.share = first, sessions
    try:
        yield keras.tree.map_structure(
            lambda part: None if part is None else part[first:end], batch
        )
    finally:
        _step.share = before


def first_session() -> Tensor | int | None:
    """Return the index of a share's first session in the whole batch; `None` outside `share`."""
    found = getattr(_step, "share", None)
    return None if found is None else found[0]


def draw_share(
    draw: Callable[[tuple[Any, ...]], Tensor], shape: tuple[Any, ...], axis: int
) -> Tensor:
    """Draw noise for the sessions of a share, the same as without sharing.

    Args:
        draw: Function of a shape that returns noise of that shape.
        shape: The shape of the share's noise.
        axis: The axis of sessions.

    Returns:
        Noise of that shape.
    """
    found = getattr(_step, "share", None)
    if found is None:
        return draw(shape)
    first, sessions = found
    axis %= len(shape)
    whole = draw((*shape[:axis], sessions, *shape[axis + 1 :]))
    begin = [0] * len(shape)
    begin[axis] = first
    return tf.slice(whole, begin, shape)


def sum_over_replicas(values: Any) -> Any:
    """Sum a structure of tensors over all replicas, with gradients.

    Args:
        values: The structure.

    Returns:
        The sums. Outside a replica, or with a single replica, the values themselves.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    # Workers reduce to the device of a tensor, and not every tensor has one.
    values = tf.nest.map_structure(tf.identity, values)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def mean_over_replicas(mean: Tensor, weight: Tensor) -> Tensor:
    """Compute the mean over all replicas from the mean of each replica.

    Args:
        mean: The mean of this replica, as a Keras loss gives it: divided by the number of replicas.
        weight: The sum of weights behind the mean.

    Returns:
        The mean, the same on every replica.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return mean
    weight = ops.cast(weight, mean.dtype)
    total, weight = sum_over_replicas((mean * replicas * weight, weight))
    return ops.divide_no_nan(total, weight)


def scale_loss(loss: Tensor) -> Tensor:
    """Divide a loss that is the same on all replicas by their number: Keras sums the losses."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss / replicas


def with_sums(
    model: keras.Model, variables: Sequence[keras.Variable], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Compute results from variables, with each variable replaced by its sum over the replicas.

    Args:
        model: The model whose variables they are.
        variables: Keras variables that have one part on each replica.
        compute: Function without arguments that returns a dict of scalars.

    Returns:
        The dict.
    """
    if replicas(model) == 1:
        return compute()
    strategy = model.made_under

    def sum_and_compute() -> dict[str, Any]:
        sums = sum_over_replicas([ops.convert_to_tensor(variable) for variable in variables])
        with keras.StatelessScope(state_mapping=list(zip(variables, sums, strict=True))):
            return compute()

    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        results = sum_and_compute()
        if is_multi_worker(strategy):
            # Keras 3.15 averages the results of workers over a first axis, which scalars lack.
            results = {name: ops.reshape(result, (1,)) for name, result in results.items()}
        return results
    if not tf.executing_eagerly():
        return compute()
    # Between steps a worker would only read its own part.
    results = strategy.run(sum_and_compute)
    return {name: strategy.experimental_local_results(got)[0] for name, got in results.items()}
