"""Files of the shape that is described for Parker et al. (2016), written here."""

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.data import (
    Columns,
    Photometry,
    Source1Columns,
    Source2Columns,
    read_source_data_1,
    read_source_data_2,
    sessions_from_table,
)

NAN = np.nan


def source_2(**columns):
    """Two sites of two and one sessions; the sessions of each site are numbered from 1."""
    table = pd.DataFrame(
        {
            "recording_location": ["DMS"] * 4 + ["VTA"] * 2,
            "site": [1, 1, 1, 1, 2, 2],
            "session": [1, 1, 1, 2, 1, 1],
            "choice": ["ipsi", "contra", "contra", "ipsi", "contra", "ipsi"],
            "reward": [1, 0, 1, 1, 0, 0],
            "q_ipsi": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            "q_contra": [0.5] * 6,
        }
    )
    for event in ("poke", "lever", "press", "outcome"):
        for index in range(4):
            table[f"{event}_{index}"] = index + np.arange(6) / 10
    return table.assign(**columns)


SOURCE_2 = Source2Columns(
    levers=("ipsi", "contra"),
    signal=[f"press_{index}" for index in range(4)],
    times=[-0.5, 0.0, 0.5, 1.0],
    window=(0.0, 1.0),
)


def test_source_data_2(tmp_path):
    source_2().to_csv(tmp_path / "source2.csv", index=False)
    table = read_source_data_2(tmp_path / "source2.csv", SOURCE_2)
    assert list(table.columns) == ["subject", "session", "choice", "reward", "dopamine"]
    assert table["subject"].tolist() == ["1", "1", "1", "1", "2", "2"]
    assert table["session"].tolist() == ["1 1", "1 1", "1 1", "1 2", "2 1", "2 1"]
    assert table["choice"].tolist() == [0, 1, 1, 0, 1, 0]
    assert table["reward"].tolist() == [1, 0, 1, 1, 0, 0]
    # The columns at 0 and 0.5 s hold 1 and 2, and a tenth more a row.
    np.testing.assert_allclose(table["dopamine"], 1.5 + np.arange(6) / 10)
    sessions = sessions_from_table(table, Columns(dopamine="dopamine"))
    assert (sessions.n_sessions, sessions.n_trials) == (3, 6)
    assert sessions.subjects == ("1", "1", "2")


def test_source_data_2_of_one_location_and_one_column():
    columns = Source2Columns(
        levers=("ipsi", "contra"),
        signal="outcome_2",
        location="recording_location",
        keep_location="VTA",
    )
    table = read_source_data_2(source_2(), columns)
    assert table["session"].tolist() == ["2 1", "2 1"]
    np.testing.assert_allclose(table["dopamine"], [2.4, 2.5])


def test_levers_as_numbers_and_missing_signal():
    table = source_2(choice=[1.0, 2.0, 2.0, 1.0, 2.0, 1.0], press_1=[NAN, 1, 1, 1, 1, 1])
    columns = Source2Columns(levers=(1, 2), signal=("press_1", "press_2"))
    read = read_source_data_2(table, columns)
    assert read["choice"].tolist() == [0, 1, 1, 0, 1, 0]
    assert np.isnan(read["dopamine"][0])
    assert read["dopamine"][1] == pytest.approx((1 + 2.1) / 2)


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ({}, Source2Columns(signal="pres_1"), "no column 'pres_1'.*did you mean 'press_1'"),
        ({"choice": list("iccici")}, SOURCE_2, "'choice' must be one of .*got 'i' in row 0"),
        ({"choice": ["ipsi", NAN] * 3}, SOURCE_2, "got nan in row 1; .*without a choice"),
        ({"reward": [1, 0, 2, 0, 0, 0]}, SOURCE_2, "'reward' must be 0 or 1.*got 2 in row 2"),
        ({"press_2": list("abcdef")}, SOURCE_2, "'press_2' must hold numbers, got 'a' in row 0"),
        ({"session": [1, 2, 1, 2, 1, 1]}, SOURCE_2, "stand together, got session '1 1'.* row 2"),
        ({"site": [1, NAN, 1, 1, 2, 2]}, SOURCE_2, "'site' must be filled .* in row 1"),
        (
            {},
            Source2Columns(signal="press_1", location="recording_location", keep_location="NAc"),
            "no row of column 'recording_location' is 'NAc', there are 'DMS', 'VTA'",
        ),
    ],
)
def test_bad_source_data_2(changes, columns, message):
    with pytest.raises(ValueError, match=f"^table: .*{message}"):
        read_source_data_2(source_2(**changes), columns)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"signal": ()}, "signal must name at least one column"),
        ({"levers": ("a", "a")}, "levers must be two values"),
        ({"location": "l"}, "location and keep_location must be given together"),
        ({"window": (0, 1)}, "times and window must be given together"),
        (
            {"window": (0, 1), "times": [0, 1]},
            "times must have a time for each of the 1 columns of signal, got 2",
        ),
        ({"window": (0, 1), "times": [2]}, "window must hold at least one of the times"),
    ],
)
def test_bad_settings_of_source_data_2(settings, message):
    with pytest.raises(ValueError, match=f"Source2Columns.{message}"):
        Source2Columns(**settings)


