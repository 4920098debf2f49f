"""The rival models as baselines: equations, gradients, fits, recovery and files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import test_bandit as plain
from scipy.optimize import approx_fprime

from keras_disrnn import bandit
from keras_disrnn.data import Sessions
from keras_disrnn.experiments.comparison_plan import COGNITIVE
from keras_disrnn.experiments.settings import AGENTS
from keras_disrnn.models import baselines
from keras_disrnn.models.baselines import fitting

RIVALS = {
    "DualRateQLearning": (plain.dual_rate, 3),
    "ChoiceKernelQLearning": (plain.choice_kernel, 3),
    "FastSlowQLearning": (plain.fast_slow, 3),
    "BiasedForgettingQLearning": (plain.biased, 2),
    "BayesianBelief": (plain.bayesian_belief, 2),
    "RecursiveLogistic": (plain.recursive_logistic, 2),
    "CompareToThreshold": (plain.compare_to_threshold, 3),
    "WinStayLoseShift": (plain.win_stay_lose_shift, 3),
}
"""Name of the agent and the model, its plain loop, and the most arms of the tests."""


def values_of(name):
    """The parameters of the default agent."""
    return dict(vars(getattr(bandit, name)()))


def irregular(arms, rng):
    """Sessions of different lengths, with forced and missed trials and missing responses."""
    lengths = (9, 14, 5)
    missed = [rng.random(n) < 0.2 for n in lengths]
    missed[1][0] = True
    return Sessions.from_trials(
        choice=[rng.integers(0, arms, n).astype(float) for n in lengths],
        reward=[rng.integers(0, 2, n) for n in lengths],
        dopamine=[np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)) for n in lengths],
        forced=[rng.random(n) < 0.3 for n in lengths],
        missed=missed,
        num_arms=arms,
    )


def play(name, sessions, trials, seed, noise=0.3, environment=None, **parameters):
    agent = getattr(bandit, name)(**parameters)
    environment = environment or bandit.BlockBandit()
    played = bandit.simulate(
        agent, environment, num_sessions=sessions, num_trials=trials, seed=seed
    )
    noisy = played.dopamine + noise * np.random.default_rng([seed, 1]).normal(
        size=played.dopamine.shape
    )
    return Sessions.from_trials(played.choice, played.reward, dopamine=noisy)


def run_plain(equations, arms, parameters, features):
    """Compute log probabilities and errors of each time step (NaN without a trial)."""
    loop = equations(arms, **parameters)
    _, p = next(loop)
    found, errors = [], []
    for step, (choice, reward) in enumerate(features[:, :2]):
        errors.append(np.nan)
        if step > 0 and not np.isnan(choice):
            errors[-1] = loop.send((int(choice), float(reward)))
            _, p = next(loop)
        found.append(np.log(p))
    return np.array(found), np.array(errors)


def test_every_agent_has_a_baseline_of_its_name():
    known = {kind.__name__ for kind in COGNITIVE.values()}
    # The choices of this agent are those of the recursive logistic regression's family.
    assert set(AGENTS) - known == {"RewardSeeking"}
    assert set(RIVALS) <= known
    for name in RIVALS:
        assert getattr(baselines, name).parameter_names() == tuple(values_of(name))


@pytest.mark.parametrize("name", RIVALS)
def test_equations_and_gradients_agree_with_a_plain_loop(name, rng):
    equations, arms = RIVALS[name]
    sessions, parameters = irregular(arms, rng), values_of(name)
    kind = getattr(baselines, name)
    outputs = kind(**parameters, num_arms=arms).predict(sessions.dataset(), verbose=0)
    expected, predicted, recorded = 0.0, [], []
    for index, features in enumerate(sessions.features):
        log_p, errors = run_plain(equations, arms, parameters, features)
        logits = outputs["choice"][index]
        found = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        np.testing.assert_allclose(found, log_p, atol=1e-5)
        counted = sessions.dopamine_weight[index, :, 0] > 0
        np.testing.assert_allclose(
            outputs["dopamine"][index, counted, 0], errors[counted], atol=1e-5
        )
        for row in np.flatnonzero(sessions.choice_weight[index]):
            expected -= log_p[row, sessions.choice[index, row]]
        predicted.extend(errors[counted])
        recorded.extend(sessions.dopamine[index, counted, 0])
    line = np.polyval(np.polyfit(predicted, recorded, 1), predicted)
    variance = np.mean((line - recorded) ** 2)
    expected += 0.5 * len(recorded) * (np.log(2 * np.pi * variance) + 1)
    compute = fitting.loss_and_gradient(kind, arms, "joint", True)
    data, point = fitting.arrays(sessions), np.array(list(parameters.values()))
    loss, gradient, _ = compute(tf.constant(point), *data)
    np.testing.assert_allclose(loss, expected, rtol=1e-7)
    numeric = approx_fprime(point, lambda p: float(compute(tf.constant(p), *data)[0]), 1e-7)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4)
    assert np.abs(gradient).min() > 1e-4


@pytest.mark.parametrize("name", RIVALS)
def test_a_fit_of_choice_and_dopamine_recovers_the_agent(name):
    truth = values_of(name)
    model = getattr(baselines, name)()
    table = model.fit_sessions(play(name, 20, 300, 5000), "joint", starts=4).estimates
    assert list(table["parameter"]) == list(truth)
    if name == "BiasedForgettingQLearning":
        # Without much forgetting, choice reads kappa_1 and kappa_2 as one sum. Dopamine adds their
        # ratio, but its gain is free.
        table["se"] *= 2
    off = (table["estimate"] - list(truth.values())) / table["se"]
    # Four standard errors are exceeded in less than 1 of 10,000 cases.
    assert np.abs(off).max() < 4
    assert (table["se"] / np.abs(table["estimate"])).max() < 0.25
    np.testing.assert_allclose(model.gain, 1.0, atol=0.15)


@pytest.mark.parametrize(
    "name",
    [
        name if name == "BayesianBelief" else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(set(RIVALS) - {"WinStayLoseShift"})
    ],
)
def test_a_fit_of_dopamine_alone_finds_what_dopamine_depends_on(name):
    truth, model = values_of(name), getattr(baselines, name)()
    model.fit_sessions(play(name, 20, 200, 5001, noise=0.02), "dopamine", starts=4)
    for parameter, value in model.parameters.items():
        if parameter in model.DOPAMINE_PARAMETERS:
            assert value == pytest.approx(truth[parameter], rel=0.1), parameter
        else:
            assert value == 0


def test_of_two_solutions_a_fit_returns_the_one_its_names_promise():
    sessions = play("FastSlowQLearning", 10, 200, 5002)
    model = baselines.FastSlowQLearning()
    fits = [model.fit_sessions(sessions, "joint", starts=1, seed=seed) for seed in range(4)]
    for fit in fits:
        found = fit.estimates.set_index("parameter")["estimate"]
        assert found["alpha_fast"] > found["alpha_slow"]
    swapped = model.in_order(np.array([0.1, 0.6, 0.3, 4.0]), "joint")
    np.testing.assert_allclose(swapped, [0.6, 0.1, 0.7, 4.0])
    names = model.parameter_names()
    one, other = (
        baselines.FastSlowQLearning(**dict(zip(names, each, strict=True)))
        for each in ([0.1, 0.6, 0.3, 4.0], swapped.tolist())
    )
    for output, values in one(sessions.features).items():
        np.testing.assert_allclose(values, other(sessions.features)[output], atol=1e-5)
    belief = baselines.BayesianBelief()
    assert belief.in_order(np.array([0.2, 0.7, 0.1]), "dopamine").tolist() == [0.7, 0.2, 0.1]
    assert belief.in_order(np.array([0.2, 0.7, 0.1, 3.0]), "choice").tolist()[0] == 0.2


@pytest.mark.parametrize("name", RIVALS)
def test_files_and_agents_of_a_model_have_its_predictions(name, tmp_path):
    model = getattr(baselines, name)(**values_of(name), gain=[2.0], offset=[0.5])
    played = bandit.simulate(
        model.agent("mouse"), bandit.BlockBandit(), num_sessions=3, num_trials=30, seed=5003
    )
    features = Sessions.from_trials(played.choice, played.reward).features
    expected = model(features)
    np.testing.assert_allclose(played.dopamine, expected["dopamine"][:, 1:, 0], atol=1e-5)
    probability = tf.nn.softmax(expected["choice"])[:, :-1]
    np.testing.assert_allclose(played.choice_probability, probability, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    for output, values in loaded(features).items():
        np.testing.assert_array_equal(values, expected[output])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: baselines.BayesianBelief(num_arms=3),
            "num_arms: expected 2 arms for BayesianBelief, got 3",
        ),
        (
            lambda: baselines.WinStayLoseShift().fit_sessions(
                play("WinStayLoseShift", 2, 20, 5004), "dopamine"
            ),
            "expected 'choice' or 'joint', because no parameter of WinStayLoseShift changes",
        ),
        (
            lambda: baselines.BayesianBelief(0.7, p_low=0.0, hazard=0.1, beta=1.0),
            "p_low: .* from 0.001 to 0.999",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
