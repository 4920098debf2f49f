"""The configuration of Keras layers and models, from the signature of their constructor."""

from __future__ import annotations

import inspect
from typing import Any


def get_arguments(instance: Any, cls: Any) -> dict[str, Any]:
    """Return the arguments that the constructor of a class names, as the attributes hold them.

    Args:
        instance: An instance of `cls` or of a subclass, with one attribute for each argument.
        cls: The class whose constructor counts. A subclass may have other arguments.

    Returns:
        A dict of argument to value, without `**kwargs`.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.utils.config import get_arguments
    >>> layer = keras_disrnn.SubjectEmbedding(5, units=2, seed=0)
    >>> get_arguments(layer, keras_disrnn.SubjectEmbedding)
    {'num_subjects': 5, 'units': 2, 'seed': 0, 'penalty_weight': None}
    """
    names = inspect.signature(cls.__init__).parameters
    return {name: getattr(instance, name) for name in names if name not in ("self", "kwargs")}
