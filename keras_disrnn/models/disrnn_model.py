"""The model: DisRNN core, choice readout, dopamine readout."""

import threading

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_disrnn import native
from keras_disrnn.layers.disrnn import DisRNN
from keras_disrnn.layers.information_bottleneck import cost_dtype
from keras_disrnn.layers.readouts import CHOICE_AND_REWARD, ChoiceReadout, DopamineReadout
from keras_disrnn.layers.subject_embedding import SubjectEmbedding, check_subjects
from keras_disrnn.layers.time_steps import remove_padding
from keras_disrnn.models.penalties import PENALTIES, PenaltyWeight, check_penalty
from keras_disrnn.objectives.metrics import OpenBottlenecks
from keras_disrnn.utils import distribute
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.seeds import derive_seeds


@keras.saving.register_keras_serializable("keras_disrnn")
class DisRNNModel(keras.Model):
    """Predicts the next choice, and the dopamine response, from a session's past.

    The disentangled RNN of Miller et al. (2023) with the dopamine readout of Jain et al. (2025).
    Train it with `keras_disrnn.train`, or stage by stage with `compile_stage` and `fit`.

    Example:

    >>> model = DisRNNModel(latents=5)
    >>> outputs = model(numpy.zeros((3, 11, 2), "float32"))
    >>> outputs["choice"].shape, outputs["dopamine"].shape
    (TensorShape([3, 11, 2]), TensorShape([3, 11, 1]))

    With `subjects` it is a model of several subjects, after the multi-subject model of the authors'
    package `disentangled-rnns`: the last observation of a row is the index of its subject, which
    becomes an embedding, and the update networks and both readouts read that as a further input,
    through bottlenecks of their own (the dopamine readout's is an addition). `Sessions.for_model`
    puts the index there.

    Args:
        num_observations: Observations in a row: choice, reward, any others, and last, with subjects,
            the subject's index; by default no others.
        num_arms: Number of arms.
        num_signals: Number of dopamine signals; 0 for a model of choice alone.
        num_latents: Number of latents, of which the bottlenecks are to close most.
        update_units, num_update_layers: Shape of each update network.
        choice_units, num_choice_layers: Shape of the choice readout's network.
        dopamine_units, num_dopamine_layers: Shape of the dopamine readout's network.
        activation: Name of a Keras activation (leaky ReLU has slope 0.01).
        max_latent_value: Bound of the update networks' targets.
        dopamine_timing: `"pre"`: the dopamine readout reads the latents as they were before the
            trial's outcome; `"post"`: after the update by it.
        latent_penalty, update_obs_penalty, update_latent_penalty, choice_penalty,
            dopamine_penalty: Price of a nat through each group of bottlenecks, relative to a nat
            of choice cross-entropy (the dopamine penalty: to the mean squared error). As
            attributes of the model they can be set at any time, also between calls of `fit`.
        l2_scale: Price of the squared hidden weights of the networks that are being trained.
        subjects: Names of the subjects, in the order of their index, or their number; none for a
            model that knows of no subjects.
        subject_units: Dimensions of a subject's embedding, of which the bottlenecks are to close
            what is not needed.
        subject_penalty: Price of a nat through the bottleneck of the embedding itself.
        update_subject_penalty, choice_subject_penalty, dopamine_subject_penalty: Price of a nat
            from the embedding into the update networks, the choice and the dopamine readout.
        frozen: Names of the parts that do not train, of `subject_embedding`, `core`,
            `choice_readout` and `dopamine_readout`. A frozen part runs as at inference.
        reference: What `keras_disrnn.interop` keeps of a model of the authors' package.
        seed: Integer seed of initial values and noise, or `None` for a random one.
        implementation: Of core and readouts: `"auto"`, `"native"` or `"keras"`, as for `DisRNN`.

    Call arguments:
        inputs: Features `(sessions, rows, observations)`; a row of NaN (but perhaps for the
            subject's index) is padding. Or a dict of `features` and `latents`, the latents
            `(sessions, rows, latents)` after each row, which spares running the core.
        training: Whether to add noise (in the parts that are not frozen).

    Returns:
        A dict: `choice`, logits `(sessions, rows, arms)` of the choice after each row; `dopamine`,
        `(sessions, rows, signals)`, the response to the trial that the row describes (absent with
        `num_signals=0`).
    """

    latent_penalty = PenaltyWeight()
    update_obs_penalty = PenaltyWeight()
    update_latent_penalty = PenaltyWeight()
    choice_penalty = PenaltyWeight()
    dopamine_penalty = PenaltyWeight()
    l2_scale = PenaltyWeight()
    subject_penalty = PenaltyWeight()
    update_subject_penalty = PenaltyWeight()
    choice_subject_penalty = PenaltyWeight()
    dopamine_subject_penalty = PenaltyWeight()

    def __init__(
        self,
        num_observations=None,
        num_arms=2,
        num_signals=1,
        num_latents=5,
        update_units=8,
        num_update_layers=4,
        choice_units=4,
        num_choice_layers=2,
        dopamine_units=8,
        num_dopamine_layers=2,
        activation="leaky_relu",
        max_latent_value=2.0,
        dopamine_timing="pre",
        latent_penalty=3e-3,
        update_obs_penalty=1e-3,
        update_latent_penalty=1e-3,
        choice_penalty=1e-3,
        dopamine_penalty=1e-3,
        l2_scale=1e-5,
        subjects=(),
        subject_units=0,
        subject_penalty=3e-4,
        update_subject_penalty=3e-4,
        choice_subject_penalty=3e-4,
        dopamine_subject_penalty=3e-4,
        frozen=(),
        reference=None,
        seed=None,
        implementation="auto",
        **kwargs,
    ):
        super().__init__(**kwargs)
        # What Keras keeps of it is not told apart from the strategy that is in force elsewhere.
        self.made_under = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
        self.subject_names = check_subjects(subjects)
        check_integer("subject_units", subject_units, 1 if self.subject_names else 0)
        if subject_units and not self.subject_names:
            raise ValueError(
                f"subjects: expected their names, as subject_units is {subject_units}, got none"
            )
        self.subject_units = subject_units
        least = CHOICE_AND_REWARD + bool(self.subject_names)
        num_observations = least if num_observations is None else num_observations
        check_integer("num_observations", num_observations, least)
        check_integer("num_arms", num_arms, 2)
        check_integer("num_signals", num_signals, 0)
        self.num_observations = num_observations
        self.num_arms = num_arms
        self.num_signals = num_signals
        self.seed = seed
        self.reference = reference
        given = locals()
        prices = {name: check_penalty(name, given[name]) for name in PENALTIES}

        seeds = derive_seeds(seed, 4)
        policy = self.dtype_policy
        self.subject_embedding = None
        if self.subject_names:
            self.subject_embedding = SubjectEmbedding(
                self.subjects,
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
        self._dopamine_config = {
            "dopamine_units": dopamine_units,
            "num_dopamine_layers": num_dopamine_layers,
            "dopamine_timing": dopamine_timing,
        }
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
        self.frozen = frozen
        # Variables, so that they can change without tracing a step anew; no weights of the model.
        self._penalties = {
            name: tf.Variable(price, trainable=False, dtype=tf.float64)
            for name, price in prices.items()
        }
        self._noise = tf.Variable(True, trainable=False)
        self._penalised = tf.Variable(True, trainable=False)
        # A pass leaves its costs here for the loss of the same step. One slot a thread, because
        # distribution strategies run each replica in a thread of its own.
        self._pass = threading.local()

    def build(self, input_shape):
        shape = input_shape["features"] if isinstance(input_shape, dict) else input_shape
        self._check_observations(shape)
        latents, units = self.core.cell.num_latents, self.subject_units
        if self.subject_embedding is not None:
            self.subject_embedding.build((None,))
        self.core.build((*shape[:-1], self.row_observations + units))
        self.choice_readout.build((None, None, latents + units))
        if self.dopamine_readout is not None:
            self.dopamine_readout.build((None, None, latents + CHOICE_AND_REWARD + units))
        self.built = True
        self.penalty_metrics = {
            group: keras.metrics.Mean(name=f"penalty_{group}") for group in self._prices()
        }
        self.open_metrics = [
            OpenBottlenecks(layers, name=f"open_{group}")
            for group, layers in self.bottlenecks.items()
        ]

    @property
    def subjects(self):
        """Number of subjects that it tells apart, 0 for a model that knows of none."""
        return len(self.subject_names)

    @property
    def row_observations(self):
        """Number of observations without the subject's index."""
        return self.num_observations - bool(self.subject_names)

    @property
    def penalty_names(self):
        """Names of the prices that it has."""
        return tuple(
            penalty.name
            for penalty in PENALTIES.values()
            if self.subject_names or not penalty.of_subjects
        )

    @property
    def parts(self):
        """The parts that train apart from each other: name to layer."""
        names = ("subject_embedding", "core", "choice_readout", "dopamine_readout")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def frozen(self):
        """Names of the parts that do not train. Setting it takes effect at the next `compile`."""
        return tuple(name for name, part in self.parts.items() if not part.trainable)

    @frozen.setter
    def frozen(self, names):
        unknown = sorted(set(names) - set(self.parts))
        if unknown:
            raise ValueError(f"frozen: expected names of {tuple(self.parts)}, got {unknown[0]!r}")
        for name, part in self.parts.items():
            part.trainable = name not in names

    @property
    def noise(self):
        """Whether training adds noise. It can be set at any time, also between calls of `fit`."""
        return bool(self._noise.numpy())

    @noise.setter
    def noise(self, on):
        self._noise.assign(bool(on))

    @property
    def penalised(self):
        """Whether the loss has the penalties. It can be set at any time, as `noise`."""
        return bool(self._penalised.numpy())

    @penalised.setter
    def penalised(self, on):
        self._penalised.assign(bool(on))

    @property
    def metrics(self):
        """The metrics of the step; of the penalties, those of the parts that train."""
        hidden = {
            id(self.penalty_metrics[group])
            for group, (_, owner) in (self._prices() if self.built else {}).items()
            if not owner.trainable
        }
        return [metric for metric in super().metrics if id(metric) not in hidden]

    def _check_observations(self, shape):
        if len(shape) != 3 or shape[-1] not in (None, self.num_observations):
            index = " (the last is the subject's index: see Sessions.for_model)"
            raise ValueError(
                "features: expected a shape of (sessions, rows, observations) with "
                f"{self.num_observations} observations, the number this model was made for"
                f"{index if self.subject_names else ''}; got {tuple(shape)}"
            )

    def _check_subjects(self, index):
        """Refuses what is no subject's index, where that can be seen: in a graph it gives NaN."""
        if not tf.executing_eagerly() or not isinstance(index, tf.Tensor):
            return
        index = index.numpy().astype(np.float64)
        known = (index >= 0) & (index < self.subjects) & (index == np.floor(index))
        wrong = ~known & ~np.isnan(index)
        if wrong.any():
            raise ValueError(
                "features: expected the index of one of this model's subjects, a whole number from "
                f"0 to {self.subjects - 1}, as the last observation, got {index[wrong][0]:g}"
            )

    @property
    def bottlenecks(self):
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
    def initial_latents(self):
        """The learned latents before the first row, `(latents,)`."""
        return ops.convert_to_tensor(self.core.cell.initial_latents)

    def call(self, inputs, training=False):
        return self._run(inputs, training)[0]

    def compute_latents(self, features):
        """The latents after each row, without noise.

        Args:
            features: `(sessions, rows, observations)`.

        Returns:
            A tensor `(sessions, rows, latents)`.
        """
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        self._check_observations(features.shape)
        seen, *_, real = self._read(features)
        # A new tensor, without the mask that the layer attaches to its output.
        return tf.identity(self.core(seen, real=real))

    def step(self, features, latents):
        """One trial, for closed-loop use: what `call` computes for one row, from the row above.

        Args:
            features: `(sessions, observations)`; a row of NaN leaves the latents as they are. With
                subjects it still has to tell whose it is, or there are no outputs but NaN.
            latents: Before the row, `(sessions, latents)`; at first `initial_latents`.

        Returns:
            The outputs of `call` without the axis of rows, and `latents`, `(sessions, latents)`.
        """
        seen, real = remove_padding(features[..., : self.row_observations])
        embedding = []
        if self.subject_embedding is not None:
            self._check_subjects(features[..., -1])
            embedding = [self.subject_embedding(features[..., -1])]
        new, _ = self.core.cell(ops.concatenate([seen, *embedding], axis=-1), [latents])
        new = ops.where(real[..., None], new, latents)
        outputs = {
            "choice": self.choice_readout(ops.concatenate([new, *embedding], axis=-1)),
            "latents": new,
        }
        if self.dopamine_readout is not None:
            read = latents if self.dopamine_readout.reads_previous else new
            read = ops.concatenate([read, seen[..., :CHOICE_AND_REWARD], *embedding], axis=-1)
            outputs["dopamine"] = self.dopamine_readout(read)
        return outputs

    def penalties(self, features, training=False):
        """Each row's share of the penalty, by group, as the loss counts it before normalising.

        Args:
            features: `(sessions, rows, observations)`.
            training: Whether to run with noise.

        Returns:
            A dict of tensors `(sessions, rows)`, float32 or wider: `latent`, `update_obs`,
            `update_latent`, `choice`, `dopamine` (each its price times its KL), `l2` (core and
            choice readout), and `dopamine_l2`; with subjects also `subject`, `update_subject`,
            `choice_subject` and `dopamine_subject`. Padding rows have 0.
        """
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        self._check_observations(features.shape)
        _, costs, real = self._run(features, training)
        for group in ("l2", "dopamine_l2"):
            if group in costs:
                costs[group] = ops.where(real, costs[group], 0.0)
        return {
            group: ops.cast(self._penalties[name], costs[group].dtype) * costs[group]
            for group, (name, _) in self._prices().items()
        }

    def _prices(self):
        """Group of costs to the name of its price and the layer whose training it belongs to."""
        return {
            group: (name, self.parts[part])
            for name in self.penalty_names
            for group, part in PENALTIES[name].groups
            if part in self.parts
        }

    def _subject_inputs(self):
        """Where the embedding is read.

        Returns:
            A list of (group of its cost, group of the network's cost that has it in it, bottleneck,
            first element that is the embedding's).
        """
        latents = self.core.cell.num_latents
        inputs = [
            (
                "update_subject",
                "update_obs",
                self.core.cell.update_obs_bottleneck,
                self.row_observations,
            ),
            ("choice_subject", "choice", self.choice_readout.bottleneck, latents),
        ]
        if self.dopamine_readout is not None:
            first = latents + CHOICE_AND_REWARD
            inputs.append(("dopamine_subject", "dopamine", self.dopamine_readout.bottleneck, first))
        return inputs

    def _read(self, features, training=False, switch=None):
        """What core and readouts read of the features, and which rows are real.

        Returns:
            Features for the core, for the choice and for the dopamine readout; the embedding with
            zeros in rows to pass over, and its own cost, or `None` without subjects; and the mask.
        """
        seen, real = remove_padding(features[..., : self.row_observations])
        if self.subject_embedding is None:
            return seen, seen, seen, None, real
        index = features[..., -1]
        self._check_subjects(index)
        embedding, cost = self.subject_embedding.read_sessions(
            index, real, training=training, switch=switch
        )
        embedding = ops.cast(embedding, seen.dtype)
        # A missed trial has a prediction, too: the readouts know the subject in every row.
        dopamine = ops.concatenate([seen[..., :CHOICE_AND_REWARD], embedding], axis=-1)
        passed = ops.where(real[..., None], embedding, ops.zeros_like(embedding))
        core = ops.concatenate([seen, passed], axis=-1)
        return core, embedding, dopamine, (passed, cost), real

    def _run(self, inputs, training):
        switch = tf.convert_to_tensor(self._noise) if training else None
        features = inputs["features"] if isinstance(inputs, dict) else inputs
        self._check_observations(features.shape)
        dtype = cost_dtype(self.dtype_policy)
        outputs, costs = {}, {}
        seen, choice_reads, dopamine_reads, embedding, real = self._read(features, training, switch)
        if isinstance(inputs, dict):
            latents = inputs["latents"]
        else:
            latents, costs = self.core(
                seen, training=training, return_costs=True, switch=switch, real=real
            )
            latents = tf.identity(latents)
        costs["l2"] = ops.cast(
            self.core.cell.update_network.l2() + self.choice_readout.network.l2(), dtype
        )
        if self.dopamine_readout is not None:
            costs["dopamine_l2"] = ops.cast(self.dopamine_readout.network.l2(), dtype)
        for name, readout, read in (
            ("choice", self.choice_readout, choice_reads),
            ("dopamine", self.dopamine_readout, dopamine_reads),
        ):
            if readout is not None:
                outputs[name], costs[name] = readout.read_sessions(
                    latents,
                    read,
                    self.initial_latents,
                    training=training,
                    switch=switch,
                    real=real,
                )
        if embedding is not None:
            passed, costs["subject"] = embedding
            for group, whole, bottleneck, first in self._subject_inputs():
                if whole not in costs:
                    continue
                # The networks' costs have the embedding's share in them; it does not depend on the
                # latents, so it can be computed here and priced apart.
                share = bottleneck.kl(passed, slice(first, first + self.subject_units))
                costs[group] = ops.where(real, share, 0.0)
                costs[whole] = costs[whole] - costs[group]
        self._pass.costs, self._pass.real = costs, real
        return outputs, costs, real

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The compiled losses, plus the penalties of the parts that are being trained.

        A penalty is summed over real rows and divided by the number of weighted targets: choice
        targets for the core and the choice readout, dopamine targets for the dopamine readout. Both
        are those of the whole batch, also where a `tf.distribute` strategy shares it out.
        """
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        costs, real = self._pass.costs, self._pass.real
        dtype = cost_dtype(self.dtype_policy)
        on = ops.cast(tf.convert_to_tensor(self._penalised), dtype)
        priced, totals, targets = {}, {}, {}
        for group, (name, owner) in self._prices().items():
            if not owner.trainable:
                continue
            target = "dopamine" if owner is self.dopamine_readout else "choice"
            priced[group] = name, target
            # Rows passed over cost nothing; the weights are paid for in every other row.
            totals[group] = ops.sum(costs[group])
            if group in ("l2", "dopamine_l2"):
                totals[group] = totals[group] * ops.sum(ops.cast(real, dtype))
            targets[target] = self._targets(target, real, sample_weight, dtype)
        totals, targets = distribute.sum_over_replicas((totals, targets))
        for group, (name, target) in priced.items():
            price = ops.cast(tf.convert_to_tensor(self._penalties[name]), dtype)
            penalty = price * on * ops.divide_no_nan(totals[group], targets[target])
            self.penalty_metrics[group].update_state(penalty)
            loss = loss + ops.cast(distribute.scale_loss(penalty), loss.dtype)
        return loss

    @staticmethod
    def _targets(name, real, sample_weight, dtype):
        """How many rows have a weighted target of that name."""
        if sample_weight is None or sample_weight.get(name) is None:
            return ops.sum(ops.cast(real, dtype))
        weighted = sample_weight[name] > 0
        if len(weighted.shape) == 3:
            weighted = ops.any(weighted, axis=-1)
        return ops.sum(ops.cast(weighted, dtype))

    # === Steps of several replicas ===

    def train_step(self, data):
        with distribute.share(data) as data:
            return super().train_step(data)

    def test_step(self, data):
        with distribute.share(data) as data:
            return super().test_step(data)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras 3.15 takes the mean of a batch over all replicas here, only for its shapes, and
        # fails where they are in several processes.
        if iterator is not None and distribute.replicas(self) > 1:
            data_batch = distribute.local_batch(self.made_under, iterator)
        super()._maybe_symbolic_build(iterator if data_batch is None else None, data_batch)

    def get_metrics_result(self):
        """The metrics, in a replica's step too those of all replicas."""
        variables = [variable for metric in self.metrics for variable in metric.variables]
        return distribute.with_sums(self, variables, super().get_metrics_result)

    def fit(self, *args, **kwargs):
        """Keras' own; under a strategy of several replicas, of `tf.data.Dataset`s only."""
        return distribute.run(self, super().fit, args, kwargs)

    def evaluate(self, *args, **kwargs):
        """Keras' own; under a strategy of several replicas, of a `tf.data.Dataset` only."""
        return distribute.run(self, super().evaluate, args, kwargs)

    def export(self, *args, **kwargs):
        """Keras' own export, of Keras operations (see `keras_disrnn.export` for ours)."""
        with native.disabled():
            return super().export(*args, **kwargs)

    def get_config(self):
        cell = self.core.cell
        readout = self.choice_readout
        return {
            **super().get_config(),
            "num_observations": self.num_observations,
            "num_arms": self.num_arms,
            "num_signals": self.num_signals,
            "num_latents": cell.num_latents,
            "update_units": cell.update_units,
            "num_update_layers": cell.num_update_layers,
            "choice_units": readout.units,
            "num_choice_layers": readout.num_layers,
            "activation": cell.activation,
            "max_latent_value": cell.max_latent_value,
            "implementation": self.core.implementation,
            "frozen": list(self.frozen),
            "reference": self.reference,
            **self._dopamine_config,
            **self._subject_config(),
            **{name: getattr(self, name) for name in self.penalty_names},
        }

    def _subject_config(self):
        # Left out where there are none, so that files and checkpoints are as before there were any.
        if not self.subject_names:
            return {}
        return {"subjects": list(self.subject_names), "subject_units": self.subject_units}
