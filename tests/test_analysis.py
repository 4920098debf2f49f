"""Bottleneck tables, rules, scores and traces, against plain NumPy."""

import itertools

import numpy as np
import oracle
import pytest

import keras_disrnn
from keras_disrnn.analysis import (
    bottleneck_matrices,
    compute_behaviour,
    compute_bottlenecks,
    compute_choice_rule,
    compute_dopamine_predictions,
    compute_dopamine_rule,
    compute_evaluation,
    compute_formulas,
    compute_session_trace,
    compute_update_rules,
    count_bottlenecks,
    open_latents,
    participation_ratio,
    sorted_latents,
)
from keras_disrnn.data import Sessions
from keras_disrnn.models.disrnn_model import DisRNNModel

OPEN, CLOSED = 0.02, 0.97


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def set_sigma(bottleneck, values):
    bottleneck.raw_sigma.assign(np.asarray(values, "float32") - 1e-5)


def make_model(num_latents=3, seed=5, **arguments):
    """A small model with random parameters, every bottleneck open."""
    model = DisRNNModel(
        num_latents=num_latents,
        update_units=4,
        num_update_layers=2,
        num_choice_layers=1,
        seed=seed,
        **arguments,
    )
    rng = np.random.default_rng(seed)
    for layer in flat(model.bottlenecks.values()):
        set_sigma(layer, np.full(layer.raw_sigma.shape, OPEN))
        if layer.raw_multiplier is not None:
            layer.raw_multiplier.assign(rng.uniform(0.5, 1.5, layer.raw_multiplier.shape))
    model.core.cell.initial_latents.assign(rng.uniform(-0.5, 0.5, num_latents))
    return model


def make_sessions(rng, arms=2, signals=1, lengths=(12, 7, 9, 12), observations=None):
    """Sessions with forced and missed trials and missing dopamine."""
    dopamine = [rng.normal(1.0, 2.0, (length, signals)) for length in lengths]
    for values in dopamine:
        values[2] = np.nan
    return Sessions.from_trials(
        choice=[rng.integers(0, arms, length) for length in lengths],
        reward=[rng.integers(0, 2, length) for length in lengths],
        dopamine=dopamine if signals else None,
        forced=[np.arange(length) == 3 for length in lengths],
        missed=[np.arange(length) == 5 for length in lengths],
        observations=None if observations is None else [rng.normal(size=n) for n in lengths],
        num_arms=arms,
    )


def log_softmax(logits):
    logits = np.asarray(logits, "float64")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


# === Names and representations ===


