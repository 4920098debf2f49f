"""The stages of training: each is one `compile` and one `fit`.

`train` runs them in order. Its body is meant to be read, and replaced by calls of one's own:

    compile_stage(model, "stage1", learning_rate=1e-3)
    model.fit(batches, epochs=30, steps_per_epoch=100)
"""

import dataclasses
import hashlib
import json
import math
import os
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from keras_disrnn import distribute
from keras_disrnn.bottleneck import cost_dtype
from keras_disrnn.checks import check_integer
from keras_disrnn.files import write_atomically
from keras_disrnn.losses import ChoiceCrossentropy, DopamineMSE, LogDopamineMSE
from keras_disrnn.metrics import DopamineMeanSquaredError, DopamineR2, NormalizedLikelihood
from keras_disrnn.model import PENALTIES, SUBJECT_PENALTIES
from keras_disrnn.optimizer import FlatAdam


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage trains, and against what.

    Attributes:
        trains: Names of the model's parts that train, where it has them; the others are frozen.
        fits: The targets in the loss.
        noise: Whether training adds the bottlenecks' noise.
        penalised: Whether the loss has the penalties.
    """

    trains: tuple[str, ...]
    fits: tuple[str, ...]
    noise: bool = True
    penalised: bool = True


CHOICE_PARTS = ("subject_embedding", "core", "choice_readout")

STEPS_PER_EXECUTION = 10
"""`train` does up to so many steps between two returns to Python and its callbacks."""

STAGES = {
    "warmup": Stage(CHOICE_PARTS, ("choice",), noise=False, penalised=False),
    "stage1": Stage(CHOICE_PARTS, ("choice",)),
    "stage2": Stage(("dopamine_readout",), ("dopamine",)),
    "joint": Stage((*CHOICE_PARTS, "dopamine_readout"), ("choice", "dopamine")),
}
"""The stages by name: choice without noise or penalties; choice; dopamine from the frozen core;
choice and dopamine together."""


def compile_stage(
    model, stage, learning_rate=1e-3, clip_norm=1.0, choice_weight=0.5, **compile_arguments
):
    """Makes `model` ready for `fit` in a stage: what is frozen, the noise, the loss, the metrics.

    A stage that differs from the one before only in noise and penalties (whether and how dear), as
    stage 1 does from the warm-up, keeps the traced step; its optimizer starts anew all the same.

    Args:
        model: A `DisRNNModel`.
        stage: A name of `STAGES`, or a `Stage`.
        learning_rate: Of Adam.
        clip_norm: Gradients are scaled down to this global norm.
        choice_weight: For the joint stage, the weight of the cross-entropy; `log(1 + MSE)` has
            one minus it.
        **compile_arguments: Further arguments of `model.compile`.

    Raises:
        ValueError: If the stage is unknown, or needs a dopamine readout that the model has not; or
            under a `tf.distribute` strategy that a model cannot be trained under.
    """
    distribute.check_strategy(model, compile_arguments.get("steps_per_execution", 1))
    if not isinstance(stage, Stage) and stage not in STAGES:
        raise ValueError(f"stage: expected one of {tuple(STAGES)}, got {stage!r}")
    plan = stage if isinstance(stage, Stage) else STAGES[stage]
    if "dopamine" in plan.fits and model.dopamine_readout is None:
        raise ValueError(f"{stage}: the model has no dopamine readout (signals=0)")
    if not 0.0 <= choice_weight <= 1.0:
        raise ValueError(f"choice_weight: expected a number from 0 to 1, got {choice_weight}")
    model.noise = plan.noise
    model.penalised = plan.penalised
    frozen = tuple(name for name in model.parts if name not in plan.trains)
    settings = (plan.fits, learning_rate, clip_norm, choice_weight, compile_arguments)
    before = getattr(model, "_stage", None)
    if before is not None and before.goes_on(model, frozen, settings):
        before.renew_optimizer()
        return
    model.frozen = frozen
    dtype = cost_dtype(model.dtype_policy)
    # Keras puts the output's name before a metric's, but not where there is one output only.
    prefix = "" if model.signals else "choice_"
    joint = len(plan.fits) > 1
    losses, metrics = {}, {}
    if "choice" in plan.fits:
        losses["choice"] = ChoiceCrossentropy(dtype=dtype)
        metrics["choice"] = [NormalizedLikelihood(f"{prefix}normalized_likelihood")]
    if "dopamine" in plan.fits:
        losses["dopamine"] = LogDopamineMSE(dtype=dtype) if joint else DopamineMSE(dtype=dtype)
        metrics["dopamine"] = [DopamineMeanSquaredError(), DopamineR2(model.signals)]
    weights = {"choice": choice_weight, "dopamine": 1.0 - choice_weight}
    with distribute.scope(model):
        model.compile(
            optimizer=FlatAdam(learning_rate, global_clipnorm=clip_norm),
            loss=losses,
            loss_weights=weights if joint else None,
            weighted_metrics=metrics,
            **compile_arguments,
        )
        if model.built:
            # Variables made while `fit` traces its step cost a second trace.
            model.optimizer.build(model.trainable_variables)
            model._stage = _CompiledStage(model, settings)


class _CompiledStage:
    """What a model was compiled for, and the state its optimizer began with."""

    def __init__(self, model, settings):
        self._settings = settings
        self._config = self._traced(model)
        self._optimizer = model.optimizer
        self._state = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]

    def goes_on(self, model, frozen, settings):
        """Whether the step that was traced serves for these settings and the model as it is now."""
        return (
            model.optimizer is self._optimizer
            and model.frozen == frozen
            and settings == self._settings
            and self._traced(model) == self._config
        )

    @staticmethod
    def _traced(model):
        """The settings that a traced step holds as constants."""
        prices = PENALTIES + SUBJECT_PENALTIES
        return {k: v for k, v in model.get_config().items() if k not in prices}

    def renew_optimizer(self):
        for variable, value in zip(self._optimizer.variables, self._state, strict=True):
            variable.assign(value)


def stage_of(model):
    """Name of the stage that a model was last made ready for by `compile_stage`."""
    trains = tuple(name for name in model.parts if name not in model.frozen)
    for name, plan in STAGES.items():
        # A model without subjects or dopamine lacks the parts for them.
        planned = tuple(part for part in plan.trains if part in model.parts)
        if (plan.noise, plan.penalised) == (model.noise, model.penalised) and planned == trains:
            return name
    raise ValueError(f"model: it is in none of the stages {tuple(STAGES)}")


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
    tensorboard=None,
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
        tensorboard: A folder for TensorBoard's logs (see `keras_disrnn.tensorboard.StageBoard`).
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
    if tensorboard is not None and distribute.is_chief(model):
        # Not above: its figures are drawn of what this module trains.
        from keras_disrnn.tensorboard import StageBoard

        callbacks = [*callbacks, StageBoard(tensorboard)]
    if not model.built:
        model.build((None, None, sessions.observations))
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
        else dataclasses.replace(data, latents=compute_latents(model, data.features))
        for data in sessions
    ]


def compute_latents(model, features, batch_size=256):
    """The noiseless latents after each row, batch by batch.

    Args:
        model: A `DisRNNModel`.
        features: `(sessions, rows, observations)`.
        batch_size: Sessions at a time.

    Returns:
        An array `(sessions, rows, latents)`.
    """
    batches = [
        keras.ops.convert_to_numpy(model.latents(features[start : start + batch_size]))
        for start in range(0, len(features), batch_size)
    ]
    return np.concatenate(batches)


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
        ("observations", model.observations, sessions.observations),
        ("arms", model.arms, sessions.arms),
    ):
        if want != got:
            raise ValueError(f"{name}: the model was made for {want}, the sessions have {got}")
    if sessions.choice_weight.sum() == 0 and (steps["warmup"] or steps["stage1"] or steps["joint"]):
        raise ValueError("sessions: no choice target has weight: nothing to fit")
    if steps["stage2"] or steps["joint"]:
        if model.signals != sessions.signals or not model.signals:
            raise ValueError(
                f"signals: the model was made for {model.signals} dopamine signals, the sessions "
                f"have {sessions.signals}; without dopamine, set stage2_steps and joint_steps to 0"
            )
        if sessions.dopamine_weight.sum() == 0:
            raise ValueError("sessions: no dopamine target has weight: nothing to fit in stage 2")


SETTLE_STEPS = 500
"""The window that agents with known graphs are found as well with as with every step
(benchmarks/settling.py)."""

LEAST_EPOCHS = 4
"""A window of fewer epochs tells nothing of a trend."""


def default_settle_steps(steps_per_epoch):
    """The least window of at least `SETTLE_STEPS` steps and `LEAST_EPOCHS` whole epochs."""
    return steps_per_epoch * max(LEAST_EPOCHS, math.ceil(SETTLE_STEPS / steps_per_epoch))


SETTLED_LOSS = 1e-4
SETTLED_SIGMA = 0.02


def trained_sigmas(model):
    """The noise level of each bottleneck that trains, a list of numbers."""
    return [
        float(sigma)
        for weight in model.trainable_variables
        if weight.name == "raw_sigma"
        for sigma in np.abs(keras.ops.convert_to_numpy(weight)).ravel()
    ]


def has_settled(losses, sigmas):
    """Whether training has come to rest in a window of epochs.

    It has if the mean loss of the window's second half is no more than `SETTLED_LOSS` below that of
    its first half, and if no bottleneck's sigma differs by more than `SETTLED_SIGMA` between any
    epoch of the window and its last.

    Args:
        losses: `(epochs,)`, the training loss of each epoch of the window, penalties included.
        sigmas: `(epochs + 1, bottlenecks)`, the noise levels before the window and after each
            epoch of it.
    """
    losses, sigmas = np.asarray(losses), np.asarray(sigmas)
    half = len(losses) // 2
    gain = losses[:half].mean() - losses[-half:].mean()
    return bool(
        gain <= SETTLED_LOSS and np.abs(sigmas - sigmas[-1]).max(initial=0) <= SETTLED_SIGMA
    )


class TrainingDiverged(FloatingPointError):
    """The loss is no longer finite."""


class StopOnNaN(keras.callbacks.Callback):
    """Stops `fit` with `TrainingDiverged` once the loss is not finite, and puts the weights back.

    The weights are those at the end of the last epoch with a finite loss (or before the first).
    """

    def on_train_begin(self, logs=None):
        self._good = self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            self.model.set_weights(self._good)
            raise TrainingDiverged(
                f"the loss became {float(loss)} by step {batch + 1} of epoch {self._epoch + 1}; "
                "the model has the weights of the last good epoch. Try a smaller learning rate, or "
                "look for extreme values among the observations and the dopamine responses"
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        weights = self.model.get_weights()
        if not all(np.isfinite(weight).all() for weight in weights):
            self.model.set_weights(self._good)
            raise TrainingDiverged(
                f"a weight is no longer finite at the end of epoch {epoch + 1}; the model has the "
                "weights of the last good epoch. Try a smaller learning rate"
            )
        self._good = weights


class Progress(keras.callbacks.Callback):
    """Keeps the history of all stages and, given a file, the state to go on from after a stop.

    The state is everything that the next step depends on: weights, optimizer and random states,
    the stage and the epoch. It is written after each epoch, atomically.

    Args:
        path: The checkpoint file, or `None` to keep the history in memory only.
        settings: What the run depends on; a checkpoint of other settings is refused.
        writes: Whether to write the file, too: of several workers only the first does.
    """

    def __init__(self, path, settings, writes=True):
        super().__init__()
        self._path = None if path is None else Path(path)
        self._writes = writes
        self._settings = json.loads(json.dumps(settings))
        # What is frozen changes from stage to stage, by the stages themselves.
        self._settings["model"].pop("frozen")
        self._settings["model"].pop("name")
        self._rows = []
        self._sigmas = []
        self._saved = None
        if self._path is not None and self._path.exists():
            self._saved = self._read()
            self._rows = self._saved["history"]

    @property
    def history(self):
        """One row an epoch: stage, epoch and step (of that stage, from 1), metrics."""
        return pd.DataFrame(self._rows)

    def restore(self, model):
        """Gives `model` the saved weights and random states, if there is a checkpoint."""
        if self._saved is not None:
            self._assign(model.variables, self._saved["model"])

    def has_finished(self, stage):
        """Whether the checkpoint says that this stage is done."""
        if self._saved is None:
            return False
        names = list(STAGES)
        reached, asked = names.index(self._saved["stage"]), names.index(stage)
        return reached > asked or (reached == asked and self._saved["finished"])

    def start(self, stage, model):
        """Restores the optimizer of a stage that was stopped half-way.

        Args:
            stage: The stage that begins.
            model: The model, compiled for it.

        Returns:
            The epoch to go on at.

        Raises:
            ValueError: If the checkpoint is of an optimizer of another kind.
        """
        self._stage = stage
        self._sigmas = []
        saved, self._saved = self._saved, None
        if saved is None or saved["stage"] != stage:
            return 0
        self._sigmas = saved["sigmas"]
        variables = model.optimizer.variables
        if len(variables) != len(saved["optimizer"]):
            raise ValueError(
                f"{os.fspath(self._path)}: expected the state of an optimizer of "
                f"{len(variables)} variables, got {len(saved['optimizer'])}: the checkpoint was "
                "made by another version; go on with that one, or use another folder"
            )
        self._assign(variables, saved["optimizer"])
        return saved["epoch"]

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        steps = self._settings["steps"][self._stage]
        self._rows.append(
            {
                "stage": self._stage,
                "epoch": epoch + 1,
                "step": min((epoch + 1) * self._settings["steps_per_epoch"], steps),
                **{name: float(value) for name, value in (logs or {}).items()},
                "seconds": time.monotonic() - self._began,
            }
        )
        settled = self._is_settled(epoch + 1)
        if settled:
            self.model.stop_training = True
        if self._path is not None and self._writes:
            self._write(epoch + 1, settled or epoch + 1 == self.params["epochs"])

    def _is_settled(self, epoch):
        window = self._settings["settle_steps"] // self._settings["steps_per_epoch"]
        if not window or not self.model.penalised:
            return False
        self._sigmas.append(trained_sigmas(self.model))
        self._sigmas = self._sigmas[-window - 1 :]
        losses = [row["loss"] for row in self._rows[-window:]]
        return epoch > window and has_settled(losses, self._sigmas)

    def _write(self, epoch, finished):
        arrays = {}
        for kind, variables in (
            ("model", self.model.variables),
            ("optimizer", self.model.optimizer.variables),
        ):
            for index, variable in enumerate(variables):
                arrays[f"{kind}/{index}"] = keras.ops.convert_to_numpy(variable)
        state = {
            "settings": self._settings,
            "stage": self._stage,
            "epoch": epoch,
            "finished": finished,
            "history": self._rows,
            "sigmas": self._sigmas,
        }
        arrays["state"] = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
        write_atomically(self._path, lambda file: np.savez(file, **arrays))

    def _read(self):
        try:
            with np.load(self._path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            state = json.loads(arrays.pop("state").tobytes())
        except Exception as error:
            raise ValueError(
                f"{os.fspath(self._path)}: expected a checkpoint of a training run, but it cannot "
                f"be read ({error}); remove it to start anew"
            ) from error
        for name, value in self._settings.items():
            if state["settings"].get(name) != value:
                raise ValueError(
                    f"{os.fspath(self._path)}: the checkpoint was made with another setting of "
                    f"{name!r}; use the same settings, or another folder"
                )
        for kind in ("model", "optimizer"):
            count = sum(name.startswith(f"{kind}/") for name in arrays)
            state[kind] = [arrays[f"{kind}/{index}"] for index in range(count)]
        return state

    @staticmethod
    def _assign(variables, values):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
