"""Reading of NWB files that pynwb wrote."""

import datetime
import sys

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.data import Columns, Photometry, read_nwb, sessions_from_table

pynwb = pytest.importorskip("pynwb", reason="pynwb, the extra [nwb], is not installed")

NAN = np.nan
RATE = 20.0
TIMES = 100 + np.arange(0, 60, 1 / RATE)
EVENTS = [110.0, 120.0, 130.0, 140.0]
SETTINGS = Photometry(window=(0.0, 0.9), baseline=(-0.9, -0.1))


def signal(sizes=(1.0, 2.0, 3.0, 4.0)):
    """Make a signal with a box of one second after each event."""
    values = np.full(len(TIMES), 5.0)
    for event, size in zip(EVENTS, sizes, strict=True):
        values[(event <= TIMES) & (event + 1 > TIMES)] += size
    return values


def write(path, *, subject="m1", session="m1-01", trials=4, change=None, regular=False, **series):
    file = pynwb.NWBFile(
        session_description="a bandit",
        identifier=f"id-{session}",
        session_start_time=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        session_id=session,
    )
    if subject:
        file.subject = pynwb.file.Subject(subject_id=subject)
    if trials:
        for name in ("choice", "reward", "choice_time", "note"):
            file.add_trial_column(name, name)
    for trial in range(trials):
        row = {
            "start_time": EVENTS[trial] - 2,
            "stop_time": EVENTS[trial] + 4,
            "choice": trial % 2,
            "reward": float(trial > 1),
            "choice_time": EVENTS[trial],
            "note": f"n{trial}",
        }
        file.add_trial(**{**row, **(change or {}).get(trial, {})})
    for name, data in {"dlight": signal(), **series}.items():
        if data is None:
            continue
        regularly = {"starting_time": TIMES[0], "rate": RATE}
        clock = regularly if regular else {"timestamps": TIMES[: len(data)]}
        thing = pynwb.TimeSeries(name=name, data=data, unit="F", **clock)
        if name == "control":
            file.create_processing_module("ophys", "photometry").add(thing)
        else:
            file.add_acquisition(thing)
    with pynwb.NWBHDF5IO(str(path), "w") as writer:
        writer.write(file)
    return path


@pytest.mark.parametrize("regular", [False, True])
def test_trials_and_series_are_read(tmp_path, regular):
    path = write(tmp_path / "a.nwb", regular=regular)
    table = read_nwb(path, series="dlight", event="choice_time", photometry=SETTINGS)
    assert table.columns[:2].tolist() == ["subject", "session"]
    assert (table["subject"] == "m1").all() and (table["session"] == "m1-01").all()
    assert table["note"].tolist() == ["n0", "n1", "n2", "n3"]
    np.testing.assert_allclose(table["choice_time"], EVENTS)
    np.testing.assert_allclose(table["dopamine"], [1, 2, 3, 4])
    sessions = sessions_from_table(table, Columns(dopamine="dopamine"))
    assert (sessions.num_sessions, sessions.num_trials) == (1, 4)
    np.testing.assert_allclose(sessions.dopamine[0, 1:, 0], [1, 2, 3, 4])


def test_several_files_channels_and_a_control_are_read(tmp_path):
    control = 1 + np.sin(TIMES) / 2
    both = np.column_stack([np.zeros(len(TIMES)), signal()])
    paths = [
        write(tmp_path / "a.nwb", dlight=both, control=control),
        write(tmp_path / "b.nwb", subject="m2", session="m2-01", dlight=both, control=control),
    ]
    table = read_nwb(
        paths,
        series="dlight",
        channel=1,
        control="control",
        event="choice_time",
        photometry=Photometry(window=(0.0, 0.9), baseline=(-0.9, -0.1), reference="control"),
    )
    assert len(table) == 8
    assert sessions_from_table(table, Columns(dopamine="dopamine")).ids == ("m1-01", "m2-01")
    # dF/F of boxes of 1 to 4 on about 5.
    assert np.corrcoef(table["dopamine"][:4], [1, 2, 3, 4])[0, 1] > 0.99
    np.testing.assert_array_equal(table["dopamine"][:4], table["dopamine"][4:])


