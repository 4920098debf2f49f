"""Runs the Python blocks of docs/simulation.md, in order."""

import re
from pathlib import Path

from keras_disrnn import bandit
from keras_disrnn.models.disrnn_model import DisRNNModel

PAGE = Path(__file__).parents[1] / "docs" / "simulation.md"


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = DisRNNModel(num_latents=2, num_update_layers=1, seed=0)
    played = bandit.simulate(
        bandit.QLearning(), bandit.BlockBandit(), num_sessions=8, num_trials=50, seed=0
    )
    names = {
        "subject": "mouse", "session": "day", "reward_probability_0": "p_left",
        "reward_probability_1": "p_right",
    }  # fmt: skip
    shared = {"model": model, "trials": played.to_table().rename(columns=names)}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(code, shared)
    assert (tmp_path / "behaviour.pdf").stat().st_size > 5000
    assert len(shared["table"]) == 8 * 50
    assert set(shared["distances"]["model"]) == {"model"}
    assert "switch_curve" in set(shared["distances"]["statistic"])
    printed = capsys.readouterr().out
    assert "**Updates**" in printed
    assert r"\begin{align*}" in printed
