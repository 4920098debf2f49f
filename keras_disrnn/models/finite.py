"""The check that the weights of a model are finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


def find_bad_weight(model: keras.Model) -> str | None:
    """Return the name of the first weight with a NaN or an infinity, or `None`.

    Args:
        model: A built model.
    """
    # Figures load this module, and not TensorFlow.
    import keras

    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return str(weight.path)
    return None


def check_weights(model: keras.Model) -> None:
    """Refuse a model whose results would all be NaN.

    Args:
        model: A built model.

    Raises:
        ValueError: If a weight has a NaN or an infinity.

    Example:
        >>> import keras_disrnn
        >>> from keras_disrnn.models.finite import check_weights
        >>> model = keras_disrnn.DisRNNModel(num_latents=1, seed=0, name="m")
        >>> _ = model.core.cell.initial_latents.assign([float("nan")])
        >>> check_weights(model)
        Traceback (most recent call last):
            ...
        ValueError: m/core/cell/initial_latents: expected finite weights, got a NaN ...
    """
    name = find_bad_weight(model)
    if name is not None:
        raise ValueError(
            f"{name}: expected finite weights, got a NaN or an infinity; fit the model again"
        )
