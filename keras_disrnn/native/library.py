"""Loading the native library, what it is called with, and how TensorFlow calls it."""

import contextlib
import ctypes
import functools
import importlib.machinery
import math
import os
import pathlib
import threading

import keras
import numpy as np
import tensorflow as tf

try:
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext as _in_xla
except ImportError:
    # Without it, a call under XLA fails with TensorFlow's own message on the operation.
    def _in_xla(graph):
        return False


INTERFACE = 3
"""The version of the structures in library.h that the classes below mirror."""

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

MOST_KEPT = 2**28
"""Drawn noise is kept for the backward pass up to this many bytes; beyond, it is drawn again."""

_NO_NOISE, _DRAWN, _GIVEN = range(3)
_OUT_OF_MEMORY = 1
_ALIGNMENT = 64


class _Parameters(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in (
            "input_kernel",
            "input_bias",
            "hidden_kernel",
            "hidden_bias",
            "output_kernel",
            "output_bias",
            "first_multiplier",
            "first_sigma",
            "second_multiplier",
            "second_sigma",
            "latent_sigma",
        )
    )


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
                "outputs",
                "activation",
                "threads",
                "instructions",
                "noise",
                "observed",
                "previous",
                "first_session",
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
        ("z", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("costs", ctypes.c_void_p * 3),
        ("kept", ctypes.c_void_p),
        ("dz", ctypes.c_void_p),
        ("dy", ctypes.c_void_p),
        ("dcosts", ctypes.c_void_p * 3),
        *((name, ctypes.c_void_p) for name in ("dlatents", "dfeatures", "dinitial")),
        ("gradients", _Parameters),
    )


class Likelihood(ctypes.Structure):
    """The structure of that name in library.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "arms", "threads", "instructions")),
        *((name, ctypes.c_void_p) for name in ("choice", "logits", "log_p", "dlog_p", "dlogits")),
    )


@functools.cache
def load():
    """The library, and why there is none: `(library, None)` or `(None, reason)`."""
    here = pathlib.Path(__file__).parent
    paths = [here / f"_native{end}" for end in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None, "the native library was not built when the package was installed"
    try:
        library = ctypes.CDLL(str(path))
        for name in (
            "interface",
            "best_instructions",
            "kept_size",
            "forward",
            "backward",
            "noise",
            "likelihood",
        ):
            getattr(library, f"disrnn_{name}").restype = ctypes.c_int64
        found = library.disrnn_interface()
    except (OSError, AttributeError) as error:
        return None, f"the native library cannot be loaded ({error})"
    sizes = ctypes.sizeof(_Problem) * 1000 + ctypes.sizeof(Likelihood)
    if found != INTERFACE * 1_000_000 + sizes:
        return None, "the native library is of another version than the package: install it anew"
    return library, None


_tracing = threading.local()


@contextlib.contextmanager
def disabled():
    """Inside it, in this thread, everything runs in Keras operations.

    For tracing what is to leave this process: an exported SavedModel cannot hold the native
    library.
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
    """Why a layer cannot run natively here and now.

    Args:
        activation: Name of its activation.
        policy: Its Keras dtype policy.

    Returns:
        A reason to put into a message, or `None` where it can.
    """
    if policy.compute_dtype != policy.variable_dtype:
        return f"the dtype policy {policy.name} mixes dtypes"
    if activation not in ACTIVATIONS:
        return f"the activation {activation!r} is not among {', '.join(ACTIVATIONS)}"
    return why_not_of_dtype(policy.compute_dtype)


def why_not_of_dtype(dtype):
    """Why nothing of that dtype can run natively here and now, or `None` where it can."""
    if keras.backend.backend() != "tensorflow":
        return f"the Keras backend is {keras.backend.backend()}, not tensorflow"
    if dtype not in ("float32", "float64"):
        return f"the dtype is {dtype}, not float32 or float64"
    if tf.config.get_visible_devices("GPU"):
        return "a GPU is in use"
    if not tf.executing_eagerly() and _in_xla(tf.compat.v1.get_default_graph()):
        return "the function is compiled by XLA (jit_compile=True)"
    return load()[1]


def require():
    """The library.

    Raises:
        RuntimeError: If it is not there.
    """
    library, reason = load()
    if library is None:
        raise RuntimeError(f"native library: {reason}")
    return library


