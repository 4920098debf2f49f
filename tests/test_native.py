"""The native recurrence: the numbers of Keras, its gradients, its noise, and where it runs."""

import logging
import shutil
import subprocess
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_disrnn import DisRNN, DisRNNModel, native
from keras_disrnn import core as core_module

AVAILABLE = native.why_not("tanh", keras.DTypePolicy("float32"))
needs_library = pytest.mark.skipif(AVAILABLE is not None, reason=str(AVAILABLE))


def twins(latents, observations, units, layers, activation="leaky_relu", dtype="float32", seed=0):
    """A Keras and a native core with the same parameters, all of them random."""
    rng = np.random.default_rng(seed)
    cores = [
        DisRNN(latents, units, layers, activation, 1.5, seed=1, implementation=how, dtype=dtype)
        for how in ("keras", "native")
    ]
    for core in cores:
        core.build((None, None, observations))
    for first, second in zip(*(core.trainable_variables for core in cores), strict=True):
        value = first.numpy() + 0.1 * rng.normal(size=first.shape)
        first.assign(value)
        second.assign(value)
    return cores


def make_case(rng, sessions, rows, latents, observations, dtype="float32"):
    """Ragged features with missed rows, a mask, given noise and weights that make a loss."""

    def normal(*shape):
        return rng.normal(size=shape).astype(dtype)

    features = normal(sessions, rows, observations)
    features[rng.random((sessions, rows)) < 0.15] = np.nan
    for session in range(0, sessions, 2):
        features[session, rng.integers(0, rows + 1) :] = np.nan
    noise = {
        "update_obs": normal(rows, latents, observations, sessions),
        "update_latent": normal(rows, latents, latents, sessions),
        "latent": normal(rows, latents, sessions),
    }
    mask = rng.random((sessions, rows)) > 0.1
    return features, mask, noise, normal(sessions, latents), normal(sessions, rows, latents)


def evaluate(core, case, noisy):
    """Latents, costs of the real rows, and the gradients of a loss of both, by name."""
    features, mask, noise, initial, weights = case
    real = tf.constant(mask & ~np.isnan(features).all(-1))
    features, initial = tf.constant(features), tf.constant(initial)
    with tf.GradientTape() as tape:
        tape.watch([features, initial])
        # The learned initial latents take part as well.
        start = initial + core.cell.get_initial_state(len(initial))[0]
        latents, costs = core(
            features, start, mask=mask, training=noisy, return_costs=True, noise=noise
        )
        costs = {name: tf.where(real, cost, 0.0) for name, cost in costs.items()}
        loss = tf.reduce_sum(latents * weights)
        loss += tf.add_n([tf.reduce_sum(cost) for cost in costs.values()])
        loss /= len(weights)
    sources = {
        "features": features,
        "initial": initial,
        **{v.path.split("cell/")[1]: v.value for v in core.trainable_variables},
    }
    gradients = tape.gradient(loss, list(sources.values()), unconnected_gradients="zero")
    return {
        "latents": latents,
        **costs,
        **{f"d {name}": gradient for name, gradient in zip(sources, gradients, strict=True)},
    }


def assert_same(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name in expected:
        a, b = np.asarray(got[name]), np.asarray(expected[name])
        scale = max(1.0, np.abs(b).max()) if b.size else 1.0
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=name)


@needs_library
@pytest.mark.parametrize("activation", native.ACTIVATIONS)
@pytest.mark.parametrize("noisy", [False, True])
def test_every_activation_gives_the_numbers_of_keras(activation, noisy, rng):
    slow, fast = twins(3, 2, 5, 2, activation)
    case = make_case(rng, 37, 9, 3, 2)
    assert_same(evaluate(fast, case, noisy), evaluate(slow, case, noisy), 1e-5)


@needs_library
@pytest.mark.parametrize(
    ("dtype", "activation", "tolerance"),
    # TensorFlow keeps the slope of leaky ReLU in float32, also for float64.
    [("float32", "leaky_relu", 1e-5), ("float32", "tanh", 1e-5), ("float64", "tanh", 1e-11)],
)
def test_long_sessions_give_the_numbers_of_keras(dtype, activation, tolerance, rng):
    slow, fast = twins(4, 2, 8, 4, activation, dtype)
    case = make_case(rng, 70, 120, 4, 2, dtype)
    assert_same(evaluate(fast, case, True), evaluate(slow, case, True), tolerance)


