"""Broken files and tables beyond those of `test_data`, and fuzz tests of the reader.

Each broken input raises one error that says where the mistake is and what to do.
"""

import gzip
import io
import os

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from keras_disrnn.data import Columns, Sessions, read_table, sessions_from_table

NAN = np.nan
COLUMNS = Columns(dopamine="dlight", forced="forced", missed="missed", trial="trial")


def good(**columns):
    """Make two sessions of three trials. The given columns replace or extend the usual ones."""
    table = {
        "subject": ["Zoé"] * 3 + ["m2"] * 3,
        "session": ["z-1"] * 3 + ["m2-1"] * 3,
        "trial": [1, 2, 3] * 2,
        "choice": [0, 1, 1, 0, 0, 1],
        "reward": [1, 0, 1, 0, 1, 1],
        "dlight": [0.5, -0.25, 1.5, 0.0, 2.5, -1.0],
        "forced": [False] * 6,
        "missed": [False] * 6,
    }
    return pd.DataFrame({**table, **columns})


def text(**arguments):
    return good().to_csv(index=False, **arguments)


def test_the_good_table_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(text(), encoding="utf-8")
    assert sessions_from_table(tmp_path / "a.csv", COLUMNS).num_trials == 6


# === Files ===


def parquet(table):
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def swap(data, old, new):
    assert old in data
    return data.replace(old, new, 1)


LINES = text().splitlines(keepends=True)

