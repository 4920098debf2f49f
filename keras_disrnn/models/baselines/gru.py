"""A GRU: the flexible upper reference."""

import keras
import numpy as np
from keras import ops

from keras_disrnn.data import split_by_session
from keras_disrnn.layers.disrnn import clean
from keras_disrnn.layers.disrnn_cell import derive_seeds
from keras_disrnn.models.baselines.base import Baseline
from keras_disrnn.utils.checks import check_integer


@keras.saving.register_keras_serializable("keras_disrnn")
class GRU(Baseline):
    """A Keras GRU on the rows, with a linear map to the logits and one to dopamine.

    Both are read off the state after the row, which knows the trial's choice and reward. Dopamine
    is predicted in units of its standard deviation about its mean, as `fit_sessions` finds them.

    Args:
        units: Width of the GRU.
        seed: Of the initial weights.
        num_observations, num_arms, num_signals: As for `Baseline`; with `num_signals=0` there is no dopamine head.
    """

    def __init__(self, units=16, seed=0, **kwargs):
        super().__init__(**kwargs)
        check_integer("units", units, 1)
        self.units = units
        self.seed = seed
        seeds = derive_seeds(seed, 4)
        # The GPU's own GRU knows no rows that are passed over within a session.
        self.gru = keras.layers.GRU(
            units,
            return_sequences=True,
            use_cudnn=False,
            kernel_initializer=keras.initializers.GlorotUniform(seeds[0]),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seeds[1]),
            dtype=self.dtype_policy,
        )
        # It masks rows all the same; the flag is for layers after it, and silences a warning.
        self.gru.supports_masking = True
        self.choice_head = keras.layers.Dense(
            self.num_arms,
            kernel_initializer=keras.initializers.GlorotUniform(seeds[2]),
            dtype=self.dtype_policy,
        )
        self.dopamine_head = None
        if self.num_signals:
            self.dopamine_head = keras.layers.Dense(
                self.num_signals,
                kernel_initializer=keras.initializers.GlorotUniform(seeds[3]),
                dtype=self.dtype_policy,
            )

    def build(self, input_shape=None):
        self.gru.build((None, None, self.num_observations))
        self.choice_head.build((None, None, self.units))
        if self.dopamine_head is not None:
            self.dopamine_head.build((None, None, self.units))
        self.mean = self.add_weight((self.num_signals,), "zeros", trainable=False, name="mean")
        self.deviation = self.add_weight(
            (self.num_signals,), "ones", trainable=False, name="deviation"
        )
        self.built = True

    @property
    def initial_latents(self):
        return ops.zeros((self.units,), self.compute_dtype)

    def compute_latents(self, features):
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        self._check_features(features.shape)
        seen, real = clean(features)
        return self.gru(seen, mask=real)

    def advance(self, seen, latents):
        return self.gru.cell(seen, latents)[0]

    def read_choice(self, latents):
        return self.choice_head(latents)

    def read_dopamine(self, seen, before, after):
        predicted = self.dopamine_head(after)
        mean, deviation = (ops.cast(w, predicted.dtype) for w in (self.mean, self.deviation))
        return mean + deviation * predicted

    def fit_sessions(
        self,
        sessions,
        targets=None,
        *,
        learning_rate=1e-2,
        steps=400,
        steps_per_epoch=10,
        patience=8,
        held_out_every=4,
    ):
        """Trains with Adam, and keeps the weights of the best epoch on sessions set aside.

        Args:
            sessions: `keras_disrnn.data.Sessions`; all that is not set aside is one batch.
            targets: `"choice"`, `"dopamine"` or `"joint"`: cross-entropy plus the mean squared
                error in units of the response's variance. By default joint where there is a
                dopamine head.
            learning_rate: Of Adam.
            steps: The most steps.
            steps_per_epoch: Steps between two looks at the sessions set aside.
            patience: Epochs without a better one after which it stops.
            held_out_every: Every n-th session is set aside.

        Returns:
            Keras' `History`.

        Raises:
            ValueError: If the sessions do not fit the model, or are fewer than two.
        """
        if targets is None:
            targets = "joint" if self.num_signals else "choice"
        check_integer("steps", steps, 1)
        check_integer("steps_per_epoch", steps_per_epoch, 1)
        self._check_sessions(sessions, targets)
        train, held_out = split_by_session(sessions, held_out_every, offset=held_out_every - 1)
        if not self.built:
            self.build()
        weight = 1.0
        if self.num_signals:
            counted = train.dopamine_weight > 0
            values = [train.dopamine[..., k][counted[..., k]] for k in range(self.num_signals)]
            deviation = np.array([np.std(v) or 1.0 for v in values])
            self.mean.assign([np.mean(v) for v in values])
            self.deviation.assign(deviation)
            weight = float(np.mean(1.0 / deviation**2))
        self.compile_targets(targets, learning_rate, weight)
        stop = keras.callbacks.EarlyStopping(
            "val_loss", patience=patience, restore_best_weights=True, mode="min"
        )
        return self.fit(
            _without_dopamine(train.dataset(steps=steps_per_epoch), self),
            epochs=-(-steps // steps_per_epoch),
            validation_data=_without_dopamine(held_out.dataset(), self),
            callbacks=[stop],
            shuffle=False,
            verbose=0,
        )

    def get_config(self):
        return {**super().get_config(), "units": self.units, "seed": self.seed}


def _without_dopamine(dataset, model):
    """Leaves out the targets that a model without a dopamine head has no output for."""
    if model.num_signals:
        return dataset
    return dataset.map(
        lambda x, y, weight: (x, {"choice": y["choice"]}, {"choice": weight["choice"]})
    )
