"""Whether training has settled."""

from __future__ import annotations

import keras
import numpy as np

from keras_disrnn.models.disrnn_model import DisRNNModel


def trained_sigmas(model: DisRNNModel) -> list[float]:
    """Return the noise level of each bottleneck that trains.

    Args:
        model: A `DisRNNModel`.

    Example:
        >>> import keras_disrnn
        >>> from keras_disrnn.training.settling import trained_sigmas
        >>> len(trained_sigmas(keras_disrnn.DisRNNModel(num_latents=2, num_signals=0)))
        12
    """
    return [
        float(sigma)
        for weight in model.trainable_variables
        if weight.name == "raw_sigma"
        for sigma in np.abs(keras.ops.convert_to_numpy(weight)).ravel()
    ]


def has_settled(
    losses: list[float] | np.ndarray,
    sigmas: list[list[float]] | np.ndarray,
    *,
    settle_loss: float,
    settle_sigma: float,
) -> bool:
    """Decide whether training has settled within a window of epochs.

    It has settled if two conditions hold. The mean loss of the second half of the window is at most
    `settle_loss` below that of the first half. No noise level differs by more than `settle_sigma`
    between any epoch of the window and the last one.

    Args:
        losses: `(epochs,)`, the training loss of each epoch of the window, with penalties.
        sigmas: `(epochs + 1, bottlenecks)`, the noise levels before the window and after each of
            its epochs.
        settle_loss: The largest decrease of the loss that counts as settled.
        settle_sigma: The largest change of a noise level that counts as settled.

    Returns:
        Whether both conditions hold.

    Example:
        >>> from keras_disrnn.training.settling import has_settled
        >>> has_settled([0.6, 0.6, 0.6, 0.6], [[0.1]] * 5, settle_loss=1e-4, settle_sigma=0.02)
        True
        >>> has_settled([0.6, 0.6, 0.5, 0.5], [[0.1]] * 5, settle_loss=1e-4, settle_sigma=0.02)
        False
    """
    losses, sigmas = np.asarray(losses), np.asarray(sigmas)
    half = len(losses) // 2
    gain = losses[:half].mean() - losses[-half:].mean()
    return bool(gain <= settle_loss and np.abs(sigmas - sigmas[-1]).max(initial=0) <= settle_sigma)