@needs_library
@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(
    sessions=st.integers(1, 80),
    rows=st.integers(1, 6),
    latents=st.integers(1, 7),
    observations=st.integers(1, 5),
    units=st.integers(1, 18),
    layers=st.integers(0, 3),
    activation=st.sampled_from(sorted(native.ACTIVATIONS)),
    noisy=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_gives_the_numbers_of_keras(
    sessions, rows, latents, observations, units, layers, activation, noisy, seed
):
    slow, fast = twins(latents, observations, units, layers, activation, seed=seed)
    case = make_case(np.random.default_rng(seed), sessions, rows, latents, observations)
    assert_same(evaluate(fast, case, noisy), evaluate(slow, case, noisy), 1e-5)


def arrays_of(core):
    return native.Parameters(*(t.numpy() for t in native.Parameters.of_cell(core.cell)))


@needs_library
@pytest.mark.parametrize("activation", sorted(set(native.ACTIVATIONS) - {"swish"}))
def test_gradients_are_those_of_finite_differences(activation, rng):
    core = twins(3, 2, 4, 2, activation, "float64")[1]
    features, mask, _, initial, weights = make_case(rng, 9, 6, 3, 2, "float64")
    mean_weights = rng.normal(size=weights.shape)
    recurrence = native.Recurrence(activation, 1.5)
    options = {"mask": mask, "seed": (3, 4)}
    real = (~np.isnan(features))[..., :]
    inputs = [features, initial, *arrays_of(core)]

    def loss(arrays):
        z, mu = recurrence.forward(*arrays[:2], native.Parameters(*arrays[2:]), **options)
        return np.sum(z * weights) + np.sum(mu * mean_weights)

    parameters = native.Parameters(*inputs[2:])
    latents, _ = recurrence.forward(*inputs[:2], parameters, **options)
    dfeatures, dinitial, gradients = recurrence.backward(
        *inputs[:2], parameters, latents, weights, mean_weights, **options
    )
    names = ("features", "initial", *native.Parameters._fields)
    for i, (name, gradient) in enumerate(
        zip(names, (dfeatures, dinitial, *gradients), strict=True)
    ):
        direction = rng.normal(size=gradient.shape) * (real if name == "features" else 1.0)
        step = 1e-6 * direction
        ends = [
            loss([a + sign * step if i == j else a for j, a in enumerate(inputs)])
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(
            np.sum(gradient * direction), expected, rtol=1e-5, atol=1e-5, err_msg=name
        )


@needs_library
def test_numbers_do_not_depend_on_the_threads(rng):
    core = twins(3, 2, 5, 2)[1]
    features, mask, _, initial, weights = make_case(rng, 333, 7, 3, 2)
    parameters = arrays_of(core)
    before = None
    for threads in (1, 2, 5):
        recurrence = native.Recurrence("leaky_relu", 1.5, threads=threads)
        latents, means = recurrence.forward(features, initial, parameters, mask, (1, 2))
        gradients = recurrence.backward(
            features, initial, parameters, latents, weights, weights, mask, (1, 2)
        )
        results = [latents, means, *gradients[:2], *gradients[2]]
        for result, same in zip(results, before or results, strict=True):
            np.testing.assert_array_equal(result, same)
        before = results


@needs_library
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_instruction_set_gives_the_same_numbers(dtype, rng):
    core = twins(3, 2, 5, 2, "gelu", dtype)[1]
    features, mask, _, initial, weights = make_case(rng, 100, 7, 3, 2, dtype)
    parameters = arrays_of(core)
    before = None
    best = native.INSTRUCTIONS.index(native.best_instructions())
    for instructions in native.INSTRUCTIONS[: best + 1]:
        recurrence = native.Recurrence("gelu", 1.5, instructions=instructions)
        latents, _ = recurrence.forward(features, initial, parameters, mask, (1, 2))
        gradients = recurrence.backward(
            features, initial, parameters, latents, weights, weights, mask, (1, 2)
        )
        results = [latents, *gradients[:2], *gradients[2]]
        for result, same in zip(results, before or results, strict=True):
            np.testing.assert_allclose(result, same, rtol=1e-4, atol=1e-5)
        before = results


def philox(counters, keys):
    """Philox4x32-10 of Salmon et al. (2011), by its definition: 4 x counters to 4 x words."""
    x = [np.asarray(c, np.uint64) for c in np.broadcast_arrays(*counters)]
    low = np.uint64(0xFFFFFFFF)
    keys = list(keys)
    for _ in range(10):
        a, b = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        x = [
            (b >> np.uint64(32)) ^ x[1] ^ np.uint64(keys[0]),
            b & low,
            (a >> np.uint64(32)) ^ x[3] ^ np.uint64(keys[1]),
            a & low,
        ]
        keys = [(keys[0] + 0x9E3779B9) % 2**32, (keys[1] + 0xBB67AE85) % 2**32]
    return np.array(x)


def draws(latents, observations, sessions, rows, seed, dtype="float32"):
    """The library's draws as one array, (rows, latents, observations + latents + 1, sessions)."""
    core = twins(latents, observations, 4, 0, dtype=dtype)[1]
    recurrence = native.Recurrence("tanh", 2.0)
    features = np.zeros((sessions, rows, observations), dtype)
    noise = recurrence.draws(features, np.zeros((sessions, latents), dtype), arrays_of(core), seed)
    return np.concatenate([noise[0], noise[1], noise[2][:, :, None]], axis=2)


def test_the_generator_of_this_test_gives_the_published_words():
    # The known answers that its authors' library, Random123, is tested with.
    words = philox((0, 0, 0, 0), (0, 0))
    assert [hex(word) for word in words] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    words = philox((2**32 - 1,) * 4, (2**32 - 1,) * 2)
    assert [hex(word) for word in words] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


@needs_library
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_is_philox_through_box_muller(dtype):
    latents, observations, sessions, rows, seed = 3, 2, 45, 4, (12345, 2**32 - 7)
    noise = draws(latents, observations, sessions, rows, seed, dtype)
    groups = 2  # of four draws, for the six of each latent
    row, latent, group, session = np.ogrid[:rows, :latents, :groups, :sessions]
    words = philox((row, session, latent * groups + group, 0), seed)
    expected = []
    for w0, w1 in (words[:2], words[2:]):
        radius = np.sqrt(-2 * np.log(((w0 >> np.uint64(1)) + 0.5) / 2.0**31))
        angle = (w1 % np.uint64(2**29)) * (np.pi / 4 / 2**29)
        pair = np.array([np.cos(angle), np.sin(angle)]) * radius
        pair = np.where((w1 >> np.uint64(29)) % np.uint64(2) == 1, pair[::-1], pair)
        signs = np.array([w1 >> np.uint64(31), (w1 >> np.uint64(30)) % np.uint64(2)])
        expected += list(pair * np.where(signs == 1, -1.0, 1.0))
    expected = np.moveaxis(np.array(expected), 0, 3).reshape(rows, latents, groups * 4, sessions)
    np.testing.assert_allclose(noise, expected[:, :, :6], atol=2e-6)


@needs_library
def test_noise_is_standard_normal_and_independent():
    noise = draws(3, 2, 400, 50, (7, 1)).astype("float64")
    count = noise.size
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        error = 5 * np.sqrt(variance / count)
        assert abs(np.mean(noise**power) - moment) < error, power
    assert 4.0 < np.abs(noise).max() < 6.7
    ordered = np.sort(noise.ravel())
    normal = 0.5 * (1 + tf.math.erf(ordered / np.sqrt(2)).numpy())
    assert np.abs(normal - (np.arange(count) + 0.5) / count).max() < 1.95 / np.sqrt(count)

    # Elements, rows and sessions, neighbours and squares too, and other seeds.
    elements = noise.reshape(50, 18, 400).transpose(1, 0, 2).reshape(18, -1)
    for values in (elements, elements**2):
        correlations = np.corrcoef(values) - np.eye(18)
        assert np.abs(correlations).max() < 5 / np.sqrt(elements.shape[1])
    bound = 5 / np.sqrt(count)
    for a, b in (
        (noise[1:], noise[:-1]),
        (noise[..., 1:], noise[..., :-1]),
        (noise[2:], noise[:-2]),
    ):
        assert abs(np.mean(a * b)) < bound * 1.05
        assert abs(np.mean((a**2 - 1) * (b**2 - 1))) / 2 < bound * 1.05
    for seed in ((7, 2), (8, 1)):
        assert abs(np.mean(noise * draws(3, 2, 400, 50, seed))) < bound


@needs_library
def test_a_draw_belongs_to_its_element_row_and_session():
    few = draws(3, 2, 5, 4, (7, 1))
    np.testing.assert_array_equal(draws(3, 2, 90, 11, (7, 1))[:4, ..., :5], few)


@needs_library
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_drawn_noise_is_used_as_given_noise_is(dtype, rng):
    core = twins(3, 2, 5, 2, dtype=dtype)[1]
    features, mask, _, initial, weights = make_case(rng, 50, 6, 3, 2, dtype)
    parameters = arrays_of(core)
    recurrence = native.Recurrence("leaky_relu", 1.5)
    noise = recurrence.draws(features, initial, parameters, (5, 6))
    results = []
    for option in ({"seed": (5, 6)}, {"noise": noise}):
        latents, means = recurrence.forward(features, initial, parameters, mask, **option)
        gradients = recurrence.backward(
            features, initial, parameters, latents, weights, weights, mask, **option
        )
        results.append([latents, means, *gradients[:2], *gradients[2]])
    for drawn, given in zip(*results, strict=True):
        np.testing.assert_array_equal(drawn, given)


@needs_library
def test_noise_follows_the_layers_seed(make_features):
    def passes():
        core = DisRNN(3, seed=5, implementation="native")
        return [core(make_features(4, 6) * 0, training=True).numpy() for _ in range(2)]

    first, second = passes()
    assert np.abs(first - second).max() > 1e-3
    for again, expected in zip(passes(), (first, second), strict=True):
        np.testing.assert_array_equal(again, expected)


@needs_library
def test_a_value_missing_from_a_row_is_not_hidden(make_features):
    features = make_features(3, 5)
    features[1, 2, 0] = np.nan
    latents = DisRNN(2, seed=1, implementation="native")(features).numpy()
    assert np.isnan(latents[1, 2:]).all()
    assert np.isfinite(latents[[0, 2]]).all()


@needs_library
def test_fit_takes_the_same_course_in_both(make_features):
    features = make_features(40, 12, lengths=(12, 7, 5))
    targets = np.random.default_rng(0).integers(0, 2, (40, 12))
    weights = (~np.isnan(features).all(-1)).astype("float32")
    courses = []
    for how in ("keras", "native"):
        model = DisRNNModel(signals=0, latents=2, update_layers=1, seed=2, implementation=how)
        assert model.core.implementation == how
        model.noise = False
        model.compile(
            keras.optimizers.SGD(0.5),
            {"choice": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        )
        history = model.fit(
            features,
            {"choice": targets},
            20,
            3,
            0,
            sample_weight={"choice": weights},
            shuffle=False,
        )
        courses.append((history.history["loss"], model(features)["choice"]))
    np.testing.assert_allclose(courses[1][0], courses[0][0], rtol=1e-5)
    assert courses[0][0][-1] != courses[0][0][0]
    np.testing.assert_allclose(courses[1][1], courses[0][1], atol=1e-4)


def operations(core, features, **options):
    """Types of the operations that a graph of the core has."""
    spec = tf.TensorSpec((None, None, features.shape[-1]), features.dtype)
    graph = tf.function(lambda x: core(x, **options)).get_concrete_function(spec).graph
    return {op.type for op in graph.get_operations()}


@needs_library
def test_what_is_disabled_is_traced_in_keras_operations(make_features):
    features = make_features()
    for how in ("auto", "native"):
        core = DisRNN(3, seed=1, implementation=how)
        expected = core(features)
        assert any("PyFunc" in name for name in operations(core, features))
        with native.disabled():
            assert not any("PyFunc" in name for name in operations(core, features))
            np.testing.assert_allclose(core(features), expected, atol=1e-6)
        assert not native.is_disabled()


@needs_library
def test_a_graph_with_open_shapes_runs_natively(make_features):
    core = DisRNN(3, seed=1, implementation="native")
    features = make_features(5, 8, lengths=(8, 4))
    run = tf.function(core, input_signature=[tf.TensorSpec((None, None, 2))])
    for some in (features, features[:2, :5]):
        np.testing.assert_allclose(run(some), core(some), atol=1e-6)


@pytest.fixture
def fresh_log(monkeypatch, caplog):
    monkeypatch.setattr(core_module, "_logged", set())
    caplog.set_level(logging.WARNING, logger=core_module.__name__)
    return caplog


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"activation": "softsign"}, "the activation 'softsign' is not among linear, relu"),
        ({"dtype": "mixed_float16"}, "mixes dtypes"),
        ({"dtype": "float16"}, "the dtype is float16"),
    ],
)
def test_auto_says_once_why_it_falls_back(options, reason, make_features, fresh_log):
    features = make_features()
    core = DisRNN(3, **options)
    for _ in range(2):
        assert np.isfinite(core(features)).all()
    assert [reason in record.message for record in fresh_log.records] == [True]
    with pytest.raises(RuntimeError, match=f"implementation='native' cannot run here: .*{reason}"):
        DisRNN(3, implementation="native", **options)(features)


