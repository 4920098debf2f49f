"""The stages of training, and the checks of their steps. This module does not import TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from keras_disrnn.training.optimizers import LEARNING_RATE, LearningRate, check_learning_rate
from keras_disrnn.utils.checks import check_integer


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage trains, and which targets it fits.

    Attributes:
        trains: Names of the parts that train, if the model has them. The other parts are frozen.
        fits: The targets in the loss.
        noise: Whether training adds the bottlenecks' noise.
        penalised: Whether the loss includes the penalties.
    """

    trains: tuple[str, ...]
    fits: tuple[str, ...]
    noise: bool = True
    penalised: bool = True


CHOICE_PARTS = ("subject_embedding", "core", "choice_readout")
"""The parts of the model that choices train."""

STEPS_PER_EXECUTION = 10
"""The largest number of steps that `train` runs before it returns to Python and its callbacks."""

STAGES: dict[str, Stage] = {
    "warmup": Stage(CHOICE_PARTS, ("choice",), noise=False, penalised=False),
    "stage1": Stage(CHOICE_PARTS, ("choice",)),
    "stage2": Stage(("dopamine_readout",), ("dopamine",)),
    "joint": Stage((*CHOICE_PARTS, "dopamine_readout"), ("choice", "dopamine")),
}
"""The stages by name: choice without noise and penalties; choice; dopamine on the frozen core;
choice and dopamine together."""

LEAST_EPOCHS = 4
"""A window of fewer epochs does not show a trend."""


def steps_together(steps: int) -> int:
    """Return how many steps run between two returns to Python, so that a fit ends with the last.

    Args:
        steps: Steps of an epoch.

    Example:
        >>> from keras_disrnn.training.plan import steps_together
        >>> steps_together(50), steps_together(4)
        (10, 2)
    """
    return math.gcd(steps, STEPS_PER_EXECUTION)


def check_choice_weight(choice_weight: float) -> None:
    """Check the weight of the cross-entropy in the joint stage.

    Args:
        choice_weight: As for `compile_stage`.

    Raises:
        ValueError: If it is not a number from 0 to 1.
    """
    if not 0.0 <= choice_weight <= 1.0:
        raise ValueError(f"choice_weight: expected a number from 0 to 1, got {choice_weight}")


def check_steps(
    steps: Mapping[str, int],
    *,
    steps_per_epoch: int,
    learning_rate: LearningRate = LEARNING_RATE,
    settle_steps: int | None = None,
) -> None:
    """Check the settings of `train` that depend neither on the model nor on the sessions.

    Args:
        steps: Name of each stage to its number of steps.
        steps_per_epoch: As for `train`.
        learning_rate: As for `train`.
        settle_steps: As for `train`.

    Raises:
        ValueError: If `train` could not begin with these settings.
    """
    check_integer("steps_per_epoch", steps_per_epoch)
    check_learning_rate(learning_rate)
    for stage, count in steps.items():
        check_integer(f"{stage}_steps", count, 0)
        if count > steps_per_epoch and count % steps_per_epoch:
            raise ValueError(
                f"{stage}_steps: expected a multiple of steps_per_epoch ({steps_per_epoch}), or "
                f"fewer than one epoch, got {count}"
            )
    least = LEAST_EPOCHS * steps_per_epoch
    if settle_steps and (settle_steps < least or settle_steps % steps_per_epoch):
        raise ValueError(
            f"settle_steps: expected 0, or a multiple of steps_per_epoch ({steps_per_epoch}) of at "
            f"least {least}, got {settle_steps}"
        )