def source_1(trials=3, gap=60):
    """Two sessions at 15 Hz; a trial takes 4 s, its press is 1 s after it begins. The signal is 2
    for a second after a rewarded press, 0.5 after another, else 0. The last trial of the first
    session is missed."""
    parts = []
    for session in (1, 2):
        rows = gap * trials + 15
        part = pd.DataFrame(0.0, index=range(rows), columns=["signal"])
        for name in ("trial_start", "poke_in", "ipsi_press", "contra_press", "reward", "high"):
            part[name] = 0
        for trial in range(trials):
            start = 15 + gap * trial
            part.loc[start, "trial_start"] = 1
            if session == 1 and trial == trials - 1:
                continue
            press, rewarded = start + 15, trial % 2 == 0
            lever = "contra_press" if trial else "ipsi_press"
            part.loc[press : press + 2, lever] = 1  # held for three rows: one press
            part.loc[press + 1 : press + 2, "reward"] = int(rewarded)
            part.loc[press : press + 15, "signal"] = 2.0 if rewarded else 0.5
        part.insert(0, "site", 7)
        part.insert(1, "session", session)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_source_data_1(tmp_path):
    source_1().to_csv(tmp_path / "source1.csv.gz", index=False)
    settings = Photometry(window=(0.0, 1.0), baseline=(-0.5, -0.1), step=1 / 15)
    table = read_source_data_1(tmp_path / "source1.csv.gz", Source1Columns(), settings)
    assert table["session"].tolist() == ["7 1"] * 3 + ["7 2"] * 3
    assert table["trial"].tolist() == [0, 1, 2] * 2
    assert table["missed"].tolist() == [False, False, True, False, False, False]
    np.testing.assert_array_equal(table["choice"], [0, 1, NAN, 0, 1, 1])
    np.testing.assert_array_equal(table["reward"], [1, 0, NAN, 1, 0, 1])
    np.testing.assert_allclose(table["press_time"], [2, 6, NAN, 2, 6, 10])
    np.testing.assert_allclose(table["dopamine"], [2, 0.5, NAN, 2, 0.5, 2], atol=1e-9)
    columns = Columns(dopamine="dopamine", missed="missed", trial="trial")
    assert sessions_from_table(table, columns).n_trials == 6


@pytest.mark.parametrize(
    ("rows", "column", "value", "message"),
    [
        (slice(None), "trial_start", 0, "'trial_start' must be 1 where a trial begins"),
        (30, "contra_press", 1, "both begin in row 30"),
        (3, "ipsi_press", 1, "a press in row 3 comes before the first trial .* in row 15"),
        (150, "reward", 1, "trial 2, from row 135, has a reward but no press"),
        (40, "reward", 3, "'reward' must be 0 or 1 in every row, got 3 in row 40"),
        (40, "signal", np.inf, "signal must be finite, or NaN where missing, got inf"),
        (slice(None), "signal", NAN, "signal must have a value in some sample"),
    ],
)
def test_bad_source_data_1(rows, column, value, message):
    table = source_1()
    table[column] = table[column].astype(float)
    table.loc[rows, column] = value
    with pytest.raises(ValueError, match=f"^table: .*{message}"):
        read_source_data_1(table)


def test_source_1_rate():
    with pytest.raises(ValueError, match=r"Source1Columns.rate must be above 0, got 0"):
        Source1Columns(rate=0)
