"""The memory that a model needs, estimated before any of it is taken."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

BYTES_PER_WEIGHT = 16
"""A weight in float32, its gradient, and two numbers of Adam."""

WEIGHTS_PER_LAYER = 5000
"""What a hidden layer costs besides its weights, in weights."""

MOST_SHARE = 0.5
"""The largest share of the memory of this machine that a model may need."""


def check_memory(sizes: Mapping[str, int], weights: int) -> None:
    """Refuse a model that does not fit in memory, before its weights are made.

    Args:
        sizes: Name to value of the arguments that make the model large.
        weights: An estimate of the number of weights.

    Raises:
        ValueError: If the weights need more than `MOST_SHARE` of the memory of this machine. The
            error names the largest argument.

    Example:
        >>> from keras_disrnn.models.size import check_memory
        >>> check_memory({"units": 8}, weights=300)
    """
    needed, most = BYTES_PER_WEIGHT * weights, MOST_SHARE * _memory()
    if needed > most:
        name = max(sizes, key=lambda each: sizes[each])
        raise ValueError(
            f"{name}: expected a model whose training needs at most {most / 2**30:.3g} GiB, "
            f"{MOST_SHARE:.0%} of the memory of this machine, got {sizes[name]}, which needs about "
            f"{needed / 2**30:.3g} GiB; choose a smaller {name}"
        )


def check_disrnn_memory(arguments: Mapping[str, object]) -> None:
    """Refuse the arguments of a `DisRNNModel` that does not fit in memory.

    Args:
        arguments: The arguments of the model. Those that are no integers are left to other checks.

    Raises:
        ValueError: If the model does not fit in memory.
    """
    sizes = {
        name: int(value)
        for name, value in arguments.items()
        if name.endswith(("units", "layers")) or name.startswith("num_") or name == "subjects"
        if isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0
    }

    def size(name: str, default: int = 1) -> int:
        return sizes.get(name, default)

    embedding = size("subject_units", 0)
    latents = size("num_latents")
    observed = size("num_observations") + embedding

    def network(inputs: int, name: str, outputs: int) -> int:
        units, layers = size(f"{name}_units"), size(f"num_{name}_layers")
        hidden = (layers - 1) * (units + 1) * units + layers * WEIGHTS_PER_LAYER
        return inputs * (units + 2) + units * (outputs + 1) + hidden

    # The layers of all update networks are stacked, so their fixed cost is counted too often here.
    weights = latents * (network(observed + latents, "update", 2)) + size("subjects") * embedding
    weights -= (latents - 1) * size("num_update_layers") * WEIGHTS_PER_LAYER
    weights += network(latents + embedding, "choice", size("num_arms"))
    weights += network(latents + observed, "dopamine", size("num_signals", 0))
    # The names of the subjects cost memory too.
    check_memory(sizes, weights + 16 * size("subjects", 0))


def _memory() -> int:
    """The memory of this machine, or of its control group, in bytes."""
    found = [2**36]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    # A container may have less than its machine.
    with contextlib.suppress(ValueError, OSError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)
