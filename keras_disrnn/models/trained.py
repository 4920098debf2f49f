"""Which parts of a model have been trained, so that the others are not taken for results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_disrnn.models.shared_steps import SharedSteps


class TrainedParts(SharedSteps):
    """A model that remembers which of its parts were trained. Its configuration holds them.

    A subclass defines `part_names` and `_parts_in_step`. It saves `trained` in its configuration.
    """

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that can be trained separately."""
        raise NotImplementedError

    def _parts_in_step(self) -> Iterable[str]:
        """Names of the parts that the compiled training step trains."""
        raise NotImplementedError

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parts that were trained. Empty if nothing is known about the weights.

        A training step adds the parts that it trains, and `set_weights` and `load_weights` add
        those that they change. Set it yourself if you give a part its weights in another way.
        """
        return tuple(getattr(self, "_trained_parts", ()))

    @trained.setter
    def trained(self, names: Sequence[str]) -> None:
        unknown = sorted(set(names) - set(self.part_names))
        if unknown:
            raise ValueError(f"trained: expected names of {self.part_names}, got {unknown[0]!r}")
        self._trained_parts = tuple(name for name in self.part_names if name in names)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of the parts with their initial weights. Empty if no part is known as trained."""
        trained = self.trained
        return tuple(name for name in self.part_names if trained and name not in trained)

    @property
    def untrained_outputs(self) -> tuple[str, ...]:
        """Names of the outputs that a readout without training gives: they mean nothing."""
        return tuple(name.removesuffix("_readout") for name in self.untrained if "readout" in name)

    def mark_trained(self, names: Iterable[str]) -> None:
        """Add to `trained`.

        Args:
            names: Names of parts. Those that the model does not have are ignored.
        """
        self.trained = [name for name in self.part_names if name in {*self.trained, *names}]

    def make_train_function(self, force: bool = False) -> Any:
        before: Any = getattr(self, "train_function", None)
        result = super().make_train_function(force)
        step: Any = getattr(self, "train_function", None)
        if step is not before:
            self.train_function: Any = _marking(self, step, tuple(self._parts_in_step()))
        return result


def _marking(model: TrainedParts, step: Callable[..., Any], names: Sequence[str]) -> Any:
    """Return the training step, which also marks what it trains."""

    def train(*arguments: Any) -> Any:
        result = step(*arguments)
        if not set(names) <= set(model.trained):
            model.mark_trained(names)
        return result

    return train


def changed_parts(
    parts: dict[str, keras.layers.Layer], change: Callable[[], Any]
) -> tuple[Any, list[str]]:
    """Run a function, and find the parts whose weights it changes.

    Args:
        parts: Name to part.
        change: The function.

    Returns:
        The result of the function, and the names of the changed parts.
    """
    before = {name: part.get_weights() for name, part in parts.items()}
    result = change()
    changed = [
        name
        for name, part in parts.items()
        if not all(map(np.array_equal, before[name], part.get_weights()))
    ]
    return result, changed
