"""TensorBoard: how a training goes, stage by stage."""

import io
from pathlib import Path

import keras
import tensorflow as tf

from keras_disrnn.analysis.bottlenecks import compute_bottlenecks
from keras_disrnn.plots.bottlenecks import plot_bottlenecks
from keras_disrnn.training.stages import stage_of


def stage_boards(folder):
    """Returns the callbacks that log to `folder`: one `StageBoard`, or none if it is `None`."""
    return [] if folder is None else [StageBoard(folder)]


class StageBoard(keras.callbacks.TensorBoard):
    """Keras' TensorBoard callback, with a run for each stage and a picture of the bottlenecks.

    Runs are `STAGE/train`, `STAGE/validation` (scalars by epoch, counted within the stage) and
    `STAGE/bottlenecks` (the figure after each epoch).

    Args:
        folder: The folder of the logs, for `tensorboard --logdir`.
    """

    def __init__(self, folder):
        super().__init__(folder, write_graph=False)
        self._folder = Path(folder)

    def set_model(self, model):
        self.log_dir = str(self._folder / stage_of(model))
        super().set_model(model)
        self._pictures = tf.summary.create_file_writer(f"{self.log_dir}/bottlenecks")

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        file = io.BytesIO()
        plot_bottlenecks(compute_bottlenecks(self.model)).savefig(file, format="png", dpi=80)
        picture = tf.io.decode_png(file.getvalue())
        with self._pictures.as_default():
            tf.summary.image("bottlenecks", picture[None], step=epoch)

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self._pictures.close()
