"""The log likelihood of choices on the CPU: the forward pass, and the exact backward pass."""

from __future__ import annotations

import ctypes

import numpy as np
from tensorflow import Tensor

from keras_disrnn.native import library
from keras_disrnn.native.arrays import address, empty
from keras_disrnn.native.tensors import differentiable


def _call(backward: bool, choice: np.ndarray, logits: np.ndarray, **arrays: np.ndarray) -> None:
    native = library.require()
    problem = library.Likelihood(
        count=choice.size,
        arms=logits.shape[-1],
        threads=library.thread_count(),
        instructions=native.disrnn_best_instructions(),
        choice=address(choice),
        logits=address(logits),
        **{name: address(array) for name, array in arrays.items()},
    )
    wide = int(logits.dtype == np.float64)
    library.check(native.disrnn_likelihood(ctypes.byref(problem), wide, int(backward)))


def _forward(logits: np.ndarray, choice: np.ndarray) -> list[np.ndarray]:
    log_p = empty(choice.shape, logits.dtype)
    choice, logits = (np.ascontiguousarray(array) for array in (choice, logits))
    _call(False, choice, logits, log_p=log_p)
    return [log_p]


def _backward(
    logits: np.ndarray, choice: np.ndarray, _: np.ndarray, upstream: np.ndarray
) -> list[np.ndarray]:
    gradient = empty(logits.shape, logits.dtype)
    choice, logits, upstream = (np.ascontiguousarray(array) for array in (choice, logits, upstream))
    _call(True, choice, logits, dlog_p=upstream, dlogits=gradient)
    return [gradient]


def run_log_likelihood(choice: Tensor, logits: Tensor) -> Tensor:
    """Compute `log p(choice)`, with gradients, in eager mode or in a graph.

    Args:
        choice: Tensor of arms `(...)`, counted from 0, in the dtype of the logits.
        logits: Tensor `(..., arms)`.

    Returns:
        A tensor `(...)` in nats.
    """
    (log_p,) = differentiable(_forward, _backward, [logits], [choice], [logits.shape[:-1]])
    return log_p
