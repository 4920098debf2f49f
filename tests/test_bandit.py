"""The synthetic sessions: the agents' equations, the environment's statistics, reproducibility."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from keras_disrnn.bandit import (
    BayesianBelief,
    BiasedForgettingQLearning,
    ChoiceKernelQLearning,
    CompareToThreshold,
    DifferentialForgettingQLearning,
    DriftingBandit,
    DualRateQLearning,
    FastSlowQLearning,
    ForgettingQLearning,
    LeakyActorCritic,
    QLearning,
    RecursiveLogistic,
    RewardSeeking,
    RuleAgent,
    ValueRule,
    WinStayLoseShift,
    simulate,
    simulation,
)


def play(num_sessions=40, num_trials=60, seed=2, agent=None, environment=None, **arguments):
    return simulate(
        agent or QLearning(), environment or DriftingBandit(),
        num_sessions=num_sessions, num_trials=num_trials, seed=seed, **arguments,
    )  # fmt: skip


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


# Each agent again, as a plain loop over the trials of one session, from its published equations.
# Each is a generator: it yields its variables and choice probabilities, receives the choice and the
# reward, and yields the dopamine.


def q_learning(arms, alpha, beta):
    q = [0.5] * arms
    while True:
        choice, reward = yield list(q), softmax(beta * np.array(q))
        yield reward - q[choice]
        q[choice] = q[choice] + alpha * (reward - q[choice])


def differential_forgetting(arms, alpha_1, alpha_2, kappa_1, kappa_2):
    q = [0.0] * arms
    while True:
        choice, reward = yield list(q), softmax(np.array(q))
        yield (kappa_1 if reward else -kappa_2) - q[choice]
        for arm in range(arms):
            if arm != choice:
                q[arm] = (1 - alpha_2) * q[arm]
            elif reward:
                q[arm] = (1 - alpha_1) * q[arm] + alpha_1 * kappa_1
            else:
                q[arm] = (1 - alpha_1) * q[arm] - alpha_1 * kappa_2


def forgetting(arms, alpha, kappa_1, kappa_2):
    return differential_forgetting(arms, alpha, alpha, kappa_1, kappa_2)


def reward_seeking(arms, alpha, beta):
    s = 0.0
    while True:
        choice, reward = yield [s], softmax(np.array([-beta * s, beta * s]))
        a, r = (1 if choice else -1), (1 if reward else -1)
        error = r - a * s
        yield error
        s = s + alpha * a * error


def leaky_actor_critic(arms, alpha_critic, learn, forget):
    theta, v = [0.0] * arms, 0.5
    while True:
        p = softmax(np.array(theta))
        choice, reward = yield [*theta, v], p
        error = reward - v
        yield error
        for arm in range(arms):
            if arm == choice:
                theta[arm] = (1 - forget) * theta[arm] + learn * error * (1 - p[arm])
            else:
                theta[arm] = (1 - forget) * theta[arm] - learn * error * p[arm]
        v = (1 - alpha_critic) * v + alpha_critic * reward


def dual_rate(arms, alpha_reward, alpha_omission, beta):
    q = [0.5] * arms
    while True:
        choice, reward = yield list(q), softmax(beta * np.array(q))
        yield reward - q[choice]
        q[choice] += (alpha_reward if reward else alpha_omission) * (reward - q[choice])


def choice_kernel(arms, alpha, beta, alpha_kernel, beta_kernel):
    q, c = [0.5] * arms, [0.0] * arms
    while True:
        logits = [beta * value + beta_kernel * habit for value, habit in zip(q, c, strict=True)]
        choice, reward = yield [*q, *c], softmax(np.array(logits))
        yield reward - q[choice]
        q[choice] = q[choice] + alpha * (reward - q[choice])
        for arm in range(arms):
            c[arm] = (1 - alpha_kernel) * c[arm] + (alpha_kernel if arm == choice else 0)


def fast_slow(arms, alpha_fast, alpha_slow, weight, beta):
    fast, slow = [0.5] * arms, [0.5] * arms
    while True:
        q = [weight * f + (1 - weight) * s for f, s in zip(fast, slow, strict=True)]
        choice, reward = yield [*fast, *slow], softmax(beta * np.array(q))
        yield reward - q[choice]
        fast[choice] = (1 - alpha_fast) * fast[choice] + alpha_fast * reward
        slow[choice] = (1 - alpha_slow) * slow[choice] + alpha_slow * reward


def biased(arms, bias, **values):
    forgetting = differential_forgetting(arms, **values)
    while True:
        q, _ = next(forgetting)
        outcome = yield q, softmax(np.array([q[0], q[1] + bias]))
        yield forgetting.send(outcome)


def bayesian_belief(arms, p_high, p_low, hazard, beta):
    better = [0.5, 0.5]
    while True:
        choice, reward = yield [better[1]], softmax(beta * np.array(better))
        pays = [[p_high, p_low], [p_low, p_high]][choice]
        yield reward - sum(b * p for b, p in zip(better, pays, strict=True))
        joint = [b * (p if reward else 1 - p) for b, p in zip(better, pays, strict=True)]
        now = [each / sum(joint) for each in joint]
        better = [(1 - hazard) * now[arm] + hazard * now[1 - arm] for arm in (0, 1)]


def recursive_logistic(arms, stickiness, evidence, tau):
    choices, rewards = [], []
    while True:
        # The sum over all past trials, which the agent computes by recursion.
        phi = sum(
            evidence * (2 * choice - 1) * reward * np.exp(-age / tau)
            for age, (choice, reward) in enumerate(zip(choices[::-1], rewards[::-1], strict=True))
        )
        side = 2 * choices[-1] - 1 if choices else 0
        right = 1 / (1 + np.exp(-(stickiness * side + phi)))
        choice, reward = yield [phi, side], np.array([1 - right, right])
        yield reward - 1 / (1 + np.exp(-(2 * choice - 1) * phi))
        choices.append(choice)
        rewards.append(reward)


def stay_or_switch(arms, last, stay):
    if last is None:
        return np.full(arms, 1 / arms)
    return np.where(np.arange(arms) == last, stay, (1 - stay) / (arms - 1))


def compare_to_threshold(arms, alpha, threshold, beta):
    last, v = None, 0.0
    while True:
        stay = 1 / (1 + np.exp(-beta * (v - threshold)))
        shown = [float(arm == last) for arm in range(arms)]
        choice, reward = yield [*shown, v], stay_or_switch(arms, last, stay)
        v = v if choice == last else threshold
        yield reward - v
        last, v = choice, v + alpha * (reward - v)


def win_stay_lose_shift(arms, stay, shift):
    last, win = None, 0
    while True:
        shown = [float(arm == last) for arm in range(arms)]
        outcome = yield [*shown, win], stay_or_switch(arms, last, stay if win else 1 - shift)
        last, win = outcome
        yield win


@pytest.mark.parametrize(
    ("agent", "equations", "arms"),
    [
        (QLearning(), q_learning, 2),
        (QLearning(0.7, 1.5), q_learning, 4),
        (QLearning(1.0, 0.0), q_learning, 3),
        (ForgettingQLearning(), forgetting, 2),
        (ForgettingQLearning(0.6, kappa_1=1.2, kappa_2=-0.4), forgetting, 3),
        (DifferentialForgettingQLearning(), differential_forgetting, 2),
        (
            DifferentialForgettingQLearning(0.5, alpha_2=0.0, kappa_1=1.5, kappa_2=0.2),
            differential_forgetting,
            2,
        ),
        (
            DifferentialForgettingQLearning(0.2, alpha_2=0.7, kappa_1=3.0, kappa_2=1.0),
            differential_forgetting,
            4,
        ),
        (RewardSeeking(), reward_seeking, 2),
        (RewardSeeking(0.8, 0.5), reward_seeking, 2),
        (LeakyActorCritic(), leaky_actor_critic, 2),
        (LeakyActorCritic(0.1, learn=2.0, forget=0.3), leaky_actor_critic, 3),
        (DualRateQLearning(), dual_rate, 2),
        (DualRateQLearning(0.1, alpha_omission=0.7, beta=2.0), dual_rate, 3),
        (ChoiceKernelQLearning(), choice_kernel, 2),
        (ChoiceKernelQLearning(0.6, alpha_kernel=0.7, beta_kernel=-1.0), choice_kernel, 4),
        (FastSlowQLearning(), fast_slow, 2),
        (FastSlowQLearning(0.9, alpha_slow=0.2, weight=0.3, beta=2.0), fast_slow, 3),
        (BiasedForgettingQLearning(), biased, 2),
        (BiasedForgettingQLearning(0.7, alpha_2=0.3, kappa_2=1.0, bias=-0.8), biased, 2),
        (BayesianBelief(), bayesian_belief, 2),
        (BayesianBelief(0.9, p_low=0.4, hazard=0.2, beta=1.5), bayesian_belief, 2),
        (RecursiveLogistic(), recursive_logistic, 2),
        (RecursiveLogistic(-0.7, evidence=0.8, tau=5.0), recursive_logistic, 2),
        (CompareToThreshold(), compare_to_threshold, 2),
        (CompareToThreshold(0.2, threshold=0.6, beta=3.0), compare_to_threshold, 4),
        (WinStayLoseShift(), win_stay_lose_shift, 2),
        (WinStayLoseShift(0.7, shift=0.4), win_stay_lose_shift, 3),
    ],
    ids=lambda value: repr(value) if hasattr(value, "name") else "",
)
def test_equations_trial_by_trial(agent, equations, arms):
    played = play(6, 40, agent=agent, environment=DriftingBandit(0.1, arms))
    assert len(np.unique(played.choice)) == arms
    assert len(played.variable_names) == played.variables.shape[-1]
    assert played.subject == agent.name
    for session in range(6):
        plain = equations(arms, **vars(agent))
        for trial in range(40):
            at = session, trial
            variables, p = next(plain)
            np.testing.assert_allclose(played.variables[at], variables, atol=2e-6)
            np.testing.assert_allclose(played.choice_probability[at], p, atol=1e-6)
            choice = played.choice[at]
            np.testing.assert_allclose(played.chosen_probability[at], p[choice], atol=1e-6)
            dopamine = plain.send((choice, float(played.reward[at])))
            np.testing.assert_allclose(played.dopamine[at], dopamine, atol=2e-6)


def test_special_cases_of_the_general_rule_play_the_same():
    forgetting = play(agent=ForgettingQLearning(0.25, kappa_1=2.0, kappa_2=1.0))
    same = play(agent=DifferentialForgettingQLearning(0.25, alpha_2=0.25, kappa_1=2.0, kappa_2=1.0))
    np.testing.assert_array_equal(forgetting.choice, same.choice)
    np.testing.assert_array_equal(forgetting.dopamine, same.dopamine)
    # Without forgetting and aversion, DFQ in units of kappa_1 = beta is Q-learning from 0.
    scaled = play(agent=DifferentialForgettingQLearning(0.3, alpha_2=0.0, kappa_1=3.0, kappa_2=0.0))
    error = (
        scaled.reward * 3
        - np.take_along_axis(scaled.variables, scaled.choice[..., None], -1)[..., 0]
    )
    np.testing.assert_allclose(scaled.dopamine, error, atol=1e-6)


def test_a_rule_plays_as_the_agent_with_its_equations():
    agent = DifferentialForgettingQLearning(0.4, alpha_2=0.2, kappa_1=2.0, kappa_2=1.0)
    named = play(agent=agent)
    played = play(agent=RuleAgent(ValueRule(0.4, 0.2, 2.0, 1.0), "mouse"))
    np.testing.assert_array_equal(played.variables, named.variables)
    assert (named.subject, played.subject) == (agent.name, "mouse")


def test_special_cases_of_the_rivals_are_q_learning():
    plain = play()
    for same in (
        DualRateQLearning(0.3, alpha_omission=0.3, beta=3.0),
        ChoiceKernelQLearning(0.3, beta=3.0, beta_kernel=0.0),
        FastSlowQLearning(0.3, alpha_slow=0.1, weight=1.0, beta=3.0),
    ):
        played = play(agent=same)
        np.testing.assert_array_equal(played.choice, plain.choice)
        np.testing.assert_allclose(played.dopamine, plain.dopamine, atol=1e-6)


def test_a_belief_is_right_as_often_as_it_says():
    """The belief of an agent that knows its task is calibrated."""
    agent = BayesianBelief(0.8, p_low=0.2, hazard=0.1, beta=2.0)
    rng = np.random.default_rng(5000)
    switched = np.cumsum(rng.random((200, 100)) < 0.1, axis=1)
    better = (rng.integers(0, 2, (200, 1)) + switched) % 2
    state = agent.initial_state(200, 2)
    beliefs = []
    for trial in range(100):
        beliefs.append(state[0])
        choice = (rng.random(200) >= agent.choice_probability(state)[0]).astype(int)
        pays = np.where(choice == better[:, trial], 0.8, 0.2)
        state, _ = agent.update(state, choice, (rng.random(200) < pays).astype(float))
    beliefs = np.stack(beliefs, axis=1)
    for low in np.arange(0, 1, 0.2):
        some = (beliefs >= low) & (beliefs < low + 0.2)
        spread = np.sqrt((beliefs[some] * (1 - beliefs[some])).sum())
        assert some.sum() > 500
        assert abs((better[some] - beliefs[some]).sum()) < 4 * spread


def test_agents_do_not_need_tensorflow():
    code = (
        "import sys; from keras_disrnn import bandit; "
        "bandit.simulate(bandit.LeakyActorCritic(), bandit.BlockBandit(), "
        "num_sessions=2, num_trials=3, seed=0); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_extreme_values_neither_overflow_nor_warn():
    for agent in (
        RecursiveLogistic(1e6, evidence=1e6, tau=1000),
        CompareToThreshold(1.0, beta=1e6),
        ChoiceKernelQLearning(1.0, beta=1e6, beta_kernel=-1e6),
        BayesianBelief(0.999, p_low=0.001, hazard=0.0, beta=1e6),
        QLearning(1.0, 1e6),
        DifferentialForgettingQLearning(1.0, alpha_2=0.0, kappa_1=1e5, kappa_2=1e5),
    ):
        played = play(agent=agent)
        p = played.choice_probability
        assert np.isfinite(p).all()
        np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)
        assert played.chosen_probability.min() > 0


def test_choices_and_rewards_have_the_frequencies_of_their_probabilities():
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


def test_a_session_depends_only_on_its_seed_and_index():
    whole = play(50)
    part = play(20, first_session=30)
    longer = play(50, num_trials=90)
    for name in ("choice", "reward", "dopamine", "reward_probability", "variables"):
        np.testing.assert_array_equal(getattr(whole, name)[30:], getattr(part, name))
        np.testing.assert_array_equal(getattr(whole, name), getattr(longer, name)[:, :60])
    assert whole.ids[30:] == part.ids
    other = play(50, seed=3)
    assert np.mean(other.choice == whole.choice) < 0.6
    assert len(np.unique(whole.choice, axis=0)) == 50


def test_shards_may_start_and_end_anywhere():
    whole = play(600, 12)
    for first, count in ((0, 1), (255, 2), (256, 256), (300, 300), (599, 1)):
        part = play(count, 12, first_session=first)
        for name in ("choice", "reward_probability", "choice_probability", "dopamine"):
            expected = getattr(whole, name)[first : first + count]
            np.testing.assert_array_equal(getattr(part, name), expected)


def test_the_sessions_of_a_group_are_independent():
    played = play(256, 200, agent=QLearning(0.0, 0.0))
    choice = played.choice - 0.5
    together = choice @ choice.T / (0.25 * 200)
    np.testing.assert_allclose(
        together[~np.eye(256, dtype=bool)].std(), 1 / np.sqrt(200), rtol=0.05
    )
    next_group = play(256, 200, agent=QLearning(0.0, 0.0), first_session=256).choice - 0.5
    assert np.abs(choice @ next_group.T).max() / (0.25 * 200) < 6 / np.sqrt(200)


def test_the_drift_is_independent_of_the_start():
    played = play(4000, 2, environment=DriftingBandit(0.01))
    p = played.reward_probability.astype(float)
    for arm in range(2):
        start, step = p[:, 0, arm], np.abs(p[:, 1, arm] - p[:, 0, arm])
        inside = (start > 0.1) & (start < 0.9)
        # A normal draw from the same random words would share their low bits with the start.
        assert abs(np.corrcoef(step[inside], (8 * start[inside]) % 1)[0, 1]) < 0.1


def test_the_sessions_of_a_seed_never_change():
    """Recorded values: if NumPy changes its streams, the data sets need a new version."""
    played = play(2, 8, seed=0)
    assert played.choice.tolist() == [[1, 1, 0, 1, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1]]
    assert played.reward.tolist() == [[1, 1, 0, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]]
    np.testing.assert_allclose(
        played.reward_probability[1, :, 0],
        [0.85606, 0.97891, 1.0, 0.95089, 1.0, 1.0, 1.0, 0.90789],
        atol=1e-5,
    )


def test_blocks_of_sessions_do_not_change_them(monkeypatch):
    whole = play(700)
    monkeypatch.setattr(simulation, "_TRIALS_PER_BLOCK", 256 * 60)
    np.testing.assert_array_equal(play(700).choice, whole.choice)
    np.testing.assert_array_equal(play(700).variables, whole.variables)


def test_parts_of_a_long_session_do_not_change_it(monkeypatch):
    whole = play(300, 50)
    monkeypatch.setattr(simulation, "_TRIALS_PER_BLOCK", 512 * 7)
    for name in ("choice", "reward", "reward_probability", "dopamine"):
        np.testing.assert_array_equal(getattr(play(300, 50), name), getattr(whole, name))


def test_a_long_session_needs_little_more_memory_than_its_own():
    tracemalloc.start()
    played = play(1, 60_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert played.choice.shape == (1, 60_000)
    assert peak < 150e6  # all draws of a group would take 60,000 x 256 x 32 bytes: 490 MB


def test_the_table_has_one_row_for_each_trial():
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
    ("key", "expected"),
    [
        (slice(3, 8), range(3, 8)),
        (slice(None, None, -2), range(9, 0, -2)),
        (4, [4]),
        (-1, [9]),
        (np.int64(2), [2]),
        ([5, 0], [5, 0]),
        (np.arange(10) > 6, [7, 8, 9]),
    ],
    ids=repr,
)
def test_an_index_selects_sessions(key, expected):
    played = play(10, 6, first_session=40)
    expected = list(expected)
    part = played[key]
    assert (len(played), len(part)) == (10, len(expected))
    for name in ("choice", "reward", "dopamine", "reward_probability", "choice_probability"):
        np.testing.assert_array_equal(getattr(part, name), getattr(played, name)[expected])
    assert part.ids == tuple(played.ids[index] for index in expected)
    table = played.to_table()
    rows = table.set_index("session").loc[list(part.ids)].reset_index()
    assert part.to_table().equals(rows[table.columns])


def test_sessions_can_be_iterated_and_an_index_past_the_end_is_an_error():
    played = play(3, 4)
    assert [each.ids for each in played] == [(name,) for name in played.ids]
    with pytest.raises(IndexError, match="session: expected an index below 3, got 3"):
        played[3]


def test_the_representation_is_a_short_table():
    played = play(12, 30)
    lines = repr(played).splitlines()
    assert lines[0] == (
        "SimulatedSessions: 12 sessions of 30 trials, 2 arms, subject 'q_learning', seed 2"
    )
    assert len(lines) == 8
    assert any("choice_probability" in line and "12x30x2" in line for line in lines)
    assert "q0, q1" in lines[-1]
    page = played._repr_html_()
    assert "12 sessions of 30 trials" in page
    assert page.count("<tr") == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QLearning(alpha=-0.1), "alpha"),
        (lambda: QLearning(alpha=1.5), "alpha"),
        (lambda: QLearning(beta=-1), "beta"),
        (lambda: ForgettingQLearning(alpha=2), "alpha"),
        (lambda: ForgettingQLearning(kappa_1=np.inf), "kappa_1"),
        (lambda: ForgettingQLearning(kappa_2=np.nan), "kappa_2: expected a finite number, got"),
        (lambda: DifferentialForgettingQLearning(alpha_1=-1), "alpha_1"),
        (lambda: DifferentialForgettingQLearning(alpha_2=1.1), "alpha_2"),
        (lambda: RewardSeeking(alpha=1.1), "alpha"),
        (lambda: RewardSeeking(beta=-1), "beta"),
        (
            lambda: play(agent=RewardSeeking(), environment=DriftingBandit(num_arms=3)),
            "num_arms: expected 2 arms for RewardSeeking, got 3",
        ),
        (lambda: LeakyActorCritic(alpha_critic=-0.1), "alpha_critic"),
        (lambda: LeakyActorCritic(learn=-0.1), "learn"),
        (
            lambda: FastSlowQLearning(0.1, alpha_slow=0.2),
            "alpha_slow: expected at most alpha_fast, 0.1, got 0.2",
        ),
        (
            lambda: BayesianBelief(0.3, p_low=0.4),
            "p_low: expected at most p_high, 0.3, got 0.4",
        ),
        (lambda: BayesianBelief(hazard=0.6), "hazard: .* from 0 to 0.5"),
        (lambda: WinStayLoseShift(stay=1.0), "stay: .* from 0.001 to 0.999"),
        (lambda: RecursiveLogistic(tau=0), "tau"),
        *(
            (
                lambda agent=agent: play(agent=agent(), environment=DriftingBandit(num_arms=3)),
                f"num_arms: expected 2 arms for {agent.__name__}, got 3",
            )
            for agent in (BayesianBelief, RecursiveLogistic, BiasedForgettingQLearning)
        ),
        (lambda: LeakyActorCritic(forget=1.5), "forget"),
        (lambda: play(first_session=2**63), "first_session"),
        (lambda: DriftingBandit(sigma=-0.1), "sigma"),
        (lambda: DriftingBandit(num_arms=1), "arms"),
        (lambda: play(num_sessions=0), "num_sessions: expected a whole number of at least 1"),
        (lambda: play(num_trials=0), "num_trials: expected a whole number of at least 1"),
        (lambda: play(seed=-1), "seed"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
