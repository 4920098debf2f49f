"""Batches of sessions. The batch of a step depends only on the step and the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.forks import check_process

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from keras_disrnn.data.sessions import Sessions


def check_batches(batch_size: int | str | None, buckets: int) -> None:
    """Check the size of batches.

    Args:
        batch_size: See `Sessions.dataset` for this and the other.
        buckets: See there.

    Raises:
        ValueError: If one of them is not an integer in its range.
    """
    if batch_size is not None and batch_size != "all":
        check_integer("batch_size", batch_size, 1)
    check_integer("buckets", buckets, 1)


def make_batches(
    sessions: Sessions,
    *,
    batch_size: int | Literal["all"] | None,
    shuffle: bool,
    seed: int,
    start_step: int,
    steps: int | None,
    buckets: int,
) -> tf.data.Dataset:
    """Make the batches that `Sessions.dataset` describes.

    Args:
        sessions: The data set.
        batch_size: See `Sessions.dataset` for this and the others.
        shuffle: See there.
        seed: See there.
        start_step: See there.
        steps: See there.
        buckets: See there.

    Returns:
        A `tf.data.Dataset` of `(x, y, sample_weight)`.

    Raises:
        ValueError: If an argument is not an integer in its range.
        RuntimeError: In a process forked after TensorFlow had computed.
    """
    check_process()
    check_batches(batch_size, buckets)
    if steps is not None:
        check_integer("steps", steps, 1)
    check_integer("start_step", start_step, 0)
    check_integer("seed", seed, 0, 2**63 - 1)
    # Tables can be read without TensorFlow, which takes seconds to import.
    import tensorflow as tf

    count = len(sessions)
    size = count if batch_size is None or batch_size == "all" else min(batch_size, count)
    per_pass = -(-count // size)
    steps = per_pass if steps is None else steps

    target, weight = {"choice": sessions.choice}, {"choice": sessions.choice_weight}
    if sessions.num_signals:
        target["dopamine"], weight["dopamine"] = sessions.dopamine, sessions.dopamine_weight
    inputs: Any = sessions.features
    if sessions.latents is not None:
        inputs = {"features": sessions.features, "latents": sessions.latents}
    everything = (inputs, target, weight)
    # tf.data runs on the host, which can read aligned arrays in place.
    with tf.device("CPU:0"):
        if per_pass == 1:
            tensors = tf.nest.map_structure(tf.convert_to_tensor, everything)
            return tf.data.Dataset.from_tensors(tensors).repeat(steps)
        permute = _permutation(seed) if shuffle else lambda values, _: values
        if buckets > 1:
            batch = _bucketed(sessions.trials_per_session, everything, size, buckets, permute)
        else:
            batch = _plain(count, everything, size, permute)
        return tf.data.Dataset.range(start_step, start_step + steps).map(batch).prefetch(2)


def _gather(
    everything: Any, picked: tf.Tensor, size: int | None, time_steps: tf.Tensor | None = None
) -> Any:
    """Return the batch of some sessions.

    NumPy picks them. A tensor of all sessions would be a copy of them, one for each data set that
    is made, and TensorFlow would keep it for as long as a trace that read the data set.

    Args:
        everything: Structure of arrays of all sessions.
        picked: The positions of the sessions.
        size: Their number, if it is always the same.
        time_steps: The number of time steps of the batch; all if None.
    """
    import tensorflow as tf

    arrays = tf.nest.flatten(everything)
    most = arrays[0].shape[1]

    def pick(picked: np.ndarray, time_steps: np.ndarray) -> list[np.ndarray]:
        return [array[picked, :time_steps] for array in arrays]

    given = most if time_steps is None else time_steps
    types = [tf.as_dtype(array.dtype) for array in arrays]
    batch = tf.numpy_function(pick, [picked, given], types, stateful=False)
    for tensor, array in zip(batch, arrays, strict=True):
        tensor.set_shape([size, most if time_steps is None else None, *array.shape[2:]])
    return tf.nest.pack_sequence_as(everything, batch)


def _permutation(seed: int) -> Callable:
    """Return the function that permutes values by the seed and a number."""
    import tensorflow as tf

    def permute(values: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        pair = tf.stack([tf.constant(seed, tf.int64), number])
        # "philox" gives the same permutations on all devices.
        return tf.random.experimental.stateless_shuffle(values, seed=pair, alg="philox")

    return permute


def _plain(count: int, everything: Any, size: int, permute: Callable) -> Callable:
    """Return the function from a step to its batch."""
    import tensorflow as tf

    per_pass = -(-count // size)

    def batch(step: tf.Tensor) -> Any:
        order = permute(tf.range(count), step // per_pass)
        first = (step % per_pass) * size
        picked = order[first : first + size]
        return _gather(everything, picked, None if count % size else size)

    return batch


def _bucketed(
    lengths: np.ndarray, everything: Any, size: int, buckets: int, permute: Callable
) -> Callable:
    """Return the function from a step to its batch of sessions of similar length."""
    import numpy as np
    import tensorflow as tf

    by_length = np.argsort(lengths, kind="stable")
    per_pass = -(-len(lengths) // size)
    groups = np.array_split(np.arange(per_pass), min(buckets, per_pass))
    ends = np.minimum([(group[-1] + 1) * size for group in groups], len(lengths))
    # Lengths rise, so the last session of a bucket is its longest.
    time_steps = tf.constant(lengths[by_length[ends - 1]] + 1, tf.int64)
    firsts = tf.constant([group[0] * size for group in groups], tf.int64)
    ends = tf.constant(ends, tf.int64)
    bucket_of = tf.constant(np.repeat(np.arange(len(groups)), list(map(len, groups))), tf.int64)
    by_length = tf.constant(by_length, tf.int64)

    def batch(step: tf.Tensor) -> Any:
        # In each pass, number 0 permutes the batches, and number b + 1 permutes bucket b.
        number = (step // per_pass) * (len(groups) + 1)
        index = permute(tf.range(per_pass, dtype=tf.int64), number)[step % per_pass]
        bucket = bucket_of[index]
        first = firsts[bucket]
        inside = permute(by_length[first : ends[bucket]], number + bucket + 1)
        picked = inside[index * size - first :][:size]
        return _gather(everything, picked, None, time_steps[bucket])

    return batch
