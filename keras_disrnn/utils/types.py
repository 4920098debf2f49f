"""Types that the public functions share."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor or anything that Keras converts to one. TensorFlow and Keras come without types."""

Shape: TypeAlias = tuple[Any, ...]
"""A shape: integers, and `None` for an axis of unknown size."""


def cost_dtype(policy: Any) -> str:
    """Return the dtype of costs and losses: float64 if the variables are float64, else float32."""
    return "float64" if policy.variable_dtype == "float64" else "float32"
