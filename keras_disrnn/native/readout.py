"""A readout over whole sessions on the CPU: forward and exact backward."""

from typing import NamedTuple

from keras_disrnn.native.library import (
    Pass,
    address,
    contiguous_of_shape,
    differentiable,
    empty,
    network_weights,
    tensors,
)


class ReadoutParameters(NamedTuple):
    """A readout's parameters, or their gradients, in the layout of its weights.

    `sigma` are noise levels (positive), not the raw weights. Shapes: `input_kernel (inputs,
    units)`, `input_bias (units,)`, `hidden_kernel (layers, units, units)`, `hidden_bias (layers,
    units)`, `output_kernel (units, outputs)`, `output_bias (outputs,)`, `multiplier` and `sigma
    (inputs,)`.
    """

    input_kernel: object
    input_bias: object
    hidden_kernel: object
    hidden_bias: object
    output_kernel: object
    output_bias: object
    multiplier: object
    sigma: object

    @classmethod
    def of_readout(cls, readout):
        """The tensors of a built readout layer."""
        bottleneck = readout.bottleneck
        weights = (*network_weights(readout.network), bottleneck.multiplier, bottleneck.sigma)
        return cls(*tensors(weights))


class Readout(Pass):
    """A readout of one architecture, on NumPy arrays, all float32 or all float64.

    Its inputs in a row are the latents, then the first `observed` observations (0 in rows of NaN).

    Args:
        activation, threads, instructions: As for `Pass`.
        observed: How many observations it reads.
        previous: Whether it reads the latents of the row before.

    Raises:
        RuntimeError: If the library is not there.
        ValueError: If this machine lacks the instructions, or an array has the wrong shape.
        TypeError: If an array has the wrong dtype.
    """

    readout = 1

    def __init__(self, activation, observed=0, previous=False, threads=None, instructions=None):
        super().__init__(activation, threads, instructions)
        self._observed = observed
        self._previous = previous

    def forward(self, latents, features, initial, parameters, seed=None, noise=None, costs=False):
        """The outputs of every row.

        Args:
            latents: After each row, `(sessions, rows, latents)`.
            features: `(sessions, rows, observations)`; a row of NaN has no cost.
            initial: Latents before the first row, `(latents,)`.
            parameters: `ReadoutParameters` of arrays.
            seed: Two integers, to draw noise, or `None`; perhaps a third, the number of the first
                session in the batch that these are a part of.
            noise: Standard normal draws to use instead, `(sessions, rows, inputs)`; or `None`.
            costs: Whether to compute the bottlenecks' cost.

        Returns:
            Outputs `(sessions, rows, outputs)`; the cost of each row in nats, `(sessions, rows)`,
            0 in rows of NaN (`None` without `costs`); and the noise that was drawn, for `backward`,
            in the library's own order (empty where there is none or too much of it).
        """
        problem, _alive = self._prepare(latents, features, initial, parameters, seed, noise)
        outputs = empty((*latents.shape[:2], len(parameters.output_bias)), latents.dtype)
        cost = empty(latents.shape[:2], latents.dtype) if costs else None
        kept = self._keep(problem, latents.dtype)
        problem.y = address(outputs)
        self._set(problem, "costs", [cost])
        self._call("forward", problem, latents.dtype)
        return outputs, cost, kept

    def backward(
        self,
        latents,
        features,
        initial,
        parameters,
        outputs_gradient,
        cost_gradient=None,
        seed=None,
        noise=None,
        kept=None,
    ):
        """The gradients of a loss with respect to everything that `forward` read.

        Args:
            latents, features, initial, parameters, seed, noise: As they were for `forward`.
            outputs_gradient: The loss's gradient with respect to the outputs.
            cost_gradient: The same of the cost, `(sessions, rows)`, or `None`.
            kept: The noise that `forward` drew; without it, it is drawn again.

        Returns:
            The gradients with respect to `latents`, `features`, `initial`, and `parameters`.
        """
        problem, _alive = self._prepare(latents, features, initial, parameters, seed, noise)
        rows = latents.shape[:2]
        given = {"outputs_gradient": outputs_gradient}
        if cost_gradient is not None:
            given["cost_gradient"] = cost_gradient
        shapes = {
            "outputs_gradient": (*rows, len(parameters.output_bias)),
            "cost_gradient": rows,
        }
        given = contiguous_of_shape(given, shapes, latents.dtype)
        problem.dy = address(given["outputs_gradient"])
        _kept = self._reuse(problem, kept)
        self._set(problem, "dcosts", [given.get("cost_gradient")])
        results = [empty(array.shape, array.dtype) for array in (latents, features, initial)]
        problem.dlatents, problem.dfeatures, problem.dinitial = map(address, results)
        gradients = self._gradients(problem, parameters)
        self._call("backward", problem, latents.dtype)
        return (*results, gradients)

    def draws(self, latents, features, initial, parameters, seed):
        """The noise that `forward` draws with `seed`, as the `noise` argument would hold it."""
        problem, _alive = self._prepare(latents, features, initial, parameters, seed, None)
        noise = empty((*latents.shape[:2], len(parameters.sigma)), latents.dtype)
        self._call("noise", problem, latents.dtype, noise.ctypes, None, None)
        return noise

    def _prepare(self, latents, features, initial, parameters, seed, noise):
        sessions, rows, observations = features.shape
        layers, units = parameters.hidden_bias.shape
        (outputs,) = parameters.output_bias.shape
        width = latents.shape[-1]
        inputs = width + self._observed
        return self._problem(
            features,
            parameters,
            {"z": latents, "initial": initial},
            {
                "z": (sessions, rows, width),
                "initial": (width,),
                "input_kernel": (inputs, units),
                "input_bias": (units,),
                "hidden_kernel": (layers, units, units),
                "output_kernel": (units, outputs),
                "multiplier": (inputs,),
                "sigma": (inputs,),
                "latent_noise": (sessions, rows, inputs),
            },
            seed,
            None if noise is None else {"latent_noise": noise},
            sessions=sessions,
            rows=rows,
            observations=observations,
            latents=width,
            units=units,
            layers=layers,
            outputs=outputs,
            observed=self._observed,
            previous=int(self._previous),
        )


