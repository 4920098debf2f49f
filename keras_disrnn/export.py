"""Fitted models as SavedModels, for programs that have TensorFlow and not this package."""

import os
import shutil
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from keras_disrnn import native


# Nothing native may be in the file: it is to run where this package is not.
@native.disabled()
def export(model, path):
    """Writes a model as a SavedModel with the endpoints `serve`, `step` and `initial_state`.

    - `serve(features)`: whole sessions, `(sessions, rows, observations)` float32, a row of NaN
      being padding. Gives a dict of `choice`, logits `(sessions, rows, arms)` of the choice after
      each row; `dopamine` `(sessions, rows, signals)`, if the model predicts it; and `latents`
      `(sessions, rows, latents)`.
    - `step(features, latents)`: one trial of each session, `(sessions, observations)` and the
      latents before it `(sessions, latents)`. Gives the same without the axis of rows; its
      `latents` go into the next call.
    - `initial_state(sessions)`: an int32 scalar. Gives the latents before the first row.

    The first row of a session is zeros (nothing has happened yet); each further row is the choice
    and the reward of the trial before. Nothing in the file is random: it predicts without noise.

    Args:
        model: A built `DisRNNModel`, or a baseline.
        path: The new folder.

    Raises:
        FileExistsError: If `path` exists. Nothing is ever overwritten.
        ValueError: If the model has no weights yet.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path}: exists already; exports never overwrite")
    if not model.built:
        raise ValueError("model: it has no weights yet; call it or fit it before the export")
    latents = model.initial_latents.shape[-1]

    def serve(features):
        values = model.latents(features)
        return {**model({"features": features, "latents": values}), "latents": values}

    def initial_state(sessions):
        return tf.broadcast_to(model.initial_latents, (sessions, latents))

    def spec(*shape, dtype=tf.float32, name):
        return tf.TensorSpec(shape, dtype, name=name)

    observations = model.observations
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, [spec(None, None, observations, name="features")])
    archive.add_endpoint(
        "step",
        model.step,
        [spec(None, observations, name="features"), spec(None, latents, name="latents")],
    )
    archive.add_endpoint("initial_state", initial_state, [spec(dtype=tf.int32, name="sessions")])

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        archive.write_out(partial, verbose=False)
        os.chmod(partial, 0o755)
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
