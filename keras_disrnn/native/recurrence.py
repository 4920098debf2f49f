"""The core on the CPU: forward, and exact backward through time."""

from typing import NamedTuple

import numpy as np

from keras_disrnn.native.library import (
    Pass,
    address,
    contiguous_of_shape,
    differentiable,
    empty,
    network_weights,
    tensors,
)

COSTS = ("latent", "update_obs", "update_latent")
_NOISE = ("update_obs", "update_latent", "latent")


class Parameters(NamedTuple):
    """The cell's parameters, or their gradients, in the layout of `DisRNNCell`'s weights.

    `(...)_sigma` are noise levels (positive), not the raw weights. Shapes, with `inputs =
    observations + latents`: `input_kernel (latents, inputs, units)`, `input_bias (latents, units)`,
    `hidden_kernel (layers, latents, units, units)`, `hidden_bias (layers, latents, units)`,
    `output_kernel (latents, units, 2)`, `output_bias (latents, 2)`, `obs_multiplier` and
    `obs_sigma (latents, observations)`, `latent_multiplier` and `update_sigma (latents, latents)`,
    `latent_sigma (latents,)`.
    """

    input_kernel: object
    input_bias: object
    hidden_kernel: object
    hidden_bias: object
    output_kernel: object
    output_bias: object
    obs_multiplier: object
    obs_sigma: object
    latent_multiplier: object
    update_sigma: object
    latent_sigma: object

    @classmethod
    def of_cell(cls, cell):
        """The tensors of a built `DisRNNCell`."""
        reads, previous = cell.update_obs_bottleneck, cell.update_latent_bottleneck
        return cls(
            *tensors(
                (
                    *network_weights(cell.update_network),
                    reads.multiplier,
                    reads.sigma,
                    previous.multiplier,
                    previous.sigma,
                    cell.latent_bottleneck.sigma,
                )
            )
        )


class Recurrence(Pass):
    """The recurrence of one architecture, on NumPy arrays.

    All arrays are float32, or all are float64. With a `seed` noise is drawn: a draw depends on
    the seed and on its element, row and session alone, so the backward pass can make it again.

    Args:
        activation, threads, instructions: As for `Pass`.
        max_latent_value: Bound of the update networks' targets.

    Raises:
        RuntimeError: If the library is not there.
        ValueError: If this machine lacks the instructions, or an array has the wrong shape.
        TypeError: If an array has the wrong dtype.
    """

    def __init__(self, activation, max_latent_value, threads=None, instructions=None):
        super().__init__(activation, threads, instructions)
        self._bound = max_latent_value

    def forward(self, features, initial, parameters, mask=None, seed=None, noise=None, costs=False):
        """Runs all sessions through all rows.

        Args:
            features: `(sessions, rows, observations)`; a row of NaN is passed over.
            initial: Latents before the first row, `(sessions, latents)`.
            parameters: `Parameters` of arrays.
            mask: Boolean `(sessions, rows)`, false for further rows to pass over, or `None`.
            seed: Two integers, to draw noise, or `None`; perhaps a third, the number of the first
                session in the batch that these are a part of.
            noise: Standard normal draws to use instead, in the order and shapes of
                `DisRNNCell.draw_noise`; or `None`.
            costs: Whether to compute the bottlenecks' costs.

        Returns:
            Latents after each row, `(sessions, rows, latents)`; a list of the costs `COSTS` of each
            row in nats, `(sessions, rows)`, 0 in rows passed over (empty without `costs`); and the
            noise that was drawn, for `backward`, in the library's own order (empty where there
            is none or too much of it).
        """
        problem, _alive = self._prepare(features, initial, parameters, mask, seed, noise)
        latents = empty((*features.shape[:2], initial.shape[1]), features.dtype)
        results = [empty(features.shape[:2], features.dtype) for _ in COSTS if costs]
        kept = self._keep(problem, features.dtype)
        problem.z = address(latents)
        self._set(problem, "costs", results)
        self._call("forward", problem, features.dtype)
        return latents, results, kept

    def backward(
        self,
        features,
        initial,
        parameters,
        latents,
        latents_gradient,
        cost_gradients=(),
        mask=None,
        seed=None,
        noise=None,
        kept=None,
    ):
        """The gradients of a loss with respect to everything that `forward` read.

        Args:
            features, initial, parameters, mask, seed, noise: As they were for `forward`.
            latents: What `forward` returned.
            latents_gradient: The loss's gradient with respect to them.
            cost_gradients: The same of each of the costs `(sessions, rows)`; empty for none.
            kept: The noise that `forward` drew; without it, it is drawn again.

        Returns:
            The gradients with respect to `features`, `initial`, and `parameters`.
        """
        problem, _alive = self._prepare(features, initial, parameters, mask, seed, noise)
        given = {"latents": latents, "latents_gradient": latents_gradient}
        shapes = dict.fromkeys(given, (*features.shape[:2], initial.shape[1]))
        for name, gradient in zip(COSTS, cost_gradients, strict=False):
            given[f"{name} cost"], shapes[f"{name} cost"] = gradient, features.shape[:2]
        given = contiguous_of_shape(given, shapes, features.dtype)
        problem.z, problem.dz = address(given["latents"]), address(given["latents_gradient"])
        _kept = self._reuse(problem, kept)
        self._set(problem, "dcosts", list(given.values())[2:])
        dfeatures, dinitial = (empty(array.shape, array.dtype) for array in (features, initial))
        problem.dfeatures, problem.dinitial = address(dfeatures), address(dinitial)
        gradients = self._gradients(problem, parameters)
        self._call("backward", problem, features.dtype)
        return dfeatures, dinitial, gradients

    def draws(self, features, initial, parameters, seed):
        """The noise that `forward` draws with `seed`, as the `noise` argument would hold it."""
        problem, _alive = self._prepare(features, initial, parameters, None, seed, None)
        shapes = _noise_shapes(features, initial.shape[1])
        noise = tuple(np.empty(shape, features.dtype) for shape in shapes)
        self._call("noise", problem, features.dtype, *(array.ctypes for array in noise))
        return noise

    def _prepare(self, features, initial, parameters, mask, seed, noise):
        sessions, rows, observations = features.shape
        layers, latents, units = parameters.hidden_bias.shape
        noise_shapes = _noise_shapes(features, latents)
        fields = ("obs_noise", "update_noise", "latent_noise")
        if noise is not None:
            noise = dict(zip(fields, noise, strict=True))
        arrays = {"initial": initial}
        if mask is not None:
            arrays["mask"] = np.asarray(mask, bool)
        return self._problem(
            features,
            parameters,
            arrays,
            {
                "initial": (sessions, latents),
                "mask": (sessions, rows),
                "input_kernel": (latents, observations + latents, units),
                "input_bias": (latents, units),
                "hidden_kernel": (layers, latents, units, units),
                "output_kernel": (latents, units, 2),
                "output_bias": (latents, 2),
                "obs_multiplier": (latents, observations),
                "obs_sigma": (latents, observations),
                "latent_multiplier": (latents, latents),
                "update_sigma": (latents, latents),
                "latent_sigma": (latents,),
                **dict(zip(fields, noise_shapes, strict=True)),
            },
            seed,
            noise,
            sessions=sessions,
            rows=rows,
            observations=observations,
            latents=latents,
            units=units,
            layers=layers,
            max_latent_value=self._bound,
        )


