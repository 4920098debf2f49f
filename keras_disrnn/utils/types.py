"""Types that the public functions share."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor or anything that Keras converts to one. TensorFlow and Keras come without types."""

Shape: TypeAlias = tuple[Any, ...]
"""A shape: integers, and `None` for an axis of unknown size."""
