"""Complete reading of table files: every line, or an error that says what is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import os
import pathlib
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_disrnn.utils.files import check_exists

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".htsv": "\t"}
_EMPTY = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]
"""Cells that are empty in columns of numbers, as for `pandas.read_csv`. As names they are names."""
_FORMATS = ".csv, .tsv, .htsv (each also as .gz) and .parquet"


def read_table(
    path: str | os.PathLike[str],
    *,
    text: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    r"""Read every line of a table file, or raise an error.

    Args:
        path: A .csv, .tsv or .htsv file (the last two separated by tabs): UTF-8 text with a line of
            column names, plain or compressed as .gz. Or a .parquet file, which needs pyarrow.
        text: Columns of a text file to keep as they are written, so that an id "007" stays "007",
            and a subject "NA" is not an empty cell.
        columns: Columns of a Parquet file to read, those in `text` as categories, so that a large
            table needs less memory. If one is absent, or None, the whole table is read, as it is
            from a text file.

    Returns:
        The table.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If `path` is not a path.
        ValueError: If the file is not such a table: a folder, another format, encoding or
            separator, empty, cut short, damaged, with a column name twice, or with rows of
            different lengths.
        ImportError: If a .parquet file is read without pyarrow.

    Example:
        >>> import keras_disrnn, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "trials.csv"
        >>> _ = path.write_text("session,choice\n007,1\n")
        >>> keras_disrnn.data.read_table(path, text=["session"]).loc[0, "session"]
        '007'
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected a table file ({_FORMATS}), got {type(path).__name__}")
    path = pathlib.Path(path)
    if os.path.isdir(path):
        raise ValueError(f"{path}: expected a table file ({_FORMATS}), got a folder")
    check_exists(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if zipped else suffixes)[-1:]
    if suffix == [".parquet"] and not zipped:
        return _read_parquet(path, text, columns)
    if not suffix or suffix[0] not in _SEPARATORS:
        raise ValueError(
            f"{path}: expected a table file ({_FORMATS}), got a name ending in "
            f"{''.join(suffixes[-2:]) or 'nothing'!r}"
        )
    return _read_text(path, _SEPARATORS[suffix[0]], zipped, text)


def _read_parquet(
    path: pathlib.Path, text: Sequence[str], columns: Sequence[str] | None
) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path) if columns is None else _read_columns(path, text, columns)
    except ImportError as error:
        raise ImportError(
            f"{path}: expected the package pyarrow to read .parquet, got none; install it with pip "
            "install pyarrow"
        ) from error
    except Exception as error:  # A damaged file can raise anything that pyarrow raises.
        raise ValueError(
            f"{path}: expected a parquet file, got one that could not be read ({error}); it may be "
            "cut short"
        ) from error
    if not len(table):
        raise ValueError(f"{path}: expected at least one row, got a table without rows")
    return table


