"""The numbers equal those of the authors' package, plain NumPy and finite differences."""

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from parameters import assert_same_parameters

import keras_disrnn
from keras_disrnn.io import reference as interop
from keras_disrnn.objectives import metrics
from keras_disrnn.objectives.losses import (
    ChoiceCrossentropy,
    DopamineMSE,
    LogDopamineMSE,
    log_likelihood,
)
from keras_disrnn.objectives.optimizer import FlatAdam

GOLDEN = ("disrnn_small", "neuro_small")


@pytest.mark.parametrize("name", GOLDEN)
def test_agrees_with_the_reference_noiseless(golden, name):
    params, config, arrays = golden(name)
    model = interop.from_haiku(params, config)
    outputs = model(arrays["xs"])
    expected = arrays["noiseless_outputs"]
    np.testing.assert_allclose(outputs["choice"], expected[..., :2], atol=1e-5)
    np.testing.assert_allclose(
        model.compute_latents(arrays["xs"]), arrays["noiseless_latents"], atol=1e-5
    )
    np.testing.assert_allclose(model.penalties(arrays["xs"])["l2"], expected[..., -1], rtol=1e-4)
    if name == "neuro_small":
        np.testing.assert_allclose(outputs["dopamine"][..., 0], expected[..., 2], atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN)
def test_agrees_with_the_reference_in_training_mode(golden, name):
    params, config, arrays = golden(name)
    model = interop.from_haiku(params, config)
    for layers in model.bottlenecks.values():
        for layer in layers:
            layer.raw_sigma.assign(np.zeros(layer.raw_sigma.shape))
    penalties = model.penalties(arrays["xs"], training=True)
    total = sum(np.asarray(penalty) for penalty in penalties.values())
    np.testing.assert_allclose(total, arrays["tiny_sigma_outputs"][..., -1], rtol=1e-4)
    outputs = model(arrays["xs"], training=True)
    np.testing.assert_allclose(outputs["choice"], arrays["tiny_sigma_outputs"][..., :2], atol=2e-3)


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_survive_import_and_export_exactly(golden, name, tmp_path):
    params, config, _ = golden(name)
    model = interop.from_haiku(params, config)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        again, config_again = interop.to_haiku(each)
        assert config_again == config
        assert_same_parameters(again, params)


def test_bad_reference_parameters_are_named(golden):
    params, config, _ = golden("neuro_small")
    with pytest.raises(ValueError, match="expected an array .*, got none"):
        interop.from_haiku({m: p for m, p in params.items() if "choice_net" not in m}, config)
    with pytest.raises(ValueError, match="choice_net_n_units_per_layer: expected .*, got 3"):
        interop.from_haiku(params, {**config, "choice_net_n_units_per_layer": 3})
    with pytest.raises(ValueError, match="expected parameters of this model only, got 'stranger"):
        interop.from_haiku({**params, "stranger": {"w": np.ones(2)}}, config)
    with pytest.raises(ValueError, match="expected the field 'latent_size'"):
        interop.from_haiku(params, {k: v for k, v in config.items() if k != "latent_size"})
    with pytest.raises(ValueError, match="expected the modules"):
        interop.from_haiku({"linear": {"w": np.ones(2)}}, config)


def test_models_that_read_latents_before_the_outcome_are_not_exported():
    model = keras_disrnn.DisRNNModel(num_latents=2)
    with pytest.raises(ValueError, match="'post'"):
        interop.to_haiku(model)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("noisy", [False, True])
def test_core_agrees_with_plain_numpy(make_features, rng, layers, noisy):
    features = make_features(sessions=3, rows=7, observations=3, lengths=(7, 4, 6))
    core = keras_disrnn.DisRNN(4, update_units=5, num_update_layers=layers, seed=3)
    core.build((None, None, 3))
    for weight in core.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    noise = {k: v.numpy() for k, v in core.cell.draw_noise(7, 3).items()} if noisy else None
    latents, costs = core(features, training=noisy, noise=noise, return_costs=True)
    for session in range(3):
        given = noise and {name: value[..., session] for name, value in noise.items()}
        expected, expected_costs = oracle.run_core(core.cell, features[session], given)
        np.testing.assert_allclose(latents[session], expected, atol=2e-6)
        real = ~np.isnan(features[session, :, 0])
        for name, cost in costs.items():
            np.testing.assert_allclose(
                cost[session][real], expected_costs[name][real], rtol=2e-5, err_msg=name
            )


