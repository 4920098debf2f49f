"""Models of one shape share their traced steps, and the numbers do not show it."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest

import keras_disrnn
from keras_disrnn.data import Sessions
from keras_disrnn.models import shared_steps
from keras_disrnn.models.shared_steps import clear_shared_steps, count_traces


def make_sessions(count, seed, trials=20):
    draws = np.random.default_rng(seed)
    choice, reward = draws.integers(0, 2, (2, count, trials))
    return Sessions.from_trials(
        choice, reward, dopamine=reward + draws.normal(size=(count, trials)), num_arms=2
    )


TRAIN, HELD_OUT = make_sessions(20, 0), make_sessions(7, 1)


def make_model(seed, **arguments):
    return keras_disrnn.DisRNNModel(num_latents=2, update_units=4, seed=seed, **arguments)


def fit(model, seed=0, train=TRAIN, **settings):
    counts = {"warmup_steps": 4, "stage1_steps": 4, "stage2_steps": 4, "joint_steps": 4}
    history = keras_disrnn.train(
        model,
        train,
        HELD_OUT,
        **{**counts, "steps_per_epoch": 2, "batch_size": 8, "seed": seed, "verbose": 0, **settings},
    )
    return history.drop(columns="seconds")


def state(model):
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def check_same(model, other):
    for one, another in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(one, another)


pytestmark = pytest.mark.filterwarnings("ignore::keras_disrnn.training.verdict.FitWarning")


class TestSharing:
    def test_next_fit_of_a_shape_traces_nothing_and_a_fit_alone_gives_the_same(self, monkeypatch):
        clear_shared_steps()
        fit(make_model(7, latent_penalty=0.1), seed=3, learning_rate=1e-2)
        traced = count_traces()
        assert traced > 0
        second = make_model(1)
        history, predicted = fit(second), second.predict(HELD_OUT.dataset(), verbose=0)
        assert count_traces() == traced + 1  # The prediction.
        third = make_model(2)
        third_history = fit(third)
        third.predict(HELD_OUT.dataset(), verbose=0)
        assert count_traces() == traced + 1

        monkeypatch.setattr(shared_steps, "_runs_alone", lambda model: True)
        for seed, shared, rows in ((1, second, history), (2, third, third_history)):
            own = make_model(seed)
            own_rows = fit(own)
            assert own_rows.equals(rows)
            check_same(own, shared)
            assert own.trained == shared.trained
            assert own.frozen == shared.frozen
        own = make_model(1)
        fit(own)
        for name, values in own.predict(HELD_OUT.dataset(), verbose=0).items():
            np.testing.assert_array_equal(values, predicted[name])
        assert count_traces() == traced + 1

    def test_noise_is_that_of_the_models_own_seed(self):
        rows = [fit(make_model(seed), stage2_steps=0, joint_steps=0) for seed in (0, 1, 0)]
        assert rows[0].equals(rows[2])
        assert not rows[0]["loss"].equals(rows[1]["loss"])

    def test_fits_in_threads_share_steps_and_do_not_mix(self):
        clear_shared_steps()
        expected = [make_model(seed) for seed in range(3)]
        for model in expected:
            fit(model)
        traced = count_traces()
        models = [make_model(seed) for seed in range(3)]
        threads = [threading.Thread(target=fit, args=(model,)) for model in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for model, other in zip(models, expected, strict=True):
            check_same(model, other)
        assert count_traces() == traced

    def test_a_step_does_not_keep_the_model_that_traced_it(self):
        clear_shared_steps()
        model = make_model(0)
        fit(model)
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None
        fit(make_model(1))

    def test_clear_session_leaves_the_steps_in_order(self):
        first = make_model(0)
        fit(first)
        keras.backend.clear_session()
        second = make_model(0)
        fit(second)
        check_same(first, second)

    def test_evaluation_of_another_model_traces_nothing(self):
        clear_shared_steps()
        scores = []
        for seed in (0, 1):
            model = make_model(seed)
            keras_disrnn.compile_stage(model, "joint")
            scores.append(model.evaluate(HELD_OUT.dataset(), verbose=0, return_dict=True))
            assert count_traces() == 1
        assert scores[0].keys() == scores[1].keys()
        assert scores[0] != scores[1]


class TestNoSharing:
    def same_step(self, *models):
        keys = [model.step_key("train") for model in models]
        return keys[0] is not None and all(key == keys[0] for key in keys)

    def compiled(self, seed=0, stage="stage1", settings=None, **arguments):
        model = make_model(seed, **arguments)
        keras_disrnn.compile_stage(model, stage, **(settings or {}))
        return model

    def test_seed_penalties_and_learning_rate_are_no_constants(self):
        other = self.compiled(3, settings={"learning_rate": 1e-2}, latent_penalty=1.0, name="n")
        warmup = self.compiled(stage="warmup")
        assert self.same_step(self.compiled(), other, warmup)

    @pytest.mark.parametrize(
        "changes",
        [
            {"stage": "stage2"},
            {"stage": "joint"},
            {"update_layers": 2},
            {"activation": "tanh"},
            {"dopamine_timing": "post"},
            {"max_latent_value": 3.0},
            {"implementation": "keras"},
            {"dtype": "float64"},
            {"settings": {"clip_norm": 2.0}},
            {"settings": {"optimizer": "adam"}},
            {"settings": {"optimizer": keras.optimizers.SGD(0.1, momentum=0.5)}},
            {"settings": {"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 10)}},
        ],
    )
    def test_another_constant_is_another_step(self, changes):
        changes = dict(changes)
        if "update_layers" in changes:
            changes["num_update_layers"] = changes.pop("update_layers")
        assert not self.same_step(self.compiled(), self.compiled(**changes))

    def test_choice_weight_is_a_constant_of_the_joint_stage(self):
        models = [
            self.compiled(stage="joint", settings={"choice_weight": weight})
            for weight in (0.5, 0.9)
        ]
        assert not self.same_step(*models)

    def test_a_frozen_layer_is_another_step(self):
        model = self.compiled()
        model.core.cell.latent_bottleneck.trainable = False
        assert not self.same_step(self.compiled(), model)

    def test_a_model_compiled_by_hand_shares_no_training(self):
        model = self.compiled()
        model.compile(model.optimizer, loss=model.loss)
        assert model.step_key("train") is None
        assert model.step_key("predict") is not None

    def test_a_compile_argument_that_may_hold_a_state_shares_no_training(self):
        model = self.compiled(settings={"metrics": {"choice": [keras.metrics.Mean()]}})
        assert model.step_key("train") is None

    def test_a_subclass_shares_nothing(self):
        class Own(keras_disrnn.DisRNNModel):
            pass

        model = Own(num_latents=2, seed=0)
        keras_disrnn.compile_stage(model, "stage1")
        assert model.step_key("train") is None
        assert model.step_key("predict") is None

    def test_a_method_as_an_attribute_shares_nothing(self):
        clear_shared_steps()
        model = self.compiled()
        plain, calls = model.train_step, []

        def train_step(data):
            calls.append(1)
            return plain(data)

        model.train_step = train_step
        model.fit(TRAIN.dataset(), verbose=0)
        assert calls
        assert count_traces() == 0

    def test_a_step_that_reads_other_variables_is_not_shared(self, monkeypatch):
        clear_shared_steps()
        hidden = keras.Variable(0.0, name="hidden")
        plain = keras_disrnn.DisRNNModel.train_step

        def train_step(self, data):
            hidden.assign_add(1.0)
            return plain(self, data)

        monkeypatch.setattr(keras_disrnn.DisRNNModel, "train_step", train_step)
        for count in (1, 2):
            self.compiled().fit(TRAIN.dataset(), verbose=0)
            assert float(hidden) == count
        clear_shared_steps()

    def test_a_batch_of_another_shape_does_not_change_the_numbers(self):
        clear_shared_steps()
        first = make_model(0)
        fit(first)
        fit(make_model(1), train=make_sessions(30, 5, trials=9), batch_size=7)
        second = make_model(0)
        fit(second)
        check_same(first, second)
