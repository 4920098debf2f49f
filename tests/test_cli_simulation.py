"""The commands that let models play and compare them with animals."""

import keras
import numpy as np
import pandas as pd
import pytest

import keras_disrnn
from keras_disrnn import bandit
from keras_disrnn.cli import main
from keras_disrnn.data import sessions_from_table
from keras_disrnn.experiments.behaviour import load_agent
from keras_disrnn.io.saved_model import export
from keras_disrnn.models import baselines


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "learner.keras"
    q_learner = baselines.QLearning(0.4, kappa_1=2.0, kappa_2=0.5)
    q_learner.build()
    q_learner.save(path)
    return path


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """Make a table of sessions with blocks, with a user's column names."""
    played = bandit.simulate(
        bandit.QLearning(), bandit.BlockBandit(), num_sessions=12, num_trials=60, seed=3
    )
    names = {"reward_probability_0": "p_left", "reward_probability_1": "p_right"}
    table = played.to_table().rename(columns={"session": "day", **names})
    path = tmp_path_factory.mktemp("tables") / "animals.csv"
    # Sessions of two lengths, as animals have.
    table = table[(table["trial"] < 50) | (table["day"] != table["day"].iloc[0])]
    table[["subject", "day", "trial", "choice", "reward", "p_left", "p_right"]].to_csv(
        path, index=False
    )
    return path


