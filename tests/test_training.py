"""The stages of training: what they change, checkpoints, divergence."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_disrnn
from keras_disrnn import bandit
from keras_disrnn.data import Columns, Sessions, sessions_from_table
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.models.shared_steps import clear_shared_steps
from keras_disrnn.training.checkpoint import StopOnNaN, TrainingDiverged
from keras_disrnn.training.fit import train, with_latents
from keras_disrnn.training.stages import compile_stage


def make_sessions(sessions=24, trials=20, seed=3):
    played = bandit.simulate(
        bandit.QLearning(),
        bandit.DriftingBandit(),
        num_sessions=sessions,
        num_trials=trials,
        seed=seed,
    )
    return sessions_from_table(played.to_table(), Columns(dopamine="dopamine"))


@pytest.fixture(scope="module")
def sessions():
    return make_sessions()


def make_model(**arguments):
    return keras_disrnn.DisRNNModel(
        **{"num_latents": 3, "update_units": 4, "num_update_layers": 1, "seed": 1, **arguments}
    )


def weights_of(model):
    return {weight.path.split("/", 1)[1]: weight.numpy() for weight in model.weights}


def fit_stage(model, stage, data, steps=3, **arguments):
    compile_stage(model, stage, **arguments)
    return model.fit(data.dataset(steps=steps), epochs=1, verbose=0, shuffle=False)


MOVES = {
    "warmup": {"core", "choice_readout"},
    "stage1": {"core", "choice_readout"},
    "stage2": {"dopamine_readout"},
    "joint": {"core", "choice_readout", "dopamine_readout"},
}


@pytest.mark.parametrize("stage", MOVES)
def test_each_stage_changes_its_own_parts_and_nothing_else(sessions, stage):
    model = make_model()
    before = weights_of(model)
    fit_stage(model, stage, sessions, learning_rate=1e-2)
    moved = {
        name.split("/")[0]
        for name, weight in weights_of(model).items()
        if not np.array_equal(weight, before[name])
    }
    assert moved == MOVES[stage]


def test_warmup_has_neither_noise_nor_penalties(sessions):
    model = make_model()
    before = weights_of(model)
    history = fit_stage(model, "warmup", sessions).history
    penalties = {name: values for name, values in history.items() if name.startswith("penalty")}
    assert set(penalties) >= {"penalty_latent", "penalty_choice", "penalty_l2"}
    assert not np.any(list(penalties.values()))
    for name, weight in weights_of(model).items():
        if "sigma" in name:
            np.testing.assert_array_equal(weight, before[name])
    losses = []
    for _ in range(2):
        again = make_model()
        compile_stage(again, "warmup", learning_rate=0.0)
        losses.append(
            again.fit(sessions.dataset(steps=2), verbose=0, shuffle=False).history["loss"]
        )
    assert losses[0] == losses[1]
    clean = again.evaluate(sessions.dataset(), return_dict=True, verbose=0)
    np.testing.assert_allclose(losses[0], clean["loss"], rtol=1e-6)


def count_traces(model, monkeypatch):
    """Return a list that grows whenever the forward pass is traced for training."""
    traces = []
    run = type(model)._run

    def counting(self, inputs, training):
        if training:
            traces.append(inputs)
        return run(self, inputs, training)

    monkeypatch.setattr(type(model), "_run", counting)
    return traces


def test_stage1_reuses_the_step_that_the_warmup_traced(sessions, monkeypatch):
    model, again = make_model(), make_model()
    clear_shared_steps()
    traces = count_traces(model, monkeypatch)
    fit_stage(model, "warmup", sessions, learning_rate=1e-2)
    count = len(traces)
    assert count > 0
    for _ in range(2):
        fit_stage(model, "stage1", sessions, learning_rate=1e-2)
    assert len(traces) == count
    assert model.optimizer.iterations.numpy() == 3

    fit_stage(again, "warmup", sessions, learning_rate=1e-2)
    for _ in range(2):
        again._stage = None  # so that the model is compiled again
        fit_stage(again, "stage1", sessions, learning_rate=1e-2)
    assert len(traces) == count
    for name, weight in weights_of(again).items():
        np.testing.assert_array_equal(weights_of(model)[name], weight, err_msg=name)

    # The traced step reads penalty weights and the learning rate. It depends on what is frozen.
    model.latent_penalty = 0.5
    once = model.evaluate(sessions.dataset(), verbose=0, return_dict=True)["penalty_latent"]
    model.latent_penalty = 1.0
    twice = model.evaluate(sessions.dataset(), verbose=0, return_dict=True)["penalty_latent"]
    assert twice == pytest.approx(2 * once, rel=1e-6)
    fit_stage(model, "stage1", sessions, learning_rate=1e-2)
    fit_stage(model, "stage1", sessions, learning_rate=1e-3)
    model.frozen = ["core"]
    fit_stage(model, "stage1", sessions, learning_rate=1e-3)
    assert model.frozen == ("dopamine_readout",)
    assert len(traces) == count
    fit_stage(model, "stage2", sessions, learning_rate=1e-3)
    assert len(traces) == 2 * count


@pytest.mark.parametrize("implementation", ["keras", "native"])
def test_noise_can_be_turned_off_without_compiling(sessions, implementation):
    model = make_model(implementation=implementation)
    compile_stage(model, "stage1", learning_rate=0.0)
    losses = []
    for noise in (True, True, False, False):
        model.noise = noise
        fitted = model.fit(sessions.dataset(steps=1), verbose=0, shuffle=False)
        losses.append(fitted.history["loss"][0])
    assert len(set(losses)) == 3
    clean = model.evaluate(sessions.dataset(), return_dict=True, verbose=0)["loss"]
    np.testing.assert_allclose(losses[2:], clean, rtol=1e-5)


@pytest.mark.slow
def test_a_step_compiled_by_xla_is_the_same(sessions):
    """A GPU runs Keras operations under `jit_compile`."""
    weights = []
    for jit in (False, True):
        model = make_model(implementation="keras")
        compile_stage(model, "joint", jit_compile=jit)
        model.noise = False
        model.fit(sessions.dataset(steps=3), verbose=0, shuffle=False)
        weights.append(weights_of(model))
    for name, weight in weights[0].items():
        np.testing.assert_allclose(weights[1][name], weight, atol=1e-4, err_msg=name)


def test_train_draws_batches_of_similar_length(monkeypatch):
    parts = [make_sessions(12, trials, seed).features for trials, seed in ((8, 1), (30, 2))]
    choice, reward = ([list(f[i, 1:, o]) for f in parts for i in range(12)] for o in (0, 1))
    sessions = Sessions.from_trials(choice, reward)
    seen = []
    dataset = Sessions.dataset

    def noting(self, *args, **kwargs):
        batches = dataset(self, *args, **kwargs)
        seen.extend(x.shape[1] for x, *_ in batches)
        return batches

    monkeypatch.setattr(Sessions, "dataset", noting)
    history = train(
        make_model(num_signals=0), sessions, warmup_steps=0, stage1_steps=8, stage2_steps=0,
        steps_per_epoch=8, batch_size=6, buckets=2, verbose=0,
    )  # fmt: skip
    assert np.isfinite(history["loss"]).all()
    assert seen.count(9) == seen.count(31) == 4


def test_several_steps_per_execution_give_the_same_weights(sessions):
    weights = []
    for steps in (1, 4):
        model = make_model()
        compile_stage(model, "stage1", learning_rate=1e-2, steps_per_execution=steps)
        model.fit(sessions.dataset(steps=8), verbose=0, shuffle=False)
        weights.append(weights_of(model))
    for name, weight in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], weight, err_msg=name)


def test_stage2_on_stored_latents_gives_the_same_weights(sessions):
    plain, fast = make_model(), make_model()
    fit_stage(plain, "stage2", sessions, steps=5, learning_rate=1e-2)
    (given,) = with_latents(fast, sessions)
    fit_stage(fast, "stage2", given, steps=5, learning_rate=1e-2)
    start = weights_of(make_model())
    for name, weight in weights_of(plain).items():
        np.testing.assert_allclose(weights_of(fast)[name], weight, atol=1e-6, err_msg=name)
    changed = [n for n, w in weights_of(plain).items() if not np.allclose(w, start[n], atol=1e-3)]
    assert changed
    assert all(name.startswith("dopamine_readout") for name in changed)


def test_joint_loss_weighs_choice_against_dopamine(sessions):
    model = make_model(**{name: 0.0 for name in PENALTIES})
    compile_stage(model, "joint", choice_weight=0.3)
    scores = model.evaluate(sessions.dataset(), return_dict=True, verbose=0)
    expected = -0.3 * np.log(scores["choice_normalized_likelihood"]) + 0.7 * np.log1p(
        scores["dopamine_mse"]
    )
    np.testing.assert_allclose(scores["loss"], expected, rtol=1e-5)


def without(sessions, *targets):
    """Return sessions whose choices or dopamine responses have the weight 0."""
    names = [f"{target}_weight" for target in targets]
    return dataclasses.replace(sessions, **{n: 0 * getattr(sessions, n) for n in names})


@pytest.mark.parametrize(
    ("stage", "target", "undefined"),
    [
        ("stage1", "choice", {"loss", "choice_normalized_likelihood", "penalty_latent"}),
        ("stage2", "dopamine", {"loss", "dopamine_mse", "dopamine_r2", "penalty_dopamine_l2"}),
        ("joint", "dopamine", {"loss", "dopamine_loss", "dopamine_r2", "dopamine_mse"}),
    ],
)
def test_scores_of_sessions_without_targets_are_nan(sessions, stage, target, undefined):
    model = make_model()
    compile_stage(model, stage)
    scores = model.evaluate(without(sessions, target).dataset(), verbose=0, return_dict=True)
    assert undefined <= {name for name, score in scores.items() if np.isnan(score)}
    if stage == "joint":
        assert np.isfinite([scores["choice_loss"], scores["choice_normalized_likelihood"]]).all()
    # One batch with targets is enough, and the next evaluation starts from the beginning.
    some = sessions.subset(slice(0, 8)), without(sessions.subset(slice(8, 16)), target)
    data = some[1].dataset(8).concatenate(some[0].dataset(8))
    assert np.isfinite(list(model.evaluate(data, verbose=0, return_dict=True).values())).all()


@pytest.mark.parametrize("target", ["choice", "dopamine"])
def test_training_goes_through_batches_and_held_out_sessions_without_targets(sessions, target):
    class Log(keras.callbacks.Callback):
        rows = []

        def on_epoch_end(self, epoch, logs=None):
            self.rows.append(dict(logs))

    model = make_model()
    half = without(sessions.subset(slice(0, 12)), target)
    weights = {n: np.concatenate([getattr(half, n), getattr(sessions, n)[12:]])
               for n in ("choice_weight", "dopamine_weight")}  # fmt: skip
    history = train(
        model, dataclasses.replace(sessions, **weights), half, warmup_steps=4, stage1_steps=4,
        stage2_steps=4, joint_steps=4, steps_per_epoch=1, batch_size=12, settle_steps=0,
        verbose=0, callbacks=[Log()],
    )  # fmt: skip
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    joint = history[history["stage"] == "joint"]
    other = {"choice": "dopamine", "dopamine": "choice"}[target]
    assert joint[[f"val_{target}_loss", "val_loss"]].isna().all(axis=None)
    assert np.isfinite(joint[f"val_{other}_loss"]).all()
    assert np.isnan(Log.rows[-1]["val_loss"])


def test_train_learns_and_reports_every_epoch(sessions, tmp_path):
    model = make_model()
    before = model.get_weights()
    history = train(
        model, sessions, make_sessions(8, seed=4), warmup_steps=60, stage1_steps=10,
        stage2_steps=60, steps_per_epoch=10, learning_rate=1e-2, verbose=0,
        callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True)],
    )  # fmt: skip
    assert list(history["stage"]) == ["warmup"] * 6 + ["stage1"] + ["stage2"] * 6
    assert list(history["step"]) == [10, 20, 30, 40, 50, 60, 10, 10, 20, 30, 40, 50, 60]
    likelihood = history["choice_normalized_likelihood"]
    assert likelihood[5] > max(0.5, likelihood[0])
    assert history["val_choice_normalized_likelihood"][:7].between(0, 1).all()
    assert history["dopamine_mse"].iloc[-1] < history["dopamine_mse"].iloc[7]
    assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert history["loss"].notna().all()


def test_the_seed_of_mini_batches_determines_the_weights(sessions):
    def fitted(seed):
        model = make_model()
        train(
            model, sessions, warmup_steps=4, stage1_steps=4, stage2_steps=4, steps_per_epoch=4,
            batch_size=5, seed=seed, verbose=0,
        )  # fmt: skip
        return model.get_weights()

    first, second, other = fitted(7), fitted(7), fitted(8)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


INTERRUPTED = """
import sys
import numpy as np
import keras
from test_training import make_model, make_sessions
from keras_disrnn import train

