"""The stages of training: each is one `compile` and one `fit`.

`train` runs them in order. Its body is meant to be read, and replaced by calls of one's own:

    compile_stage(model, "stage1", learning_rate=1e-3)
    model.fit(batches, epochs=30, steps_per_epoch=100)
"""

import dataclasses
import hashlib
import math

import numpy as np

from keras_disrnn.models.latents import predict_latents
from keras_disrnn.training.checkpoint import Progress, StopOnNaN
from keras_disrnn.training.settling import LEAST_EPOCHS, default_settle_steps
from keras_disrnn.training.stages import STEPS_PER_EXECUTION, compile_stage
from keras_disrnn.utils import distribute
from keras_disrnn.utils.checks import check_integer


def train(
    model,
    sessions,
    held_out=None,
    *,
    warmup_steps=1000,
    stage1_steps=3000,
    stage2_steps=3000,
    joint_steps=0,
    steps_per_epoch=100,
    batch_size=None,
    buckets=1,
    learning_rate=1e-3,
    choice_weight=0.5,
    settle_steps=None,
    seed=0,
    checkpoint=None,
    callbacks=(),
    verbose="auto",
):
    """Trains a model: warm-up, stage 1, stage 2, and a joint stage if asked for.

    Args:
        model: A `DisRNNModel`.
        sessions: The training `Sessions`; of a model with subjects, sessions of those.
        held_out: `Sessions` to evaluate after each epoch.
        warmup_steps, stage1_steps, stage2_steps, joint_steps: Gradient steps of each stage; 0
            leaves the stage out. Without dopamine targets stage 2 and the joint stage must be 0.
        steps_per_epoch: Steps between two lines of history, validations and checkpoints.
        batch_size: Sessions in a step; `None` takes all of them.
        buckets: Classes of session length that batches are drawn within, so that they have little
            padding (see `Sessions.dataset`); without effect where all sessions are in one batch.
        learning_rate: Of Adam, a new one in each stage.
        choice_weight: As for `compile_stage`.
        settle_steps: A stage with penalties ends early once neither the loss nor a bottleneck has
            changed over so many steps (see `has_settled`); a multiple of `steps_per_epoch`, at
            least four of it, or 0 to take every step; `None` for `default_settle_steps`.
        seed: Of the order in which batches are drawn (the model has a seed of its own).
        checkpoint: A file to keep the state in after each epoch. If it exists, training goes on
            from it, to the same weights that an uninterrupted run ends at.
        callbacks: Further Keras callbacks for every `fit`. Those that act on batches are called
            every few steps (at most `STEPS_PER_EXECUTION`).
        verbose: As for `fit`.

    Returns:
        The history, a DataFrame with one row an epoch: `stage`, `epoch` and `step` within the
        stage, the metrics, those of the held-out sessions with the prefix `val_`, and `seconds`
        (wall time).

    Raises:
        ValueError: If a setting is wrong, or the checkpoint belongs to other settings.
        TrainingDiverged: If the loss is no longer finite; the model then has the weights of the
            last good epoch.
    """
    steps = {
        "warmup": warmup_steps,
        "stage1": stage1_steps,
        "stage2": stage2_steps,
        "joint": joint_steps,
    }
    sessions = sessions.for_model(model)
    held_out = None if held_out is None else held_out.for_model(model)
    check_training(model, sessions, steps, steps_per_epoch, learning_rate, settle_steps)
    if settle_steps is None:
        settle_steps = default_settle_steps(steps_per_epoch)
    if not model.built:
        model.build((None, None, sessions.num_observations))
    settings = {
        "steps": steps,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": batch_size,
        "buckets": buckets,
        "learning_rate": learning_rate,
        "choice_weight": choice_weight,
        "settle_steps": settle_steps,
        "seed": seed,
        "model": model.get_config(),
        "data": fingerprint(sessions),
    }
    progress = Progress(checkpoint, settings, writes=distribute.is_chief(model))
    progress.restore(model)

    for index, (stage, count) in enumerate(steps.items()):
        if count == 0 or progress.has_finished(stage):
            continue
        train_data, held_out_data = sessions, held_out
        if stage == "stage2":
            # The frozen core gives the same latents at every step.
            train_data, held_out_data = with_latents(model, sessions, held_out)
        most = 1 if distribute.replicas(model) > 1 else STEPS_PER_EXECUTION
        compile_stage(
            model,
            stage,
            learning_rate,
            choice_weight=choice_weight,
            steps_per_execution=math.gcd(min(steps_per_epoch, count), most),
        )
        first_epoch = progress.start(stage, model)
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
            callbacks=[StopOnNaN(), progress, *callbacks],
            shuffle=False,
            verbose=verbose,
        )
    return progress.history


def with_latents(model, *sessions):
    """The sessions with the model's noiseless latents, which spare running the core at each step.

    Args:
        model: A `DisRNNModel`, its core trained.
        *sessions: `Sessions`, or `None`.

    Returns:
        A list of `Sessions` with `latents` (`None` where `None` was given).
    """
    return [
        None
        if data is None
        else dataclasses.replace(data, latents=predict_latents(model, data.features))
        for data in sessions
    ]


def fingerprint(sessions):
    """A digest of the data, to tell a checkpoint of other data apart."""
    digest = hashlib.sha256()
    for name in ("features", "choice", "choice_weight", "dopamine", "dopamine_weight"):
        digest.update(np.ascontiguousarray(getattr(sessions, name)).tobytes())
    return digest.hexdigest()[:16]


def check_training(model, sessions, steps, steps_per_epoch, learning_rate, settle_steps=None):
    """Raises ValueError where `train` could not begin with these settings.

    Args:
        model, sessions, steps_per_epoch, learning_rate, settle_steps: As for `train`.
        steps: Name of each stage to its number of steps.
    """
    distribute.check_strategy(model)
    check_integer("steps_per_epoch", steps_per_epoch)
    if not 0.0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate: expected a number above 0, got {learning_rate}")
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
    for name, want, got in (
        ("num_observations", model.num_observations, sessions.num_observations),
        ("num_arms", model.num_arms, sessions.num_arms),
    ):
        if want != got:
            raise ValueError(f"{name}: the model was made for {want}, the sessions have {got}")
    if sessions.choice_weight.sum() == 0 and (steps["warmup"] or steps["stage1"] or steps["joint"]):
        raise ValueError("sessions: no choice target has weight: nothing to fit")
    if steps["stage2"] or steps["joint"]:
        if model.num_signals != sessions.num_signals or not model.num_signals:
            raise ValueError(
                f"num_signals: the model was made for {model.num_signals} dopamine signals, the sessions "
                f"have {sessions.num_signals}; without dopamine, set stage2_steps and joint_steps to 0"
            )
        if sessions.dopamine_weight.sum() == 0:
            raise ValueError("sessions: no dopamine target has weight: nothing to fit in stage 2")