def run_readout(
    readout,
    latents,
    features,
    initial,
    observed,
    previous,
    seed=None,
    noise=None,
    switch=None,
):
    """Runs a built readout layer over sessions, differentiably, in eager mode or in a graph.

    Args:
        readout: The layer.
        latents: Tensor `(sessions, rows, latents)`, after each row.
        features: Tensor `(sessions, rows, observations)`; a row of NaN has no cost.
        initial: Tensor `(latents,)`.
        observed, previous: As for `Readout`.
        seed: Integer tensor, to draw noise, as for `Readout.forward`; or `None`.
        noise: Standard normal draws `(sessions, rows, inputs)` to use instead; or `None`. No
            gradients with respect to them.
        switch: Boolean tensor that turns the noise off where it is false, or `None`.

    Returns:
        Outputs `(sessions, rows, outputs)`, and the cost of each row, `(sessions, rows)`.
    """
    native = Readout(readout.activation, observed, previous)
    extras = {"seed": seed} if noise is None else {"noise": noise}
    extras["switch"] = switch
    extras = {name: extra for name, extra in extras.items() if extra is not None}
    inputs = 3 + len(ReadoutParameters._fields)

    def unpack(arrays):
        passed = (*arrays[:3], ReadoutParameters(*arrays[3:inputs]))
        options = dict(zip(extras, arrays[inputs:], strict=False))
        return passed, options if options.pop("switch", True) else {}

    def forward(*arrays):
        passed, options = unpack(arrays)
        return native.forward(*passed, **options, costs=True)

    def backward(*arrays):
        passed, options = unpack(arrays)
        _, _, kept, *upstream = arrays[inputs + len(extras) :]
        *gradients, parameters = native.backward(*passed, *upstream, **options, kept=kept)
        return (*gradients, *parameters)

    rows = latents.shape[:2]
    return differentiable(
        forward,
        backward,
        [latents, features, initial, *ReadoutParameters.of_readout(readout)],
        extras.values(),
        [(*rows, readout.num_outputs), rows],
        saved=1,
    )