def test_auto_falls_back_under_xla(make_features, fresh_log):
    core = DisRNN(2, update_layers=1, seed=1)
    features = make_features(3, 4)
    core.build(features.shape)
    compiled = tf.function(core, jit_compile=True)(features)
    np.testing.assert_allclose(compiled, core(features), atol=1e-5)
    if AVAILABLE is None:
        assert "jit_compile=True" in fresh_log.text


def test_without_the_library_auto_runs_in_keras(make_features, fresh_log, monkeypatch):
    features = make_features()
    core = DisRNN(3, seed=1)
    expected = core(features)
    fresh_log.clear()
    monkeypatch.setattr(native, "_load", lambda: (None, "it is not there"))
    np.testing.assert_allclose(core(features), expected, atol=1e-6)
    assert "it is not there" in fresh_log.text
    with pytest.raises(RuntimeError, match="it is not there"):
        native.Recurrence("tanh", 2.0)


def test_auto_leaves_a_gpu_to_keras(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [f"a {kind}"])
    assert "GPU" in native.why_not("tanh", keras.DTypePolicy("float32"))


def test_implementation_is_checked_and_kept():
    with pytest.raises(ValueError, match="implementation: expected one of .*, got 'cuda'"):
        DisRNN(3, implementation="cuda")
    assert (
        DisRNN.from_config(DisRNN(3, implementation="keras").get_config()).implementation == "keras"
    )
    model = DisRNNModel(implementation="keras")
    assert DisRNNModel.from_config(model.get_config()).core.implementation == "keras"


