"""Callbacks that keep training safe: checkpoints and divergence."""

import json
import os
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from keras_disrnn.training.settling import has_settled, trained_sigmas
from keras_disrnn.training.stages import STAGES
from keras_disrnn.utils.state import load_state, save_state


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
        state = {
            "settings": self._settings,
            "stage": self._stage,
            "epoch": epoch,
            "finished": finished,
            "history": self._rows,
            "sigmas": self._sigmas,
            "model": [keras.ops.convert_to_numpy(v) for v in self.model.variables],
            "optimizer": [keras.ops.convert_to_numpy(v) for v in self.model.optimizer.variables],
        }
        save_state(self._path, state)

    def _read(self):
        state = load_state(self._path, "a checkpoint of a training run")
        for name, value in self._settings.items():
            if state["settings"].get(name) != value:
                raise ValueError(
                    f"{os.fspath(self._path)}: the checkpoint was made with another setting of "
                    f"{name!r}; use the same settings, or another folder"
                )
        return state

    @staticmethod
    def _assign(variables, values):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
