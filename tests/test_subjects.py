"""Models of several subjects: their numbers, their names, new subjects, and their figures."""

import dataclasses
import json

import keras
import numpy as np
import oracle
import pandas as pd
import parameters
import pytest
import scipy.stats
import tensorflow as tf

import keras_disrnn
from keras_disrnn import bandit, native
from keras_disrnn.analysis import (
    compute_bottlenecks,
    compute_choice_rule,
    compute_dopamine_rule,
    compute_embedding_correlations,
    compute_embeddings,
    compute_evaluation,
    compute_formulas,
    compute_graph,
    compute_session_trace,
    compute_subject_rates,
    compute_update_rules,
    describe_graph,
    embedding_of,
    open_embeddings,
    same_graph,
)
from keras_disrnn.cli import main
from keras_disrnn.data import Columns, Sessions, sessions_from_table, split_by_session
from keras_disrnn.data.tfds import examples_from_sessions
from keras_disrnn.experiments import adaptation as adaptations
from keras_disrnn.experiments.adaptation import adapt, adapt_and_score, add_subjects
from keras_disrnn.experiments.folder import ResultFolder
from keras_disrnn.experiments.settings import ModelSettings, plain_config
from keras_disrnn.io import reference as interop
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.plots import plot_bottlenecks, plot_embeddings, plot_update_rules

NAMES = ("ada", "bob", "cyd", "dan")
SMALL = {**parameters.SMALL, "subjects": NAMES, "subject_units": 2}
needs_library = pytest.mark.skipif(
    native.why_not("tanh", keras.DTypePolicy("float32")) is not None, reason="no native library"
)


def make_model(rng=None, **settings):
    """Make a model. With `rng`, all weights get random values, so that none is special."""
    model = keras_disrnn.DisRNNModel(**{**SMALL, **settings})
    if rng is not None:
        for variable in model.trainable_variables:
            variable.assign(variable + 0.3 * rng.normal(size=variable.shape))
    return model


def make_sessions(rng, subjects=NAMES, sessions=8, trials=12, dopamine=True, missed=False):
    """Make random sessions that belong to each subject in turn."""
    shape = (sessions, trials)
    return Sessions.from_trials(
        rng.integers(0, 2, shape).astype(float),
        rng.integers(0, 2, shape),
        dopamine=rng.normal(size=shape) if dopamine else None,
        missed=rng.random(shape) < 0.2 if missed else None,
        subjects=[subjects[i % len(subjects)] for i in range(sessions)],
    )


# === Numbers ===


@pytest.fixture
def reference(golden):
    params, config, arrays = golden("multisubject_small")
    # The reference has the subject first, this package has it last.
    return params, config, np.roll(arrays["xs"], -1, axis=-1), arrays


def test_agrees_with_the_reference_noiseless(reference):
    params, config, features, arrays = reference
    model = interop.from_haiku(params, config)
    expected = arrays["noiseless_outputs"]
    np.testing.assert_allclose(model(features)["choice"], expected[..., :2], atol=1e-5)
    np.testing.assert_allclose(
        model.compute_latents(features), arrays["noiseless_latents"], atol=1e-5
    )
    np.testing.assert_allclose(model.penalties(features)["l2"], expected[..., -1], rtol=1e-4)


def test_agrees_with_the_reference_in_training_mode(reference):
    params, config, features, arrays = reference
    model = interop.from_haiku(params, config)
    for layers in model.bottlenecks.values():
        for layer in layers:
            layer.raw_sigma.assign(np.zeros(layer.raw_sigma.shape))
    penalties = model.penalties(features, training=True)
    assert {"subject", "update_subject", "choice_subject"} <= set(penalties)
    total = sum(np.asarray(penalty) for penalty in penalties.values())
    np.testing.assert_allclose(total, arrays["tiny_sigma_outputs"][..., -1], rtol=1e-4)
    outputs = model(features, training=True)
    np.testing.assert_allclose(outputs["choice"], arrays["tiny_sigma_outputs"][..., :2], atol=2e-3)


def test_parameters_survive_import_and_export_exactly(reference, tmp_path):
    params, config, _, _ = reference
    model = interop.from_haiku(params, config)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        again, config_again = interop.to_haiku(each)
        assert config_again == config
        parameters.assert_same_parameters(again, params)


def test_a_model_survives_export_to_the_reference_and_import(rng):
    model = make_model(rng, num_signals=0, num_observations=4)
    again = interop.from_haiku(*interop.to_haiku(model))
    features = rng.normal(size=(4, 5, 4)).astype("float32")
    features[..., -1] = np.arange(4)[:, None]
    np.testing.assert_array_equal(again(features)["choice"], model(features)["choice"])
    with pytest.raises(ValueError, match="multi-subject model has no neural signal"):
        interop.to_haiku(make_model(dopamine_timing="post"))


