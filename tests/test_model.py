"""The whole model: outputs, saving, dtype policies, parts, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from parameters import SMALL

import keras_disrnn
from keras_disrnn.objectives.metrics import (
    DopamineMeanSquaredError,
    DopamineR2,
    NormalizedLikelihood,
)


def make_batch(features, arms=2, signals=1, seed=0):
    """Random targets for features. Padding and a tenth of the time steps have no weight."""
    rng = np.random.default_rng(seed)
    sessions, rows, _ = features.shape
    real = ~np.isnan(features[..., 0]) & (rng.random((sessions, rows)) < 0.9)
    targets = {"choice": rng.integers(0, arms, (sessions, rows)).astype("int32")}
    weights = {"choice": real.astype("float32")}
    if signals:
        targets["dopamine"] = rng.normal(size=(sessions, rows, signals)).astype("float32")
        weights["dopamine"] = np.repeat(real[..., None], signals, -1).astype("float32")
    return tf.data.Dataset.from_tensors((features, targets, weights))


@pytest.mark.parametrize(("observations", "arms", "signals"), [(2, 2, 1), (4, 3, 2), (2, 2, 0)])
def test_any_number_of_observations_arms_and_signals(make_features, observations, arms, signals):
    features = make_features(observations=observations, lengths=(9, 4, 9, 9, 2, 9))
    model = keras_disrnn.DisRNNModel(observations, num_arms=arms, num_signals=signals, **SMALL)
    outputs = model(features)
    assert outputs["choice"].shape == (6, 9, arms)
    assert model.compute_latents(features).shape == (6, 9, 3)
    if signals:
        assert outputs["dopamine"].shape == (6, 9, signals)
    else:
        assert set(outputs) == {"choice"}
    assert all(np.isfinite(output).all() for output in outputs.values())
    stage = "joint" if signals else "stage1"
    keras_disrnn.compile_stage(model, stage)
    history = model.fit(make_batch(features, arms, signals), shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("stage", ["warmup", "stage1", "stage2", "joint"])
def test_a_keras_file_restores_everything(make_features, tmp_path, stage, recwarn):
    features = make_features()
    model = keras_disrnn.DisRNNModel(**SMALL)
    keras_disrnn.compile_stage(model, stage)
    model.fit(make_batch(features), shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    for name, output in model(features).items():
        np.testing.assert_array_equal(again(features)[name], output)
    assert again.frozen == model.frozen
    for ours, theirs in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not [str(w.message) for w in recwarn if "variable" in str(w.message)]


@pytest.mark.parametrize(
    "policy",
    ["float32", "mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "float64"],
)
@pytest.mark.parametrize("stage", ["stage1", "joint"])
def test_dtype_policies_train(make_features, policy, stage):
    model = keras_disrnn.DisRNNModel(**SMALL, dtype=policy)
    keras_disrnn.compile_stage(model, stage, learning_rate=1e-2)
    batch = make_batch(make_features(sessions=20, lengths=(9, 3)))
    history = model.fit(batch.repeat(30), epochs=1, shuffle=False, verbose=0)
    first = keras_disrnn.DisRNNModel(**SMALL, dtype=policy)
    keras_disrnn.compile_stage(first, stage)
    before = first.evaluate(batch, return_dict=True, verbose=0)["loss"]
    after = model.evaluate(batch, return_dict=True, verbose=0)["loss"]
    assert np.isfinite(history.history["loss"]).all()
    assert after < before


def test_metrics_are_in_the_history_and_the_csv_log(make_features, tmp_path):
    model = keras_disrnn.DisRNNModel(**SMALL)
    keras_disrnn.compile_stage(model, "joint")
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    batch = make_batch(make_features())
    history = model.fit(
        batch, validation_data=batch, shuffle=False, verbose=0, callbacks=[log]
    ).history
    expected = {
        "loss", "choice_loss", "dopamine_loss",
        "choice_normalized_likelihood", "dopamine_mse", "dopamine_r2",
        "penalty_latent", "penalty_update_obs", "penalty_update_latent", "penalty_choice",
        "penalty_dopamine", "penalty_l2", "penalty_dopamine_l2",
        "open_latent", "open_update", "open_choice", "open_dopamine",
    }  # fmt: skip
    assert expected | {f"val_{name}" for name in expected} == set(history)
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert set(header.split(",")) == set(history) | {"epoch"}
    assert history["open_latent"] == [3.0]
    assert history["open_update"] == [15.0]
    model.core.cell.latent_bottleneck.raw_sigma.assign([0.9, 0.1, 0.49])
    assert model.evaluate(batch, return_dict=True, verbose=0)["open_latent"] == 2.0


def test_metrics_reach_tensorboard(make_features, tmp_path):
    model = keras_disrnn.DisRNNModel(**SMALL)
    keras_disrnn.compile_stage(model, "joint")
    batch = make_batch(make_features())
    history = model.fit(
        batch, verbose=0, shuffle=False, callbacks=[keras.callbacks.TensorBoard(tmp_path)]
    ).history
    logged = {}
    for file in (tmp_path / "train").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tensor.dtype == tf.float32.as_datatype_enum:
                    logged[value.tag] = tf.make_ndarray(value.tensor).item()
    for name, (value,) in history.items():
        np.testing.assert_allclose(logged[f"epoch_{name}"], value, rtol=1e-5, err_msg=name)


def test_dopamine_metrics_agree_with_numpy(make_features):
    features = make_features(sessions=5, lengths=(9, 4, 6))
    model = keras_disrnn.DisRNNModel(num_signals=2, **SMALL)
    keras_disrnn.compile_stage(model, "stage2")
    batches = make_batch(features[:3], signals=2).concatenate(
        make_batch(features[3:], signals=2, seed=1)
    )
    got = model.evaluate(batches, return_dict=True, verbose=0)
    targets, errors = [], []
    for x, y, w in batches:
        error = y["dopamine"] - model(x)["dopamine"]
        keep = np.all(w["dopamine"].numpy() > 0, axis=-1)
        targets.append(y["dopamine"].numpy()[keep])
        errors.append(error.numpy()[keep])
    targets, errors = np.concatenate(targets), np.concatenate(errors)
    r2 = 1 - (errors**2).sum(0) / ((targets - targets.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(got["dopamine_mse"], (errors**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(got["dopamine_r2"], r2.mean(), atol=1e-5)


def test_r2_of_a_signal_with_a_large_offset(rng):
    target = (10_000 + rng.normal(size=(4, 50, 1))).astype("float32")
    predicted = target + 0.5 * rng.normal(size=target.shape).astype("float32")
    metric = DopamineR2()
    for session in range(4):
        metric.update_state(target[session, None], predicted[session, None])
    exact = (
        1 - ((target - predicted) ** 2).sum() / ((target - target.mean(dtype="float64")) ** 2).sum()
    )
    np.testing.assert_allclose(metric.result(), exact, atol=1e-3)


def test_metrics_without_targets_are_nan(rng):
    target = rng.normal(size=(2, 5, 2)).astype("float32")
    for metric in (DopamineR2(2), DopamineMeanSquaredError(), NormalizedLikelihood()):
        truth = np.zeros((2, 5), int) if isinstance(metric, NormalizedLikelihood) else target
        assert np.isnan(metric.result())
        metric.update_state(truth, target + 1, np.zeros(truth.shape, "float32"))
        assert np.isnan(metric.result())
        metric.update_state(truth, target + 1, np.ones(truth.shape, "float32"))
        assert np.isfinite(metric.result())


def test_r2_is_the_mean_over_the_signals_with_targets_that_vary(rng):
    target = rng.normal(size=(2, 5, 2)).astype("float32")
    predicted = target + rng.normal(size=target.shape).astype("float32")
    both, one = DopamineR2(2), DopamineR2(1)
    both.update_state(target, predicted, np.stack([np.ones((2, 5)), np.zeros((2, 5))], -1))
    one.update_state(target[..., :1], predicted[..., :1])
    np.testing.assert_allclose(both.result(), one.result(), rtol=1e-6)
    constant = DopamineR2(1)
    constant.update_state(np.ones((2, 5, 1)), np.ones((2, 5, 1)))
    assert np.isnan(constant.result())


def test_given_latents_replace_the_core(make_features):
    features = make_features()
    model = keras_disrnn.DisRNNModel(**SMALL)
    outputs = model(features)
    given = model({"features": features, "latents": model.compute_latents(features)})
    for name, output in outputs.items():
        np.testing.assert_allclose(given[name], output, atol=1e-6)


def test_another_number_of_observations_is_refused(make_features, tmp_path):
    model = keras_disrnn.DisRNNModel(**SMALL)
    model(make_features())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for use in (again, again.compute_latents, lambda x: again.predict(x, verbose=0)):
        with pytest.raises(ValueError, match=r"with 2 observations.*got \(.*3\)"):
            use(make_features(observations=3))
    with pytest.raises(ValueError, match="shape of"):
        again(np.zeros((3, 2), "float32"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_penalty": -2}, r"latent_penalty: .* got -2 \(did you write 1-3 for 1e-3\?\)"),
        ({"dopamine_penalty": float("nan")}, "dopamine_penalty: expected"),
        ({"l2_scale": float("inf")}, "l2_scale: expected"),
        ({"num_observations": 1}, "num_observations: expected a whole number of at least 2"),
        ({"num_arms": 1}, "num_arms: expected"),
        ({"num_signals": -1}, "num_signals: expected"),
        ({"frozen": ["brain"]}, "frozen: expected names of .* got 'brain'"),
        ({"num_latents": 0}, "num_latents: expected"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_disrnn.DisRNNModel(**arguments)
