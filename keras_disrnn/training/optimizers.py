"""The optimizer of a stage, from an optimizer, a name or nothing."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import keras

from keras_disrnn.objectives.optimizer import FlatAdam

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule
"""A number, or a schedule of Keras."""

LEARNING_RATE = 1e-3
"""The default learning rate."""

CLIP_NORM = 1.0
"""The default largest global norm of the gradients."""


def make_optimizer(
    optimizer: keras.optimizers.Optimizer | str | None,
    *,
    learning_rate: LearningRate = LEARNING_RATE,
    clip_norm: float = CLIP_NORM,
) -> keras.optimizers.Optimizer:
    """Create an optimizer in its initial state.

    Args:
        optimizer: A Keras optimizer to copy; the name of one; or `None` for `FlatAdam`.
        learning_rate: A number or a schedule, for the default optimizer and one given by name.
        clip_norm: The largest global norm of the gradients, for the same.

    Returns:
        A new optimizer without variables of any model.

    Raises:
        ValueError: If the optimizer is unknown. Or if it is an object, which already has a
            learning rate and a norm, and other values are given.
    """
    if isinstance(optimizer, keras.optimizers.Optimizer):
        for name, given, default in (
            ("learning_rate", learning_rate, LEARNING_RATE),
            ("clip_norm", clip_norm, CLIP_NORM),
        ):
            if given != default:
                raise ValueError(
                    f"{name}: expected {default}, the default, because the optimizer object has "
                    f"its own, got {given}"
                )
        return type(optimizer).from_config(optimizer.get_config())
    arguments: dict[str, Any] = {
        "learning_rate": _copy_schedule(learning_rate),
        "global_clipnorm": clip_norm,
    }
    if optimizer is None:
        return FlatAdam(**arguments)
    try:
        kind = type(keras.optimizers.get(optimizer))
    except (ValueError, TypeError):
        raise ValueError(
            "optimizer: expected a Keras optimizer, the name of one, or None for FlatAdam, "
            f"got {optimizer!r}"
        ) from None
    return kind(**arguments)


def describe_optimizer(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Return the kind and the configuration of an optimizer, to compare it with another.

    Args:
        optimizer: A Keras optimizer.

    Returns:
        A dict in JSON's types.
    """
    config = {k: v for k, v in optimizer.get_config().items() if k != "name"}
    return {"class": type(optimizer).__name__, **config}


def check_learning_rate(learning_rate: LearningRate) -> None:
    """Refuse a value that is not a learning rate.

    Args:
        learning_rate: A number above 0, or a schedule of Keras.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return
    number = not isinstance(learning_rate, bool | str)
    try:
        number = number and 0.0 < float(learning_rate) < math.inf
    except (TypeError, ValueError):
        number = False
    if not number:
        raise ValueError(
            "learning_rate: expected a number above 0 or a keras.optimizers.schedules schedule, "
            f"got {learning_rate!r}"
        )


def _copy_schedule(learning_rate: LearningRate) -> LearningRate:
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return type(learning_rate).from_config(learning_rate.get_config())
    return learning_rate
