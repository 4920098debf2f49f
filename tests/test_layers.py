"""The layers: configuration, noise, masks, penalties, and use in any Keras model."""

import inspect

import keras
import numpy as np
import oracle
import pytest

from keras_disrnn import (
    ChoiceReadout,
    DisRNN,
    DisRNNCell,
    DopamineReadout,
    InformationBottleneck,
    ResidualMLP,
    SubjectEmbedding,
)

NETWORK = {"units": 4, "num_layers": 2}
GROUPS = {"latent": 0.1, "update_obs": 0.2, "update_latent": 0.3}
LAYERS = [
    (InformationBottleneck, {"use_multiplier": False, "penalty_weight": 0.5}, (2, 5, 3)),
    (InformationBottleneck, {"num_networks": 4}, (2, 3, 7)),
    (ResidualMLP, {"num_outputs": 2, "units": 4, "num_layers": 3, "activation": "tanh"}, (2, 5, 3)),
    (
        ResidualMLP,
        {"num_outputs": 2, "units": 4, "num_layers": 0, "num_networks": 3, "l2_scale": 0.5},
        (5, 3, 6, 7),
    ),
    (DisRNN, {"num_latents": 3, "update_units": 4, "num_update_layers": 1}, (2, 5, 2)),
    (
        DisRNN,
        {
            "num_latents": 3,
            "activation": "tanh",
            "max_latent_value": 1.5,
            "implementation": "keras",
            "penalty_weight": GROUPS,
            "l2_scale": 0.5,
        },
        (2, 5, 2),
    ),
    (ChoiceReadout, {"num_outputs": 3, "subject_units": 1, **NETWORK}, (2, 5, 3)),
    (DopamineReadout, {"num_outputs": 1, "timing": "post", **NETWORK}, (2, 5, 5)),
    (SubjectEmbedding, {"num_subjects": 3, "units": 2, "penalty_weight": 0.5}, (2, 5)),
]


