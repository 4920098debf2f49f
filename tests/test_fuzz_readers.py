"""Fuzz tests: any input of a reader gives a valid result, or one error that names what is wrong.

Each reader is compared with a plain account of what is valid, which shares no code with it. The
profile "ci" takes the same few examples in every run. `make fuzz` takes many more.
"""

import csv
import datetime
import decimal
import fractions
import gzip
import hashlib
import io
import json
import math
import pickle
import re
import time
import warnings

import hypothesis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from hypothesis import strategies as st

from keras_disrnn.data import (
    Columns,
    Sessions,
    sessions_from_table,
    sessions_from_tfds,
    stream_from_tfds,
)
from keras_disrnn.experiments.folder import read_config
from keras_disrnn.io import saved_model
from keras_disrnn.io.pickles import read_pickle
from keras_disrnn.io.reference import read_reference
from keras_disrnn.utils.files import read_json
from keras_disrnn.utils.state import load_state, save_state

COLUMNS = Columns(dopamine="dlight", forced="forced", missed="missed", observations=["speed"])
LONGEST = 20.0
"""Seconds that one example may take on a busy machine."""

NUMBER = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
EMPTY_WORDS = {
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip
"""What pandas documents as empty cells of a CSV file."""


def examples(count):
    """Return settings with `count` examples in the profile "ci", and more in "slow"."""
    most = max(1, count * hypothesis.settings.default.max_examples // 100)
    return hypothesis.settings(max_examples=most)


def attempt(read, *names):
    """Return what a reader returns, or `None` after an error of the house form.

    One of the `names` must be in the message. Warnings are not errors.
    """
    start = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (ValueError, FileNotFoundError) as error:
        # TensorFlow and Keras have errors of their own that are ValueErrors.
        assert type(error).__module__ == "builtins", repr(error)
        message = str(error)
        assert re.match(r"[^\n]+: expected [^\n]+, got ", message, re.S), message
        assert not names or any(name in message for name in names), message
        return None
    finally:
        assert time.monotonic() - start < LONGEST


# === An account of what is valid ===


def to_number(cell, words=False):
    """Return the number in a cell, NaN if it is empty, `None` if it is not a number.

    With `words`, the cell is the text of a CSV file.
    """
    if words and cell in EMPTY_WORDS:
        return math.nan
    if isinstance(cell, bytes):
        cell = cell.decode()
    if isinstance(cell, np.ndarray):
        return float(cell) if cell.ndim == 0 else None
    if isinstance(cell, str):
        text = cell.strip().lower()
        if text in ("true", "false") and words:
            return float(text == "true")
        if text.lstrip("+-") in ("inf", "infinity"):
            return math.inf
        return float(text) if NUMBER.fullmatch(cell) else None
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return math.nan
    if isinstance(cell, bool | int | float | np.number | np.bool_ | decimal.Decimal):
        if isinstance(cell, np.complexfloating | np.timedelta64):
            return None
        try:
            return float(cell)
        except (OverflowError, ValueError):
            return math.inf
    return float(cell) if isinstance(cell, fractions.Fraction) else None


def to_flag(cell):
    """Return the truth in a cell, or `None` if it holds neither true nor false."""
    if isinstance(cell, float):
        return {0.0: False, 1.0: True}.get(cell)
    text = str(cell).strip().lower()
    return {
        "true": True,
        "1": True,
        "1.0": True,
        "false": False,
        "0": False,
        "0.0": False,
        "-0.0": False,
    }.get(text)


def account(cells, reward_kind, words=False):
    """Return what the trials mean: a dict of arrays, or `None` if they are not valid.

    Args:
        cells: A list of cells for each column.
        reward_kind: "binary" or "real".
        words: As for `to_number`.
    """
    rows = []
    for index in range(len(cells["choice"])):
        row = {name: cells[name][index] for name in cells}
        forced, missed = to_flag(row["forced"]), to_flag(row["missed"])
        if forced is None or missed is None:
            return None
        choice = to_number(row["choice"], words)
        if choice is None and not missed:
            return None
        if missed or math.isnan(choice):
            rows.append({"made": False, "forced": forced})
            continue
        reward, speed = (to_number(row[name], words) for name in ("reward", "speed"))
        response = to_number(row["dlight"], words)
        if None in (reward, speed, response):
            return None
        if not (0 <= choice < 2**31 and choice == int(choice)) or not math.isfinite(speed):
            return None
        if not (reward in (0, 1) if reward_kind == "binary" else math.isfinite(reward)):
            return None
        if not (math.isnan(response) or abs(response) <= 1e4):
            return None
        rows.append(
            {
                "made": True,
                "forced": forced,
                "choice": choice,
                "reward": reward,
                "speed": speed,
                "dlight": response,
            }
        )
    return rows


def check_invariants(sessions):
    """Check what every `Sessions` has, without the checks of the class."""
    shape = sessions.features.shape[:2]
    real = ~np.isnan(sessions.features).any(-1)
    np.testing.assert_array_equal(real, ~np.isnan(sessions.features).all(-1))
    assert np.isfinite(sessions.features[real]).all()
    assert sessions.choice.shape == sessions.choice_weight.shape == shape
    assert ((sessions.choice >= 0) & (sessions.choice < sessions.num_arms)).all()
    assert np.isin(sessions.choice_weight, (0, 1)).all()
    assert np.isin(sessions.dopamine_weight, (0, 1)).all()
    assert np.isfinite(sessions.dopamine).all()
    assert not sessions.dopamine[sessions.dopamine_weight == 0].any()
    assert len(set(sessions.ids)) == len(sessions) == len(sessions.subjects)
    assert (sessions.trials_per_session >= 1).all()


def check_read(sessions, rows, num_arms):
    """Check that sessions hold exactly the trials of an account, in its order."""
    check_invariants(sessions)
    assert rows is not None, "an invalid value was accepted"
    assert sessions.num_trials == len(rows)
    place = [(s, t) for s, n in enumerate(sessions.trials_per_session) for t in range(n)]
    arms = {row["choice"] for row in rows if row["made"]}
    assert arms and max(arms) < sessions.num_arms
    if num_arms is None:
        # Arms that count from 1 would have a first arm that is never chosen.
        assert max(arms) <= 1 or arms == set(range(sessions.num_arms))
    else:
        assert sessions.num_arms == num_arms
    for (session, trial), row in zip(place, rows, strict=True):
        free = row["made"] and not row["forced"]
        assert sessions.choice_weight[session, trial] == free
        assert sessions.choice[session, trial] == (row["choice"] if free else 0)
        described = sessions.features[session, trial + 1]
        if row["made"]:
            expected = np.float32([row["choice"], row["reward"], row["speed"]])
            np.testing.assert_array_equal(described, expected)
        else:
            assert np.isnan(described).all()
        recorded = row["made"] and not math.isnan(row["dlight"])
        assert sessions.dopamine_weight[session, trial + 1, 0] == recorded
        wanted = np.float32(row["dlight"]) if recorded else 0
        assert sessions.dopamine[session, trial + 1, 0] == wanted


# === Tables ===

USUAL = {
    "choice": st.sampled_from([0, 1]),
    "reward": st.sampled_from([0, 1]),
    "dlight": st.floats(-5, 5, width=32) | st.just(math.nan),
    "speed": st.floats(-2, 2, width=32),
    "forced": st.just(False) | st.booleans(),
    "missed": st.just(False) | st.booleans(),
}
ODD_NUMBERS = st.sampled_from(
    [
        math.nan, math.inf, -math.inf, -0.0, -1, 2, 3, 0.5, 1e-30, 1e5, 1e39, 1e300, 2**31, 2**53,
        10**30, 10**400, -(10**400), True, False,
    ]
)  # fmt: skip
ODD_WORDS = st.sampled_from(
    [
        "", " ", "0", "1", " 1", "1 ", "1.0", "01", "+1", "1e0", "0x1", "1_0", "1,0", "1.", ".5",
        "١", "１", "inf", "-Infinity", "nan", "NA", "NULL", "None", "<NA>", "True", "FALSE", "yes",
        "left", "1j", "2024-01-01", "1e400", "é", "😀", '"', "'", "a,b", "a\tb", "\u200b1",
        "\ufeff1", "-999",
    ]
)  # fmt: skip
ODD_OBJECTS = st.sampled_from(
    [
        None, pd.NA, pd.NaT, b"1", 1j, np.complex64(1), decimal.Decimal("1"),
        decimal.Decimal("NaN"), fractions.Fraction(1),
        fractions.Fraction(1, 3), [1], (1,), {}, {1},
        datetime.date(2024, 1, 1), pd.Timestamp("2024-01-01"), pd.Timedelta(1, "s"),
        np.timedelta64(1, "s"), np.float16(1), np.int8(1), np.bool_(True), np.array(1),
        np.array([1]),
        pd.Interval(0, 1), pd.Period("2024"), object, len, range(2),
    ]
)  # fmt: skip
DTYPES = [
    "float32", "float16", "int8", "uint64", "bool", "Int64", "Float64", "boolean", "string",
    "category", "datetime64[ns]", "timedelta64[s]", "complex64", "int64[pyarrow]",
    "double[pyarrow]", "bool[pyarrow]", "string[pyarrow]", "timestamp[ns][pyarrow]",
]  # fmt: skip


@st.composite
def columns_of_cells(draw, usual, odd_cells, dtypes=()):
    """Draw trials of one to three sessions; at most two columns hold anything."""
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    count = sum(lengths)
    odd = draw(st.sets(st.sampled_from(sorted(usual)), max_size=2))
    cells, kinds = {}, {}
    for name in usual:
        values = draw(st.lists(usual[name], min_size=count, max_size=count))
        if name in odd and draw(st.booleans()):
            # One odd cell among usual ones, which a check of the whole column could overlook.
            values[draw(st.integers(0, count - 1))] = draw(odd_cells)
        elif name in odd:
            values = draw(st.lists(odd_cells | usual[name], min_size=count, max_size=count))
        cells[name] = values
        kinds[name] = draw(st.sampled_from([None, *dtypes])) if dtypes else None
    session = np.repeat(np.arange(len(lengths)), lengths)
    return session, cells, kinds


def as_table(session, cells, kinds):
    """Make a DataFrame, and return it with the cells that it really has."""
    table = pd.DataFrame({"subject": "m1", "session": [f"m1-{s}" for s in session]})
    for name, values in cells.items():
        column = pd.Series(values, dtype=object)
        if kinds[name] is not None:
            try:
                column = column.astype(kinds[name])
            except Exception:
                hypothesis.reject()
        elif not any(isinstance(v, int) and abs(v) > 2**62 for v in values):
            column = column.infer_objects()
        table[name] = column
    # A dtype may change its values, as float16 does: the reader gets what is in the table.
    return table, {name: [*table[name].astype(object)] for name in cells}


@examples(150)
@hypothesis.given(
    columns_of_cells(USUAL, ODD_NUMBERS | ODD_WORDS | ODD_OBJECTS, DTYPES),
    st.sampled_from(["binary", "real"]),
    st.sampled_from([None, None, 2, 3]),
)
def test_a_table_gives_exactly_its_trials_or_is_refused(columns, reward_kind, num_arms):
    table, cells = as_table(*columns)
    before = table.copy(deep=True)
    sessions = attempt(
        lambda: sessions_from_table(table, COLUMNS, num_arms=num_arms, reward_kind=reward_kind),
        "choice", "reward", "dlight", "speed", "forced", "missed",
    )  # fmt: skip
    pd.testing.assert_frame_equal(table, before)
    if sessions is not None:
        check_read(sessions, account(cells, reward_kind), num_arms)


GOOD = {name: USUAL[name] for name in USUAL if name != "dlight"} | {"dlight": st.floats(-5, 5)}


@examples(40)
@hypothesis.given(columns_of_cells(GOOD, st.nothing()), st.data())
def test_a_table_without_anything_odd_is_read(columns, data):
    session, cells, kinds = columns
    # At least one free choice and one response in each session.
    first = np.flatnonzero(np.diff(session, prepend=-1))
    for row in first:
        cells["missed"][row] = cells["forced"][row] = False
    table, cells = as_table(session, cells, kinds)
    order = data.draw(st.permutations(list(table.columns)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sessions = sessions_from_table(table[order], COLUMNS)
    check_read(sessions, account(cells, "binary"), None)


WORDS = {name: USUAL[name].map(str) for name in USUAL}
MARKS = st.sampled_from(["none", "none", "cut", "insert", "double column", "empty", "other name"])


@examples(100)
@hypothesis.given(
    columns_of_cells(WORDS, ODD_WORDS | ODD_NUMBERS.filter(lambda v: abs(v) < 1e300).map(str)),
    st.sampled_from([".csv", ".tsv", ".csv.gz"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    MARKS,
    st.data(),
)
def test_a_file_gives_exactly_its_trials_or_is_refused(
    tmp_path_factory, columns, ending, newline, bom, mark, data
):
    session, cells, _ = columns
    names = ["subject", "session", *cells]
    rows = [["m1", f"m1-{s}", *row] for s, *row in zip(session, *cells.values(), strict=True)]
    if mark == "double column":
        names, rows = [*names, "choice"], [[*row, "0"] for row in rows]
    if mark == "other name":
        names[names.index("choice")] = "Choice"
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter="\t" if "tsv" in ending else ",",
        lineterminator=newline,
        quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerows([names, *rows])
    content = ("\ufeff" * bom + text.getvalue()).encode()
    if mark == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif mark == "insert":
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + data.draw(st.binary(min_size=1, max_size=3)) + content[at:]
    elif mark == "empty":
        content = data.draw(
            st.sampled_from([b"", b"\n\n", b"\xef\xbb\xbf", content.split(b"\n")[0]])
        )
    path = tmp_path_factory.mktemp("fuzz") / f"a{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    sessions = attempt(lambda: sessions_from_table(path, COLUMNS), path.name)
    if sessions is None:
        return
    check_invariants(sessions)
    assert mark not in ("double column", "empty", "other name")
    if mark == "none":
        check_read(sessions, account(cells, "binary", words=True), None)


# === TFDS: in memory and as a stream ===


@st.composite
def splits(draw):
    """Draw the examples of a split, mostly good ones, now and then one with an odd feature."""
    count = draw(st.integers(1, 4))
    extra = draw(st.sets(st.sampled_from(["dopamine", "forced", "missed", "observations"])))
    widths = {name: draw(st.sampled_from([None, 1, 2])) for name in ("dopamine", "observations")}
    kinds = {
        "choice": draw(st.sampled_from(["int32", "int64", "float32", "uint8", "bool"])),
        "reward": draw(st.sampled_from(["float32", "int32", "float64"])),
        "dopamine": "float32",
        "observations": draw(st.sampled_from(["float32", "float64"])),
        "forced": draw(st.sampled_from(["bool", "int32"])),
        "missed": draw(st.sampled_from(["bool", "float32"])),
    }
    odd = draw(st.sampled_from([None, None, *kinds]))
    odd_example = draw(st.integers(0, count - 1))
    found = []
    for index in range(count):
        length = draw(st.integers(0 if odd == "choice" else 1, 4))
        example = {"subject": draw(st.sampled_from(["m1", "é"])), "session": f"s{index}"}
        for name in ("choice", "reward", *sorted(extra)):
            size, width = length, widths.get(name)
            if name == odd and index == odd_example:
                size += draw(st.sampled_from([0, 0, 1]))
                width = draw(st.sampled_from([width, 1, 2, 3])) if width else None
            shape = (size,) if width is None else (size, width)
            usual = st.sampled_from([0, 0, 1])
            if name == odd and index == odd_example:
                usual |= st.sampled_from([2, 3, 100, -1, 0.5, math.nan, math.inf, 1e39, 2e4])
            values = draw(st.lists(usual, min_size=math.prod(shape), max_size=math.prod(shape)))
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                example[name] = np.array(values, "float64").astype(kinds[name]).reshape(shape)
        found.append(example)
    return found


def to_split(found):
    """Make a `tf.data.Dataset` whose spec allows any number of trials and of columns."""

    def spec(name, value):
        value = np.asarray(value)
        if value.ndim == 0:
            return tf.TensorSpec((), tf.string)
        return tf.TensorSpec((None,) * value.ndim, tf.as_dtype(value.dtype))

    signature = {name: spec(name, value) for name, value in found[0].items()}
    return tf.data.Dataset.from_generator(lambda: iter(found), output_signature=signature)


def read_stream(split, batch_size, num_arms, reward_kind):
    """Return the arrays of all batches, or `None` after an error of the house form."""
    try:
        batches = stream_from_tfds(
            split, batch_size, num_trials=6, num_arms=num_arms, reward_kind=reward_kind
        )
        parts = list(batches.as_numpy_iterator())
    except ValueError as error:
        message = str(error)
    except tf.errors.InvalidArgumentError as error:
        # TensorFlow puts its own words around the error.
        message = re.search(r"ValueError: (.*)", error.message)
        assert message, error
        message = message.group(1)
    else:
        join = lambda *arrays: np.concatenate(arrays)  # noqa: E731
        return tf.nest.map_structure(join, *parts)
    assert re.match(r"[^\n]+: expected [^\n]+, got ", message), message
    return None


@examples(20)
@hypothesis.given(
    splits(), st.integers(1, 3), st.sampled_from([2, 3]), st.sampled_from(["binary", "real"])
)
def test_a_stream_has_the_batches_of_the_reader_in_memory(found, batch_size, arms, reward_kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        streamed = read_stream(to_split(found), batch_size, arms, reward_kind)
    whole = []

    def in_memory():
        try:
            return sessions_from_tfds(found, num_arms=arms, reward_kind=reward_kind)
        except ValueError as error:
            # Only a whole data set must have a free choice, and a value of each signal.
            whole.append(re.search("expected a (free choice|value) in some trial", str(error)))
            raise

    sessions = attempt(in_memory)
    if whole and whole[0]:
        return
    assert (sessions is None) == (streamed is None)
    if sessions is None:
        return
    check_invariants(sessions)
    features, targets, weights = streamed
    steps = sessions.features.shape[1]
    np.testing.assert_array_equal(features[:, :steps], sessions.features)
    assert np.isnan(features[:, steps:]).all()
    np.testing.assert_array_equal(targets["choice"][:, :steps], sessions.choice)
    np.testing.assert_array_equal(weights["choice"][:, :steps], sessions.choice_weight)
    if sessions.num_signals:
        np.testing.assert_array_equal(targets["dopamine"][:, :steps], sessions.dopamine)
        np.testing.assert_array_equal(weights["dopamine"][:, :steps], sessions.dopamine_weight)


def test_a_stream_refuses_sessions_with_fewer_columns():
    """In one batch, padding would fill the absent signal with zeros."""
    common = {"subject": "m1", "choice": [0, 1], "reward": [1.0, 0.0]}
    found = [
        {**common, "session": f"s{width}", "dopamine": np.ones((2, width), "float32")}
        for width in (1, 2)
    ]
    for batch_size in (1, 2):
        batches = stream_from_tfds(to_split(found), batch_size)
        with pytest.raises(
            tf.errors.InvalidArgumentError,
            match=r"dopamine: expected as many columns in every session, got \[1, 2\]",
        ):
            list(batches)


# === Arrays ===


@pytest.mark.parametrize(
    "odd", [1 + 2j, np.timedelta64(5, "m"), np.datetime64("2024-01-01"), 10**400], ids=repr
)
@pytest.mark.parametrize("role", ["choice", "reward", "dopamine"])
def test_arrays_that_are_no_plain_numbers_are_refused(role, odd):
    """NumPy converts the first two to numbers, without the imaginary part and the unit."""
    trials = {"choice": [0, 1, 0], "reward": [1, 0, 1], "dopamine": [0.5, 1.0, 2.0]}
    trials[role] = [0.0, odd, odd]
    with pytest.raises(ValueError, match=f"^{role}: expected numbers, got .* in session '0'"):
        Sessions.from_trials(
            **{name: [values] for name, values in trials.items()}, reward_kind="real"
        )


@examples(100)
@hypothesis.given(columns_of_cells(USUAL, ODD_NUMBERS | ODD_OBJECTS))
def test_arrays_give_exactly_their_trials_or_are_refused(columns):
    session, cells, _ = columns
    parts = {
        name: [
            [value for value, of in zip(values, session, strict=True) if of == s]
            for s in np.unique(session)
        ]
        for name, values in cells.items()
    }
    sessions = attempt(
        lambda: Sessions.from_trials(
            parts["choice"],
            parts["reward"],
            dopamine=parts["dlight"],
            forced=parts["forced"],
            missed=parts["missed"],
            observations=parts["speed"],
        )
    )
    if sessions is not None:
        check_read(sessions, account(cells, "binary"), None)


# === Files that the package wrote ===

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([10**400, "table", "num_arms", "~", "2024-13-45"])
)
nested = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
DEEP = ["[" * 1500, "{a: " * 1500, "- " * 1500, '{"a":' * 1500]
"""Files whose nesting is deeper than Python's stack."""


def damage(data, content):
    """Draw a change of a few bytes, or a cut."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    return bytes(content)


SETTINGS = {
    "command": "fit",
    "data": {"table": "a.csv", "columns": {"choice": "choice"}, "arms": 2},
    "model": {"num_latents": 3},
    "seed": 0,
}


@examples(60)
@hypothesis.given(st.data())
def test_any_config_is_read_as_settings_or_refused(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["value", "damaged", "bytes", "deep"]))
    if kind == "value":
        content = yaml.safe_dump(data.draw(nested), allow_unicode=True).encode()
    elif kind == "damaged":
        content = damage(data, yaml.safe_dump(SETTINGS).encode())
    elif kind == "bytes":
        content = data.draw(st.binary(max_size=30))
    else:
        content = data.draw(st.sampled_from(DEEP)).encode()
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "config.yaml").write_bytes(content)
    config = attempt(lambda: read_config(folder), "config.yaml")
    assert config is None or isinstance(config, dict)


@examples(60)
@hypothesis.given(st.data())
def test_any_json_is_read_or_refused(tmp_path_factory, data):
    whole = {"state": "done", "metrics": {"held_out": {"normalized_likelihood": 0.61, "r2": None}}}
    kind = data.draw(st.sampled_from(["value", "damaged", "bytes", "deep"]))
    value = None
    if kind == "value":
        value = data.draw(nested)
        content = json.dumps(value).encode()
    elif kind == "damaged":
        content = damage(data, json.dumps(whole).encode())
    elif kind == "bytes":
        content = data.draw(st.binary(max_size=30))
    else:
        content = data.draw(st.sampled_from(DEEP)).encode()
    path = tmp_path_factory.mktemp("fuzz") / "fit.json"
    path.write_bytes(content)
    read = attempt(lambda: read_json(path, "the result of a fit"), "fit.json")
    if kind == "value" and read is not None:
        assert json.dumps(read) == json.dumps(value)


@pytest.fixture(scope="module")
def manifest():
    """A manifest with the digests of one file."""
    digest = hashlib.sha256(b"graph").hexdigest()
    return {
        "format": saved_model.FORMAT,
        "version": saved_model.VERSION,
        "endpoints": {},
        "files": {"saved_model.pb": {"bytes": 5, "sha256": digest}},
    }


@examples(80)
@hypothesis.given(st.data())
def test_any_manifest_is_accepted_as_it_was_or_refused(manifest, tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["good", "value", "entry", "damaged", "bytes", "deep"]))
    content = json.dumps(manifest).encode()
    if kind == "value":
        content = json.dumps(
            {**manifest, data.draw(st.sampled_from(list(manifest))): data.draw(nested)}
        ).encode()
    elif kind == "entry":
        entry = {"bytes": data.draw(leaves), "sha256": data.draw(leaves)}
        content = json.dumps({**manifest, "files": {"saved_model.pb": entry}}).encode()
    elif kind == "damaged":
        content = damage(data, content)
    elif kind == "bytes":
        content = data.draw(st.binary(max_size=30))
    elif kind == "deep":
        content = data.draw(st.sampled_from(DEEP)).encode()
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "manifest.json").write_bytes(content)
    found = attempt(lambda: saved_model.check(folder), folder.name)
    assert found is not None or kind != "good"
    if found is not None:
        assert found["files"]["saved_model.pb"] == manifest["files"]["saved_model.pb"]


class _Call:
    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


pickled = st.recursive(
    leaves
    | st.binary(max_size=5)
    | st.complex_numbers()
    | st.builds(
        lambda shape, kind: np.ones(shape, kind),
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from(["f4", ">i8", "?", "f2", "c8", "M8[s]", "S3", "U2", "O", "V4"]),
    )
    | st.sampled_from(
        [np.float32(1), np.bool_(True), np.float64("nan"), np.datetime64("2024-01-01")]
    )
    | st.builds(lambda: _Call(print, "executed"))
    | st.just(np.ma.masked_array([1.0], [True]))
    | st.just(pd.DataFrame({"a": [1]})),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.builds(lambda v: [v, v], inner)
    ),
    max_leaves=6,
)


@examples(100)
@hypothesis.given(pickled, st.integers(0, 5), st.data())
def test_any_pickle_is_read_without_executing_it_or_refused(
    tmp_path_factory, value, protocol, data
):
    content = pickle.dumps(value, protocol)
    if data.draw(st.booleans()):
        content = damage(data, content)
    path = tmp_path_factory.mktemp("fuzz") / "p.pkl"
    path.write_bytes(content)
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        attempt(lambda: read_pickle(path), "p.pkl")
        attempt(lambda: read_reference(path), "p.pkl")
    assert "executed" not in out.getvalue()


@examples(60)
@hypothesis.given(st.data())
def test_any_saved_state_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "state.npz"
    state = {"weights": [np.arange(6.0)], "epoch": 4}
    save_state(path, state)
    whole = path.read_bytes()
    path.write_bytes(damage(data, whole) if data.draw(st.booleans()) else data.draw(st.binary()))
    found = attempt(lambda: load_state(path), "state.npz")
    if found is not None:
        # A member has a checksum, so damage that is read has changed nothing that counts.
        np.testing.assert_array_equal(found["weights"][0], state["weights"][0])
        assert found["epoch"] == 4
