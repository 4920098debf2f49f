"""The recurrence of the DisRNN core on the CPU, in C++: forward, and exact backward through time.

`DisRNN(implementation="auto")` uses it where it can. The library is built when the package is
installed and a C++ compiler is there; without it everything runs in Keras operations.
"""

import contextlib
import ctypes
import functools
import importlib.machinery
import os
import pathlib
import threading
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

try:
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext as _in_xla
except ImportError:
    # Without it, a call under XLA fails with TensorFlow's own message on the operation.
    def _in_xla(graph):
        return False


INTERFACE = 1
"""The version of the structures in recurrence.h that `_Problem` mirrors."""

ACTIVATIONS = {
    "linear": 0,
    "relu": 1,
    "leaky_relu": 2,
    "tanh": 3,
    "sigmoid": 4,
    "silu": 5,
    "swish": 5,
    "elu": 6,
    "selu": 7,
    "softplus": 8,
    "gelu": 9,
}
"""Names of the Keras activations that the library has, and its numbers for them."""

INSTRUCTIONS = ("baseline", "avx2", "avx512")
"""The instruction sets the library is compiled for, each faster than the one before."""

_NO_NOISE, _DRAWN, _GIVEN = range(3)
_OUT_OF_MEMORY = 1


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
        network = cell.update_network
        reads, previous = cell.update_obs_bottleneck, cell.update_latent_bottleneck
        tensors = (
            network.input_kernel,
            network.input_bias,
            network.hidden_kernel,
            network.hidden_bias,
            network.output_kernel,
            network.output_bias,
            reads.multiplier,
            reads.sigma,
            previous.multiplier,
            previous.sigma,
            cell.latent_bottleneck.sigma,
        )
        # Twice: what Keras makes of a variable is still a variable, of TensorFlow.
        return cls(*(tf.convert_to_tensor(keras.ops.convert_to_tensor(t)) for t in tensors))


class _Parameters(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in Parameters._fields)


class _Problem(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "sessions",
                "rows",
                "observations",
                "latents",
                "units",
                "layers",
                "activation",
                "threads",
                "instructions",
                "noise",
            )
        ),
        ("seed", ctypes.c_uint64 * 2),
        ("max_latent_value", ctypes.c_double),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "features",
                "mask",
                "initial",
                "obs_noise",
                "update_noise",
                "latent_noise",
            )
        ),
        ("parameters", _Parameters),
        *((name, ctypes.c_void_p) for name in ("z", "mu", "dz", "dmu", "dfeatures", "dinitial")),
        ("gradients", _Parameters),
    )


