"""Fitted models as agents: whatever predicts the next choice can play."""

import numpy as np
import tensorflow as tf

from keras_disrnn.bandit.agents import softmax
from keras_disrnn.utils.checks import check_integer

SESSIONS_AT_ONCE = 2048
"""A step is compiled for so many sessions, whichever are played: one program rounds in one way."""

EDGE = 64
"""And for so many more on both sides, which nobody plays: a vectorised loop may round its first and
last elements in another way than those between them."""


class ModelAgent:
    """An `Agent` that plays by the choice probabilities of a model, without noise.

    Its choice is drawn from the softmax of the model's logits, each trial's choice and reward are
    the model's next row, and its dopamine is the model's prediction for the trial (NaN where the
    model predicts none). Its variables are the model's latents, `z1`, `z2`, ..., and the logits of
    the next choice, `logit_0`, ..., by arm.

    The step is compiled by XLA. It computes in the model's own precision, `simulate` in float64.

    Args:
        model: A built `DisRNNModel`, a fitted baseline, or a SavedModel of either, as
            `tensorflow.saved_model.load` gives it: of the last only `step` and `initial_state`
            are used.
        name: The subject of the sessions; by default the name of the model's class.
        signal: Which dopamine signal is its dopamine, from 0.
        subject: Of a model of several subjects, the one that plays: its name, or its index (of a
            SavedModel, which has no names, its index).

    Raises:
        ValueError: If the model has no weights, reads more than choice and reward, or has no such
            signal or subject.
    """

    def __init__(self, model, name=None, signal=0, subject=None):
        exported = not hasattr(model, "num_observations")
        if not exported and not model.built:
            # A baseline builds itself, and refuses if it has not been fitted.
            if not hasattr(model, "advance"):
                raise ValueError("model: it has no weights yet; call it or fit it before it plays")
            model.build()
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
            raise ValueError(
                f"subject: expected one of the model's {len(names)} subjects, "
                f"{', '.join(map(repr, names[:10]))}{', ...' if len(names) > 10 else ''}, to play, "
                "got none"
            )
        if subject is not None:
            subject = _index_of(subject, names, exported)
        if observations - (subject is not None) != 2:
            raise ValueError(
                "model: expected one that reads choice and reward (2 observations; of several "
                "subjects, also the index of the one that plays), as no environment gives more, "
                f"got {observations} observations"
            )

        def features(rows):
            told = [rows] if subject is None else [rows, tf.fill(tf.shape(rows[:, :1]), subject)]
            return tf.concat([tf.cast(part, initial.dtype) for part in told], axis=1)

        first = model.step(features(tf.zeros((1, 2), initial.dtype)), initial)
        signals = first["dopamine"].shape[-1] if "dopamine" in first else 0
        check_integer("signal", signal, 0, max(signals - 1, 0))
        self._latents = first["latents"].shape[-1]
        self._arms = first["choice"].shape[-1]
        self._first = np.concatenate([first["latents"][0], first["choice"][0]]).astype(np.float64)
        self._dtype = initial.dtype
        self._model = model

        @tf.function(jit_compile=True)
        def step(rows, latents):
            outputs = model.step(features(tf.transpose(rows)), tf.transpose(latents))
            columns = [outputs["latents"], outputs["choice"]]
            if signals:
                columns.append(outputs["dopamine"][:, signal : signal + 1])
            return tf.transpose(tf.concat(columns, axis=1))

        self._step = step

    def variable_names(self, arms):
        if arms != self._arms:
            raise ValueError(f"{self.name} plays bandits of {self._arms} arms, got {arms}")
        latents = (f"z{index + 1}" for index in range(self._latents))
        return (*latents, *(f"logit_{arm}" for arm in range(arms)))

    def initial_state(self, sessions, arms):
        return np.repeat(self._first[:, None], sessions, axis=1)

    def choice_probability(self, state):
        return softmax(state[self._latents :])

    def update(self, state, choice, reward):
        sessions = len(choice)
        width = self._latents + self._arms
        new = np.empty((width + 1, sessions))
        new[-1] = np.nan
        padded = SESSIONS_AT_ONCE + 2 * EDGE
        rows = np.zeros((2, padded), self._dtype.as_numpy_dtype)
        latents = np.zeros((self._latents, padded), self._dtype.as_numpy_dtype)
        for start in range(0, sessions, SESSIONS_AT_ONCE):
            count = min(SESSIONS_AT_ONCE, sessions - start)
            part = slice(start, start + count)
            inner = slice(EDGE, EDGE + count)
            rows[0, inner], rows[1, inner] = choice[part], reward[part]
            latents[:, inner] = state[: self._latents, part]
            # TensorFlow may read an array in place, also after the call; a copy is its own.
            found = self._step(tf.constant(rows), tf.constant(latents)).numpy()
            new[: len(found), part] = found[:, inner]
        return new[:width], new[-1]


def agent_from_model(model, name=None, signal=0, subject=None):
    """The agent of a fitted model, for `simulate`.

    A cognitive baseline becomes the agent of the same equations (`CognitiveModel.agent`), which
    plays in NumPy and several times faster; everything else becomes a `ModelAgent`.

    >>> agent = agent_from_model(model)
    >>> table = simulate(agent, BlockBandit(), sessions=300, trials=200, seed=0).to_table()

    Args:
        model, name, signal, subject: As for `ModelAgent`.

    Returns:
        An `Agent`.

    Raises:
        ValueError: As `ModelAgent`, or if a baseline has not been fitted.
    """
    if hasattr(model, "agent"):
        if subject is not None:
            raise ValueError(f"subject: the model has no subjects, got {subject!r}")
        return model.agent(name, signal)
    return ModelAgent(model, name, signal, subject)


def _index_of(subject, names, exported):
    """The index of a subject given by name or index."""
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
        raise ValueError(f"subject: the model has no subjects, got {subject!r}")
    raise ValueError(
        f"subject: expected one of the model's {len(names)} subjects, "
        f"{', '.join(map(repr, names[:10]))}{', ...' if len(names) > 10 else ''}, got {subject!r}"
    )


def _check_endpoints(model):
    for endpoint in ("step", "initial_state"):
        if not hasattr(model, endpoint):
            raise ValueError(
                "model: expected a DisRNNModel, a baseline or a SavedModel with the endpoints step "
                f"and initial_state, got a {type(model).__name__} without {endpoint}"
            )
