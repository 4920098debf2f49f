"""A rule of `keras_disrnn.bandit.rules` as a recurrence over time steps, on tensors.

The state has the variables as its last axis, as the latents of `DisRNNModel` have. After the rule's
variables comes one more number, which is 0 before the first time step and 1 after it: the first
time step is all zeros and describes no trial.
"""

from __future__ import annotations

from keras import ops

from keras_disrnn.bandit.rules import ArrayOps, Rule
from keras_disrnn.utils.types import Tensor


def _softmax(logits: Tensor) -> Tensor:
    """Compute the softmax over the first axis."""
    # Keras' softmax transposes unless the axis is the last; see `_move_axis`.
    weights = ops.exp(logits - ops.stop_gradient(ops.max(logits, axis=0)))
    return weights / ops.sum(weights, axis=0)


TENSORS = ArrayOps(ops.where, ops.concatenate, _softmax)
"""The functions of Keras."""


def start_state(rule: Rule, num_arms: int, dtype: str) -> Tensor:
    """Return the state before the first time step, `(variables + 1,)`."""
    start = [*rule.initial_state(num_arms), 0.0]
    return ops.convert_to_tensor(start, dtype=dtype)


def next_state(rule: Rule, seen: Tensor, state: Tensor) -> Tensor:
    """Return the state after a time step.

    Args:
        rule: The rule.
        seen: The time step, `(..., observations)`, not padding.
        state: The state before it, `(..., variables + 1)`.
    """
    variables = _variables_first(state)
    updated, _ = rule.update(variables, *_trial(rule, seen, variables), TENSORS)
    begun = state[..., -1:]
    updated = ops.where(begun > 0, _move_axis(updated, 0, -1), state[..., :-1])
    return ops.concatenate([updated, ops.ones_like(begun)], axis=-1)


def prediction_error(rule: Rule, seen: Tensor, before: Tensor) -> Tensor:
    """Return the prediction error of the trial that a time step describes, `(...)`.

    Args:
        rule: The rule.
        seen: The time step, `(..., observations)`.
        before: The state before it, `(..., variables + 1)`.
    """
    variables = _variables_first(before)
    return rule.prediction_error(variables, *_trial(rule, seen, variables), TENSORS)


def choice_logits(rule: Rule, state: Tensor) -> Tensor:
    """Return the logits of the next choice, `(..., arms)`, from the state."""
    return _move_axis(rule.logits(_variables_first(state), TENSORS), 0, -1)


def _variables_first(state: Tensor) -> Tensor:
    return _move_axis(state[..., :-1], -1, 0)


def _move_axis(values: Tensor, source: int, destination: int) -> Tensor:
    """Move one axis of static size, as `moveaxis` does."""
    # XLA cannot compile the gradient of a transpose within a loop.
    return ops.stack(ops.unstack(values, axis=source), axis=destination)


def _trial(rule: Rule, seen: Tensor, variables: Tensor) -> tuple[Tensor, Tensor]:
    """Return which arm was chosen, `(arms, ...)`, and the reward, `(...)`."""
    arms = ops.arange(rule.num_arms(variables), dtype=seen.dtype)
    arms = ops.reshape(arms, (-1, *[1] * (len(seen.shape) - 1)))
    return ops.equal(seen[..., 0], arms), seen[..., 1]
