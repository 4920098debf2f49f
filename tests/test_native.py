"""The native library: the same numbers as Keras, its gradients, its noise, and when it runs."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_disrnn import (
    ChoiceReadout,
    DisRNN,
    DisRNNModel,
    DopamineReadout,
    baselines,
    compile_stage,
    native,
)
from keras_disrnn.layers import implementation
from keras_disrnn.native import arrays, library, passes
from keras_disrnn.objectives import losses

AVAILABLE = native.why_not("tanh", keras.DTypePolicy("float32"))
needs_library = pytest.mark.skipif(AVAILABLE is not None, reason=str(AVAILABLE))


def twins(latents, observations, units, layers, activation="leaky_relu", dtype="float32", seed=0):
    """Make a Keras core and a native core with the same random parameters."""
    rng = np.random.default_rng(seed)
    cores = [
        DisRNN(
            latents,
            update_units=units,
            num_update_layers=layers,
            activation=activation,
            max_latent_value=1.5,
            seed=1,
            implementation=how,
            dtype=dtype,
        )
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
    """Make sessions of different lengths with missed trials, a mask, noise and loss weights."""

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
    """Return latents, costs of real time steps, and the gradients of a loss of both, by name."""
    features, mask, noise, initial, weights = case
    real = tf.constant(mask & ~np.isnan(features).all(-1))
    features, initial = tf.constant(features), tf.constant(initial)
    with tf.GradientTape() as tape:
        tape.watch([features, initial])
        # Include the learned initial latents.
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
def test_every_activation_gives_the_same_numbers_as_keras(activation, noisy, rng):
    slow, fast = twins(3, 2, 5, 2, activation)
    case = make_case(rng, 37, 9, 3, 2)
    assert_same(evaluate(fast, case, noisy), evaluate(slow, case, noisy), 1e-5)


@needs_library
@pytest.mark.parametrize(
    ("dtype", "activation", "tolerance"),
    # TensorFlow has the slope of leaky ReLU in float32, also for float64.
    [("float32", "leaky_relu", 1e-5), ("float32", "tanh", 1e-5), ("float64", "tanh", 1e-11)],
)
def test_long_sessions_give_the_same_numbers_as_keras(dtype, activation, tolerance, rng):
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
def test_any_shape_gives_the_same_numbers_as_keras(
    sessions, rows, latents, observations, units, layers, activation, noisy, seed
):
    slow, fast = twins(latents, observations, units, layers, activation, seed=seed)
    case = make_case(np.random.default_rng(seed), sessions, rows, latents, observations)
    assert_same(evaluate(fast, case, noisy), evaluate(slow, case, noisy), 1e-5)


def arrays_of(core):
    return native.Parameters(*(t.numpy() for t in native.Parameters.of_cell(core.cell)))


def both_passes(recurrence, features, initial, parameters, weights, mask=None, **noise):
    """Return all results of a forward and a backward pass, which share the drawn noise."""
    inputs = features, initial
    latents, costs, kept = recurrence.forward(inputs, parameters, mask=mask, **noise, costs=True)
    upstream = weights, [weights[..., 0]] * len(costs)
    gradients, of_parameters = recurrence.backward(
        inputs, parameters, latents, *upstream, mask=mask, **noise, kept=kept
    )
    return [latents, *costs, *gradients, *of_parameters]


@needs_library
@pytest.mark.parametrize("activation", sorted(set(native.ACTIVATIONS) - {"swish"}))
def test_gradients_equal_finite_differences(activation, rng):
    core = twins(3, 2, 4, 2, activation, "float64")[1]
    features, mask, _, initial, weights = make_case(rng, 9, 6, 3, 2, "float64")
    cost_weights = [rng.normal(size=weights.shape[:2]) for _ in native.COSTS]
    recurrence = native.Recurrence(activation, 1.5)
    options = {"mask": mask, "seed": (3, 4)}
    real = (~np.isnan(features))[..., :]
    inputs = [features, initial, *arrays_of(core)]

    def loss(arrays):
        parameters = native.Parameters(*arrays[2:])
        z, costs, _ = recurrence.forward(arrays[:2], parameters, **options, costs=True)
        upstream = [weights, *cost_weights]
        return sum(np.sum(a * b) for a, b in zip([z, *costs], upstream, strict=True))

    parameters = native.Parameters(*inputs[2:])
    latents, _, kept = recurrence.forward(inputs[:2], parameters, **options)
    gradients, of_parameters = recurrence.backward(
        inputs[:2], parameters, latents, weights, cost_weights, **options, kept=kept
    )
    names = ("features", "initial", *native.Parameters._fields)
    for i, (name, gradient) in enumerate(zip(names, (*gradients, *of_parameters), strict=True)):
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
def test_results_do_not_depend_on_the_number_of_threads(rng):
    core = twins(3, 2, 5, 2)[1]
    features, mask, _, initial, weights = make_case(rng, 333, 7, 3, 2)
    parameters = arrays_of(core)
    before = None
    for threads in (1, 2, 5):
        recurrence = native.Recurrence("leaky_relu", 1.5, threads=threads)
        results = both_passes(recurrence, features, initial, parameters, weights, mask, seed=(1, 2))
        for result, same in zip(results, before or results, strict=True):
            np.testing.assert_array_equal(result, same)
        before = results


@needs_library
@pytest.mark.parametrize("sessions", [1, 8, 16, 17, 33, 40, 64, 97])
@pytest.mark.parametrize("instructions", native.INSTRUCTIONS)
def test_blocks_of_any_number_of_sessions_give_the_same_numbers(instructions, sessions, rng):
    # Many more rows than the gradients are summed over at once.
    if native.INSTRUCTIONS.index(instructions) > native.INSTRUCTIONS.index(
        native.best_instructions()
    ):
        pytest.skip(f"this machine has no {instructions}")
    core = twins(3, 2, 8, 2)[1]
    features, mask, _, initial, weights = make_case(rng, sessions, 50, 3, 2)
    parameters = arrays_of(core)
    wide = type(parameters)(*(array.astype("float64") for array in parameters))
    results = [
        both_passes(
            native.Recurrence("leaky_relu", 1.5, instructions=instructions),
            *(array.astype(dtype) for array in (features, initial)),
            values,
            weights.astype(dtype),
            mask,
            seed=(1, 2),
        )
        for dtype, values in (("float32", parameters), ("float64", wide))
    ]
    for result, exact in zip(*results, strict=True):
        scale = max(1.0, np.abs(exact).max(initial=0))
        np.testing.assert_allclose(result, exact, rtol=0, atol=1e-4 * scale)


@needs_library
def test_a_forked_process_has_threads_of_its_own(rng):
    core = twins(3, 2, 5, 2)[1]
    features, mask, _, initial, weights = make_case(rng, 333, 7, 3, 2)
    recurrence = native.Recurrence("leaky_relu", 1.5, threads=3)
    arguments = (features, initial, arrays_of(core), weights, mask)
    before = both_passes(recurrence, *arguments, seed=(1, 2))
    process = os.fork()
    if process == 0:
        after = both_passes(recurrence, *arguments, seed=(1, 2))
        os._exit(0 if all(map(np.array_equal, before, after)) else 3)
    for _ in range(600):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            assert status == 0
            return
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    pytest.fail("the pass in the forked process did not end")


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
        results = both_passes(recurrence, features, initial, parameters, weights, mask, seed=(1, 2))
        for result, same in zip(results, before or results, strict=True):
            np.testing.assert_allclose(result, same, rtol=1e-4, atol=1e-5)
        before = results


def philox(counters, keys):
    """Compute Philox4x32-10 (Salmon et al. 2011) by its definition: 4 counters to 4 words."""
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
    """Return the draws as an array (time steps, latents, observations + latents + 1, sessions)."""
    core = twins(latents, observations, 4, 0, dtype=dtype)[1]
    recurrence = native.Recurrence("tanh", 2.0)
    features = np.zeros((sessions, rows, observations), dtype)
    inputs = features, np.zeros((sessions, latents), dtype)
    noise = recurrence.draws(inputs, arrays_of(core), seed)
    return np.concatenate([noise[0], noise[1], noise[2][:, :, None]], axis=2)


def test_the_generator_in_this_test_gives_the_published_words():
    # The known answers in the tests of Random123, the library of its authors.
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

    # Between elements, time steps, sessions and seeds; for neighbours and for squares too.
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
def test_a_draw_depends_only_on_its_element_time_step_and_session():
    few = draws(3, 2, 5, 4, (7, 1))
    np.testing.assert_array_equal(draws(3, 2, 90, 11, (7, 1))[:4, ..., :5], few)


@needs_library
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_drawn_noise_and_given_noise_have_the_same_effect(dtype, rng):
    core = twins(3, 2, 5, 2, dtype=dtype)[1]
    features, mask, _, initial, weights = make_case(rng, 50, 6, 3, 2, dtype)
    parameters = arrays_of(core)
    recurrence = native.Recurrence("leaky_relu", 1.5)
    noise = recurrence.draws((features, initial), parameters, (5, 6))
    results = [
        both_passes(recurrence, features, initial, parameters, weights, mask, **option)
        for option in ({"seed": (5, 6)}, {"noise": noise})
    ]
    for drawn, given in zip(*results, strict=True):
        np.testing.assert_array_equal(drawn, given)


@needs_library
def test_noise_that_is_too_large_to_keep_is_drawn_again(rng, monkeypatch):
    core = twins(3, 2, 5, 2)[1]
    features, mask, _, initial, weights = make_case(rng, 50, 6, 3, 2)
    recurrence = native.Recurrence("leaky_relu", 1.5)
    results = []
    noise = {"mask": mask, "seed": (1, 2)}
    for most in (passes.MOST_KEPT, 100):
        monkeypatch.setattr(passes, "MOST_KEPT", most)
        kept = recurrence.forward((features, initial), arrays_of(core), **noise)[2]
        assert (kept.size > 0) == (most > 100)
        results.append(
            both_passes(recurrence, features, initial, arrays_of(core), weights, **noise)
        )
    for once, twice in zip(*results, strict=True):
        np.testing.assert_array_equal(once, twice)


@needs_library
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kept_noise_may_be_anywhere_in_memory(dtype, rng):
    core = twins(3, 2, 5, 2, dtype=dtype)[1]
    features, mask, _, initial, weights = make_case(rng, 50, 6, 3, 2, dtype)
    recurrence = native.Recurrence("leaky_relu", 1.5)
    inputs = ((features, initial), arrays_of(core))
    latents, _, kept = recurrence.forward(*inputs, mask=mask, seed=(1, 2))
    results = []
    for shift in range(3):
        memory = arrays.empty((kept.size + shift,), dtype)
        memory[shift:] = kept
        gradients, of_parameters = recurrence.backward(
            *inputs, latents, weights, mask=mask, seed=(1, 2), kept=memory[shift:]
        )
        results.append([*gradients, *of_parameters])
    for result in results[1:]:
        for gradient, same in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(gradient, same)


@needs_library
def test_noise_follows_from_the_seed_of_the_layer(make_features):
    def passes():
        core = DisRNN(3, seed=5, implementation="native")
        return [core(make_features(4, 6) * 0, training=True).numpy() for _ in range(2)]

    first, second = passes()
    assert np.abs(first - second).max() > 1e-3
    for again, expected in zip(passes(), (first, second), strict=True):
        np.testing.assert_array_equal(again, expected)


@needs_library
def test_one_missing_value_in_a_time_step_gives_nan(make_features):
    features = make_features(3, 5)
    features[1, 2, 0] = np.nan
    latents = DisRNN(2, seed=1, implementation="native")(features).numpy()
    assert np.isnan(latents[1, 2:]).all()
    assert np.isfinite(latents[[0, 2]]).all()


@needs_library
def test_fit_has_the_same_history_in_both(make_features):
    features = make_features(40, 12, lengths=(12, 7, 5))
    targets = np.random.default_rng(0).integers(0, 2, (40, 12))
    weights = (~np.isnan(features).all(-1)).astype("float32")
    courses = []
    for how in ("keras", "native"):
        model = DisRNNModel(
            num_signals=0, num_latents=2, num_update_layers=1, seed=2, implementation=how
        )
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
    """Return the types of the operations in a graph of the core."""
    spec = tf.TensorSpec((None, None, features.shape[-1]), features.dtype)
    graph = tf.function(lambda x: core(x, **options)).get_concrete_function(spec).graph
    return {op.type for op in graph.get_operations()}


@needs_library
def test_predict_evaluate_and_latents_run_natively(make_features, monkeypatch):
    calls = []
    call = native.Pass._call

    def noting(self, name, *arguments):
        calls.append((type(self).__name__, name))
        call(self, name, *arguments)

    monkeypatch.setattr(native.Pass, "_call", noting)
    features = make_features(4, 6)
    model = DisRNNModel(num_latents=2, seed=1)
    compile_stage(model, "joint")
    targets = {"choice": np.zeros((4, 6), "int32"), "dopamine": np.zeros((4, 6, 1), "float32")}
    weights = {name: np.ones_like(target, "float32") for name, target in targets.items()}
    core, readout = ("Recurrence", "forward"), ("Readout", "forward")
    for run, expected in (
        (lambda: model.predict(features, verbose=0), {core, readout}),
        (
            lambda: model.evaluate(features, targets, sample_weight=weights, verbose=0),
            {core, readout},
        ),
        (lambda: model.compute_latents(features), {core}),
    ):
        calls.clear()
        run()
        assert set(calls) == expected


@needs_library
def test_disabled_traces_keras_operations(make_features):
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
def test_a_graph_with_unknown_shapes_runs_natively(make_features):
    core = DisRNN(3, seed=1, implementation="native")
    features = make_features(5, 8, lengths=(8, 4))
    run = tf.function(core, input_signature=[tf.TensorSpec((None, None, 2))])
    for some in (features, features[:2, :5]):
        np.testing.assert_allclose(run(some), core(some), atol=1e-6)


@pytest.fixture
def fresh_log(monkeypatch, caplog):
    monkeypatch.setattr(implementation, "_logged", set())
    caplog.set_level(logging.WARNING, logger=implementation.__name__)
    return caplog


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"activation": "softsign"}, "the activation 'softsign' is not among linear, relu"),
        ({"dtype": "mixed_float16"}, "mixes dtypes"),
        ({"dtype": "float16"}, "the dtype is float16"),
    ],
)
def test_auto_logs_once_why_it_runs_in_keras(options, reason, make_features, fresh_log):
    features = make_features()
    core = DisRNN(3, **options)
    for _ in range(2):
        assert np.isfinite(core(features)).all()
    assert [reason in record.message for record in fresh_log.records] == [True]
    with pytest.raises(RuntimeError, match=f"got 'native', which cannot run: .*{reason}"):
        DisRNN(3, implementation="native", **options)(features)


def test_auto_runs_in_keras_under_xla(make_features, fresh_log):
    core = DisRNN(2, num_update_layers=1, seed=1)
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
    monkeypatch.setattr(library, "load", lambda: (None, "it is not there"))
    np.testing.assert_allclose(core(features), expected, atol=1e-6)
    assert "it is not there" in fresh_log.text
    with pytest.raises(RuntimeError, match="it is not there"):
        native.Recurrence("tanh", 2.0)


def test_auto_runs_in_keras_on_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [f"a {kind}"])
    assert "GPU" in native.why_not("tanh", keras.DTypePolicy("float32"))


def test_the_implementation_is_checked_and_saved():
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
        recurrence.forward((features, initial.astype("float64")), parameters)
    with pytest.raises(TypeError, match="features: expected float32 or float64, got float16"):
        recurrence.forward((features.astype("float16"), initial), parameters)
    fits = {"inputs": (features, initial), "parameters": parameters}
    for changed, name in (
        ({"inputs": (features[:2], initial)}, "initial"),
        ({"inputs": (features[..., :1], initial)}, "input_kernel"),
        (
            {"parameters": parameters._replace(update_sigma=np.ones((2, 3), "f4"))},
            "update_sigma",
        ),
        ({"mask": mask[:, :2]}, "mask"),
        ({"noise": (*noise[:2], noise[2][:3])}, "latent_noise"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected shape .*, got"):
            recurrence.forward(**{**fits, **changed})
    latents = np.zeros((3, 4, 2), "float32")
    for outputs, gradient, costs, name in (
        (latents[:, :2], latents, (), "outputs"),
        (latents, latents[:2], (), "outputs_gradient"),
        (latents, latents, [latents[..., :1]], "latent_cost_gradient"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected shape .*, got"):
            recurrence.backward(
                **fits, outputs=outputs, outputs_gradient=gradient, cost_gradients=costs
            )
    with pytest.raises(TypeError, match="outputs_gradient: expected float32, as features are, got"):
        recurrence.backward(**fits, outputs=latents, outputs_gradient=latents.astype("float64"))
    with pytest.raises(ValueError, match="instructions: expected one of .*, got 'mmx'"):
        native.Recurrence("tanh", 2.0, instructions="mmx")


@needs_library
def test_the_memory_order_of_arrays_has_no_effect(rng):
    core = twins(3, 2, 5, 2)[1]
    features, mask, _, initial, weights = make_case(rng, 20, 6, 3, 2)
    parameters = arrays_of(core)
    recurrence = native.Recurrence("tanh", 1.5)
    results = []
    for order in (np.ascontiguousarray, np.asfortranarray):
        inputs = (order(features), order(initial), native.Parameters(*map(order, parameters)))
        results.append(both_passes(recurrence, *inputs, order(weights), order(mask), seed=(1, 2)))
    for plain, other in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, other)


IMPLEMENTATIONS = ["keras", pytest.param("native", marks=needs_library)]
EMPTY = [(0, 3, 2), (3, 0, 2), (0, 0, 2)]


@pytest.mark.parametrize("how", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", EMPTY)
@pytest.mark.parametrize("noisy", [False, True])
def test_empty_batches_give_empty_results(how, shape, noisy):
    core = DisRNN(3, update_units=5, num_update_layers=2, seed=1, implementation=how)
    core.build((None, None, 2))

    def run(features):
        with tf.GradientTape() as tape:
            latents, costs = core(features, training=noisy, return_costs=True)
            total = tf.add_n([tf.reduce_sum(part) for part in (latents, *costs.values())])
        gradients = tape.gradient(total, core.trainable_variables, unconnected_gradients="zero")
        return latents, costs, gradients

    graph = tf.function(run, input_signature=[tf.TensorSpec((None, None, 2))])
    for call in (run, graph):
        latents, costs, gradients = call(tf.zeros(shape))
        assert latents.shape == (*shape[:2], 3)
        assert {cost.shape for cost in costs.values()} == {tf.TensorShape(shape[:2])}
        assert not any(np.any(gradient) for gradient in gradients)


@pytest.mark.parametrize("how", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", EMPTY)
def test_a_model_of_subjects_gives_empty_results_for_empty_batches(how, shape):
    model = DisRNNModel(
        num_latents=2, update_units=3, num_update_layers=1, subjects=2, subject_units=1,
        implementation=how,
    )  # fmt: skip
    features = np.zeros((*shape[:2], 3), "float32")
    outputs = model(features, training=True)
    assert outputs["choice"].shape == (*shape[:2], 2)
    assert outputs["dopamine"].shape == (*shape[:2], 1)
    assert {penalty.shape for penalty in model.penalties(features).values()} == {
        tf.TensorShape(shape[:2])
    }


@pytest.mark.parametrize("shape", EMPTY)
def test_a_cognitive_model_gives_empty_results_for_empty_batches(shape):
    model = baselines.QLearning(alpha=0.3, kappa_1=2.0, kappa_2=0.5)
    graph = tf.function(model, input_signature=[tf.TensorSpec((None, None, 2))])
    for call in (model, graph):
        assert call(tf.zeros(shape))["choice"].shape == (*shape[:2], 2)


@needs_library
@pytest.mark.parametrize("value", [1e10, 1e30, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh", "gelu"])
def test_huge_and_infinite_values_give_the_same_numbers_as_keras(value, activation, rng):
    # The library pads five units to eight: what is padded must not matter here either.
    slow, fast = twins(3, 2, 5, 2, activation)
    features, _, *rest = make_case(rng, 6, 4, 3, 2)
    features = np.where(np.isnan(features), np.float32(0.5), features)
    features[2, 1, 0] = features[4, 2, 1] = value
    case = (features, np.ones((6, 4), bool), *rest)
    got, expected = evaluate(fast, case, False), evaluate(slow, case, False)
    for name in expected:
        a, b = np.asarray(got[name], "float64"), np.asarray(expected[name], "float64")
        scale = max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0.0))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


# === Readouts ===


def readouts(kind, latents, units, layers, outputs, activation="leaky_relu", dtype="float32"):
    """Make a Keras readout and a native readout with the same random parameters."""
    rng = np.random.default_rng(latents)
    pair = []
    for how in ("keras", "native"):
        options = {"units": units, "num_layers": layers, "activation": activation}
        options |= {"implementation": how, "dtype": dtype}
        if kind == "choice":
            pair.append(ChoiceReadout(outputs, **options))
        else:
            pair.append(DopamineReadout(outputs, timing=kind, **options))
        pair[-1].build((None, None, latents + pair[-1].num_observed))
    for first, second in zip(*(readout.trainable_variables for readout in pair), strict=True):
        value = rng.normal(size=first.shape) * 0.5
        first.assign(value)
        second.assign(value)
    return pair


def readout_case(rng, kind, sessions, rows, latents, observations, outputs, dtype="float32"):
    def normal(*shape):
        return tf.constant(rng.normal(size=shape), dtype)

    features = rng.normal(size=(sessions, rows, observations))
    features[rng.random((sessions, rows)) < 0.2] = np.nan
    inputs = latents + (0 if kind == "choice" else 2)
    return {
        "latents": normal(sessions, rows, latents),
        "features": tf.constant(features, dtype),
        "initial": normal(latents),
        "noise": normal(sessions, rows, inputs),
        "weights": normal(sessions, rows, outputs),
        "cost_weights": normal(sessions, rows),
    }


def evaluate_readout(readout, case, noisy):
    """Return outputs, cost, and the gradients of a loss of both, by name."""
    sources = {name: case[name] for name in ("latents", "features", "initial")}
    with tf.GradientTape() as tape:
        tape.watch(list(sources.values()))
        outputs, cost = readout.read_sessions(
            *sources.values(), training=noisy, noise=case["noise"]
        )
        loss = tf.reduce_sum(outputs * case["weights"]) + tf.reduce_sum(cost * case["cost_weights"])
    sources |= {variable.path: variable.value for variable in readout.trainable_variables}
    gradients = tape.gradient(loss, list(sources.values()), unconnected_gradients="zero")
    # Keras adds a number to the names of layers.
    names = [name.partition("/")[2] or name for name in sources]
    return {
        "outputs": outputs,
        "cost": cost,
        **{f"d {name}": gradient for name, gradient in zip(names, gradients, strict=True)},
    }


@needs_library
@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
@hypothesis.given(
    kind=st.sampled_from(["choice", "pre", "post"]),
    sessions=st.integers(1, 30),
    rows=st.integers(1, 7),
    latents=st.integers(1, 6),
    observations=st.integers(2, 4),
    units=st.integers(1, 9),
    layers=st.integers(0, 3),
    outputs=st.integers(2, 7),
    activation=st.sampled_from(sorted(native.ACTIVATIONS)),
    noisy=st.booleans(),
)
def test_any_readout_gives_the_same_numbers_as_keras(
    kind, sessions, rows, latents, observations, units, layers, outputs, activation, noisy
):
    slow, fast = readouts(kind, latents, units, layers, outputs, activation)
    rng = np.random.default_rng(sessions)
    case = readout_case(rng, kind, sessions, rows, latents, observations, outputs)
    got, expected = (evaluate_readout(readout, case, noisy) for readout in (fast, slow))
    assert_same(got, expected, 1e-5)


@needs_library
@pytest.mark.parametrize("kind", ["choice", "pre", "post"])
def test_gradients_of_a_readout_equal_finite_differences(kind, rng):
    readout = readouts(kind, 3, 5, 2, 2, "tanh", "float64")[1]
    case = {
        name: value.numpy()
        for name, value in readout_case(rng, kind, 7, 5, 3, 2, 2, "float64").items()
    }
    run = native.Readout("tanh", observed=readout.num_observed, previous=readout.reads_previous)
    parameters = [t.numpy() for t in native.ReadoutParameters.of_readout(readout)]
    inputs = [case["latents"], case["features"], case["initial"], *parameters]

    def passed(arrays):
        return arrays[:3], native.ReadoutParameters(*arrays[3:])

    def loss(arrays):
        y, (cost,), _ = run.forward(*passed(arrays), seed=(3, 4), costs=True)
        return np.sum(y * case["weights"]) + np.sum(cost * case["cost_weights"])

    gradients, last = run.backward(
        *passed(inputs), case["weights"], case["weights"], [case["cost_weights"]], seed=(3, 4)
    )
    names = ("latents", "features", "initial", *native.ReadoutParameters._fields)
    for i, (name, gradient) in enumerate(zip(names, (*gradients, *last), strict=True)):
        direction = rng.normal(size=gradient.shape)
        if name == "features":
            direction = np.where(np.isnan(case["features"]), 0.0, direction)
        ends = [
            loss([a + 1e-6 * sign * direction if i == j else a for j, a in enumerate(inputs)])
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(
            np.sum(gradient * direction), expected, rtol=1e-5, atol=1e-5, err_msg=name
        )


def passes_of_readout(run, case, parameters, **noise):
    arrays = [case[name].numpy() for name in ("latents", "features", "initial")]
    y, (cost,), kept = run.forward(arrays, parameters, **noise, costs=True)
    upstream = case["weights"].numpy(), [case["cost_weights"].numpy()]
    gradients, last = run.backward(arrays, parameters, y, *upstream, **noise, kept=kept)
    return [y, cost, *gradients, *last]


@needs_library
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_noise_of_a_readout_is_the_same_drawn_given_or_in_threads(dtype, rng, monkeypatch):
    readout = readouts("pre", 4, 5, 2, 2, dtype=dtype)[1]
    case = readout_case(rng, "pre", 41, 9, 4, 3, 2, dtype)
    parameters = native.ReadoutParameters(
        *(t.numpy() for t in native.ReadoutParameters.of_readout(readout))
    )
    one, many = (
        native.Readout("leaky_relu", observed=2, previous=True, threads=threads)
        for threads in (1, 3)
    )
    arrays = [case[name].numpy() for name in ("latents", "features", "initial")]
    noise = one.draws(arrays, parameters, (5, 6))
    expected = passes_of_readout(one, case, parameters, noise=noise)
    drawn = [passes_of_readout(run, case, parameters, seed=(5, 6)) for run in (one, many)]
    monkeypatch.setattr(passes, "MOST_KEPT", 100)
    drawn.append(passes_of_readout(many, case, parameters, seed=(5, 6)))
    for results in drawn:
        for result, same in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, same)
    # A draw depends only on its time step and session.
    few = [arrays[0][:7, :4], arrays[1][:7, :4], arrays[2]]
    (drawn_of_few,) = one.draws(few, parameters, (5, 6))
    np.testing.assert_array_equal(drawn_of_few, noise[0][:7, :4])


@needs_library
def test_the_noise_of_a_readout_is_standard_normal_and_independent():
    readout = readouts("choice", 5, 4, 1, 2)[1]
    parameters = native.ReadoutParameters(
        *(t.numpy() for t in native.ReadoutParameters.of_readout(readout))
    )
    run = native.Readout("leaky_relu")
    sessions, rows = 200, 100
    shapes = ((sessions, rows, 5), (sessions, rows, 2), (5,))
    inputs = [np.zeros(shape, "float32") for shape in shapes]
    (noise,) = run.draws(inputs, parameters, (7, 1))
    noise = noise.astype("float64")
    bound = 5 / np.sqrt(noise.size)
    assert abs(noise.mean()) < bound
    assert abs((noise**2).mean() - 1) < bound * np.sqrt(2)
    assert abs((noise**4).mean() - 3) < bound * np.sqrt(96)
    correlations = np.corrcoef(noise.reshape(-1, 5).T) - np.eye(5)
    assert np.abs(correlations).max() < 5 / np.sqrt(sessions * rows)
    for a, b in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1])):
        assert abs(np.mean(a * b)) < bound * 1.05
    (other,) = run.draws(inputs, parameters, (7, 2))
    assert abs(np.mean(noise * other)) < bound


# === The log likelihood of choices ===


@needs_library
@pytest.mark.parametrize("arms", [2, 3, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13)])
def test_log_likelihood_and_its_gradient(arms, dtype, tolerance, rng):
    shape = (13, 7)  # not a multiple of any register
    logits = tf.constant(rng.normal(size=(*shape, arms)) * 8, dtype)
    logits = tf.concat([logits, logits[:1] * 0 + [[0.0] * (arms - 1) + [90.0]]], axis=0)
    choice = tf.constant(rng.integers(0, arms, (14, 7)), "int32")
    upstream = tf.constant(rng.normal(size=(14, 7)), dtype)
    results = []
    for run in (
        losses.log_likelihood,
        lambda c, z: -tf.nn.sparse_softmax_cross_entropy_with_logits(c, z),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            log_p = run(choice, logits)
            total = tf.reduce_sum(log_p * upstream)
        results.append({"log p": log_p, "d logits": tape.gradient(total, logits)})
    assert_same(*results, tolerance)


@needs_library
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("arms", [2, 3])
def test_log_likelihood_of_odd_logits_and_choices_is_that_of_keras(arms, value, dtype, rng):
    # The library takes 4 to 16 choices at a time, and what remains by itself: try both.
    logits = rng.normal(size=(37, arms)).astype(dtype)
    choice = rng.integers(0, arms, 37).astype("int32")
    for first in (0, 32):
        logits[first, 0] = logits[first + 1, -1] = value
        logits[first + 2] = value
        choice[first : first + 5] = [1, 0, 1, arms, -1]
    results = []
    for disabled in (contextlib.nullcontext, native.disabled):
        with disabled(), tf.GradientTape() as tape:
            tensor = tf.constant(logits)
            tape.watch(tensor)
            log_p = losses.log_likelihood(choice, tensor)
        results.append((log_p.numpy(), tape.gradient(log_p, tensor).numpy()))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    if np.isnan(value):
        assert np.isnan(results[0][0][[0, 1, 2, 32, 33, 34]]).all()


def test_the_loss_runs_natively_if_it_can(rng):
    logits = tf.constant(rng.normal(size=(4, 5, 2)), "float32")
    choice = tf.zeros((4, 5), "int32")

    def types():
        graph = tf.function(losses.log_likelihood).get_concrete_function(choice, logits).graph
        return {op.type for op in graph.get_operations()}

    assert any("PyFunc" in name for name in types()) == (AVAILABLE is None)
    with native.disabled():
        assert not any("PyFunc" in name for name in types())


@needs_library
@pytest.mark.parametrize("stage", ["stage1", "stage2", "joint"])
@pytest.mark.parametrize("dopamine_timing", ["pre", "post"])
def test_a_whole_step_is_the_same_in_both(stage, dopamine_timing, make_features, rng):
    """Compare loss, penalties and every gradient of a step without noise."""
    features = make_features(20, 9, lengths=(9, 5, 3))
    real = (~np.isnan(features).all(-1)).astype("float32")
    targets = {
        "choice": rng.integers(0, 2, (20, 9)).astype("int32"),
        "dopamine": rng.normal(size=(20, 9, 1)).astype("float32"),
    }
    weights = {"choice": real, "dopamine": real[..., None]}
    results = []
    for how in ("keras", "native"):
        model = DisRNNModel(
            num_latents=3, update_units=5, num_update_layers=2, dopamine_timing=dopamine_timing,
            latent_penalty=0.1, choice_penalty=0.1, dopamine_penalty=0.1, l2_scale=0.01,
            seed=4, implementation=how,
        )  # fmt: skip
        compile_stage(model, stage)
        model.noise = False
        with tf.GradientTape() as tape:
            outputs = model(features, training=True)
            loss = model.compute_loss(features, targets, outputs, weights)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        names = [v.path.partition("/")[2] for v in model.trainable_variables]
        penalties = model.penalties(features)
        results.append(
            {"loss": loss, **outputs, **penalties}
            | {f"d {name}": g for name, g in zip(names, gradients, strict=True)}
        )
    assert_same(*results, 1e-5)
    assert np.abs(results[0]["loss"]) > 0.1


@pytest.mark.slow
def test_sanitizers_find_nothing():
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    script = Path(native.__file__).parent / "sanitize.sh"
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing found") == 2
