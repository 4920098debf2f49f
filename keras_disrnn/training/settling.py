"""Whether training has settled."""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.training.plan import LEAST_EPOCHS

SETTLE_STEPS = 500
"""The default window. Agents with known graphs are recovered as well with it as with every step
(see benchmarks/settling.py)."""

SETTLED_LOSS = 1e-4
"""The largest decrease of the loss within a window that counts as settled."""

SETTLED_SIGMA = 0.02
"""The largest change of a noise level within a window that counts as settled."""


def default_settle_steps(steps_per_epoch: int) -> int:
    """Return the smallest window of at least `SETTLE_STEPS` steps and `LEAST_EPOCHS` epochs.

    Args:
        steps_per_epoch: Steps of an epoch.

    Example:
        >>> from keras_disrnn.training.settling import default_settle_steps
        >>> default_settle_steps(100), default_settle_steps(300)
        (500, 1200)
    """
    return steps_per_epoch * max(LEAST_EPOCHS, math.ceil(SETTLE_STEPS / steps_per_epoch))


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


def has_settled(losses: list[float] | np.ndarray, sigmas: list[list[float]] | np.ndarray) -> bool:
    """Decide whether training has settled within a window of epochs.

    It has settled if two conditions hold. The mean loss of the second half of the window is at most
    `SETTLED_LOSS` below that of the first half. No noise level differs by more than `SETTLED_SIGMA`
    between any epoch of the window and the last one.

    Args:
        losses: `(epochs,)`, the training loss of each epoch of the window, with penalties.
        sigmas: `(epochs + 1, bottlenecks)`, the noise levels before the window and after each of
            its epochs.

    Returns:
        Whether both conditions hold.

    Example:
        >>> from keras_disrnn.training.settling import has_settled
        >>> has_settled([0.6, 0.6, 0.6, 0.6], [[0.1]] * 5)
        True
        >>> has_settled([0.6, 0.6, 0.5, 0.5], [[0.1]] * 5)
        False
    """
    losses, sigmas = np.asarray(losses), np.asarray(sigmas)
    half = len(losses) // 2
    gain = losses[:half].mean() - losses[-half:].mean()
    return bool(
        gain <= SETTLED_LOSS and np.abs(sigmas - sigmas[-1]).max(initial=0) <= SETTLED_SIGMA
    )