def test_behaviour_without_series_and_missing_events_are_read(tmp_path):
    path = write(tmp_path / "a.nwb", change={1: {"choice_time": NAN}})
    assert "dopamine" not in read_nwb(path)
    table = read_nwb(str(path), series="dlight", event="choice_time", photometry=SETTINGS)
    np.testing.assert_allclose(table["dopamine"], [1, NAN, 3, 4])


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        ({}, {"series": "dligt"}, "one time series 'dligt', got 0; .* did you mean 'dlight'"),
        (
            {},
            {"event": "choice_tim"},
            "expected a column 'choice_tim'.* did you mean 'choice_time'",
        ),
        ({}, {"event": "note"}, "column 'note': expected seconds, got 'n0' in row 0"),
        ({}, {"channel": 1}, "expected channel 0 or None .it has one., got 1"),
        ({"dlight": np.ones((1200, 3))}, {}, "expected a channel from 0 to 2, got None"),
        ({"dlight": np.ones((1200, 3))}, {"channel": 3}, "expected a channel from 0 to 2, got 3"),
        ({"dlight": np.full(1200, NAN)}, {}, "signal: expected a value in some sample"),
        ({"subject": None}, {}, "expected a subject id .* got none; add a column 'subject'"),
        ({"trials": 0}, {}, r"expected a trials table \(nwbfile.trials\), got none"),
        (
            {"change": {trial: {"choice_time": 1e6 + trial} for trial in range(4)}},
            {},
            "events: expected times on the recording, which goes from 100 to 159.95 s",
        ),
        (
            {"change": {2: {"choice_time": 3.0}}},
            {},
            "rising times in a session, got 3 after 120 in",
        ),
        (
            {"control": signal()[:600]},
            {"control": "control"},
            "expected the times of 'dlight' .*, got 600 sam",
        ),
    ],
)
def test_bad_nwb_contents_are_refused(tmp_path, made, asked, message):
    path = write(tmp_path / "bad.nwb", **made)
    arguments = {"series": "dlight", "event": "choice_time", **asked}
    with pytest.raises(ValueError, match=f"bad.nwb: .*{message}"):
        read_nwb(path, **arguments)


def test_bad_nwb_files_are_refused(tmp_path):
    path = write(tmp_path / "whole.nwb")
    half = tmp_path / "half.nwb"
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    text = tmp_path / "text.nwb"
    text.write_text("subject,session\n")
    for broken in (half, text):
        with pytest.raises(ValueError, match=f"{broken.name}: expected an NWB file, .* cut short"):
            read_nwb(broken)
    with pytest.raises(FileNotFoundError, match="got no such file; did you mean 'whole.nwb'"):
        read_nwb(tmp_path / "hole.nwb")
    for arguments, message in (
        ({"series": "dlight"}, "series and event: expected both or none"),
        ({"control": "control"}, "control: expected None without series"),
    ):
        with pytest.raises(ValueError, match=message):
            read_nwb(path, **arguments)
    with pytest.raises(ValueError, match="at least one file, got none"):
        read_nwb([])


def test_missing_pynwb_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(ImportError, match=r"package pynwb, got none; .*'keras-disrnn\[nwb\]'"):
        read_nwb("a.nwb")


def test_the_table_equals_the_one_in_the_file(tmp_path):
    path = write(tmp_path / "a.nwb")
    with pynwb.NWBHDF5IO(str(path), "r") as reader:
        own = reader.read().trials.to_dataframe().reset_index(drop=True)
    pd.testing.assert_frame_equal(read_nwb(path)[own.columns.tolist()], own)


@pytest.mark.parametrize("series", [None, "dlight"])
def test_trials_whose_start_times_fall_are_refused(tmp_path, series):
    swapped = {2: {"start_time": EVENTS[1] - 4}}
    path = write(tmp_path / "a.nwb", change=swapped)
    message = r"a.nwb: .*'start_time': .* got 116 after 118 in row 2 .session 'm1-01'."
    with pytest.raises(ValueError, match=message):
        read_nwb(path, series=series, event=series and "choice_time", photometry=SETTINGS)
    path = write(tmp_path / "b.nwb", change={1: {"start_time": NAN}})
    with pytest.raises(ValueError, match="'start_time': .* finite number, got nan in row 1"):
        read_nwb(path)


@pytest.mark.parametrize(("subject", "session"), [("m1", "1"), ("m2", "1"), ("m1", "1 ")])
def test_two_files_with_one_session_id_are_refused(tmp_path, subject, session):
    paths = [
        write(tmp_path / "a.nwb", session="1"),
        write(tmp_path / "b.nwb", subject=subject, session=session),
    ]
    with pytest.raises(ValueError, match="b.nwb: expected a session id of its own, .*a.nwb has"):
        read_nwb(paths)
    with pytest.raises(ValueError, match="expected a session id of its own"):
        read_nwb([paths[0], paths[0]])
    named = pd.concat([read_nwb(path).assign(session=path.name) for path in paths])
    assert sessions_from_table(named).trials_per_session.tolist() == [4, 4]


def test_ids_of_nwb_files_are_text(tmp_path):
    path = write(tmp_path / "a.nwb", trials=0)
    with pynwb.NWBHDF5IO(str(path), "r+") as file:
        contents = file.read()
        contents.add_trial_column("session", "the day")
        for trial, day in enumerate((20240101, 20240101, 20240102)):
            contents.add_trial(start_time=trial * 1.0, stop_time=trial + 0.5, session=day)
        file.write(contents)
    assert read_nwb(path)["session"].tolist() == ["20240101", "20240101", "20240102"]
