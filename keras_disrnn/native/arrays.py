"""NumPy arrays whose memory the native library and TensorFlow share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_ALIGNMENT = 64


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Make an array for results, aligned so that TensorFlow takes it over without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -(address(memory) or 0) % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return the array, or an aligned copy if its memory is not aligned.

    TensorFlow copies arrays between calls in eager mode, and its copies are aligned less.
    """
    if (address(array) or 0) % _ALIGNMENT == 0:
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def address(array: np.ndarray | None) -> int | None:
    """Return the address of an array's memory; `None` for `None`."""
    # `array.ctypes` gives the same, but takes several times as long.
    return None if array is None else array.__array_interface__["data"][0]


def check_shapes(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype
) -> dict[str, np.ndarray]:
    """Check shapes and dtypes, and make the arrays contiguous.

    Args:
        arrays: Arrays by name.
        shapes: The expected shapes. An array without one may have any shape.
        dtype: The expected dtype of all arrays but `mask`, which is boolean.

    Returns:
        Contiguous arrays by name.

    Raises:
        TypeError: If an array has another dtype.
        ValueError: If an array has another shape.
    """
    for name, array in arrays.items():
        expected = np.dtype(bool) if name == "mask" else dtype
        if array.dtype != expected:
            raise TypeError(f"{name}: expected {expected}, as features are, got {array.dtype}")
        # The library trusts these shapes and reads that far in memory.
        if name in shapes and array.shape != shapes[name]:
            raise ValueError(f"{name}: expected shape {shapes[name]}, got {array.shape}")
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
