"""Training that ends early when it has settled, and its logs in TensorBoard."""

import functools

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import keras_disrnn
from keras_disrnn import bandit
from keras_disrnn.data import Columns, sessions_from_table
from keras_disrnn.experiments.run import run
from keras_disrnn.experiments.settings import ModelSettings, SyntheticData, TrainingSettings
from keras_disrnn.training.courses import COURSES
from keras_disrnn.training.fit import train
from keras_disrnn.training.settling import has_settled

SETTLE = {"warmup_steps": 12, "stage1_steps": 12, "stage2_steps": 12, "steps_per_epoch": 2}


@pytest.fixture(scope="module")
def sessions():
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=12, num_trials=15, seed=3
    )
    return sessions_from_table(played.to_table(), Columns(dopamine="dopamine"))


def make_model():
    model = keras_disrnn.DisRNNModel(num_latents=2, update_units=3, num_update_layers=1, seed=1)
    return model


def test_training_has_settled_if_neither_the_loss_nor_a_bottleneck_changes():
    still, loss, sigma = np.full((5, 3), 0.4), 1e-4, 0.02
    settled = functools.partial(has_settled, settle_loss=loss, settle_sigma=sigma)
    assert settled([1.0, 1.0, 1.0, 1.0], still)
    assert settled([1.0, 1.1, 1.2, 1.3], still), "a rising loss does not improve"
    assert not settled([1.0, 1.0, 1.0, 1.0 - 3 * loss], still)
    assert settled([1.0, 1.0, 1.0, 1.0 - loss], still)
    moved = still.copy()
    moved[0, 1] += 2 * sigma
    assert not settled([1.0] * 4, moved)
    # A noise level that changes and returns has not settled either.
    moved = still.copy()
    moved[2, 1] -= 2 * sigma
    assert not settled([1.0] * 4, moved)
    assert settled([1.0] * 4, np.zeros((5, 0)))


class Stop(keras.callbacks.Callback):
    """Interrupts training at the end of an epoch of stage 1."""

    def __init__(self, epoch):
        super().__init__()
        self._epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if self.model.penalised and epoch == self._epoch:
            raise KeyboardInterrupt


def test_an_interruption_does_not_change_where_a_settled_stage_ends(sessions, tmp_path):
    """The learning rate is so small that the loss only varies with the noise."""
    settings = {**SETTLE, "stage1_steps": 40, "stage2_steps": 0, "settle_steps": 8, "verbose": 0}
    settings["learning_rate"] = 1e-12
    whole = make_model()
    history = train(whole, sessions, **settings)
    taken = history.groupby("stage")["step"].max()
    assert taken["warmup"] == 12, "the warm-up has no penalties, so it never ends early"
    assert 8 < taken["stage1"] < 40
    settings["checkpoint"] = tmp_path / "a.npz"
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), sessions, **settings, callbacks=[Stop(2)])
    resumed = make_model()
    again = train(resumed, sessions, **settings)
    assert again["loss"].tolist() == history["loss"].tolist()
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    again = train(make_model(), sessions, **settings)
    assert len(again) == len(history), "a stage that ended early is finished"


@pytest.mark.parametrize(("epoch", "window"), [(2, 500), (30, 510), (100, 500), (200, 800)])
def test_the_default_window_has_whole_epochs(epoch, window):
    assert COURSES["reference"].settle_window(epoch) == window


@pytest.mark.parametrize("settle_steps", [7, 6, 9])
def test_an_impossible_window_is_refused(sessions, settle_steps):
    with pytest.raises(ValueError, match="settle_steps: expected 0, or a multiple of"):
        train(make_model(), sessions, settle_steps=settle_steps, **SETTLE)


def events(folder):
    """Read the event files in a folder, as a dict of tag to values by step."""
    found = {}
    for file in sorted(folder.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor)
    return found


def test_tensorboard_and_the_report_show_how_many_steps_were_saved(tmp_path):
    logs, out = tmp_path / "logs", tmp_path / "run"
    training = TrainingSettings(
        warmup_steps=0, stage1_steps=40, stage2_steps=0, steps_per_epoch=2, settle_steps=8,
        learning_rate=1e-12, tensorboard=str(logs),
    )  # fmt: skip
    shape = ModelSettings(num_latents=2, update_units=3, num_update_layers=1, num_choice_layers=1)
    metrics = run(
        "demo", out, data=SyntheticData(8, 4, 12), model=shape, training=training, seed=0,
        full=False,
    )  # fmt: skip
    history = pd.read_csv(out / "history.csv")
    taken = int(history["step"].max())
    assert 8 < taken < 40
    assert metrics["steps"] == {"stage1": {"asked": 40, "taken": taken}}
    page = " ".join((out / "report.html").read_text().split())
    saved = f"{100 - 100 * taken / 40:.0f} % saved"
    assert f"stage1 settled after {taken} of 40 steps and ended early ({saved})" in page
    stage = logs / "stage1"
    assert {path.name for path in stage.iterdir()} == {"train", "validation", "bottlenecks"}
    for part, column in (("train", "loss"), ("validation", "val_loss")):
        logged = events(stage / part)["epoch_loss"]
        np.testing.assert_allclose([logged[step] for step in sorted(logged)], history[column], 1e-6)
    pictures = events(stage / "bottlenecks")["bottlenecks"]
    assert sorted(pictures) == list(range(len(history)))
    picture = tf.io.decode_png(pictures[0][2]).numpy()
    assert picture.ndim == 3 and picture[..., :3].std() > 0
