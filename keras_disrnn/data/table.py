"""Behaviour tables, one row a trial, as `Sessions`."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import os
import pathlib
import re
import zlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from keras_disrnn.data.sessions import Origin, Sessions, assemble
from keras_disrnn.utils.checks import suggest

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".htsv": "\t"}
_FORMATS = ".csv, .tsv, .htsv (each also as .gz) and .parquet"


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which column of a table holds what.

    Args:
        subject: The animal or person; None when there is only one.
        session: The session id, unique across subjects. The rows of a session stand together,
            in order.
        choice: The arm chosen, whole numbers from 0.
        reward: The reward, 0 or 1 unless the reader is told otherwise.
        dopamine: The response of the trial, a number; one column or several signals; empty cells
            are missing values. None for behaviour alone.
        forced: True where the choice was instructed: an input to the model, but not a target.
        missed: True where no choice was made. Once it is named an empty choice counts as missed
            too; without it an empty choice is an error.
        trial: A number that rises within each session, checked so that rows out of order are seen.
        observations: Further columns of numbers that the model may read besides choice and reward.

    Raises:
        ValueError: If a name is not a string, or one column has two roles.
    """

    subject: str | None = "subject"
    session: str = "session"
    choice: str = "choice"
    reward: str = "reward"
    dopamine: str | Sequence[str] | None = None
    forced: str | None = None
    missed: str | None = None
    trial: str | None = None
    observations: Sequence[str] = ()

    def __post_init__(self):
        role_of: dict[str, str] = {}
        for role, column in self.roles():
            if not isinstance(column, str) or not column:
                raise ValueError(f"Columns.{role} must name a column, got {column!r}")
            if column in role_of:
                raise ValueError(
                    f"a column can have one role only, got {column!r} as both "
                    f"{role_of[column]} and {role}"
                    + ("; pass subject=None" if {role_of[column], role} & {"subject"} else "")
                )
            role_of[column] = role

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The dopamine columns."""
        if self.dopamine is None:
            return ()
        return (self.dopamine,) if isinstance(self.dopamine, str) else tuple(self.dopamine)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The columns of extra observations."""
        if isinstance(self.observations, str):
            return (self.observations,)
        return tuple(self.observations)

    def roles(self) -> list[tuple[str, str]]:
        """Lists (role, column), one pair for each column in use."""
        required = ("session", "choice", "reward")
        optional = ("subject", "forced", "missed", "trial")
        pairs = [(role, getattr(self, role)) for role in required]
        pairs += [(r, getattr(self, r)) for r in optional if getattr(self, r) is not None]
        pairs += [("dopamine", column) for column in self.signal_names]
        pairs += [("observations", column) for column in self.observation_names]
        return pairs


