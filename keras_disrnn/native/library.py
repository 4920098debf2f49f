"""The native library: load it, describe its structures, and decide whether it can run."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.machinery
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

try:
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext as _in_xla
except ImportError:
    # Without this function, a call under XLA fails with TensorFlow's own message.
    def _in_xla(_: Any) -> bool:
        return False


INTERFACE = 3
"""Version of the structures in library.h, which the classes below mirror."""

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
"""The Keras activations that the library has: name to the library's number."""

INSTRUCTIONS = ("baseline", "avx2", "avx512")
"""The instruction sets that the library is compiled for, from slow to fast."""

_OUT_OF_MEMORY = 1


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    """The fields of a C structure that have the same type."""
    return [(name, kind) for name in names.split()]


class ParameterFields(ctypes.Structure):
    """The structure `Parameters` of library.h."""

    _fields_ = _fields(
        ctypes.c_void_p,
        "input_kernel input_bias hidden_kernel hidden_bias output_kernel output_bias "
        "first_multiplier first_sigma second_multiplier second_sigma latent_sigma",
    )


class Problem(ctypes.Structure):
    """The structure `Problem` of library.h."""

    _fields_ = (
        *_fields(
            ctypes.c_int64,
            "sessions rows observations latents units layers outputs activation threads "
            "instructions noise observed previous first_session",
        ),
        ("seed", ctypes.c_uint64 * 2),
        ("max_latent_value", ctypes.c_double),
        *_fields(ctypes.c_void_p, "features mask initial obs_noise update_noise latent_noise"),
        ("parameters", ParameterFields),
        *_fields(ctypes.c_void_p, "z y"),
        ("costs", ctypes.c_void_p * 3),
        *_fields(ctypes.c_void_p, "kept dz dy"),
        ("dcosts", ctypes.c_void_p * 3),
        *_fields(ctypes.c_void_p, "dlatents dfeatures dinitial"),
        ("gradients", ParameterFields),
    )


class Likelihood(ctypes.Structure):
    """The structure `Likelihood` of library.h."""

    _fields_ = (
        *_fields(ctypes.c_int64, "count arms threads instructions"),
        *_fields(ctypes.c_void_p, "choice logits log_p dlog_p dlogits"),
    )


@functools.cache
def load() -> tuple[Any, str | None]:
    """Load the library, once.

    Returns:
        `(library, None)`, or `(None, reason)` if it cannot be loaded.
    """
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
    sizes = ctypes.sizeof(Problem) * 1000 + ctypes.sizeof(Likelihood)
    if found != INTERFACE * 1_000_000 + sizes:
        return None, (
            "the native library is of another version than the package; install the package again"
        )
    return library, None


_tracing = threading.local()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run everything in Keras operations inside this context, in this thread.

    Export needs it: a SavedModel cannot hold the native library.

    Example:

    >>> from keras_disrnn import native
    >>> with native.disabled():
    ...     native.is_disabled()
    True
    """
    before = is_disabled()
    _tracing.disabled = True
    try:
        yield
    finally:
        _tracing.disabled = before


def is_disabled() -> bool:
    """Return whether this thread is inside `disabled()`."""
    return getattr(_tracing, "disabled", False)


def why_not(activation: str, policy: keras.DTypePolicy) -> str | None:
    """Return why a layer cannot run natively here and now; `None` if it can.

    Args:
        activation: Name of the layer's activation.
        policy: The layer's dtype policy.
    """
    if policy.compute_dtype != policy.variable_dtype:
        return f"the dtype policy {policy.name} mixes dtypes"
    if activation not in ACTIVATIONS:
        return f"the activation {activation!r} is not among {', '.join(ACTIVATIONS)}"
    return why_not_of_dtype(policy.compute_dtype)


def why_not_of_dtype(dtype: str) -> str | None:
    """Return why nothing of a dtype can run natively here and now; `None` if it can."""
    if keras.backend.backend() != "tensorflow":
        return f"the Keras backend is {keras.backend.backend()}, not tensorflow"
    if dtype not in ("float32", "float64"):
        return f"the dtype is {dtype}, not float32 or float64"
    if tf.config.get_visible_devices("GPU"):
        return "a GPU is in use"
    if not tf.executing_eagerly() and _in_xla(tf.compat.v1.get_default_graph()):
        return "the function is compiled by XLA (jit_compile=True)"
    return load()[1]


def require() -> Any:
    """Return the library. Raise a RuntimeError if it cannot be loaded."""
    library, reason = load()
    if library is None:
        raise RuntimeError(f"native library: expected one that loads, got none: {reason}")
    return library


def best_instructions() -> str:
    """Return the fastest of `INSTRUCTIONS` that this machine has."""
    return INSTRUCTIONS[require().disrnn_best_instructions()]


def thread_count() -> int:
    """Return how many threads a pass uses: TensorFlow's intra-op setting, or `processor_count`."""
    return tf.config.threading.get_intra_op_parallelism_threads() or processor_count()


def processor_count() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def yield_processors() -> None:
    """Keep TensorFlow's waiting threads off the processors while a native pass runs.

    TensorFlow then runs one operation at a time (`set_inter_op_parallelism_threads(1)`), unless the
    program has set the number of threads. Call it before TensorFlow does anything. It has no effect
    later.
    """
    if tf.config.threading.get_inter_op_parallelism_threads() == 0:
        with contextlib.suppress(RuntimeError):  # TensorFlow has started
            tf.config.threading.set_inter_op_parallelism_threads(1)


def check(status: int) -> None:
    """Raise a MemoryError if the status of a call says that the library ran out of memory."""
    if status == _OUT_OF_MEMORY:
        raise MemoryError("native library: out of memory")