def test_all_public_names_load():
    assert dir(keras_disrnn.analysis) == sorted(keras_disrnn.analysis.__all__)
    for name in keras_disrnn.analysis.__all__:
        assert callable(getattr(keras_disrnn.analysis, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = keras_disrnn.analysis.nonesuch


def test_results_have_a_short_representation(rng):
    model, sessions = make_model(), make_sessions(rng)
    results = [
        compute_evaluation(model, sessions),
        compute_formulas(model, sessions),
        compute_behaviour(sessions, replicates=5),
        compute_choice_rule(model, points=4),
        compute_dopamine_rule(model, points=4),
        compute_update_rules(model, points=4)[0],
    ]
    for result in results:
        text, page = repr(result), result._repr_html_()
        assert text.startswith(f"{type(result).__name__}(")
        assert len(text) < 250 and "array" not in text
        assert page.count("<table") == page.count("</table>") >= 1
    assert "dopamine r2=" in repr(results[0])
    assert "updates=12" in repr(results[1])
    assert "z1' = z1" in results[1]._repr_html_()
    assert "latents=z" in repr(results[3]) and "points=4 x 4" in repr(results[3])


# === Bottlenecks ===


def test_table_names_every_bottleneck():
    model = make_model(num_latents=2, num_observations=3)
    cell = model.core.cell
    set_sigma(cell.latent_bottleneck, [0.3, 0.1])
    set_sigma(cell.update_obs_bottleneck, [[0.11, 0.12, 0.13], [0.21, 0.22, 0.23]])
    set_sigma(cell.update_latent_bottleneck, [[0.14, 0.15], [0.24, 0.25]])
    set_sigma(model.choice_readout.bottleneck, [0.31, 1.4])
    set_sigma(model.dopamine_readout.bottleneck, [0.41, 0.42, 0.43, 0.44])
    cell.update_latent_bottleneck.raw_multiplier.assign([[1.0, 2.0], [3.0, 4.0]])

    table = compute_bottlenecks(model, ("choice", "reward", "tone"))

    expected = [
        ("latent", "z1", "z1", 0.3),
        ("latent", "z2", "z2", 0.1),
        ("update", "z1", "choice", 0.11),
        ("update", "z1", "reward", 0.12),
        ("update", "z1", "tone", 0.13),
        ("update", "z1", "z1", 0.14),
        ("update", "z1", "z2", 0.15),
        ("update", "z2", "choice", 0.21),
        ("update", "z2", "reward", 0.22),
        ("update", "z2", "tone", 0.23),
        ("update", "z2", "z1", 0.24),
        ("update", "z2", "z2", 0.25),
        ("choice", "choice", "z1", 0.31),
        ("choice", "choice", "z2", 1.4),
        ("dopamine", "dopamine", "z1", 0.41),
        ("dopamine", "dopamine", "z2", 0.42),
        ("dopamine", "dopamine", "choice", 0.43),
        ("dopamine", "dopamine", "reward", 0.44),
    ]
    names = table[["group", "target", "source"]].itertuples(index=False, name=None)
    assert list(names) == [row[:3] for row in expected]
    np.testing.assert_allclose(table["sigma"], [row[3] for row in expected], atol=1e-6)
    np.testing.assert_allclose(
        table["openness"], [max(0, 1 - row[3]) for row in expected], atol=1e-6
    )
    inputs = table.query("group == 'update' and source in ('z1', 'z2')")
    np.testing.assert_array_equal(inputs["multiplier"], [1, 2, 3, 4])
    assert table.query("group == 'latent'")["multiplier"].isna().all()
    assert table.query("group != 'latent'")["multiplier"].notna().all()


def test_matrices_have_targets_in_rows_and_sources_in_columns():
    model = make_model(num_latents=2)
    set_sigma(model.core.cell.update_latent_bottleneck, [[0.1, 0.9], [0.3, 0.4]])
    matrices = bottleneck_matrices(compute_bottlenecks(model))
    assert list(matrices) == ["latent", "update", "choice", "dopamine"]
    update = matrices["update"]
    assert list(update.index) == ["z1", "z2"]
    assert list(update.columns) == ["choice", "reward", "z1", "z2"]
    assert update.loc["z1", "z2"] == pytest.approx(0.1, abs=1e-6)
    assert update.loc["z2", "z1"] == pytest.approx(0.7, abs=1e-6)
    assert list(matrices["dopamine"].index) == ["z1", "z2", "choice", "reward"]


def test_matrices_keep_the_order_of_more_than_nine_latents():
    names = [f"z{i}" for i in range(1, 13)]
    matrices = bottleneck_matrices(compute_bottlenecks(make_model(num_latents=12)))
    assert list(matrices["update"].index) == names
    assert list(matrices["update"].columns) == ["choice", "reward", *names]
    assert list(matrices["choice"].index) == names


def test_open_latents_and_their_order():
    model = make_model(num_latents=4)
    set_sigma(model.core.cell.latent_bottleneck, [0.6, 0.45, 0.9, 0.01])
    assert open_latents(model) == ["z2", "z4"]
    assert open_latents(model, threshold=0.7) == ["z1", "z2", "z4"]
    assert open_latents(model, threshold=0.001) == []
    assert sorted_latents(compute_bottlenecks(model)) == ["z4", "z2", "z1", "z3"]


def test_counts_by_threshold_and_without():
    model = make_model(num_latents=5)
    set_sigma(model.choice_readout.bottleneck, [0.05, 0.2, 0.4, 0.7, 1.3])
    counts = count_bottlenecks(compute_bottlenecks(model))
    choice = counts.loc["choice"]
    assert choice["n"] == 5
    assert [choice[f"open_below_{limit}"] for limit in (0.1, 0.25, 0.5)] == [1, 2, 3]
    assert choice["closed_above_0.9"] == 1
    openness = np.array([0.95, 0.8, 0.6, 0.3, 0.0])
    assert choice["participation_ratio"] == pytest.approx(
        openness.sum() ** 2 / (openness**2).sum(), rel=1e-5
    )
    assert counts.loc["update", "n"] == 35
    assert participation_ratio([0.0, 0.0, 1.0, 2.0]) == 2
    assert participation_ratio([1.0, 1.2]) == 0


def test_a_model_without_dopamine_has_three_groups():
    table = compute_bottlenecks(make_model(num_signals=0))
    assert list(table["group"].unique()) == ["latent", "update", "choice"]
    assert "dopamine" not in bottleneck_matrices(table)
    assert "dopamine" not in count_bottlenecks(table).index


def test_extra_observations_have_default_names():
    table = compute_bottlenecks(make_model(num_latents=1, num_observations=4))
    sources = table.query("group == 'update'")["source"]
    assert list(sources) == ["choice", "reward", "observation_1", "observation_2", "z1"]


def test_bad_models_and_names_raise():
    with pytest.raises(ValueError, match=r"expected 2 names.*got 3"):
        compute_bottlenecks(make_model(), ("choice", "reward", "tone"))


# === Rules ===


@pytest.mark.parametrize("arms", [2, 3])
def test_choice_rule_of_one_latent_is_the_network_along_a_line(arms):
    model = make_model(num_arms=arms)
    set_sigma(model.choice_readout.bottleneck, [CLOSED, OPEN, CLOSED])
    rule = compute_choice_rule(model, points=5)
    assert rule.latents == rule.open_latents == ("z2",)
    np.testing.assert_allclose(rule.values[0], [-2, -1, 0, 1, 2])
    z = np.repeat(model.initial_latents.numpy()[None], 5, 0).astype("float64")
    z[:, 1] = [-2, -1, 0, 1, 2]
    logits, _ = oracle.run_readout(model.choice_readout, z)
    np.testing.assert_allclose(rule.logits, logits, atol=1e-5)
    if arms == 2:
        np.testing.assert_allclose(rule.contrast, logits[:, 1] - logits[:, 0], atol=1e-5)
    else:
        relative = logits - logits.mean(1, keepdims=True)
        np.testing.assert_allclose(rule.contrast, relative, atol=1e-5)
    np.testing.assert_allclose(rule.probability, np.exp(log_softmax(logits)), atol=1e-5)
    assert rule.fixed.keys() == {"z1", "z3"}
    assert rule.fixed["z3"] == pytest.approx(float(model.initial_latents[2]))


def test_choice_rule_varies_the_two_most_open_of_five():
    model = make_model(num_latents=5)
    set_sigma(model.choice_readout.bottleneck, [0.3, 0.05, 0.4, 0.1, 0.2])
    rule = compute_choice_rule(model, points=4, reference=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert rule.latents == ("z2", "z4")
    assert rule.open_latents == ("z2", "z4", "z5", "z1", "z3")
    assert rule.fixed == pytest.approx({"z1": 0.1, "z3": 0.3, "z5": 0.5})
    assert rule.logits.shape == (4, 4, 2)
    # The first axis of points is the first latent.
    z = np.array([[0.1, rule.values[0][3], 0.3, rule.values[1][1], 0.5]])
    logits, _ = oracle.run_readout(model.choice_readout, z)
    np.testing.assert_allclose(rule.logits[3, 1], logits[0], atol=1e-5)


def test_choice_rule_leaves_out_a_latent_closed_at_either_bottleneck():
    model = make_model()
    set_sigma(model.choice_readout.bottleneck, [OPEN, OPEN, CLOSED])
    set_sigma(model.core.cell.latent_bottleneck, [CLOSED, OPEN, OPEN])
    assert compute_choice_rule(model).open_latents == ("z2",)


def test_choice_rule_without_open_latents_is_one_constant():
    model = make_model()
    set_sigma(model.core.cell.latent_bottleneck, [CLOSED] * 3)
    rule = compute_choice_rule(model)
    assert rule.latents == rule.values == ()
    logits, _ = oracle.run_readout(model.choice_readout, model.initial_latents.numpy()[None])
    np.testing.assert_allclose(rule.logits, logits[0], atol=1e-5)
    assert np.ndim(rule.contrast) == 0


def test_ranges_follow_the_latents_of_given_features(rng):
    model = make_model(num_latents=1)
    features = make_sessions(rng).features
    latents = [oracle.run_core(model.core.cell, session)[0] for session in features]
    real = ~np.isnan(features).all(-1)
    expected = np.percentile(np.array(latents)[real], [0.5, 99.5])
    rule = compute_choice_rule(model, features, points=7)
    np.testing.assert_allclose(rule.values[0][[0, -1]], expected, atol=1e-5)
    np.testing.assert_allclose(np.diff(rule.values[0]), np.ptp(expected) / 6, atol=1e-5)


def test_a_latent_that_never_moves_has_a_range():
    model = make_model(num_latents=1)
    cell = model.core.cell
    # w = sigmoid(u) of 0: the latent keeps its initial value.
    cell.update_network.output_kernel.assign(np.zeros(cell.update_network.output_kernel.shape))
    cell.update_network.output_bias.assign([[-100.0, 0.0]])
    rule = compute_choice_rule(model, np.zeros((2, 5, 2)), points=3)
    start = float(model.initial_latents[0])
    np.testing.assert_allclose(rule.values[0], [start - 0.1, start, start + 0.1], atol=1e-6)


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_dopamine_rule_is_the_network_for_each_choice_and_reward(timing):
    model = make_model(num_latents=2, dopamine_timing=timing, num_signals=2)
    set_sigma(model.dopamine_readout.bottleneck, [OPEN, CLOSED, OPEN, CLOSED])
    # The dopamine readout can still read a latent that the choice stage closed.
    set_sigma(model.core.cell.latent_bottleneck, [CLOSED, CLOSED])
    rule = compute_dopamine_rule(model, points=3, signal_names=("nacc", "dms"))
    assert rule.latents == ("z1",)
    assert rule.open_observations == ("choice",)
    assert rule.timing == timing
    assert rule.signal_names == ("nacc", "dms")
    np.testing.assert_array_equal(rule.choices, [0, 0, 1, 1])
    np.testing.assert_array_equal(rule.rewards, [0, 1, 0, 1])
    assert rule.prediction.shape == (4, 3, 2)
    fixed = float(model.initial_latents[1])
    for combination, (choice, reward) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        inputs = np.array([[z, fixed, choice, reward] for z in (-2.0, 0.0, 2.0)])
        expected, _ = oracle.run_readout(model.dopamine_readout, inputs)
        np.testing.assert_allclose(rule.prediction[combination], expected, atol=1e-5)


def test_dopamine_rule_over_two_latents_three_arms_and_real_rewards():
    model = make_model(num_arms=3)
    set_sigma(model.dopamine_readout.bottleneck, [0.2, CLOSED, 0.1, CLOSED, CLOSED])
    rule = compute_dopamine_rule(model, points=4, rewards=(-1.0, 0.5))
    assert rule.latents == ("z3", "z1")
    assert rule.prediction.shape == (6, 4, 4, 1)
    assert rule.open_observations == ()
    inputs = np.array(
        [[rule.values[1][0], float(model.initial_latents[1]), rule.values[0][2], 2.0, -1.0]]
    )
    expected, _ = oracle.run_readout(model.dopamine_readout, inputs)
    np.testing.assert_allclose(rule.prediction[4, 2, 0], expected[0], atol=1e-5)


def test_dopamine_rule_without_open_latents_has_one_value_for_each_combination():
    model = make_model()
    set_sigma(model.dopamine_readout.bottleneck, [CLOSED] * 5)
    rule = compute_dopamine_rule(model)
    assert rule.latents == ()
    assert rule.prediction.shape == (4, 1)
    inputs = np.array([[*model.initial_latents.numpy(), 1.0, 0.0]])
    expected, _ = oracle.run_readout(model.dopamine_readout, inputs)
    np.testing.assert_allclose(rule.prediction[2], expected[0], atol=1e-5)


def test_dopamine_rule_needs_a_dopamine_readout():
    with pytest.raises(ValueError, match="dopamine readout"):
        compute_dopamine_rule(make_model(num_signals=0))


def numpy_update(cell, network, observations, z):
    """One latent's value after a trial, from the equations of Miller et al. (2023)."""
    seen = oracle.multiplier(cell.update_obs_bottleneck)[network] * observations
    past = oracle.multiplier(cell.update_latent_bottleneck)[network] * z
    weights = oracle.weights_of(cell.update_network)
    u, v = oracle.residual_mlp(np.concatenate([seen, past]), weights, network)
    w = 1 / (1 + np.exp(-u))
    bound = cell.max_latent_value
    return (1 - w) * z[network] + w * bound * np.tanh(v / bound)


def test_update_rules_are_the_update_networks():
    model = make_model()
    cell = model.core.cell
    set_sigma(cell.latent_bottleneck, [OPEN, CLOSED, OPEN])
    # z3 reads reward and z1. It cannot read z2, because z2 itself is closed.
    set_sigma(cell.update_obs_bottleneck, [[OPEN, OPEN], [OPEN, OPEN], [CLOSED, OPEN]])
    set_sigma(
        cell.update_latent_bottleneck,
        [[OPEN, OPEN, CLOSED], [OPEN, OPEN, OPEN], [0.3, OPEN, CLOSED]],
    )
    first, third = compute_update_rules(model, points=5, other_points=4)
    initial = model.initial_latents.numpy().astype("float64")

    assert (first.latent, third.latent) == ("z1", "z3")
    assert first.open_observations == ("choice", "reward")
    assert third.open_observations == ("reward",)
    assert first.others == ()
    assert set(third.fixed) == {"z1", "z2"}
    combinations = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(zip(third.choices, third.rewards, strict=True)) == combinations
    for rule, network in ((first, 0), (third, 2)):
        for row, combination in enumerate(combinations):
            for column, value in enumerate([-2.0, -1.0, 0.0, 1.0, 2.0]):
                z = initial.copy()
                z[network] = value
                after = numpy_update(cell, network, np.array(combination, float), z)
                assert rule.change[row, column] == pytest.approx(after - value, abs=1e-5)

    ((other, other_values, changes),) = third.others
    assert other == "z1"
    np.testing.assert_allclose(other_values, np.linspace(-2, 2, 4))
    assert changes.shape == (4, 4, 5)
    z = np.array([other_values[3], initial[1], third.values[1]])
    after = numpy_update(cell, 2, np.array([1.0, 0.0]), z)
    assert changes[3, 2, 1] == pytest.approx(after - z[2], abs=1e-5)


def test_all_update_rules_come_from_one_call_of_the_cell(monkeypatch):
    model = make_model(num_latents=3)
    update, sizes = type(model.core.cell).update, []

    def counted(cell, inputs, latents):
        sizes.append(len(latents))
        return update(cell, inputs, latents)

    monkeypatch.setattr(type(model.core.cell), "update", counted)
    rules = compute_update_rules(model, points=5, other_points=4)
    values = [rule.change.size + sum(x.size for *_, x in rule.others) for rule in rules]
    assert sizes == [sum(values)] and len(rules) == 3


def test_update_rules_put_the_most_open_other_latent_first():
    model = make_model()
    set_sigma(
        model.core.cell.update_latent_bottleneck,
        [[OPEN, 0.3, 0.1], [OPEN, OPEN, OPEN], [OPEN, OPEN, OPEN]],
    )
    rules = compute_update_rules(model, points=3)
    assert [name for name, _, _ in rules[0].others] == ["z3", "z2"]


def test_update_rules_fix_extra_observations():
    model = make_model(num_latents=1, num_observations=3)
    (rule,) = compute_update_rules(model, points=3, extra_observations=[0.7])
    after = numpy_update(model.core.cell, 0, np.array([1.0, 0.0, 0.7]), np.array([2.0]))
    assert rule.change[2, 2] == pytest.approx(after - 2.0, abs=1e-5)
    (at_zero,) = compute_update_rules(model, points=3)
    after = numpy_update(model.core.cell, 0, np.array([1.0, 0.0, 0.0]), np.array([2.0]))
    assert at_zero.change[2, 2] == pytest.approx(after - 2.0, abs=1e-5)


def test_update_rules_without_open_latents_are_none():
    model = make_model()
    set_sigma(model.core.cell.latent_bottleneck, [CLOSED] * 3)
    assert compute_update_rules(model) == ()


@pytest.mark.parametrize(
    ("compute", "arguments", "message"),
    [
        (compute_choice_rule, {"points": 1}, "points: expected at least 2, got 1"),
        (compute_choice_rule, {"reference": [0.0]}, "reference: expected 3 values"),
        (compute_dopamine_rule, {"signal_names": ("a", "b")}, "signal_names: expected 1"),
        (compute_update_rules, {"other_points": 1}, "other_points: expected at least 2"),
        (compute_update_rules, {"extra_observations": [1.0]}, "extra_observations: expected 0"),
    ],
)
def test_bad_arguments_of_rules_are_named(compute, arguments, message):
    with pytest.raises(ValueError, match=message):
        compute(make_model(), **arguments)


# === Evaluation ===


def targets_by_hand(model, sessions):
    """log p of each counted choice, and (recorded, predicted) of each dopamine, by session."""
    outputs = {name: value.numpy() for name, value in model(sessions.features).items()}
    log_p, responses = [], []
    for session in range(sessions.num_sessions):
        rows = range(sessions.features.shape[1])
        log_p.append(
            [
                log_softmax(outputs["choice"][session, row])[sessions.choice[session, row]]
                for row in rows
                if sessions.choice_weight[session, row] > 0
            ]
        )
        responses.append(
            [
                [
                    (sessions.dopamine[session, row, k], outputs["dopamine"][session, row, k])
                    for row in rows
                    if sessions.dopamine_weight[session, row, k] > 0
                ]
                for k in range(sessions.num_signals)
            ]
        )
    return log_p, responses


def jackknife(score, sessions):
    """Standard error over sessions by leaving out one session's items at a time."""
    scores = np.array(
        [
            score([item for s, items in enumerate(sessions) if s != out for item in items])
            for out in range(len(sessions))
        ]
    )
    n = len(scores)
    return np.sqrt((n - 1) / n * ((scores - scores.mean()) ** 2).sum())


def mse(pairs):
    recorded, predicted = np.array(pairs, "float64").T
    return ((recorded - predicted) ** 2).mean()


def r2(pairs):
    recorded, predicted = np.array(pairs, "float64").T
    return 1 - ((recorded - predicted) ** 2).sum() / ((recorded - recorded.mean()) ** 2).sum()


@pytest.mark.parametrize("batch_size", [None, 3])
def test_scores_are_pooled_over_counted_targets(rng, batch_size):
    model, sessions = make_model(), make_sessions(rng)
    log_p, responses = targets_by_hand(model, sessions)
    responses = [signals[0] for signals in responses]
    assert sum(map(len, log_p)) == (12 + 7 + 9 + 12) - 2 * 4  # one forced, one missed each

    per_session, summary = compute_evaluation(model, sessions, batch_size=batch_size)

    def likelihood(values):
        return np.exp(np.mean(values))

    choice = summary["choice"]
    assert choice["normalized_likelihood"] == pytest.approx(likelihood(np.concatenate(log_p)))
    expected = jackknife(likelihood, log_p)
    assert choice["normalized_likelihood_se"] == pytest.approx(expected, rel=1e-4)
    assert (choice["n"], choice["sessions"]) == (32, 4)
    dopamine = summary["dopamine"]
    pooled = flat(responses)
    assert dopamine["mse"] == pytest.approx(mse(pooled), rel=1e-5)
    assert dopamine["r2"] == pytest.approx(r2(pooled), rel=1e-5)
    assert dopamine["mse_se"] == pytest.approx(jackknife(mse, responses), rel=1e-4)
    assert dopamine["r2_se"] == pytest.approx(jackknife(r2, responses), rel=1e-4)
    assert (dopamine["n"], dopamine["sessions"]) == (len(pooled), 4)
    assert len(pooled) == (12 + 7 + 9 + 12) - 2 * 4  # one unrecorded, one missed each

    assert list(per_session["session"]) == list(sessions.ids)
    assert list(per_session["n_choices"]) == [len(values) for values in log_p]
    np.testing.assert_allclose(
        per_session["log_likelihood"], [sum(values) for values in log_p], rtol=1e-5
    )
    np.testing.assert_allclose(
        per_session["normalized_likelihood"], [likelihood(values) for values in log_p], rtol=1e-5
    )
    assert list(per_session["n_dopamine"]) == [len(pairs) for pairs in responses]
    np.testing.assert_allclose(per_session["mse"], [mse(p) for p in responses], rtol=1e-5)
    np.testing.assert_allclose(per_session["sse"], [mse(p) * len(p) for p in responses], rtol=1e-5)


@pytest.mark.parametrize("arms", [2, 3])
@pytest.mark.parametrize("per_arm", [True, False])
def test_difference_to_a_reference_is_paired_by_session(rng, arms, per_arm):
    model, sessions = make_model(num_arms=arms), make_sessions(rng, arms=arms)
    log_p, _ = targets_by_hand(model, sessions)
    trials = sessions.features.shape[1] - 1
    probability = rng.dirichlet(np.ones(arms), (sessions.num_sessions, trials))
    made = np.take_along_axis(probability, sessions.choice[:, :-1, None], -1)[..., 0]
    pairs = [
        list(zip(log_p[s], np.log(made[s][sessions.choice_weight[s, :-1] > 0]), strict=True))
        for s in range(sessions.num_sessions)
    ]

    def difference(values):
        model_mean, reference_mean = np.mean(values, axis=0)
        return np.exp(model_mean) - np.exp(reference_mean)

    result = compute_evaluation(model, sessions, reference=probability if per_arm else made)
    choice = result.summary["choice"]
    assert choice["difference"] == pytest.approx(difference(flat(pairs)), rel=1e-4)
    assert choice["difference_se"] == pytest.approx(jackknife(difference, pairs), rel=1e-4)
    assert choice["reference_normalized_likelihood"] == pytest.approx(
        np.exp(np.mean(flat(pairs), axis=0)[1])
    )
    np.testing.assert_allclose(
        result.per_session["reference_log_likelihood"], [np.sum(p, axis=0)[1] for p in pairs]
    )


def test_a_model_compared_with_itself_has_no_difference(rng):
    model, sessions = make_model(), make_sessions(rng)
    own = np.exp(log_softmax(model(sessions.features)["choice"].numpy()))[:, :-1]
    choice = compute_evaluation(model, sessions, reference=own).summary["choice"]
    assert choice["difference"] == pytest.approx(0, abs=1e-6)
    assert choice["difference_se"] == pytest.approx(0, abs=1e-6)
    assert choice["normalized_likelihood_se"] > 1e-3


def test_bad_references_raise(rng):
    model, sessions = make_model(), make_sessions(rng)
    with pytest.raises(ValueError, match=r"reference: expected shape.*\(4, 12\).*got \(4, 13\)"):
        compute_evaluation(model, sessions, reference=np.full((4, 13), 0.5))
    with pytest.raises(ValueError, match=r"expected probabilities.*got 0\.0"):
        compute_evaluation(model, sessions, reference=np.zeros((4, 12)))
    # If no choice counts, a reference can have any value.
    reference = np.where(sessions.choice_weight[:, :-1] > 0, 0.5, np.nan)
    summary = compute_evaluation(model, sessions, reference=reference).summary
    assert summary["choice"]["reference_normalized_likelihood"] == pytest.approx(0.5)


def test_several_signals_are_scored_separately_and_on_average(rng):
    model, sessions = make_model(num_signals=2), make_sessions(rng, signals=2)
    _, responses = targets_by_hand(model, sessions)
    signals = [[session[k] for session in responses] for k in range(2)]
    result = compute_evaluation(model, sessions)
    dopamine = result.summary["dopamine"]
    for name, values in zip(sessions.signal_names, signals, strict=True):
        own = dopamine["signals"][name]
        assert own["mse"] == pytest.approx(mse(flat(values)), rel=1e-5)
        assert own["r2"] == pytest.approx(r2(flat(values)), rel=1e-5)
        assert own["r2_se"] == pytest.approx(jackknife(r2, values), rel=1e-4)
        table = result.per_session
        np.testing.assert_allclose(table[f"sse_{name}"], [mse(v) * len(v) for v in values], 1e-5)
        assert list(table[f"n_dopamine_{name}"]) == [len(v) for v in values]
    for score in ("mse", "r2"):
        own = [dopamine["signals"][name][score] for name in sessions.signal_names]
        assert dopamine[score] == pytest.approx(np.mean(own))
    assert dopamine["n"] == sum(len(v) for values in signals for v in values)


def test_a_signal_that_was_never_recorded_does_not_count(rng):
    model, sessions = make_model(num_signals=2), make_sessions(rng, signals=2)
    sessions.dopamine_weight[..., 1] = 0
    dopamine = compute_evaluation(model, sessions).summary["dopamine"]
    first, second = (dopamine["signals"][name] for name in sessions.signal_names)
    assert dopamine["mse"] == pytest.approx(first["mse"])
    assert dopamine["r2_se"] == pytest.approx(first["r2_se"])
    assert np.isnan(second["mse"]) and second["n"] == 0


def test_scores_of_no_targets_are_nan(rng):
    model, sessions = make_model(), make_sessions(rng)
    sessions.dopamine_weight[:] = 0
    sessions.choice_weight[0] = 0
    per_session, summary = compute_evaluation(model, sessions)
    dopamine = summary["dopamine"]
    assert dopamine["n"] == dopamine["sessions"] == 0
    assert all(np.isnan(dopamine[name]) for name in ("mse", "mse_se", "r2", "r2_se"))
    assert per_session["mse"].isna().all()
    assert summary["choice"]["sessions"] == 3
    assert np.isnan(per_session["normalized_likelihood"][0])
    assert compute_dopamine_predictions(model, sessions).empty


def test_one_session_has_no_standard_error(rng):
    summary = compute_evaluation(make_model(), make_sessions(rng, lengths=(10,))).summary
    assert np.isnan(summary["choice"]["normalized_likelihood_se"])
    assert np.isfinite(summary["choice"]["normalized_likelihood"])


def test_a_model_without_dopamine_has_no_dopamine_scores(rng):
    model, sessions = make_model(num_signals=0), make_sessions(rng)
    per_session, summary = compute_evaluation(model, sessions)
    assert list(summary) == ["choice"]
    assert "sse" not in per_session
    with pytest.raises(ValueError, match="dopamine output"):
        compute_dopamine_predictions(model, sessions)


def test_extreme_logits_and_offsets_lose_no_digits(rng):
    model, sessions = make_model(), make_sessions(rng)
    model.choice_readout.network.output_bias.assign([-500.0, 500.0])
    summary = compute_evaluation(model, sessions).summary
    left = ((sessions.choice == 0) & (sessions.choice_weight > 0)).sum()
    share = left / summary["choice"]["n"]
    assert np.log(summary["choice"]["normalized_likelihood"]) == pytest.approx(
        -1000 * share, rel=0.02
    )
    shifted = make_sessions(np.random.default_rng(1))
    offset = np.where(shifted.dopamine_weight > 0, np.float32(1e6), 0)
    scatter = np.var((shifted.dopamine + offset)[shifted.dopamine_weight > 0].astype("float64"))
    shifted.dopamine[:] = shifted.dopamine + offset
    dopamine = compute_evaluation(model, shifted).summary["dopamine"]
    assert dopamine["r2"] == pytest.approx(1 - dopamine["mse"] / scatter, rel=1e-9)


# === Traces and predictions ===


def test_predictions_are_next_to_their_trials(rng):
    model, sessions = make_model(num_signals=2), make_sessions(rng, signals=2)
    _, responses = targets_by_hand(model, sessions)
    table = compute_dopamine_predictions(model, sessions, batch_size=2)
    expected = [pair for k in range(2) for session in responses for pair in session[k]]
    np.testing.assert_allclose(table[["recorded", "predicted"]], expected, atol=1e-5)
    one = table.query("session == '1' and signal == 'dopamine_2'")
    assert list(one["trial"]) == [0, 1, 3, 4, 6]  # 2 unrecorded, 5 missed
    assert one["recorded"].iloc[2] == sessions.dopamine[1, 4, 1]


@pytest.mark.parametrize("timing", ["pre", "post"])
def test_trace_of_a_session_is_aligned_by_trial(rng, timing):
    model, sessions = make_model(dopamine_timing=timing), make_sessions(rng)
    trace = compute_session_trace(model, sessions, 1)
    assert len(trace) == 7
    assert list(trace["trial"]) == list(range(7))
    assert list(trace["kind"]) == ["free"] * 3 + ["forced", "free", "missed", "free"]
    features = sessions.features[1]
    latents, _ = oracle.run_core(model.core.cell, features)
    for trial in range(7):
        row = trace.iloc[trial]
        # A choice is predicted from the latents after the trial before it.
        np.testing.assert_allclose(row[["z1", "z2", "z3"]].astype(float), latents[trial], atol=1e-5)
        logits, _ = oracle.run_readout(model.choice_readout, latents[trial : trial + 1])
        p = np.exp(log_softmax(logits[0]))
        columns = ["choice_probability_0", "choice_probability_1"]
        np.testing.assert_allclose(row[columns].astype(float), p, atol=1e-5)
        if trial == 5:
            assert row[["choice", "reward", "recorded_dopamine"]].isna().all()
            assert np.isnan(row["predicted_dopamine"])
            continue
        assert (row["choice"], row["reward"]) == tuple(features[trial + 1])
        read = latents[trial] if timing == "pre" else latents[trial + 1]
        inputs = np.concatenate([read, features[trial + 1]])[None]
        predicted, _ = oracle.run_readout(model.dopamine_readout, inputs)
        assert row["predicted_dopamine"] == pytest.approx(predicted[0, 0], abs=1e-5)
        if trial == 2:
            assert np.isnan(row["recorded_dopamine"])
        else:
            assert row["recorded_dopamine"] == sessions.dopamine[1, trial + 1, 0]


def test_trace_counts_sessions_like_a_list(rng):
    model, sessions = make_model(num_arms=3, num_signals=0), make_sessions(rng, arms=3, signals=0)
    last = compute_session_trace(model, sessions, -1)
    assert last.equals(compute_session_trace(model, sessions, 3))
    assert last["session"].iloc[0] == sessions.ids[3]
    assert "choice_probability_2" in last
    assert not any("dopamine" in name for name in last)
    for index in (4, -5):
        with pytest.raises(IndexError, match="from 0 to 3, got"):
            compute_session_trace(model, sessions, index)
