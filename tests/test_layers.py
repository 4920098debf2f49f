"""The layers: shapes, noise, freezing, configuration, errors."""

import keras
import numpy as np
import pytest

from keras_disrnn import (
    ChoiceReadout,
    DisRNN,
    DisRNNCell,
    DopamineReadout,
    InformationBottleneck,
    ResidualMLP,
)

LAYERS = [
    (InformationBottleneck, {"multiplier": False, "seed": 3}, (2, 5, 3)),
    (InformationBottleneck, {"num_networks": 4, "seed": 3}, (2, 3, 7)),
    (ResidualMLP, {"num_outputs": 2, "units": 4, "num_layers": 3, "activation": "tanh"}, (2, 5, 3)),
    (ResidualMLP, {"num_outputs": 2, "units": 4, "num_layers": 0, "num_networks": 3}, (5, 3, 6, 7)),
    (DisRNN, {"num_latents": 3, "update_units": 4, "num_update_layers": 1}, (2, 5, 2)),
    (ChoiceReadout, {"num_outputs": 3, "units": 4, "num_layers": 2}, (2, 5, 3)),
    (DopamineReadout, {"num_outputs": 1, "units": 4, "num_layers": 2, "timing": "post"}, (2, 5, 5)),
]


@pytest.mark.parametrize(("layer", "config", "shape"), LAYERS)
def test_configuration_makes_the_same_layer_again(layer, config, shape, rng):
    inputs = rng.normal(size=shape).astype("float32")
    first = layer(**config)
    outputs = first(inputs)
    again = layer.from_config(first.get_config())
    assert again.get_config() == first.get_config()
    assert first.get_config().items() >= config.items()
    again.build(shape)
    again.set_weights(first.get_weights())
    np.testing.assert_array_equal(again(inputs), outputs)
    assert tuple(outputs.shape) == tuple(first.compute_output_shape(shape))
    assert len(again.weights) == len(first.weights) > 0


