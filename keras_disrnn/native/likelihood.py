"""The log likelihood of choices on the CPU: forward and exact backward."""

import ctypes

import numpy as np

from keras_disrnn.native.library import (
    Likelihood,
    address,
    check,
    differentiable,
    empty,
    require,
    thread_count,
)


def _call(backward, choice, logits, **arrays):
    library = require()
    problem = Likelihood(
        count=choice.size,
        arms=logits.shape[-1],
        threads=thread_count(),
        instructions=library.disrnn_best_instructions(),
        choice=address(choice),
        logits=address(logits),
        **{name: address(array) for name, array in arrays.items()},
    )
    wide = int(logits.dtype == np.float64)
    check(library.disrnn_likelihood(ctypes.byref(problem), wide, int(backward)))


def _forward(logits, choice):
    log_p = empty(choice.shape, logits.dtype)
    choice, logits = (np.ascontiguousarray(array) for array in (choice, logits))
    _call(False, choice, logits, log_p=log_p)
    return [log_p]


def _backward(logits, choice, _, upstream):
    gradient = empty(logits.shape, logits.dtype)
    choice, logits, upstream = (np.ascontiguousarray(array) for array in (choice, logits, upstream))
    _call(True, choice, logits, dlog_p=upstream, dlogits=gradient)
    return [gradient]


def run_log_likelihood(choice, logits):
    """`log p(choice)`, differentiably, in eager mode or in a graph.

    Args:
        choice: Tensor of arms from 0, `(...)`, of the logits' dtype.
        logits: Tensor `(..., arms)`.

    Returns:
        A tensor `(...)`.
    """
    (log_p,) = differentiable(_forward, _backward, [logits], [choice], [logits.shape[:-1]])
    return log_p
