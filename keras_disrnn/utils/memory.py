"""Arrays that TensorFlow reads where they are, and sizes of parts of large arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

_ALIGNMENT = 64
"""Bytes. TensorFlow copies an array whose first element has another address than a multiple."""

PART_BYTES = 2**24
"""Working memory of a pass over large arrays, part by part."""


def empty_aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Makes an array of which TensorFlow needs no copy.

    `keras_disrnn.native` makes its own arrays in the same way, because it may not import this
    package, nor this one it.

    Args:
        shape: The shape.
        dtype: The dtype.

    Returns:
        The array. Its values are arbitrary.

    Example:

    >>> from keras_disrnn.utils.memory import empty_aligned
    >>> empty_aligned((3, 2), "float32").ctypes.data % 64
    0
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def full_aligned(shape: tuple[int, ...], value: Any, dtype: Any) -> np.ndarray:
    """Makes an array like `empty_aligned`, with one value in all places."""
    array = empty_aligned(shape, dtype)
    array[...] = value
    return array


def take_aligned(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Picks rows of an array, as `array[indices]` does, into memory like `empty_aligned`."""
    taken = empty_aligned((len(indices), *array.shape[1:]), array.dtype)
    # Without a mode, NumPy would write into a copy first.
    return np.take(array, indices, axis=0, out=taken, mode="clip")


def parts_of(count: int, bytes_each: int) -> Iterator[slice]:
    """Splits a number of rows into slices that need little working memory each.

    Args:
        count: The number of rows.
        bytes_each: The working memory that one row needs, in bytes.

    Yields:
        The slices, in order. They cover all rows.

    Example:

    >>> from keras_disrnn.utils.memory import parts_of
    >>> [(part.start, part.stop) for part in parts_of(5, 2**23)]
    [(0, 2), (2, 4), (4, 5)]
    """
    size = max(1, PART_BYTES // max(1, bytes_each))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