BROKEN_FILES = {
    "latin-1": ("a.csv", lambda: text().encode("latin-1"), "0xe9 in line 2.*encoding='latin-1'"),
    "utf-16": ("a.csv", lambda: text().encode("utf-16"), "UTF-16 .*encoding='utf-16'"),
    "utf-16 without a mark": ("a.csv", lambda: text().encode("utf-16-le"), "zero bytes; save it"),
    "utf-16 zipped": ("a.csv.gz", lambda: gzip.compress(text().encode("utf-16")), "UTF-16"),
    "semicolons": (
        "a.csv",
        lambda: text(sep=";", decimal=",").encode(),
        "columns separated by ','.* sep=';', decimal=','",
    ),
    "tabs in a csv": ("a.csv", lambda: text(sep="\t").encode(), r"columns separated by ','.*'\\t'"),
    "commas in a tsv": ("a.tsv", lambda: text().encode(), r"columns separated by '\\t'.* sep=','"),
    "pipes": ("a.csv", lambda: text(sep="|").encode(), r"separated by ','.* sep='\|'"),
    "decimal commas unquoted": (
        "a.csv",
        lambda: text().replace("0.5", "0,5").encode(),
        "expected 8 cells in every row.* got 9 in line 2; quote cells that hold the sep",
    ),
    "decimal commas quoted": (
        "a.csv",
        lambda: text().replace("-0.25", '"-0,25"').encode(),
        "'dlight' .dopamine.: expected numbers, got '-0,25' in row 1; .*decimal=','",
    ),
    "decimal commas in a tsv": (
        "a.tsv",
        lambda: text(sep="\t", decimal=",").encode(),
        "'dlight' .dopamine.: expected numbers, got '0,5' in row 0; .*decimal=','",
    ),
    "a short line in the middle": (
        "a.csv",
        lambda: "".join([*LINES[:2], "Zoé,z-1,2\n", *LINES[3:]]).encode(),
        "expected 8 cells .* got 3 in line 3",
    ),
    "a short line among quotes": (
        "a.csv",
        lambda: "".join([*LINES[:2], '"Zoé",z-1,2\n', *LINES[3:]]).encode(),
        "expected 8 cells .* got 3 in line 3",
    ),
    "a cell too many in every line": (
        "a.csv",
        lambda: (LINES[0] + "".join("7," + line for line in LINES[1:])).encode(),
        "expected 8 cells .* got 9 in line 2",
    ),
    "commas at the ends of lines": (
        "a.csv",
        lambda: (LINES[0] + "".join(line[:-1] + ",\n" for line in LINES[1:])).encode(),
        "expected 8 cells .* got 9 in line 2",
    ),
    "a quote that never closes": (
        "a.csv",
        lambda: swap(text(), "z-1", '"z-1').encode(),
        "expected 8 cells in every row.* got 2 in the last row",
    ),
    "old line endings": ("a.csv", lambda: text().replace("\n", "\r").encode(), r"a lone \\r in l"),
    "a cell of a megabyte": (
        "a.csv",
        lambda: swap(text(), "z-1", '"' + "z" * 1_000_000 + '"').encode(),
        "got an error in line 2: field larger",
    ),
    "no line of names": (
        "a.csv",
        lambda: "".join(LINES[1:]).encode(),
        "unique column names, got .'1', 'False'. more",
    ),
    "html": ("a.csv", lambda: b"<html>\n<body>404</body>\n</html>", "expected a column 'session'"),
    "half a parquet file": ("a.parquet", lambda: parquet(good())[:-40], "parquet file, .* cut"),
    "a parquet file with a hole": (
        "a.parquet",
        lambda: (lambda d: d[:4] + bytes(len(d) // 2) + d[4 + len(d) // 2 :])(parquet(good())),
        "expected a parquet file",
    ),
    "a csv called parquet": ("a.parquet", lambda: text().encode(), "parquet file, got one that"),
    "a parquet file called csv": ("a.csv", lambda: parquet(good()), "binary data or another enc"),
    "parquet without rows": ("a.parquet", lambda: parquet(good()[:0]), "at least one row"),
    "parquet with the session as index": (
        "a.parquet",
        lambda: parquet(good().set_index("session")),
        "expected a column 'session'.* in the index: pass table.reset_index()",
    ),
    "gzip with a flipped bit": (
        "a.csv.gz",
        lambda: (lambda d: d[:40] + bytes([d[40] ^ 255]) + d[41:])(gzip.compress(text().encode())),
        "a whole gzip file, .* cut short or damaged",
    ),
    "gzip with something behind": (
        "a.csv.gz",
        lambda: gzip.compress(text().encode()) + b"more",
        "a whole gzip file",
    ),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_files_are_refused(tmp_path, case):
    name, make, message = BROKEN_FILES[case]
    if "parquet" in name + case:
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(make())
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        sessions_from_table(tmp_path / name, COLUMNS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(text())
    (tmp_path / "a.csv").chmod(0)
    with pytest.raises(ValueError, match=r"a.csv: expected a readable file"):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("path", ["x" * 5000 + ".csv", "a\0.csv", "no/such/folder/a.csv", ""])
def test_impossible_paths_are_refused(path):
    with pytest.raises((FileNotFoundError, ValueError), match=r"no such file|got a folder"):
        read_table(path)


@pytest.mark.parametrize("table", [None, 3, b"a.csv", np.zeros((3, 3)), {"choice": [0]}, [[0, 1]]])
def test_other_objects_than_tables_are_refused(table):
    with pytest.raises(TypeError, match=r"table: expected a pandas.DataFrame or .*, got .*make it"):
        sessions_from_table(table)
    with pytest.raises(TypeError, match="path: expected a table file"):
        read_table(table)


# === Tables ===


BROKEN_TABLES = {
    "a response of 1e6": (
        {"dlight": [0.5, 1, 1e6, 0, 1, 1]},
        r"'dlight' .dopamine.: expected a number from -10000 to 10000, got 1e\+06 in row 2 "
        r"\(session 'z-1'\); "
        "this is neither dF/F nor a z-score: convert it",
    ),
    "raw counts": ({"dlight": np.arange(6) + 30000.0}, "got 30000 in row 0 .* and in 5 more"),
    "responses as intervals": ({"dlight": pd.interval_range(0, 6)}, "'dlight'.* expected numbers"),
    "responses as time": ({"dlight": pd.to_timedelta(range(6), "s")}, "'dlight'.* expected num"),
    "complex responses": ({"dlight": np.arange(6) * 1j}, "'dlight'.* expected numbers, got"),
    "responses as lists": ({"dlight": [[0.1]] * 6}, r"'dlight'.* expected numbers, got .* row 0"),
    "responses as bytes": ({"dlight": [b"-"] * 6}, "'dlight'.* expected numbers, got b'-'"),
    "a unit in the cell": ({"dlight": ["0.5 %"] + [1] * 5}, "expected numbers, got '0.5 %' in r"),
    "a number beyond any": ({"dlight": [10**400] + [0] * 5}, "'dlight'"),
    "clocks that run backwards": ({"trial": [3, 2, 1, 1, 2, 3]}, "that rise .* got 2 after 3 in r"),
    "trial dates": ({"trial": pd.date_range("2024", periods=6)}, "'trial' .trial.: expected num"),
    "an infinite trial": ({"trial": [1, 2, np.inf, 1, 2, 3]}, "a finite number, got inf in row 2"),
    "two subjects, one session": (
        {"session": ["s"] * 6},
        "one subject in a session, got 'Zoé' and, in row 3, 'm2' in session 's'; make the ids",
    ),
    "subjects as lists": (
        {"subject": [["m1"]] * 6},
        r"one plain value, got \['m1'\] in row",
    ),
    "sessions as dicts": ({"session": [{"day": 1}] * 6}, "'session' .* plain value, .* in row 0"),
    "sessions as arrays": ({"session": [np.zeros(2)] * 6}, "'session' .* plain value, got"),
    "sessions half numbers": ({"session": [1, 1, "1", 2, 2, 2]}, "unique.* got '1' 2 times"),
    "blank session ids": ({"session": ["\t"] * 3 + ["b"] * 3}, "expected a value in every row"),
    "not a time": ({"session": pd.to_datetime([None] * 6)}, "'session'.* got an empty cell in row"),
    "choices as lists": ({"choice": [[0]] * 6}, "'choice' .choice.: expected numbers, got"),
    "choices from -1": ({"choice": [-1, 1, 1, -1, 1, 1]}, "arms count from 0., got -1 in r"),
    "choices of 1e12": ({"choice": [0, 1, 1e12, 0, 1, 0]}, r"whole number.* got 1e\+12 in row 2"),
    "yes and no": ({"choice": list("ynynyn")}, "'choice'.* got 'y' in row 0; recode .*map"),
    "rewards in words": ({"reward": ["water"] + [0] * 5}, "'reward'.* got 'water' in row 0"),
    "rewards of 0.006 ml": ({"reward": [0.006] * 6}, "0 or 1 .* got 0.006 in row 0.*'real'"),
    "negative rewards": ({"reward": [-1, 1, 1, 0, 0, 0]}, "got -1 in row 0 .*reward_kind='real'"),
    "forced as lists": ({"forced": [[True]] * 6}, "'forced' .* one plain value per row"),
    "forced in per cent": ({"forced": [0.5] * 6}, "True or False .* got 0.5 in row 0"),
    "missed in words": ({"missed": ["no"] * 5 + ["yes"]}, "'missed' .* got 'no' in row 0"),
    "missed, empty cells": ({"missed": [None] * 6}, "'missed' .* got an empty cell in row 0"),
}


@pytest.mark.parametrize("case", BROKEN_TABLES)
def test_broken_tables_are_refused(case):
    changes, message = BROKEN_TABLES[case]
    table = good()
    for name, values in changes.items():
        table[name] = pd.Series(list(values) if isinstance(values, list) else values)
    with pytest.raises(ValueError, match=message):
        sessions_from_table(table, COLUMNS)


def test_frames_with_unusual_columns_are_refused():
    levels = good()
    levels.columns = pd.MultiIndex.from_product([["session"], levels.columns])
    with pytest.raises(ValueError, match="one line of column names, got 2 levels; flatten"):
        sessions_from_table(levels)
    indexed = good().set_index(["subject", "session"])
    with pytest.raises(ValueError, match=r"a column .* in the index: pass table.reset_index\(\)"):
        sessions_from_table(indexed)
    numbered = pd.DataFrame(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="expected a column 'session', got the columns 0, 1, 2"):
        sessions_from_table(numbered)
    with pytest.raises(ValueError, match=r"dopamine.* got 1e\+06 in trial 1 of session 'x"):
        Sessions.from_trials([[0, 1]], [[1, 0]], dopamine=[[0, 1e6]], ids=["x"])


def test_ids_are_read_as_text(tmp_path):
    # As numbers, "07" and "7" would be the same session.
    path = tmp_path / "a.csv"
    path.write_text(
        "subject,session,choice,reward\n1,07,0,1\n1,07,1,1\n1,7,0,1\n001,1e3,1,0\n", "utf-8"
    )
    sessions = sessions_from_table(path)
    assert sessions.ids == ("07", "7", "1e3")
    assert sessions.subjects == ("1", "1", "001")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("quoted", [False, True])
def test_blank_lines_are_not_rows(tmp_path, ending, quoted):
    lines = text(quoting=1 if quoted else 0).splitlines()
    path = tmp_path / "a.csv"
    path.write_bytes(ending.join([*lines[:3], "", *lines[3:], "", ""]).encode())
    assert sessions_from_table(path, COLUMNS).num_trials == 6


# === Fuzz ===

OURS = (ValueError, TypeError, ImportError, FileNotFoundError)

cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["0", "1", "a", "True", "", " ", "nan", "1,5", "NA"]),
    st.binary(max_size=2),
    st.lists(st.integers(0, 1), max_size=2),
    st.dates(),
    st.complex_numbers(),
    st.decimals(allow_nan=False),  # pandas itself fails on a signalling NaN
)
sensible = {
    "subject": st.sampled_from(["m1", "m2"]),
    "session": st.sampled_from(["a", "b", 1]),
    "trial": st.integers(0, 9),
    "choice": st.integers(0, 1),
    "reward": st.integers(0, 1),
    "dlight": st.floats(-5, 5),
    "forced": st.booleans(),
    "missed": st.booleans(),
}


@st.composite
def tables(draw):
    """Draw mostly sensible tables in which one to three columns contain anything."""
    rows = draw(st.integers(0, 8))
    odd = draw(st.sets(st.sampled_from(sorted(sensible)), max_size=3))
    columns = {}
    for name, usual in sensible.items():
        strategy = cells if name in odd else usual
        values = draw(st.lists(strategy, min_size=rows, max_size=rows))
        columns[name] = pd.Series(values, dtype=object if name in odd else None)
    table = pd.DataFrame(columns)
    if draw(st.booleans()):
        table = table.sort_values(["subject", "trial"], key=lambda column: column.map(repr))
    return table


def check_complete(sessions, table):
    """Check that every row of the table is a trial, in the same place, with its values."""
    assert sessions.num_trials == len(table)
    rows = np.concatenate(sessions.rows)
    np.testing.assert_array_equal(rows, np.arange(len(table)))
    for index, part in enumerate(sessions.rows):
        assert {str(v) for v in table["session"].iloc[part]} == {sessions.ids[index]}


def check_error(error):
    """Check that an error is from this package and says what is expected."""
    assert isinstance(error, OURS), repr(error)
    message = str(error)
    words = ("must", "expected", "needs", "order", "no column", "can have", "could not")
    assert any(word in message for word in words), message


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(
    tables(), st.booleans(), st.sampled_from(["binary", "real"]), st.sampled_from([None, 2, 3])
)
def test_any_table_is_read_completely_or_refused(table, bare, reward_kind, arms):
    columns = Columns() if bare else COLUMNS
    try:
        sessions = sessions_from_table(table, columns, reward_kind=reward_kind, num_arms=arms)
    except Exception as error:
        check_error(error)
        return
    check_complete(sessions, table)


@hypothesis.settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    st.data(), st.sampled_from(["a.csv", "a.tsv", "a.csv.gz", "a.parquet"]), st.booleans()
)
def test_any_bytes_are_read_completely_or_refused(tmp_path, data, name, ours):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
        content = parquet(good())
    else:
        content = text(sep="\t" if "tsv" in name else ",").encode()
    if ours:
        # A good file with a few bytes changed, removed or inserted.
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            cut = data.draw(st.sampled_from([0, 0, 1, 1, 20]))
            content = content[:at] + data.draw(st.binary(max_size=3)) + content[at + cut :]
        if data.draw(st.booleans()):
            content = content[: data.draw(st.integers(0, len(content)))]
        content = gzip.compress(content) if name.endswith("gz") else content
    else:
        content = data.draw(st.binary(max_size=200))
    (tmp_path / name).write_bytes(content)
    table = None
    try:
        table = read_table(tmp_path / name)
        sessions = sessions_from_table(tmp_path / name, COLUMNS)
    except Exception as error:
        check_error(error)
        assert name in str(error) or table is not None  # errors of Sessions do not name the file
        return
    assert sessions.num_trials == len(table)
    np.testing.assert_array_equal(np.concatenate(sessions.rows), np.arange(len(table)))


@hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    st.lists(st.lists(st.text(max_size=5), min_size=3, max_size=3), min_size=1, max_size=6)
)
def test_any_cells_are_read_row_by_row(tmp_path, cells):
    table = pd.DataFrame(cells, columns=["x", "y", "z"])
    table.to_csv(tmp_path / "a.csv", index=False, encoding="utf-8", errors="replace")
    try:
        read = read_table(tmp_path / "a.csv")
    except ValueError as error:
        check_error(error)
        return
    assert len(read) == len(table)