@pytest.mark.parametrize(("layer", "config", "shape"), LAYERS)
def test_the_configuration_rebuilds_the_same_layer(layer, config, shape, rng):
    inputs = rng.integers(0, 2, shape).astype("float32")
    first = layer(**config, seed=3)
    outputs = first(inputs)
    again = layer.from_config(first.get_config())
    assert again.get_config() == first.get_config()
    assert first.get_config().items() >= config.items()
    again.build(shape)
    for ours, theirs in zip(again.weights, first.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(again(inputs), outputs)
    assert tuple(outputs.shape) == tuple(first.compute_output_shape(shape))
    assert len(again.trainable_weights) > 0


@pytest.mark.parametrize(
    ("layer", "config"),
    [*((layer, config) for layer, config, _ in LAYERS), (DisRNNCell, {"num_latents": 2})],
)
def test_every_argument_has_an_attribute_and_an_entry_in_the_configuration(layer, config):
    made = layer(**config, seed=3)
    arguments = {
        name
        for base in layer.__mro__
        if base.__module__.startswith("keras_disrnn")
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }
    assert arguments >= {"seed", *config}
    for name in arguments:
        assert made.get_config()[name] == getattr(made, name), name


def test_clones_of_a_model_start_from_the_same_weights():
    inputs = keras.Input((None, 2))
    latents = DisRNN(3, seed=1)(inputs)
    outputs = [
        ChoiceReadout(2, seed=2, **NETWORK)(latents),
        ResidualMLP(2, seed=3, **NETWORK)(InformationBottleneck(seed=4)(latents)),
        keras.layers.RNN(DisRNNCell(2, seed=5), return_sequences=True)(latents),
    ]
    model = keras.Model(inputs, outputs)
    clone = keras.models.clone_model(model)
    assert len(model.trainable_weights) > 30
    for ours, theirs in zip(clone.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("layer", "config", "shape"), LAYERS)
def test_initial_weights_follow_from_the_seed(layer, config, shape):
    def weights(seed):
        made = layer(**config, seed=seed)
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


def test_bottlenecks_start_open_and_a_closed_one_costs_nothing():
    bottleneck = InformationBottleneck(num_networks=4, seed=0)
    bottleneck.build((None, 50, None))
    sigma = bottleneck.sigma.numpy()
    assert sigma.shape == (4, 50)
    assert sigma.min() >= 1e-5
    assert 0.045 < sigma.max() <= 0.05001
    bottleneck.raw_sigma.assign(np.full((4, 50), 1.0 - 1e-5))
    bottleneck.raw_multiplier.assign(np.zeros((4, 50)))
    np.testing.assert_allclose(bottleneck.kl(np.ones((2, 50), "float32")), 0.0, atol=1e-5)


def test_costs_are_float32_in_half_precision():
    half = InformationBottleneck(dtype="mixed_float16")
    half.build((None, 2))
    half.raw_sigma.assign([0.0, 0.0])
    cost = half.kl(np.zeros((1, 2), "float16"))
    assert cost.dtype == "float32"
    np.testing.assert_allclose(cost, 0.5 * 2 * (1e-10 - 1 - 2 * np.log(1e-5)), rtol=1e-5)


def test_initial_weights_have_the_specified_spread():
    network = ResidualMLP(64, units=100, num_layers=4, seed=1)
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


def test_several_networks_at_once_equal_each_network_alone(rng):
    bank = ResidualMLP(2, **NETWORK, num_networks=3)
    inputs = rng.normal(size=(3, 5, 6)).astype("float32")
    outputs = bank(inputs)
    for network in range(3):
        single = ResidualMLP(2, **NETWORK)
        single.build((6, 5))
        single.set_weights(
            [w[:, network] if len(w) == 2 and w.ndim >= 3 and w.shape[1] == 3 else w[network]
             for w in bank.get_weights()]
        )  # fmt: skip
        np.testing.assert_allclose(outputs[network], single(inputs[network].T).numpy().T, atol=1e-6)


def test_the_core_equals_its_cell_step_by_step(make_features):
    core = DisRNN(3, update_units=4, num_update_layers=2, seed=1)
    features = make_features(sessions=4, rows=6)
    latents = core(features)
    state = core.cell.get_initial_state(4)
    for row in range(6):
        output, state = core.cell(features[:, row], state)
        np.testing.assert_allclose(output, latents[:, row], atol=1e-6)
    half = core(features[:, 3:], initial_state=latents[:, 2])
    np.testing.assert_allclose(half, latents[:, 3:], atol=1e-6)


def test_the_core_equals_its_cell_in_a_keras_rnn(make_features):
    cell = DisRNNCell(3, seed=1)
    features = make_features(sessions=4, rows=6)
    plain = keras.layers.RNN(cell, return_sequences=True)(features)
    core = DisRNN(3, seed=1)
    np.testing.assert_allclose(core(features), plain, atol=1e-6)


def test_padding_and_masked_time_steps_leave_the_latents(make_features):
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


def test_noise_is_for_training_and_not_for_frozen_layers(make_features):
    features = make_features()
    core = DisRNN(3, seed=1)
    clean = core(features).numpy()
    np.testing.assert_array_equal(core(features), clean)
    noisy = core(features, training=True).numpy()
    assert not np.allclose(noisy, clean)
    assert not np.allclose(core(features, training=True), noisy)
    core.trainable = False
    np.testing.assert_array_equal(core(features, training=True), clean)


# === Penalties of layers on their own ===


def kl_of(bottleneck, inputs):
    """The mean KL divergence of a time step, by hand."""
    means = inputs * oracle.multiplier(bottleneck)
    rows = [oracle.kl(row, oracle.sigma(bottleneck)) for row in means.reshape(-1, means.shape[-1])]
    return np.mean(rows)


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
@pytest.mark.parametrize("training", [False, True])
def test_the_added_loss_of_a_bottleneck_is_its_kl(dtype, training, rng):
    bottleneck = InformationBottleneck(penalty_weight=0.3, seed=0, dtype=dtype)
    inputs = rng.integers(0, 2, (4, 5, 3)).astype("float32")
    bottleneck(inputs, training=training)
    (loss,) = bottleneck.losses
    assert loss.dtype == "float32"
    np.testing.assert_allclose(loss, 0.3 * kl_of(bottleneck, inputs), rtol=1e-5)
    mask = np.arange(5)[None] < np.array([5, 2, 0, 3])[:, None]
    bottleneck(inputs, mask=mask)
    np.testing.assert_allclose(
        bottleneck.losses, [0.3 * kl_of(bottleneck, inputs[mask])], rtol=1e-5
    )
    bottleneck(inputs, mask=np.zeros((4, 5), bool))
    np.testing.assert_array_equal(bottleneck.losses, [0.0])


def test_the_added_loss_of_bottlenecks_of_several_networks_is_their_kl(rng):
    bottleneck = InformationBottleneck(num_networks=3, penalty_weight=0.3, seed=0)
    inputs = rng.normal(size=(5, 4, 7)).astype("float32")
    bottleneck(inputs)
    sigma = oracle.sigma(bottleneck)
    expected = [
        sum(oracle.kl(column, sigma[network]) for network in range(3))
        for column in np.swapaxes(inputs, 1, 2).reshape(-1, 4)
    ]
    np.testing.assert_allclose(bottleneck.losses, [0.3 * np.mean(expected)], rtol=1e-5)


def test_the_added_loss_of_a_network_is_its_l2(rng):
    network = ResidualMLP(2, l2_scale=0.3, seed=0, **NETWORK)
    network(np.ones((2, 3), "float32"))
    expected = 0.3 * np.square(network.hidden_kernel.numpy()).sum()
    np.testing.assert_allclose(network.losses, [expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "inputs"), [(ChoiceReadout(2, **NETWORK), 3), (DopamineReadout(1, **NETWORK), 5)]
)
def test_the_added_losses_of_a_readout_are_kl_and_l2(layer, inputs, rng):
    config = {**layer.get_config(), "penalty_weight": 0.3, "l2_scale": 0.2, "seed": 0}
    readout = type(layer).from_config(config)
    inputs = rng.normal(size=(4, 5, inputs)).astype("float32")
    readout(inputs, training=True)
    l2 = np.square(readout.network.hidden_kernel.numpy()).sum()
    np.testing.assert_allclose(
        readout.losses, [0.3 * kl_of(readout.bottleneck, inputs), 0.2 * l2], rtol=1e-5
    )
    layer(inputs)
    assert layer.losses == []


@pytest.mark.parametrize("implementation", ["keras", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_added_losses_of_the_core_are_kl_and_l2(implementation, dtype, make_features):
    features = make_features(sessions=3, rows=7, lengths=(7, 4, 6))
    features[0, 2] = np.nan
    core = DisRNN(
        3, seed=1, implementation=implementation, penalty_weight=GROUPS, l2_scale=0.2, dtype=dtype
    )
    core(features)
    found = core.losses
    mask = ~np.isnan(features[..., 0])
    mask[1, 1] = False
    costs = {name: 0.0 for name in GROUPS}
    for session in range(3):
        _, each = oracle.run_core(core.cell, features[session])
        for name in GROUPS:
            costs[name] += each[name][~np.isnan(features[session, :, 0])].sum()
    expected = [GROUPS[name] * costs[name] / (7 + 4 + 6 - 1) for name in GROUPS]
    l2 = np.square(core.cell.update_network.hidden_kernel.numpy()).sum()
    np.testing.assert_allclose(found, [*expected, 0.2 * l2], rtol=2e-5)
    # A mask leaves further time steps out.
    _, costs = core(features, mask=mask, return_costs=True)
    expected = [GROUPS[name] * np.sum(costs[name]) / mask.sum() for name in GROUPS]
    np.testing.assert_allclose(core.losses[:3], expected, rtol=2e-5)


def test_one_penalty_weight_of_the_core_is_for_all_groups(make_features):
    features = make_features()
    core = DisRNN(3, seed=1, penalty_weight=0.1)
    _, costs = core(features, return_costs=True)
    np.testing.assert_allclose(
        core.losses, [0.1 * np.mean(costs[name]) for name in GROUPS], rtol=1e-5
    )
    assert core.penalty_weight == dict.fromkeys(GROUPS, 0.1)


def test_the_added_loss_of_an_embedding_is_its_kl():
    embedding = SubjectEmbedding(3, units=2, penalty_weight=0.3, seed=0)
    mean = np.asarray(embedding(np.array([[0, 2, 2]])))
    sigma = oracle.sigma(embedding.bottleneck)
    expected = np.mean([oracle.kl(row, sigma) for row in mean[0]])
    np.testing.assert_allclose(embedding.losses, [0.3 * expected], rtol=1e-5)
    noisy = embedding(np.array([[0, 2, 2]]), training=True)
    assert not np.allclose(noisy, mean)


def test_frozen_layers_add_no_loss(make_features):
    core = DisRNN(3, penalty_weight=0.1, l2_scale=0.1)
    core.trainable = False
    core(make_features())
    bottleneck = InformationBottleneck(penalty_weight=0.1, trainable=False)
    bottleneck(np.ones((2, 3), "float32"))
    assert core.losses == bottleneck.losses == []


def test_a_plain_keras_model_trains_with_the_penalty(rng):
    """A penalty closes the bottleneck of an input that carries no information."""
    inputs = rng.normal(size=(256, 3)).astype("float32")
    targets = 2.0 * inputs[:, :1]
    model = keras.Sequential(
        [InformationBottleneck(penalty_weight=0.05, seed=0), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.03), "mse")
    history = model.fit(inputs, targets, batch_size=64, epochs=40, verbose=0).history
    sigma = model.layers[0].sigma.numpy()
    assert sigma[0] < 0.3
    assert (sigma[1:] > 0.7).all()
    assert history["loss"][-1] < history["loss"][0]
    got = model.evaluate(inputs, targets, batch_size=256, verbose=0)
    error = np.mean((model.predict(inputs, verbose=0) - targets) ** 2)
    np.testing.assert_allclose(got, error + 0.05 * kl_of(model.layers[0], inputs), rtol=1e-4)


# === Any Keras model ===


def fit_save_and_load(model, features, targets, path, **fit):
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    history = model.fit(features, targets, epochs=3, verbose=0, **fit).history["loss"]
    assert history[-1] < history[0]
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(
        loaded.predict(features, verbose=0), model.predict(features, verbose=0)
    )
    assert len(loaded.weights) == len(model.weights)
    return history


def test_the_core_works_in_a_sequential_model(make_features, tmp_path):
    features = make_features(sessions=20, rows=8, lengths=(8, 5, 3))
    targets = np.nan_to_num(features[..., 0]).astype("int32")
    penalty = {}
    for weight in (None, 1e-3):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [DisRNN(num_latents=3, seed=1, penalty_weight=weight), keras.layers.Dense(2)]
        )
        penalty[weight] = fit_save_and_load(model, features, targets, tmp_path / "model.keras")
    assert penalty[1e-3][0] > penalty[None][0] + 1e-3


def test_the_cell_works_in_a_functional_rnn(make_features, tmp_path):
    features = make_features(sessions=20, rows=8)
    inputs = keras.Input((None, 2))
    latents = keras.layers.RNN(DisRNNCell(num_latents=3, seed=1), return_sequences=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(latents))
    targets = features[..., 0].astype("int32")
    fit_save_and_load(model, features, targets, tmp_path / "model.keras")


@pytest.mark.parametrize("implementation", ["keras", "auto"])
def test_the_core_passes_on_masks_and_padding(implementation, make_features):
    features = make_features(sessions=4, rows=6, lengths=(6, 4, 2))
    features[3, 1:] = -1.0
    real = ~np.isnan(features[..., 0]) & (features[..., 0] != -1.0)
    core = DisRNN(3, seed=1, implementation=implementation)
    model = keras.Sequential([keras.layers.Masking(-1.0), core])
    latents = model(features)
    np.testing.assert_array_equal(latents._keras_mask, real)
    np.testing.assert_array_equal(core.compute_mask(features, real), real)
    np.testing.assert_array_equal(core.compute_mask(features), ~np.isnan(features[..., 0]))
    expected = core(np.where(real[..., None], features, np.nan))
    np.testing.assert_allclose(latents, expected, atol=1e-6)
    np.testing.assert_allclose(core(features, mask=real), expected, atol=1e-6)


def test_losses_leave_padding_out_behind_the_core(make_features):
    features = make_features(sessions=4, rows=6, lengths=(6, 4, 2, 0))
    real = ~np.isnan(features[..., 0])
    targets = np.zeros((4, 6), "int32")
    model = keras.Sequential(
        [DisRNN(3, seed=1, penalty_weight=0.1), ChoiceReadout(2, penalty_weight=0.2, **NETWORK)]
    )
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
    )
    got = model.evaluate(features, targets, batch_size=4, verbose=0)
    logits = model.predict(features, verbose=0)
    log_p = logits[..., 0] - np.log(np.exp(logits).sum(-1))
    core, readout = model.layers
    latents, costs = core(features, return_costs=True)
    kl = 0.1 * sum(np.sum(cost) for cost in costs.values()) / real.sum()
    kl += 0.2 * kl_of(readout.bottleneck, np.asarray(latents)[real])
    np.testing.assert_allclose(got, -log_p[real].mean() + kl, rtol=1e-5)


# === Bad arguments ===


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DisRNN(0), "num_latents: expected a whole number of at least 1, got 0"),
        (lambda: DisRNN(2.5), "num_latents: expected a whole number of at least 1, got 2.5"),
        (
            lambda: DisRNN(2, max_latent_value=-1),
            "max_latent_value: expected a finite number of at",
        ),
        (lambda: DisRNN(2, max_latent_value=0), "max_latent_value: expected a number above 0, got"),
        (lambda: DisRNN(2, update_units=0), "update_units: expected a whole number of at least 1"),
        (lambda: DisRNN(2, num_update_layers=-1), "num_update_layers: expected a whole number of"),
        (
            lambda: DisRNN(2, stateful=True),
            "DisRNN: expected .*, got the unknown argument 'stateful'",
        ),
        (lambda: DisRNN(2, seed=-1), "seed: expected a whole number of at least 0, got -1"),
        (lambda: DisRNN(2, penalty_weight=-1), "penalty_weight: expected a finite number of at"),
        (
            lambda: DisRNN(2, penalty_weight={"latent": 1}),
            "penalty_weight: expected a number, or a",
        ),
        (
            lambda: DisRNN(2, penalty_weight={**GROUPS, "latent": "1"}),
            r"penalty_weight\['latent'\]: expected a finite number of at least 0, got '1'",
        ),
        (lambda: DisRNN(2, l2_scale=np.inf), "l2_scale: expected a finite number of at least 0"),
        (lambda: InformationBottleneck(num_networks=0), "num_networks: expected a whole number of"),
        (lambda: InformationBottleneck(seed="1"), "seed: expected a whole number of at least 0"),
        (lambda: InformationBottleneck(penalty_weight=True), "penalty_weight: expected a finite"),
        (
            lambda: ResidualMLP(2, units=4, num_layers=-1),
            "num_layers: expected a whole number of at least 0, got -1",
        ),
        (
            lambda: ResidualMLP(0, units=4, num_layers=1),
            "num_outputs: expected a whole number of at",
        ),
        (lambda: ResidualMLP(2, units=4, num_layers=1, num_networks=0), "num_networks: expected a"),
        (
            lambda: ResidualMLP(2, units=4, num_layers=1, activation="leeky"),
            "activation: expected the name of a Keras activation, .*, got 'leeky'",
        ),
        (
            lambda: ResidualMLP(2, units=4, num_layers=1, activation=None),
            "activation: expected the name of a Keras activation, .*, got None",
        ),
        (lambda: ChoiceReadout(2, **NETWORK, subject_units=-1), "subject_units: expected a whole"),
        (
            lambda: DopamineReadout(1, **NETWORK, timing="during"),
            "timing: expected 'pre' or 'post', got 'during'",
        ),
        (
            lambda: SubjectEmbedding(0, units=2),
            "num_subjects: expected a whole number of at least 1",
        ),
        (
            lambda: SubjectEmbedding(2049, units=2, dtype="float16"),
            "num_subjects: expected at most 2048 in float16",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
