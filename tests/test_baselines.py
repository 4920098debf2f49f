"""Baselines: equations, gradients, fits, recovery, files, and real recordings."""

import inspect

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from oracle import run_cognitive, simulate_cognitive
from scipy.optimize import approx_fprime

from keras_disrnn import bandit
from keras_disrnn.analysis import compute_comparison, compute_evaluation
from keras_disrnn.bandit.rules import NUMPY, is_chosen
from keras_disrnn.data import Columns, Sessions, sessions_from_table, split_by_column
from keras_disrnn.io.saved_model import export
from keras_disrnn.models import baselines
from keras_disrnn.models.baselines import fitting
from keras_disrnn.models.baselines.recurrence import TENSORS

PARAMETERS = {
    baselines.QLearning: {"alpha": 0.35, "kappa_1": 1.8, "kappa_2": 1.1},
    baselines.ForgettingQLearning: {"alpha": 0.3, "kappa_1": 2.4, "kappa_2": 0.6},
    baselines.DifferentialForgettingQLearning: {
        "alpha_1": 0.45,
        "alpha_2": 0.15,
        "kappa_1": 2.5,
        "kappa_2": 0.7,
    },
    baselines.LeakyActorCritic: {"alpha_critic": 0.3, "learn": 1.0, "forget": 0.08},
}
"""Cognitive models and true parameters well inside their ranges."""

MODELS = list(PARAMETERS)
by_name = pytest.mark.parametrize("model_type", MODELS, ids=lambda each: each.__name__)


def simulated(model_type, sessions, trials, seed, noise=0.3):
    """Sessions of the plain loop, with noisy dopamine."""
    choice, reward, error = simulate_cognitive(
        model_type.__name__, PARAMETERS[model_type], sessions, trials, seed
    )
    noisy = error + noise * np.random.default_rng([seed, 1]).normal(size=error.shape)
    return Sessions.from_trials(choice, reward, dopamine=noisy)


@pytest.fixture
def irregular(rng):
    """Sessions of three arms and different lengths, with forced and missed trials and gaps."""
    lengths = (7, 12, 4)
    choice = [rng.integers(0, 3, n).astype(float) for n in lengths]
    missed = [rng.random(n) < 0.2 for n in lengths]
    missed[1][0] = True
    return Sessions.from_trials(
        choice=choice,
        reward=[rng.integers(0, 2, n) for n in lengths],
        dopamine=[np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)) for n in lengths],
        forced=[rng.random(n) < 0.3 for n in lengths],
        missed=missed,
        num_arms=3,
        subjects=["a", "b", "a"],
    )


def every_model(**shape):
    """One fitted model of each kind."""
    signals = shape.get("num_signals", 1)
    naive = {"rewarded": [1.5] * signals, "unrewarded": [-0.5] * signals} if signals else {}
    return [
        baselines.Naive(**naive, **shape),
        *(kind(**values, **shape) for kind, values in PARAMETERS.items()),
        baselines.GRU(5, **shape),
    ]


# === Equations and gradients ===


@by_name
def test_equations_agree_with_a_plain_loop(model_type, irregular):
    model = model_type(**PARAMETERS[model_type], num_arms=3)
    outputs = model.predict(irregular.dataset(), verbose=0)
    for index, features in enumerate(irregular.features):
        logits, errors = run_cognitive(model_type.__name__, PARAMETERS[model_type], features, 3)
        np.testing.assert_allclose(outputs["choice"][index], logits, atol=1e-5)
        counted = irregular.dopamine_weight[index, :, 0] > 0
        np.testing.assert_allclose(
            outputs["dopamine"][index, counted, 0], errors[counted], atol=1e-5
        )


