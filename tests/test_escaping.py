"""Names from the data are text: in model cards, reports, tables and figures."""

import html
import json
import re

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from keras_disrnn import bandit
from keras_disrnn.cli import main
from keras_disrnn.plots import save_figure
from keras_disrnn.utils.tables import (
    escape_markdown,
    markdown_block,
    markdown_code,
    to_html,
    to_markdown,
)

HOSTILE = "<script>alert(1)</script>"
LINK = "[x](javascript:alert(1))"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a table whose columns, subjects and sessions have hostile names."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "s": np.repeat([HOSTILE, f"{LINK}|`"], 24),
        "d": np.repeat([f"{i}{HOSTILE}" for i in range(6)], 8),
        "c": rng.integers(0, 2, 48), "r": rng.integers(0, 2, 48), HOSTILE: rng.normal(size=48),
        LINK: rng.normal(size=48),
    })  # fmt: skip
    table.to_csv(folder / "```<b>.csv", index=False)
    assert main([
        "fit", f"--data.table={folder / '```<b>.csv'}", f"--out={folder / 'run'}",
        "--data.columns.subject=s", "--data.columns.session=d", "--data.columns.choice=c",
        "--data.columns.reward=r", f"--data.columns.dopamine={HOSTILE}",
        f"--data.columns.observations={json.dumps([LINK])}", "--model.num_latents=1",
        "--model.update_units=2", "--model.subject_units=1", "--training.warmup_steps=1",
        "--training.stage1_steps=1", "--training.stage2_steps=1",
    ]) == 0  # fmt: skip
    return folder / "run"


def outside_code(markdown):
    """Remove blocks and spans of code, which show their text as it is."""
    markdown = re.sub(r"^(`{3,}).*?^\1$", "", markdown, flags=re.M | re.S)
    return re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", markdown)


def test_the_model_card_has_no_html_and_no_link_from_the_data(run):
    card = (run / "saved_model" / "README.md").read_text()
    text = outside_code(card)
    assert "<script" not in text and "<b>" not in text
    assert html.escape(HOSTILE) in text, "the name itself is shown"
    assert "](javascript" not in text
    # The fence of the settings is longer than any run of backticks in them.
    assert re.search(r"^````yaml$", card, flags=re.M)
    # Every row of the table of subjects and of endpoints has its number of cells.
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (4, 5, 8) for row in rows)


def test_the_report_has_no_html_from_the_data(run):
    report = (run / "report.html").read_text()
    assert "<script" not in report and "<b>" not in report
    assert html.escape(HOSTILE, quote=False) in report


def test_markdown_escapes_every_kind_of_mark():
    assert escape_markdown("a|b\nc") == "a\\|b c"
    assert escape_markdown("`x` *y* \\") == "\\`x\\` \\*y\\* \\\\"
    assert escape_markdown(LINK) == "[x]\\(javascript:alert(1))"
    assert escape_markdown("0.61 [0.60, 0.62]") == "0.61 [0.60, 0.62]"
    assert markdown_code("a`b") == "``a`b``" and markdown_code("`") == "`` ` ``"
    assert markdown_block("```", "yaml") == "````yaml\n```\n````"
    table = pd.DataFrame({HOSTILE: [HOSTILE]}, index=[HOSTILE])
    assert "<script" not in to_markdown(table)
    assert "<script" not in to_html(table, index=True)


def test_a_notebook_shows_the_name_of_an_agent_as_text():
    class Named(bandit.QLearning):
        name = HOSTILE

    blocks = bandit.BlockBandit()
    played = bandit.simulate(Named(), blocks, num_sessions=1, num_trials=5, seed=0)
    assert HOSTILE in repr(played) and "<script" not in played._repr_html_()


def test_an_svg_figure_shows_a_name_as_text(tmp_path):
    def plot():
        figure = matplotlib.figure.Figure()
        figure.subplots().set_title(HOSTILE)
        return figure

    save_figure(tmp_path / "figure.svg", plot)
    assert "<script" not in (tmp_path / "figure.svg").read_text()