@needs_library
def test_second_derivatives_are_refused(make_features):
    core = DisRNN(2, seed=1, implementation="native")
    features = tf.constant(make_features(2, 3))
    with tf.GradientTape() as outer:
        outer.watch(features)
        with tf.GradientTape() as inner:
            inner.watch(features)
            total = tf.reduce_sum(core(features))
        gradient = inner.gradient(total, features)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        outer.gradient(gradient, features)


@needs_library
def test_arrays_that_do_not_fit_are_refused(rng):
    core = twins(2, 2, 4, 1)[1]
    features, mask, noise, initial, _ = make_case(rng, 3, 4, 2, 2)
    noise = tuple(noise.values())
    parameters = arrays_of(core)
    recurrence = native.Recurrence("tanh", 2.0)
    with pytest.raises(TypeError, match="initial: expected float32, as features are, got float64"):
        recurrence.forward(features, initial.astype("float64"), parameters)
    with pytest.raises(TypeError, match="features: expected float32 or float64, got float16"):
        recurrence.forward(features.astype("float16"), initial, parameters)
    for inputs, name in (
        ((features[:2], initial), "initial"),
        ((features[..., :1], initial), "input_kernel"),
        (
            (features, initial, parameters._replace(update_sigma=np.ones((2, 3), "f4"))),
            "update_sigma",
        ),
        ((features, initial, parameters, mask[:, :2]), "mask"),
        ((features, initial, parameters, mask, None, (*noise[:2], noise[2][:3])), "latent noise"),
    ):
        inputs = (*inputs, parameters)[: max(3, len(inputs))]
        with pytest.raises(ValueError, match=f"{name}: expected shape .*, got"):
            recurrence.forward(*inputs)
    with pytest.raises(ValueError, match=r"latents: expected shape \(3, 4, 2\) and float32, got"):
        recurrence.backward(features, initial, parameters, features[:, :2], features)
    with pytest.raises(ValueError, match="instructions: expected one of .*, got 'mmx'"):
        native.Recurrence("tanh", 2.0, instructions="mmx")


