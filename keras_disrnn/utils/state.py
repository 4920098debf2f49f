"""Save arrays and plain values together in one `.npz` file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_disrnn.utils.files import write_atomically

_TEXT = "state.json"
"""Name of the array that holds the JSON text."""

_ARRAY = "$array"
"""The key that stands for an array in the JSON text."""


class _OldFormat(ValueError):
    """The file is whole, and version 0.1.0 wrote it."""


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a structure of arrays and plain values to one file, atomically.

    Each array has the name of its place in the structure, such as `weights/0/2`, so that
    `numpy.load` can read it too. The rest is JSON text in the array `state.json`.

    Args:
        path: The `.npz` file. An existing one is replaced.
        state: Nested dicts, lists and tuples of NumPy arrays, numbers, strings, booleans and
            `None`. Numbers may be infinite or NaN.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from keras_disrnn.utils.state import load_state, save_state
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(f"{folder}/state.npz", {"weights": [np.arange(3)], "epoch": 4})
    ...     load_state(f"{folder}/state.npz")
    {'weights': [array([0, 1, 2])], 'epoch': 4}
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_take_arrays(state, "", arrays))
    arrays[_TEXT] = np.frombuffer(text.encode(), dtype=np.uint8)
    write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_state(path: str | os.PathLike[str], kind: str = "a saved state") -> dict[str, Any]:
    """Read what `save_state` wrote.

    Args:
        path: The file.
        kind: What the file should hold, for the error message.

    Returns:
        The structure. Tuples have become lists.

    Raises:
        ValueError: If the file is damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if _TEXT not in arrays and "state" in arrays:
            raise _OldFormat(
                f"{Path(path)}: expected {kind} of this version, got one of version 0.1.0; resume "
                "with that version, or choose another folder"
            )
        return _give_arrays(json.loads(arrays[_TEXT].tobytes()), arrays)
    except _OldFormat:
        raise
    except Exception as error:
        raise ValueError(
            f"{Path(path)}: expected {kind}, got a file that cannot be read ({error}); remove it "
            "to compute it again"
        ) from error


def _take_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, dict):
        return {
            str(key): _take_arrays(item, f"{name}/{key}" if name else str(key), arrays)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_take_arrays(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _give_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if list(value) == [_ARRAY]:
            return arrays[value[_ARRAY]]
        return {key: _give_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_give_arrays(item, arrays) for item in value]
    return value
