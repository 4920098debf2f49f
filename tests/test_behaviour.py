"""The statistics of choices against plain loops, and for known agents."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

from keras_disrnn import bandit
from keras_disrnn.analysis import better_arms_of, compute_behaviour, compute_behaviour_distances
from keras_disrnn.analysis.behaviour_statistics import RIDGE
from keras_disrnn.data import Columns, Sessions, sessions_from_table
from keras_disrnn.plots import plot_behaviour

COLUMNS = Columns(dopamine="dopamine")


def values(behaviour, statistic, column="value"):
    rows = behaviour.table[behaviour.table["statistic"] == statistic]
    return rows.set_index("at")[column]


@pytest.fixture(scope="module")
def mixed():
    """Sessions of several lengths with forced and missed trials, and a better arm."""
    rng = np.random.default_rng(3)
    lengths = (60, 41, 52, 75, 30)
    forced = [rng.random(n) < 0.12 for n in lengths]
    missed = [rng.random(n) < 0.06 for n in lengths]
    for flags in missed:
        flags[:2] = False
    choice = [np.cumsum(rng.random(n) < 0.3) % 2 for n in lengths]
    reward = [rng.integers(0, 2, n) for n in lengths]
    better = [np.arange(n) // 13 % 2 for n in lengths]
    sessions = Sessions.from_trials(choice, reward, forced=forced, missed=missed)
    return sessions, choice, reward, forced, missed, better


def trials(mixed):
    """Each session as a list of (choice or None, rewarded, free)."""
    _, choice, reward, forced, missed, _ = mixed
    for c, r, f, m in zip(choice, reward, forced, missed, strict=True):
        yield [
            (None if no else int(arm), bool(won), not (no or is_forced))
            for arm, won, is_forced, no in zip(c, r, f, m, strict=True)
        ]


def test_stay_and_shift_agree_with_a_plain_loop(mixed):
    count = {"win_stay": [], "lose_shift": []}
    for session in trials(mixed):
        for (before, won, _), (now, _, free) in itertools.pairwise(session):
            if before is not None and free:
                count["win_stay" if won else "lose_shift"].append((now == before) == won)
    behaviour = compute_behaviour(mixed[0], replicates=20)
    for name, events in count.items():
        assert values(behaviour, name)[0] == pytest.approx(np.mean(events))
        assert values(behaviour, name, "n")[0] == len(events)


def test_autocorrelation_is_a_correlation(mixed):
    behaviour = compute_behaviour(mixed[0], autocorrelation_lags=6, replicates=20)
    free = [now for session in trials(mixed) for now, _, is_free in session if is_free]
    share = np.mean(free)
    chance = share**2 + (1 - share) ** 2
    for lag in range(1, 7):
        same = [
            session[t][0] == session[t + lag][0]
            for session in trials(mixed)
            for t in range(len(session) - lag)
            if session[t][2] and session[t + lag][2]
        ]
        expected = (np.mean(same) - chance) / (1 - chance)
        assert values(behaviour, "choice_autocorrelation")[lag] == pytest.approx(expected)
    # In one long session without bias it equals the correlation of NumPy.
    choice = np.random.default_rng(0).random(20_000) < 0.2
    choice = np.cumsum(choice) % 2
    long = compute_behaviour(Sessions.from_trials([choice], [np.zeros(len(choice))]), replicates=2)
    expected = np.corrcoef(choice[:-3], choice[3:])[0, 1]
    assert values(long, "choice_autocorrelation")[3] == pytest.approx(expected, abs=2e-3)
    assert long.table["lower"].isna().all(), "one session has no interval"


def test_the_switch_curve_agrees_with_a_plain_loop(mixed):
    better = mixed[-1]
    behaviour = compute_behaviour(mixed[0], better=better, before=15, after=15, replicates=20)
    events = {}
    for session, arms in zip(trials(mixed), better, strict=True):
        changes = [t for t in range(1, len(arms)) if arms[t] != arms[t - 1]]
        for number, change in enumerate(changes):
            low = changes[number - 1] if number else 0
            high = changes[number + 1] if number + 1 < len(changes) else len(arms)
            for t in range(max(low, change - 15), min(high, change + 15)):
                if session[t][2]:
                    events.setdefault(t - change, []).append(session[t][0] == arms[change])
    found, n = values(behaviour, "switch_curve"), values(behaviour, "switch_curve", "n")
    for offset in range(-15, 15):
        assert n[offset] == len(events.get(offset, []))
        if n[offset]:
            assert found[offset] == pytest.approx(np.mean(events[offset]))
        else:
            assert np.isnan(found[offset])
    assert n[-13] > 0
    assert n[-14] == n[13] == 0, "a block is 13 trials long"


def test_run_lengths_agree_with_the_kaplan_meier_estimator(mixed):
    runs = []  # (length, whether it ended by a switch)
    for session in trials(mixed):
        length, known, last = 0, True, None
        for now, _, free in session:
            if not free:
                if length and known:
                    runs.append((length, False))
                length, known, last = 0, False, now
            elif length and now == last:
                length += 1
            else:
                # A choice that differs from the run before it begins a run; one that follows a
                # forced or missed trial has a beginning that is not known.
                if length and known:
                    runs.append((length, True))
                known = known or length > 0
                length, last = 1, now
        if length and known:
            runs.append((length, False))
    survival, expected = 1.0, []
    for n in range(1, 9):
        risk = sum(length >= n and (length > n or ended) for length, ended in runs)
        survival *= 1 - sum(length == n and ended for length, ended in runs) / risk
        expected.append(survival)
    behaviour = compute_behaviour(mixed[0], longest_run=8, replicates=20)
    np.testing.assert_allclose(values(behaviour, "run_survival"), expected)


def test_the_regression_agrees_with_another_optimizer(mixed):
    lags, inputs, outcome = 3, [], []
    for session in trials(mixed):
        for t in range(lags, len(session)):
            past = [session[t - lag] for lag in range(1, lags + 1)]
            if session[t][2] and all(arm is not None for arm, _, _ in past):
                side = [2 * arm - 1 for arm, _, _ in past]
                won = [s * w for s, (_, w, _) in zip(side, past, strict=True)]
                inputs.append([1, *side, *won])
                outcome.append(2 * session[t][0] - 1)
    inputs, outcome = np.array(inputs, float), np.array(outcome)

    def loss(weights):
        return np.logaddexp(0, -outcome * (inputs @ weights)).sum() + RIDGE / 2 * weights @ weights

    expected = scipy.optimize.minimize(loss, np.zeros(7), tol=1e-10).x
    behaviour = compute_behaviour(mixed[0], lags=lags, replicates=20)
    found = np.concatenate(
        [values(behaviour, name) for name in ("bias", "choice_weight", "reward_weight")]
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert values(behaviour, "bias", "n")[0] == len(outcome)


def play(agent, sessions=150, trials=150, seed=0, environment=None):
    played = bandit.simulate(
        agent,
        environment or bandit.BlockBandit(),
        num_sessions=sessions,
        num_trials=trials,
        seed=seed,
    )
    table = played.to_table()
    read = sessions_from_table(table, COLUMNS)
    return table, read


def test_statistics_of_known_agents_agree_with_theory():
    """A random agent has no statistics; the weights of a learner decay at its learning rate."""
    _, blind = play(bandit.QLearning(0.3, 0.0))
    behaviour = compute_behaviour(blind)
    for statistic, expected in (
        ("win_stay", 0.5), ("lose_shift", 0.5), ("choice_autocorrelation", 0.0),
        ("choice_weight", 0.0), ("reward_weight", 0.0),
    ):  # fmt: skip
        error = (values(behaviour, statistic) - expected) / values(behaviour, statistic, "se")
        assert error.abs().max() < 4
    n = np.arange(1, 6)
    np.testing.assert_allclose(values(behaviour, "run_survival")[n], 0.5**n, atol=0.02)
    # Forgetting Q-learning is this regression: the weights fall by (1 - alpha) per trial.
    alpha, worth, cost = 0.4, 2.0, 0.5
    _, learner = play(bandit.ForgettingQLearning(alpha, kappa_1=worth, kappa_2=cost), 400, 200)
    behaviour = compute_behaviour(learner, lags=8, replicates=2)
    decay = alpha * (1 - alpha) ** np.arange(3)
    np.testing.assert_allclose(values(behaviour, "choice_weight")[:3], -cost * decay, atol=0.05)
    rewards = values(behaviour, "reward_weight")[:3]
    np.testing.assert_allclose(rewards, (worth + cost) * decay, atol=0.05)


def test_intervals_cover_the_true_value():
    """Intervals of 24 data sets cover the value of a large one as often as stated."""
    agent = bandit.QLearning(0.4, 3.0)
    truth = compute_behaviour(play(agent, 3000, 60, seed=99)[1], replicates=2, lags=2)
    inside, keys = (
        [],
        [("win_stay", 0), ("reward_weight", 1), ("choice_autocorrelation", 2), ("run_survival", 3)],
    )
    for seed in range(24):
        found = compute_behaviour(play(agent, 25, 60, seed=seed)[1], replicates=100, lags=2)
        for statistic, at in keys:
            low, high = (values(found, statistic, end)[at] for end in ("lower", "upper"))
            inside.append(low < values(truth, statistic)[at] < high)
    assert 0.84 < np.mean(inside) < 0.99


def test_distances_are_root_mean_squares():
    agent = bandit.QLearning(0.4, 3.0)
    table, animal = play(agent, seed=1)
    better = better_arms_of(table, animal, "better_arm")
    animal = compute_behaviour(animal, better=better)
    models = {}
    for name, other in (("true", agent), ("blind", bandit.QLearning(0.4, 0.0))):
        table, sessions = play(other, 600, seed=2)
        models[name] = compute_behaviour(
            sessions, better=better_arms_of(table, sessions, "better_arm"), replicates=2
        )
    distances = compute_behaviour_distances(animal, models).set_index(["model", "statistic"])
    assert (distances.loc["true"]["ratio"] < 3).all()
    assert (distances.loc["blind"]["ratio"].drop(["bias", "lose_shift"]) > 4).all()
    row = distances.loc["blind", "win_stay"]
    gap = abs(values(models["blind"], "win_stay")[0] - values(animal, "win_stay")[0])
    assert row["distance"] == pytest.approx(gap)
    gaps = values(models["blind"], "switch_curve") - values(animal, "switch_curve")
    row = distances.loc["blind", "switch_curve"]
    assert row["distance"] == pytest.approx(np.sqrt(np.mean(gaps**2)))
    floor = np.sqrt(np.mean(values(animal, "switch_curve", "se") ** 2))
    assert row["floor"] == pytest.approx(floor)


def test_better_arms_are_read_from_a_table():
    table, sessions = play(bandit.QLearning(), 3, 80)
    by_arm = better_arms_of(table, sessions, "better_arm")
    names = ["reward_probability_0", "reward_probability_1"]
    by_probability = better_arms_of(table, sessions, names)
    for one, two in zip(by_arm, by_probability, strict=True):
        np.testing.assert_array_equal(one, two)
    drifting, read = play(bandit.QLearning(), 3, 80, environment=bandit.DriftingBandit())
    assert better_arms_of(drifting, read, names) is None
    behaviour = compute_behaviour(read, better=None, replicates=2)
    assert "not known" in behaviour.skipped["switch_curve"]
    still = compute_behaviour(read, better=[np.zeros(80, int)] * 3, replicates=2)
    assert "never changes" in still.skipped["switch_curve"]
    for columns, message in (
        ("nonesuch", "expected a column 'nonesuch'"),
        (["session"], "expected numbers in column 'session'"),
        (["a", "b", "c"], "got 3: a, b, c"),
        ("reward_probability_0", "expected an arm from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            better_arms_of(table, sessions, columns)


def test_bad_arguments_are_named(mixed):
    for settings, message in (
        ({"lags": 0}, "lags: expected a whole number of at least 1"),
        ({"confidence": 95}, "confidence"),
        ({"better": mixed[-1][:2]}, "expected 5 sessions, got 2"),
        ({"better": [arms[:20] for arms in mixed[-1]]}, "expected 60 trials in session '0', got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            compute_behaviour(mixed[0], **settings)


def test_three_arms_have_all_but_the_regression():
    _, sessions = play(bandit.QLearning(), 20, 50, environment=bandit.BlockBandit(num_arms=3))
    behaviour = compute_behaviour(sessions, replicates=5)
    assert "there are 3" in behaviour.skipped["regression"]
    assert "reward_weight" not in set(behaviour.table["statistic"])
    figure = plot_behaviour({"mice": behaviour})
    notes = [text.get_text().replace("\n", " ") for ax in figure.axes for text in ax.texts]
    assert sum("needs two arms" in text for text in notes) == 2
    assert sum("not known" in text for text in notes) == 1


def test_the_figure_shows_the_tables():
    behaviours = {}
    for name, agent in (("mice", bandit.QLearning()), ("model", bandit.QLearning(0.1, 1.0))):
        table, sessions = play(agent, 10, 60)
        better = better_arms_of(table, sessions, "better_arm")
        behaviours[name] = compute_behaviour(sessions, better=better, replicates=20)
    figure = plot_behaviour(behaviours)
    assert len(figure.axes) == 6
    names = ("choice_autocorrelation", "switch_curve", "choice_weight", "reward_weight")
    for ax, statistic in zip(figure.axes[1:], (*names, "run_survival"), strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        for name, behaviour in behaviours.items():
            np.testing.assert_array_equal(
                lines[name].get_ydata(), values(behaviour, statistic).to_numpy()
            )
    bars = [bar.get_height() for bar in figure.axes[0].patches]
    expected = [values(b, s)[0] for b in behaviours.values() for s in ("win_stay", "lose_shift")]
    np.testing.assert_allclose(bars, expected)
    with pytest.raises(ValueError, match="at least one"):
        plot_behaviour({})
    assert isinstance(behaviours["mice"].table, pd.DataFrame)
