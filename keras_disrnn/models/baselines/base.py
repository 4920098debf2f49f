"""The base class of the baselines: the calls of `DisRNNModel`, with its own state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_disrnn.layers.time_steps import get_previous_latents, remove_padding
from keras_disrnn.models.inputs import check_observations
from keras_disrnn.objectives.losses import ChoiceCrossentropy, DopamineMSE
from keras_disrnn.objectives.metrics import (
    DopamineMeanSquaredError,
    DopamineR2,
    NormalizedLikelihood,
)
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.forks import check_process
from keras_disrnn.utils.types import Tensor

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions

TARGETS = ("choice", "dopamine", "joint")
"""What a baseline can be fitted to: choices only, dopamine only, or both at once."""


class Baseline(keras.Model):
    """A model with a state that moves through a session and predicts choice and dopamine.

    A baseline is called, evaluated, saved and exported (`keras_disrnn.export.export`) as
    `DisRNNModel` is. Its weights exist as soon as it is made. A subclass defines how the state
    moves and what is read from it: `initial_latents`, `compute_latents`, `advance`, `read_choice`
    and `read_dopamine`.

    Args:
        num_observations: Observations of a time step; the first two are choice and reward.
        num_arms: Number of arms, at least 2.
        num_signals: Number of dopamine signals; 0 for a model of choice alone.
        **kwargs: `name` and `dtype`, as for every Keras model.

    Raises:
        ValueError: If a number is not an integer or too small.

    Call arguments:
        inputs: Features `(sessions, time steps, observations)`; a time step of NaN is padding. Or a
            dict of `features` and `latents`, as for `DisRNNModel`.

    Returns:
        A dict. `choice`: logits `(sessions, time steps, arms)` of the choice after each time step.
        `dopamine`, unless `num_signals` is 0: the response to the trial that the time step
        describes, `(sessions, time steps, signals)`.
    """

    def __init__(
        self,
        *,
        num_observations: int = 2,
        num_arms: int = 2,
        num_signals: int = 1,
        **kwargs: Any,
    ) -> None:
        check_process()
        super().__init__(**kwargs)
        self.num_observations = check_integer("num_observations", num_observations, 2)
        self.num_arms = check_integer("num_arms", num_arms, 2)
        self.num_signals = check_integer("num_signals", num_signals, 0)

    # === The state and the predictions from it ===

    @property
    def initial_latents(self) -> Tensor:
        """The state before the first time step, `(variables,)`."""
        raise NotImplementedError

    def compute_latents(self, features: Tensor) -> Tensor:
        """Return the state after each time step, `(sessions, time steps, variables)`.

        Args:
            features: `(sessions, time steps, observations)`; a time step of NaN does not change the
                state.
        """
        raise NotImplementedError

    def advance(self, seen: Tensor, latents: Tensor) -> Tensor:
        """Return the state after a time step, `(sessions, variables)`.

        Args:
            seen: The time step, `(sessions, observations)`, not padding.
            latents: The state before it, `(sessions, variables)`.
        """
        raise NotImplementedError

    def read_choice(self, latents: Tensor) -> Tensor:
        """Return the logits `(..., arms)` of the next choice, from the state `(..., variables)`."""
        raise NotImplementedError

    def read_dopamine(self, seen: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Return the response to a time step, `(..., signals)`.

        Args:
            seen: The time step, `(..., observations)`.
            before: The state before it, `(..., variables)`.
            after: The state after it, `(..., variables)`.
        """
        raise NotImplementedError

    @property
    def parameter_count(self) -> int:
        """Number of values that a fit chooses."""
        return sum(int(ops.size(weight)) for weight in self.trainable_variables)

    def fit_sessions(self, sessions: Sessions, *arguments: Any, **settings: Any) -> Any:
        """Fit the model to `keras_disrnn.data.Sessions` by the method that suits it."""
        raise NotImplementedError

    # === Keras ===

    def build(self, input_shape: Any = None) -> None:
        """Do nothing: the weights exist as soon as the model is made."""

    def call(self, inputs: Tensor | dict[str, Tensor], training: bool = False) -> dict[str, Tensor]:
        features = inputs["features"] if isinstance(inputs, dict) else inputs
        check_observations(self, features.shape)
        seen, _ = remove_padding(features)
        after = inputs["latents"] if isinstance(inputs, dict) else self.compute_latents(features)
        outputs = {"choice": self.read_choice(after)}
        if self.num_signals:
            before = get_previous_latents(after, self.initial_latents)
            outputs["dopamine"] = self.read_dopamine(seen, before, after)
        return outputs

    def step(self, features: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """Compute one time step from the state before it, for closed-loop use.

        Args:
            features: `(sessions, observations)`; a time step of NaN does not change the state.
            latents: The state before the time step, `(sessions, variables)`; at first
                `initial_latents`.

        Returns:
            The outputs of `call` without the axis of time steps, and `latents`, the state after the
            time step, `(sessions, variables)`.
        """
        seen, real = remove_padding(features)
        new = ops.where(real[..., None], self.advance(seen, latents), latents)
        outputs = {"choice": self.read_choice(new), "latents": new}
        if self.num_signals:
            outputs["dopamine"] = self.read_dopamine(seen, latents, new)
        return outputs

    def compile_targets(
        self,
        targets: Literal["choice", "dopamine", "joint"] = "joint",
        *,
        learning_rate: Any = 1e-3,
        dopamine_weight: float = 1.0,
        **compile_arguments: Any,
    ) -> None:
        """Prepare the model for Keras' own `fit` and `evaluate`, as `compile_stage` does.

        Args:
            targets: Which targets the loss contains. The metrics are those of both targets.
            learning_rate: Learning rate of Adam, or a schedule of it. Gradients are clipped to a
                global norm of 1.
            dopamine_weight: Weight of the mean squared error in the joint loss.
            **compile_arguments: Further arguments of `compile`.

        Raises:
            ValueError: If the targets are unknown, or the model does not predict dopamine.
        """
        self._check_targets(targets)
        losses, weights = {}, {}
        if targets != "dopamine":
            losses["choice"], weights["choice"] = ChoiceCrossentropy(), 1.0
        if targets != "choice":
            losses["dopamine"] = DopamineMSE()
            weights["dopamine"] = dopamine_weight if targets == "joint" else 1.0
        # With several outputs Keras puts the output's name before the metric's; with one it does
        # not.
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

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **get_arguments(self, Baseline)}

    # === Checks ===

    def _pair_of_signals(
        self, names: str, first: ArrayLike | None, second: ArrayLike | None
    ) -> np.ndarray | None:
        """Return two numbers for each signal as an array `(2, signals)`, or `None`."""
        if (first is None) != (second is None):
            raise ValueError(f"{names}: expected both or neither, got one of them")
        if first is None or second is None:
            return None
        pair = np.stack([np.atleast_1d(np.asarray(each, float)) for each in (first, second)])
        if pair.shape != (2, self.num_signals) or not np.isfinite(pair).all():
            raise ValueError(
                f"{names}: expected {self.num_signals} finite numbers each, one for each signal, "
                f"got {first} and {second}"
            )
        return pair

    def _check_targets(self, targets: str) -> None:
        if targets not in TARGETS:
            raise ValueError(f"targets: expected one of {TARGETS}, got {targets!r}")
        if targets != "choice" and not self.num_signals:
            raise ValueError(
                f"targets: expected 'choice', because {type(self).__name__} predicts no dopamine "
                f"(num_signals=0), got {targets!r}"
            )

    def _check_sessions(self, sessions: Sessions, targets: str) -> None:
        """Raise before any work if the sessions cannot be fitted."""
        self._check_targets(targets)
        for name in ("num_observations", "num_arms", "num_signals"):
            own, given = getattr(self, name), getattr(sessions, name)
            # A model of choice alone can be fitted to recordings too.
            if own != given and not (name == "num_signals" and own == 0):
                raise ValueError(
                    f"{name}: expected sessions with {own}, as in {type(self).__name__}, got "
                    f"{given}; make the model with {name}={given}"
                )
        if targets != "dopamine":
            arms = set(sessions.choice[sessions.choice_weight > 0].tolist())
            if len(arms) < 2:
                got = f"arm {arms.pop()} in every free choice" if arms else "no free choice"
                raise ValueError(
                    f"sessions: expected free choices of at least two arms, got {got} in "
                    f"{len(sessions.ids)} sessions (subjects "
                    f"{', '.join(map(repr, dict.fromkeys(sessions.subjects)))})"
                )
        if targets != "choice":
            empty = ~(sessions.dopamine_weight > 0).any(axis=(0, 1))
            if empty.any():
                name = sessions.signal_names[int(empty.argmax())]
                raise ValueError(
                    f"sessions: expected recorded dopamine of every signal, got none of {name!r} "
                    f"in {len(sessions.ids)} sessions"
                )
