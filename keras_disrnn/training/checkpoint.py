"""Callbacks for the safety of training: checkpoints, and a stop if the loss diverges."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_disrnn.data import Sessions
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.models.finite import find_bad_weight
from keras_disrnn.training.divergence import name_cause
from keras_disrnn.training.plan import steps_together
from keras_disrnn.training.settling import has_settled, trained_sigmas
from keras_disrnn.training.stages import STAGES
from keras_disrnn.utils.state import load_state, save_state
from keras_disrnn.version import __version__

LEAST_RATE = 0.01
"""The learning rate at the end of a decay, as a part of that at its begin."""


class TrainingDiverged(FloatingPointError):
    """The loss or a weight is no longer finite."""


class StopOnNaN(keras.callbacks.Callback):
    """Stops `fit` with `TrainingDiverged` if the loss is not finite, and restores the weights.

    The weights are those of the end of the last epoch with a finite loss, or of the start. The
    error names the step, the value that is no longer finite, and what to change.

    Args:
        sessions: The training sessions, in which extreme values are looked for. Optional.

    Example:
        >>> import keras_disrnn
        >>> from keras_disrnn.data import Sessions
        >>> from keras_disrnn.training.checkpoint import StopOnNaN
        >>> sessions = Sessions.from_trials(choice=[[0, 1, 1]], reward=[[1, 0, 1]])
        >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=0)
        >>> keras_disrnn.compile_stage(model, "warmup")
        >>> history = model.fit(sessions.dataset(), callbacks=[StopOnNaN()], verbose=0)
    """

    def __init__(self, sessions: Sessions | None = None) -> None:
        super().__init__()
        self._sessions = sessions

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._good = self.model.get_weights()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            self.model.set_weights(self._good)
            raise TrainingDiverged(
                f"loss: expected a finite number, got {float(loss)} by step {batch + 1} of epoch "
                f"{self._epoch + 1}; {name_cause(self.model, logs or {}, self._sessions)}. The "
                "model has the weights of the last good epoch"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        weights = self.model.get_weights()
        if not all(np.isfinite(weight).all() for weight in weights):
            name = find_bad_weight(self.model)
            self.model.set_weights(self._good)
            raise TrainingDiverged(
                f"weights: expected finite numbers, got {name} that is no longer finite at the end "
                f"of epoch {epoch + 1}; {name_cause(self.model, logs or {}, self._sessions)}. The "
                "model has the weights of the last good epoch"
            )
        self._good = weights


@dataclasses.dataclass
class Decay:
    """The decay of the learning rate at the end of a stage.

    Args:
        begin: The step at which it begins.
        steps: Its number of steps; 0 for no decay.
        rate: The learning rate at its begin, if it has begun.
    """

    begin: int = 0
    steps: int = 0
    rate: float | None = None

    def apply(self, optimizer: keras.optimizers.Optimizer, step: int) -> None:
        """Set the learning rate of a step.

        Args:
            optimizer: The optimizer. Its learning rate is a number.
            step: The step within the stage, counted from 0.
        """
        if not self.steps or step < self.begin:
            return
        if self.rate is None:
            # Under a strategy it is a variable with a part on each replica.
            self.rate = float(optimizer.learning_rate.numpy())
        left = 1.0 - (step - self.begin) / self.steps
        optimizer.learning_rate = self.rate * max(left, LEAST_RATE)


class Progress(keras.callbacks.Callback):
    """Keeps the history of all stages and, with a file, the state from which training resumes.

    The state is everything that the next step depends on: the weights, the optimizer, the random
    generators, the stage and the epoch. It is written after each epoch, atomically.

    Args:
        path: The checkpoint file, or `None` to keep the history in memory only.
        settings: What the training depends on, in JSON's types: `model`, the configuration of the
            model; `steps`, the steps of each stage; `steps_per_epoch`; `settle_steps`,
            `settle_loss` and `settle_sigma`; `decay_steps`; and any others. A checkpoint with other
            settings is refused.
        writes: Whether to write the file. Of several workers only the first one writes.

    Raises:
        ValueError: If the file is not a checkpoint, or is one of other settings or another version.
    """

    def __init__(
        self, path: str | os.PathLike | None, *, settings: dict[str, Any], writes: bool = True
    ) -> None:
        super().__init__()
        self._path = None if path is None else Path(path)
        self._writes = writes
        self._settings = json.loads(json.dumps(settings))
        # The stages change what is frozen and trained, and a name has no effect on the numbers.
        for name in ("frozen", "trained", "name"):
            self._settings["model"].pop(name)
        self._rows: list[dict[str, Any]] = []
        self._sigmas: list[list[float]] = []
        self._decay = Decay()
        self._saved: dict[str, Any] | None = None
        if self._path is not None and self._path.exists():
            self._saved = self._read(self._path)
            self._rows = self._saved["history"]

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: stage, epoch and step (of that stage, from 1), metrics, seconds."""
        return pd.DataFrame(self._rows)

    def restore(self, model: DisRNNModel) -> None:
        """Assign the saved weights and random states to a model, if there is a checkpoint.

        Args:
            model: The model.
        """
        if self._saved is not None:
            self._assign(model.variables, self._saved["model"])
            for stage in {row["stage"] for row in self._rows}:
                model.mark_trained(STAGES[stage].trains)

    def has_finished(self, stage: str, with_last: bool = True) -> bool:
        """Return whether the stage is finished according to the checkpoint.

        Args:
            stage: A name of `STAGES`.
            with_last: Whether the stage that was trained last counts too.
        """
        if self._saved is None:
            return False
        names = list(STAGES)
        reached, asked = names.index(self._saved["stage"]), names.index(stage)
        return reached > asked or (with_last and reached == asked and self._saved["finished"])

    def start(self, stage: str, model: DisRNNModel) -> int:
        """Begin a stage. Restore its optimizer if the stage was interrupted.

        Args:
            stage: The stage that begins.
            model: The model, compiled for it.

        Returns:
            The first epoch to train, counted from 0.

        Raises:
            ValueError: If the checkpoint has the state of another optimizer.
        """
        self._stage = stage
        self._sigmas = []
        count = self._settings["steps"][stage]
        steps = min(self._settings["decay_steps"], count // 2) if model.penalised else 0
        self._decay = Decay(begin=count - steps, steps=steps)
        saved, self._saved = self._saved, None
        if saved is None or saved["stage"] != stage:
            return 0
        self._sigmas = saved["sigmas"]
        self._decay = Decay(**saved["decay"])
        variables = model.optimizer.variables
        shapes = [tuple(variable.shape) for variable in variables]
        if shapes != [value.shape for value in saved["optimizer"]]:
            raise ValueError(
                f"{self._path}: expected the state of the optimizer "
                f"{type(model.optimizer).__name__}, {len(shapes)} variables, got a state of "
                f"{len(saved['optimizer'])} variables or of other shapes; use another folder"
            )
        self._assign(variables, saved["optimizer"])
        return saved["epoch"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.monotonic()
        self._first_step = epoch * self._settings["steps_per_epoch"]

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # A replica takes one step at a time. The rate still changes as without a strategy.
        steps = min(self._settings["steps_per_epoch"], self._settings["steps"][self._stage])
        first = batch - batch % steps_together(steps)
        self._decay.apply(self.model.optimizer, self._first_step + first)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
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
        step = self._first_step + self._settings["steps_per_epoch"]
        if step < self._decay.begin and self._is_settled(epoch + 1):
            self._decay = dataclasses.replace(self._decay, begin=step)
        settled = step >= self._decay.begin + self._decay.steps
        if settled:
            self.model.stop_training = True
        if self._path is not None and self._writes:
            self._write(self._path, epoch + 1, settled or epoch + 1 == self.params["epochs"])

    def end_stage(self) -> None:
        """Keep the end of a stage, after all callbacks have had their say.

        A callback may end a stage early, and may restore earlier weights when it ends.
        """
        if self._path is not None and self._writes and self._rows:
            self._write(self._path, self._rows[-1]["epoch"], True)

    def _is_settled(self, epoch: int) -> bool:
        window = self._settings["settle_steps"] // self._settings["steps_per_epoch"]
        if not window or not self.model.penalised:
            return False
        self._sigmas.append(trained_sigmas(self.model))
        self._sigmas = self._sigmas[-window - 1 :]
        losses = [row["loss"] for row in self._rows[-window:]]
        limits = {name: self._settings[name] for name in ("settle_loss", "settle_sigma")}
        return epoch > window and has_settled(losses, self._sigmas, **limits)

    def _write(self, path: Path, epoch: int, finished: bool) -> None:
        state = {
            "version": __version__,
            "settings": self._settings,
            "stage": self._stage,
            "epoch": epoch,
            "finished": finished,
            "history": self._rows,
            "sigmas": self._sigmas,
            "decay": dataclasses.asdict(self._decay),
            "model": [keras.ops.convert_to_numpy(v) for v in self.model.variables],
            "optimizer": [keras.ops.convert_to_numpy(v) for v in self.model.optimizer.variables],
        }
        save_state(path, state)

    def _read(self, path: Path) -> dict[str, Any]:
        state = load_state(path, "a checkpoint of a training run")
        version = state.get("version")
        if version != __version__:
            raise ValueError(
                f"{path}: expected a checkpoint of keras_disrnn {__version__}, got one of version "
                f"{version}; resume it with that version, or use another folder"
            )
        different = _first_difference(self._settings, state["settings"])
        if different:
            raise ValueError(
                f"{path}: expected a checkpoint of the same settings, got one with another setting "
                f"of {different!r}; use the same settings, or another folder"
            )
        return state

    @staticmethod
    def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _first_difference(settings: dict[str, Any], saved: dict[str, Any]) -> str | None:
    """Return the dotted name of the first setting that differs, or `None`."""
    for name in {**settings, **saved}:
        mine, theirs = settings.get(name), saved.get(name)
        if mine == theirs:
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            return f"{name}.{_first_difference(mine, theirs)}"
        return name
    return None
