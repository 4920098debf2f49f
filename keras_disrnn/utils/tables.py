"""Tables as text: cells with their errors, and writers of Markdown, LaTeX, HTML and CSV.

Every table that the package prints or writes goes through this module. A table is a
`pandas.DataFrame`. Make its cells text with `format_number`, `format_error` and `format_interval`
where they hold an error, then pass it to a writer.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.files import write_text

MISSING = "–"
"""The cell of a value that does not exist."""

Shown = TypeVar("Shown")

_NUMBER = r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_VALUE = re.compile(rf"(?P<value>{_NUMBER})(?: ± (?P<error>{_NUMBER})| \[(?P<interval>.*)\])?")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {mark: f"\\{mark}" for mark in "&%$#_{}"}
_LATEX |= {"²": "$^2$", "±": r"$\pm$", MISSING: "--", "−": "$-$"}


def format_number(value: float | None, digits: int = 4) -> str:
    """Formats a number with a fixed number of decimals.

    Zero has no sign, and `None`, NaN and infinite values become a dash.

    Args:
        value: The number.
        digits: Decimals.

    Returns:
        The text of the cell.

    Example:

    >>> from keras_disrnn.utils.tables import format_number
    >>> format_number(0.61234), format_number(-0.00001), format_number(float("nan"))
    ('0.6123', '0.0000', '–')
    """
    if value is None or not np.isfinite(value):
        return MISSING
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def format_error(value: float | None, error: float | None, digits: int = 4) -> str:
    """Formats a value with its standard error.

    Args:
        value: The value.
        error: Its standard error; left out when `None` or NaN.
        digits: Decimals of both.

    Returns:
        The text of the cell.

    Example:

    >>> from keras_disrnn.utils.tables import format_error
    >>> format_error(0.61234, 0.0042), format_error(0.61234, None)
    ('0.6123 ± 0.0042', '0.6123')
    """
    cell = format_number(value, digits)
    if MISSING in (cell, format_number(error, digits)):
        return cell
    return f"{cell} ± {format_number(error, digits)}"


def format_interval(
    value: float | None, lower: float | None, upper: float | None, digits: int = 4
) -> str:
    """Formats a value with its interval.

    Args:
        value: The value.
        lower: Lower end of the interval; the interval is left out when an end is `None` or NaN.
        upper: Upper end of the interval.
        digits: Decimals of all three.

    Returns:
        The text of the cell.

    Example:

    >>> from keras_disrnn.utils.tables import format_interval
    >>> format_interval(0.61234, 0.6, 0.62, digits=2)
    '0.61 [0.60, 0.62]'
    """
    cells = [format_number(number, digits) for number in (value, lower, upper)]
    if MISSING in cells:
        return cells[0]
    return f"{cells[0]} [{cells[1]}, {cells[2]}]"


def to_markdown(table: pd.DataFrame, digits: int = 4, *, code: str | None = None) -> str:
    """Writes a table as Markdown.

    Columns of plain numbers are aligned to the right. The index is left out.

    Args:
        table: The table. Floats are formatted with `format_number`, other cells with `str`.
        digits: Decimals of floats.
        code: Name of a column whose cells are code.

    Returns:
        The lines of the table, each with a newline at its end.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.utils.tables import to_markdown
    >>> print(to_markdown(pd.DataFrame({"model": ["GRU"], "r2": [0.5]}), digits=2), end="")
    | model | r2 |
    |---|---:|
    | GRU | 0.50 |
    """
    cells = _as_text(table, digits)
    marks = ["---:" if _is_numeric(cells[name]) else "---" for name in cells]
    rows = [[escape_markdown(cell) for cell in row] for row in [list(cells), *cells.to_numpy()]]
    if code is not None:
        # A bar ends a cell, also in code.
        column = list(cells).index(code)
        for row, cell in zip(rows[1:], cells[code], strict=True):
            row[column] = markdown_code(cell).replace("|", "\\|")
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    return "".join([lines[0], f"|{'|'.join(marks)}|\n", *lines[1:]])


def to_latex(tables: pd.DataFrame | Mapping[str, pd.DataFrame], digits: int = 4) -> str:
    r"""Writes a table as a LaTeX `tabular`, for the package booktabs.

    Numbers are in math mode, and special characters are escaped. The index is left out.

    Args:
        tables: A table; or a mapping of title to table, which become the blocks of one `tabular`,
            each under its title. The first table has all columns of the others.
        digits: Decimals of floats.

    Returns:
        The lines of the `tabular`, each with a newline at its end.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.utils.tables import to_latex
    >>> print(to_latex(pd.DataFrame({"model": ["Q_1"], "r2": [-0.5]}), digits=1), end="")
    \begin{tabular}{lr}
    \toprule
    model & r2 \\
    \midrule
    Q\_1 & $-0.5$ \\
    \bottomrule
    \end{tabular}
    """
    blocks = {"": tables} if isinstance(tables, pd.DataFrame) else dict(tables)
    blocks = {title: _as_text(block, digits) for title, block in blocks.items()}
    first = next(iter(blocks.values()))
    aligned = "".join("r" if _is_numeric(first[name]) else "l" for name in first)
    lines = [rf"\begin{{tabular}}{{{aligned}}}", r"\toprule"]
    lines.append(rf"{' & '.join(map(escape_latex, first))} \\")
    for title, block in blocks.items():
        lines.append(r"\midrule")
        if title:
            text = rf"\textit{{{escape_latex(title)}}}"
            lines.append(rf"\multicolumn{{{first.shape[1]}}}{{l}}{{{text}}} \\")
        for row in block.reindex(columns=first.columns, fill_value="").to_numpy():
            lines.append(rf"{' & '.join(map(_latex_cell, row))} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def to_html(table: pd.DataFrame, *, index: bool = False, decimals: int | None = None) -> str:
    """Writes a table as HTML.

    Args:
        table: The table.
        index: Whether to show the index.
        decimals: Decimals of floats; `None` for four significant digits.

    Returns:
        A `<table>` element. Missing values are dashes.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.utils.tables import to_html
    >>> "<td>0.6123</td>" in to_html(pd.DataFrame({"likelihood": [0.61234]}))
    True
    """
    form = "{:.4g}" if decimals is None else f"{{:.{decimals}f}}"
    return table.to_html(index=index, border=0, na_rep=MISSING, float_format=form.format)


def write_csv(path: str | os.PathLike, table: pd.DataFrame) -> None:
    r"""Writes a table as CSV, atomically and in full precision, without its index.

    Args:
        path: The file. An older one is replaced.
        table: The table.

    Example:

    >>> import tempfile
    >>> import pandas as pd
    >>> from keras_disrnn.utils.tables import write_csv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_csv(f"{folder}/table.csv", pd.DataFrame({"r2": [0.5]}))
    ...     open(f"{folder}/table.csv").read()
    'r2\n0.5\n'
    """
    write_text(path, table.to_csv(index=False))


def check_columns(name: str, table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raises a ValueError that names the first of some columns that a table lacks.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.utils.tables import check_columns
    >>> check_columns("table", pd.DataFrame({"choice": [0], "reward": [1]}), ["reward", "choise"])
    Traceback (most recent call last):
        ...
    ValueError: table: expected a column 'choise', got the columns choice, reward; did you mean ...
    """
    there = list(map(str, table.columns))
    for column in columns:
        if column not in table.columns:
            raise ValueError(
                f"{name}: expected a column {column!r}, got the columns {', '.join(there)}"
                f"{suggest(str(column), there)}"
            )