def read_table(path: str | os.PathLike, *, text: Sequence[str] = ()) -> pd.DataFrame:
    """Reads a table from a file: every line of it, or an error.

    Args:
        path: A .csv, .tsv or .htsv file (the last two tab separated), as UTF-8 text with a line of
            column names, plain or compressed as .gz; or a .parquet file, which needs pyarrow.
        text: Columns of a text file to keep as they are written: an id "007" stays so.

    Returns:
        The table.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If `path` is no path.
        ValueError: If the file is no such table: a folder, another format, encoding or separator,
            empty, cut short, damaged, with a column name twice, or with rows of other lengths.
        ImportError: If a .parquet file is to be read without pyarrow.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must name a table file ({_FORMATS}), got {type(path).__name__}")
    path = pathlib.Path(path)
    if os.path.isdir(path):
        raise ValueError(f"{path}: expected a table file ({_FORMATS}), got a folder")
    if not os.path.exists(path):
        here = os.listdir(path.parent) if os.path.isdir(path.parent) else []
        raise FileNotFoundError(f"{path}: no such file{suggest(path.name, here)}")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if zipped else suffixes)[-1:]
    if suffix == [".parquet"] and not zipped:
        return _read_parquet(path)
    if not suffix or suffix[0] not in _SEPARATORS:
        raise ValueError(
            f"{path}: expected a table file ({_FORMATS}), got a name ending in "
            f"{''.join(suffixes[-2:]) or 'nothing'!r}"
        )
    return _read_text(path, _SEPARATORS[suffix[0]], zipped, text)


def _read_parquet(path: pathlib.Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(f"{path}: reading .parquet needs pyarrow: pip install pyarrow") from error
    except Exception as error:  # a damaged file can raise whatever pyarrow has
        raise ValueError(
            f"{path}: expected a parquet file, but it could not be read, it may be cut short: "
            f"{error}"
        ) from error
    if not len(table):
        raise ValueError(f"{path}: expected at least one row, got a table without rows")
    return table


def _read_text(
    path: pathlib.Path, separator: str, zipped: bool, text: Sequence[str]
) -> pd.DataFrame:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if zipped and data else data
    except (OSError, EOFError, zlib.error) as error:
        kind = "a whole gzip file" if zipped else "a readable file"
        raise ValueError(
            f"{path}: expected {kind}, but it could not be read, it may be cut short or "
            f"damaged: {error}"
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
            dtype={name: str for name in text if name in header},
            index_col=False,
            skip_blank_lines=len(header) > 1,  # a blank line is a row where there is one column
        )
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: expected a table, but it could not be read: {error}") from error
    if not rows:
        raise ValueError(f"{path}: expected rows below the column names, got none")
    if len(table) != rows:
        raise ValueError(
            f"{path}: expected {rows} rows, one a line, got {len(table)}; look for a quote that is "
            "not closed"
        )
    return table


def _check_encoding(path: pathlib.Path, data: bytes):
    """Refuses text that is not UTF-8, and says what it seems to be."""
    what = f"{path}: expected UTF-8 text, got binary data or another encoding"
    how = f"; save it as UTF-8, or pass pandas.read_csv({path.name!r}, encoding=...) as the table"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{what}: it begins as UTF-16 does{how.replace('...', repr('utf-16'))}")
    if b"\0" in data:
        raise ValueError(f"{what}: it has zero bytes{how}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{what}: byte {data[error.start]:#04x} in line {line}; it may be "
            f"Latin-1{how.replace('...', repr('latin-1'))}"
        ) from None


def _check_cells(path: pathlib.Path, data: bytes, separator: str) -> tuple[list[str], int]:
    """The column names and the number of rows; refuses a line with more or fewer cells than names.

    pandas would fill short lines with empty cells, take a first cell too many for an index, and
    rename a second column of the same name, and say nothing.
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
            f"{path}: expected a table, but line {records.line_num} could not be read: {error}"
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
    return header, len(widths) if len(header) == 1 else np.count_nonzero(widths)


def _widths(data: bytes, separator: str) -> np.ndarray:
    """Cells of each line of text without quotes; 0 for a blank line."""
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == ord("\n"))
    marks = np.flatnonzero(array == ord(separator))
    widths = np.diff(np.searchsorted(marks, ends), prepend=0) + 1
    starts = np.append(0, ends[:-1] + 1)
    blank = (starts == ends) | ((ends - starts == 1) & (array[starts] == ord("\r")))
    widths[blank] = 0
    return widths


def sessions_from_table(
    table: pd.DataFrame | str | os.PathLike,
    columns: Columns | None = None,
    *,
    num_arms: int | None = None,
    reward_kind: str = "binary",
) -> Sessions:
    """Turns a table with one row a trial into sessions.

    Everything is checked before anything is built. Errors name the column and the row; rows are
    counted from 0, as in `DataFrame.iloc`, the line of column names not among them.

    A trial is missed where the missed column says so or, once there is one, where the choice is
    empty; its other cells are then not read. The model passes over such a trial: no choice was
    made, so there is neither an action nor an outcome to feed to it.

    Args:
        table: The table, or the path of a file for `read_table`.
        columns: Which column holds what; `Columns()` when None.
        num_arms: Number of arms; when None, one more than the largest choice, at least 2.
        reward_kind: "binary" (rewards are 0 or 1) or "real" (any finite reward).

    Returns:
        The sessions, in the order of the table; `rows` holds each trial's position in it.

    Raises:
        FileNotFoundError: If `table` is a path and there is no such file.
        TypeError: If `table` is neither a table nor a path.
        ValueError: If the table is not as described.

    Example:
        >>> table = pd.DataFrame({"animal": ["m1"] * 3, "day": [1, 1, 2], "choice": [0, 1, 1],
        ...                       "reward": [1, 0, 1]})
        >>> sessions = sessions_from_table(table, Columns(subject="animal", session="day"))
        >>> sessions.ids, sessions.trials_per_session.tolist()
        (('1', '2'), [2, 1])
    """
    columns = Columns() if columns is None else columns
    if not isinstance(columns, Columns):
        raise ValueError(f"columns must be a Columns, got {columns!r}")
    source = "table"
    if not isinstance(table, pd.DataFrame):
        if not isinstance(table, str | os.PathLike):
            raise TypeError(
                f"table must be a pandas.DataFrame or the path of a file, got "
                f"{type(table).__name__}; make it a DataFrame first"
            )
        source = os.fspath(table)
        names = (columns.subject, columns.session)
        table = read_table(table, text=[name for name in names if name is not None])
    roles = {role: c for role, c in columns.roles() if role not in ("dopamine", "observations")}
    reader = _TableReader(table, columns, Origin(source=source, columns=roles))
    reader.check_columns()

    codes, ids, subjects = reader.sessions()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    lengths = np.diff(starts, append=len(table))
    reader.check_trial_order(codes, ids)

    missed = reader.flags("missed")
    forced = reader.flags("forced")
    choice = reader.numbers("choice", columns.choice, missed)
    if missed is not None:
        missed = missed | np.isnan(choice)
    stack = [reader.numbers("reward", columns.reward, missed)]
    stack += [reader.numbers("dopamine", name, missed) for name in columns.signal_names]
    stack += [reader.numbers("observation", name, missed) for name in columns.observation_names]
    signals = len(columns.signal_names)
    return assemble(
        choice=choice,
        reward=stack[0],
        dopamine=np.column_stack(stack[1 : 1 + signals]) if signals else None,
        forced=forced,
        missed=missed,
        observations=np.column_stack(stack[1 + signals :]) if stack[1 + signals :] else None,
        lengths=lengths,
        subjects=subjects,
        ids=ids,
        num_arms=num_arms,
        reward_kind=reward_kind,
        observation_names=columns.observation_names,
        signal_names=columns.signal_names,
        origin=reader.origin,
        rows=tuple(np.split(np.arange(len(table)), starts[1:])),
    )