@functools.cache
def _load():
    """The library, and why there is none: `(library, None)` or `(None, reason)`."""
    here = pathlib.Path(__file__).parent
    paths = [here / f"_recurrence{end}" for end in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None, "the native library was not built when the package was installed"
    try:
        library = ctypes.CDLL(str(path))
        for name in ("interface", "best_instructions", "forward", "backward", "noise"):
            getattr(library, f"disrnn_{name}").restype = ctypes.c_int64
        found = library.disrnn_interface()
    except (OSError, AttributeError) as error:
        return None, f"the native library cannot be loaded ({error})"
    if found != INTERFACE * 100000 + ctypes.sizeof(_Problem):
        return None, "the native library is of another version than the package: install it anew"
    return library, None


_tracing = threading.local()


@contextlib.contextmanager
def disabled():
    """Inside it, in this thread, every `DisRNN` runs in Keras operations.

    For tracing what is to leave this process: an exported SavedModel cannot hold the native
    recurrence.
    """
    before = is_disabled()
    _tracing.disabled = True
    try:
        yield
    finally:
        _tracing.disabled = before


def is_disabled():
    """Whether this thread is within `disabled()`."""
    return getattr(_tracing, "disabled", False)


def why_not(activation, policy):
    """Why a core cannot run natively here and now.

    Args:
        activation: Name of its activation.
        policy: Its Keras dtype policy.

    Returns:
        A reason to put into a message, or `None` where it can.
    """
    if keras.backend.backend() != "tensorflow":
        return f"the Keras backend is {keras.backend.backend()}, not tensorflow"
    if policy.compute_dtype != policy.variable_dtype:
        return f"the dtype policy {policy.name} mixes dtypes"
    if policy.compute_dtype not in ("float32", "float64"):
        return f"the dtype is {policy.compute_dtype}, not float32 or float64"
    if activation not in ACTIVATIONS:
        return f"the activation {activation!r} is not among {', '.join(ACTIVATIONS)}"
    if tf.config.get_visible_devices("GPU"):
        return "a GPU is in use"
    if not tf.executing_eagerly() and _in_xla(tf.compat.v1.get_default_graph()):
        return "the function is compiled by XLA (jit_compile=True)"
    return _load()[1]


def best_instructions():
    """The name of the fastest instruction set this machine has, of `INSTRUCTIONS`."""
    return INSTRUCTIONS[_require().disrnn_best_instructions()]


def _require():
    library, reason = _load()
    if library is None:
        raise RuntimeError(f"native recurrence: {reason}")
    return library


def thread_count():
    """How many threads a pass uses: TensorFlow's intra-op setting, or else all it may run on."""
    configured = tf.config.threading.get_intra_op_parallelism_threads()
    if configured:
        return configured
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Recurrence:
    """The recurrence of one architecture, on NumPy arrays.

    All arrays are float32, or all are float64. With a `seed` noise is drawn: a draw depends on
    the seed and on its element, row and session alone, so the backward pass makes it again.

    Args:
        activation: A name in `ACTIVATIONS`.
        max_latent_value: Bound of the update networks' targets.
        threads: Number of threads, or `None` for `thread_count()`. Results do not depend on it.
        instructions: A name in `INSTRUCTIONS` up to `best_instructions()`, or `None` for that.

    Raises:
        RuntimeError: If the library is not there.
        ValueError: If this machine lacks the instructions, or an array has the wrong shape.
        TypeError: If an array has the wrong dtype.
    """

    def __init__(self, activation, max_latent_value, threads=None, instructions=None):
        self._library = _require()
        self._activation = ACTIVATIONS[activation]
        self._bound = max_latent_value
        self._threads = threads
        available = INSTRUCTIONS[: self._library.disrnn_best_instructions() + 1]
        if instructions is None:
            instructions = available[-1]
        if instructions not in available:
            raise ValueError(
                f"instructions: expected one of {available} on this machine, got {instructions!r}"
            )
        self._instructions = INSTRUCTIONS.index(instructions)

    def forward(self, features, initial, parameters, mask=None, seed=None, noise=None, means=True):
        """Runs all sessions through all rows.

        Args:
            features: `(sessions, rows, observations)`; a row of NaN is passed over.
            initial: Latents before the first row, `(sessions, latents)`.
            parameters: `Parameters` of arrays.
            mask: Boolean `(sessions, rows)`, false for further rows to pass over, or `None`.
            seed: Two integers, to draw noise; or `None`.
            noise: Standard normal draws to use instead, in the order and shapes of
                `DisRNNCell.draw_noise`; or `None`.
            means: Whether to return the means too.

        Returns:
            Latents after each row and their means before their own noise, both `(sessions, rows,
            latents)`; the means `None` without `means`.
        """
        problem, wide, _alive = self._problem(features, initial, parameters, mask, seed, noise)
        shape = (*features.shape[:2], initial.shape[1])
        latents = np.empty(shape, features.dtype)
        mean = np.empty(shape, features.dtype) if means else None
        problem.z, problem.mu = _address(latents), _address(mean)
        self._check(self._library.disrnn_forward(ctypes.byref(problem), wide))
        return latents, mean

    def backward(
        self,
        features,
        initial,
        parameters,
        latents,
        latents_gradient,
        means_gradient=None,
        mask=None,
        seed=None,
        noise=None,
    ):
        """The gradients of a loss with respect to everything that `forward` read.

        Args:
            features, initial, parameters, mask, seed, noise: As they were for `forward`.
            latents: What `forward` returned.
            latents_gradient, means_gradient: The loss's gradients with respect to both results
                of `forward`; that of the means may be `None` for zero.

        Returns:
            The gradients with respect to `features`, `initial`, and `parameters`.
        """
        problem, wide, _alive = self._problem(features, initial, parameters, mask, seed, noise)
        results = {"latents": latents, "latents_gradient": latents_gradient}
        if means_gradient is not None:
            results["means_gradient"] = means_gradient
        shape = (*features.shape[:2], initial.shape[1])
        for name, array in results.items():
            if (array.shape, array.dtype) != (shape, features.dtype):
                raise ValueError(
                    f"{name}: expected shape {shape} and {features.dtype}, "
                    f"got {array.shape} and {array.dtype}"
                )
        results = {name: _contiguous(array) for name, array in results.items()}
        problem.z, problem.dz = _address(results["latents"]), _address(results["latents_gradient"])
        problem.dmu = _address(results.get("means_gradient"))
        dfeatures, dinitial = (np.empty(array.shape, array.dtype) for array in (features, initial))
        gradients = Parameters(*(np.empty(array.shape, array.dtype) for array in parameters))
        problem.dfeatures, problem.dinitial = _address(dfeatures), _address(dinitial)
        problem.gradients = _Parameters(*map(_address, gradients))
        self._check(self._library.disrnn_backward(ctypes.byref(problem), wide))
        return dfeatures, dinitial, gradients

    def draws(self, features, initial, parameters, seed):
        """The noise that `forward` draws with `seed`, as the `noise` argument would hold it."""
        problem, wide, _alive = self._problem(features, initial, parameters, None, seed, None)
        shapes = _noise_shapes(features, initial.shape[1])
        noise = tuple(np.empty(shape, features.dtype) for shape in shapes)
        addresses = (ctypes.c_void_p(_address(array)) for array in noise)
        self._check(self._library.disrnn_noise(ctypes.byref(problem), wide, *addresses))
        return noise

    def _problem(self, features, initial, parameters, mask, seed, noise):
        """The C structure, whether its numbers are float64, and the arrays it points into."""
        dtype = features.dtype
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"features: expected float32 or float64, got {dtype}")
        sessions, rows, observations = features.shape
        layers, latents, units = parameters.hidden_bias.shape
        numbers = {"initial": initial, **parameters._asdict()}
        shapes = {
            "initial": (sessions, latents),
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
        }
        if noise is not None:
            names = ("update_obs noise", "update_latent noise", "latent noise")
            numbers.update(zip(names, noise, strict=True))
            shapes.update(zip(names, _noise_shapes(features, latents), strict=True))
        for name, array in numbers.items():
            if array.dtype != dtype:
                raise TypeError(f"{name}: expected {dtype}, as features are, got {array.dtype}")
        if mask is not None:
            mask = _contiguous(np.asarray(mask, bool))
            numbers["mask"], shapes["mask"] = mask, (sessions, rows)
        # The library reads as far as these shapes say, whatever there is.
        for name, shape in shapes.items():
            if numbers[name].shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {numbers[name].shape}")
        inputs = [_contiguous(array) for array in (features, initial, *parameters)]
        draws = [_contiguous(array) for array in noise or ()]
        problem = _Problem(
            sessions=sessions,
            rows=rows,
            observations=observations,
            latents=latents,
            units=units,
            layers=layers,
            activation=self._activation,
            threads=self._threads or thread_count(),
            instructions=self._instructions,
            noise=_NO_NOISE if seed is None else _DRAWN,
            max_latent_value=self._bound,
            features=_address(inputs[0]),
            mask=_address(mask),
            initial=_address(inputs[1]),
            parameters=_Parameters(*map(_address, inputs[2:])),
        )
        if seed is not None:
            problem.seed[:] = [int(word) & 0xFFFFFFFF for word in seed]
        if noise is not None:
            problem.noise = _GIVEN
            problem.obs_noise, problem.update_noise, problem.latent_noise = map(_address, draws)
        return problem, int(dtype == np.float64), (inputs, mask, draws)

    @staticmethod
    def _check(status):
        if status == _OUT_OF_MEMORY:
            raise MemoryError("native recurrence: out of memory")


