"""Read pickled dicts of NumPy arrays without executing them.

A pickle is a program that calls the functions it names. This reader replaces each name by an inert
stand-in of this module, or refuses the file. So no function of another package, NumPy included, is
ever called with values from the file.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Read plain values, lists, dicts and arrays from a pickle. The file need not be trusted.

    Arrays and scalars of numbers and booleans become those of NumPy, also if they are JAX's. A
    configuration object of `disentangled-rnns` becomes a dict of its fields.

    Args:
        path: The file.

    Returns:
        The contents.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a complete pickle, or names anything else. Nothing in it is
            executed.

    Example:

    >>> import os, pickle, tempfile
    >>> from keras_disrnn.io.pickles import read_pickle
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "params.pkl")
    ...     with open(path, "wb") as file:
    ...         pickle.dump({"weights": [1.0, 2.0]}, file)
    ...     read_pickle(path)
    {'weights': [1.0, 2.0]}
    """
    with open(path, "rb") as file:
        try:
            return _plain(_Unpickler(file).load())
        except _Refused as error:
            raise ValueError(f"{path}: {error}") from error
        # Bytes that are not a pickle can raise any error.
        except Exception as error:
            raise ValueError(
                f"{path}: expected a pickled dict of arrays, got a file that cannot be read "
                f"({type(error).__name__}: {error})"
            ) from error


class _Refused(ValueError):
    """The file holds something else than arrays."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 renamed its internal package.
        module = module.replace("numpy.core", "numpy._core")
        if module.startswith("disentangled_rnns.") and name.endswith("Config"):
            return _Fields
        if (module, name) not in _STAND_INS:
            raise _Refused(
                f"expected arrays and plain values, got a call of {module}.{name}; nothing in "
                "the file was executed"
            )
        return _STAND_INS[module, name]


class _Kind:
    """Stand-in for a number type: `numpy.dtype`, and the state that follows it."""

    def __init__(self, code: str, *_: Any) -> None:
        self._code = str(code)
        self._order = "|"

    def __setstate__(self, state: Any) -> None:
        self._order = state[1]

    def read(self, data: Any, shape: Any) -> np.ndarray:
        """Read an array of this type from bytes."""
        if not re.fullmatch("[fiub][0-9]{1,2}", self._code) or self._order not in tuple("<>|="):
            raise _Refused(f"expected arrays of numbers, got one of type {self._code!r}")
        kind = np.dtype(self._order + self._code)
        shape = tuple(int(size) for size in shape)
        if min(shape, default=0) < 0 or len(data) != math.prod(shape) * kind.itemsize:
            raise _Refused(
                f"expected the bytes of {kind} numbers of shape {shape}, got {len(data)} bytes"
            )
        return np.frombuffer(bytes(data), kind)


class _Array:
    """Stand-in for an array, which a pickle creates empty before it sets the state."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        self.value = _array(data, kind, shape, "F" if by_columns else "C").value


def _array(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    if not isinstance(kind, _Kind) or order not in ("C", "F"):
        raise _Refused("expected an array with a type, got one without")
    array = _Array()
    array.value = kind.read(data, shape).reshape(shape, order=order)
    return array


def _scalar(kind: Any, data: Any) -> _Array:
    array = _array(data, kind, (), "C")
    array.value = array.value[()]
    return array


def _jax_array(make: Any, arguments: Any, state: Any, *_: Any) -> _Array:
    if make is not _Array:
        raise _Refused("expected an array of JAX made from one of NumPy, got another")
    array = _Array(*arguments)
    array.__setstate__(state)
    return array


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise _Refused(f"expected bytes in 'latin1', got {encoding!r}")
    return text.encode("latin1")


class _Fields:
    """Stand-in for a configuration object. Its fields become attributes of this one."""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _array,
    ("jax._src.array", "_reconstruct_array"): _jax_array,
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "bytes"): _bytes,
    ("collections", "OrderedDict"): dict,
}


def _plain(value: Any, depth: int = 0, done: dict[int, Any] | None = None) -> Any:
    """Replace the stand-ins in a value by what they stand for."""
    done = {} if done is None else done
    # A small file can refer to one object very often, so convert each object once.
    if id(value) not in done:
        if depth > 8:
            raise _Refused("expected a dict of modules, got one with more than 8 nested levels")
        done[id(value)] = _replace(value, lambda part: _plain(part, depth + 1, done))
    return done[id(value)]


def _replace(value: Any, plain: Callable[[Any], Any]) -> Any:
    if isinstance(value, _Fields):
        value = vars(value)
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(each) for each in value)
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise _Refused(f"expected arrays and plain values, got a {type(value).__name__}")