def test_simulate_writes_a_table(model, animals, tmp_path, capsys):
    out = tmp_path / "drifting.csv"
    command = [
        "simulate",
        f"--model={model}",
        f"--out={out}",
        "--num_sessions=5",
        "--num_trials=30",
    ]
    assert main(command) == 0
    assert "5 sessions, 150 trials" in capsys.readouterr().out
    table = pd.read_csv(out)
    played = bandit.simulate(
        load_agent(model), bandit.DriftingBandit(), num_sessions=5, num_trials=30, seed=0
    )
    np.testing.assert_array_equal(table["choice"], played.choice.reshape(-1))
    assert table["subject"].unique().tolist() == ["learner"]
    assert main(command) == 1
    assert "got one that exists" in capsys.readouterr().err
    schedule = [
        "--environment.kind=schedule", f"--environment.schedule={animals}",
        "--environment.session=day", "--environment.columns=[p_left, p_right]",
    ]  # fmt: skip
    out = tmp_path / "replay.parquet"
    assert (
        main(["simulate", f"--model={model}", f"--out={out}", "--num_sessions=12", *schedule]) == 0
    )
    replay, own = pd.read_parquet(out), pd.read_csv(animals)
    np.testing.assert_allclose(replay["reward_probability_1"], own["p_right"], atol=1e-6)
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out={}/a.txt"], "ends in .csv"),
        (["--out={}/a.csv", "--environment.kind=schedule"], "expected a schedule and its columns"),
        (["--out={}/a.csv", "--environment.kind=blocks", "--environment.high=2"], "high"),
        (["--out={}/a.csv", "--model={}"], "got none of them"),
        (["--out={}/a.csv", "--model={}/broken.keras"], "cannot be read"),
    ],
)
def test_bad_arguments_are_named(arguments, message, model, tmp_path, capsys):
    (tmp_path / "broken.keras").write_text("broken")
    words = [word.format(tmp_path) for word in arguments]
    assert main(["simulate", f"--model={model}", *words]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["broken.keras"]


def test_behaviour_compares_on_the_animals_own_schedule(model, animals, tmp_path, capsys):
    out = tmp_path / "behaviour"
    command = [
        "behaviour", f"--data.table={animals}", "--data.columns.session=day", f"--out={out}",
        "--settings.better=[p_left, p_right]", "--settings.times=2",
        "--settings.num_bootstrap_samples=20",
        f"--settings.models={{'Q': '{model}'}}", "--settings.cognitive=[FQ]",
        "--settings.lags=2", "--settings.figures=[png]",
    ]  # fmt: skip
    assert main(command) == 0
    assert "Left out" not in capsys.readouterr().out
    table = pd.read_csv(out / "behaviour.csv")
    assert table["who"].unique().tolist() == ["animals", "Q", "FQ"]
    assert set(table["statistic"]) == {
        "win_stay", "lose_shift", "choice_autocorrelation", "run_survival", "switch_curve", "bias",
        "choice_weight", "reward_weight",
    }  # fmt: skip
    distances = pd.read_csv(out / "distances.csv")
    assert len(distances) == 2 * 8
    assert (distances["distance"] >= 0).all()
    assert (out / "behaviour.png").stat().st_size > 10_000
    own = pd.read_csv(animals)
    pairs = own["day"].eq(own["day"].shift()) & own["reward"].shift().eq(1)
    stay = own["choice"].eq(own["choice"].shift())[pairs].mean()
    found = table.query("who == 'animals' and statistic == 'win_stay'")["value"].item()
    assert found == pytest.approx(stay)
    assert main(command) == 1
    assert "got one that exists" in capsys.readouterr().err


def test_without_probabilities_models_play_the_given_task(model, animals, tmp_path, capsys):
    out = tmp_path / "behaviour"
    command = [
        "behaviour", f"--data.table={animals}", "--data.columns.session=day", f"--out={out}",
        f"--settings.models={{'Q': '{model}'}}", "--settings.environment.kind=blocks",
        "--settings.num_bootstrap_samples=5", "--settings.figures=[]",
    ]  # fmt: skip
    assert main(command) == 0
    assert "Left out switch_curve: it is not known" in capsys.readouterr().out
    table = pd.read_csv(out / "behaviour.csv")
    blocks = table.query("who == 'Q' and statistic == 'switch_curve'")
    assert len(blocks) == 30
    assert "switch_curve" not in set(pd.read_csv(out / "distances.csv")["statistic"])


def test_a_model_of_several_subjects_plays_as_each_of_them(animals, tmp_path, monkeypatch, capsys):
    table = pd.read_csv(animals)
    days = table["day"].unique()
    table["subject"] = np.where(table["day"].isin(days[:4]), "ada", "bob")
    table.to_csv(tmp_path / "two.csv", index=False)
    model = keras_disrnn.DisRNNModel(
        num_latents=1, num_update_layers=1, subjects=("bob", "cyd", "ada"), subject_units=1, seed=0
    )
    model.save(tmp_path / "model.keras")
    played = []

    def simulate(agent, world, **settings):
        played.append((agent.name, world.num_sessions, settings))
        sessions = bandit.simulate(agent, world, **settings)
        played[-1] += (sessions,)
        return sessions

    monkeypatch.setattr("keras_disrnn.experiments.behaviour.simulate", simulate)
    command = [
        "behaviour", f"--data.table={tmp_path / 'two.csv'}", "--data.columns.session=day",
        f"--settings.models={{'m': '{tmp_path / 'model.keras'}'}}", "--settings.times=2",
        "--settings.better=[p_left, p_right]", "--settings.num_bootstrap_samples=2",
        "--settings.figures=[]",
    ]  # fmt: skip
    assert main([*command, f"--out={tmp_path / 'out'}"]) == 0
    (first, schedules, settings, ada), (second, others, more, _) = played
    assert (first, schedules, second, others) == ("ada", 4, "bob", 8)
    assert (settings["num_sessions"], settings["first_session"]) == (8, 0)
    assert (more["num_sessions"], more["first_session"]) == (16, 8)
    # Each subject plays the schedules of its own sessions with its own embedding.
    own = table.loc[table["subject"] == "ada", "p_left"]
    trials = ada.reward_probability[:4, :, 0].reshape(-1)
    lengths = np.arange(ada.choice.shape[1]) < ada.lengths[:4, None]
    np.testing.assert_allclose(trials[lengths.reshape(-1)], own, atol=1e-6)
    rows = sessions_from_table(ada.to_table()).for_model(model)
    logits = np.asarray(model(rows.features)["choice"])[0, :5]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(ada.choice_probability[0, :5], expected, atol=1e-5)
    found = pd.read_csv(tmp_path / "out" / "behaviour.csv")
    assert found["who"].unique().tolist() == ["animals", "m"]
    assert "switch_curve" in set(found.loc[found["who"] == "m", "statistic"])
    table["subject"] = "dan"
    table.to_csv(tmp_path / "two.csv", index=False)
    assert main([*command, f"--out={tmp_path / 'other'}"]) == 1
    assert "subject 'dan'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_run_folder_and_a_saved_model_play(model, tmp_path):
    keras_model = keras.saving.load_model(model)
    run = tmp_path / "run"
    run.mkdir()
    keras_model.save(run / "model.keras")
    assert load_agent(run).name == "run"
    export(keras_model, tmp_path / "exported")
    settings = {"num_sessions": 6, "num_trials": 20, "seed": 1}
    saved = bandit.simulate(load_agent(tmp_path / "exported"), bandit.BlockBandit(), **settings)
    own = bandit.simulate(load_agent(run), bandit.BlockBandit(), **settings)
    np.testing.assert_allclose(saved.choice_probability, own.choice_probability, atol=1e-5)
    np.testing.assert_array_equal(saved.choice, own.choice)
