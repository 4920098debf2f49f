"""A fit that failed without an error says so; a good fit says nothing."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import keras_disrnn
from keras_disrnn.cli import main
from keras_disrnn.data import Sessions
from keras_disrnn.training.fit import train
from keras_disrnn.training.verdict import FitWarning, chance_likelihood, judge_fit

GOOD = {"held-out": (0.6, 0.5)}


def make_history(losses, stage="stage1"):
    epochs = np.arange(1, len(losses) + 1)
    return pd.DataFrame({"stage": stage, "epoch": epochs, "step": 50 * epochs, "loss": losses})


@pytest.fixture
def model():
    """A model with one closed bottleneck."""
    made = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=0)
    made.choice_readout.bottleneck.raw_sigma.assign([0.9])
    return made


def win_stay(rng):
    reward = rng.integers(0, 2, (20, 30))
    choice = rng.integers(0, 2, (20, 30))
    for trial in range(1, 30):
        stay = reward[:, trial - 1] == 1
        choice[:, trial] = np.where(stay, choice[:, trial - 1], 1 - choice[:, trial - 1])
    return Sessions.from_trials(choice, reward)


@pytest.mark.slow
def test_a_good_fit_says_nothing(rng):
    sessions = win_stay(rng)
    model = keras_disrnn.DisRNNModel(
        num_latents=2, num_signals=0, update_units=4, num_update_layers=1, seed=0,
        latent_penalty=0.02, update_latent_penalty=0.1, update_obs_penalty=0.01,
        choice_penalty=0.02,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error", FitWarning)
        history = train(
            model, sessions, sessions, warmup_steps=100, stage1_steps=3000, stage2_steps=0,
            steps_per_epoch=50, settle_steps=200, learning_rate=1e-2, verbose=0,
        )  # fmt: skip
    assert history["val_choice_normalized_likelihood"].iloc[-1] > 0.9


def test_a_fit_of_choices_that_nothing_predicts_says_that_it_is_at_chance(rng):
    choice = (rng.random((6, 30)) < 0.8).astype(int)
    sessions = Sessions.from_trials(choice, rng.integers(0, 2, (6, 30)))
    model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, update_units=2, seed=0)
    with pytest.warns(FitWarning) as found:
        train(model, sessions, sessions, warmup_steps=2, stage1_steps=0, stage2_steps=0, verbose=0)
    said = [str(each.message) for each in found]
    assert sum(each.startswith("held-out likelihood: expected above chance (0.6") for each in said)
    assert sum(each.startswith("training likelihood: expected above chance (0.6") for each in said)


def test_chance_is_the_rate_of_the_arms_in_the_training_sessions():
    biased = Sessions.from_trials([[1] * 9 + [0]], [[1] * 10])
    fair = Sessions.from_trials([[0, 1] * 5], [[1] * 10])
    assert chance_likelihood(biased, biased) > 0.65
    assert chance_likelihood(biased, fair) == chance_likelihood(fair, biased) == 0.5


def test_only_a_loss_that_still_changes_is_named(model):
    def judged(losses, stage="stage1"):
        return judge_fit(model, likelihoods=GOOD, history=make_history(losses, stage))

    assert judged([0.9, 0.6, 0.6002, 0.6, 0.6001]) == []
    assert judged([0.9, 0.8], "stage1") == [], "two epochs show no trend"
    assert judged([0.9, 0.8, 0.7, 0.6], "warmup") == []
    noisy = [0.60, 0.66, 0.59, 0.64]
    assert judged(noisy) == [], "a change within its error is none"
    (falls,) = judged([0.9, 0.7, 0.69, 0.66, 0.65])
    assert falls.startswith(
        "stage1 loss: expected a loss that has settled, got one that still falls"
    )
    (rises,) = judged([0.60, 0.61, 0.8, 0.82])
    assert "rises" in rises and "smaller learning_rate" in rises
    (huge,) = judged([8070.0, 7900.0, 7300.0, 7200.0])
    assert "falls, by 735 over the last 200 steps" in huge


def test_a_fit_in_which_nothing_closed_is_named_unless_it_has_no_penalties(model):
    assert judge_fit(model, likelihoods=GOOD) == []
    model.choice_readout.bottleneck.raw_sigma.assign([0.1])
    (note,) = judge_fit(model, likelihoods=GOOD)
    assert note.startswith("bottlenecks: expected some that are closed, got 5 that are all open")
    for name in model.penalty_names:
        setattr(model, name, 0.0)
    assert judge_fit(model, likelihoods=GOOD) == []


def test_a_run_says_once_on_the_terminal_and_in_the_report_what_is_wrong(tmp_path):
    out = tmp_path / "run"
    with pytest.warns(FitWarning) as found:
        assert main([
            "demo", f"--out={out}", "--data.num_sessions=4", "--data.num_held_out_sessions=3",
            "--data.num_trials=10", "--model.num_latents=1", "--model.update_units=2",
            "--training.warmup_steps=2", "--training.stage1_steps=2", "--training.stage2_steps=0",
        ]) == 0  # fmt: skip
    said = [str(each.message) for each in found if each.category is FitWarning]
    notes = json.loads((out / "metrics.json").read_text())["notes"]
    assert said == notes and len(set(notes)) == len(notes) >= 1
    report = (out / "report.html").read_text()
    card = (out / "saved_model" / "README.md").read_text()
    for text in (report, card):
        assert text.count("bottlenecks: expected some that are closed") == 1
        assert text.index("Read this first") < text.index("Scores")
