"""Formulas of networks with known rules, and of a trained network."""

import numpy as np
import pytest
from test_analysis import make_model, make_sessions, set_sigma

from keras_disrnn import bandit
from keras_disrnn.analysis import (
    compute_choice_rule,
    compute_dopamine_rule,
    compute_formulas,
    compute_update_rules,
    rule_tables,
)
from keras_disrnn.data import Sessions
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.training.fit import train


def linear(network, maps, constants):
    """Make a residual MLP linear, with `maps` (outputs, inputs) and silent hidden layers."""
    for weight in (network.hidden_kernel, network.hidden_bias, network.input_bias):
        weight.assign(np.zeros(weight.shape))
    maps = np.asarray(maps, float)
    into, out = np.zeros(network.input_kernel.shape), np.zeros(network.output_kernel.shape)
    width = maps.shape[-2]
    into[..., :width] = np.swapaxes(maps, -1, -2)
    out[..., range(width), range(width)] = 1.0
    network.input_kernel.assign(into)
    network.output_kernel.assign(out)
    network.output_bias.assign(constants)


def hand_set(**arguments):
    """Make a model in which latents 1 and 2 move to a target by choice and reward.

    u = a + b choice + c reward and v = d + e choice + f reward. So weight and target are constant
    in each case, and the rule is exactly z + w (target - z). The third latent is closed.
    """
    model = DisRNNModel(num_latents=3, update_units=4, num_update_layers=2, seed=1, **arguments)
    for layers in model.bottlenecks.values():
        for layer in layers:
            set_sigma(layer, np.full(layer.raw_sigma.shape, 0.02))
            if layer.raw_multiplier is not None:
                layer.raw_multiplier.assign(np.ones(layer.raw_multiplier.shape))
    cell = model.core.cell
    set_sigma(cell.latent_bottleneck, [0.02, 0.02, 0.95])
    maps = np.zeros((3, 2, 5))
    maps[0, :, :2] = [[1.0, 0.3], [0.2, 1.5]]
    maps[1, :, :2] = [[-1.0, 0.0], [0.0, 0.8]]
    constants = np.array([[-1.5, -0.4], [0.2, -0.1], [0.0, 0.0]])
    linear(cell.update_network, maps, constants)
    linear(model.choice_readout.network, [[0.5, -1.0, 0.0], [1.5, 0.25, 0.0]], [0.1, 0.4])
    if model.dopamine_readout is not None:
        linear(model.dopamine_readout.network, [[-0.7, 0.2, 0.0, 0.5, 2.0]], [0.3])
    return model, maps, constants


def expected_case(maps, constants, latent, choice, reward):
    u, v = constants[latent] + maps[latent][:, :2] @ [choice, reward]
    return 1 / (1 + np.exp(-u)), 2.0 * np.tanh(v / 2.0)


@pytest.fixture(scope="module")
def sessions():
    return make_sessions(np.random.default_rng(4), lengths=(80, 61, 70))


def test_a_linear_rule_is_found_exactly(sessions):
    model, maps, constants = hand_set()
    formulas = compute_formulas(model, sessions)
    updates = formulas.updates
    assert updates["latent"].tolist() == ["z1"] * 4 + ["z2"] * 4
    for _, row in updates.iterrows():
        latent = int(row["latent"][1:]) - 1
        alpha, target = expected_case(maps, constants, latent, row["choice"], row["reward"])
        assert row["alpha"] == pytest.approx(alpha, abs=1e-4)
        assert row["target"] == pytest.approx(target, abs=1e-3)
        assert row["drift"] == pytest.approx(alpha * target, abs=1e-3)
        assert row["r2"] > 0.99999
        assert row["max_error"] < 1e-5
        assert row["z3"] == 0
        assert abs(row["z1"]) + abs(row["z2"]) < 1e-4
    made = ~np.isnan(sessions.features[:, 1:, 0])
    assert updates.groupby("latent")["n"].sum().tolist() == [made.sum()] * 2

    (choice,) = formulas.choice.to_dict("records")
    assert choice["arm"] == 1
    np.testing.assert_allclose(
        [choice["intercept"], choice["z1"], choice["z2"]], [0.3, 1.0, 1.25], atol=1e-4
    )
    assert choice["r2"] > 0.99999
    assert formulas.timing == "pre"
    for _, row in formulas.dopamine.iterrows():
        np.testing.assert_allclose(row[["z1", "z2"]].astype(float), [-0.7, 0.2], atol=1e-3)
        expected = 0.3 + 0.5 * row["choice"] + 2.0 * row["reward"]
        assert row["intercept"] == pytest.approx(expected, abs=1e-3)


