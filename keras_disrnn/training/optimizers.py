"""The optimizer of a stage, from an optimizer, a name or nothing.

The module imports Keras on first use, because the command line reads its constants.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import keras

LearningRate: TypeAlias = "float | keras.optimizers.schedules.LearningRateSchedule"
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
    import keras

    from keras_disrnn.objectives.optimizer import FlatAdam

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
    number: Any = learning_rate
    if _is_schedule(learning_rate):
        return
    try:
        valid = not isinstance(number, bool | str) and 0.0 < float(number) < math.inf
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            "learning_rate: expected a number above 0 or a keras.optimizers.schedules schedule, "
            f"got {learning_rate!r}"
        )


def _is_schedule(learning_rate: Any) -> bool:
    # Who has a schedule has imported Keras.
    module = sys.modules.get("keras")
    return module is not None and isinstance(
        learning_rate, module.optimizers.schedules.LearningRateSchedule
    )


def _copy_schedule(learning_rate: Any) -> LearningRate:
    if _is_schedule(learning_rate):
        return type(learning_rate).from_config(learning_rate.get_config())
    return learning_rate