@pytest.mark.parametrize("which", ["pre", "post"])
def test_whole_model_agrees_with_plain_numpy(rng, which):
    sessions = make_sessions(rng, missed=True).with_subjects(NAMES)
    model = make_model(rng, dopamine_timing=which, num_signals=1, latent_penalty=0.2)
    for name in model.penalty_names:
        setattr(model, name, rng.uniform(0.1, 1))
    outputs = model(sessions.features)
    penalties = {k: np.asarray(v) for k, v in model.penalties(sessions.features).items()}
    table = np.asarray(model.subject_embedding.table, "float64")
    own = model.subject_embedding.bottleneck
    for session, subject in enumerate(sessions.subjects):
        embedding = table[NAMES.index(subject)]
        real = sessions.row_mask[session]
        assert not real.all() or session
        seen = np.where(real[:, None], sessions.features[session, :, :2], np.nan)
        beside = np.broadcast_to(embedding, (len(seen), 2))
        x = np.where(real[:, None], np.concatenate([seen, beside], axis=1), np.nan)
        latents, _ = oracle.run_core(model.core.cell, x)
        logits, choice_costs = oracle.run_readout(
            model.choice_readout, np.concatenate([latents, beside], axis=1)
        )
        np.testing.assert_allclose(outputs["choice"][session], logits, atol=1e-5)
        before = np.concatenate([model.initial_latents.numpy()[None], latents[:-1]])
        read = np.concatenate(
            [latents if which == "post" else before, np.nan_to_num(seen), beside], axis=1
        )
        responses, dopamine_costs = oracle.run_readout(model.dopamine_readout, read)
        np.testing.assert_allclose(outputs["dopamine"][session], responses, atol=1e-5)

        # The share of each penalty, from the formula of the KL divergence alone.
        def part(bottleneck, value, elements):
            mean = oracle.multiplier(bottleneck)[..., elements] * value
            return oracle.kl(mean, oracle.sigma(bottleneck)[..., elements])

        reads = model.core.cell.update_obs_bottleneck
        shares = {
            "subject": oracle.kl(embedding, oracle.sigma(own)),
            "update_subject": part(reads, embedding, slice(2, 4)),
            "choice_subject": part(model.choice_readout.bottleneck, embedding, slice(3, 5)),
            "dopamine_subject": part(model.dopamine_readout.bottleneck, embedding, slice(5, 7)),
        }
        expected = {name: np.full(len(seen), share) for name, share in shares.items()}
        expected["choice"] = choice_costs - shares["choice_subject"]
        expected["dopamine"] = dopamine_costs - shares["dopamine_subject"]
        expected["update_obs"] = [part(reads, row, slice(2)) for row in seen]
        for name, values in expected.items():
            weight = getattr(model, f"{name}_penalty")
            np.testing.assert_allclose(
                penalties[name][session][real], weight * np.asarray(values)[real],
                rtol=2e-4, err_msg=name,
            )  # fmt: skip
        for name, values in penalties.items():
            assert np.all(values[session][~real] == 0), name


@needs_library
def test_native_and_keras_have_the_same_numbers_and_gradients(rng):
    """Without noise, because the two draw it differently. Finite differences test the noise."""
    sessions = make_sessions(rng, missed=True).with_subjects(NAMES)
    (x, y, weight) = next(iter(sessions.dataset()))
    found = []
    for implementation in ("keras", "native"):
        model = make_model(np.random.default_rng(7), implementation=implementation)
        for name in model.penalty_names:
            setattr(model, name, 0.03 + 0.01 * len(name))
        keras_disrnn.compile_stage(model, "joint")
        model.noise = False
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = model.compute_loss(x, y, outputs, weight)
        variables = {v.path.split("/", 1)[1]: v.value for v in model.trainable_variables}
        gradients = tape.gradient(loss, list(variables.values()))
        found.append({**outputs, "loss": loss, **dict(zip(variables, gradients, strict=True))})
    slow, fast = found
    assert np.abs(slow["subject_embedding/kernel"]).min() > 1e-5
    for name, expected in slow.items():
        np.testing.assert_allclose(fast[name], expected, rtol=1e-4, atol=3e-6, err_msg=name)


def test_gradients_agree_with_finite_differences(rng):
    """Compare the gradients of the joint loss for the embedding in float64, with fixed noise."""
    keras.config.set_floatx("float64")
    try:
        sessions = make_sessions(rng).with_subjects(NAMES)
        (x, y, weight) = next(iter(sessions.dataset()))
        x = tf.cast(x, "float64")
        model = make_model(rng, dtype="float64")
        for name in model.penalty_names:
            setattr(model, name, 0.03 + 0.01 * len(name))
        keras_disrnn.compile_stage(model, "joint")
        states = [(v, v.numpy()) for v in model.variables if "seed_generator" in v.path]
        compute = tf.function(lambda: model.compute_loss(x, y, model(x, training=True), weight))

        def loss():
            for variable, value in states:
                variable.assign(value)
            return compute()

        embedding = model.subject_embedding
        variables = [embedding.kernel, embedding.bias, embedding.bottleneck.raw_sigma]
        variables += [
            model.core.cell.update_obs_bottleneck.raw_sigma,
            model.choice_readout.bottleneck.raw_multiplier,
        ]
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, [v.value for v in variables])
        for variable, gradient in zip(variables, gradients, strict=True):
            start = variable.numpy()
            for place in rng.permutation(list(np.ndindex(start.shape)))[:4]:
                place = tuple(place)
                values = []
                for step in (1e-6, -1e-6):
                    moved = start.copy()
                    moved[place] += step
                    variable.assign(moved)
                    values.append(float(loss()))
                variable.assign(start)
                numeric = (values[0] - values[1]) / 2e-6
                got = np.asarray(gradient)[place]
                assert abs(numeric - got) < 1e-6 * max(1, abs(numeric)), (variable.path, place)
    finally:
        keras.config.set_floatx("float32")


