"""The fair rows of a comparison: regression on values, identity, seeds, partial pooling."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_disrnn import bandit
from keras_disrnn.analysis import compute_evaluation, compute_seed_spread
from keras_disrnn.data import Sessions
from keras_disrnn.experiments.comparison_plan import COGNITIVE, plan_baselines
from keras_disrnn.experiments.comparison_settings import ComparisonSettings
from keras_disrnn.io.saved_model import export
from keras_disrnn.models import baselines


def of_agents(agents, sessions, trials, seed, dopamine=lambda index, error: error):
    """Sessions of several subjects, each an agent, with a response that may be one's own."""
    played = [
        bandit.simulate(
            agent, bandit.BlockBandit(), num_sessions=sessions, num_trials=trials, seed=seed + index
        )
        for index, agent in enumerate(agents)
    ]
    return Sessions.from_trials(
        np.concatenate([each.choice for each in played]),
        np.concatenate([each.reward for each in played]),
        dopamine=np.concatenate([dopamine(i, each.dopamine) for i, each in enumerate(played)]),
        subjects=np.repeat([f"m{index}" for index in range(len(agents))], sessions),
    )


# === Regression ===


def test_the_regression_is_that_of_least_squares_on_reward_side_and_values():
    agent = bandit.QLearning(0.4, 2.0)
    played = bandit.simulate(agent, bandit.BlockBandit(), num_sessions=12, num_trials=60, seed=5200)
    rng = np.random.default_rng(5200)
    q = played.variables
    # A response that no prediction error alone explains: it reads the side and both values.
    response = 0.5 + played.reward - 0.7 * played.choice + 0.8 * q[..., 0] - 0.3 * q[..., 1]
    response = response + 0.1 * rng.normal(size=response.shape)
    response[rng.random(response.shape) < 0.2] = np.nan
    sessions = Sessions.from_trials(played.choice, played.reward, dopamine=response)
    train, held_out = sessions[:6], sessions[6:]
    model = baselines.QLearning(0.4, kappa_1=1.0, kappa_2=1.0)
    # The model's values start at 0 and the agent's at 0.5: its values are 2 q - 1.
    chosen = np.take_along_axis(q, played.choice[..., None], -1)[..., 0]
    columns = [np.ones_like(chosen), played.reward, played.choice, chosen, q[..., 0], q[..., 1]]
    design = np.stack(columns, axis=-1)
    known = np.isfinite(response[:6])
    found = np.linalg.lstsq(design[:6][known], response[:6][known], rcond=None)[0]
    regression = baselines.ValueRegression(model).fit_sessions(train)
    predicted = regression.predict(held_out.dataset(), verbose=0)
    np.testing.assert_allclose(predicted["dopamine"][:, 1:, 0], design[6:] @ found, atol=1e-4)
    np.testing.assert_array_equal(
        predicted["choice"], model.predict(held_out.dataset(), verbose=0)["choice"]
    )
    assert (regression.rank, regression.parameter_count) == (6, 9)
    scores = [
        compute_evaluation(each, held_out).summary["dopamine"]["r2"]
        for each in (baselines.ValueRegression().fit_sessions(train), model.calibrate(train))
    ]
    own = compute_evaluation(regression, held_out).summary["dopamine"]["r2"]
    assert own > 0.95 > max(scores)


def test_a_regression_counts_only_independent_regressors_and_is_kept_in_files(tmp_path):
    sessions = of_agents([bandit.WinStayLoseShift()], 6, 40, 5201)
    model = baselines.WinStayLoseShift(0.8, shift=0.5)
    # Its error is the reward, and of the three variables two add up to 1 after the first trial.
    regression = baselines.ValueRegression(model).fit_sessions(sessions)
    assert regression.rank == 6
    alone = baselines.ValueRegression().fit_sessions(sessions)
    assert (alone.rank, alone.parameter_count) == (3, 3)
    for each in (regression, alone):
        each.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.parameter_count == each.parameter_count
        expected = each(sessions.features)
        for name, values in loaded(sessions.features).items():
            np.testing.assert_array_equal(values, expected[name])
    export(regression, tmp_path / "exported")
    served = tf.saved_model.load(str(tmp_path / "exported")).serve(sessions.features)
    expected = regression(sessions.features)["dopamine"]
    np.testing.assert_allclose(served["dopamine"], expected, atol=1e-6)


