"""A rule of `keras_disrnn.bandit.rules` as a recurrence over time steps, on tensors.

The state has the variables as its last axis, as the latents of `DisRNNModel` have. After the rule's
variables comes one more number, which is 0 before the first time step and 1 after it: the first
time step is all zeros and describes no trial.
"""

from __future__ import annotations

from keras import ops

from keras_disrnn.bandit.rules import ArrayOps, Rule
from keras_disrnn.layers.time_steps import scan_time_steps
from keras_disrnn.utils.types import Tensor


def _softmax(logits: Tensor) -> Tensor:
    """Compute the softmax over the first axis."""
    # Keras' softmax transposes for this axis. XLA cannot compile the gradient of that in a loop.
    weights = ops.exp(logits - ops.stop_gradient(ops.max(logits, axis=0)))
    return weights / ops.sum(weights, axis=0)


TENSORS = ArrayOps(ops.where, ops.concatenate, _softmax, ops.exp, ops.log)
"""The functions of Keras."""


def start_state(rule: Rule, num_arms: int, dtype: str) -> Tensor:
    """Return the state before the first time step, `(variables + 1,)`."""
    return ops.convert_to_tensor([*rule.initial_state(num_arms), 0.0], dtype=dtype)


def all_states(rule: Rule, seen: Tensor, real: Tensor, num_arms: int) -> Tensor:
    """Return the state after each time step, `(time steps, sessions, variables + 1)`.

    Args:
        rule: The rule.
        seen: `(time steps, sessions, observations)`.
        real: Boolean `(time steps, sessions)`; the state does not change where it is false.
        num_arms: Number of arms.
    """
    chosen, reward = _trial(seen, num_arms)
    start = start_state(rule, num_arms, seen.dtype)[:, None]
    start = ops.broadcast_to(start, (start.shape[0], ops.shape(seen)[1]))

    def move(state: Tensor, step: tuple[Tensor, ...]) -> Tensor:
        return _next(rule, state, *step)

    after = scan_time_steps(move, (ops.swapaxes(chosen, 0, 1), reward, real), start)
    return ops.swapaxes(after, 1, 2)


def next_state(rule: Rule, seen: Tensor, state: Tensor) -> Tensor:
    """Return the state after a time step.

    Args:
        rule: The rule.
        seen: The time step, `(sessions, observations)`, not padding.
        state: The state before it, `(sessions, variables + 1)`.
    """
    state = ops.moveaxis(state, -1, 0)
    chosen, reward = _trial(seen, rule.num_arms(state[:-1]))
    return ops.moveaxis(_next(rule, state, chosen, reward, True), 0, -1)


def prediction_error(rule: Rule, seen: Tensor, before: Tensor) -> Tensor:
    """Return the prediction error of the trial that a time step describes, `(...)`.

    Args:
        rule: The rule.
        seen: The time step, `(..., observations)`.
        before: The state before it, `(..., variables + 1)`.
    """
    variables = ops.moveaxis(before[..., :-1], -1, 0)
    chosen, reward = _trial(seen, rule.num_arms(variables))
    return rule.update(variables, chosen, reward, TENSORS)[1]


def choice_logits(rule: Rule, state: Tensor) -> Tensor:
    """Return the logits of the next choice, `(..., arms)`, from the state."""
    variables = ops.moveaxis(state[..., :-1], -1, 0)
    return ops.moveaxis(rule.logits(variables, TENSORS), 0, -1)


def _next(rule: Rule, state: Tensor, chosen: Tensor, reward: Tensor, real: Tensor | bool) -> Tensor:
    """Return the state after a time step, with the variables as the first axis."""
    variables, begun = state[:-1], state[-1:]
    updated, _ = rule.update(variables, chosen, reward, TENSORS)
    updated = ops.where(ops.logical_and(begun > 0, real), updated, variables)
    begun = ops.where(real, ops.ones_like(begun), begun)
    return ops.concatenate([updated, begun])


def _trial(seen: Tensor, num_arms: int) -> tuple[Tensor, Tensor]:
    """Return which arm was chosen, `(arms, ...)`, and the reward, `(...)`."""
    arms = ops.arange(num_arms, dtype=seen.dtype)
    arms = ops.reshape(arms, (-1, *[1] * (len(seen.shape) - 1)))
    return ops.equal(seen[..., 0], arms), seen[..., 1]