def test_other_latents_are_terms_where_they_can_be_read(sessions):
    """The target of latent 1 depends on latent 2, so weakly that tanh is nearly linear."""
    model, maps, constants = hand_set(max_latent_value=50.0)
    cell = model.core.cell
    maps[0, 1, 3] = 0.4
    linear(cell.update_network, maps, constants)
    formulas = compute_formulas(model, sessions)
    for _, row in formulas.updates[formulas.updates["latent"] == "z1"].iterrows():
        alpha = 1 / (1 + np.exp(-(constants[0] + maps[0][:, :2] @ row[["choice", "reward"]])[0]))
        assert row["alpha"] == pytest.approx(alpha, abs=1e-3)
        assert row["z2"] == pytest.approx(0.4 * alpha, abs=2e-3)
        assert row["r2"] > 0.999
    set_sigma(cell.update_latent_bottleneck, np.where(np.eye(3, k=1) > 0, 0.9, 0.02))
    closed = compute_formulas(model, sessions)
    first = closed.updates[closed.updates["latent"] == "z1"]
    assert (first["z2"] == 0).all()
    assert (first["r2"] < 0.999).any(), "the error includes what the formula leaves out"


def test_errors_are_those_of_the_formula(sessions):
    """Compare a nonlinear network with an independent least squares fit over visited states."""
    model = make_model(num_latents=2)
    formulas = compute_formulas(model, sessions)
    latents = predict_latents(model, sessions.features).astype(float)
    made = sessions.row_mask[:, 1:]
    seen = sessions.features[:, 1:][made]
    before, after = latents[:, :-1][made], latents[:, 1:][made]
    where = (seen[:, 0] == 1) & (seen[:, 1] == 0)
    inputs = np.column_stack([np.ones(where.sum()), before[where]])
    change = (after - before)[where][:, 0]
    weights, *_ = np.linalg.lstsq(inputs, change, rcond=None)
    error = change - inputs @ weights
    row = formulas.updates.query("latent == 'z1' and choice == 1 and reward == 0").iloc[0]
    assert row["alpha"] == pytest.approx(-weights[1], abs=1e-6)
    assert row["target"] == pytest.approx(-weights[0] / weights[1], abs=1e-5)
    assert row["rms_error"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert row["max_error"] == pytest.approx(np.abs(error).max(), rel=1e-5)
    assert row["r2"] == pytest.approx(1 - np.mean(error**2) / np.var(change), abs=1e-6)
    assert row["rms_error"] > 1e-4, "an exact formula would make this test trivial"


def test_learning_rates(sessions):
    model, maps, constants = hand_set()
    rates = compute_formulas(model, sessions).learning_rates().set_index(["latent", "choice"])
    for latent in range(2):
        for choice in range(2):
            alphas = [expected_case(maps, constants, latent, choice, r)[0] for r in (0, 1)]
            row = rates.loc[f"z{latent + 1}", choice]
            assert row["alpha_min"] == pytest.approx(min(alphas), abs=1e-3)
            assert row["alpha_max"] == pytest.approx(max(alphas), abs=1e-3)
            assert min(alphas) - 1e-3 <= row["alpha"] <= max(alphas) + 1e-3


def test_formulas_as_markdown_and_latex(sessions):
    model, maps, constants = hand_set(dopamine_timing="post")
    formulas = compute_formulas(model, sessions)
    alpha, target = expected_case(maps, constants, 0, 1, 1)
    markdown = formulas.to_markdown(digits=2)
    assert f"| 1, 1 | `z1' = z1 + {alpha:.2f} ({target:.2f} - z1)" in markdown
    assert "`logit = 0.30 + 1.00 z1 + 1.25 z2` | 1.00 |" in markdown
    assert "`dopamine = 2.80 - 0.70 z1' + 0.20 z2'`" in markdown
    latex = formulas.to_latex(digits=2)
    assert latex.startswith(r"\begin{align*}")
    assert rf"z_{{1,t+1}} &= z_{{1,t}} + {alpha:.2f} ({target:.2f} - z_{{1,t}})" in latex
    assert r"\text{arm 1}" in latex
    assert r"\mathrm{dopamine} &= 2.80 - 0.70 z_{1,t+1} + 0.20 z_{2,t+1}" in latex
    assert latex.count(r"\\") == len(formulas.updates) + 1 + 4


def test_a_latent_that_never_moves_has_no_rate(sessions):
    model, _, constants = hand_set(num_signals=0)
    maps = np.zeros((3, 2, 5))
    constants[:, 0] = -40.0
    linear(model.core.cell.update_network, maps, constants)
    formulas = compute_formulas(model, sessions)
    assert formulas.updates["alpha"].isna().all()
    assert formulas.updates["target"].isna().all()
    np.testing.assert_allclose(formulas.updates["drift"], 0, atol=1e-6)
    assert formulas.dopamine.empty
    assert formulas.timing is None
    assert "`z1' = z1 + 0.000`" in formulas.to_markdown()


def test_three_arms_and_no_open_latent(sessions):
    model = make_model(num_latents=2, num_arms=3, num_signals=2)
    three = make_sessions(np.random.default_rng(0), arms=3, signals=2)
    formulas = compute_formulas(model, three)
    assert formulas.choice["arm"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(formulas.choice[["intercept", "z1", "z2"]].sum(), 0, atol=1e-6)
    assert formulas.dopamine["signal"].unique().tolist() == ["dopamine_1", "dopamine_2"]
    set_sigma(model.core.cell.latent_bottleneck, [0.9, 0.9])
    assert compute_formulas(model, three).updates.empty


def test_bad_arguments_are_named(sessions):
    with pytest.raises(ValueError, match="expected 3 observations, as the model reads, got 2"):
        compute_formulas(make_model(num_observations=3), sessions)
    amounts = Sessions.from_trials([[0, 1] * 10], [np.arange(20.0)], reward_kind="real")
    with pytest.raises(ValueError, match="at most 8 values of reward"):
        compute_formulas(make_model(), amounts)


def test_rules_as_tables():
    model = make_model(num_latents=3)
    tables = rule_tables(model, points=7)
    choice, dopamine = compute_choice_rule(model, points=7), compute_dopamine_rule(model, points=7)
    frame = tables["choice"]
    assert list(frame.columns[:2]) == list(choice.latents)
    row = frame.iloc[3 * 7 + 5]
    assert row.iloc[0] == choice.values[0][3]
    assert row.iloc[1] == choice.values[1][5]
    assert row["logit_1"] == choice.logits[3, 5, 1]
    assert row["choice_probability_0"] == choice.probability[3, 5, 0]
    row = tables["dopamine"].iloc[2 * 49 + 4 * 7 + 1]
    assert (row["choice"], row["reward"]) == (dopamine.choices[2], dopamine.rewards[2])
    assert row[dopamine.latents[0]] == dopamine.values[0][4]
    assert row["dopamine"] == dopamine.prediction[2, 4, 1, 0]
    update = tables["update"]
    rule = compute_update_rules(model, points=7)[1]
    own = update[(update["latent"] == "z2") & update["other"].isna()]
    np.testing.assert_array_equal(own["change"].to_numpy().reshape(4, 7), rule.change)
    np.testing.assert_array_equal(own["value"].to_numpy()[:7], rule.values)
    name, values, changes = rule.others[0]
    varied = update[(update["latent"] == "z2") & (update["other"] == name)]
    at = varied[varied["other_value"] == values[2]]
    np.testing.assert_array_equal(at["change"].to_numpy().reshape(4, 7), changes[2])
    closed = make_model(num_latents=2, num_signals=0)
    set_sigma(closed.core.cell.latent_bottleneck, [0.9, 0.9])
    tables = rule_tables(closed)
    assert tables["update"].empty
    assert len(tables["choice"]) == 1
    assert "dopamine" not in tables


@pytest.mark.slow
def test_the_learning_rate_of_a_q_learner_is_found():
    """A network trained on the choices of a Q-learner has its learning rate and does not forget."""
    agent = bandit.QLearning(alpha=0.3, beta=3.0)
    played = bandit.simulate(
        agent, bandit.DriftingBandit(), num_sessions=300, num_trials=200, seed=0
    )
    sessions = Sessions.from_trials(played.choice, played.reward, dopamine=played.dopamine)
    model = DisRNNModel(num_latents=5, seed=0)
    train(
        model, sessions, sessions, warmup_steps=1000, stage1_steps=3000, stage2_steps=0, verbose=0
    )
    rates = compute_formulas(model, sessions).learning_rates()
    best = rates.loc[rates.groupby("latent")["alpha"].idxmax()]
    other = rates.loc[rates.groupby("latent")["alpha"].idxmin()]
    assert sorted(best["choice"]) == [0, 1], "a latent for each arm"
    np.testing.assert_allclose(best["alpha"], 0.3, atol=0.05)
    np.testing.assert_allclose(other["alpha"], 0.0, atol=0.05)
