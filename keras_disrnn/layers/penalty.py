"""Penalties that a layer adds to the loss of any Keras model."""

from __future__ import annotations

from typing import overload

import keras
from keras import ops

from keras_disrnn.utils.checks import check_number
from keras_disrnn.utils.types import Tensor


@overload
def check_weight(name: str, weight: float) -> float: ...
@overload
def check_weight(name: str, weight: None) -> None: ...
def check_weight(name: str, weight: float | None) -> float | None:
    """Check that a penalty weight is a finite number of at least 0, or `None` for no penalty.

    Raises:
        ValueError: If it is anything else.
    """
    return None if weight is None else check_number(name, weight, least=0)


def average_cost(cost: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average a cost over the time steps that are not skipped.

    Args:
        cost: The cost of each time step, `(...)`.
        mask: Boolean `(...)`. False marks the time steps to leave out.

    Returns:
        A scalar tensor of the cost's dtype; 0 if all time steps are skipped.
    """
    if mask is None:
        return ops.mean(cost)
    total = ops.sum(ops.where(mask, cost, ops.zeros_like(cost)))
    return ops.divide_no_nan(total, ops.sum(ops.cast(mask, cost.dtype)))


def add_penalty(layer: keras.layers.Layer, weight: float | None, cost: Tensor) -> None:
    """Add a weighted cost, a scalar tensor, to the losses of a layer.

    A frozen layer adds nothing, and neither does a weight of `None`.
    """
    if weight is not None and layer.trainable:
        # Keras sums all losses in its default dtype, not in the dtype of the layer.
        layer.add_loss(ops.cast(weight * cost, keras.config.floatx()))