@pytest.mark.parametrize(("layer", "config", "shape"), LAYERS)
def test_a_seed_gives_the_same_start(layer, config, shape):
    def weights(seed):
        made = layer(**{**config, "seed": seed})
        made.build(shape)
        return np.concatenate([w.numpy().ravel() for w in made.trainable_weights])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_bottleneck_noise_has_the_learned_size(rng):
    bottleneck = InformationBottleneck(seed=0)
    inputs = np.broadcast_to(rng.normal(size=3).astype("float32"), (20_000, 3))
    bottleneck.build(inputs.shape)
    bottleneck.raw_sigma.assign([0.2, -0.5, 1.0])
    bottleneck.raw_multiplier.assign([1.0, -2.0, 0.0])
    mean = bottleneck(inputs)
    np.testing.assert_allclose(mean, inputs * [1.0, -2.0, 0.0], rtol=1e-6)
    noise = (bottleneck(inputs, training=True) - mean).numpy()
    np.testing.assert_allclose(noise.std(0), [0.2, 0.5, 1.0], rtol=0.03)
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.04)
    again = (bottleneck(inputs, training=True) - mean).numpy()
    assert abs(np.corrcoef(noise[:, 0], again[:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.03


def test_bottleneck_starts_open_and_closing_it_is_free():
    bottleneck = InformationBottleneck(num_networks=4, seed=0)
    bottleneck.build((None, 50, None))
    sigma = bottleneck.sigma.numpy()
    assert sigma.shape == (4, 50)
    assert sigma.min() >= 1e-5
    assert 0.045 < sigma.max() <= 0.05001
    bottleneck.raw_sigma.assign(np.full((4, 50), 1.0 - 1e-5))
    bottleneck.raw_multiplier.assign(np.zeros((4, 50)))
    np.testing.assert_allclose(bottleneck.kl(np.ones((2, 50), "float32")), 0.0, atol=1e-5)


def test_cost_survives_half_precision():
    half = InformationBottleneck(dtype="mixed_float16")
    half.build((None, 2))
    half.raw_sigma.assign([0.0, 0.0])
    cost = half.kl(np.zeros((1, 2), "float16"))
    assert cost.dtype == "float32"
    np.testing.assert_allclose(cost, 0.5 * 2 * (1e-10 - 1 - 2 * np.log(1e-5)), rtol=1e-5)


def test_initial_weights_have_the_specified_spread():
    network = ResidualMLP(64, 100, 4, seed=1)
    network.build((None, 400))
    for kernel, spread in (
        (network.input_kernel, 1 / np.sqrt(400)),
        (network.hidden_kernel, 1 / np.sqrt(400)),
        (network.output_kernel, 1 / np.sqrt(100)),
    ):
        np.testing.assert_allclose(kernel.numpy().std(), spread, rtol=0.05)
    hidden = network.hidden_kernel.numpy()
    assert abs(np.corrcoef(hidden[0].ravel(), hidden[1].ravel())[0, 1]) < 0.05
    assert not network.hidden_bias.numpy().any()
    np.testing.assert_allclose(network.l2(), np.square(hidden).sum(), rtol=1e-5)


def test_a_bank_is_its_networks_side_by_side(rng):
    bank = ResidualMLP(2, 4, 2, num_networks=3)
    inputs = rng.normal(size=(3, 5, 6)).astype("float32")
    outputs = bank(inputs)
    for network in range(3):
        single = ResidualMLP(2, 4, 2)
        single.build((6, 5))
        single.set_weights(
            [w[:, network] if len(w) == 2 and w.ndim >= 3 and w.shape[1] == 3 else w[network]
             for w in bank.get_weights()]
        )  # fmt: skip
        np.testing.assert_allclose(outputs[network], single(inputs[network].T).numpy().T, atol=1e-6)


def test_core_steps_as_its_cell_does(make_features):
    core = DisRNN(3, update_units=4, num_update_layers=2, seed=1)
    features = make_features(sessions=4, rows=6)
    latents = core(features)
    state = core.cell.get_initial_state(4)
    for row in range(6):
        output, state = core.cell(features[:, row], state)
        np.testing.assert_allclose(output, latents[:, row], atol=1e-6)
    half = core(features[:, 3:], initial_state=latents[:, 2])
    np.testing.assert_allclose(half, latents[:, 3:], atol=1e-6)


def test_core_in_an_ordinary_keras_rnn(make_features):
    cell = DisRNNCell(3, seed=1)
    features = make_features(sessions=4, rows=6)
    plain = keras.layers.RNN(cell, return_sequences=True)(features)
    core = DisRNN(3, seed=1)
    np.testing.assert_allclose(core(features), plain, atol=1e-6)


def test_padding_moves_no_latent(make_features):
    core = DisRNN(3, seed=1)
    features = make_features(sessions=2, rows=8, lengths=(8, 5))
    latents = core(features).numpy()
    assert np.all(latents[1, 5:] == latents[1, 4])
    whole = np.nan_to_num(features)
    masked = core(whole, mask=~np.isnan(features[..., 0]))
    np.testing.assert_array_equal(masked, latents)
    gap = features.copy()
    gap[0, 3] = np.nan
    latents = core(gap).numpy()
    assert np.all(latents[0, 3] == latents[0, 2])
    assert not np.allclose(latents[0, 4], latents[0, 3])


def test_noise_only_in_training_and_only_when_not_frozen(make_features):
    features = make_features()
    core = DisRNN(3, seed=1)
    clean = core(features).numpy()
    np.testing.assert_array_equal(core(features), clean)
    noisy = core(features, training=True).numpy()
    assert not np.allclose(noisy, clean)
    assert not np.allclose(core(features, training=True), noisy)
    core.trainable = False
    np.testing.assert_array_equal(core(features, training=True), clean)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DisRNN(0), "latents: expected a whole number of at least 1, got 0"),
        (lambda: DisRNN(2.5), "latents: expected a whole number"),
        (lambda: DisRNN(2, max_latent_value=-1), "max_latent_value: expected a number above 0"),
        (lambda: DisRNN(2, stateful=True), "unknown argument 'stateful'"),
        (lambda: ResidualMLP(2, 4, -1), "layers: expected a whole number of at least 0, got -1"),
        (lambda: ResidualMLP(2, 4, 1, activation="leeky"), "leeky"),
        (lambda: ResidualMLP(2, 4, 1, activation=None), "activation: expected the name"),
        (lambda: DopamineReadout(1, 4, 2, timing="during"), "expected 'pre' or 'post'"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
