"""Cells, and the writers of Markdown, LaTeX, HTML and CSV."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.utils.tables import (
    check_columns,
    format_error,
    format_interval,
    format_number,
    summarized,
    to_html,
    to_latex,
    to_markdown,
    write_csv,
)

TABLE = pd.DataFrame(
    {
        "model": ["Q_1 | a", "50 %"],
        "parameters": [3, 12],
        "R²": [0.25, np.nan],
        "score": [format_interval(-0.5, -0.75, 0.0, 2), format_error(0.5, 0.25, 2)],
    }
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.12345, "0.1235"),
        (-1e-6, "0.0000"),
        (np.float32(2), "2.0000"),
        (None, "–"),
        (np.nan, "–"),
        (np.inf, "–"),
    ],
)
def test_numbers_have_fixed_decimals_and_zero_has_no_sign(value, expected):
    assert format_number(value) == expected


def test_errors_and_intervals_are_left_out_when_they_are_missing():
    assert format_error(0.5, 0.25, 2) == "0.50 ± 0.25"
    assert format_error(0.5, np.nan, 2) == "0.50"
    assert format_error(np.nan, 0.25) == format_error(None, None) == "–"
    assert format_interval(0.5, 0.25, 0.75, 2) == "0.50 [0.25, 0.75]"
    assert format_interval(0.5, np.nan, np.nan, 2) == "0.50"
    assert format_interval(np.nan, 0.25, 0.75) == "–"


def test_markdown_aligns_numbers_and_escapes_pipes():
    assert to_markdown(TABLE, digits=2).splitlines() == [
        "| model | parameters | R² | score |",
        "|---|---:|---:|---|",
        r"| Q_1 \| a | 3 | 0.25 | -0.50 [-0.75, 0.00] |",
        "| 50 % | 12 | – | 0.50 ± 0.25 |",
    ]
    assert to_markdown(TABLE[:0]) == "| model | parameters | R² | score |\n|---|---|---|---|\n"


def test_latex_puts_numbers_in_math_mode_and_escapes_the_rest():
    assert to_latex(TABLE, digits=2).splitlines() == [
        r"\begin{tabular}{lrrl}",
        r"\toprule",
        r"model & parameters & R$^2$ & score \\",
        r"\midrule",
        r"Q\_1 | a & $3$ & $0.25$ & $-0.50$ {\footnotesize [$-0.75$, $0.00$]} \\",
        r"50 \% & $12$ & -- & $0.50 \pm 0.25$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_blocks_share_one_tabular():
    text = to_latex({"": TABLE, "differences & more": TABLE[["model", "score"]]})
    assert text.count(r"\begin{tabular}") == 1
    assert text.count(r"\midrule") == 2
    assert r"\multicolumn{4}{l}{\textit{differences \& more}} \\" in text
    assert r"Q\_1 | a &  &  & $-0.50$" in text


def test_html_and_csv(tmp_path):
    assert "<td>0.25</td>" in to_html(TABLE)
    assert "<td>–</td>" in to_html(TABLE)
    assert "<td>0.250</td>" in to_html(TABLE, decimals=3)
    assert "<th>0</th>" in to_html(TABLE, index=True)
    write_csv(tmp_path / "table.csv", TABLE)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), TABLE)


def test_a_summary_is_short_and_escaped():
    @summarized
    class Shown(NamedTuple):
        left: np.ndarray
        right: str

        def _contents(self):
            return {"left": f"{len(self.left)} numbers", "<right>": self.right}

    shown = Shown(np.zeros(1000), "a & b")
    assert repr(shown) == "Shown(left=1000 numbers, <right>=a & b)"
    page = shown._repr_html_()
    assert "<th>&lt;right&gt;</th><td>a &amp; b</td>" in page
    assert page.count("<tr>") == 2


def test_a_missing_column_is_named_with_a_similar_one():
    table = pd.DataFrame({"choice": [0], 1: [0]})
    check_columns("table", table, ["choice", 1])
    message = "known: expected a column 'Choise', got the columns choice, 1; did you mean 'choice'"
    with pytest.raises(ValueError, match=message):
        check_columns("known", table, ["choice", "Choise"])
