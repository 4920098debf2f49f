"""Runs the Python blocks of the README, in order, and the one of exports/README.md."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest

import keras_disrnn
from keras_disrnn import bandit

ROOT = Path(__file__).parents[1]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def trials(tmp_path):
    """Write a table of trials with the columns that the README names."""
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=9, num_trials=20, seed=0
    )
    names = {
        "subject": "mouse",
        "session": "day",
        "choice": "went_right",
        "reward": "rewarded",
        "dopamine": "dlight",
    }
    table = played.to_table().assign(subject="m1").rename(columns=names)
    table.to_csv(tmp_path / "trials.csv", index=False)
    return tmp_path


def test_the_readme_runs(trials, monkeypatch, capsys):
    monkeypatch.chdir(trials)
    mpl.use("Agg")
    train = keras_disrnn.train
    few = {"warmup_steps": 2, "stage1_steps": 2, "stage2_steps": 2, "steps_per_epoch": 2}
    monkeypatch.setattr(
        keras_disrnn, "train", lambda *given, **more: train(*given, verbose=0, **few, **more)
    )
    scope = {}
    ran = 0
    for code in blocks(ROOT / "README.md"):
        if "tfds.load" in code:  # it builds a data set in the home folder
            continue
        code = code.replace("steps=1000", "steps=2").replace("num_sessions=300", "num_sessions=3")
        exec(compile(code, "README.md", "exec"), scope)
        ran += 1
    assert ran >= 4
    assert (trials / "bottlenecks.pdf").stat().st_size > 0
    assert "|" in capsys.readouterr().out  # the equations, as a table


def test_the_readme_of_exports_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (code,) = blocks(ROOT / "exports" / "README.md")
    exec(compile(code, "exports/README.md", "exec"), {})
    assert capsys.readouterr().out.count("tf.Tensor") == 3
