"""Models that play as agents, environments of blocks and schedules, and seeds."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_disrnn import bandit
from keras_disrnn.bandit import (
    BlockBandit,
    DriftingBandit,
    ModelAgent,
    ScheduledBandit,
    agent_from_model,
    simulate,
    simulation,
)
from keras_disrnn.data import Columns, Sessions, sessions_from_table
from keras_disrnn.io.saved_model import export
from keras_disrnn.models import baselines
from keras_disrnn.models.disrnn_model import DisRNNModel


def disrnn(**arguments):
    model = DisRNNModel(num_latents=3, update_units=4, num_update_layers=1, seed=3, **arguments)
    # Enlarge the initial weights, so that choices depend on the past.
    for weight in model.trainable_variables:
        if "kernel" in weight.name:
            weight.assign(2.0 * weight)
    return model


MODELS = {
    "DisRNN": lambda: disrnn(num_signals=2),
    "DisRNN, post": lambda: disrnn(dopamine_timing="post"),
    "GRU": lambda: baselines.GRU(5, seed=1),
    "naive": lambda: baselines.Naive([1.5], [-0.5]),
    "Q": lambda: baselines.QLearning(0.3, kappa_1=2.0, kappa_2=0.4),
    "DFQ": lambda: baselines.DifferentialForgettingQLearning(
        0.5, alpha_2=0.2, kappa_1=2.0, kappa_2=0.4, gain=[2.0], offset=[1.0]
    ),
    "FQ": lambda: baselines.ForgettingQLearning(0.3, kappa_1=2.0, kappa_2=0.4),
    "actor-critic": lambda: baselines.LeakyActorCritic(0.2, learn=1.5, forget=0.1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_plays_by_its_own_predictions(name):
    """On the sessions of its agent, a model predicts their probabilities, latents and dopamine."""
    model = MODELS[name]()
    played = simulate(
        agent_from_model(model, name="mouse"), BlockBandit(), num_sessions=9, num_trials=15, seed=1
    )
    assert played.subject == "mouse"
    sessions = Sessions.from_trials(played.choice, played.reward, dopamine=played.dopamine)
    outputs = model(sessions.features)
    probability = tf.nn.softmax(outputs["choice"]).numpy()[:, :-1]
    np.testing.assert_allclose(played.choice_probability, probability, atol=1e-4)
    np.testing.assert_allclose(played.dopamine, outputs["dopamine"][:, 1:, 0], rtol=1e-4, atol=1e-4)
    if isinstance(agent_from_model(model), ModelAgent) and name != "naive":
        latents = model.compute_latents(sessions.features)[:, :-1]
        found = played.variables[..., : latents.shape[-1]]
        np.testing.assert_allclose(found, latents, atol=1e-4)
        assert np.ptp(played.choice_probability) > 0.05


def test_a_saved_model_plays_as_the_original_model(tmp_path):
    model = disrnn()
    export(model, tmp_path / "exported")
    settings = {"num_sessions": 30, "num_trials": 25, "seed": 4}
    own = simulate(agent_from_model(model), DriftingBandit(), **settings)
    saved = tf.saved_model.load(str(tmp_path / "exported"))
    theirs = simulate(agent_from_model(saved), DriftingBandit(), **settings)
    np.testing.assert_allclose(own.variables[:, 0], theirs.variables[:, 0], atol=1e-6)
    assert np.mean(own.choice == theirs.choice) > 0.999
    assert theirs.variable_names == ("z1", "z2", "z3", "logit_0", "logit_1")


def test_the_signal_can_be_chosen_and_a_model_without_signals_has_no_column():
    model = disrnn(num_signals=2)
    settings = {"num_sessions": 5, "num_trials": 12, "seed": 1}
    played = simulate(agent_from_model(model, signal=1), DriftingBandit(), **settings)
    features = Sessions.from_trials(played.choice, played.reward).features
    expected = model(features)["dopamine"][:, 1:, 1]
    np.testing.assert_allclose(played.dopamine, expected, rtol=1e-4, atol=2e-5)
    silent = simulate(agent_from_model(disrnn(num_signals=0)), DriftingBandit(), **settings)
    assert "dopamine" not in silent.to_table()
    assert "dopamine" in played.to_table()


@pytest.mark.parametrize("name", ["DisRNN", "GRU", "Q"])
def test_a_seed_gives_the_same_sessions_however_they_are_played(name, monkeypatch):
    agent = agent_from_model(MODELS[name]())
    whole = simulate(agent, BlockBandit(), num_sessions=2500, num_trials=12, seed=5)
    part = simulate(
        agent, BlockBandit(), num_sessions=300, num_trials=12, seed=5, first_session=1805
    )
    monkeypatch.setattr(simulation, "_TRIALS_PER_BLOCK", 3 * 256 * 12)
    blocks = simulate(agent, BlockBandit(), num_sessions=2500, num_trials=12, seed=5)
    again = simulate(agent, BlockBandit(), num_sessions=2500, num_trials=12, seed=5)
    for field in ("choice", "reward", "dopamine", "choice_probability", "variables"):
        expected = getattr(whole, field)
        np.testing.assert_array_equal(getattr(blocks, field), expected)
        np.testing.assert_array_equal(getattr(again, field), expected)
        np.testing.assert_array_equal(getattr(part, field), expected[1805:2105])


def test_blocks_end_by_rewards():
    settings = {"high": 0.9, "low": 0.2, "rewards": 6, "switch": 0.3}
    played = simulate(
        bandit.QLearning(), BlockBandit(**settings), num_sessions=300, num_trials=300, seed=2
    )
    better = played.better_arm
    np.testing.assert_allclose(np.unique(played.reward_probability), [0.2, 0.9], atol=1e-6)
    assert abs(np.mean(better[:, 0]) - 0.5) < 0.12
    counts = []
    for arms, reward in zip(better, played.reward, strict=True):
        changes = np.flatnonzero(np.diff(arms)) + 1
        for start, end in zip(np.append(0, changes[:-1]), changes, strict=True):
            counts.append(reward[start:end].sum())
            assert reward[end - 1] == 1, "only a reward ends a block"
    extra = np.array(counts) - 6
    assert extra.min() == 0
    # A geometric number from 0 has the mean (1 - p) / p and P(0) = p. The end of a session cuts off
    # a few blocks, mostly long ones.
    np.testing.assert_allclose(extra.mean(), 0.7 / 0.3, rtol=0.06)
    np.testing.assert_allclose(np.mean(extra == 0), 0.3, atol=0.02)


def test_every_other_arm_can_be_the_next_better_one():
    played = simulate(
        bandit.QLearning(), BlockBandit(0.9, 0.3, rewards=2, num_arms=4),
        num_sessions=100, num_trials=200, seed=2,
    )  # fmt: skip
    better = played.better_arm
    step = (np.diff(better, axis=1) % 4)[np.diff(better, axis=1) != 0]
    np.testing.assert_allclose(np.bincount(step, minlength=4)[1:] / len(step), 1 / 3, atol=0.03)


def test_a_schedule_is_played_as_given(rng):
    parts = [np.repeat(rng.random((5, 2)), 10, axis=0)[:length] for length in (50, 31, 44)]
    schedule = ScheduledBandit(parts)
    played = simulate(bandit.QLearning(), schedule, num_sessions=7, seed=0)
    assert played.choice.shape == (7, 50)
    assert played.lengths.tolist() == [50, 31, 44, 50, 31, 44, 50]
    table = played.to_table()
    assert table.groupby("session", sort=False).size().tolist() == played.lengths.tolist()
    expected = np.concatenate([parts[index % 3] for index in range(7)])
    np.testing.assert_allclose(
        table[["reward_probability_0", "reward_probability_1"]], expected, atol=1e-6
    )
    np.testing.assert_array_equal(table["better_arm"], np.argmax(expected, axis=1))
    part = simulate(
        bandit.QLearning(), schedule, num_sessions=2, num_trials=40, seed=0, first_session=4
    )
    assert part.lengths.tolist() == [31, 40]
    np.testing.assert_array_equal(part.choice, played.choice[4:6, :40])
    certain = ScheduledBandit(np.tile([[[1.0, 0.0]]], (1, 30, 1)))
    sure = simulate(bandit.QLearning(), certain, num_sessions=200, seed=0)
    np.testing.assert_array_equal(sure.reward, sure.choice == 0)


def test_a_schedule_is_read_from_a_table():
    table = pd.DataFrame(
        {"day": ["a"] * 3 + ["b"] * 2, "left": [0.8, 0.8, 0.2, 0.5, 0.5], "right": [0.1] * 5}
    )
    schedule = ScheduledBandit.from_table(table, ["left", "right"], session="day")
    played = simulate(bandit.QLearning(), schedule, num_sessions=2, seed=0)
    np.testing.assert_allclose(played.to_table()["reward_probability_0"], table["left"], atol=1e-6)
    for bad, message in (
        (
            table.rename(columns={"left": "l"}),
            "expected a column 'left', got the columns day, l, right",
        ),
        (
            table.iloc[[0, 3, 1]],
            "expected adjacent rows for each session of column .day., .* got 2 ids in 3 groups",
        ),
        (table.assign(right=[0.1, 0.1, 0.1, 0.1, 1.5]), "got 1.5 for arm 1 in trial 1 of session"),
        (table.assign(right=[0.1, np.nan, 0.1, 0.1, 0.5]), "got nan for arm 1 in trial 1 of sess"),
        (table.assign(right="x"), "expected numbers in the columns left, right, got other values"),
    ):
        with pytest.raises(ValueError, match=message):
            ScheduledBandit.from_table(bad, ["left", "right"], session="day")


def test_there_are_no_blocks_if_probabilities_drift_or_never_change():
    settings = {"num_sessions": 4, "num_trials": 60, "seed": 0}
    for sigma in (0.1, 0.0):
        played = simulate(bandit.QLearning(), DriftingBandit(sigma), **settings)
        assert played.better_arm is None
        assert "better_arm" not in played.to_table()


def test_simulated_tables_are_read_like_any_other():
    played = simulate(
        agent_from_model(disrnn()), BlockBandit(), num_sessions=4, num_trials=20, seed=0
    )
    columns = Columns(dopamine="dopamine", trial="trial")
    sessions = sessions_from_table(played.to_table(), columns)
    np.testing.assert_array_equal(sessions.choice[:, :-1], played.choice)
    np.testing.assert_array_equal(sessions.dopamine[:, 1:, 0], played.dopamine)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BlockBandit(high=0.3, low=0.4), "low: expected a number below high"),
        (lambda: BlockBandit(rewards=0), "rewards"),
        (lambda: BlockBandit(switch=0), "switch: expected a number above 0"),
        (lambda: BlockBandit(high=1.2), "high"),
        (lambda: ScheduledBandit([]), "at least one session"),
        (lambda: ScheduledBandit([[0.1, 0.2]]), r"\(trials, arms\) in each session"),
        (lambda: ScheduledBandit([[[0.1] * 2], [[0.1] * 3]]), "2 arms in every session"),
        (
            lambda: simulate(
                bandit.QLearning(),
                ScheduledBandit([[[0.1, 0.2]]]),
                num_sessions=1,
                num_trials=2,
                seed=0,
            ),
            "num_trials: expected at most 1",
        ),
        (lambda: agent_from_model(baselines.QLearning()), "expected fitted parameters, got none"),
        (lambda: agent_from_model(baselines.GRU(num_observations=3)), "got 3 observations"),
        (lambda: agent_from_model(disrnn(), signal=1), "signal"),
        (lambda: agent_from_model(tf.Module()), "without step"),
        (
            lambda: simulate(
                agent_from_model(disrnn()),
                DriftingBandit(num_arms=3),
                num_sessions=1,
                num_trials=1,
                seed=0,
            ),
            "num_arms: expected 2 arms for DisRNNModel, got 3",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