# === Identity of the subjects ===


def test_a_gru_that_knows_its_subjects_tells_them_apart(tmp_path):
    """Two subjects with the same choices, and responses of another size."""
    agents = [bandit.QLearning(0.3, 3.0)] * 2
    sessions = of_agents(agents, 16, 40, 5300, lambda index, error: error * (1 - 2 * index))
    scores = []
    for arguments in ({}, {"subjects": ("m0", "m1"), "num_observations": 3}):
        model = baselines.GRU(6, seed=1, **arguments)
        model.fit_sessions(sessions, steps=80, learning_rate=0.03)
        scores.append(compute_evaluation(model, sessions).summary["dopamine"]["r2"])
    assert scores[0] < 0.2 < 0.5 < scores[1]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.subjects == ("m0", "m1")
    read = sessions.for_model(loaded)
    expected = model(read.features)
    for name, values in loaded(read.features).items():
        np.testing.assert_array_equal(values, expected[name])
    # One step at a time gives the same numbers.
    latents = np.repeat(model.initial_latents[None], len(read), axis=0)
    for row in range(4):
        outputs = model.step(read.features[:, row], latents)
        latents = outputs["latents"]
        np.testing.assert_allclose(outputs["dopamine"], expected["dopamine"][:, row], atol=1e-5)
    with pytest.raises(ValueError, match="expected the index of one of this model's subjects"):
        model(np.full((1, 2, 3), 2.0, "float32"))
    with pytest.raises(ValueError, match="num_observations: expected .* at least 3"):
        baselines.GRU(2, subjects=2)


# === Seeds ===


def test_the_best_of_several_seeds_is_chosen_by_the_training_sessions():
    labels = [f"GRU, joint, seed {seed}" for seed in (4, 5, 6)]
    table = pd.DataFrame(
        {
            "part": ["train"] * 4 + ["held_out"] * 4,
            "model": [*labels, "naive"] * 2,
            "normalized_likelihood": [0.60, 0.61, 0.59, 0.5, 0.58, 0.55, 0.60, 0.5],
            "mse": [1.0, 2.0, 3.0, 9.0] * 2,
            "r2": [0.5, 0.3, 0.2, 0.0, 0.4, 0.3, 0.5, 0.0],
        }
    )
    found = compute_seed_spread(table).set_index(["part", "score"])
    assert (found["best_seed"] == 4).all()
    assert (found["model"] == "GRU, joint").all()
    row = found.loc[("held_out", "normalized_likelihood")]
    np.testing.assert_allclose(
        row[["mean", "sd", "min", "max", "best"]].astype(float),
        [np.mean([0.58, 0.55, 0.60]), np.std([0.58, 0.55, 0.60], ddof=1), 0.55, 0.60, 0.58],
    )


# === Partial pooling ===


def held_out_likelihood(models, sessions):
    """The normalized likelihood of choices, by a model or by a model for each subject."""
    total = 0.0
    for name in dict.fromkeys(sessions.subjects):
        model = models[name] if isinstance(models, dict) else models
        values = tf.constant(np.array(list(model.parameters.values())))
        total -= float(model.likelihood(sessions.of_subjects([name]), "choice")(values)[0])
    return np.exp(total / sessions.choice_weight.sum())


