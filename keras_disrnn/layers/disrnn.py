"""The DisRNN core over whole sessions."""

import keras
import tensorflow as tf
from keras import ops

from keras_disrnn.layers.disrnn_cell import DisRNNCell
from keras_disrnn.layers.implementation import check_implementation, runs_natively, seed_or_noise
from keras_disrnn.native import run_core


def row_mask(features):
    """Which rows are real: a padding row is NaN in every observation.

    Args:
        features: `(..., observations)`.

    Returns:
        Boolean `(...)`.
    """
    return ops.logical_not(ops.all(ops.isnan(features), axis=-1))


def clean(sequences, mask=None):
    """The features with zeros in the rows to pass over, and which rows are real.

    Args:
        sequences: `(..., observations)`.
        mask: Boolean `(...)`, false for further rows to pass over, or `None`.

    Returns:
        Features as given but for padding, and a boolean `(...)`.
    """
    real = row_mask(sequences)
    if mask is not None:
        real = ops.logical_and(real, mask)
    return ops.where(real[..., None], sequences, ops.zeros_like(sequences)), real


@keras.saving.register_keras_serializable("keras_disrnn")
class DisRNN(keras.layers.RNN):
    """Runs a `DisRNNCell` over sessions: features in, latents out.

    Everything that does not depend on the previous latents (the observation bottlenecks, all
    noise, the input projections, every cost) is computed for all rows at once; the loop over rows
    keeps only the recurrence. A frozen core (`trainable = False`) runs as at inference, without
    noise, also under `training=True`.

    As Keras' GRU has a cuDNN implementation, this layer has a native one for the CPU (package
    `keras_disrnn.native`), with the same results but for rounding and for the noise it draws.

    Example:

    >>> core = DisRNN(latents=5)
    >>> core(numpy.zeros((3, 11, 2), "float32")).shape
    TensorShape([3, 11, 5])

    Args:
        num_latents, update_units, num_update_layers, activation, max_latent_value, seed: As for
            `DisRNNCell`.
        implementation: `"keras"`: Keras operations; `"native"`: the C++ recurrence; `"auto"`: that
            one where it can run (no GPU, no XLA, float32 or float64, one of
            `keras_disrnn.native.ACTIVATIONS`, and the library built), else Keras operations, with
            a line in the log that says why. What is exported is Keras operations in any case.

    Call arguments:
        sequences: Features `(sessions, rows, observations)`. A row that is NaN throughout is
            padding: the latents stay as they are.
        initial_state: Latents before the first row, `(sessions, latents)` (or a list of that one
            tensor); by default the learned ones.
        mask: Boolean `(sessions, rows)`; further rows to pass over.
        training: Whether to add noise.
        return_costs: Whether to return the bottlenecks' costs too.
        noise: As `DisRNNCell.draw_noise` gives it, to use in place of fresh draws.
        switch: Boolean tensor; false turns the noise off after all. For noise that is turned on and
            off without tracing anew.

    Returns:
        Latents after each row, `(sessions, rows, latents)`; with `return_costs`, also a dict of
        the KL costs of each row in nats, `(sessions, rows)`: `latent`, `update_obs`,
        `update_latent`; 0 in rows that were passed over.

    Raises:
        RuntimeError: With `implementation="native"`, where that cannot run.
    """

    def __init__(
        self,
        num_latents,
        update_units=8,
        num_update_layers=4,
        activation="leaky_relu",
        max_latent_value=2.0,
        seed=None,
        implementation="auto",
        **kwargs,
    ):
        check_implementation(implementation)
        unsupported = sorted(set(kwargs) - {"name", "dtype", "trainable"})
        if unsupported:
            raise ValueError(f"DisRNN: unknown argument {unsupported[0]!r}")
        cell = DisRNNCell(
            num_latents,
            update_units,
            num_update_layers,
            activation,
            max_latent_value,
            seed,
            dtype=kwargs.get("dtype"),
            name="cell",
        )
        super().__init__(cell, return_sequences=True, **kwargs)
        self.activation = activation
        self.implementation = implementation

    def build(self, sequences_shape, initial_state_shape=None):
        if not self.cell.built:
            self.cell.build((sequences_shape[0], sequences_shape[-1]))

    def call(
        self,
        sequences,
        initial_state=None,
        mask=None,
        training=False,
        return_costs=False,
        noise=None,
        switch=None,
    ):
        sequences = ops.cast(sequences, self.compute_dtype)
        if initial_state is None:
            initial_state = self.cell.get_initial_state(ops.shape(sequences)[0])
        if isinstance(initial_state, list | tuple):
            (initial_state,) = initial_state
        initial_state = ops.cast(initial_state, self.compute_dtype)
        noisy = bool(training and self.trainable)
        if runs_natively(self):
            seed_generator = self.cell.latent_bottleneck.seed_generator
            seed, noise = seed_or_noise(noisy, noise, seed_generator)
            latents, costs = run_core(
                self.cell, sequences, initial_state, mask, seed, noise, switch, return_costs
            )
            return (latents, costs) if return_costs else latents
        latents, means = self._run_keras(sequences, initial_state, mask, noisy, noise, switch)
        if not return_costs:
            return latents
        features, real = clean(sequences, mask)
        costs = self.cell.costs(features, shift(latents, initial_state), means)
        return latents, {name: ops.where(real, cost, 0.0) for name, cost in costs.items()}

    def _run_keras(self, sequences, initial_state, mask, noisy, noise, switch):
        features, real = clean(sequences, mask)
        columns = ops.transpose(features, (1, 2, 0))
        if not noisy:
            noise = None
        elif noise is None:
            noise = self.cell.draw_noise(ops.shape(features)[1], ops.shape(features)[0])
        if noise is not None and switch is not None:
            noise = {name: draws * ops.cast(switch, draws.dtype) for name, draws in noise.items()}
        latent_noise = None
        if noise is not None:
            latent_noise = self.cell.latent_bottleneck.scale_noise(
                ops.transpose(noise["latent"], (2, 0, 1))
            )
        latents = self._recur(columns, initial_state, real, noise, latent_noise)
        return latents, latents if latent_noise is None else latents - latent_noise

    def _recur(self, columns, initial_state, real, noise, latent_noise):
        advance = self.cell.advancer()
        xs = [self.cell.project(columns, noise), ops.transpose(real)[:, None, :]]
        if latent_noise is not None:
            xs.append(ops.transpose(latent_noise, (1, 2, 0)))

        def one_row(latents, row):
            new = advance(row[0], latents)
            if latent_noise is not None:
                new = new + row[2]
            return ops.where(row[1], new, latents)

        # Not ops.scan: in Keras 3.15 it fails where the number of sessions is open.
        rows = tf.scan(one_row, tuple(xs), ops.transpose(initial_state))
        return ops.transpose(rows, (2, 0, 1))

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        return (*sequences_shape[:-1], self.cell.num_latents)

    def get_config(self):
        # The base class would store the cell; our own arguments say the same in plain values.
        config = keras.layers.Layer.get_config(self)
        cell = self.cell.get_config()
        names = (
            "num_latents",
            "update_units",
            "num_update_layers",
            "activation",
            "max_latent_value",
            "seed",
        )
        return {
            **config,
            **{name: cell[name] for name in names},
            "implementation": self.implementation,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def shift(latents, initial_state):
    """The latents before each row: those after the row above it, and first the initial ones.

    Args:
        latents: After each row, `(sessions, rows, latents)`.
        initial_state: `(sessions, latents)`.

    Returns:
        `(sessions, rows, latents)`.
    """
    return ops.concatenate([initial_state[:, None, :], latents[:, :-1]], axis=1)