def best_instructions():
    """The name of the fastest instruction set this machine has, of `INSTRUCTIONS`."""
    return INSTRUCTIONS[require().disrnn_best_instructions()]


def thread_count():
    """How many threads a pass uses: TensorFlow's intra-op setting, or else all it may run on."""
    configured = tf.config.threading.get_intra_op_parallelism_threads()
    if configured:
        return configured
    return processor_count()


def processor_count():
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def yield_processors():
    """Keeps TensorFlow's waiting threads off the processors while a native pass runs.

    It lets TensorFlow run one operation at a time (`set_inter_op_parallelism_threads(1)`), unless
    the program has said otherwise. To be called before TensorFlow does anything; without effect
    later.
    """
    if tf.config.threading.get_inter_op_parallelism_threads() == 0:
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun
            tf.config.threading.set_inter_op_parallelism_threads(1)


def check(status):
    """Raises MemoryError if a call of the library says so."""
    if status == _OUT_OF_MEMORY:
        raise MemoryError("native library: out of memory")


def empty(shape, dtype):
    """An array for results, aligned so that TensorFlow takes it over without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -address(memory) % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned(array):
    """The array itself, or a copy where its memory begins at no multiple of a register.

    TensorFlow copies arrays between calls in eager mode, with less alignment than it had.
    """
    if address(array) % _ALIGNMENT == 0:
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def address(array):
    """Where an array's numbers are, for a field of a structure; `None` for `None`."""
    # `array.ctypes` says the same, in several times as long.
    return None if array is None else array.__array_interface__["data"][0]


class Pass:
    """What the core's and the readouts' passes share: the library, its settings, its checks.

    Args:
        activation: A name in `ACTIVATIONS`.
        threads: Number of threads, or `None` for `thread_count()`. Results do not depend on it.
        instructions: A name in `INSTRUCTIONS` up to `best_instructions()`, or `None` for that.

    Raises:
        RuntimeError: If the library is not there.
        ValueError: If this machine lacks the instructions.
    """

    readout = 0

    def __init__(self, activation, threads=None, instructions=None):
        self._library = require()
        self._activation = ACTIVATIONS[activation]
        self._threads = threads
        available = INSTRUCTIONS[: self._library.disrnn_best_instructions() + 1]
        if instructions is None:
            instructions = available[-1]
        if instructions not in available:
            raise ValueError(
                f"instructions: expected one of {available} on this machine, got {instructions!r}"
            )
        self._instructions = INSTRUCTIONS.index(instructions)

    def _problem(self, features, parameters, arrays, shapes, seed, noise, **sizes):
        """The C structure, and the arrays it points into.

        Args:
            features: `(sessions, rows, observations)`.
            parameters: NamedTuple of arrays, in the order of the C structure.
            arrays: Further arrays by the name of their field.
            shapes: Expected shape of every array and parameter.
            seed: Two integers, or `None`; perhaps a third, the number of the first session.
            noise: Dict of given noise by the name of its field, or `None`.
            **sizes: Numbers by the name of their field.
        """
        dtype = features.dtype
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"features: expected float32 or float64, got {dtype}")
        arrays = {"features": features, **arrays, **(noise or {})}
        for name, array in {**arrays, **parameters._asdict()}.items():
            expected = np.dtype(bool) if name == "mask" else dtype
            if array.dtype != expected:
                raise TypeError(f"{name}: expected {expected}, as features are, got {array.dtype}")
            # The library reads as far as these shapes say, whatever there is.
            if name in shapes and array.shape != shapes[name]:
                raise ValueError(f"{name}: expected shape {shapes[name]}, got {array.shape}")
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        weights = [np.ascontiguousarray(array) for array in parameters]
        problem = _Problem(
            activation=self._activation,
            threads=self._threads or thread_count(),
            instructions=self._instructions,
            noise=_GIVEN if noise is not None else _NO_NOISE if seed is None else _DRAWN,
            parameters=_Parameters(*map(address, weights)),
            **sizes,
            **{name: address(array) for name, array in arrays.items()},
        )
        if seed is not None:
            problem.seed[:] = [int(word) & 0xFFFFFFFF for word in seed[:2]]
            problem.first_session = int(seed[2]) if len(seed) > 2 else 0
        return problem, (arrays, weights)

    def _keep(self, problem, dtype):
        """Gives a forward pass an array for the noise it draws; empty where none is to be kept."""
        if problem.noise != _DRAWN:
            return np.empty(0, dtype)
        size = self._library.disrnn_kept_size(ctypes.byref(problem), _wide(dtype), self.readout)
        kept = empty((size if size * dtype.itemsize <= MOST_KEPT else 0,), dtype)
        problem.kept = address(kept) if kept.size else None
        return kept

    @staticmethod
    def _reuse(problem, kept):
        """Hands a backward pass the noise of the forward pass; returns what must stay alive."""
        kept = aligned(kept) if kept is not None and kept.size else None
        problem.kept = address(kept)
        return kept

    def _call(self, name, problem, dtype, *arguments):
        function = getattr(self._library, f"disrnn_{name}")
        check(function(ctypes.byref(problem), _wide(dtype), self.readout, *arguments))

    @staticmethod
    def _set(problem, field, arrays):
        """Fills the first places of a field that holds several addresses."""
        for place, array in enumerate(arrays):
            getattr(problem, field)[place] = address(array)

    @staticmethod
    def _gradients(problem, parameters):
        """Arrays for the gradients of the parameters, of the same type."""
        # So small that a copy costs less than memory that needs none.
        gradients = type(parameters)(*(np.empty_like(array, order="C") for array in parameters))
        problem.gradients = _Parameters(*map(address, gradients))
        return gradients