def _read_columns(path: pathlib.Path, text: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Read some columns of a Parquet file, one group of rows at a time."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        return pd.read_parquet(path)  # It says what is missing.
    with parquet.ParquetFile(path, read_dictionary=list(text)) as file:
        names, count = file.schema_arrow.names, file.num_row_groups
        plain = not any("." in name for name in columns)  # A dot would mean a part of a column.
        known = set(columns) <= set(names) and len(set(names)) == len(names)
        if not (plain and known and count and _has_plain_index(file.schema_arrow)):
            return pd.read_parquet(path)  # The checks of the columns name the others.
        parts = [
            file.read_row_group(group, columns=list(columns)).to_pandas(ignore_metadata=True)
            for group in range(count)
        ]
    pieces = {name: [part[name] for part in parts] for name in columns}
    del parts
    joined = {name: _join_pieces(pieces.pop(name)) for name in columns}
    pyarrow.default_memory_pool().release_unused()
    return pd.DataFrame(joined, copy=False)


def _has_plain_index(schema: Any) -> bool:
    """Return whether the rows of a Parquet file have no labels but their numbers."""
    levels = (schema.pandas_metadata or {}).get("index_columns", [])
    return all(isinstance(level, dict) and level.get("start") == 0 for level in levels)


def _join_pieces(pieces: list[pd.Series]) -> pd.Series:
    if len(pieces) > 1 and isinstance(pieces[0].dtype, pd.CategoricalDtype):
        return pd.Series(pd.api.types.union_categoricals(pieces))
    return pd.concat(pieces, ignore_index=True)


def _read_text(
    path: pathlib.Path, separator: str, zipped: bool, text: Sequence[str]
) -> pd.DataFrame:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if zipped and data else data
    except (OSError, EOFError, zlib.error) as error:
        kind = "a whole gzip file" if zipped else "a readable file"
        raise ValueError(
            f"{path}: expected {kind}, got one that could not be read ({error}); it may be cut "
            "short or damaged"
        ) from error
    if not data.strip():
        raise ValueError(f"{path}: expected a line of column names and rows, got an empty file")
    _check_encoding(path, data)
    data = data.removeprefix(b"\xef\xbb\xbf").strip(b"\r\n") + b"\n"
    header, rows = _check_cells(path, data, separator)
    try:
        table = pd.read_csv(
            io.BytesIO(data),
            sep=separator,
            encoding="utf-8",
            low_memory=False,
            dtype={name: str for name in header if name in text},
            keep_default_na=False,
            na_values={
                name or f"Unnamed: {place}": [""] if name in text else _EMPTY
                for place, name in enumerate(header)
            },
            index_col=False,
            skip_blank_lines=len(header) > 1,  # With one column, a blank line is a row.
        )
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: expected a table, got an error: {error}") from error
    if not rows:
        raise ValueError(f"{path}: expected rows below the column names, got none")
    if len(table) != rows:
        raise ValueError(
            f"{path}: expected {rows} rows, one per line, got {len(table)}; look for a quote that "
            "is not closed"
        )
    return table


def _check_encoding(path: pathlib.Path, data: bytes) -> None:
    """Raise an error if text is not UTF-8, and say what it seems to be."""
    what = f"{path}: expected UTF-8 text, got"
    how = f"; save it as UTF-8, or pass pandas.read_csv({path.name!r}, encoding=...) as the table"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(
            f"{what} another encoding (UTF-16 text){how.replace('...', repr('utf-16'))}"
        )
    if b"\0" in data:
        raise ValueError(f"{what} binary data or another encoding, with zero bytes{how}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{what} another encoding, perhaps Latin-1 (byte {data[error.start]:#04x} in line "
            f"{line}){how.replace('...', repr('latin-1'))}"
        ) from None


def _check_cells(path: pathlib.Path, data: bytes, separator: str) -> tuple[list[str], int]:
    """Return the column names and the number of rows; check that every line has as many cells.

    pandas would do three things silently: fill short lines with empty cells, use an extra first
    cell as the index, and rename a repeated column.
    """
    lone = re.search(rb"\r(?!\n)", data)
    if lone:
        line = data.count(b"\n", 0, lone.start()) + 1
        raise ValueError(
            f"{path}: expected lines that end in \\n or \\r\\n, got a lone \\r in line "
            f"{line}; save it with other line endings"
        )
    records = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=separator)
    try:
        header = next(records)
        if b'"' in data:
            read = [(records.line_num, len(record)) for record in records]
            lines, widths = np.array(read, int).reshape(-1, 2).T
        else:
            widths = _widths(data, separator)[1:]
            lines = np.arange(len(widths)) + 2
    except csv.Error as error:
        raise ValueError(
            f"{path}: expected a table, got an error in line {records.line_num}: {error}"
        ) from None
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: expected unique column names, got {repeated} more than once")
    other = next((mark for mark in ";\t,|" if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise ValueError(
            f"{path}: expected columns separated by {separator!r}, got the one column "
            f"{header[0]!r}; for {other!r} and, if need be, decimal commas pass "
            f"pandas.read_csv({path.name!r}, sep={other!r}, decimal=',') as the table"
        )
    wrong = np.flatnonzero((widths > 0) & (widths != len(header)))
    if len(wrong):
        first = wrong[0]
        short = first == len(widths) - 1 and widths[first] < len(header)
        where = f"the last row (line {lines[first]})" if short else f"line {lines[first]}"
        how = "the file seems to be cut short" if short else "quote cells that hold the separator"
        raise ValueError(
            f"{path}: expected {len(header)} cells in every row, as there are column names, got "
            f"{widths[first]} in {where}; {how}"
        )
    return header, len(widths) if len(header) == 1 else int(np.count_nonzero(widths))


def _widths(data: bytes, separator: str) -> np.ndarray:
    """Count the cells of each line of text without quotes; 0 for a blank line."""
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == ord("\n"))
    marks = np.flatnonzero(array == ord(separator))
    widths = np.diff(np.searchsorted(marks, ends), prepend=0) + 1
    starts = np.append(0, ends[:-1] + 1)
    blank = (starts == ends) | ((ends - starts == 1) & (array[starts] == ord("\r")))
    widths[blank] = 0
    return widths
