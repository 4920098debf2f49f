"""Data-parallel training: each replica of a `tf.distribute` strategy computes its share of a batch.

Every replica is given the whole batch and takes its share of the sessions out of it, so that a
share may be smaller than the others, or empty, and so that its sessions have the noise that they
would have in a single process. Sums (numbers of targets, gradients, what metrics gather) go over
all replicas.
"""

import contextlib
import inspect
import threading

import keras
import tensorflow as tf
from keras import ops

STRATEGIES = (
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
    tf.distribute.OneDeviceStrategy,
)
"""Those that a model can be trained under."""


def replicas(model):
    """How many replicas a model is trained on."""
    return 1 if model.made_under is None else model.made_under.num_replicas_in_sync


def check_strategy(model, steps_per_execution=1):
    """Raises ValueError where a model cannot be trained under the strategy it was made under.

    Args:
        model: The model.
        steps_per_execution: As for `compile`.
    """
    strategy = model.distribute_strategy
    if tf.distribute.has_strategy() and model.made_under is not tf.distribute.get_strategy():
        raise ValueError(
            "tf.distribute: the model was made outside the scope of this "
            f"{type(tf.distribute.get_strategy()).__name__}; make it (or load it) within the scope"
        )
    if model.made_under is not None and not isinstance(strategy, STRATEGIES):
        raise ValueError(
            f"tf.distribute: a model cannot be trained under {type(strategy).__name__}; make it "
            "under MirroredStrategy (the GPUs of one machine), MultiWorkerMirroredStrategy "
            "(several machines), OneDeviceStrategy, or no strategy"
        )
    if replicas(model) > 1 and steps_per_execution != 1:
        # TensorFlow 2.21 loses tensors of its loop over steps where it reduces over replicas.
        raise ValueError(
            f"steps_per_execution: expected 1 under {type(strategy).__name__} of "
            f"{replicas(model)} replicas, got {steps_per_execution}"
        )


def scope(model):
    """The scope of the strategy that a model was made under; of none, nothing."""
    return contextlib.nullcontext() if model.made_under is None else model.made_under.scope()


def is_chief(model):
    """Whether this process is the one to write files: of several workers, the first."""
    return model.made_under is None or model.made_under.extended.should_checkpoint


def is_multi_worker(strategy):
    """Whether a strategy has workers besides this process."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and (
        strategy.num_replicas_in_sync > len(strategy.extended.worker_devices)
    )


# === Data ===


_DATA = {
    "fit": (("x", "steps_per_epoch"), ("validation_data", "validation_steps")),
    "evaluate": (("x", "steps"),),
}
"""The arguments that hold batches, with those that say how many of them a pass takes."""


def run(model, method, args, kwargs):
    """Calls Keras' `fit` or `evaluate`; where there are several replicas, with whole batches.

    Args:
        model: The model.
        method: Keras' method.
        args, kwargs: What it was called with.

    Raises:
        ValueError: If the strategy cannot be used; or if there are several replicas, and the data
            are no `tf.data.Dataset`, which would have been split by Keras.
    """
    check_strategy(model)
    if replicas(model) == 1:
        return method(*args, **kwargs)
    strategy = model.made_under
    given = inspect.signature(method).bind(*args, **kwargs).arguments
    given.update(given.pop("kwargs", {}))
    for name, steps in _DATA[method.__name__]:
        batches = given.get(name)
        # In `fit` Keras evaluates by handing on what came from here.
        if batches is None or hasattr(batches, _WHOLE):
            continue
        if not isinstance(batches, tf.data.Dataset):
            raise ValueError(
                f"{name}: under {type(strategy).__name__} expected a tf.data.Dataset of whole "
                f"batches, such as Sessions.dataset gives, got {type(batches).__name__}"
            )
        count = int(batches.cardinality())
        if given.get(steps) is None and count > 0:
            batches, given[steps] = batches.repeat(), count
        given[name] = _hand_to_all(strategy, batches)
    return method(**given)


_WHOLE = "_keras_disrnn_whole"


def _hand_to_all(strategy, batches):
    def make(context):
        # The replicas of a worker take the elements of its data set in turn.
        copies = context.num_replicas_in_sync // context.num_input_pipelines
        return batches.flat_map(
            lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(copies)
        ).prefetch(copies)

    distributed = strategy.distribute_datasets_from_function(make)
    setattr(distributed, _WHOLE, True)
    return distributed


def local_batch(strategy, iterator):
    """The first batch of one of Keras' iterators over steps, as a replica of this process has."""
    _, _, batches = next(iter(iterator))
    return keras.tree.map_structure(
        lambda part: strategy.experimental_local_results(part)[0], next(batches)
    )


# === Within a step ===

_step = threading.local()


@contextlib.contextmanager
def share(batch):
    """Takes a replica's share of the sessions; inside it, noise is that of the whole batch.

    Args:
        batch: Structure of tensors or arrays with an axis of sessions first (or `None` in it).

    Yields:
        The share; outside a replica, or where there is one only, the batch.
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


def first_session():
    """The place in the whole batch of a share's first session; `None` where there is no share."""
    found = getattr(_step, "share", None)
    return None if found is None else found[0]


def draw_share(draw, shape, axis):
    """Draws for the sessions at hand, the same that they get where no batch is shared out.

    Args:
        draw: Function of a shape that gives draws of it.
        shape: The shape that is needed.
        axis: Which axis is that of sessions.
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


def sum_over_replicas(values):
    """Sums of a structure of tensors over all replicas, with gradients; elsewhere, the values."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    # Workers reduce to where a tensor says it is, and not every one does.
    values = tf.nest.map_structure(tf.identity, values)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def mean_over_replicas(mean, weight):
    """The mean over all replicas from the means of each.

    Args:
        mean: Of this replica, as Keras' losses give it: divided by the number of replicas.
        weight: What it was divided by otherwise.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return mean
    weight = ops.cast(weight, mean.dtype)
    total, weight = sum_over_replicas((mean * replicas * weight, weight))
    return ops.divide_no_nan(total, weight)


def scale_loss(loss):
    """A loss that all replicas have in common, as Keras wants it: such that their sum is it."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss / replicas


def with_sums(model, variables, compute):
    """What `compute` makes of variables that each replica has a part of, as sums of the parts.

    Args:
        model: The model whose variables they are.
        variables: Keras variables.
        compute: Function without arguments that gives a dict of scalars.
    """
    if replicas(model) == 1:
        return compute()
    strategy = model.made_under

    def sum_and_compute():
        sums = sum_over_replicas([ops.convert_to_tensor(variable) for variable in variables])
        with keras.StatelessScope(state_mapping=list(zip(variables, sums, strict=True))):
            return compute()

    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        results = sum_and_compute()
        if is_multi_worker(strategy):
            # Keras 3.15 takes means over the first axis of what workers return, as if it had one.
            results = {name: ops.reshape(result, (1,)) for name, result in results.items()}
        return results
    if not tf.executing_eagerly():
        return compute()
    # Between the steps, where a worker would read its own part alone.
    results = strategy.run(sum_and_compute)
    return {name: strategy.experimental_local_results(got)[0] for name, got in results.items()}
