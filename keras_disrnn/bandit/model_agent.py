"""Fitted models as agents: any model that predicts the next choice can play."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_disrnn.bandit.agents import Agent
from keras_disrnn.bandit.rules import softmax
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.types import Tensor

SESSIONS_AT_ONCE = 2048
"""Sessions of one compiled step. With a single compiled program, rounding is always the same."""

EDGE = 64
"""Extra sessions on both sides of a step, which are not played. A vectorised loop may round its
first and last elements in another way than the others."""


class ModelAgent:
    """An `Agent` that plays by the choice probabilities of a model, without noise.

    Its choices are drawn from the softmax of the model's logits. The choice and the reward of each
    trial are the model's next time step. Its dopamine is the model's prediction for the trial, or
    NaN for a model without dopamine. Its variables are the model's latents, `z1`, `z2`, ..., and
    the logits of the next choice, `logit_0`, ..., by arm.

    XLA compiles the step. It runs in the model's own precision, and the rest in float64.

    Args:
        model: A built `DisRNNModel`, a fitted baseline, or a SavedModel of either from
            `tensorflow.saved_model.load`. Of a SavedModel only `step` and `initial_state` are used.
        name: The subject of the sessions; by default the name of the model's class.
        signal: Which dopamine signal is the agent's dopamine, from 0.
        subject: For a model of several subjects, the subject that plays: its name or its index. A
            SavedModel has no names, so it needs the index.

    Raises:
        ValueError: If the model has no weights, needs more than choice and reward, or has no such
            signal or subject.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn import bandit
    >>> agent = bandit.ModelAgent(keras_disrnn.baselines.GRU(2), name="mouse")
    >>> agent.variable_names(2)
    ('z1', 'z2', 'logit_0', 'logit_1')
    """

    def __init__(
        self,
        model: Any,
        name: str | None = None,
        *,
        signal: int = 0,
        subject: str | int | None = None,
    ) -> None:
        exported = not hasattr(model, "num_observations")
        if not exported and not model.built:
            raise ValueError("model: expected a model with weights, got one without; build it")
        self.name = name or ("saved_model" if exported else type(model).__name__)
        if exported:
            _check_endpoints(model)
            initial = model.initial_state(tf.constant(1))["latents"]
            _, inputs = model.signatures["step"].structured_input_signature
            observations = inputs["features"].shape[-1]
        else:
            observations = model.num_observations
            initial = tf.convert_to_tensor(model.initial_latents)[None]
        names = getattr(model, "subjects", ())
        if names and subject is None:
            raise ValueError(f"subject: expected one of {_listed(names)} to play, got none")
        if subject is not None:
            subject = _index_of(subject, names, exported)
        if observations - (subject is not None) != 2:
            raise ValueError(
                "model: expected one with 2 observations, choice and reward (and the index of the "
                "subject in a model of several subjects), because environments give no others, got "
                f"{observations} observations"
            )

        def features(rows: Tensor) -> Tensor:
            parts = [rows]
            if subject is not None:
                parts.append(tf.fill(tf.shape(rows[:, :1]), subject))
            return tf.concat([tf.cast(part, initial.dtype) for part in parts], axis=1)

        first = model.step(features(tf.zeros((1, 2), initial.dtype)), initial)
        untrained = getattr(model, "untrained_outputs", ())
        if "choice" in untrained:
            raise ValueError(
                "model: expected a trained choice readout, got one that was never trained"
            )
        signals = 0
        if "dopamine" in first and "dopamine" not in untrained:
            signals = first["dopamine"].shape[-1]
        check_integer("signal", signal, 0, max(signals - 1, 0))
        self._num_latents = first["latents"].shape[-1]
        self._num_arms = first["choice"].shape[-1]
        self._first = np.concatenate([first["latents"][0], first["choice"][0]]).astype(np.float64)
        self._dtype = initial.dtype
        self._model = model

        @tf.function(jit_compile=True)
        def step(rows: Tensor, latents: Tensor) -> Tensor:
            outputs = model.step(features(tf.transpose(rows)), tf.transpose(latents))
            columns = [outputs["latents"], outputs["choice"]]
            if signals:
                columns.append(outputs["dopamine"][:, signal : signal + 1])
            return tf.transpose(tf.concat(columns, axis=1))

        self._step = step

    def variable_names(self, num_arms: int) -> tuple[str, ...]:
        if num_arms != self._num_arms:
            raise ValueError(
                f"num_arms: expected {self._num_arms} arms for {self.name}, got {num_arms}"
            )
        latents = (f"z{index + 1}" for index in range(self._num_latents))
        return (*latents, *(f"logit_{arm}" for arm in range(num_arms)))

    def initial_state(self, num_sessions: int, num_arms: int) -> np.ndarray:
        return np.repeat(self._first[:, None], num_sessions, axis=1)

    def choice_probability(self, state: np.ndarray) -> np.ndarray:
        return softmax(state[self._num_latents :])

    def update(
        self, state: np.ndarray, choice: np.ndarray, reward: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        sessions = len(choice)
        width = self._num_latents + self._num_arms
        new = np.empty((width + 1, sessions))
        new[-1] = np.nan
        padded = SESSIONS_AT_ONCE + 2 * EDGE
        rows = np.zeros((2, padded), self._dtype.as_numpy_dtype)
        latents = np.zeros((self._num_latents, padded), self._dtype.as_numpy_dtype)
        for start in range(0, sessions, SESSIONS_AT_ONCE):
            count = min(SESSIONS_AT_ONCE, sessions - start)
            part = slice(start, start + count)
            inner = slice(EDGE, EDGE + count)
            rows[0, inner], rows[1, inner] = choice[part], reward[part]
            latents[:, inner] = state[: self._num_latents, part]
            # tf.constant copies. TensorFlow may read an array in place even after the call.
            found = self._step(tf.constant(rows), tf.constant(latents)).numpy()
            new[: len(found), part] = found[:, inner]
        return new[:width], new[-1]


def agent_from_model(
    model: Any, name: str | None = None, *, signal: int = 0, subject: str | int | None = None
) -> Agent:
    """Return the agent of a fitted model, for `simulate`.

    A cognitive baseline becomes an agent with the same equations (`CognitiveModel.agent`), which
    plays in NumPy and several times faster. Any other model becomes a `ModelAgent`.

    Args:
        model: As for `ModelAgent`.
        name: As for `ModelAgent`.
        signal: As for `ModelAgent`.
        subject: As for `ModelAgent`.

    Returns:
        An `Agent`.

    Raises:
        ValueError: As for `ModelAgent`, or if a baseline is not fitted.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn import bandit
    >>> model = keras_disrnn.baselines.QLearning(alpha=0.3, kappa_1=1.5, kappa_2=1.5)
    >>> agent = bandit.agent_from_model(model, "mouse")
    >>> played = bandit.simulate(agent, bandit.BlockBandit(), num_sessions=3, num_trials=20, seed=0)
    >>> len(played.to_table())
    60
    """
    if hasattr(model, "agent"):
        if subject is not None:
            raise ValueError(
                f"subject: expected none for a model without subjects, got {subject!r}"
            )
        return model.agent(name, signal=signal)
    return ModelAgent(model, name, signal=signal, subject=subject)


def _index_of(subject: str | int, names: tuple[str, ...], exported: bool) -> int:
    """Return the index of a subject, which is given by name or by index."""
    if subject in names:
        return names.index(subject)
    if isinstance(subject, str) and subject.isdecimal() and exported:
        subject = int(subject)
    last = len(names) - 1
    if isinstance(subject, int) and subject >= 0 and (exported or subject <= last):
        return subject
    if exported:
        raise ValueError(f"subject: expected the index of a subject, from 0, got {subject!r}")
    if not names:
        raise ValueError(f"subject: expected none for a model without subjects, got {subject!r}")
    raise ValueError(f"subject: expected one of {_listed(names)}, got {subject!r}")


def _listed(names: tuple[str, ...]) -> str:
    few = ", ".join(map(repr, names[:10]))
    return f"the model's {len(names)} subjects, {few}{', ...' if len(names) > 10 else ''}"


def _check_endpoints(model: Any) -> None:
    for endpoint in ("step", "initial_state"):
        if not hasattr(model, endpoint):
            raise ValueError(
                "model: expected a DisRNNModel, a baseline or a SavedModel with the endpoints step "
                f"and initial_state, got a {type(model).__name__} without {endpoint}"
            )