def escape_markdown(text: object) -> str:
    r"""Escapes a text for Markdown: no HTML, code, emphasis, link or cell can begin in it.

    Args:
        text: Any text, such as the name of a column or a subject.

    Returns:
        Markdown of one line, which shows the text as it is.

    Example:

    >>> from keras_disrnn.utils.tables import escape_markdown
    >>> escape_markdown("<b>*x")
    '&lt;b&gt;\\*x'
    """
    text = " ".join(str(text).splitlines())
    for mark in "\\`*|":
        text = text.replace(mark, f"\\{mark}")
    # Brackets alone are shown as they are, and intervals have them. A link needs a second mark.
    for mark in "([:":
        text = text.replace(f"]{mark}", f"]\\{mark}")
    return html.escape(text, quote=False)


def markdown_code(text: object) -> str:
    """Writes a text as code in a line of Markdown, also if it has backticks.

    Args:
        text: Any text.

    Example:

    >>> from keras_disrnn.utils.tables import markdown_code
    >>> markdown_code("trials.csv")
    '`trials.csv`'
    """
    text = " ".join(str(text).splitlines())
    marks = "`" * (_longest_run(text) + 1)
    # A space keeps a backtick at an end apart from the marks.
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{marks}{space}{text}{space}{marks}"


def markdown_block(text: str, language: str = "") -> str:
    """Writes a text as a block of code in Markdown, which no line of the text can end.

    Args:
        text: The lines.
        language: Name of the language, such as `"yaml"`.

    Example:

    >>> from keras_disrnn.utils.tables import markdown_block
    >>> markdown_block("seed: 0", "yaml").splitlines()
    ['```yaml', 'seed: 0', '```']
    """
    marks = "`" * max(3, _longest_run(text) + 1)
    return f"{marks}{language}\n{text}\n{marks}"


