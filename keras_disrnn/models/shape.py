"""The shape of `DisRNNModel`: the smallest sizes of its parts. The module imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_disrnn.utils.checks import check_integer

SMALLEST = {
    "num_latents": 1,
    "update_units": 1,
    "num_update_layers": 0,
    "choice_units": 1,
    "num_choice_layers": 0,
    "dopamine_units": 1,
    "num_dopamine_layers": 0,
}
"""Arguments of the model, and the smallest value of each."""


def check_shape(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of `DisRNNModel` that give its shape.

    Args:
        arguments: The arguments by name. Others may be among them.

    Raises:
        ValueError: If a size is not an integer in its range.

    Example:
        >>> from keras_disrnn.models.shape import SMALLEST, check_shape
        >>> check_shape({**SMALLEST, "choice_units": 0})
        Traceback (most recent call last):
            ...
        ValueError: choice_units: expected a whole number of at least 1, got 0
    """
    for name, least in SMALLEST.items():
        check_integer(name, arguments[name], least)
