"""Settings of the selection of penalties."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from keras_disrnn.utils.checks import check_integer


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How the penalties are selected.

    Args:
        scales: Penalty scales of the latent, update and choice penalties, rising. The model's own
            penalty weights have scale 1.
        dopamine_scales: Penalty scales of the dopamine penalties, rising. Scale 1 is the model's
            penalty weight times the variance of the dopamine response.
        num_folds: Number of parts of the sessions. Each part is scored by a path on the others.
        num_starts: Number of paths on all sessions, from different initial weights. Of those with
            the graph found in most folds, the one with the lowest loss is taken.
        warmup_steps: Steps without noise and penalties at the start of each path.
        steps: Steps at each penalty scale.
        dopamine_steps: Steps of the dopamine readout at each penalty scale.
        separation_steps: Steps of each trial to separate latents that are mixtures, and as many at
            a fifth of the learning rate; 0 for no trials.
        settle_steps: Steps at the chosen penalty scale at the end, at a fifth of the learning rate.
        batch_size: Number of sessions per step.
        learning_rate: Learning rate of Adam. It is halved for a path that diverges.

    Raises:
        ValueError: If a number is out of range.

    Example:

    >>> from keras_disrnn.experiments.selection_settings import SelectionSettings
    >>> SelectionSettings(num_folds=5).num_folds
    5
    """

    scales: list[float] = dataclasses.field(default_factory=lambda: [0.3, 1.0, 2.0, 4.0])
    dopamine_scales: list[float] = dataclasses.field(default_factory=lambda: [0.3, 1.0, 3.0, 10.0])
    num_folds: int = 2
    num_starts: int = 1
    warmup_steps: int = 300
    steps: int = 300
    dopamine_steps: int = 200
    separation_steps: int = 300
    settle_steps: int = 300
    batch_size: int = 75
    learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        for name in ("scales", "dopamine_scales"):
            check_scales(name, getattr(self, name), at_least=2)
        for name, least in (
            ("num_folds", 2),
            ("num_starts", 1),
            ("warmup_steps", 0),
            ("steps", 1),
            ("dopamine_steps", 1),
            ("separation_steps", 0),
            ("settle_steps", 0),
            ("batch_size", 1),
        ):
            check_integer(name, getattr(self, name), least)
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate: expected a number above 0, got {self.learning_rate}")


def check_scales(name: str, scales: Sequence[float], *, at_least: int = 1) -> None:
    """Check that penalty scales are positive and rising.

    Args:
        name: Name of the setting, for the message.
        scales: The penalty scales.
        at_least: How many are needed.

    Raises:
        ValueError: If there are too few scales, or they do not rise.

    Example:

    >>> from keras_disrnn.experiments.selection_settings import check_scales
    >>> check_scales("scales", [1.0, 0.5])
    Traceback (most recent call last):
        ...
    ValueError: scales: expected rising numbers above 0, got [1.0, 0.5]
    """
    rising = all(low < high for low, high in zip([0, *scales], scales, strict=False))
    if len(scales) < at_least or not rising:
        count = "at least two " if at_least > 1 else ""
        raise ValueError(f"{name}: expected {count}rising numbers above 0, got {scales}")
