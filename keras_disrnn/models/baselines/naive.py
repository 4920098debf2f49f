"""The least that a model has to beat."""

import keras
import numpy as np
from keras import ops

from keras_disrnn.models.baselines.base import Baseline


@keras.saving.register_keras_serializable("keras_disrnn")
class Naive(Baseline):
    """Chance for choice; for dopamine the mean responses of rewarded and unrewarded trials.

    The naive model of Table 1 of Jain et al. (2025). A trial is rewarded where its reward is above
    0. Each of `fit_sessions` and the two arguments below gives it its responses.

    Args:
        rewarded, unrewarded: Mean responses, one a signal, in the recording's units.
        num_observations, num_arms, num_signals: As for `Baseline`.

    Raises:
        ValueError: If only one of the two is given, or they are not one number a signal.
    """

    def __init__(self, rewarded=None, unrewarded=None, **kwargs):
        super().__init__(**kwargs)
        self.fitted = not self.num_signals or rewarded is not None
        if (rewarded is None) != (unrewarded is None):
            raise ValueError("rewarded and unrewarded: expected both or neither, got one of them")
        start = np.zeros((2, self.num_signals))
        if rewarded is not None:
            start = np.stack([np.atleast_1d(np.asarray(m, float)) for m in (unrewarded, rewarded)])
            if start.shape != (2, self.num_signals) or not np.isfinite(start).all():
                raise ValueError(
                    f"rewarded, unrewarded: expected {self.num_signals} finite numbers each, one a "
                    f"signal, got {rewarded} and {unrewarded}"
                )
        self._start = start

    def build(self, input_shape=None):
        self.responses = self.add_weight(
            shape=(2, self.num_signals),
            initializer=lambda shape, dtype: ops.convert_to_tensor(self._start, dtype),
            name="responses",
        )
        self.built = True

    @property
    def initial_latents(self):
        return ops.zeros((0,), self.compute_dtype)

    def compute_latents(self, features):
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        return features[..., :0]

    def advance(self, seen, latents):
        return latents

    def read_choice(self, latents):
        return ops.zeros((*ops.shape(latents)[:-1], self.num_arms), latents.dtype)

    def read_dopamine(self, seen, before, after):
        if not self.fitted:
            raise ValueError(
                f"{type(self).__name__}: it has no mean responses yet; fit it with fit_sessions, "
                "or pass rewarded and unrewarded"
            )
        unrewarded, rewarded = ops.unstack(ops.cast(self.responses, seen.dtype))
        return ops.where(seen[..., 1:2] > 0, rewarded, unrewarded)

    def fit_sessions(self, sessions, targets="joint"):
        """Takes the mean responses of the sessions.

        Args:
            sessions: `keras_disrnn.data.Sessions`.
            targets: As for every baseline; the result is the same with each.

        Returns:
            The model.

        Raises:
            ValueError: If the sessions do not fit the model, or have no rewarded or no unrewarded
                response of a signal.
        """
        self._check_sessions(sessions, targets if self.num_signals else "choice")
        if not self.built:
            self.build()
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
                        f"in {sessions.n_sessions} sessions"
                    )
                means.append((weight * sessions.dopamine).sum((0, 1), np.float64) / total)
            self.responses.assign(np.stack(means))
            self.fitted = True
        return self

    def get_config(self):
        config = super().get_config()
        if self.num_signals and self.fitted:
            low, high = (self.responses.numpy() if self.built else self._start).tolist()
            config |= {"rewarded": high, "unrewarded": low}
        return config
