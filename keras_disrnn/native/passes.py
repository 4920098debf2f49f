"""The one wrapper of the native passes: what the core and the readouts have in common."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from tensorflow import Tensor

from keras_disrnn.native import library
from keras_disrnn.native.arrays import address, aligned, check_shapes, empty
from keras_disrnn.native.tensors import differentiable

MOST_KEPT = 2**28
"""Drawn noise of up to this many bytes is kept for the backward pass. More is drawn again."""

_NO_NOISE, _DRAWN, _GIVEN = range(3)
_GRADIENTS = {"features": "dfeatures", "initial": "dinitial", "z": "dlatents"}
"""Fields of the C structure for the gradients, by the field of the input."""


class Pass:
    """One architecture of the core or of a readout, on NumPy arrays.

    All arrays are float32, or all are float64. A subclass names the fields of the C structure
    `Problem` that it uses. Its inputs, parameters and noise are arrays in that order.

    Args:
        activation: A name in `ACTIVATIONS`.
        threads: Number of threads, or `None` for `thread_count()`. Results do not depend on it.
        instructions: A name in `INSTRUCTIONS` up to `best_instructions()`, or `None` for that one.

    Raises:
        RuntimeError: If the library is not there.
        ValueError: If this machine does not have the instructions.
    """

    readout: ClassVar[int]
    """Whether the library runs a readout (1) or the core (0)."""
    inputs: ClassVar[tuple[str, ...]]
    """Fields of the inputs."""
    output: ClassVar[str]
    """Field of the output."""
    noise: ClassVar[tuple[str, ...]]
    """Fields of given noise."""
    costs: ClassVar[tuple[str, ...]]
    """Names of the costs."""

    def __init__(
        self, activation: str, *, threads: int | None = None, instructions: str | None = None
    ) -> None:
        self._library = library.require()
        self._activation = library.ACTIVATIONS[activation]
        self._threads = threads
        available = library.INSTRUCTIONS[: self._library.disrnn_best_instructions() + 1]
        if instructions is None:
            instructions = available[-1]
        if instructions not in available:
            raise ValueError(
                f"instructions: expected one of {available} on this machine, got {instructions!r}"
            )
        self._instructions = library.INSTRUCTIONS.index(instructions)

    def _sizes(
        self, arrays: dict[str, np.ndarray], parameters: Any
    ) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
        """Return numbers of the C structure, and the shape of every array, by name.

        The shapes include those of all noise, and `outputs`.
        """
        raise NotImplementedError

    def forward(
        self,
        inputs: Sequence[np.ndarray],
        parameters: Any,
        *,
        mask: np.ndarray | None = None,
        seed: Sequence[int] | None = None,
        noise: Sequence[np.ndarray] | None = None,
        costs: bool = False,
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Run all time steps of all sessions.

        Args:
            inputs: Arrays, in the order of `inputs` of the class.
            parameters: NamedTuple of arrays.
            mask: Boolean `(sessions, time steps)`. False marks time steps that the core skips, as
                it skips those of NaN. Readouts read no mask.
            seed: Two integers, to draw noise; or `None`. A third one is the number of the first
                session in a larger batch. A draw depends on the seed and on its element, time step
                and session alone, so the backward pass can draw it again.
            noise: Standard normal draws to use instead, in the order of `noise` of the class; or
                `None`.
            costs: Whether to compute the costs of the bottlenecks.

        Returns:
            The output `(sessions, time steps, outputs)`. A list of the costs of each time step in
            nats, `(sessions, time steps)`, 0 in skipped time steps (empty without `costs`). And the
            drawn noise for `backward`, in the library's own order (empty if there is none or too
            much).

        Raises:
            TypeError: If an array has the wrong dtype.
            ValueError: If an array has the wrong shape.
        """
        problem, shapes, dtype, _alive = self._prepare(inputs, parameters, mask, seed, noise)
        outputs = empty(shapes["outputs"], dtype)
        found = [empty(shapes["outputs"][:2], dtype) for _ in self.costs if costs]
        kept = np.empty(0, dtype)
        if problem.noise == _DRAWN:
            size = self._library.disrnn_kept_size(ctypes.byref(problem), _wide(dtype), self.readout)
            kept = empty((size if size * dtype.itemsize <= MOST_KEPT else 0,), dtype)
            problem.kept = address(kept) if kept.size else None
        setattr(problem, self.output, address(outputs))
        _fill(problem.costs, found)
        self._call("forward", problem, dtype)
        return outputs, found, kept

    def backward(
        self,
        inputs: Sequence[np.ndarray],
        parameters: Any,
        outputs: np.ndarray,
        outputs_gradient: np.ndarray,
        cost_gradients: Sequence[np.ndarray] = (),
        *,
        mask: np.ndarray | None = None,
        seed: Sequence[int] | None = None,
        noise: Sequence[np.ndarray] | None = None,
        kept: np.ndarray | None = None,
    ) -> tuple[list[np.ndarray], Any]:
        """Compute the gradients of a loss with respect to all inputs and parameters.

        Args:
            inputs: As for `forward`, like `parameters`, `mask`, `seed` and `noise`.
            parameters: See `inputs`.
            outputs: The output of `forward`.
            outputs_gradient: The gradient of the loss with respect to the output.
            cost_gradients: The gradients with respect to the costs, `(sessions, time steps)` each;
                empty for none.
            mask: See `inputs`.
            seed: See `inputs`.
            noise: See `inputs`.
            kept: The noise that `forward` drew. Without it, the noise is drawn again.

        Returns:
            A list of the gradients of the inputs, and the gradients of the parameters.

        Raises:
            TypeError: If an array has the wrong dtype.
            ValueError: If an array has the wrong shape.
        """
        problem, shapes, dtype, _alive = self._prepare(inputs, parameters, mask, seed, noise)
        costs = {
            f"{name}_cost_gradient": gradient
            for name, gradient in zip(self.costs, cost_gradients, strict=False)
        }
        upstream = check_shapes(
            {"outputs": outputs, "outputs_gradient": outputs_gradient, **costs},
            {
                "outputs": shapes["outputs"],
                "outputs_gradient": shapes["outputs"],
                **dict.fromkeys(costs, shapes["outputs"][:2]),
            },
            dtype,
        )
        if self.output not in self.inputs:
            setattr(problem, self.output, address(upstream["outputs"]))
        setattr(problem, f"d{self.output}", address(upstream["outputs_gradient"]))
        _fill(problem.dcosts, [upstream[name] for name in costs])
        kept = aligned(kept) if kept is not None and kept.size else None
        problem.kept = address(kept)
        results = [empty(array.shape, dtype) for array in inputs]
        for field, result in zip(self.inputs, results, strict=True):
            setattr(problem, _GRADIENTS[field], address(result))
        gradients = _split(np.empty(sum(array.size for array in parameters), dtype), parameters)
        problem.gradients = library.ParameterFields(*map(address, gradients))
        self._call("backward", problem, dtype)
        return results, gradients

    def draws(
        self, inputs: Sequence[np.ndarray], parameters: Any, seed: Sequence[int]
    ) -> tuple[np.ndarray, ...]:
        """Return the noise that `forward` draws from a seed.

        Args:
            inputs: As for `forward`.
            parameters: As for `forward`.
            seed: As for `forward`.

        Returns:
            Arrays as the `noise` argument of `forward` takes them.
        """
        problem, shapes, dtype, _alive = self._prepare(inputs, parameters, None, seed, None)
        noise = tuple(np.empty(shapes[field], dtype) for field in self.noise)
        places = [*map(address, noise), None, None][:3]
        self._call("noise", problem, dtype, *map(ctypes.c_void_p, places))
        return noise

    def _prepare(
        self,
        inputs: Sequence[np.ndarray],
        parameters: Any,
        mask: np.ndarray | None,
        seed: Sequence[int] | None,
        noise: Sequence[np.ndarray] | None,
    ) -> tuple[Any, dict[str, tuple[int, ...]], np.dtype, Any]:
        """Return the C structure, all shapes, the dtype, and the arrays to keep alive."""
        arrays = dict(zip(self.inputs, inputs, strict=True))
        dtype = arrays["features"].dtype
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"features: expected float32 or float64, got {dtype}")
        if mask is not None:
            arrays["mask"] = np.asarray(mask, bool)
        if noise is not None:
            arrays.update(zip(self.noise, noise, strict=True))
        numbers, shapes = self._sizes(arrays, parameters)
        sessions, time_steps, observations = arrays["features"].shape
        shapes["mask"] = (sessions, time_steps)
        arrays = check_shapes(arrays, shapes, dtype)
        weights = check_shapes(parameters._asdict(), shapes, dtype)
        problem = library.Problem(
            sessions=sessions,
            rows=time_steps,
            observations=observations,
            activation=self._activation,
            threads=self._threads or library.thread_count(),
            instructions=self._instructions,
            noise=_GIVEN if noise is not None else _NO_NOISE if seed is None else _DRAWN,
            parameters=library.ParameterFields(*map(address, weights.values())),
            **numbers,
            **{name: address(array) for name, array in arrays.items()},
        )
        if seed is not None:
            problem.seed[:] = [int(word) & 0xFFFFFFFF for word in seed[:2]]
            problem.first_session = int(seed[2]) if len(seed) > 2 else 0
        return problem, shapes, dtype, (arrays, weights)

    def _call(self, name: str, problem: Any, dtype: np.dtype, *arguments: Any) -> None:
        function = getattr(self._library, f"disrnn_{name}")
        library.check(function(ctypes.byref(problem), _wide(dtype), self.readout, *arguments))


