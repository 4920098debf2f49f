"""A GRU: the flexible upper reference for likelihood."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_disrnn.data import split_by_session
from keras_disrnn.layers.subject_embedding import check_subjects
from keras_disrnn.layers.time_steps import remove_padding
from keras_disrnn.models.baselines.base import Baseline
from keras_disrnn.models.inputs import check_observations, check_subject_index
from keras_disrnn.models.size import check_memory
from keras_disrnn.models.trained import TrainedParts
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.seeds import derive_seeds
from keras_disrnn.utils.types import Tensor

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions


@keras.saving.register_keras_serializable("keras_disrnn")
class GRU(Baseline, TrainedParts):
    """A Keras GRU over the time steps, with a linear readout of choice and one of dopamine.

    Both readouts use the state after the time step, which contains the trial's choice and reward.
    The dopamine readout predicts standardised dopamine; `fit_sessions` sets the mean and the
    standard deviation.

    With `subjects`, the GRU also reads which subject a session is of, as one 1 among zeros. So each
    subject has its own biases of the gates. The last observation is then the index of the subject,
    as for `DisRNNModel` (see `Sessions.for_model`), and `num_observations` counts it.

    Args:
        units: Width of the GRU.
        subjects: Names of the subjects in the order of their index; empty for a model that does not
            know them.
        seed: Seed of the initial weights, or `None` for a random one.
        trained: Names of the readouts that were trained, which results may show. Training adds to
            it.
        **kwargs: `num_observations`, `num_arms` and `num_signals` of `Baseline`. With
            `num_signals=0` there is no dopamine readout.

    Raises:
        ValueError: If a number is not an integer or too small, two subjects have one name, or the
            model does not fit in memory.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn import baselines
    >>> model = baselines.GRU(4)
    >>> model(np.zeros((3, 11, 2), "float32"))["dopamine"].shape
    TensorShape([3, 11, 1])
    """

    def __init__(
        self,
        units: int = 16,
        *,
        subjects: Sequence[str] | int = (),
        seed: int | None = 0,
        trained: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.trained = trained
        self.units = check_integer("units", units, 1)
        self.subjects = check_subjects(subjects)
        if self.subjects:
            check_integer("num_observations", self.num_observations, 3)
        outputs = self.num_arms + self.num_signals
        inputs = self.num_observations
        if self.subjects:
            inputs += self.num_subjects - 1
        weights = units * (3 * (units + inputs + 2) + outputs)
        sizes = ("units", "num_observations", "num_arms", "num_signals")
        check_memory({name: getattr(self, name) for name in sizes}, weights)
        self.seed = seed
        seeds = derive_seeds(seed, 4)
        # The GRU of cuDNN cannot skip time steps within a session.
        self.gru = keras.layers.GRU(
            units,
            return_sequences=True,
            use_cudnn=False,
            kernel_initializer=keras.initializers.GlorotUniform(seeds[0]),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seeds[1]),
            dtype=self.dtype_policy,
        )
        # The layer applies the mask anyway. The flag is for the layers after it, and prevents a
        # warning.
        self.gru.supports_masking = True
        self.choice_head = keras.layers.Dense(
            self.num_arms,
            kernel_initializer=keras.initializers.GlorotUniform(seeds[2]),
            dtype=self.dtype_policy,
        )
        self.dopamine_head: Any = None
        self.gru.build((None, None, inputs))
        self.choice_head.build((None, None, units))
        if self.num_signals:
            self.dopamine_head = keras.layers.Dense(
                self.num_signals,
                kernel_initializer=keras.initializers.GlorotUniform(seeds[3]),
                dtype=self.dtype_policy,
            )
            self.dopamine_head.build((None, None, units))
        shape = (self.num_signals,)
        self.mean = self.add_weight(shape, "zeros", trainable=False, name="mean")
        self.deviation = self.add_weight(shape, "ones", trainable=False, name="deviation")
        self.built = True

    @property
    def num_subjects(self) -> int:
        """Number of subjects; 0 for a model that does not know them."""
        return len(self.subjects)

    @property
    def initial_latents(self) -> Tensor:
        return ops.zeros((self.units,), self.compute_dtype)

    def compute_latents(self, features: Tensor) -> Tensor:
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        check_observations(self, features.shape)
        if self.subjects:
            check_subject_index(self, features[..., -1])
        seen, real = remove_padding(features)
        return self.gru(self._read_subject(seen), mask=real)

    def advance(self, seen: Tensor, latents: Tensor) -> Tensor:
        return self.gru.cell(self._read_subject(seen), latents)[0]

    def _read_subject(self, seen: Tensor) -> Tensor:
        """Return the time steps with the subject's index as one 1 among zeros."""
        if not self.subjects:
            return seen
        known = ops.arange(self.num_subjects, dtype=seen.dtype)
        own = ops.cast(ops.equal(seen[..., -1:], known), seen.dtype)
        return ops.concatenate([seen[..., :-1], own], axis=-1)

    def read_choice(self, latents: Tensor) -> Tensor:
        return self.choice_head(latents)

    def read_dopamine(self, seen: Tensor, before: Tensor, after: Tensor) -> Tensor:
        predicted = self.dopamine_head(after)
        mean, deviation = (ops.cast(w, predicted.dtype) for w in (self.mean, self.deviation))
        return mean + deviation * predicted

    def fit_sessions(
        self,
        sessions: Sessions,
        targets: Literal["choice", "dopamine", "joint"] | None = None,
        *,
        learning_rate: float = 1e-2,
        steps: int = 400,
        steps_per_epoch: int = 10,
        patience: int = 8,
        held_out_every: int = 4,
    ) -> keras.callbacks.History:
        """Train with Adam, and keep the weights of the best epoch on held-out sessions.

        Args:
            sessions: `keras_disrnn.data.Sessions`. The sessions that train are one batch.
            targets: `"choice"`, `"dopamine"`, or `"joint"` for cross-entropy plus the mean squared
                error in units of the response's variance. By default `"joint"`, or `"choice"` for a
                model of choice alone.
            learning_rate: Learning rate of Adam.
            steps: Largest number of steps.
            steps_per_epoch: Steps between two evaluations on the held-out sessions.
            patience: Number of epochs without improvement after which training stops.
            held_out_every: Every n-th session is held out.

        Returns:
            Keras' `History`.

        Raises:
            ValueError: If the sessions do not match the model, or there are fewer than two.
        """
        if targets is None:
            targets = "joint" if self.num_signals else "choice"
        check_integer("steps", steps, 1)
        check_integer("steps_per_epoch", steps_per_epoch, 1)
        sessions = sessions.for_model(self)
        self._check_sessions(sessions, targets)
        train, held_out = split_by_session(sessions, held_out_every, offset=held_out_every - 1)
        weight = 1.0
        if self.num_signals:
            counted = train.dopamine_weight > 0
            values = [train.dopamine[..., k][counted[..., k]] for k in range(self.num_signals)]
            deviation = np.array([np.std(v) or 1.0 for v in values])
            self.mean.assign([np.mean(v) for v in values])
            self.deviation.assign(deviation)
            weight = float(np.mean(1.0 / deviation**2))
        self.compile_targets(targets, learning_rate=learning_rate, dopamine_weight=weight)
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

    def get_config(self) -> dict[str, Any]:
        own = get_arguments(self, GRU)
        own |= {name: list(own[name]) for name in ("subjects", "trained")}
        return {**super().get_config(), **own}

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the readouts."""
        return ("choice_readout", "dopamine_readout") if self.num_signals else ("choice_readout",)

    def _parts_in_step(self) -> Iterable[str]:
        losses = self.loss if isinstance(self.loss, Mapping) else {"choice": 1, "dopamine": 1}
        return [f"{output}_readout" for output, loss in losses.items() if loss is not None]


def _without_dopamine(dataset: tf.data.Dataset, model: GRU) -> tf.data.Dataset:
    """Drop the dopamine targets for a model without a dopamine readout."""
    if model.num_signals:
        return dataset
    return dataset.map(
        lambda x, y, weight: (x, {"choice": y["choice"]}, {"choice": weight["choice"]})
    )