def _noise_shapes(features, latents):
    """Shapes of the three arrays of given noise, in the order of `DisRNNCell.draw_noise`."""
    sessions, rows, observations = features.shape
    return (
        (rows, latents, observations, sessions),
        (rows, latents, latents, sessions),
        (rows, latents, sessions),
    )


def _contiguous(array):
    return np.ascontiguousarray(array)


def _address(array):
    return None if array is None else array.ctypes.data


def run(cell, features, initial, mask=None, seed=None, noise=None):
    """Runs a built `DisRNNCell` over sessions, differentiably, in eager mode or in a graph.

    Args:
        cell: The cell.
        features: Tensor `(sessions, rows, observations)`; a row of NaN is passed over.
        initial: Tensor `(sessions, latents)`.
        mask: Boolean tensor `(sessions, rows)`, false for further rows to pass over, or `None`.
        seed: Integer tensor of two numbers, to draw noise; or `None`.
        noise: A dict as `DisRNNCell.draw_noise` gives it, to use instead; or `None`. No gradients
            with respect to it.

    Returns:
        Latents after each row and their means before their own noise, tensors `(sessions, rows,
        latents)`; one and the same tensor in a noiseless run.
    """
    recurrence = Recurrence(cell.activation, cell.max_latent_value)
    noisy = seed is not None or noise is not None
    outputs = 2 if noisy else 1
    extras = {}
    if mask is not None:
        extras["mask"] = mask
    if noise is not None:
        extras.update((name, noise[name]) for name in ("update_obs", "update_latent", "latent"))
    elif seed is not None:
        extras["seed"] = seed
    names = tuple(extras)
    extras = [tf.stop_gradient(tf.convert_to_tensor(extra)) for extra in extras.values()]

    def unpack(arrays):
        features, initial, *rest = arrays
        parameters = Parameters(*rest[: len(Parameters._fields)])
        given = dict(zip(names, rest[len(parameters) :], strict=True))
        options = {name: given[name] for name in ("mask", "seed") if name in given}
        if "latent" in given:
            options["noise"] = (given["update_obs"], given["update_latent"], given["latent"])
        return (features, initial, parameters), options

    def forward(*arrays):
        inputs, options = unpack(arrays)
        latents, means = recurrence.forward(*inputs, **options, means=noisy)
        return (latents, means) if noisy else (latents,)

    def backward(*arrays):
        arrays, latents, upstream = arrays[: -outputs - 1], arrays[-outputs - 1], arrays[-outputs:]
        inputs, options = unpack(arrays)
        results = recurrence.backward(*inputs, latents, *upstream, **options)
        return (*results[:2], *results[2])

    @tf.custom_gradient
    def differentiable(*inputs):
        dtype = features.dtype
        shape = (*features.shape[:2], initial.shape[1])
        results = tf.numpy_function(forward, [*inputs, *extras], [dtype] * outputs, stateful=False)
        results = tf.nest.flatten(results)
        for result in results:
            result.set_shape(shape)

        # A gradient that has itself a gradient, so that asking for one is an error.
        @tf.custom_gradient
        def first(*tensors):
            gradients = tf.numpy_function(
                backward, list(tensors), [dtype] * len(inputs), stateful=False
            )
            for gradient, tensor in zip(gradients, inputs, strict=True):
                gradient.set_shape(tensor.shape)
            return gradients, second

        def second(*_):
            raise NotImplementedError(
                "the native recurrence has no second derivatives: use implementation='keras'"
            )

        return results, lambda *upstream: first(*inputs, *extras, results[0], *upstream)

    results = differentiable(features, initial, *Parameters.of_cell(cell))
    return results[0], results[-1]
