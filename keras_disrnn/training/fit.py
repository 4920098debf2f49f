"""Training in stages. Each stage is one `compile_stage` and one `fit`.

`train` runs the stages in order. You can also write them out yourself:

    compile_stage(model, "stage1", learning_rate=1e-3)
    model.fit(sessions.dataset(steps=3000), epochs=30, steps_per_epoch=100)
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd

from keras_disrnn.data import Sessions
from keras_disrnn.data.batches import check_batches
from keras_disrnn.data.duplicates import warn_of_shared
from keras_disrnn.data.splits import spread_sessions
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.training.checkpoint import Progress, StopOnNaN
from keras_disrnn.training.courses import Course, choose_batch_size, get_course
from keras_disrnn.training.optimizers import (
    LEARNING_RATE,
    LearningRate,
    describe_optimizer,
    make_optimizer,
)
from keras_disrnn.training.plan import STAGES, check_choice_weight, check_steps, steps_together
from keras_disrnn.training.stages import compile_stage
from keras_disrnn.training.verdict import FitWarning, judge_training
from keras_disrnn.utils import distribute
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.forks import check_process

logger = logging.getLogger(__name__)

VALIDATION_TRIALS = 100_000
"""Held-out trials that are evaluated after each epoch."""


def train(
    model: DisRNNModel,
    sessions: Sessions,
    held_out: Sessions | None = None,
    *,
    course: Literal["standard", "reference"] = "standard",
    warmup_steps: int | None = None,
    stage1_steps: int | None = None,
    stage2_steps: int | None = None,
    joint_steps: int | None = None,
    steps_per_epoch: int | None = None,
    batch_size: int | Literal["all"] | None = None,
    buckets: int = 1,
    optimizer: keras.optimizers.Optimizer | str | None = None,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
    decay_steps: int | None = None,
    choice_weight: float = 0.5,
    settle_steps: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> pd.DataFrame:
    """Train a model: warm-up, stage 1, stage 2 and, if requested, a joint stage.

    Stage 2 and the joint stage need dopamine. If the model or the sessions have none, these stages
    are left out, and a line in the log says so. A fit that ends at chance, has not settled or
    closed no bottleneck gives a `FitWarning` (see `judge_fit`).

    Args:
        model: A `DisRNNModel`.
        sessions: The training `Sessions`. For a model with subjects, they must be sessions of its
            subjects.
        held_out: `Sessions` to evaluate after each epoch. Of many, evenly spaced ones with about
            `VALIDATION_TRIALS` trials are evaluated, because a cohort takes longer than the epoch.
        course: Name of the course (see `keras_disrnn.training.courses.COURSES`). It gives the value
            of each argument below that is `None` by default, except `optimizer`. "standard" takes
            batches of about 12,800 trials and a large learning rate, ends each stage when it has
            settled, and lets the rate decay then. "reference" is that of the authors' example: all
            sessions at every step, and a small learning rate. It takes ten times as long.
        warmup_steps: Gradient steps of the warm-up; 0 leaves the stage out.
        stage1_steps: The most gradient steps of stage 1; 0 leaves the stage out.
        stage2_steps: The same for stage 2.
        joint_steps: The same for the joint stage.
        steps_per_epoch: Steps between two rows of the history, validations and checkpoints.
        batch_size: Sessions in a step, or "all".
        buckets: Classes of session length. A batch takes its sessions from one class, so that it
            has little padding (see `Sessions.dataset`). No effect if a batch holds all sessions.
        optimizer: A Keras optimizer, the name of one, or `None`, as for `compile_stage`. Each stage
            starts with a fresh copy.
        learning_rate: A number or a schedule, as for `compile_stage`. A schedule starts from its
            first step in each stage.
        decay_steps: Steps at the end of each stage with penalties, at most half of it, in which the
            learning rate falls to a hundredth. A schedule does not decay further.
        choice_weight: As for `compile_stage`.
        settle_steps: A stage with penalties ends early if neither the loss nor a bottleneck has
            changed over this number of steps (see `has_settled`). The decay follows. The number
            must be a multiple of `steps_per_epoch`, at least four times as large, or 0 to take
            every step.
        seed: Seed of the order of batches. The model has its own seed.
        checkpoint: A file for the state after each epoch. If it exists, training resumes from it,
            and ends with the same weights as without the interruption. If a callback ended a stage,
            the stage is finished.
        callbacks: Further Keras callbacks for every `fit`. Callbacks on batches run once every few
            steps (at most `STEPS_PER_EXECUTION`).
        verbose: As for `keras.Model.fit`.

    Returns:
        The history, with one row per epoch: `stage`; `epoch` and `step` within the stage; the
        metrics; those of the held-out sessions with the prefix `val_`; and `seconds` (wall time).

    Raises:
        ValueError: If a setting is wrong, or the checkpoint has other settings.
        TrainingDiverged: If the loss is no longer finite. The model then has the weights of the
            last good epoch.

    Example:
        >>> import keras_disrnn
        >>> from keras_disrnn.data import Sessions
        >>> sessions = Sessions.from_trials(choice=[[0, 1, 1]], reward=[[1, 0, 1]])
        >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=0)
        >>> history = keras_disrnn.train(
        ...     model, sessions, warmup_steps=2, stage1_steps=2, stage2_steps=0, verbose=0
        ... )
        >>> history["stage"].tolist()
        ['warmup', 'stage1']
    """
    check_process()
    check_integer("seed", seed, 0)
    if held_out is not None:
        warn_of_shared(sessions, held_out)
        held_out = _sessions_for(model, held_out)
    sessions = _sessions_for(model, sessions)
    plan = get_course(course)
    chosen = plan.complete(
        warmup_steps=warmup_steps,
        stage1_steps=stage1_steps,
        stage2_steps=stage2_steps,
        joint_steps=joint_steps,
        steps_per_epoch=steps_per_epoch,
        settle_steps=settle_steps,
    )
    steps = {stage: chosen[f"{stage}_steps"] for stage in STAGES}
    steps_per_epoch, settle_steps = chosen["steps_per_epoch"], chosen["settle_steps"]
    learning_rate, decay_steps = _rate_and_decay(
        plan, optimizer=optimizer, learning_rate=learning_rate, decay_steps=decay_steps
    )
    check_training(
        model,
        sessions,
        steps,
        held_out=held_out,
        steps_per_epoch=steps_per_epoch,
        learning_rate=learning_rate,
        settle_steps=settle_steps,
        batch_size=batch_size,
        buckets=buckets,
        choice_weight=choice_weight,
    )
    steps = _possible_steps(model, sessions, steps)
    if held_out is not None:
        held_out = spread_sessions(held_out, VALIDATION_TRIALS)
    batch_size = choose_batch_size(sessions, batch_size, course=course)
    if not model.built:
        model.build((None, None, model.num_observations))
    with distribute.scope(model):
        description = describe_optimizer(make_optimizer(optimizer, learning_rate=learning_rate))
    settings = {
        "steps": steps,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": batch_size,
        "buckets": buckets,
        "optimizer": description,
        "choice_weight": choice_weight,
        "settle_steps": settle_steps,
        "settle_loss": plan.settle_loss,
        "settle_sigma": plan.settle_sigma,
        "decay_steps": decay_steps,
        "seed": seed,
        "model": model.get_config(),
        "data": fingerprint(sessions),
    }
    progress = Progress(checkpoint, settings=settings, writes=distribute.is_chief(model))
    progress.restore(model)

    for index, stage in enumerate(STAGES):
        count = steps[stage]
        if count == 0 or progress.has_finished(stage, with_last=False):
            continue
        finished = progress.has_finished(stage)
        train_data, held_out_data = sessions, held_out
        if stage == "stage2" and not finished:
            # The core is frozen, so its latents are the same at every step.
            train_data, held_out_data = with_latents(model, sessions, held_out)
        together = steps_together(min(steps_per_epoch, count))
        compile_stage(
            model,
            stage,
            optimizer=optimizer,
            learning_rate=learning_rate,
            choice_weight=choice_weight,
            steps_per_execution=1 if distribute.replicas(model) > 1 else together,
        )
        first_epoch = progress.start(stage, model)
        if finished:
            # The model is compiled as after the training itself: the same parts are frozen.
            continue
        model.fit(
            train_data.dataset(
                batch_size,
                shuffle=batch_size is not None,
                seed=seed + index,
                start_step=first_epoch * steps_per_epoch,
                steps=count,
                buckets=buckets,
            ),
            initial_epoch=first_epoch,
            epochs=max(1, count // steps_per_epoch),
            steps_per_epoch=min(steps_per_epoch, count),
            validation_data=None if held_out_data is None else held_out_data.dataset(batch_size),
            callbacks=[StopOnNaN(sessions), progress, *callbacks],
            shuffle=False,
            verbose=verbose,
        )
        if callbacks:
            progress.end_stage()
    history = progress.history
    if distribute.is_chief(model):
        for sentence in judge_training(model, history, sessions, held_out):
            warnings.warn(sentence, FitWarning, stacklevel=2)
    return history


def _rate_and_decay(
    course: Course,
    *,
    optimizer: keras.optimizers.Optimizer | str | None,
    learning_rate: LearningRate | None,
    decay_steps: int | None,
) -> tuple[LearningRate, int]:
    """Return the learning rate and the steps of its decay."""
    own = isinstance(optimizer, keras.optimizers.Optimizer)
    rate: Any = learning_rate
    if isinstance(optimizer, keras.optimizers.Optimizer):
        rate = optimizer.get_config()["learning_rate"]
    # In the configuration of an optimizer, a schedule is a dict.
    has_schedule = isinstance(rate, dict | keras.optimizers.schedules.LearningRateSchedule)
    if decay_steps is None:
        decay_steps = 0 if has_schedule else course.decay_steps
    check_integer("decay_steps", decay_steps, 0)
    if decay_steps and has_schedule:
        raise ValueError(
            f"decay_steps: expected 0, because the learning rate is a schedule, got {decay_steps}"
        )
    if learning_rate is None:
        # An optimizer object has a rate of its own.
        learning_rate = LEARNING_RATE if own else course.learning_rate
    return learning_rate, decay_steps


def with_latents(model: DisRNNModel, *sessions: Sessions | None) -> list[Any]:
    """Add the model's latents to sessions, so that the core does not run at each step.

    Args:
        model: A `DisRNNModel` with a trained core.
        *sessions: `Sessions`, or `None`.

    Returns:
        A list of `Sessions` with `latents`, computed without noise, in float32. `None` stays
        `None`.

    Example:
        >>> import keras_disrnn
        >>> from keras_disrnn.data import Sessions
        >>> from keras_disrnn.training.fit import with_latents
        >>> sessions = Sessions.from_trials(choice=[[0, 1, 1]], reward=[[1, 0, 1]])
        >>> model = keras_disrnn.DisRNNModel(num_latents=2, num_signals=0, seed=0)
        >>> with_latents(model, sessions)[0].latents.shape
        (1, 4, 2)
    """
    return [
        None
        if data is None
        else dataclasses.replace(
            data, latents=predict_latents(model, data.features).astype(np.float32, copy=False)
        )
        for data in sessions
    ]


def fingerprint(sessions: Sessions) -> str:
    """Compute a digest of sessions, to recognise a checkpoint of other data.

    Args:
        sessions: `Sessions`.

    Returns:
        A string of 16 hexadecimal digits.

    Example:
        >>> from keras_disrnn.data import Sessions
        >>> from keras_disrnn.training.fit import fingerprint
        >>> len(fingerprint(Sessions.from_trials(choice=[[0, 1]], reward=[[1, 0]])))
        16
    """
    digest = hashlib.sha256()
    for name in ("features", "choice", "choice_weight", "dopamine", "dopamine_weight"):
        digest.update(np.ascontiguousarray(getattr(sessions, name)).reshape(-1).data)
    return digest.hexdigest()[:16]


def check_training(
    model: DisRNNModel,
    sessions: Sessions,
    steps: Mapping[str, int],
    *,
    held_out: Sessions | None = None,
    steps_per_epoch: int,
    learning_rate: LearningRate = LEARNING_RATE,
    settle_steps: int | None = None,
    batch_size: int | Literal["all"] | None = None,
    buckets: int = 1,
    choice_weight: float = 0.5,
) -> None:
    """Check the settings of `train` before it begins.

    Args:
        model: As for `train`.
        sessions: As for `train`.
        steps: Name of each stage to its number of steps.
        held_out: As for `train`.
        steps_per_epoch: As for `train`.
        learning_rate: As for `train`.
        settle_steps: As for `train`.
        batch_size: As for `train`.
        buckets: As for `train`.
        choice_weight: As for `train`.

    Raises:
        ValueError: If `train` could not begin with these settings.
    """
    distribute.check_strategy(model)
    check_batches(batch_size, buckets)
    check_choice_weight(choice_weight)
    check_steps(
        steps,
        steps_per_epoch=steps_per_epoch,
        learning_rate=learning_rate,
        settle_steps=settle_steps,
    )
    _check_fits(model, sessions, "sessions")
    if held_out is not None:
        _check_fits(model, held_out, "held-out sessions")
        _check_names(sessions, held_out)
    if sessions.choice_weight.sum() == 0 and (steps["warmup"] or steps["stage1"] or steps["joint"]):
        raise ValueError("sessions: expected a choice target with weight, got none")
    reason = _why_no_dopamine(model, sessions)
    with_dopamine = steps["stage2"] or steps["joint"]
    if reason and with_dopamine and not (steps["warmup"] or steps["stage1"]):
        raise ValueError(
            "sessions: expected dopamine, because only stage2 and joint have steps, got none: "
            f"{reason}"
        )


def _check_fits(model: DisRNNModel, sessions: Sessions, part: str) -> None:
    for name in ("num_observations", "num_arms", "num_signals"):
        want, got = getattr(model, name), getattr(sessions, name)
        # A model or sessions without dopamine leave out the stages that need it.
        if want != got and not (name == "num_signals" and 0 in (want, got)):
            raise ValueError(
                f"{name}: expected {part} with {want}, the number the model was made for, got {got}"
            )


def _check_names(sessions: Sessions, held_out: Sessions) -> None:
    """Refuse held-out sessions whose observations or signals have other names or another order."""
    recorded = all(part.dopamine_weight.any() for part in (sessions, held_out))
    for name in ("observation_names", "signal_names"):
        want, got = getattr(sessions, name), getattr(held_out, name)
        # One signal may have another name in another table.
        if want != got and (name == "observation_names" or (recorded and len(want) > 1)):
            raise ValueError(
                f"{name}: expected held-out sessions with those of the training sessions, in their "
                f"order, {', '.join(want)}, got {', '.join(got)}"
            )


def _sessions_for(model: DisRNNModel, sessions: Sessions) -> Sessions:
    """Return the sessions as the model reads them, with dopamine of weight 0 or without it."""
    sessions = sessions.for_model(model)
    if model.num_signals and sessions.num_signals:
        return sessions
    empty = np.zeros((*sessions.choice.shape, model.num_signals), np.float32)
    names = tuple(f"dopamine_{signal + 1}" for signal in range(model.num_signals))
    return dataclasses.replace(sessions, dopamine=empty, dopamine_weight=empty, signal_names=names)


def _why_no_dopamine(model: DisRNNModel, sessions: Sessions) -> str | None:
    if not model.num_signals:
        return "the model has no dopamine readout (num_signals=0)"
    if not sessions.dopamine_weight.any():
        return "the sessions have no dopamine target with weight"
    return None


def _possible_steps(
    model: DisRNNModel, sessions: Sessions, steps: Mapping[str, int]
) -> dict[str, int]:
    """Return the steps without those of stages that the model or the sessions cannot have."""
    reason = _why_no_dopamine(model, sessions)
    left_out = [name for name in ("stage2", "joint") if steps[name]] if reason else []
    if left_out:
        logger.warning("train leaves out %s: %s", " and ".join(left_out), reason)
    return {name: 0 if name in left_out else count for name, count in steps.items()}