def test_the_embedding_has_new_noise_in_every_time_step_but_none_while_frozen(rng):
    model = make_model()
    model.subject_embedding.bottleneck.raw_sigma.assign([0.5, 1e-5])
    index = np.repeat(np.arange(4.0, dtype="float32")[:, None], 500, axis=1)
    real = np.ones(index.shape, bool)
    table = np.asarray(model.subject_embedding.table)
    noisy, cost = model.subject_embedding.read_sessions(index, real, training=True)
    noise = np.asarray(noisy) - table[:, None]
    assert 0.46 < noise[..., 0].std() < 0.54
    assert np.abs(noise[..., 1]).max() < 1e-3
    assert len(np.unique(noise[..., 0])) > 1900
    np.testing.assert_allclose(
        cost[:, 0],
        [oracle.kl(row, oracle.sigma(model.subject_embedding.bottleneck)) for row in table],
        rtol=1e-5,
    )
    keras_disrnn.compile_stage(model, "stage2")
    assert model.frozen == ("subject_embedding", "core", "choice_readout")
    frozen, _ = model.subject_embedding.read_sessions(index, real, training=True)
    np.testing.assert_array_equal(frozen, np.broadcast_to(table[:, None], frozen.shape))


def test_initial_values_are_those_of_the_reference():
    model = make_model(subjects=400, subject_units=3)
    kernel = model.subject_embedding.kernel.numpy()
    scale = 400**-0.5
    # A normal distribution cut off at two standard deviations has 0.880 of its deviation.
    assert np.abs(kernel).max() <= 2 * scale
    assert kernel.std() == pytest.approx(0.880 * scale, rel=0.05)
    assert not model.subject_embedding.bias.numpy().any()
    for layers in model.bottlenecks.values():
        for layer in layers:
            raw = layer.raw_sigma.numpy()
            assert raw.min() >= 0
            assert raw.max() <= 0.05
            assert layer.raw_multiplier is None or np.all(layer.raw_multiplier.numpy() == 1)


def test_a_model_without_subjects_has_no_parts_for_them():
    model = keras_disrnn.DisRNNModel(num_latents=3, seed=1)
    assert (model.subjects, model.num_subjects, model.subject_units) == ((), 0, 0)
    assert model.get_config()["subjects"] == []
    assert not any("subject" in name for name in model.penalty_names)
    assert not any("subject" in variable.path for variable in model.variables)
    assert "subject" not in model.bottlenecks
    # A version without subjects drew this value.
    assert float(model.initial_latents[0]) == pytest.approx(-0.0647735595703125)
    assert float(model.choice_readout.bottleneck.raw_sigma.numpy()[0]) == pytest.approx(
        0.03145203739404678
    )


# === Sessions and names ===


def test_the_index_of_a_subject_is_its_position_among_the_names(rng):
    sessions = make_sessions(rng, missed=True)
    indexed = sessions.with_subjects(NAMES)
    assert indexed.observation_names == ("choice", "reward", "subject")
    for index, subject in enumerate(sessions.subjects):
        real = indexed.row_mask[index]
        assert set(indexed.features[index, real, -1]) == {NAMES.index(subject)}
        assert np.isnan(indexed.features[index, ~real]).all()
    np.testing.assert_array_equal(indexed.row_mask, sessions.row_mask)
    turned = indexed.with_subjects(NAMES[::-1])
    assert turned.features[0, 0, -1] == NAMES[::-1].index(sessions.subjects[0])
    np.testing.assert_array_equal(turned.with_subjects(()).features, sessions.features)
    assert indexed.for_model(make_model()) is indexed
    (first, *_) = examples_from_sessions(indexed)
    assert "observations" not in first
    with pytest.raises(ValueError, match="expected 0 for 'subject' .subject 'ada'., got 1"):
        features = indexed.features.copy()
        features[0, 0, -1] = 1
        dataclasses.replace(indexed, features=features)


def test_an_unknown_subject_is_named_before_any_work(rng):
    model = make_model()
    strange = make_sessions(rng, subjects=("ada", "bib"))
    for use in (
        lambda: keras_disrnn.train(model, strange),
        lambda: keras_disrnn.train(model, make_sessions(rng), strange),
        lambda: compute_evaluation(model, strange),
        lambda: compute_session_trace(model, strange, 1),
        lambda: compute_formulas(model, strange),
    ):
        with pytest.raises(ValueError, match="subject 'bib' .*did you mean 'bob'"):
            use()