def make():
    return baselines.ForgettingQLearning(num_signals=0)


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_partial_pooling_predicts_new_sessions_of_known_subjects_no_worse(spread):
    rng = np.random.default_rng(5000)
    agents = [
        bandit.ForgettingQLearning(1 / (1 + np.exp(0.5 - a)), kappa_1=2.0 + b, kappa_2=0.5 + c / 2)
        for a, b, c in spread * rng.normal(size=(8, 3))
    ]
    sessions = of_agents(agents, 8, 100, 5000)
    early = np.arange(len(sessions)) % 8 < 2
    train, new = sessions.subset(early), sessions.subset(~early)
    train, new = (
        Sessions.from_trials(
            each.features[:, 1:, 0], each.features[:, 1:, 1], subjects=each.subjects
        )
        for each in (train, new)
    )
    fit = baselines.fit_partially_pooled(make, train, starts=2, steps=15)
    together = make()
    together.fit_sessions(train, starts=2)
    apart = baselines.fit_subjects(make, train, starts=2)
    own, *others = (held_out_likelihood(each, new) for each in (fit.models, together, apart))
    # Half of a thousandth is a fifth of a standard error of these 4,800 choices.
    assert own > max(others) - 5e-4
    assert own > min(others) + 1e-3
    found = fit.population.set_index("parameter")
    assert found["lower"].lt(found["typical"]).all() and found["typical"].lt(found["upper"]).all()
    assert (found.loc["alpha", "sd"] > 0.3) == (spread > 0)
    estimates = baselines.subject_estimates(fit.models)
    assert (estimates["lower"] < estimates["estimate"]).all()
    assert (estimates["estimate"] < estimates["upper"]).all()


def test_partial_pooling_needs_several_subjects():
    one = of_agents([bandit.QLearning()], 2, 20, 5001)
    with pytest.raises(ValueError, match="expected at least 2 subjects to pool, got 'm0'"):
        baselines.fit_partially_pooled(baselines.QLearning, one)
    two = of_agents([bandit.QLearning()] * 2, 2, 20, 5001)
    with pytest.raises(ValueError, match="targets: expected 'choice' or 'joint', got 'dopamine'"):
        baselines.fit_partially_pooled(baselines.QLearning, two, "dopamine")


# === The rows of a comparison ===


def test_a_comparison_has_the_fair_rows():
    sessions = of_agents([bandit.QLearning()] * 2, 2, 20, 5002)
    settings = ComparisonSettings(cognitive=["WSLS"], gru_seeds=2, partial_pooling=True)
    wsls = ["choice", "choice, affine", "choice, regression", "choice, pooled in part"]
    wsls += ["choice, pooled in part, regression", "joint", "joint, pooled in part"]
    gru = [
        f"GRU, {target}{identity}, seed {seed}"
        for identity in ("", ", subjects known")
        for target in ("choice", "joint")
        for seed in (7, 8)
    ]
    names = ["naive", "reward and side", *(f"WSLS, {each}" for each in wsls), *gru]
    plan = plan_baselines(sessions, settings, 7)
    assert list(plan) == names
    fitted = {}
    for name in names[:7]:
        fitted[name] = plan[name](sessions, fitted, None)
    assert isinstance(fitted["WSLS, choice, regression"], baselines.ValueRegression)
    pooled = fitted["WSLS, choice, pooled in part, regression"]
    assert list(pooled) == ["m0", "m1"]
    assert pooled["m0"].model.parameters != pooled["m1"].model.parameters
    every = plan_baselines(sessions, ComparisonSettings(cognitive=["all"]), 0)
    for name in COGNITIVE:
        assert {f"{name}, choice", f"{name}, choice, regression", f"{name}, joint"} <= set(every)
    unknown = plan_baselines(sessions, ComparisonSettings(), 0, known=False)
    assert not any("subjects known" in name for name in unknown)
    with pytest.raises(ValueError, match="partial_pooling: expected several subjects"):
        plan_baselines(sessions, settings, 0, known=False)
    three = Sessions.from_trials([[0, 1, 2]], [[1, 0, 1]])
    with pytest.raises(ValueError, match="num_arms: expected 2 arms for BayesianBelief, got 3"):
        plan_baselines(three, ComparisonSettings(cognitive=["belief"]), 0)
