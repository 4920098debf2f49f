"""The choice between the native library and Keras operations."""

from __future__ import annotations

import logging
from typing import Any

import keras
from keras import ops

from keras_disrnn import native
from keras_disrnn.utils.distribute import first_session
from keras_disrnn.utils.types import Tensor

IMPLEMENTATIONS = ("auto", "native", "keras")

logger = logging.getLogger(__name__)
_logged: set[str] = set()


def check_implementation(implementation: str) -> None:
    """Raise a ValueError if an implementation is not one of `IMPLEMENTATIONS`."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation: expected one of {IMPLEMENTATIONS}, got {implementation!r}"
        )


def runs_natively(layer: keras.layers.Layer) -> bool:
    """Decide whether a layer runs in the native library here and now.

    If `"auto"` runs in Keras operations, the reason is logged once.

    Args:
        layer: A layer with the attributes `implementation` and `activation`.

    Returns:
        Whether it runs in the native library.

    Raises:
        RuntimeError: With `implementation="native"`, if the library cannot run.
    """
    if layer.implementation == "keras" or native.is_disabled():
        return False
    reason = native.why_not(layer.activation, layer.dtype_policy)
    if reason is None:
        return True
    if layer.implementation == "native":
        raise RuntimeError(
            f"implementation: expected 'auto' or 'keras', got 'native', which cannot run: {reason}"
        )
    if reason not in _logged:
        _logged.add(reason)
        logger.warning("the model runs in Keras operations, which are slower: %s", reason)
    return False


def seed_or_noise(
    noisy: bool, noise: Any, seed_generator: keras.random.SeedGenerator
) -> tuple[Tensor | None, Any]:
    """Return where a native pass takes its noise from: a seed, given noise, or neither.

    Args:
        noisy: Whether there is noise.
        noise: The given noise, or `None` to draw new noise.
        seed_generator: Gives the seed of new noise.

    Returns:
        `(seed, None)`, `(None, noise)` or `(None, None)`.
    """
    if not noisy:
        return None, None
    if noise is not None:
        return None, noise
    seed, first = seed_generator.next(), first_session()
    if first is not None:
        seed = ops.concatenate([seed, ops.cast(first, seed.dtype)[None]])
    return seed, None