class Slow(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print("epoch", epoch, flush=True)
        if sys.argv[2] == "slow":
            import time
            time.sleep(0.5)

model = make_model()
history = train(
    model, make_sessions(), warmup_steps=6, stage1_steps=6, stage2_steps=6, steps_per_epoch=2,
    batch_size=10, learning_rate=1e-2, checkpoint=sys.argv[1], verbose=0, callbacks=[Slow()],
)
np.savez(sys.argv[1] + ".end.npz", *model.get_weights(), history=history["loss"])
"""


def run_interrupted(checkpoint, kill_after=None):
    """Run a small training in its own process; kill it after `kill_after` epochs."""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(checkpoint), "slow" if kill_after else "fast"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    if kill_after:
        for _ in range(kill_after):
            assert process.stdout.readline().startswith("epoch")
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        return None
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return np.load(f"{checkpoint}.end.npz")


def test_a_training_killed_in_any_stage_ends_with_the_same_weights(tmp_path):
    whole = run_interrupted(tmp_path / "whole.npz")
    # Warm-up, stage 1 and stage 2 have three epochs each: the kills fall into each of them.
    for kill_after in (2, 2, 3):
        run_interrupted(tmp_path / "killed.npz", kill_after)
    resumed = run_interrupted(tmp_path / "killed.npz")
    assert whole.files == resumed.files
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


def test_a_checkpoint_of_other_settings_is_refused(sessions, tmp_path):
    arguments = {"warmup_steps": 2, "stage1_steps": 0, "stage2_steps": 0, "verbose": 0}
    path = tmp_path / "state.npz"
    train(make_model(), sessions, checkpoint=path, **arguments)
    with pytest.raises(ValueError, match="another setting of 'optimizer.learning_rate'"):
        train(make_model(), sessions, checkpoint=path, learning_rate=0.1, **arguments)
    with pytest.raises(ValueError, match="another setting of 'optimizer.class'"):
        train(make_model(), sessions, checkpoint=path, optimizer="sgd", **arguments)
    with pytest.raises(ValueError, match="another setting of 'model.seed'"):
        train(make_model(seed=2), sessions, checkpoint=path, **arguments)
    with pytest.raises(ValueError, match="another setting of 'data'"):
        train(make_model(), make_sessions(seed=9), checkpoint=path, **arguments)
    with pytest.raises(ValueError, match="another setting of 'model.l2_scale'"):
        train(make_model(l2_scale=1.0), sessions, checkpoint=path, **arguments)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"state\.npz: expected a checkpoint"):
        train(make_model(), sessions, checkpoint=path, **arguments)


@pytest.mark.parametrize("part", ["sessions", "held-out sessions"])
def test_either_part_must_have_the_shape_of_the_model(sessions, part):
    other = Sessions.from_trials(choice=[[0, 1, 2]], reward=[[1, 0, 1]])
    parts = [other, sessions] if part == "sessions" else [sessions, other]
    with pytest.raises(ValueError, match=f"num_arms: expected {part} with 2, .* got 3"):
        train(make_model(), *parts, warmup_steps=2, steps_per_epoch=2, verbose=0)


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_last_good_weights(
    sessions, tmp_path
):
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.good = self.model.get_weights()
                bias = self.model.core.cell.update_network.output_bias
                bias.assign(np.full(bias.shape, np.nan))

    model, poison = make_model(), Poison()
    with pytest.raises(TrainingDiverged, match="loss: .*got nan by step 2 of epoch 3"):
        train(
            model, sessions, warmup_steps=8, stage1_steps=0, stage2_steps=0, steps_per_epoch=2,
            checkpoint=tmp_path / "state.npz", callbacks=[poison], verbose=0,
        )  # fmt: skip
    for kept, good in zip(model.get_weights(), poison.good, strict=True):
        np.testing.assert_array_equal(kept, good)
    again = make_model()
    history = train(
        again, sessions, warmup_steps=8, stage1_steps=0, stage2_steps=0, steps_per_epoch=2,
        checkpoint=tmp_path / "state.npz", verbose=0,
    )  # fmt: skip
    assert list(history["epoch"]) == [1, 2, 3, 4]


def test_an_update_that_is_not_finite_is_found_at_the_end_of_the_epoch(sessions):
    model = make_model()
    before = model.get_weights()
    compile_stage(model, "warmup", learning_rate=float("inf"))
    with pytest.raises(TrainingDiverged, match="no longer finite"):
        model.fit(sessions.dataset(steps=1), callbacks=[StopOnNaN()], verbose=0, shuffle=False)
    for kept, good in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, good)


def test_bad_arguments_are_named_before_any_training(sessions):
    bare = Sessions.from_trials(choice=[[0, 1]], reward=[[1, 0]])
    unweighted = dataclasses.replace(
        sessions, dopamine_weight=np.zeros_like(sessions.dopamine_weight)
    )
    for data, arguments, message in (
        (sessions, {"warmup_steps": -1}, "warmup_steps: expected"),
        (sessions, {"steps_per_epoch": 0}, "steps_per_epoch: expected"),
        (sessions, {"stage1_steps": 175}, "stage1_steps: expected a multiple of steps_per_epoch"),
        (sessions, {"learning_rate": 0.0}, "learning_rate: expected a number above 0 or a"),
        (sessions, {"learning_rate": "fast"}, "learning_rate: expected a number above 0 or a"),
        (sessions, {"optimizer": "adman"}, "optimizer: expected .* got 'adman'"),
        (
            sessions,
            {"optimizer": keras.optimizers.SGD(), "learning_rate": 0.1},
            "learning_rate: expected 0.001, the default",
        ),
        (
            bare,
            {"warmup_steps": 0, "stage1_steps": 0},
            "expected dopamine, because only stage2 .*, got none",
        ),
        (
            unweighted,
            {"warmup_steps": 0, "stage1_steps": 0},
            "the sessions have no dopamine target with weight",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            train(make_model(), data, **arguments)
    with pytest.raises(ValueError, match="num_arms: expected sessions with 3"):
        train(make_model(num_arms=3), sessions)
    with pytest.raises(ValueError, match="num_signals: expected sessions with 2"):
        train(make_model(num_signals=2), sessions)
    with pytest.raises(ValueError, match="expected one of .* got 'stage3'"):
        compile_stage(make_model(), "stage3")
    with pytest.raises(ValueError, match="without dopamine readout"):
        compile_stage(make_model(num_signals=0), "stage2")
    with pytest.raises(ValueError, match="choice_weight: expected"):
        compile_stage(make_model(), "joint", choice_weight=2.0)
