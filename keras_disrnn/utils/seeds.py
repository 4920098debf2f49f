"""Seeds of the parts of a model, derived from one seed."""

from __future__ import annotations

import numpy as np

from keras_disrnn.utils.checks import check_integer


def check_seed(seed: int | None) -> int | None:
    """Check that a seed is a whole number of at least 0, or `None` for a random seed.

    Raises:
        ValueError: If it is anything else.
    """
    return None if seed is None else check_integer("seed", seed, least=0)


def derive_seeds(seed: int | None, count: int) -> list[int | None]:
    """Derive different seeds from one seed.

    Args:
        seed: The seed, or `None` for random ones.
        count: How many seeds to derive.

    Returns:
        A list of `count` integers, the same for the same `seed`; or of `count` times `None`.

    Raises:
        ValueError: If the seed is neither `None` nor a whole number of at least 0.

    Example:

    >>> from keras_disrnn.utils.seeds import derive_seeds
    >>> derive_seeds(None, 2)
    [None, None]
    >>> derive_seeds(0, 3)[:2] == derive_seeds(0, 2)
    True
    """
    seed = check_seed(seed)
    if seed is None:
        return [None] * count
    return [int(state) & 0x7FFFFFFF for state in np.random.SeedSequence(seed).generate_state(count)]
