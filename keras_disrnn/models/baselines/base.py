"""What every baseline shares: the calls of `DisRNNModel`, over a state of its own."""

import keras
from keras import ops

from keras_disrnn.layers.time_steps import get_previous_latents, remove_padding
from keras_disrnn.objectives.losses import ChoiceCrossentropy, DopamineMSE
from keras_disrnn.objectives.metrics import (
    DopamineMeanSquaredError,
    DopamineR2,
    NormalizedLikelihood,
)
from keras_disrnn.utils.checks import check_integer

TARGETS = ("choice", "dopamine", "joint")
"""What a baseline can be fitted to: choices only, dopamine only, or both at once."""


class Baseline(keras.Model):
    """A model that carries a state through a session and reads choice and dopamine off it.

    It is called, evaluated, saved and exported (`keras_disrnn.export.export`) as `DisRNNModel` is.
    A subclass says how the state moves and how it is read: `initial_latents`, `latents`, `advance`,
    `read_choice` and `read_dopamine`.

    Args:
        num_observations: Observations in a row, of which the first two are choice and reward.
        num_arms: Number of arms, at least 2.
        num_signals: Number of dopamine signals; 0 for a model of choice alone.

    Call arguments:
        inputs: Features `(sessions, rows, observations)`; a row of NaN is padding. Or a dict of
            `features` and `latents`, as `DisRNNModel` takes it.

    Returns:
        A dict: `choice`, logits `(sessions, rows, arms)` of the choice after each row, and, unless
        `signals` is 0, `dopamine`, `(sessions, rows, signals)`, the response to the trial that the
        row describes.
    """

    def __init__(self, num_observations=2, num_arms=2, num_signals=1, **kwargs):
        super().__init__(**kwargs)
        check_integer("num_observations", num_observations, 2)
        check_integer("num_arms", num_arms, 2)
        check_integer("num_signals", num_signals, 0)
        self.num_observations = num_observations
        self.num_arms = num_arms
        self.num_signals = num_signals

    # === The state and what is read off it ===

    @property
    def initial_latents(self):
        """The state before the first row, `(variables,)`."""
        raise NotImplementedError

    def compute_latents(self, features):
        """The state after each row, `(sessions, rows, variables)`.

        Args:
            features: `(sessions, rows, observations)`; a row of NaN leaves the state as it is.
        """
        raise NotImplementedError

    def advance(self, seen, latents):
        """The state `(sessions, variables)` after a row that is no padding.

        Args:
            seen: The row, `(sessions, observations)`.
            latents: The state before it.
        """
        raise NotImplementedError

    def read_choice(self, latents):
        """Logits `(..., arms)` of the next choice, from the state `(..., variables)`."""
        raise NotImplementedError

    def read_dopamine(self, seen, before, after):
        """The response `(..., signals)` to a row, with the state before and after it."""
        raise NotImplementedError

    @property
    def parameter_count(self):
        """How many numbers a fit chooses."""
        return sum(int(ops.size(weight)) for weight in self.trainable_variables)

    def fit_sessions(self, sessions, targets="joint", **settings):
        """Fits the model to `keras_disrnn.data.Sessions` by the procedure that suits it."""
        raise NotImplementedError

    # === Keras ===

    def call(self, inputs, training=False):
        features = inputs["features"] if isinstance(inputs, dict) else inputs
        self._check_features(features.shape)
        seen, _ = remove_padding(features)
        after = inputs["latents"] if isinstance(inputs, dict) else self.compute_latents(features)
        outputs = {"choice": self.read_choice(after)}
        if self.num_signals:
            initial = ops.cast(self.initial_latents, after.dtype)
            initial = ops.broadcast_to(initial, (ops.shape(after)[0], after.shape[-1]))
            outputs["dopamine"] = self.read_dopamine(
                seen, get_previous_latents(after, initial), after
            )
        return outputs

    def step(self, features, latents):
        """One trial, for closed-loop use: what `call` computes for one row, from the row above.

        Args:
            features: `(sessions, observations)`; a row of NaN leaves the state as it is.
            latents: Before the row, `(sessions, variables)`; at first `initial_latents`.

        Returns:
            The outputs of `call` without the axis of rows, and `latents`, `(sessions, variables)`.
        """
        seen, real = remove_padding(features)
        new = ops.where(real[..., None], self.advance(seen, latents), latents)
        outputs = {"choice": self.read_choice(new), "latents": new}
        if self.num_signals:
            outputs["dopamine"] = self.read_dopamine(seen, latents, new)
        return outputs

    def compile_targets(
        self, targets="joint", learning_rate=1e-3, dopamine_weight=1.0, **compile_arguments
    ):
        """Makes the model ready for Keras' own `fit` and `evaluate`, as `compile_stage` does.

        Args:
            targets: `"choice"`, `"dopamine"` or `"joint"`: what is in the loss. The metrics are
                those of both.
            learning_rate: Of Adam, with gradients scaled down to a global norm of 1.
            dopamine_weight: Of the mean squared error beside the cross-entropy, in the joint loss.
            **compile_arguments: Further arguments of `compile`.

        Raises:
            ValueError: If the targets are unknown, or need a dopamine output that is not there.
        """
        self._check_targets(targets)
        losses, weights = {}, {}
        if targets != "dopamine":
            losses["choice"], weights["choice"] = ChoiceCrossentropy(), 1.0
        if targets != "choice":
            losses["dopamine"] = DopamineMSE()
            weights["dopamine"] = dopamine_weight if targets == "joint" else 1.0
        # Keras puts the output's name before a metric's, but not where there is one output only.
        prefix = "" if self.num_signals else "choice_"
        metrics = {"choice": [NormalizedLikelihood(f"{prefix}normalized_likelihood")]}
        if self.num_signals:
            metrics["dopamine"] = [DopamineMeanSquaredError(), DopamineR2(self.num_signals)]
        self.compile(
            optimizer=keras.optimizers.Adam(learning_rate, global_clipnorm=1.0),
            loss=losses,
            loss_weights=weights,
            weighted_metrics=metrics,
            **compile_arguments,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_observations": self.num_observations,
            "num_arms": self.num_arms,
            "num_signals": self.num_signals,
        }

    # === Checks ===

    def _check_features(self, shape):
        if len(shape) != 3 or shape[-1] not in (None, self.num_observations):
            raise ValueError(
                "features: expected a shape of (sessions, rows, observations) with "
                f"{self.num_observations} observations, the number this model was made for; "
                f"got {tuple(shape)}"
            )

    def _check_targets(self, targets):
        if targets not in TARGETS:
            raise ValueError(f"targets: expected one of {TARGETS}, got {targets!r}")
        if targets != "choice" and not self.num_signals:
            raise ValueError(
                f"targets: expected 'choice', as {type(self).__name__} predicts no dopamine "
                f"(num_signals=0), got {targets!r}"
            )

    def _check_sessions(self, sessions, targets):
        """Refuses data that cannot tell the model anything, before any work starts."""
        self._check_targets(targets)
        for name in ("num_observations", "num_arms", "num_signals"):
            own, given = getattr(self, name), getattr(sessions, name)
            # A model of choice alone fits recordings as well.
            if own != given and not (name == "num_signals" and own == 0):
                raise ValueError(
                    f"{name}: expected sessions with {own}, the number {type(self).__name__} was "
                    f"made for, got {given}; pass {name}={given} when making the model"
                )
        if targets != "dopamine":
            arms = set(sessions.choice[sessions.choice_weight > 0].tolist())
            if len(arms) < 2:
                got = f"arm {arms.pop()} in every free choice" if arms else "no free choice"
                raise ValueError(
                    f"sessions: expected free choices of at least two arms to fit, got {got} in "
                    f"{sessions.n_sessions} sessions (subjects "
                    f"{', '.join(map(repr, dict.fromkeys(sessions.subjects)))})"
                )
        if targets != "choice":
            empty = ~(sessions.dopamine_weight > 0).any(axis=(0, 1))
            if empty.any():
                name = sessions.signal_names[int(empty.argmax())]
                raise ValueError(
                    f"sessions: expected recorded dopamine to fit, got none of {name!r} in "
                    f"{sessions.n_sessions} sessions"
                )