def _wide(dtype):
    return int(dtype == np.float64)


def contiguous_of_shape(arrays, shapes, dtype):
    """The arrays of a dict, contiguous, or an error that names the one that does not fit."""
    for name, array in arrays.items():
        if (array.shape, array.dtype) != (shapes[name], dtype):
            raise ValueError(
                f"{name}: expected shape {shapes[name]} and {dtype}, "
                f"got {array.shape} and {array.dtype}"
            )
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def network_weights(network):
    """The weights of a `ResidualMLP`, in the order in which the library takes them."""
    return (
        network.input_kernel,
        network.input_bias,
        network.hidden_kernel,
        network.hidden_bias,
        network.output_kernel,
        network.output_bias,
    )


def tensors(values):
    """Tensors of Keras variables or tensors."""
    # Twice: what Keras makes of a variable is still a variable, of TensorFlow.
    return [tf.convert_to_tensor(keras.ops.convert_to_tensor(value)) for value in values]


def differentiable(forward, backward, inputs, extras, shapes, saved=0):
    """Calls a pair of functions of NumPy arrays from TensorFlow, in eager mode or in a graph.

    Args:
        forward: Function of the inputs and extras, that returns a list of arrays.
        backward: Function of the inputs, the extras, forward's results, and the gradients with
            respect to the results that are returned, that gives those of the inputs.
        inputs: Tensors of one floating dtype.
        extras: Tensors that have no gradient.
        shapes: Static shapes of the results that are returned; all have the inputs' dtype.
        saved: How many further results are for `backward` alone.

    Returns:
        A list of tensors.
    """
    extras = [tf.stop_gradient(tf.convert_to_tensor(extra)) for extra in extras]

    @tf.custom_gradient
    def call(*inputs):
        dtypes = [inputs[0].dtype] * (len(shapes) + saved)
        results = tf.numpy_function(forward, [*inputs, *extras], dtypes, stateful=False)
        results = tf.nest.flatten(results)
        for result, shape in zip(results, shapes, strict=False):
            result.set_shape(shape)

        # A gradient that has itself a gradient, so that asking for one is an error.
        @tf.custom_gradient
        def first(*tensors):
            gradients = tf.numpy_function(
                backward, list(tensors), [inputs[0].dtype] * len(inputs), stateful=False
            )
            # Of a single result TensorFlow makes a tensor, not a list.
            gradients = tf.nest.flatten(gradients)
            for gradient, tensor in zip(gradients, inputs, strict=True):
                gradient.set_shape(tensor.shape)
            return gradients, second

        def second(*_):
            raise NotImplementedError(
                "the native library has no second derivatives: use implementation='keras'"
            )

        return results[: len(shapes)], lambda *upstream: first(
            *inputs, *extras, *results, *upstream
        )

    return call(*inputs)
