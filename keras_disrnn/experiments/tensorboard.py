"""Log the training of each stage to TensorBoard."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_disrnn.analysis.bottlenecks import compute_bottlenecks
from keras_disrnn.plots.bottlenecks import plot_bottlenecks
from keras_disrnn.training.stages import stage_of
from keras_disrnn.utils.files import check_writable


def check_tensorboard(folder: str | os.PathLike[str] | None) -> None:
    """Check that training can be logged to a folder.

    Args:
        folder: The folder, or `None`.

    Raises:
        OSError: If nothing can be written there.
        ValueError: If the package tensorboard is not installed.
    """
    if folder is None:
        return
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard: expected the package tensorboard to write logs, got none; install it "
            "with pip install tensorboard, or leave the setting out"
        )
    check_writable(folder)


def stage_boards(folder: str | os.PathLike[str] | None) -> list[StageBoard]:
    """Return the callbacks that log to a folder.

    Args:
        folder: The folder, or `None`.

    Returns:
        One `StageBoard`, or an empty list without a folder.
    """
    return [] if folder is None else [StageBoard(folder)]


class StageBoard(keras.callbacks.TensorBoard):
    """Keras' TensorBoard callback with a run for each stage and a figure of the bottlenecks.

    The runs are `STAGE/train` and `STAGE/validation` (scalars by epoch of the stage) and
    `STAGE/bottlenecks` (the figure after each epoch).

    Args:
        folder: The folder of the logs, for `tensorboard --logdir`.

    Example:

    >>> from keras_disrnn.experiments.tensorboard import StageBoard
    >>> callbacks = [StageBoard("logs")]
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder, write_graph=False)
        self._folder = Path(folder)

    def set_model(self, model: Any) -> None:
        self.log_dir = str(self._folder / stage_of(model))
        super().set_model(model)
        self._pictures = tf.summary.create_file_writer(f"{self.log_dir}/bottlenecks")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        file = io.BytesIO()
        plot_bottlenecks(compute_bottlenecks(self.model)).savefig(file, format="png", dpi=80)
        picture = tf.io.decode_png(file.getvalue())
        with self._pictures.as_default():
            tf.summary.image("bottlenecks", picture[None], step=epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._pictures.close()
