"""Which implementation a layer runs in: the native library or Keras operations."""

import logging

from keras import ops

from keras_disrnn import native
from keras_disrnn.utils.distribute import first_session

IMPLEMENTATIONS = ("auto", "native", "keras")

logger = logging.getLogger(__name__)
_logged = set()


def check_implementation(implementation):
    """Raises ValueError unless it is one of `IMPLEMENTATIONS`."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation: expected one of {IMPLEMENTATIONS}, got {implementation!r}"
        )


def runs_natively(layer):
    """Whether a layer is to run natively here and now; says once why `"auto"` does not.

    Args:
        layer: A layer with an `implementation` and an `activation`.

    Raises:
        RuntimeError: With `implementation="native"`, where that cannot run.
    """
    if layer.implementation == "keras" or native.is_disabled():
        return False
    reason = native.why_not(layer.activation, layer.dtype_policy)
    if reason is None:
        return True
    if layer.implementation == "native":
        raise RuntimeError(f"implementation='native' cannot run here: {reason}")
    if reason not in _logged:
        _logged.add(reason)
        logger.warning("the model runs in Keras operations, which are slower: %s", reason)
    return False


def seed_or_noise(noisy, noise, seed_generator):
    """What a native pass takes its noise from, `(seed, noise)`: one of them, or neither.

    Args:
        noisy: Whether there is noise.
        noise: What was given, or `None` to draw it.
        seed_generator: Where the seed of what is drawn comes from.
    """
    if not noisy:
        return None, None
    if noise is not None:
        return None, noise
    seed, first = seed_generator.next(), first_session()
    if first is not None:
        seed = ops.concatenate([seed, ops.cast(first, seed.dtype)[None]])
    return seed, None
