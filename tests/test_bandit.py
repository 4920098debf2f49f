"""The synthetic sessions: the agent's equations, the environment's statistics, reproducibility."""

import sys

import numpy as np
import pytest

from keras_disrnn.bandit import DriftingBandit, QLearning, simulate


def play(sessions=40, trials=60, seed=2, agent=None, environment=None, **arguments):
    return simulate(
        agent or QLearning(), environment or DriftingBandit(),
        sessions=sessions, trials=trials, seed=seed, **arguments,
    )  # fmt: skip


@pytest.mark.parametrize(("alpha", "beta", "arms"), [(0.3, 3.0, 2), (0.7, 1.5, 4), (1.0, 0.0, 3)])
def test_q_learning_equations_trial_by_trial(alpha, beta, arms):
    played = play(6, 30, agent=QLearning(alpha, beta), environment=DriftingBandit(0.1, arms))
    for session in range(6):
        q = np.full(arms, 0.5)
        for trial in range(30):
            choice, reward = played.choice[session, trial], played.reward[session, trial]
            np.testing.assert_allclose(played.variables[session, trial], q, atol=1e-6)
            p = np.exp(beta * q) / np.exp(beta * q).sum()
            np.testing.assert_allclose(played.choice_probability[session, trial], p, atol=1e-6)
            np.testing.assert_allclose(
                played.chosen_probability[session, trial], p[choice], atol=1e-6
            )
            error = reward - q[choice]
            np.testing.assert_allclose(played.dopamine[session, trial], error, atol=1e-6)
            q[choice] += alpha * error


def test_choices_and_rewards_come_as_often_as_their_probabilities_say():
    played = play(400, 100)
    for outcome, probability in (
        (played.choice == 1, played.choice_probability[..., 1]),
        (
            played.reward == 1,
            np.take_along_axis(played.reward_probability, played.choice[..., None], -1)[..., 0],
        ),
    ):
        for low in np.arange(0, 1, 0.2):
            some = (probability >= low) & (probability < low + 0.2)
            if some.sum() > 500:
                spread = np.sqrt((probability[some] * (1 - probability[some])).sum())
                assert abs((outcome[some] - probability[some]).sum()) < 4.5 * spread


def test_reward_probabilities_start_uniform_and_drift_within_bounds():
    played = play(2000, 30)
    p = played.reward_probability.astype(float)
    assert p.min() >= 0
    assert p.max() <= 1
    start = np.sort(p[:, 0].ravel())
    assert np.abs(start - np.linspace(0, 1, len(start))).max() < 0.04
    steps = np.diff(p, axis=1)
    inside = (p[:, :-1] > 0.4) & (p[:, :-1] < 0.6)
    np.testing.assert_allclose(steps[inside].std(), 0.1, rtol=0.03)
    assert abs(steps[inside].mean()) < 0.002
    assert abs(np.corrcoef(steps[..., 0].ravel(), steps[..., 1].ravel())[0, 1]) < 0.02


def test_a_session_depends_on_its_seed_and_index_alone():
    whole = play(50)
    part = play(20, first_session=30)
    longer = play(50, trials=90)
    for name in ("choice", "reward", "dopamine", "reward_probability", "variables"):
        np.testing.assert_array_equal(getattr(whole, name)[30:], getattr(part, name))
        np.testing.assert_array_equal(getattr(whole, name), getattr(longer, name)[:, :60])
    assert whole.ids[30:] == part.ids
    other = play(50, seed=3)
    assert np.mean(other.choice == whole.choice) < 0.6
    assert len(np.unique(whole.choice, axis=0)) == 50


def test_drift_owes_nothing_to_the_draws_of_the_start():
    played = play(4000, 2, environment=DriftingBandit(0.01))
    p = played.reward_probability.astype(float)
    for arm in range(2):
        start, step = p[:, 0, arm], np.abs(p[:, 1, arm] - p[:, 0, arm])
        inside = (start > 0.1) & (start < 0.9)
        # A normal draw made of the same random words would share their low bits with the start.
        assert abs(np.corrcoef(step[inside], (8 * start[inside]) % 1)[0, 1]) < 0.1


def test_the_sessions_of_a_seed_stay_what_they_were():
    """Recorded values: if NumPy changes its streams, the data sets need a new version."""
    played = play(2, 8, seed=0)
    assert played.choice.tolist() == [[0, 1, 1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0, 0]]
    assert played.reward.tolist() == [[0, 1, 0, 0, 0, 0, 0, 1], [1, 1, 1, 0, 1, 1, 1, 1]]
    np.testing.assert_allclose(
        played.reward_probability[1, :, 0],
        [0.81335, 0.79938, 0.71623, 0.66997, 0.72167, 0.8862, 0.90745, 0.93248],
        atol=1e-5,
    )


def test_blocks_of_sessions_do_not_change_them(monkeypatch):
    whole = play(50)
    # The function has the name of its module, which hides the module from a dotted path.
    monkeypatch.setattr(sys.modules[simulate.__module__], "_TRIALS_PER_BLOCK", 7 * 60)
    np.testing.assert_array_equal(play(50).choice, whole.choice)
    np.testing.assert_array_equal(play(50).variables, whole.variables)


def test_table_has_one_row_a_trial():
    played = play(3, 4)
    table = played.to_table()
    assert len(table) == 12
    assert table["session"].nunique() == 3
    row = table.iloc[6]
    assert (row["trial"], row["choice"], row["q1"]) == (
        2, played.choice[1, 2], played.variables[1, 2, 1],
    )  # fmt: skip
    assert row["choice_probability_1"] == played.choice_probability[1, 2, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QLearning(alpha=-0.1), "alpha"),
        (lambda: QLearning(alpha=1.5), "alpha"),
        (lambda: QLearning(beta=-1), "beta"),
        (lambda: DriftingBandit(sigma=-0.1), "sigma"),
        (lambda: DriftingBandit(arms=1), "arms"),
        (lambda: play(sessions=0), "sessions"),
        (lambda: play(trials=0), "trials"),
        (lambda: play(seed=-1), "seed"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
