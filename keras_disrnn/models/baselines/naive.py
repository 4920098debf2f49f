"""The naive model, which any other model should beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
from keras import ops

from keras_disrnn.models.baselines.base import Baseline
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.types import Tensor

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions


@keras.saving.register_keras_serializable("keras_disrnn")
class Naive(Baseline):
    """Predicts chance for choice, and the mean responses to reward and no reward for dopamine.

    The naive model of Table 1 of Jain et al. (2025). A trial is rewarded if its reward is above 0.
    The mean responses are given, or come from `fit_sessions`.

    Args:
        rewarded: Mean response to a reward of each signal, in the recording's units.
        unrewarded: Mean response to a missing reward of each signal, in the same units.
        **kwargs: `num_observations`, `num_arms` and `num_signals` of `Baseline`.

    Raises:
        ValueError: If only one of the two is given, or they do not have one number for each signal.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.Naive(rewarded=[1.0], unrewarded=[-0.5])
    >>> features = np.array([[[0, 0], [1, 1], [1, 0]]], "float32")
    >>> model(features)["dopamine"].numpy().ravel().tolist()
    [-0.5, 1.0, -0.5]
    """

    def __init__(
        self,
        rewarded: Sequence[float] | float | None = None,
        unrewarded: Sequence[float] | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = self._pair_of_signals("unrewarded and rewarded", unrewarded, rewarded)
        start = np.zeros((2, self.num_signals)) if given is None else given
        self.fitted = not self.num_signals or given is not None
        self.responses = self.add_weight(
            shape=(2, self.num_signals),
            initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            name="responses",
        )
        self.built = True

    @property
    def rewarded(self) -> list[float] | None:
        """Mean response to a reward of each signal; `None` before the fit."""
        return self.responses.numpy()[1].tolist() if self._has_responses else None

    @property
    def unrewarded(self) -> list[float] | None:
        """Mean response to a missing reward of each signal; `None` before the fit."""
        return self.responses.numpy()[0].tolist() if self._has_responses else None

    @property
    def _has_responses(self) -> bool:
        return self.fitted and self.num_signals > 0

    @property
    def initial_latents(self) -> Tensor:
        return ops.zeros((0,), self.compute_dtype)

    def compute_latents(self, features: Tensor) -> Tensor:
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        return features[..., :0]

    def advance(self, seen: Tensor, latents: Tensor) -> Tensor:
        return latents

    def read_choice(self, latents: Tensor) -> Tensor:
        return ops.zeros((*ops.shape(latents)[:-1], self.num_arms), latents.dtype)

    def read_dopamine(self, seen: Tensor, before: Tensor, after: Tensor) -> Tensor:
        if not self.fitted:
            raise ValueError(
                f"{type(self).__name__}: expected mean responses, got none; call fit_sessions, or "
                "pass rewarded and unrewarded when you make the model"
            )
        unrewarded, rewarded = ops.unstack(ops.cast(self.responses, seen.dtype))
        return ops.where(seen[..., 1:2] > 0, rewarded, unrewarded)

    def fit_sessions(self, sessions: Sessions, targets: str = "joint") -> Self:
        """Set the mean responses to those of the sessions.

        Args:
            sessions: `keras_disrnn.data.Sessions`.
            targets: `"choice"`, `"dopamine"` or `"joint"`. The result is the same for each.

        Returns:
            The model.

        Raises:
            ValueError: If the sessions do not match the model, or a signal has no response to a
                reward or to a missing reward.
        """
        self._check_sessions(sessions, targets if self.num_signals else "choice")
        if self.num_signals:
            means = []
            rewarded = np.nan_to_num(sessions.features[..., 1]) > 0
            for word, kind in (("unrewarded", ~rewarded), ("rewarded", rewarded)):
                weight = sessions.dopamine_weight * kind[..., None]
                total = weight.sum(axis=(0, 1), dtype=np.float64)
                if not total.all():
                    name = sessions.signal_names[int((total == 0).argmax())]
                    raise ValueError(
                        f"sessions: expected {word} trials with a response of {name!r}, got none "
                        f"in {len(sessions.ids)} sessions"
                    )
                means.append((weight * sessions.dopamine).sum((0, 1), np.float64) / total)
            self.responses.assign(np.stack(means))
            self.fitted = True
        return self

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **get_arguments(self, Naive)}