@dataclasses.dataclass(frozen=True)
class _TableReader:
    """Checks and converts the columns of one table."""

    table: pd.DataFrame
    columns: Columns
    origin: Origin

    def check_columns(self):
        """Refuses an empty table, repeated column names, and names that are not there."""
        if self.table.columns.nlevels > 1:
            raise self.origin.error(
                f"expected one line of column names, got {self.table.columns.nlevels} levels; "
                "flatten them, for example table.columns = table.columns.map('_'.join)"
            )
        names = [str(name) for name in self.table.columns]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise self.origin.error(f"expected unique column names, got {repeated} more than once")
        if not len(self.table):
            raise self.origin.error("expected at least one row, got a table without rows")
        for role, column in self.columns.roles():
            if column not in self.table.columns:
                there = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
                hint = suggest(column, names)
                if len(names) == 1:
                    hint += "; a single column can mean another separator than expected"
                if column in self.table.index.names:
                    hint += "; it is in the index: pass table.reset_index()"
                raise self.origin.error(
                    f"no column {column!r} for Columns.{role}, got the columns {there}{hint}"
                )

    def sessions(self) -> tuple[np.ndarray, list[str], list[str]]:
        """Finds the sessions.

        Returns:
            The session of each row, int `(N,)`, numbered in order of appearance; the ids and
            the subjects of the sessions.
        """
        codes, ids = self._categories("session")
        if self.columns.subject is None:
            owners = ["unnamed"] * len(ids)
        else:
            subject_codes, subjects = self._categories("subject")
            firsts = np.unique(codes, return_index=True)[1]
            differs = subject_codes != subject_codes[firsts][codes]
            if differs.any():
                row = int(np.flatnonzero(differs)[0])
                pair = (subjects[subject_codes[firsts[codes[row]]]], subjects[subject_codes[row]])
                by = (self.columns.subject, self.columns.session)
                raise self.origin.error(
                    f"a session must have one subject, got session {ids[codes[row]]!r} with "
                    f"{pair[0]!r} and, in row {row}, {pair[1]!r}; make the ids unique, for example "
                    f"table[{by[1]!r}] = table[{by[0]!r}].astype(str) + ' ' + "
                    f"table[{by[1]!r}].astype(str)"
                )
            owners = [subjects[code] for code in subject_codes[firsts]]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        if len(starts) > len(ids):
            seen_before = codes[starts] < np.maximum.accumulate(codes[starts])
            row = int(starts[seen_before][0])
            raise self.origin.error(
                f"rows out of order: the rows of a session must stand together, got session "
                f"{ids[codes[row]]!r} again in row {row}, after rows of session "
                f"{ids[codes[row - 1]]!r}"
            )
        return codes, ids, owners

    def check_trial_order(self, codes: np.ndarray, ids: list[str]):
        """Refuses a trial number that does not rise within its session."""
        if self.columns.trial is None:
            return
        label = self.origin.label("trial")
        number = self.numbers("trial", self.columns.trial, None)
        absent = ~np.isfinite(number)
        if absent.any():
            row = int(np.flatnonzero(absent)[0])
            raise self.origin.error(f"{label} must be finite, got {number[row]:g} in row {row}")
        falls = (np.diff(codes) == 0) & (np.diff(number) <= 0)
        if falls.any():
            row = int(np.flatnonzero(falls)[0]) + 1
            raise self.origin.error(
                f"rows out of order: {label} must rise within a session, got {number[row]:g} after "
                f"{number[row - 1]:g} in row {row} (session {ids[codes[row]]!r})"
            )

    def flags(self, role: str) -> np.ndarray | None:
        """Reads a column of true and false, bool `(N,)`; None when no column has the role."""
        column = getattr(self.columns, role)
        if column is None:
            return None
        codes, values = self._factorize(role, column)
        meaning = np.full(len(values) + 1, -1)  # the last entry is for empty cells, code -1
        for index, value in enumerate(values):
            text = str(value).lower()
            meaning[index] = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}.get(
                text, -1
            )
            if meaning[index] < 0:
                break
        flags = meaning[codes]
        if (flags < 0).any():
            row = int(np.flatnonzero(flags < 0)[0])
            raise self.origin.error(
                f"{self.origin.label(role)} must be True or False (or 1 or 0) in every row, got "
                f"{self._cell(column, row)} in row {row}"
            )
        return flags.astype(bool)

    def numbers(self, role: str, column: str, missed: np.ndarray | None) -> np.ndarray:
        """Reads numbers, float64 `(N,)`; NaN where empty, or where a missed trial has words."""
        values, wordy = _to_numbers(self.table[column])
        bad = wordy if missed is None else wordy & ~missed
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            hint = ""
            if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", str(self.table[column].iloc[row])):
                hint = "; for decimal commas read it with pandas.read_csv(..., decimal=',')"
            elif role == "choice":
                words = sorted(set(map(str, self.table[column][bad])))
                if len(words) <= 6:
                    recode = {word: arm for arm, word in enumerate(words)}
                    hint = f", for example table[{column!r}] = table[{column!r}].map({recode})"
                hint = f"; recode it to 0, 1 and so on first{hint}"
            raise self.origin.error(
                f"{self.origin.label(role, column)} must hold numbers, got "
                f"{self._cell(column, row)} in row {row}{hint}"
            )
        return values

    def _categories(self, role: str) -> tuple[np.ndarray, list[str]]:
        """Reads a column of names: a code for each row, in order of appearance, and the names."""
        column = getattr(self.columns, role)
        codes, names = self._factorize(role, column)
        names = [str(name) for name in names]
        blank = codes < 0
        for index, name in enumerate(names):
            if not name.strip():
                blank |= codes == index
        if blank.any():
            row = int(np.flatnonzero(blank)[0])
            raise self.origin.error(
                f"{self.origin.label(role)} must be filled in every row, got "
                f"{self._cell(column, row)} in row {row}"
            )
        return codes, names

    def _factorize(self, role: str, column: str) -> tuple[np.ndarray, Sequence]:
        try:
            return pd.factorize(self.table[column])
        except (TypeError, NotImplementedError, ValueError) as error:  # lists, arrays, nested types
            row = next((i for i, v in enumerate(self.table[column]) if not _is_hashable(v)), 0)
            raise self.origin.error(
                f"{self.origin.label(role)} must hold one plain value a row, got "
                f"{self._cell(column, row)} in row {row}; make it a string or a number"
            ) from error

    def _cell(self, column: str, row: int) -> str:
        """Shows a cell as the user would write it."""
        value = self.table[column].iloc[row]
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return "an empty cell"
        return repr(value.item() if isinstance(value, np.generic) else value)


def _to_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Converts a column of any dtype.

    Returns:
        float64 `(N,)`, NaN where empty or not a number; bool `(N,)`, True where not a number.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        values, wordy = _to_numbers(pd.Series(column.cat.categories))
        codes = column.cat.codes.to_numpy()  # -1, the entry appended here, where empty
        return np.append(values, np.nan)[codes], np.append(wordy, False)[codes]
    types = pd.api.types
    if types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype):
        values = column.to_numpy(np.float64, na_value=np.nan)
        return values, np.zeros(len(values), bool)
    present = column.notna().to_numpy(bool)
    if not (types.is_object_dtype(column.dtype) or types.is_string_dtype(column.dtype)):
        return np.full(len(column), np.nan), present  # dates, intervals and the like
    try:
        values = pd.to_numeric(column, errors="coerce")
        if types.is_complex_dtype(values.dtype):  # its imaginary part would be lost
            raise TypeError
        values = values.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError, OverflowError):  # lists, bytes and other objects among them
        values = np.array([_to_number(value) for value in column])
    return values, present & np.isnan(values)


def _to_number(value) -> float:
    try:
        return float(value) if not isinstance(value, bytes) else np.nan
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _is_hashable(value) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