def _longest_run(text: str) -> int:
    """The largest number of backticks in a row."""
    return max(map(len, re.findall("`+", text)), default=0)


def escape_latex(text: object) -> str:
    """Escapes the characters of a text that LaTeX treats specially."""
    return "".join(_LATEX.get(letter, letter) for letter in str(text))


def summarized(cls: type[Shown]) -> type[Shown]:
    """Shows the objects of a class as a short table of what is in them, not as a dump of arrays.

    The class defines `_contents`, which returns what to show: a mapping of name to a short value.
    Its own `_repr_html_` stays.

    Example:

    >>> from typing import NamedTuple
    >>> from keras_disrnn.utils.tables import summarized
    >>> @summarized
    ... class Pair(NamedTuple):
    ...     left: list
    ...     right: list
    ...
    ...     def _contents(self):
    ...         return {"left": len(self.left), "right": len(self.right)}
    >>> Pair([1, 2], [3])
    Pair(left=2, right=1)
    >>> Pair([1, 2], [3])._repr_html_().count("<tr>")
    2
    """

    def represent(self: Any) -> str:
        shown = ", ".join(f"{name}={value}" for name, value in self._contents().items())
        return f"{type(self).__name__}({shown})"

    def represent_html(self: Any) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self._contents().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"

    own: Any = cls
    own.__repr__ = represent
    own._repr_html_ = vars(cls).get("_repr_html_", represent_html)
    return cls


def _as_text(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """The cells of a table as text."""

    def text(cell: object) -> str:
        if isinstance(cell, float | np.floating):
            return format_number(float(cell), digits)
        return MISSING if cell is None or cell is pd.NA else str(cell)

    return pd.DataFrame(
        {str(name): [text(cell) for cell in column] for name, column in table.items()}
    )


def _is_numeric(cells: pd.Series) -> bool:
    """Whether all cells of a column are plain numbers or missing."""
    return bool(len(cells)) and all(
        cell == MISSING or re.fullmatch(_NUMBER, cell) for cell in cells
    )


def _latex_cell(cell: str) -> str:
    """A cell with its numbers in math mode, and its interval in a smaller font."""
    match = _VALUE.fullmatch(cell)
    if match is None:
        return escape_latex(cell)
    if match["error"]:
        return rf"${match['value']} \pm {match['error']}$"
    if match["interval"]:
        ends = ", ".join(f"${end}$" for end in match["interval"].split(", "))
        return rf"${match['value']}$ {{\footnotesize [{ends}]}}"
    return f"${match['value']}$"
