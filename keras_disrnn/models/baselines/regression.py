"""A regression of dopamine on the trial and on the values of a cognitive model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
from keras import ops

from keras_disrnn.layers.time_steps import get_previous_latents, remove_padding
from keras_disrnn.models.baselines import recurrence
from keras_disrnn.models.baselines.base import Baseline
from keras_disrnn.models.baselines.cognitive import CognitiveModel
from keras_disrnn.utils.types import Tensor

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions


@keras.saving.register_keras_serializable("keras_disrnn")
class ValueRegression(Baseline):
    """Predicts dopamine by ordinary least squares on reward, side and the values of a model.

    The regressors of a trial are 1, its reward, one indicator for each chosen arm but arm 0, and,
    of a fitted cognitive model, its prediction error and each of its variables before the trial.
    Without a model there are the first ones only. The prediction error adds the value of the chosen
    arm, which is no sum of the others. So every linear reading of values is open to a model that
    was fitted to choices alone, as it is to the dopamine readout of a DisRNN.

    Choices are those of the cognitive model; without one they are at chance.

    Args:
        model: A fitted `CognitiveModel`, which does not change, or `None`.
        rank: Number of independent regressors in the fit; `None` before it.
        **kwargs: `num_observations`, `num_arms` and `num_signals` of `Baseline`; by default those
            of the model.

    Raises:
        ValueError: If there is no dopamine signal, or the model has another shape.

    Example:

    >>> from keras_disrnn import baselines
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials(
    ...     [[0, 1, 1, 0]], [[1, 0, 1, 0]], dopamine=[[1.0, 0.2, 1.2, 0.0]]
    ... )
    >>> model = baselines.ValueRegression().fit_sessions(sessions)
    >>> [f"{value:.1f}" for value in abs(model.coefficients.numpy().ravel())]
    ['0.0', '1.0', '0.2']
    """

    def __init__(
        self, model: CognitiveModel | None = None, *, rank: int | None = None, **kwargs: Any
    ) -> None:
        if model is not None:
            for name in ("num_observations", "num_arms", "num_signals"):
                own = getattr(model, name)
                if kwargs.setdefault(name, own) != own:
                    raise ValueError(f"{name}: expected {own}, as in model, got {kwargs[name]}")
        super().__init__(**kwargs)
        if not self.num_signals:
            raise ValueError(
                "num_signals: expected at least 1, because this is a regression, got 0"
            )
        self.model = model
        self.rank = rank
        columns = 1 + self.num_arms
        if model is not None:
            # The last latent says whether the session has begun. It is no value.
            columns += int(model.initial_latents.shape[0])
        self.coefficients = self.add_weight(
            (columns, self.num_signals), "zeros", trainable=False, name="coefficients"
        )
        self.built = True

    @property
    def fitted(self) -> bool:
        """Whether there are coefficients."""
        return self.rank is not None

    @property
    def parameter_count(self) -> int:
        of_model = 0 if self.model is None else len(self.model.fitted_names("choice"))
        return of_model + (self.rank or 0) * self.num_signals

    @property
    def initial_latents(self) -> Tensor:
        if self.model is None:
            return ops.zeros((0,), self.compute_dtype)
        return self.model.initial_latents

    def compute_latents(self, features: Tensor) -> Tensor:
        if self.model is None:
            return ops.convert_to_tensor(features, dtype=self.compute_dtype)[..., :0]
        return self.model.compute_latents(features)

    def advance(self, seen: Tensor, latents: Tensor) -> Tensor:
        return latents if self.model is None else self.model.advance(seen, latents)

    def read_choice(self, latents: Tensor) -> Tensor:
        if self.model is None:
            return ops.zeros((*ops.shape(latents)[:-1], self.num_arms), latents.dtype)
        return self.model.read_choice(latents)

    def read_dopamine(self, seen: Tensor, before: Tensor, after: Tensor) -> Tensor:
        if not self.fitted:
            raise ValueError(
                f"{type(self).__name__}: expected coefficients, got none; call fit_sessions"
            )
        regressors = self.compute_regressors(seen, before)
        return ops.matmul(regressors, ops.cast(self.coefficients, regressors.dtype))

    def compute_regressors(self, seen: Tensor, before: Tensor) -> Tensor:
        """Return the regressors of each trial, `(..., regressors)`.

        Args:
            seen: The time step that describes the trial, `(..., observations)`, not padding.
            before: The state before it, `(..., variables)`.
        """
        reward = seen[..., 1:2]
        sides = ops.equal(seen[..., :1], ops.arange(1, self.num_arms, dtype=seen.dtype))
        columns = [ops.ones_like(reward), reward, ops.cast(sides, seen.dtype)]
        if self.model is not None:
            rule = self.model.rule()
            error = recurrence.prediction_error(rule, seen, before)
            columns += [error[..., None], before[..., :-1]]
        return ops.concatenate(columns, axis=-1)

    def fit_sessions(self, sessions: Sessions, targets: str = "dopamine") -> Self:
        """Fit the coefficients of each signal to all recorded responses.

        Args:
            sessions: `keras_disrnn.data.Sessions`, the training set.
            targets: `"dopamine"`, the only thing that a regression is fitted to.

        Returns:
            The model.

        Raises:
            ValueError: If the sessions do not match the model or have no dopamine.
        """
        if targets != "dopamine":
            raise ValueError(f"targets: expected 'dopamine', got {targets!r}")
        self._check_sessions(sessions, targets)
        features = ops.convert_to_tensor(sessions.features, dtype=self.compute_dtype)
        before = get_previous_latents(self.compute_latents(features), self.initial_latents)
        regressors = self.compute_regressors(remove_padding(features)[0], before)
        design = ops.convert_to_numpy(regressors).astype(np.float64)
        coefficients, ranks = [], []
        for signal in range(self.num_signals):
            counted = sessions.dopamine_weight[..., signal] > 0
            found = np.linalg.lstsq(
                design[counted],
                sessions.dopamine[..., signal][counted].astype(np.float64),
                # The regressors are float32, so what they repeat is equal only up to rounding.
                rcond=1e-6,
            )
            coefficients.append(found[0])
            ranks.append(int(found[2]))
        self.coefficients.assign(np.stack(coefficients, axis=-1))
        self.rank = max(ranks)
        return self

    def get_config(self) -> dict[str, Any]:
        model = None if self.model is None else keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model, "rank": self.rank}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        config = dict(config)
        if isinstance(config.get("model"), dict):
            config["model"] = keras.saving.deserialize_keras_object(
                config["model"], custom_objects=custom_objects
            )
        return cls(**config)
