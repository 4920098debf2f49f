"""The model: DisRNN core, choice readout, dopamine readout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from keras_disrnn import native
from keras_disrnn.layers.disrnn import DisRNN
from keras_disrnn.layers.information_bottleneck import InformationBottleneck
from keras_disrnn.layers.readouts import CHOICE_AND_REWARD, ChoiceReadout, DopamineReadout
from keras_disrnn.layers.subject_embedding import SubjectEmbedding, check_subjects
from keras_disrnn.layers.time_steps import remove_padding
from keras_disrnn.models.inputs import (
    check_observations,
    check_subject_index,
    read_features,
    separate_subject_costs,
)
from keras_disrnn.models.penalised import PenalisedModel
from keras_disrnn.models.penalties import DEFAULTS, PENALTIES
from keras_disrnn.models.shape import check_shape
from keras_disrnn.models.size import check_disrnn_memory
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.config import get_arguments
from keras_disrnn.utils.seeds import derive_seeds
from keras_disrnn.utils.types import Tensor, cost_dtype

NAMES_OF_0_1_0 = {
    "observations": "num_observations",
    "arms": "num_arms",
    "signals": "num_signals",
    "latents": "num_latents",
    "update_layers": "num_update_layers",
    "choice_layers": "num_choice_layers",
    "dopamine_layers": "num_dopamine_layers",
    "dopamine_latents": "dopamine_timing",
}
"""Arguments of the model in version 0.1.0, and their names today. Its files are still read."""


@keras.saving.register_keras_serializable("keras_disrnn")
class DisRNNModel(PenalisedModel):
    """Predicts the next choice, and the dopamine response, from a session's past.

    This is the disentangled RNN of Miller et al. (2023) with the dopamine readout of Jain et al.
    (2025). Train it with `keras_disrnn.train`, or stage by stage with `compile_stage` and `fit`.

    With `subjects` it is a model of several subjects, after the multi-subject model of the authors'
    package `disentangled-rnns`. The last observation of a time step is then the index of the
    subject. It becomes an embedding. The update networks and both readouts read it through
    their own bottlenecks. (The dopamine readout's bottleneck on it is an addition.)
    `Sessions.for_model` adds the index.

    Args:
        num_observations: Number of observations in a time step: choice, reward, any others and,
            with subjects, the index of the subject. By default there are no others.
        num_arms: Number of arms.
        num_signals: Number of dopamine signals; 0 for a model of choice alone.
        num_latents: Number of latents. Training closes the bottlenecks of those it does not need.
        update_units: Width of each update network.
        num_update_layers: Number of hidden layers of each update network.
        choice_units: Width of the choice readout's network.
        num_choice_layers: Number of hidden layers of the choice readout's network.
        dopamine_units: Width of the dopamine readout's network.
        num_dopamine_layers: Number of hidden layers of the dopamine readout's network.
        activation: Name of a Keras activation. `"leaky_relu"` has slope 0.01.
        max_latent_value: Bound of the update networks' targets.
        dopamine_timing: `"pre"` if the dopamine readout reads the latents before the trial's
            outcome, `"post"` if it reads them after the update by the outcome.
        latent_penalty: Penalty weight per nat of information transmitted by the latent bottlenecks,
            relative to a nat of choice cross-entropy. This weight and the following ones are also
            attributes of the model. They can be set at any time, also between calls of `fit`.
        update_obs_penalty: The same for the observations that the update networks read.
        update_latent_penalty: The same for the latents that the update networks read.
        choice_penalty: The same for the latents that the choice readout reads.
        dopamine_penalty: The same for the inputs of the dopamine readout, relative to a mean
            squared error of 1.
        l2_scale: Penalty weight of the squared hidden weights of the networks that train.
        subjects: Names of the subjects in the order of their index, or the number of subjects.
        subject_units: Number of dimensions of a subject's embedding.
        subject_penalty: Penalty weight of the bottleneck of the embedding itself.
        update_subject_penalty: Penalty weight of the embedding that the update networks read.
        choice_subject_penalty: Penalty weight of the embedding that the choice readout reads.
        dopamine_subject_penalty: Penalty weight of the embedding that the dopamine readout reads.
        frozen: Names of the parts that do not train: `subject_embedding`, `core`,
            `choice_readout` or `dopamine_readout`. A frozen part runs as at inference.
        trained: Names of the parts that were trained, which results may show. Training adds to it.
        reference: Data of a model of the authors' package that has no place in this one.
        seed: Integer seed of the initial weights and the noise; `None` for a random one.
        implementation: `"auto"`, `"native"` or `"keras"`, as for `DisRNN`.
        **kwargs: Arguments of `keras.Model`: `name`, `dtype` and `trainable`.

    Call arguments:
        inputs: Features `(sessions, time steps, observations)`. A time step of NaN is padding (its
            index of the subject may be given). Or a dict of `features` and `latents`, where
            `latents` has shape `(sessions, time steps, latents)` and holds the latents after each
            time step; the core then does not run.
        training: Whether to add noise in the parts that are not frozen.

    Returns:
        A dict. `choice` holds the logits of the choice after each time step, `(sessions, time
        steps, arms)`. `dopamine` holds the responses to the trial of each time step, `(sessions,
        time steps, signals)`; it is absent if `num_signals=0`.

    Raises:
        ValueError: If an argument is not as described, or the model does not fit in memory.

    Example:
        >>> import keras_disrnn
        >>> import numpy as np
        >>> model = keras_disrnn.DisRNNModel(num_latents=5, seed=0)
        >>> outputs = model(np.zeros((3, 11, 2), "float32"))
        >>> outputs["choice"].shape, outputs["dopamine"].shape
        (TensorShape([3, 11, 2]), TensorShape([3, 11, 1]))
    """

    def __init__(
        self,
        num_observations: int | None = None,
        *,
        num_arms: int = 2,
        num_signals: int = 1,
        num_latents: int = 5,
        update_units: int = 8,
        num_update_layers: int = 4,
        choice_units: int = 4,
        num_choice_layers: int = 2,
        dopamine_units: int = 8,
        num_dopamine_layers: int = 2,
        activation: str = "leaky_relu",
        max_latent_value: float = 2.0,
        dopamine_timing: Literal["pre", "post"] = "pre",
        latent_penalty: float = DEFAULTS["latent_penalty"],
        update_obs_penalty: float = DEFAULTS["update_obs_penalty"],
        update_latent_penalty: float = DEFAULTS["update_latent_penalty"],
        choice_penalty: float = DEFAULTS["choice_penalty"],
        dopamine_penalty: float = DEFAULTS["dopamine_penalty"],
        l2_scale: float = DEFAULTS["l2_scale"],
        subjects: Sequence[str] | int = (),
        subject_units: int = 0,
        subject_penalty: float = DEFAULTS["subject_penalty"],
        update_subject_penalty: float = DEFAULTS["update_subject_penalty"],
        choice_subject_penalty: float = DEFAULTS["choice_subject_penalty"],
        dopamine_subject_penalty: float = DEFAULTS["dopamine_subject_penalty"],
        frozen: Sequence[str] = (),
        trained: Sequence[str] = (),
        reference: dict[str, Any] | None = None,
        seed: int | None = None,
        implementation: Literal["auto", "native", "keras"] = "auto",
        **kwargs: Any,
    ) -> None:
        given = locals()
        check_disrnn_memory(given)
        super().__init__(penalties={name: given[name] for name in PENALTIES}, **kwargs)
        self.subjects = check_subjects(subjects)
        self.subject_units = check_integer("subject_units", subject_units, int(bool(self.subjects)))
        if subject_units and not self.subjects:
            raise ValueError(
                f"subjects: expected their names, as subject_units is {subject_units}, got none"
            )
        least = CHOICE_AND_REWARD + bool(self.subjects)
        num_observations = least if num_observations is None else num_observations
        self.num_observations = check_integer("num_observations", num_observations, least)
        self.num_arms = check_integer("num_arms", num_arms, 2)
        self.num_signals = check_integer("num_signals", num_signals, 0)
        check_shape(given)
        self.num_latents = int(num_latents)
        self.update_units = update_units
        self.num_update_layers = num_update_layers
        self.choice_units = choice_units
        self.num_choice_layers = num_choice_layers
        self.dopamine_units = dopamine_units
        self.num_dopamine_layers = num_dopamine_layers
        self.activation = activation
        self.max_latent_value = max_latent_value
        self.dopamine_timing = dopamine_timing
        self.reference = reference
        self.seed = None if seed is None else check_integer("seed", seed, 0)
        self.implementation = implementation

        seeds = derive_seeds(self.seed, 4)
        policy = self.dtype_policy
        self.subject_embedding = None
        if self.subjects:
            self.subject_embedding = SubjectEmbedding(
                self.num_subjects,
                units=subject_units,
                seed=seeds[3],
                name="subject_embedding",
                dtype=policy,
            )
        self.core = DisRNN(
            num_latents,
            update_units=update_units,
            num_update_layers=num_update_layers,
            activation=activation,
            max_latent_value=max_latent_value,
            seed=seeds[0],
            implementation=implementation,
            name="core",
            dtype=policy,
        )
        self.choice_readout = ChoiceReadout(
            num_arms,
            units=choice_units,
            num_layers=num_choice_layers,
            activation=activation,
            seed=seeds[1],
            implementation=implementation,
            subject_units=subject_units,
            name="choice_readout",
            dtype=policy,
        )
        self.dopamine_readout = None
        if num_signals:
            self.dopamine_readout = DopamineReadout(
                num_signals,
                units=dopamine_units,
                num_layers=num_dopamine_layers,
                activation=activation,
                timing=dopamine_timing,
                seed=seeds[2],
                implementation=implementation,
                subject_units=subject_units,
                name="dopamine_readout",
                dtype=policy,
            )
        self.frozen, self.trained = frozen, trained
        # A subclass may add layers after this constructor, which a built model does not allow.
        if type(self).__init__ is DisRNNModel.__init__:
            self.build((None, None, self.num_observations))

    def build(self, input_shape: Any = None) -> None:
        """Create the weights. The constructor does so already; a second call changes nothing.

        A subclass with its own constructor is built at the first call or the first `compile_stage`.

        Args:
            input_shape: The shape of the features, which only Keras uses.
        """
        if self.built:
            return
        units = self.subject_units
        if self.subject_embedding is not None:
            self.subject_embedding.build((None,))
        self.core.build((None, None, self.num_trial_observations + units))
        self.choice_readout.build((None, None, self.num_latents + units))
        if self.dopamine_readout is not None:
            inputs = self.num_latents + CHOICE_AND_REWARD + units
            self.dopamine_readout.build((None, None, inputs))
        self._make_metrics()

    # === Sizes and parts ===

    @property
    def num_subjects(self) -> int:
        """Number of subjects; 0 for a model without subjects."""
        return len(self.subjects)

    @property
    def num_trial_observations(self) -> int:
        """Number of observations of a trial, without the index of the subject."""
        return self.num_observations - bool(self.subjects)

    @property
    def penalty_names(self) -> tuple[str, ...]:
        """Names of the penalties that this model has."""
        return tuple(
            penalty.name
            for penalty in PENALTIES.values()
            if self.subjects or not penalty.of_subjects
        )

    @property
    def parts(self) -> dict[str, keras.layers.Layer]:
        """The parts that train separately: name to layer."""
        names = ("subject_embedding", "core", "choice_readout", "dopamine_readout")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def bottlenecks(self) -> dict[str, list[InformationBottleneck]]:
        """The groups of bottlenecks: name to list of `InformationBottleneck` layers."""
        cell = self.core.cell
        groups = {
            "latent": [cell.latent_bottleneck],
            "update": [cell.update_obs_bottleneck, cell.update_latent_bottleneck],
            "choice": [self.choice_readout.bottleneck],
        }
        if self.dopamine_readout is not None:
            groups["dopamine"] = [self.dopamine_readout.bottleneck]
        if self.subject_embedding is not None:
            groups["subject"] = [self.subject_embedding.bottleneck]
        return groups

    @property
    def initial_latents(self) -> Tensor:
        """The learned latents before the first time step, `(latents,)`."""
        return ops.convert_to_tensor(self.core.cell.initial_latents)

    # === Forward pass ===

    def call(self, inputs: Any, training: bool = False) -> dict[str, Tensor]:
        return self._run(inputs, training)[0]

    def compute_latents(self, features: Any) -> Tensor:
        """Compute the latents after each time step, without noise.

        Args:
            features: `(sessions, time steps, observations)`.

        Returns:
            A tensor `(sessions, time steps, latents)`.
        """
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        check_observations(self, features.shape)
        reads = read_features(self, features)
        # A new tensor, without the mask that the layer attaches to its output.
        return tf.identity(self.core(reads.core, real=reads.real))

    def step(self, features: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """Compute one time step from the latents of the one before it, for closed-loop use.

        Args:
            features: `(sessions, observations)`. NaN leaves the latents as they are. A model of
                subjects needs the index of the subject in any case; without it the outputs are NaN.
            latents: The latents before the time step, `(sessions, latents)`; `initial_latents` at
                first.

        Returns:
            The outputs of `call` without the axis of time steps, and `latents`, `(sessions,
            latents)`.
        """
        seen, observed = remove_padding(features[..., : self.num_trial_observations])
        embedding = []
        if self.subject_embedding is not None:
            check_subject_index(self, features[..., -1])
            embedding = [self.subject_embedding(features[..., -1])]
        new, _ = self.core.cell(ops.concatenate([seen, *embedding], axis=-1), [latents])
        new = ops.where(observed[..., None], new, latents)
        outputs = {
            "choice": self.choice_readout(ops.concatenate([new, *embedding], axis=-1)),
            "latents": new,
        }
        if self.dopamine_readout is not None:
            read = latents if self.dopamine_readout.reads_previous else new
            read = ops.concatenate([read, seen[..., :CHOICE_AND_REWARD], *embedding], axis=-1)
            outputs["dopamine"] = self.dopamine_readout(read)
        return outputs

    def penalties(self, features: Any, *, training: bool = False) -> dict[str, Tensor]:
        """Compute the penalty of each time step by group, before the loss normalises it.

        Args:
            features: `(sessions, time steps, observations)`.
            training: Whether to run with noise.

        Returns:
            A dict of tensors `(sessions, time steps)`, float32 or wider. `latent`, `update_obs`,
            `update_latent`, `choice` and `dopamine` are penalty weights times KL divergences. `l2`
            is that of the core and the choice readout, `dopamine_l2` that of the dopamine readout.
            With subjects there are also `subject`, `update_subject`, `choice_subject` and
            `dopamine_subject`. Padding has 0.
        """
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        check_observations(self, features.shape)
        _, costs, observed = self._run(features, training)
        for group in ("l2", "dopamine_l2"):
            if group in costs:
                costs[group] = ops.where(observed, costs[group], 0.0)
        return {
            group: ops.cast(self._penalties[name], costs[group].dtype) * costs[group]
            for group, (name, _) in self._cost_groups().items()
        }

    def _run(self, inputs: Any, training: bool) -> tuple[dict[str, Tensor], ...]:
        """Compute the outputs, the costs by group, and the mask of observed time steps."""
        switch = tf.convert_to_tensor(self._noise) if training else None
        features = inputs["features"] if isinstance(inputs, dict) else inputs
        check_observations(self, features.shape)
        dtype = cost_dtype(self.dtype_policy)
        outputs, costs = {}, {}
        reads = read_features(self, features, training, switch)
        if isinstance(inputs, dict):
            latents = inputs["latents"]
        else:
            latents, costs = self.core(
                reads.core,
                training=training,
                return_costs=True,
                switch=switch,
                real=reads.real,
            )
            # A new tensor, without the mask that the layer attaches to its output.
            latents = tf.identity(latents)
        costs["l2"] = ops.cast(
            self.core.cell.update_network.l2() + self.choice_readout.network.l2(), dtype
        )
        if self.dopamine_readout is not None:
            costs["dopamine_l2"] = ops.cast(self.dopamine_readout.network.l2(), dtype)
        for name, readout, read in (
            ("choice", self.choice_readout, reads.choice),
            ("dopamine", self.dopamine_readout, reads.dopamine),
        ):
            if readout is not None:
                outputs[name], costs[name] = readout.read_sessions(
                    latents,
                    read,
                    self.initial_latents,
                    training=training,
                    switch=switch,
                    real=reads.real,
                )
        separate_subject_costs(self, costs, reads)
        self._keep_costs(costs, reads.observed)
        return outputs, costs, reads.observed

    # === Saving ===

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Export the model with Keras, which uses Keras operations only.

        `keras_disrnn.export` writes more: a step for closed-loop use, a manifest and a README.
        """
        with native.disabled():
            return super().export(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        own = get_arguments(self, DisRNNModel)
        own |= {name: list(own[name]) for name in ("subjects", "frozen", "trained")}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> DisRNNModel:
        """Create a model from its configuration, also from one that version 0.1.0 saved."""
        config = {NAMES_OF_0_1_0.get(name, name): value for name, value in config.items()}
        model = super().from_config(config, custom_objects)
        if "trained" not in config:
            # Files without this record hold a model that was trained as a whole.
            model.trained = model.part_names
        return model
