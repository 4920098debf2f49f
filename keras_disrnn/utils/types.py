"""Types that the public functions share."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend, or what Keras turns into one: TensorFlow and Keras have no types."""
