"""Courses of training: what `train` takes where nothing is given, and the decay at the end."""

import keras
import numpy as np
import pandas as pd
import pytest
import yaml

import keras_disrnn
from keras_disrnn import bandit, train
from keras_disrnn.cli import main
from keras_disrnn.data import Columns, Sessions, sessions_from_table
from keras_disrnn.experiments.settings import TrainingSettings
from keras_disrnn.training.courses import COURSES, choose_batch_size

pytestmark = pytest.mark.filterwarnings("ignore::keras_disrnn.training.verdict.FitWarning")

SHORT = {"warmup_steps": 2, "stage1_steps": 20, "stage2_steps": 8, "steps_per_epoch": 2}
STANDARD = {"course": "standard", "verbose": 0, **SHORT}


@pytest.fixture(scope="module")
def sessions():
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=40, num_trials=15, seed=3
    )
    return sessions_from_table(played.to_table(), Columns(dopamine="dopamine"))


def make_model(**arguments):
    return keras_disrnn.DisRNNModel(
        num_latents=2, update_units=3, num_update_layers=1, seed=1, **arguments
    )


class Watch(keras.callbacks.Callback):
    """Records the learning rate, the size and the stage of every call of the training step."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.rates, self._stop_at = [], stop_at

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append((self.model.penalised, float(self.model.optimizer.learning_rate)))
        if len(self.rates) == self._stop_at:
            raise KeyboardInterrupt


def test_the_learning_rate_decays_at_the_end_of_each_stage_with_penalties(sessions):
    watch = Watch()
    settings = {**STANDARD, "settle_steps": 0, "decay_steps": 6}
    train(make_model(), sessions, callbacks=[watch], **settings)
    # Two steps run between two calls. Stage 2 decays over at most half of its steps.
    warmup, stage1, stage2 = np.split(np.array([rate for _, rate in watch.rates]), [1, 11])
    rate = COURSES["standard"].learning_rate
    np.testing.assert_allclose(warmup, rate)
    np.testing.assert_allclose(stage1, [rate] * 8 + [rate * 4 / 6, rate * 2 / 6], rtol=1e-6)
    np.testing.assert_allclose(stage2, [rate] * 3 + [rate * 2 / 4], rtol=1e-6)


def test_a_stage_that_settles_early_decays_then(sessions):
    watch = Watch()
    settings = {**STANDARD, "stage1_steps": 80, "stage2_steps": 0, "learning_rate": 1e-12}
    history = train(
        make_model(), sessions, callbacks=[watch], settle_steps=8, decay_steps=4, **settings
    )
    taken = history.groupby("stage")["step"].max()["stage1"]
    assert 12 < taken < 80
    rates = [rate for penalised, rate in watch.rates if penalised]
    np.testing.assert_allclose(rates[-3:], [1e-12, 1e-12, 5e-13], rtol=1e-6)
    assert len(rates) == taken // 2


@pytest.mark.parametrize("stop_at", [6, 10])
def test_an_interruption_before_or_in_the_decay_does_not_change_the_weights(
    sessions, tmp_path, stop_at
):
    settings = {**STANDARD, "decay_steps": 6, "settle_steps": 0, "batch_size": 16}
    whole = make_model()
    history = train(whole, sessions, **settings)
    settings["checkpoint"] = tmp_path / "checkpoint.npz"
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), sessions, callbacks=[Watch(stop_at)], **settings)
    resumed = make_model()
    again = train(resumed, sessions, **settings)
    assert again["loss"].tolist() == history["loss"].tolist()
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_given_argument_replaces_that_of_the_course():
    standard = TrainingSettings(course="standard", stage2_steps=0, learning_rate=2e-3).completed()
    assert standard.stage1_steps == COURSES["standard"].stage1_steps
    assert (standard.stage2_steps, standard.learning_rate) == (0, 2e-3)
    assert TrainingSettings().course == "standard"
    reference = TrainingSettings(course="reference").completed()
    assert reference.decay_steps == 0 and reference.learning_rate == 1e-3
    # A course fits its window to the epochs.
    longer = TrainingSettings(course="standard", steps_per_epoch=100).completed()
    assert longer.settle_steps == 400


def test_a_run_takes_the_course_of_the_flags_and_records_its_numbers(tmp_path):
    flags = ["--data.num_sessions=4", "--data.num_held_out_sessions=2", "--data.num_trials=10"]
    flags += ["--training.stage1_steps=50"]
    flags += ["--training.stage2_steps=0", "--model.num_latents=1", "--model.update_units=2"]
    assert main(["demo", f"--out={tmp_path / 'run'}", *flags]) == 0
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history.groupby("stage")["step"].max().to_dict() == {"warmup": 200, "stage1": 50}
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]
    course = COURSES["standard"]
    for name in ("warmup_steps", "learning_rate", "decay_steps", "settle_steps"):
        assert recorded[name] == getattr(course, name)
    assert recorded["stage1_steps"] == 50


@pytest.mark.parametrize(
    ("num_sessions", "num_trials", "size"),
    [(300, 200, 64), (60, 200, None), (2000, 50, 256), (1000, 5000, 16), (10, 5000, None)],
)
def test_a_batch_of_the_standard_course_has_as_many_trials_for_short_and_long_sessions(
    num_sessions, num_trials, size
):
    assert COURSES["standard"].batch_size(num_sessions, num_trials) == size
    assert COURSES["reference"].batch_size(num_sessions, num_trials) is None


def test_a_given_size_of_a_batch_replaces_that_of_the_course():
    many = Sessions.from_trials(choice=[[0, 1]] * 20_000, reward=[[1, 0]] * 20_000)
    sizes = {size: choose_batch_size(many, size, course="standard") for size in (None, "all", 5)}
    assert sizes == {None: 6400, "all": None, 5: 5}
    assert choose_batch_size(many, None, course="reference") is None


def test_all_sessions_can_be_asked_for(sessions):
    settings = {"course": "standard", "verbose": 0, "warmup_steps": 2, "stage2_steps": 0}
    settings |= {"stage1_steps": 2, "steps_per_epoch": 2, "decay_steps": 0, "learning_rate": 1e-3}
    whole, same, small = make_model(), make_model(), make_model()
    train(whole, sessions, batch_size="all", **settings)
    train(same, sessions, **{**settings, "course": "reference"})
    train(small, sessions, batch_size=8, **settings)
    for one, other in zip(whole.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(map(np.any, map(np.subtract, whole.get_weights(), small.get_weights())))


def test_the_courses_optimizer_may_be_replaced(sessions):
    # An optimizer object keeps its own rate, and it decays too.
    optimizer, watch = keras.optimizers.SGD(0.05), Watch()
    train(make_model(), sessions, optimizer=optimizer, callbacks=[watch], decay_steps=4, **STANDARD)
    assert watch.rates[0][1] == pytest.approx(0.05) and watch.rates[-1][1] == pytest.approx(0.025)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.5)
    watch = Watch()
    train(make_model(), sessions, learning_rate=schedule, callbacks=[watch], **STANDARD)
    assert watch.rates[1][1] == pytest.approx(0.01) and watch.rates[2][1] < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"course": "fast"}, "course: expected one of .'reference', 'standard'., got 'fast'"),
        ({"decay_steps": -1}, "decay_steps: expected a whole number of at least 0, got -1"),
        ({"batch_size": "every"}, "batch_size: expected a whole number .* got 'every'"),
        (
            {
                "decay_steps": 5,
                "learning_rate": keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.5),
            },
            "decay_steps: expected 0, because the learning rate is a schedule, got 5",
        ),
    ],
)
def test_wrong_settings_of_a_course_are_named_before_training(sessions, changes, message):
    model = make_model()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        train(model, sessions, **{**STANDARD, **changes})
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_take_all_sessions_by_name(sessions):
    (features, _, _), *others = sessions.dataset("all")
    assert features.shape[0] == sessions.num_sessions and not others