def _split(flat: np.ndarray, like: Any) -> Any:
    """Return views of a vector with the shapes of a NamedTuple of arrays."""
    views, start = [], 0
    for array in like:
        views.append(flat[start : start + array.size].reshape(array.shape))
        start += array.size
    return type(like)(*views)


def _wide(dtype: np.dtype) -> int:
    return int(dtype == np.float64)


def _fill(field: Any, arrays: Sequence[np.ndarray]) -> None:
    """Write the addresses of arrays to the first places of a field."""
    for place, array in enumerate(arrays):
        field[place] = address(array)


def run(
    native: Pass,
    inputs: Sequence[Tensor],
    parameters: Any,
    width: int,
    *,
    mask: Tensor | None = None,
    seed: Tensor | None = None,
    noise: Sequence[Tensor] | None = None,
    switch: Tensor | None = None,
    costs: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """Run a pass on tensors, with gradients, in eager mode or in a graph.

    Args:
        native: The pass.
        inputs: Tensors, as for `Pass.forward`.
        parameters: NamedTuple of tensors.
        width: Size of the output's last axis.
        mask: Boolean tensor, as for `Pass.forward`; or `None`.
        seed: Integer tensor, as for `Pass.forward`; or `None`.
        noise: Tensors, as for `Pass.forward`; or `None`. They have no gradients.
        switch: Boolean tensor. False turns the noise off. `None` leaves it on.
        costs: Whether to compute the costs.

    Returns:
        The output, a tensor `(sessions, time steps, width)`, and a list of the costs of each time
        step, `(sessions, time steps)`.
    """
    given = {"mask": mask, "seed": seed, "switch": switch}
    if noise is not None:
        given.update(zip(native.noise, noise, strict=True))
    extras = {name: tensor for name, tensor in given.items() if tensor is not None}
    names = tuple(extras)
    first, last = len(inputs), len(inputs) + len(parameters)

    def unpack(arrays: tuple[np.ndarray, ...]) -> dict[str, Any]:
        given = dict(zip(names, arrays[last:], strict=False))
        options: dict[str, Any] = {
            "inputs": arrays[:first],
            "parameters": type(parameters)(*arrays[first:last]),
            "mask": given.get("mask"),
        }
        if given.get("switch", True):
            options["seed"] = given.get("seed")
            if noise is not None:
                options["noise"] = [given[name] for name in native.noise]
        return options

    def forward(*arrays: np.ndarray) -> list[np.ndarray]:
        outputs, found, kept = native.forward(**unpack(arrays), costs=costs)
        return [outputs, *found, kept]

    def backward(*arrays: np.ndarray) -> list[np.ndarray]:
        outputs, *rest = arrays[last + len(names) :]
        kept, outputs_gradient, *cost_gradients = rest[len(native.costs) if costs else 0 :]
        results, gradients = native.backward(
            **unpack(arrays),
            outputs=outputs,
            outputs_gradient=outputs_gradient,
            cost_gradients=cost_gradients,
            kept=kept,
        )
        # All gradients of parameters are parts of one vector.
        return [*results, gradients[0].base]

    sessions_and_time_steps = inputs[native.inputs.index("features")].shape[:2]
    outputs, *found = differentiable(
        forward,
        backward,
        [*inputs, *parameters],
        extras.values(),
        [
            (*sessions_and_time_steps, width),
            *(sessions_and_time_steps for _ in native.costs if costs),
        ],
        saved=1,
        flat=len(parameters),
    )
    return outputs, found