@needs_library
def test_the_order_of_an_array_in_memory_is_no_matter(rng):
    core = twins(3, 2, 5, 2)[1]
    features, mask, _, initial, weights = make_case(rng, 20, 6, 3, 2)
    parameters = arrays_of(core)
    recurrence = native.Recurrence("tanh", 1.5)
    results = []
    for order in (np.ascontiguousarray, np.asfortranarray):
        inputs = (order(features), order(initial), native.Parameters(*map(order, parameters)))
        latents, means = recurrence.forward(*inputs, order(mask), (1, 2))
        gradients = recurrence.backward(
            *inputs, order(latents), order(weights), order(weights), order(mask), (1, 2)
        )
        results.append([latents, means, *gradients[:2], *gradients[2]])
    for plain, other in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, other)


@needs_library
@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2)])
def test_nothing_to_run_gives_nothing(shape):
    core = twins(3, 2, 5, 2)[1]
    features = tf.zeros(shape)
    with tf.GradientTape() as tape:
        latents = core(features, training=True)
        total = tf.reduce_sum(latents)
    assert latents.shape == (*shape[:2], 3)
    for gradient in tape.gradient(total, core.trainable_variables, unconnected_gradients="zero"):
        assert not np.any(gradient)


@pytest.mark.slow
def test_sanitizers_find_nothing():
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    script = Path(native.__file__).parent / "sanitize.sh"
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing found") == 2