@pytest.mark.parametrize(
    ("model_type", "targets"),
    [
        *((each, "joint") for each in MODELS),
        (baselines.DifferentialForgettingQLearning, "choice"),
        (baselines.DifferentialForgettingQLearning, "dopamine"),
    ],
)
def test_loss_and_gradient_agree_with_a_plain_loop(model_type, targets, irregular):
    affine = targets == "joint"
    compute = fitting.loss_and_gradient(model_type, 3, targets, affine)
    data = fitting.arrays(irregular)
    point = np.array(list(PARAMETERS[model_type].values()))
    loss, gradient, _ = compute(tf.constant(point), *data)

    expected, error, recorded = 0.0, [], []
    for index, features in enumerate(irregular.features):
        logits, errors = run_cognitive(model_type.__name__, PARAMETERS[model_type], features, 3)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        for row in np.flatnonzero(irregular.choice_weight[index]):
            expected -= log_p[row, irregular.choice[index, row]]
        counted = irregular.dopamine_weight[index, :, 0] > 0
        error.extend(errors[counted])
        recorded.extend(irregular.dopamine[index, counted, 0])
    if targets == "dopamine":
        expected = 0.0
    if targets != "choice":
        predicted = np.array(error)
        if affine:
            predicted = np.polyval(np.polyfit(error, recorded, 1), error)
        variance = np.mean((predicted - recorded) ** 2)
        expected += 0.5 * len(error) * (np.log(2 * np.pi * variance) + 1)
    np.testing.assert_allclose(loss, expected, rtol=1e-7)

    numeric = approx_fprime(point, lambda p: float(compute(tf.constant(p), *data)[0]), 1e-7)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4)
    assert np.abs(gradient).max() > 1e-2