@pytest.mark.parametrize("noisy", [False, True])
def test_cell_agrees_with_plain_numpy(make_features, rng, noisy, monkeypatch):
    cell = keras_disrnn.DisRNNCell(3, update_units=4, num_update_layers=2, seed=1)
    cell.build((None, 2))
    noise = {k: v.numpy() for k, v in cell.draw_noise(1, 5).items()}
    monkeypatch.setattr(cell, "draw_noise", lambda rows, sessions: noise)
    features = make_features(sessions=5, rows=1)[:, 0]
    output, (state,) = cell(features, cell.get_initial_state(5), training=noisy)
    np.testing.assert_array_equal(output, state)
    for session in range(5):
        given = {k: v[..., session] for k, v in noise.items()} if noisy else None
        expected, _ = oracle.run_core(cell, features[session : session + 1], given)
        np.testing.assert_allclose(output[session], expected[0], atol=1e-6)


@pytest.mark.parametrize("which", ["pre", "post"])
def test_whole_model_agrees_with_plain_numpy(make_features, which):
    features = make_features(sessions=3, rows=8, lengths=(8, 5, 7))
    model = keras_disrnn.DisRNNModel(num_latents=3, num_signals=2, dopamine_timing=which, seed=5)
    outputs, penalties = model(features), model.penalties(features)
    for session, rows in enumerate((8, 5, 7)):
        x = features[session, :rows]
        latents, _ = oracle.run_core(model.core.cell, x)
        logits, choice_costs = oracle.run_readout(model.choice_readout, latents)
        np.testing.assert_allclose(outputs["choice"][session, :rows], logits, atol=2e-6)
        initial = model.initial_latents.numpy()[None]
        read = latents if which == "post" else np.concatenate([initial, latents[:-1]])
        responses, costs = oracle.run_readout(
            model.dopamine_readout, np.concatenate([read, x[:, :2]], axis=1)
        )
        np.testing.assert_allclose(outputs["dopamine"][session, :rows], responses, atol=2e-6)
        np.testing.assert_allclose(
            penalties["dopamine"][session, :rows], model.dopamine_penalty * costs, rtol=1e-5
        )
        np.testing.assert_allclose(
            penalties["choice"][session, :rows], model.choice_penalty * choice_costs, rtol=1e-5
        )
        for name, penalty in penalties.items():
            assert np.all(penalty[session, rows:] == 0), name


def test_the_loss_is_as_specified(make_features, rng):
    """Compare the loss of stage 1 term by term, with forced trials and padding."""
    features = make_features(sessions=4, rows=8, lengths=(8, 5, 7, 8))
    choice = rng.integers(0, 2, (4, 8)).astype("int32")
    weight = np.where(np.isnan(features[..., 0]), 0.0, 1.0).astype("float32")
    weight[:, 3] = 0.0
    model = keras_disrnn.DisRNNModel(num_signals=0, num_latents=3, l2_scale=0.01, seed=2)
    keras_disrnn.compile_stage(model, "stage1")
    got = model.evaluate(
        tf.data.Dataset.from_tensors((features, {"choice": choice}, {"choice": weight})),
        return_dict=True,
        verbose=0,
    )
    logits = np.asarray(model(features)["choice"], "float64")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = weight.sum()
    likelihood = (weight * np.take_along_axis(log_p, choice[..., None], -1)[..., 0]).sum() / targets
    penalty = (
        sum(np.asarray(p, "float64").sum() for p in model.penalties(features).values()) / targets
    )
    np.testing.assert_allclose(got["loss"], -likelihood + penalty, rtol=1e-5)
    np.testing.assert_allclose(got["choice_normalized_likelihood"], np.exp(likelihood), rtol=1e-5)
    hidden = (
        model.core.cell.update_network.hidden_kernel,
        model.choice_readout.network.hidden_kernel,
    )
    l2 = sum(np.square(kernel.numpy()).sum() for kernel in hidden)
    np.testing.assert_allclose(got["penalty_l2"], 0.01 * l2 * 28 / targets, rtol=1e-5)