def test_a_wrong_index_is_refused_or_gives_nan(rng):
    model = make_model()
    features = make_sessions(rng).with_subjects(NAMES).features[:2].copy()
    for wrong in (4, -1, 0.5):
        features[0, :, -1] = wrong
        with pytest.raises(ValueError, match="a whole number from 0 to 3"):
            model(features)
        outputs = tf.function(model)(tf.constant(features))
        assert np.isnan(outputs["choice"][0]).all()
        assert np.isfinite(outputs["choice"][1]).all()
    with pytest.raises(ValueError, match="the last is the subject's index"):
        model(features[..., :2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": ["a", "b", "a"]}, "got 'a' more than once"),
        ({"subjects": 2.5}, "subjects: expected names, or their number"),
        ({"subjects": []}, "subjects: expected their names, as subject_units is 2"),
        ({"subject_units": 0}, "subject_units: expected a whole number of at least 1"),
        ({"num_observations": 2}, "num_observations: expected a whole number of at least 3"),
        ({"subject_penalty": -1}, "subject_penalty: expected"),
        ({"subjects": 300, "dtype": "mixed_bfloat16"}, "at most 256 in bfloat16"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_disrnn.DisRNNModel(**{**SMALL, **arguments})


def test_a_saved_model_keeps_the_names_of_its_subjects(rng, tmp_path):
    sessions = make_sessions(rng)
    model = make_model(rng)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.subjects == NAMES
    assert again.get_config() == model.get_config()
    for name, output in model(sessions.for_model(model).features).items():
        np.testing.assert_array_equal(
            again(sessions.for_model(again).features)[name], output, err_msg=name
        )


def test_steps_agree_with_the_whole_session(rng, tmp_path):
    """Steps of the model and of its export equal the whole session, also on missed trials."""
    sessions = make_sessions(rng, missed=True)
    model = make_model(rng)
    features = sessions.for_model(model).features
    outputs = {**model(features), "latents": model.compute_latents(features)}
    keras_disrnn.export.export(model, tmp_path / "export")
    manifest = keras_disrnn.export.check(tmp_path / "export")
    assert manifest["subjects"] == list(NAMES)
    assert "0 ada, 1 bob" in (tmp_path / "export" / "README.md").read_text()
    exported = keras_disrnn.export.load(tmp_path / "export")
    served = exported.serve(features)
    index = np.array([NAMES.index(subject) for subject in sessions.subjects], "float32")
    for step in (model.step, exported.step):
        latents = tf.repeat(model.initial_latents[None], len(features), axis=0)
        for row in range(features.shape[1]):
            one = features[:, row].copy()
            one[:, -1] = index  # the index is given on missed trials too
            stepped = step(tf.constant(one), latents)
            latents = stepped["latents"]
            for name, output in outputs.items():
                np.testing.assert_allclose(served[name][:, row], output[:, row], atol=1e-5)
                np.testing.assert_allclose(stepped[name], output[:, row], atol=1e-5, err_msg=name)
    features[0, 3, -1] = 9
    assert np.isnan(exported.serve(features)["choice"][0]).all()
    assert np.isfinite(exported.serve(features)["choice"][1]).all()


# === Analysis ===


def set_sigmas(model, opened):
    """Close every bottleneck except the given ones, each as (group, target, source)."""
    table = compute_bottlenecks(model)
    sigma = [
        0.01 if row in opened else 1.0
        for row in zip(table["group"], table["target"], table["source"], strict=True)
    ]
    table["sigma"] = sigma

    def of(group, shape):
        return np.reshape(table.loc[table["group"] == group, "sigma"], shape)

    cell = model.core.cell
    model.subject_embedding.bottleneck.raw_sigma.assign(of("subject", 2))
    cell.latent_bottleneck.raw_sigma.assign(of("latent", 3))
    cell.update_obs_bottleneck.raw_sigma.assign(of("update", (3, 7))[:, :4])
    cell.update_latent_bottleneck.raw_sigma.assign(of("update", (3, 7))[:, 4:])
    model.choice_readout.bottleneck.raw_sigma.assign(of("choice", 5))
    model.dopamine_readout.bottleneck.raw_sigma.assign(of("dopamine", 7))
    np.testing.assert_allclose(compute_bottlenecks(model)["sigma"], sigma, atol=1e-4)


OPEN = {
    ("subject", "subject 2", "subject 2"),
    ("latent", "z1", "z1"),
    ("update", "z1", "choice"),
    ("update", "z1", "reward"),
    ("update", "z1", "subject 2"),
    ("update", "z1", "subject 1"),
    ("choice", "choice", "z1"),
    ("dopamine", "dopamine", "subject 2"),
    ("dopamine", "dopamine", "reward"),
}


def test_bottlenecks_and_graph_name_the_embedding(rng):
    model = make_model(rng)
    table = compute_bottlenecks(model)
    assert table["group"].value_counts().to_dict() == {
        "update": 21, "dopamine": 7, "choice": 5, "latent": 3, "subject": 2,
    }  # fmt: skip
    rows = table[table["target"] == "z2"]
    assert rows["source"].tolist() == [
        "z2", "choice", "reward", "subject 1", "subject 2", "z1", "z2", "z3",
    ]  # fmt: skip
    set_sigmas(model, OPEN)
    graph = compute_graph(model)
    assert describe_graph(graph) == (
        "choice, reward, subject 2 > z1; z1 > choice readout; reward, subject 2 > dopamine readout"
    )
    assert open_embeddings(model) == ["subject 2"]
    other = make_model(rng)
    renamed = {tuple(word.replace("subject 2", "subject 1") for word in row) for row in OPEN}
    set_sigmas(other, renamed)
    assert same_graph(compute_graph(other), graph)
    axes = plot_bottlenecks(compute_bottlenecks(model)).axes
    assert [ax.get_title() for ax in axes][:3] == ["subjects", "latents", "update networks"]
    names = [label.get_text() for label in axes[2].get_xticklabels()]
    assert names[:5] == ["choice", "reward", "subject 1", "subject 2", "z1"]


def test_rules_are_those_of_a_subject(rng):
    model = make_model(rng)
    set_sigmas(model, OPEN)
    table = np.asarray(model.subject_embedding.table, "float64")
    np.testing.assert_allclose(embedding_of(model), table.mean(axis=0))
    cell = model.core.cell

    def update(embedding, value, choice, reward):
        latents = model.initial_latents.numpy()
        latents[0] = value
        row = np.concatenate([[choice, reward], embedding]).astype("float32")
        return np.asarray(cell.update(row[None], latents[None]))[0, 0] - value

    for subject, embedding in ((None, table.mean(axis=0)), ("cyd", table[2]), (table[1], table[1])):
        (rule,) = compute_update_rules(model, subject=subject, points=5)
        for case, place in ((0, 0), (2, 4)):
            expected = update(embedding, rule.values[place], rule.choices[case], rule.rewards[case])
            assert rule.change[case, place] == pytest.approx(expected, abs=1e-5)
        ((name, values, changes),) = rule.others
        assert name == "subject 2"
        np.testing.assert_allclose(values[[0, -1]], [table[:, 1].min(), table[:, 1].max()])
        moved = np.array([embedding[0], values[-1]])
        expected = update(moved, rule.values[3], rule.choices[1], rule.rewards[1])
        assert changes[-1, 1, 3] == pytest.approx(expected, abs=1e-5)

        choice = compute_choice_rule(model, subject=subject, points=5)
        latents = model.initial_latents.numpy()
        latents[0] = choice.values[0][2]
        read = np.concatenate([latents, embedding]).astype("float32")[None]
        np.testing.assert_allclose(choice.logits[2], model.choice_readout(read)[0], atol=1e-5)
        assert choice.fixed["subject 1"] == pytest.approx(embedding[0])
        dopamine = compute_dopamine_rule(model, subject=subject)
        read = np.concatenate([model.initial_latents.numpy(), [1, 0], embedding])[None]
        np.testing.assert_allclose(
            dopamine.prediction[2, 0], model.dopamine_readout(read.astype("float32"))[0, 0],
            atol=1e-5,
        )  # fmt: skip
    titles = [ax.get_title() for ax in plot_update_rules(compute_update_rules(model)).axes]
    assert all("subject 2 = " in title for title in titles)
    assert len(titles) == 3
    with pytest.raises(ValueError, match="got 'eve'"):
        compute_choice_rule(model, subject="eve")


def test_formulas_and_rates_are_those_of_one_subject(rng):
    model = make_model(rng)
    set_sigmas(model, OPEN)
    sessions = make_sessions(rng, sessions=8, trials=40)
    with pytest.raises(ValueError, match="expected those of one subject"):
        compute_formulas(model, sessions)
    rates = compute_subject_rates(model, sessions)
    assert rates["subject"].tolist() == list(NAMES)
    one = compute_formulas(model, sessions.subset([1, 5]))
    alpha = one.learning_rates().groupby("latent")["alpha"].max()["z1"]
    assert rates.loc[1, "learning rate z1"] == rates.loc[1, "learning rate"] == pytest.approx(alpha)
    # The formula of choice is fitted to the readout with the embedding of the subject.
    features = sessions.subset([1, 5]).for_model(model).features
    logits = np.asarray(model(features)["choice"]).reshape(-1, 2)
    z = np.asarray(model.compute_latents(features)).reshape(-1, 3)[:, 0]
    row = one.choice.iloc[0]
    error = logits[:, 1] - logits[:, 0] - row["intercept"] - row["z1"] * z
    assert np.abs(error).max() == pytest.approx(row["max_error"], rel=1e-3)


def test_correlations_with_known_properties(rng):
    model = make_model(rng)
    embeddings = compute_embeddings(model)
    np.testing.assert_allclose(
        embeddings[["subject 1", "subject 2"]], np.asarray(model.subject_embedding.table)
    )
    order = embeddings["subject 1"].rank().to_numpy()
    known = pd.DataFrame({"subject": NAMES, "age": -(order**3), "sex": list("mfmf")}).iloc[::-1]
    same = known.rename(columns={"age": "subject 1"})
    assert compute_embedding_correlations(embeddings, same)["rho"][0] == pytest.approx(-1)
    found = compute_embedding_correlations(embeddings, known)
    assert found["known"].tolist() == ["age", "age"]
    assert found.loc[0, "rho"] == pytest.approx(-1)
    figure = plot_embeddings(embeddings, known)
    assert len(figure.axes) == 2
    points = figure.axes[0].collections[0].get_offsets()
    expected = embeddings.merge(known, on="subject")[["age", "subject 1"]].to_numpy()
    np.testing.assert_allclose(sorted(points.tolist()), sorted(expected.tolist()))
    assert "ρ = -1.000, n = 4" in figure.axes[0].texts[0].get_text()
    # Two of the 24 orders of four subjects have a rank correlation of 1 or -1.
    assert found.loc[0, "p"] == pytest.approx(2 / 24)
    alone = plot_embeddings(embeddings, dimensions=["subject 2"]).axes[0]
    labels = [label.get_text() for label in alone.get_xticklabels()]
    assert labels == embeddings.sort_values("subject 2")["subject"].tolist()
    with pytest.raises(ValueError, match="got 'dan' more than once"):
        compute_embedding_correlations(embeddings, pd.concat([known, known]))
    with pytest.raises(ValueError, match="expected numeric columns"):
        compute_embedding_correlations(embeddings, known[["subject", "sex"]])
    with pytest.raises(ValueError, match="expected the model's subjects"):
        compute_embedding_correlations(embeddings, known.assign(subject=list("wxyz")))


# === New subjects ===


def test_an_interrupted_adaptation_resumes(rng, tmp_path, monkeypatch):
    model = make_model(rng)
    set_sigmas(model, OPEN)
    new = make_sessions(rng, subjects=("eve", "fay"), sessions=4, trials=20)
    whole = adapt(model, new)
    fit, fitted = adaptations.fit_embedding, []

    def stop_at_the_second(model, sessions, name, *arguments):
        fitted.append(name)
        if len(fitted) == 2:
            raise KeyboardInterrupt
        return fit(model, sessions, name, *arguments)

    monkeypatch.setattr(adaptations, "fit_embedding", stop_at_the_second)
    folder = ResultFolder(tmp_path, {}, command="adapt")
    with pytest.raises(KeyboardInterrupt):
        adapt(model, new, step=folder.step)
    resumed = adapt(model, new, step=folder.step)
    assert fitted == ["eve", "fay", "fay"]
    pd.testing.assert_frame_equal(resumed.subjects, whole.subjects, check_exact=True)
    for one, other in zip(resumed.model.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_adapting_changes_only_the_new_embeddings(rng):
    model = make_model(rng)
    set_sigmas(model, OPEN)
    before = [v.numpy() for v in model.variables]
    old = make_sessions(rng)
    new = make_sessions(rng, subjects=("eve", "ada", "fay"), sessions=9, trials=60)
    found = adapt(model, new)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert found.model.subjects == (*NAMES, "eve", "fay")
    for first, second in zip(model.weights, found.model.weights, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy()[: first.shape[0]])
        assert second.path.endswith("subject_embedding/kernel") or first.shape == second.shape
    for name, output in model(old.for_model(model).features).items():
        np.testing.assert_allclose(
            found.model(old.for_model(found.model).features)[name], output, atol=1e-6
        )
    # The closed dimension is at the mean. The open one maximizes the likelihood.
    table = np.asarray(model.subject_embedding.table, "float64")
    rows = found.subjects.set_index("subject")
    assert rows["subject 1"].tolist() == pytest.approx([table[:, 0].mean()] * 2, abs=1e-6)

    def likelihood(model, sessions):
        logits = np.asarray(model(sessions.for_model(model).features)["choice"], "float64")
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        chosen = np.take_along_axis(log_p, sessions.choice[..., None].astype(int), -1)[..., 0]
        return np.exp(chosen[sessions.choice_weight > 0].mean())

    for name in ("eve", "fay"):
        own = new.subset(np.array([subject == name for subject in new.subjects]))
        row = rows.loc[name]
        assert row["n_choices"] == 180
        assert likelihood(found.model, own) == pytest.approx(row["normalized_likelihood"], rel=1e-5)
        before = likelihood(found.before, own)
        assert before == pytest.approx(row["normalized_likelihood_before"], rel=1e-5)
        low, high = table[:, 1].min(), table[:, 1].max()
        trial = add_subjects(model, [name])
        scores = []
        for value in np.linspace(low - (high - low) / 2, high + (high - low) / 2, 21):
            kernel = trial.subject_embedding.kernel.numpy()
            kernel[-1] = [table[:, 0].mean(), value] - trial.subject_embedding.bias.numpy()
            trial.subject_embedding.kernel.assign(kernel)
            scores.append(likelihood(trial, own))
        assert max(scores) - min(scores) > 1e-4
        assert row["normalized_likelihood"] >= max([*scores, before]) - 1e-6
    with pytest.raises(ValueError, match="a subject that the model does not have"):
        adapt(model, old)
    with pytest.raises(ValueError, match="one without subjects"):
        adapt(make_model(subjects=(), subject_units=0), old)


def play_as(model, embedding, sessions=9, trials=60, noise=0.05):
    """Simulate sessions of the model as a subject "eve" with that embedding."""
    larger = add_subjects(model, ["eve"])
    kernel = larger.subject_embedding.kernel.numpy()
    kernel[-1] = embedding - larger.subject_embedding.bias.numpy()
    larger.subject_embedding.kernel.assign(kernel)
    agent = bandit.agent_from_model(larger, subject="eve")
    table = bandit.simulate(
        agent, bandit.DriftingBandit(), num_sessions=sessions, num_trials=trials, seed=3
    ).to_table()
    table["dopamine"] += noise * np.random.default_rng(0).normal(size=len(table))
    table["subject"] = "eve"
    return sessions_from_table(table, Columns(dopamine="dopamine", trial="trial"))


def test_an_embedding_fitted_jointly_finds_what_choices_do_not_show(rng):
    model = make_model(rng)
    only = {("subject", "subject 1", "subject 1"), ("dopamine", "dopamine", "subject 1")}
    set_sigmas(model, OPEN - {("update", "z1", "subject 1")} | only)
    assert open_embeddings(model) == ["subject 1", "subject 2"]
    table = np.asarray(model.subject_embedding.table, "float64")
    mean, low, high = table.mean(axis=0), table.min(axis=0), table.max(axis=0)
    true = low + 0.9 * (high - low)
    train, held_out = split_by_session(play_as(model, true), 3)
    before = [v.numpy() for v in model.variables]
    adaptation = adapt(model, train, "joint")
    joint = adaptation.subjects.iloc[0]

    def score(model, sessions):
        response = np.asarray(model(sessions.for_model(model).features)["dopamine"])
        weight = sessions.dopamine_weight
        return (weight * (response - sessions.dopamine) ** 2).sum() / weight.sum()

    for value, variable in zip(before, adaptation.model.variables, strict=True):
        kept = variable.numpy()
        np.testing.assert_array_equal(kept[: len(value)] if value.ndim else kept, value)
    for index, (name, tolerance) in enumerate((("subject 1", 0.1), ("subject 2", 0.25))):
        error = abs(joint[name] - true[index]) / (high - low)[index]
        assert error < tolerance, (name, error)
    assert joint["n_responses"] == 6 * 60
    assert joint["mse"] == pytest.approx(score(adaptation.model, train), rel=1e-4)
    # No model can predict the noise, which has a variance of 0.05 squared.
    mse = score(adaptation.model, held_out)
    assert mse == pytest.approx(0.0025, rel=0.3)
    assert mse < 0.5 * score(adaptation.before, held_out)
    # Choices do not read the first dimension, so a fit to choices leaves it at the mean.
    by_choice = adapt(model, train)
    assert by_choice.subjects["subject 1"].item() == pytest.approx(mean[0], abs=1e-6)
    assert "mse" not in by_choice.subjects
    assert mse < score(by_choice.model, held_out)


def test_new_subjects_without_dopamine_are_fitted_to_choices(rng):
    model = make_model(rng)
    silent = make_sessions(rng, subjects=("eve",), sessions=6, dopamine=False)
    train, held_out = split_by_session(silent, 3)
    adaptation, scores, _ = adapt_and_score(model, train, held_out)
    assert adaptation.model.num_signals == 1
    assert set(scores["after"]["held_out"]) == {"choice"}
    with pytest.raises(ValueError, match="num_signals: expected sessions with 1, .* got 0"):
        adapt(model, silent, "joint")
    blank = make_sessions(rng, subjects=("eve",))
    blank.dopamine_weight[:] = 0
    with pytest.raises(ValueError, match="a dopamine response of subject 'eve'"):
        adapt(model, blank, "joint")
    with pytest.raises(ValueError, match="expected .choice. for a model without"):
        adapt(make_model(num_signals=0), silent, "joint")
    with pytest.raises(ValueError, match="targets: expected one of choice, joint, got 'dopamine'"):
        adapt(model, blank, "dopamine")
    with pytest.raises(ValueError, match="got no held-out session of 'eve'"):
        adapt_and_score(model, train, make_sessions(rng))


# === The command line ===


def play(alphas, sessions, trials, seed=0, first=0):
    """Simulate a table of Q-learners with these learning rates, which are also their names."""
    tables = []
    for number, alpha in enumerate(alphas):
        played = bandit.simulate(
            bandit.QLearning(alpha=alpha),
            bandit.DriftingBandit(),
            num_sessions=sessions,
            num_trials=trials,
            seed=seed + 1000 * (first + number),
        )
        table = played.to_table()[["session", "trial", "choice", "reward", "dopamine"]]
        name = f"q{first + number:02d}"
        tables.append(table.assign(session=name + "-" + table["session"], subject=name))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.slow
def test_fit_adapt_and_describe_a_table_of_subjects(tmp_path, capsys):
    table, new = tmp_path / "trials.csv", tmp_path / "new.csv"
    play([0.2, 0.5, 0.8], 3, 12).to_csv(table, index=False)
    play([0.3, 0.6], 3, 12, first=3).to_csv(new, index=False)
    run = tmp_path / "run"
    quick = [
        "--training.warmup_steps=2", "--training.stage1_steps=2", "--training.stage2_steps=2",
        "--training.steps_per_epoch=2", "--model.num_latents=2", "--model.update_units=3",
        "--model.num_update_layers=1", "--data.columns.dopamine=dopamine",
    ]  # fmt: skip
    fit = ["fit", f"--data.table={table}", f"--out={run}", *quick, "--model.subject_units=2"]
    assert main(fit) == 0
    model = keras.models.load_model(run / "model.keras")
    assert model.subjects == ("q00", "q01", "q02")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["open_embeddings"] == open_embeddings(model)
    assert (run / "figures" / "subjects.png").stat().st_size > 0
    assert "q02" in json.dumps(keras_disrnn.export.check(run / "saved_model")["subjects"])

    assert main(["evaluate", f"--run={run}", f"--table={table}"]) == 0
    assert main(["evaluate", f"--run={run}", f"--table={new}"]) == 1
    assert "subject 'q03'" in capsys.readouterr().err
    figures = {path.stem for path in (run / "figures").iterdir()}
    assert figures == {
        "bottlenecks", "choice_rule", "update_rules", "dopamine_rule", "dopamine", "session",
        "subjects", "learning_curves", "paper_model", "paper_structure",
    }  # fmt: skip
    played = tmp_path / "played.csv"
    arguments = [
        "simulate",
        f"--model={run}",
        f"--out={played}",
        "--num_sessions=2",
        "--num_trials=5",
    ]
    assert main(arguments) == 1
    assert "subject: expected one of the model's 3 subjects" in capsys.readouterr().err
    assert main([*arguments, "--subject=q01"]) == 0
    assert sessions_from_table(played).subjects == ("q01", "q01")

    known = tmp_path / "known.csv"
    pd.DataFrame({"mouse": ["q00", "q01", "q02"], "alpha": [0.2, 0.5, 0.8]}).to_csv(known)
    out = tmp_path / "subjects"
    arguments = ["subjects", f"--run={run}", f"--out={out}", f"--known={known}"]
    assert main(arguments) == 1
    assert "expected a column 'subject'" in capsys.readouterr().err
    # The named column counts, even if there is also a column "subject".
    pd.read_csv(known).assign(subject=[7, 8, 9]).to_csv(known, index=False)
    assert main([*arguments, "--column=mouse"]) == 0
    embeddings = pd.read_csv(out / "embeddings.csv")
    assert embeddings["subject"].tolist() == ["q00", "q01", "q02"]
    assert set(pd.read_csv(out / "correlations.csv")["known"]) >= {"alpha"}

    out = tmp_path / "adapted"
    data = [f"--data.table={new}", "--data.columns.dopamine=dopamine"]
    assert main(["adapt", f"--run={run}", f"--out={out}", *data]) == 0
    scores = json.loads((out / "metrics.json").read_text())
    assert set(scores) == {"before", "after"}
    adapted = keras.models.load_model(out / "model.keras")
    assert adapted.subjects == ("q00", "q01", "q02", "q03", "q04")
    sessions = pd.read_csv(out / "sessions.csv")
    assert set(sessions["subject"]) == {"q03", "q04"}
    assert main(["adapt", f"--run={run}", f"--out={out}", *data]) == 1
    assert "got a finished result" in capsys.readouterr().err
    joint = tmp_path / "joint"
    assert main(["adapt", f"--run={run}", f"--out={joint}", *data, "--targets=joint"]) == 0
    assert pd.read_csv(joint / "subjects.csv")["n_responses"].tolist() == [24, 24]
    assert "mean squared error of dopamine" in capsys.readouterr().out


def test_a_table_that_cannot_be_of_subjects_is_refused_before_anything_is_written(tmp_path, capsys):
    table, run = tmp_path / "trials.csv", tmp_path / "run"
    play([0.2, 0.5, 0.8], 3, 5).to_csv(table, index=False)
    fit = ["fit", f"--data.table={table}", f"--out={run}", "--model.subject_units=2"]
    assert main([*fit, "--data.held_out_subjects=[q02]"]) == 1
    assert "subject 'q02'" in capsys.readouterr().err
    assert main([*fit, "--data.columns.subject=null"]) == 1
    assert "at least 2 subjects" in capsys.readouterr().err
    compare = ["compare", f"--data.table={table}", f"--out={run}", "--model.subject_units=2"]
    assert main([*compare, "--settings.leave_one_subject_out=true"]) == 1
    assert (
        "a model has no embedding of a subject that it was not fitted to" in capsys.readouterr().err
    )
    assert not run.exists()


def test_the_settings_of_a_run_without_subjects_do_not_name_them():
    plain = plain_config({"model": ModelSettings()})["model"]
    assert not any("subject" in name for name in plain)
    with_subjects = plain_config({"model": ModelSettings(subject_units=2)})["model"]
    assert set(with_subjects) - set(plain) == {
        "subject_units",
        *(n for n, p in PENALTIES.items() if p.of_subjects),
    }


def test_a_subject_of_the_model_plays(rng):
    """Choices are drawn from the probabilities of the model for that subject."""
    model = make_model(rng)
    agent = bandit.agent_from_model(model, subject="cyd")
    played = bandit.simulate(agent, bandit.DriftingBandit(), num_sessions=2, num_trials=6, seed=0)
    sessions = sessions_from_table(played.to_table().assign(subject="cyd"))
    logits = np.asarray(model(sessions.for_model(model).features)["choice"])[:, :-1]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(played.choice_probability, expected, atol=1e-5)
    for wrong in (None, "eve", 4):
        with pytest.raises(ValueError, match="subject: expected one of the model's 4 subjects"):
            bandit.agent_from_model(model, subject=wrong)
    plain = make_model(subjects=(), subject_units=0)
    with pytest.raises(ValueError, match="expected none for a model without subjects, got 'cyd'"):
        bandit.agent_from_model(plain, subject="cyd")


@pytest.mark.slow
def test_learning_rates_of_simulated_subjects_are_recovered():
    """Test training subjects, and new subjects after a fit of only their embeddings."""
    alphas = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, 16)).round(3)
    sessions = sessions_from_table(play(alphas, 24, 200))
    train, held_out = split_by_session(sessions, 3, offset=2, within_subject=True)
    model = keras_disrnn.DisRNNModel(
        num_signals=0, num_latents=4, num_update_layers=2, subject_units=2,
        subjects=tuple(dict.fromkeys(sessions.subjects)), seed=0,
    )  # fmt: skip
    steps = {"warmup_steps": 400, "stage1_steps": 1200, "stage2_steps": 0, "steps_per_epoch": 200}
    keras_disrnn.train(model, train, **steps, batch_size=86, learning_rate=3e-3, verbose=0)

    dimensions = open_embeddings(model)
    known = pd.DataFrame({"subject": model.subjects, "alpha": alphas})
    embeddings = compute_embeddings(model)[["subject", *dimensions]]
    best = compute_embedding_correlations(embeddings, known)["rho"].abs().max()
    rates = compute_subject_rates(model, train)
    rho = compute_embedding_correlations(rates[["subject", "learning rate"]], known)["rho"][0]
    error = np.abs(rates["learning rate"] - alphas).mean()

    new_alphas = np.array([0.5, 0.15, 0.85, 0.3, 0.7, 0.4])
    new = sessions_from_table(play(new_alphas, 12, 200, first=16))
    new_train, new_held_out = split_by_session(new, 3, offset=2, within_subject=True)
    found = adapt(model, new_train)
    before, after = (
        compute_evaluation(network, new_held_out).summary["choice"]["normalized_likelihood"]
        for network in (found.before, found.model)
    )
    new_rates = compute_subject_rates(found.model, new_train)["learning rate"]
    new_rho = scipy.stats.spearmanr(new_rates, new_alphas)[0]
    print(f"{best:.4f} {rho:.4f} {error:.4f} {before:.4f} {after:.4f} {new_rho:.4f}")
    assert best >= 0.95
    assert rho >= 0.95
    assert error < 0.1
    assert after > before + 0.005
    assert new_rho >= 0.94
    assert compute_evaluation(model, held_out).summary["choice"]["normalized_likelihood"] > 0.59