@pytest.mark.parametrize(
    ("rule", "arms"),
    [
        (bandit.ValueRule(0.4, 0.1, 2.0, 0.5, beta=1.5, initial_value=0.5), 3),
        (bandit.RewardSeekingRule(0.3, 1.5), 2),
        (bandit.ActorCriticRule(0.3, 1.0, 0.05), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_rule_gives_the_same_on_arrays_and_on_tensors(rule, arms, rng):
    state = rng.normal(size=(len(rule.initial_state(arms)), 20))
    chosen = is_chosen(rng.integers(0, arms, 20), arms)
    reward = rng.integers(0, 2, 20).astype(float)
    tensors = (tf.constant(each) for each in (state, chosen, reward))
    for array, tensor in zip(
        rule.update(state, chosen, reward, NUMPY), rule.update(*tensors, TENSORS), strict=True
    ):
        np.testing.assert_allclose(tensor, array, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(
        rule.logits(tf.constant(state), TENSORS), rule.logits(state, NUMPY)
    )
    assert rule.num_arms(tf.constant(state)) == rule.num_arms(state) == arms


# === Fits ===


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["choice", "dopamine", "joint"])
@by_name
def test_fits_recover_simulated_parameters_within_their_intervals(model_type, targets):
    names = model_type.parameter_names()
    truth = np.array([PARAMETERS[model_type][name] for name in names])
    tables = [
        model_type()
        .fit_sessions(simulated(model_type, 40, 60, seed), targets, starts=1, seed=seed)
        .estimates
        for seed in range(6)
    ]
    assert tuple(tables[0]["parameter"]) == names
    found, low, high, errors = (
        np.array([table[column] for table in tables])
        for column in ("estimate", "lower", "upper", "se")
    )
    # Dopamine depends on the critic alone.
    critic = model_type is baselines.LeakyActorCritic and targets == "dopamine"
    known = slice(0, 1) if critic else slice(None)
    assert np.isfinite(errors[:, known]).all()
    assert np.isnan(errors[:, 1:]).all() == critic
    # With 95% intervals, fewer than three in four contain the truth in less than 1 of 500 cases.
    inside = (low < truth) & (truth < high)
    assert inside[:, known].mean() >= 0.75
    # The mean of the fits is within four of its standard errors, ...
    off = (found.mean(axis=0) - truth)[known] / errors[:, known].mean(axis=0) * np.sqrt(len(found))
    assert np.abs(off).max() < 4
    # ... and these errors are small enough for a meaningful test.
    assert (errors / truth)[:, known].max() < 0.8


def test_the_agent_of_the_synthetic_data_is_recovered():
    played = bandit.simulate(
        bandit.QLearning(alpha=0.3, beta=3.0),
        bandit.DriftingBandit(),
        num_sessions=100,
        num_trials=60,
        seed=3,
    )
    sessions = Sessions.from_trials(played.choice, played.reward, dopamine=played.dopamine)
    model = baselines.QLearning()
    table = model.fit_sessions(sessions, "choice", starts=3).estimates.set_index("parameter")
    for name, value in (("alpha", 0.3), ("kappa_1", 1.5), ("kappa_2", 1.5)):
        assert table.loc[name, "lower"] < value < table.loc[name, "upper"]
    scores = compute_evaluation(model, sessions, reference=played.choice_probability).summary
    # On the data of the fit the estimate is more likely than the truth. Twice the gain in log
    # likelihood is chi-squared with 3 degrees of freedom, below 11.3 in 99 of 100 data sets.
    gain = scores["choice"]["normalized_likelihood"] * 11.3 / 2 / played.choice.size
    assert 0 <= scores["choice"]["difference"] < gain
    # Dopamine is the model's own, without noise, so the fit is almost exact, in units of reward.
    model.fit_sessions(sessions, "dopamine", starts=3)
    found = model.parameters
    expected = {"alpha": 0.3, "kappa_1": 0.5, "kappa_2": 0.5}
    assert found == pytest.approx(expected, abs=2e-4)
    assert compute_evaluation(model, sessions).summary["dopamine"]["r2"] > 0.9999


def test_fits_do_not_depend_on_the_unit_of_dopamine():
    sessions = simulated(baselines.ForgettingQLearning, 10, 60, 1)
    large = Sessions.from_trials(
        sessions.features[:, 1:, 0],
        sessions.features[:, 1:, 1],
        dopamine=1e3 * sessions.dopamine[:, 1:],
    )
    small_fit = baselines.ForgettingQLearning().fit_sessions(sessions, "dopamine", starts=3)
    large_fit = baselines.ForgettingQLearning().fit_sessions(large, "dopamine", starts=3)
    scale = np.array([1, 1e3, 1e3])
    for column in ("estimate", "se"):
        np.testing.assert_allclose(
            large_fit.estimates[column], scale * small_fit.estimates[column], rtol=1e-3
        )


def test_the_same_seed_gives_the_same_fit_and_all_starts_are_reported():
    sessions = simulated(baselines.LeakyActorCritic, 12, 60, 5)
    first, again = (
        baselines.LeakyActorCritic().fit_sessions(sessions, starts=4, seed=2) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first.estimates, again.estimates)
    assert first.start_losses == again.start_losses
    assert len(first.start_losses) == 4
    assert first.loss == min(first.start_losses)


def test_a_rate_at_the_end_of_its_range_has_no_interval():
    sessions = simulated(baselines.QLearning, 30, 80, 0, noise=0.0)
    fit = baselines.DifferentialForgettingQLearning().fit_sessions(sessions, "dopamine", starts=3)
    table = fit.estimates.set_index("parameter")
    assert table.loc["alpha_2", "estimate"] == pytest.approx(0, abs=1e-4)
    others = table.drop("alpha_2")
    np.testing.assert_allclose(
        others["estimate"], list(PARAMETERS[baselines.QLearning].values()), rtol=1e-3
    )
    assert (others["se"] < 1e-2).all()


def test_calibration_is_the_least_squares_line():
    sessions = simulated(baselines.DifferentialForgettingQLearning, 15, 60, 4)
    model = baselines.DifferentialForgettingQLearning()
    model.fit_sessions(sessions, "choice", starts=3)
    calibrated = model.calibrate(sessions)
    counted = sessions.dopamine_weight[..., 0] > 0
    raw = model.predict(sessions.dataset(), verbose=0)
    line = calibrated.predict(sessions.dataset(), verbose=0)
    np.testing.assert_array_equal(raw["choice"], line["choice"])
    recorded, error = sessions.dopamine[..., 0][counted], raw["dopamine"][..., 0][counted]
    expected = np.polyval(np.polyfit(error, recorded, 1), error)
    np.testing.assert_allclose(line["dopamine"][..., 0][counted], expected, atol=1e-4)
    assert (model.parameter_count, calibrated.parameter_count) == (4, 6)


def test_naive_predicts_the_mean_responses(irregular):
    model = baselines.Naive(num_arms=3).fit_sessions(irregular)
    counted = irregular.dopamine_weight[..., 0] > 0
    reward, recorded = irregular.features[..., 1][counted], irregular.dopamine[..., 0][counted]
    outputs = model.predict(irregular.dataset(), verbose=0)
    for value in (0, 1):
        np.testing.assert_allclose(
            outputs["dopamine"][..., 0][counted][reward == value],
            recorded[reward == value].mean(),
            rtol=1e-5,
        )
    scores = compute_evaluation(model, irregular).summary
    assert scores["choice"]["normalized_likelihood"] == pytest.approx(1 / 3)


def test_gru_learns_and_is_reproducible_by_its_seed():
    sessions = simulated(baselines.ForgettingQLearning, 24, 40, 2)
    first, again = baselines.GRU(8, seed=1), baselines.GRU(8, seed=1)
    histories = [gru.fit_sessions(sessions, steps=40, learning_rate=0.03) for gru in (first, again)]
    assert histories[0].history["val_loss"] == histories[1].history["val_loss"]
    scores = compute_evaluation(first, sessions).summary
    assert scores["choice"]["normalized_likelihood"] > 0.55
    assert scores["dopamine"]["r2"] > 0.6
    choice_only = baselines.GRU(8, num_signals=0, seed=1)
    choice_only.fit_sessions(sessions, steps=20)
    assert set(choice_only(sessions.features)) == {"choice"}


def test_each_subject_gets_its_own_model():
    parts = [simulated(baselines.ForgettingQLearning, 6, 60, seed) for seed in (1, 2)]
    sessions = Sessions.from_trials(
        np.concatenate([part.features[:, 1:, 0] for part in parts]),
        np.concatenate([part.features[:, 1:, 1] for part in parts]),
        dopamine=np.concatenate([part.dopamine[:, 1:] for part in parts]),
        subjects=["one", "two"] * 6,
    )
    models = baselines.fit_subjects(baselines.ForgettingQLearning, sessions, "choice", starts=2)
    ones = sessions.subset(slice(0, None, 2))
    alone = baselines.ForgettingQLearning()
    fit = alone.fit_sessions(ones, "choice", starts=2)
    estimates = baselines.subject_estimates(models)
    assert list(estimates["subject"]) == ["one"] * 3 + ["two"] * 3
    pd.testing.assert_frame_equal(
        estimates[estimates["subject"] == "one"].drop(columns="subject"), fit.estimates
    )
    together = compute_evaluation(models, sessions).per_session
    own = compute_evaluation(alone, ones).per_session
    np.testing.assert_allclose(together["sse"][::2], own["sse"])
    np.testing.assert_allclose(together["log_likelihood"][::2], own["log_likelihood"])
    with pytest.raises(ValueError, match="models: expected models of fit_subjects, got .* for 'x'"):
        baselines.subject_estimates({"x": baselines.ForgettingQLearning()})
    del models["two"]
    with pytest.raises(ValueError, match="none of 'two'; there are models of 'one'"):
        compute_evaluation(models, sessions)


# === Keras: fit, evaluate, files ===


def test_keras_can_fit_and_evaluate_baselines():
    sessions = simulated(baselines.QLearning, 12, 30, 1)
    model = baselines.QLearning(alpha=0.99, kappa_1=0.5, kappa_2=0.5)
    model.compile_targets("joint", learning_rate=0.05)
    first = model.evaluate(sessions.dataset(), verbose=0, return_dict=True)
    model.fit(sessions.dataset(steps=15), shuffle=False, verbose=0)
    last = model.evaluate(sessions.dataset(), verbose=0, return_dict=True)
    assert last["loss"] < first["loss"]
    assert 0 <= model.parameters["alpha"] <= 1
    scores = compute_evaluation(model, sessions).summary
    assert last["choice_normalized_likelihood"] == pytest.approx(
        scores["choice"]["normalized_likelihood"], rel=1e-5
    )
    assert last["dopamine_mse"] == pytest.approx(scores["dopamine"]["mse"], rel=1e-4)
    assert last["dopamine_r2"] == pytest.approx(scores["dopamine"]["r2"], rel=1e-3)


@pytest.mark.parametrize("shape", [{}, {"num_signals": 0}, {"num_arms": 3, "num_signals": 2}])
def test_a_keras_file_gives_the_same_model(shape, make_features, tmp_path):
    features = make_features(sessions=3, rows=6, lengths=(6, 4, 6))
    features[0, 2] = np.nan
    for model in every_model(**shape):
        expected = model(features)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.get_config() == model.get_config()
        outputs = loaded(features)
        assert set(outputs) == set(expected)
        for name, values in outputs.items():
            np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize(
    "copy", [keras.models.clone_model, lambda model: type(model).from_config(model.get_config())]
)
def test_a_clone_has_the_same_weights_and_arguments(index, copy):
    model = every_model(num_signals=2)[index]
    clone = copy(model)
    assert clone is not model
    assert len(clone.weights) == len(model.weights) > 0
    for ours, theirs in zip(model.weights, clone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    config = model.get_config()
    assert clone.get_config() == config
    for name in config.keys() - {"dtype", "trainable"}:
        # JSON has no tuples.
        value = getattr(model, name)
        assert config[name] == (list(value) if isinstance(value, tuple) else value)


def test_the_config_has_every_argument():
    for model in every_model():
        known = set()
        for kind in type(model).__mro__:
            if kind.__module__.startswith("keras_disrnn"):
                known |= set(inspect.signature(kind.__init__).parameters)
        arguments = known - {"self", "args", "kwargs", "parameters"}
        assert arguments <= set(model.get_config())


def test_a_model_is_built_when_it_is_made(capsys):
    for model in every_model():
        assert model.built
        model.summary()
    assert "Total params: 5" in capsys.readouterr().out
    unfitted = baselines.QLearning()
    assert (unfitted.alpha, unfitted.gain, unfitted.fitted_to) == (None, None, None)
    assert unfitted.built


def test_parameters_are_attributes():
    model = baselines.QLearning(alpha=0.25, kappa_1=1.5, kappa_2=0.5, gain=[2.0], offset=[1.0])
    assert (model.alpha, model.kappa_1, model.gain, model.offset) == (0.25, 1.5, [2.0], [1.0])
    with pytest.raises(AttributeError, match="alpha: expected no assignment"):
        model.alpha = 0.5
    assert baselines.Naive([1.5], [-0.5]).rewarded == [1.5]


def test_the_agent_of_a_model_has_its_predictions():
    for kind, values in PARAMETERS.items():
        model = kind(**values)
        played = bandit.simulate(
            model.agent("mouse"), bandit.BlockBandit(), num_sessions=3, num_trials=30, seed=0
        )
        sessions = Sessions.from_trials(played.choice, played.reward)
        dopamine = model(sessions.features)["dopamine"][:, 1:, 0]
        np.testing.assert_allclose(played.dopamine, dopamine, atol=1e-5)


@pytest.mark.parametrize("index", range(6))
def test_an_export_gives_the_same_numbers(index, make_features, tmp_path):
    model = every_model()[index]
    features = make_features(sessions=3, rows=6, lengths=(6, 4, 6))
    features[0, 2] = np.nan
    expected = {**model(features), "latents": model.compute_latents(features)}
    export(model, tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    served = loaded.serve(features)
    latents = loaded.initial_state(3)["latents"]
    for row in range(features.shape[1]):
        outputs = loaded.step(features[:, row], latents)
        latents = outputs["latents"]
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value[:, row], atol=1e-6)
    for name, value in expected.items():
        np.testing.assert_allclose(served[name], value, atol=1e-6)


# === Bad input ===


def good_sessions(**changes):
    arguments = {
        "choice": [[0, 1, 1, 0]],
        "reward": [[1, 0, 1, 0]],
        "dopamine": [[1.0, 0, 2, 0]],
        **changes,
    }
    return Sessions.from_trials(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: baselines.QLearning(alpha=1.5, kappa_1=1, kappa_2=1), "alpha: .* from 0 to 1"),
        (lambda: baselines.QLearning(alpha=0.5), "all parameters or none, got alpha without"),
        (
            lambda: baselines.QLearning()(np.zeros((1, 3, 2))),
            "expected fitted parameters, got none; call fit_sessions",
        ),
        (lambda: baselines.QLearning().parameters, "expected fitted parameters, got none"),
        (lambda: baselines.Naive()(np.zeros((1, 3, 2))), "expected mean responses, got none"),
        (lambda: baselines.Naive(rewarded=1.0), "expected both or neither"),
        (lambda: baselines.Naive(rewarded=[1, 2], unrewarded=[0, 1]), "1 finite numbers each"),
        (lambda: baselines.GRU(0), "units: expected a whole number of at least 1"),
        (
            lambda: baselines.QLearning(alpha=0.5, kappa_1=1, kappa_2=1)(np.zeros((1, 3, 4))),
            "2 observations, the number this model was made for",
        ),
        (
            lambda: baselines.QLearning().fit_sessions(good_sessions(choice=[[1, 1, 1, 1]])),
            "at least two arms, got arm 1 in every free choice",
        ),
        (
            lambda: baselines.QLearning().fit_sessions(
                good_sessions(
                    choice=[[0, 1], [1, 0]],
                    reward=[[1, 0], [1, 0]],
                    dopamine=[[1, 0], [1, 0]],
                    forced=[[1, 1], [0, 0]],
                ).subset([0])
            ),
            "got no free choice in 1 sessions",
        ),
        (
            lambda: baselines.QLearning().fit_sessions(good_sessions(dopamine=None), "joint"),
            "signals: expected sessions with 1",
        ),
        (
            lambda: baselines.QLearning(num_signals=0).fit_sessions(good_sessions(), "joint"),
            "expected 'choice', because QLearning predicts no dopamine",
        ),
        (lambda: baselines.QLearning().fit_sessions(good_sessions(), "both"), "targets: expected"),
        (lambda: baselines.QLearning(num_arms=3).fit_sessions(good_sessions()), "arms: expected"),
        (lambda: baselines.Naive().fit_sessions(good_sessions(reward=[[1] * 4])), "unrewarded"),
        (lambda: baselines.QLearning().fit_sessions(good_sessions(), starts=0), "starts: expected"),
        (
            lambda: baselines.QLearning(num_signals=2).fit_sessions(
                good_sessions(dopamine=[np.ones((4, 2))]), "dopamine"
            ),
            "expected 'joint' for 2 dopamine signals",
        ),
        (
            lambda: baselines.fit_subjects(
                baselines.QLearning, good_sessions(choice=[[1, 1, 1, 1]], subjects=["m7"])
            ),
            "subject 'm7': sessions: expected free choices",
        ),
        (
            lambda: compute_comparison({"a": baselines.GRU(2)}, {}, against="b"),
            "expected the name of one of 'a', got 'b'",
        ),
    ],
)
def test_bad_input_has_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# === The table ===


def test_comparison_pools_scores_and_pairs_sessions():
    sessions = simulated(baselines.ForgettingQLearning, 20, 40, 1)
    good = baselines.ForgettingQLearning(**PARAMETERS[baselines.ForgettingQLearning])
    models = {"naive": baselines.Naive().fit_sessions(sessions), "truth": good}
    table = compute_comparison(models, {"train": sessions}, replicates=500)
    scores = compute_evaluation(good, sessions).summary
    naive, truth = (row for _, row in table.iterrows())
    assert truth["normalized_likelihood"] == pytest.approx(
        scores["choice"]["normalized_likelihood"]
    )
    assert truth["mse"] == pytest.approx(scores["dopamine"]["mse"])
    assert truth["r2"] == pytest.approx(scores["dopamine"]["r2"])
    assert (naive["parameters"], truth["parameters"]) == (2, 3)
    for score, error in (("mse", "mse_se"), ("r2", "r2_se")):
        # Two ways to an error over sessions: half the width of 95% is about two of the jackknife's.
        half = (truth[f"{score}_upper"] - truth[f"{score}_lower"]) / 2
        assert half == pytest.approx(1.96 * scores["dopamine"][error], rel=0.25)
        assert truth[f"{score}_lower"] < truth[score] < truth[f"{score}_upper"]
    assert truth["mse_difference"] == pytest.approx(truth["mse"] - naive["mse"])
    assert truth["mse_difference_upper"] < 0
    assert naive["mse_difference"] == 0
    assert np.isnan(naive["mse_difference_lower"])
    # The naive model is at chance in every bootstrap sample, so the difference varies as the score.
    assert truth["normalized_likelihood_difference_lower"] == pytest.approx(
        truth["normalized_likelihood_lower"] - 0.5
    )


# === Real recordings ===


@pytest.mark.slow
def test_baselines_fit_the_dlight_recordings(shared):
    path = shared / "data" / "dlight_bandit" / "trials.csv.gz"
    columns = Columns(
        session="session_id",
        choice="choice_right",
        dopamine="dlight_response",
        forced="forced_choice",
        trial="trial",
    )
    sessions = sessions_from_table(path, columns)
    train, held_out = split_by_column(sessions, pd.read_csv(path)["day"], [3])
    naive = baselines.Naive().fit_sessions(train)
    models = {"naive": naive}
    for name, kind in (
        ("FQ", baselines.ForgettingQLearning),
        ("DFQ", baselines.DifferentialForgettingQLearning),
    ):
        model = kind()
        fit = model.fit_sessions(train, "choice", starts=4)
        assert fit.start_losses[1] == pytest.approx(fit.loss, abs=1e-3)
        models[name] = model
    dopamine = baselines.DifferentialForgettingQLearning()
    dopamine.fit_sessions(train, "dopamine", starts=4)
    models["DFQ, dopamine"] = dopamine
    models["DFQ, affine"] = models["DFQ"].calibrate(train)
    table = compute_comparison(models, {"held_out": held_out}, replicates=200)
    table = table.set_index("model")
    likelihood, mse = table["normalized_likelihood"], table["mse"]
    assert likelihood["naive"] == pytest.approx(0.5)
    assert 0.53 < likelihood["FQ"] < likelihood["DFQ"] + 1e-3 < 0.62
    assert mse["DFQ, dopamine"] < mse["DFQ, affine"] < mse["DFQ"]
    assert mse["DFQ, dopamine"] < mse["naive"]
