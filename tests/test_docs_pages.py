"""Runs the Python blocks of docs/comparison.md, docs/subjects.md and docs/distributed.md."""

import functools
import re
from pathlib import Path

import pytest
import tensorflow as tf

import keras_disrnn
from keras_disrnn import bandit
from keras_disrnn.data import Sessions

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text("utf-8"), re.DOTALL)


def simulate(num_sessions=6):
    played = bandit.simulate(
        bandit.QLearning(),
        bandit.DriftingBandit(),
        num_sessions=num_sessions,
        num_trials=20,
        seed=0,
    )
    return Sessions.from_trials(
        played.choice,
        played.reward,
        dopamine=played.dopamine,
        subjects=[f"m{1 + index % 3}" for index in range(num_sessions)],
    )


@pytest.fixture
def few_steps(monkeypatch):
    few = {"warmup_steps": 2, "stage1_steps": 2, "stage2_steps": 2, "steps_per_epoch": 2}
    train = functools.partial(keras_disrnn.train, verbose=0, **few)
    monkeypatch.setattr(keras_disrnn, "train", train)


def test_the_page_on_comparisons_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for code in blocks("comparison.md"):
        code = code.replace("num_sessions=60", "num_sessions=6").replace("starts=4", "starts=1")
        exec(compile(code, "comparison.md", "exec"), scope)
    assert (tmp_path / "q_learning" / "manifest.json").exists()
    assert (tmp_path / "q_learning.keras").exists()
    printed = capsys.readouterr().out
    assert "| naive |" in printed and "kappa_1" in printed


def test_the_page_on_subjects_runs(few_steps):
    scope = {"keras_disrnn": keras_disrnn, "train": simulate(), "held_out": simulate(3)}
    for code in blocks("subjects.md"):
        exec(compile(code, "subjects.md", "exec"), scope)
    assert scope["features"][1, 0, -1] == 1  # the index of the second subject


def test_the_page_on_devices_runs(few_steps):
    sessions = simulate()
    scope = {"tf": tf, "keras_disrnn": keras_disrnn, "sessions": sessions, "held_out": sessions}
    (code,) = blocks("distributed.md")
    exec(compile(code, "distributed.md", "exec"), scope)
    assert scope["history"]["stage"].tolist() == ["warmup", "stage1", "stage2"]