@pytest.mark.parametrize("arms", [2, 4])
def test_the_log_likelihood_is_exact_for_large_logits(rng, arms):
    logits = (100 * rng.normal(size=(3, 5, arms))).astype("float32")
    choice = rng.integers(0, arms, (3, 5))
    wide = logits.astype("float64")
    shifted = wide - wide.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    expected = np.take_along_axis(log_p, choice[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_likelihood(choice, logits), expected, rtol=1e-5, atol=1e-5)


def test_losses_ignore_targets_without_weight(rng):
    logits = rng.normal(size=(3, 5, 2)).astype("float32")
    choice = rng.integers(0, 2, (3, 5))
    weight = rng.integers(0, 2, (3, 5)).astype("float32")
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(probability, choice[..., None], -1)[..., 0]
    expected = -(weight * np.log(chosen)).sum() / weight.sum()
    np.testing.assert_allclose(ChoiceCrossentropy()(choice, logits, weight), expected, rtol=1e-6)

    target, predicted = rng.normal(size=(2, 3, 5, 2)).astype("float32")
    weight = rng.integers(0, 2, (3, 5, 2)).astype("float32")
    expected = (weight * (target - predicted) ** 2).sum() / weight.sum()
    np.testing.assert_allclose(DopamineMSE()(target, predicted, weight), expected, rtol=1e-6)
    np.testing.assert_allclose(
        LogDopamineMSE()(target, predicted, weight), np.log1p(expected), rtol=1e-6
    )


@pytest.mark.parametrize(
    "made",
    [
        ChoiceCrossentropy("a"),
        DopamineMSE("a", reduction="sum"),
        LogDopamineMSE("a"),
        metrics.NormalizedLikelihood("a", dtype="float64"),
        metrics.DopamineR2(3, name="a"),
        metrics.DopamineMeanSquaredError("a"),
        FlatAdam(0.1, beta_1=0.5, beta_2=0.6, epsilon=0.01, global_clipnorm=2.0, name="a"),
    ],
    ids=lambda made: type(made).__name__,
)
def test_losses_metrics_and_the_optimizer_rebuild_from_their_configuration(made):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
    assert type(again) is type(made)
    assert again.get_config() == made.get_config()
    assert again.name == "a"


def test_the_number_of_signals_is_checked():
    with pytest.raises(ValueError, match="num_signals: expected a whole number of at least 1"):
        metrics.DopamineR2(0)


@pytest.fixture
def float64():
    """Widen Keras' default float type, to which it rounds every compiled loss."""
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def test_gradients_agree_with_finite_differences(rng, make_features, float64):
    """Compare every gradient of the joint loss in float64, with fixed noise."""
    features = make_features(sessions=3, rows=5, lengths=(5, 4, 5)).astype("float64")
    choice = rng.integers(0, 2, (3, 5))
    dopamine = rng.normal(size=(3, 5, 1))
    weight = np.where(np.isnan(features[..., 0]), 0.0, 1.0)
    model = keras_disrnn.DisRNNModel(
        num_latents=2, update_units=3, num_update_layers=1, choice_units=2, num_choice_layers=1,
        dopamine_units=2, num_dopamine_layers=1, latent_penalty=0.1, update_obs_penalty=0.2,
        update_latent_penalty=0.3, choice_penalty=0.4, dopamine_penalty=0.5, l2_scale=0.1,
        seed=4, dtype="float64",
    )  # fmt: skip
    keras_disrnn.compile_stage(model, "joint")
    model(features)
    for part in model.trainable_weights:
        part.assign(part + 0.2 * rng.normal(size=part.shape))
    states = [v for v in model.variables if "seed_generator" in v.path]
    start = [v.numpy() for v in states]
    targets = {"choice": choice, "dopamine": dopamine}
    weights = {"choice": weight, "dopamine": weight[..., None]}

    def loss():
        for variable, value in zip(states, start, strict=True):
            variable.assign(value)
        return model.compute_loss(features, targets, model(features, training=True), weights)

    with tf.GradientTape() as tape:
        value = loss()
    assert value.dtype == "float64"
    variables = model.trainable_weights
    for variable, gradient in zip(
        variables, tape.gradient(value, [v.value for v in variables]), strict=True
    ):
        flat = variable.numpy().reshape(-1)
        for index in rng.choice(flat.size, min(3, flat.size), replace=False):
            values = []
            for step in (1e-6, -1e-6):
                moved = flat.copy()
                moved[index] += step
                variable.assign(moved.reshape(variable.shape))
                values.append(float(loss()))
            variable.assign(flat.reshape(variable.shape))
            numeric = (values[0] - values[1]) / 2e-6
            analytic = gradient.numpy().reshape(-1)[index]
            assert abs(numeric - analytic) < 1e-6 * max(1.0, abs(numeric)), (
                variable.path, index, numeric, analytic,
            )  # fmt: skip
