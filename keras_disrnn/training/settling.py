"""Whether training has settled."""

import math

import keras
import numpy as np

SETTLE_STEPS = 500
"""The window that agents with known graphs are found as well with as with every step
(benchmarks/settling.py)."""


LEAST_EPOCHS = 4
"""A window of fewer epochs tells nothing of a trend."""


def default_settle_steps(steps_per_epoch):
    """The least window of at least `SETTLE_STEPS` steps and `LEAST_EPOCHS` whole epochs."""
    return steps_per_epoch * max(LEAST_EPOCHS, math.ceil(SETTLE_STEPS / steps_per_epoch))


SETTLED_LOSS = 1e-4


SETTLED_SIGMA = 0.02


def trained_sigmas(model):
    """The noise level of each bottleneck that trains, a list of numbers."""
    return [
        float(sigma)
        for weight in model.trainable_variables
        if weight.name == "raw_sigma"
        for sigma in np.abs(keras.ops.convert_to_numpy(weight)).ravel()
    ]


def has_settled(losses, sigmas):
    """Whether training has come to rest in a window of epochs.

    It has if the mean loss of the window's second half is no more than `SETTLED_LOSS` below that of
    its first half, and if no bottleneck's sigma differs by more than `SETTLED_SIGMA` between any
    epoch of the window and its last.

    Args:
        losses: `(epochs,)`, the training loss of each epoch of the window, penalties included.
        sigmas: `(epochs + 1, bottlenecks)`, the noise levels before the window and after each
            epoch of it.
    """
    losses, sigmas = np.asarray(losses), np.asarray(sigmas)
    half = len(losses) // 2
    gain = losses[:half].mean() - losses[-half:].mean()
    return bool(
        gain <= SETTLED_LOSS and np.abs(sigmas - sigmas[-1]).max(initial=0) <= SETTLED_SIGMA
    )