def _noise_shapes(features, latents):
    """Shapes of the three arrays of given noise, in the order of `DisRNNCell.draw_noise`."""
    sessions, rows, observations = features.shape
    return (
        (rows, latents, observations, sessions),
        (rows, latents, latents, sessions),
        (rows, latents, sessions),
    )


def run_core(cell, features, initial, mask=None, seed=None, noise=None, switch=None, costs=False):
    """Runs a built `DisRNNCell` over sessions, differentiably, in eager mode or in a graph.

    Args:
        cell: The cell.
        features: Tensor `(sessions, rows, observations)`; a row of NaN is passed over.
        initial: Tensor `(sessions, latents)`.
        mask: Boolean tensor `(sessions, rows)`, false for further rows to pass over, or `None`.
        seed: Integer tensor, to draw noise, as for `Recurrence.forward`; or `None`.
        noise: A dict as `DisRNNCell.draw_noise` gives it, to use instead; or `None`. No gradients
            with respect to it.
        switch: Boolean tensor that turns the noise off where it is false, or `None`.
        costs: Whether to compute the costs.

    Returns:
        Latents after each row, a tensor `(sessions, rows, latents)`, and a dict of the costs of
        each row, `(sessions, rows)`, 0 in rows passed over; empty without `costs`.
    """
    recurrence = Recurrence(cell.activation, cell.max_latent_value)
    extras = {}
    if mask is not None:
        extras["mask"] = mask
    if noise is not None:
        extras.update((name, noise[name]) for name in _NOISE)
    elif seed is not None:
        extras["seed"] = seed
    if switch is not None:
        extras["switch"] = switch
    names = tuple(extras)
    inputs = 2 + len(Parameters._fields)

    def unpack(arrays):
        given = dict(zip(names, arrays[inputs : inputs + len(names)], strict=True))
        options = {"mask": given.get("mask")}
        if given.get("switch", True):
            options["seed"] = given.get("seed")
            if noise is not None:
                options["noise"] = tuple(given[name] for name in _NOISE)
        return (*arrays[:2], Parameters(*arrays[2:inputs])), options

    def forward(*arrays):
        passed, options = unpack(arrays)
        latents, results, kept = recurrence.forward(*passed, **options, costs=costs)
        return [latents, *results, kept]

    def backward(*arrays):
        passed, options = unpack(arrays)
        results = arrays[inputs + len(names) :]
        count = 1 + (len(COSTS) if costs else 0)
        latents, kept, upstream = results[0], results[count], results[count + 1 :]
        dfeatures, dinitial, gradients = recurrence.backward(
            *passed, latents, upstream[0], upstream[1:], **options, kept=kept
        )
        return (dfeatures, dinitial, *gradients)

    rows = features.shape[:2]
    latents, *results = differentiable(
        forward,
        backward,
        [features, initial, *Parameters.of_cell(cell)],
        extras.values(),
        [(*rows, initial.shape[1]), *(rows for _ in COSTS if costs)],
        saved=1,
    )
    return latents, dict(zip(COSTS, results, strict=False))
