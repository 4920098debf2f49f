"""Pickled dicts of NumPy arrays, read without running anything that they name.

A pickle is a program that calls what it names. Here every name is answered with an inert stand-in
of this module, or refused, so that no function of another package (NumPy's own included) is
called with what the file says.
"""

import math
import pickle
import re

import numpy as np


def read_pickle(path):
    """Reads plain values, lists, dicts and arrays from a pickle, whoever wrote it.

    Arrays and scalars of numbers and booleans come back as NumPy's, JAX's among them; a
    configuration object of `disentangled-rnns` as a dict of its fields.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no whole pickle, or names anything else. Nothing of it has been run.
    """
    with open(path, "rb") as file:
        try:
            return _plain(_Unpickler(file).load())
        except _Refused as error:
            raise ValueError(f"{path}: {error}") from error
        # Bytes that are no pickle lead to errors of every kind.
        except Exception as error:
            raise ValueError(
                f"{path}: expected a pickled dict of arrays, but it cannot be read "
                f"({type(error).__name__}: {error})"
            ) from error


class _Refused(ValueError):
    """The file asks for something else than arrays."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        # NumPy 2 renamed its package of internals.
        module = module.replace("numpy.core", "numpy._core")
        if module.startswith("disentangled_rnns.") and name.endswith("Config"):
            return _Fields
        if (module, name) not in _STAND_INS:
            raise _Refused(
                f"expected arrays and plain values alone, but it names {module}.{name}; "
                "nothing of it has been run"
            )
        return _STAND_INS[module, name]


class _Kind:
    """Stands in for a number type: `numpy.dtype` with the state that follows it."""

    def __init__(self, code, *_):
        self._code = str(code)
        self._order = "|"

    def __setstate__(self, state):
        self._order = state[1]

    def read(self, data, shape):
        """The array of this type in `data`."""
        if not re.fullmatch("[fiub][0-9]{1,2}", self._code) or self._order not in tuple("<>|="):
            raise _Refused(f"expected arrays of numbers, got one of type {self._code!r}")
        kind = np.dtype(self._order + self._code)
        shape = tuple(int(size) for size in shape)
        if min(shape, default=0) < 0 or len(data) != math.prod(shape) * kind.itemsize:
            raise _Refused(f"an array of shape {shape} and type {kind} has {len(data)} bytes")
        return np.frombuffer(bytes(data), kind)


class _Array:
    """Stands in for an array that is made empty and then gets its state."""

    def __init__(self, *_):
        self.value = None

    def __setstate__(self, state):
        _, shape, kind, by_columns, data = state
        self.value = _array(data, kind, shape, "F" if by_columns else "C").value


def _array(data, kind, shape, order):
    if not isinstance(kind, _Kind) or order not in ("C", "F"):
        raise _Refused("an array without a type")
    array = _Array()
    array.value = kind.read(data, shape).reshape(shape, order=order)
    return array


def _scalar(kind, data):
    array = _array(data, kind, (), "C")
    array.value = array.value[()]
    return array


def _jax_array(make, arguments, state, *_):
    if make is not _Array:
        raise _Refused("an array of JAX that is not made of one of NumPy")
    array = _Array(*arguments)
    array.__setstate__(state)
    return array


def _bytes(text="", encoding="latin1"):
    if encoding != "latin1":
        raise _Refused(f"bytes in {encoding!r}")
    return text.encode("latin1")


class _Fields:
    """Stands in for a configuration object; its fields become attributes of this one."""


_STAND_INS = {
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


def _plain(value, depth=0, done=None):
    """`value` with stand-ins replaced by what they stand for."""
    done = {} if done is None else done
    # What a file holds once it may mention often, in mentions of mentions.
    if id(value) not in done:
        if depth > 8:
            raise _Refused("expected a dict of modules, got one that is nested more than 8 deep")
        done[id(value)] = _replace(value, lambda part: _plain(part, depth + 1, done))
    return done[id(value)]


def _replace(value, plain):
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
    raise _Refused(f"expected arrays and plain values alone, got a {type(value).__name__}")
