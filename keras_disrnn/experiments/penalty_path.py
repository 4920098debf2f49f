"""Train one model along a path of rising penalty scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_disrnn.analysis.graph import describe_graph
from keras_disrnn.training.checkpoint import TrainingDiverged

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.data.splits import Split
    from keras_disrnn.experiments.selection_settings import SelectionSettings
    from keras_disrnn.experiments.selection_stages import Stage

MAX_ATTEMPTS = 3
"""How many times a path is trained before the selection fails."""


class PenaltyPath(NamedTuple):
    """The fits of one path, one at each penalty scale.

    Attributes:
        weights: The model's weights at each scale.
        losses: `(scales,)`, the loss on all sessions, penalties included.
        sums: `(scales, sessions, K)`, the sums of each held-out session; empty for a path on all
            sessions.
    """

    weights: list[list[Any]]
    losses: np.ndarray
    sums: np.ndarray


def train_path(
    stage: Stage,
    sessions: Sessions,
    *,
    split: Split | None,
    settings: SelectionSettings,
    seed: int,
    report: Callable[[str], None],
    label: str,
) -> PenaltyPath:
    """Train a path, and train it again at half the learning rate if it diverges.

    Args:
        stage: The stage to train.
        sessions: All training sessions.
        split: The part to train on and the part to score; `None` to train on all sessions.
        settings: The settings of the selection.
        seed: Seed of the initial weights, the noise and the batches.
        report: Function that receives a line of text after each scale.
        label: Name of the path in these lines.

    Returns:
        The path.

    Raises:
        TrainingDiverged: If the path diverges in each of `MAX_ATTEMPTS` attempts.
    """
    training = sessions if split is None else split.train

    def train(learning_rate: float) -> PenaltyPath:
        stage.begin(seed)
        if stage.trains_core and settings.warmup_steps:
            stage.train(
                training,
                steps=settings.warmup_steps,
                learning_rate=learning_rate,
                seed=seed,
                warmup=True,
            )
        weights, losses, sums = [], [], []
        for index, scale in enumerate(stage.scales):
            stage.set_scale(scale)
            stage.train(training, steps=stage.steps, learning_rate=learning_rate, seed=seed + index)
            weights.append(stage.model.get_weights())
            losses.append(stage.loss(sessions))
            line = f"{label}, penalty scale {scale:g}: "
            if split is not None:
                sums.append(stage.session_sums(split.held_out))
                line += f"{stage.title} {float(stage.score(sums[-1].sum(axis=0))):.4f}, "
            report(line + (describe_graph(stage.graph()) or "all closed"))
        return PenaltyPath(weights, np.asarray(losses), np.asarray(sums))

    learning_rate = settings.learning_rate
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return train(learning_rate)
        except TrainingDiverged:
            learning_rate /= 2
            report(
                f"{label}: the loss is no longer finite; training again at a learning rate of "
                f"{learning_rate:g}"
            )
    try:
        return train(learning_rate)
    except TrainingDiverged as error:
        raise TrainingDiverged(
            f"{label}, at a learning rate of {learning_rate:g}: {error}"
        ) from error
