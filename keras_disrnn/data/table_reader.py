"""Read the columns of a table by their role, and check every cell."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_disrnn.data.columns import TableColumns
from keras_disrnn.data.files import read_table
from keras_disrnn.data.trials import Origin
from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.ids import alike, factorize_ids, id_text

_TEXT = ("subject", "session", "event")
"""Roles whose cells are names. They are read from files as they are written."""

# What choices call a trial without one, in lower case and without spaces and signs.
_WITHOUT_CHOICE = re.compile(
    "|abort(ed)?|empty|invalid|miss(ed|ing)?|na|nan|nil|none|null|omit(ted)?|omission|skip(ped)?"
    "|timeout|no(action|answer|choice|lick|poke|press|resp|response)|nr"
)


def open_table(
    name: str, table: pd.DataFrame | str | os.PathLike[str], columns: TableColumns
) -> TableReader:
    """Open a table and check that it has the columns.

    Args:
        name: The name of the argument, for errors.
        table: The table, or the path of a file for `read_table`.
        columns: The column of each role.

    Returns:
        A reader of the table.

    Raises:
        TypeError: If `table` is neither a table nor a path.
        ValueError: If a column is absent.
    """
    source = name
    if not isinstance(table, pd.DataFrame):
        if not isinstance(table, str | os.PathLike):
            raise TypeError(
                f"{name}: expected a pandas.DataFrame or the path of a file, got "
                f"{type(table).__name__}; make it a DataFrame first"
            )
        source = os.fspath(table)
        roles = columns.roles()
        table = read_table(
            table,
            text=[name for role, name in roles if role in _TEXT],
            columns=[name for _, name in roles],
        )
    elif table.columns.nlevels == 1 and not all(isinstance(name, str) for name in table.columns):
        table = table.set_axis([str(name) for name in table.columns], axis=1)
    names = [role for role, _ in columns.roles()]
    alone = {role: column for role, column in columns.roles() if names.count(role) == 1}
    reader = TableReader(table, columns, Origin(source, alone), from_file=source != name)
    reader.check_columns()
    return reader


@dataclasses.dataclass(frozen=True, eq=False)
class TableReader:
    """Checks and converts the columns of one table.

    Args:
        table: The table.
        columns: The column of each role.
        origin: Names the table in errors.
        from_file: Whether `read_table` read it.
    """

    table: pd.DataFrame
    columns: TableColumns
    origin: Origin
    from_file: bool = False

    def check_columns(self) -> None:
        """Raise ValueError if the table is empty, or column names are repeated or absent."""
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
                    hint += "; a single column can mean that the file has another separator"
                if column in self.table.index.names:
                    hint += "; it is in the index: pass table.reset_index()"
                raise self.origin.error(
                    f"{type(self.columns).__name__}.{role}: expected a column {column!r}, got the "
                    f"columns {there}{hint}"
                )

    def sessions(self) -> tuple[np.ndarray, list[str], list[str]]:
        """Find the sessions.

        Returns:
            The session of each row, int `(N,)`, numbered in order of appearance; the ids and the
            subjects of the sessions.

        Raises:
            ValueError: If an id is empty, two ids look alike, a session has two subjects, or its
                rows are not together.
        """
        codes, ids = self._ids("session")
        if self.columns.subject is None:
            owners = ["unnamed"] * len(ids)
        else:
            subject_codes, subjects = self._ids("subject")
            # Codes count up in order of appearance.
            firsts = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))
            differs = subject_codes != subject_codes[firsts][codes]
            if differs.any():
                row = int(np.flatnonzero(differs)[0])
                pair = (subjects[subject_codes[firsts[codes[row]]]], subjects[subject_codes[row]])
                by = (self.columns.subject, self.columns.session)
                raise self.origin.error(
                    f"{self.origin.label('subject')}: expected one subject in a session, got "
                    f"{pair[0]!r} and, in row {row}, {pair[1]!r} in session {ids[codes[row]]!r}; "
                    "make the ids unique, for example "
                    f"table[{by[1]!r}] = table[{by[0]!r}].astype(str) + ' ' + "
                    f"table[{by[1]!r}].astype(str)"
                )
            owners = [subjects[code] for code in subject_codes[firsts]]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        if len(starts) > len(ids):
            seen_before = codes[starts] < np.maximum.accumulate(codes[starts])
            row = int(starts[seen_before][0])
            raise self.origin.error(
                f"{self.origin.label('session')}: expected the rows of a session together, got "
                f"session {ids[codes[row]]!r} again in row {row}, after rows of session "
                f"{ids[codes[row - 1]]!r}; sort the rows"
            )
        return codes, ids, owners

    def ordered(
        self, role: str, column: str, codes: np.ndarray, ids: Sequence[str], *, strict: bool
    ) -> np.ndarray:
        """Read finite numbers that rise (or, if not `strict`, do not fall) within a session."""
        label, values = self.origin.label(role), self.numbers(role, column)
        absent = np.flatnonzero(~np.isfinite(values))
        if len(absent):
            row = absent[0]
            raise self.origin.error(
                f"{label}: expected a finite number, got {values[row]:g} in row {row}"
            )
        steps = np.diff(values)
        wrong = np.flatnonzero((np.diff(codes) == 0) & ((steps < 0) | (strict & (steps == 0))))
        if len(wrong):
            row = wrong[0] + 1
            raise self.origin.error(
                f"{label}: expected numbers that {'rise' if strict else 'do not fall'} within a "
                f"session, got {values[row]:g} after {values[row - 1]:g} in row {row} (session "
                f"{ids[codes[row]]!r}); sort the rows"
            )
        return values

    def flags(self, role: str) -> np.ndarray | None:
        """Read a column of true and false, bool `(N,)`; None if no column has the role."""
        column = getattr(self.columns, role)
        if column is None:
            return None
        codes, values = self._factorize(role, column)
        meaning = np.full(len(values) + 1, -1)  # The last entry is for empty cells.
        for index, value in enumerate(values):
            text = ""
            with contextlib.suppress(ValueError):  # The check below names the cell.
                text = (id_text(value) or "").lower()
            meaning[index] = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}.get(
                text, -1
            )
            if meaning[index] < 0:
                break
        flags = meaning[codes]
        if (flags < 0).any():
            row = int(np.flatnonzero(flags < 0)[0])
            raise self.origin.error(
                f"{self.origin.label(role)}: expected True or False (or 1 or 0) in every row, got "
                f"{self._cell(column, row)} in row {row}"
            )
        return flags.astype(bool)

    def numbers(self, role: str, column: str, missed: np.ndarray | None = None) -> np.ndarray:
        """Read numbers, float64 `(N,)`; NaN for empty cells, and for text on missed trials."""
        values, wordy = numbers_of_column(self.table[column])
        bad = wordy if missed is None else wordy & ~missed
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            hint = ""
            if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", str(self.table[column].iloc[row])):
                hint = "; for decimal commas read it with pandas.read_csv(..., decimal=',')"
            elif role == "choice":
                numeric = bool((~np.isnan(values)).any())
                hint = _recoding(column, self.table[column][bad], numeric=numeric)
            raise self.origin.error(
                f"{self.origin.label(role, column)}: expected numbers, got "
                f"{self._cell(column, row)} in row {row}{hint}"
            )
        return values

    def categories(self, role: str) -> tuple[np.ndarray, list[str]]:
        """Read a column of names: a code for each row, in order of appearance, and the names."""
        column = getattr(self.columns, role)
        label = self.origin.label(role)
        try:
            codes, names = factorize_ids(self.table[column])
        except ValueError as error:
            raise self.origin.error(f"{label}: {error}; make it text") from None
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            cell = self._cell(column, row)
            hint = ""
            if cell == "an empty cell" and not self.from_file:
                hint = (
                    "; pandas reads NA, None and nan as empty: pass the path of the file, or "
                    "pandas.read_csv(..., dtype=str, keep_default_na=False)"
                )
            raise self.origin.error(
                f"{label}: expected a value in every row, got {cell} in row {row}{hint}"
            )
        return codes, names

    def _ids(self, role: str) -> tuple[np.ndarray, list[str]]:
        """Read a column of ids. Two that look alike, or two forms of one, are an error."""
        codes, names = self.categories(role)
        column, label = getattr(self.columns, role), self.origin.label(role)
        pair = alike(names)
        if pair is not None:
            rows = [int(np.argmax(codes == names.index(name))) for name in pair]
            raise self.origin.error(
                f"{label}: expected ids that differ in more than white space, got {pair[0]!r} in "
                f"row {rows[0]} and {pair[1]!r} in row {rows[1]}; write them alike, for example "
                f"table[{column!r}] = table[{column!r}].str.strip()"
            )
        cells = self.table[column]
        if cells.dtype == object and pd.api.types.infer_dtype(cells).startswith("mixed"):
            kinds: dict[int, type] = {}
            for row, (code, value) in enumerate(zip(codes, cells, strict=True)):
                kind = kinds.setdefault(code, type(value))
                if kind is not type(value):
                    raise self.origin.error(
                        f"{label}: expected unique ids of one type each, got {names[code]!r} 2 "
                        f"times, as {kind.__name__} and, in row {row}, as {type(value).__name__}; "
                        f"write them alike, for example table[{column!r}] = "
                        f"table[{column!r}].astype(str)"
                    )
        return codes, names

    def _factorize(self, role: str, column: str) -> tuple[np.ndarray, Sequence]:
        try:
            return pd.factorize(self.table[column])
        except (TypeError, NotImplementedError, ValueError) as error:  # Lists, arrays and so on.
            row = next((i for i, v in enumerate(self.table[column]) if not _is_hashable(v)), 0)
            raise self.origin.error(
                f"{self.origin.label(role)}: expected one plain value per row, got "
                f"{self._cell(column, row)} in row {row}; make it a string or a number"
            ) from error

    def _cell(self, column: str, row: int) -> str:
        """Show a cell as the user would write it."""
        value = self.table[column].iloc[row]
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return "an empty cell"
        return repr(value.item() if isinstance(value, np.generic) else value)


def _recoding(column: str, cells: pd.Series, *, numeric: bool) -> str:
    """Return the end of an error about choices in words: how to recode them without harm.

    Args:
        column: The column.
        cells: The cells with words.
        numeric: Whether other cells of the column hold numbers, which a map would empty.
    """
    hint = "; recode it to 0, 1 and so on first"
    words = sorted(set(map(str, cells)))
    missed = [w for w in words if _WITHOUT_CHOICE.fullmatch(re.sub(r"[\W_]", "", w.lower()))]
    arms = [word for word in words if word not in missed]
    if missed:
        hint += (
            f": no choice is no arm, so first table['missed'] = table[{column!r}].isin({missed}) "
            "for Columns(missed='missed')"
        )
    # Of three words, one may be a missed trial. Only the user can tell.
    if not numeric and len(arms) == 2:
        recode = {word: arm for arm, word in enumerate(arms)}
        hint += f"{', then' if missed else ', for example'} table[{column!r}] = table[{column!r}]"
        return f"{hint}.map({recode})"
    if missed:
        return hint
    listed = ", ".join(map(repr, words[:6])) + (", ..." if len(words) > 6 else "")
    beside = " beside numbers" if numeric else ""
    return (
        f"{hint} (there are {listed}{beside}); a word for a trial without a choice is no arm: "
        "name such trials in Columns.missed"
    )


def numbers_of_column(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Convert a column of any dtype.

    Returns:
        float64 `(N,)`, NaN where empty or not a number; bool `(N,)`, True where not a number.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        values, wordy = numbers_of_column(pd.Series(column.cat.categories))
        codes = column.cat.codes.to_numpy()  # An empty cell has the code -1.
        return np.append(values, np.nan)[codes], np.append(wordy, False)[codes]
    types = pd.api.types
    if isinstance(column.dtype, pd.ArrowDtype | pd.SparseDtype):
        # Dictionaries, decimals and others have no conversion of their own that always works.
        column = pd.Series(column.to_list(), dtype=object).infer_objects()
    if types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype):
        values = column.to_numpy(np.float64, na_value=np.nan)
        return values, np.zeros(len(values), bool)
    present = column.notna().to_numpy(bool)
    if not (types.is_object_dtype(column.dtype) or types.is_string_dtype(column.dtype)):
        return np.full(len(column), np.nan), present  # Dates, intervals and so on.
    try:
        values = pd.to_numeric(column, errors="coerce")
        if types.is_complex_dtype(values.dtype):  # The imaginary part would be lost.
            raise TypeError
        values = values.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError, OverflowError):  # Lists, bytes or other objects.
        values = np.array([_to_number(value) for value in column])
    return values, present & np.isnan(values)


def _to_number(value: Any) -> float:
    if isinstance(value, bytes) or np.iscomplexobj(value):
        return np.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
