"""Conversion of tables with one row per event or per sample to tables of trials."""

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.data import (
    Columns,
    EventSettings,
    Photometry,
    Recording,
    events_from_samples,
    photometry_responses,
    sessions_from_table,
    trials_from_events,
    write_trials,
)

NAN = np.nan
SETTINGS = EventSettings(arms={"left": 0, "right": 1})
BY_VALUE = EventSettings(arms={"left": 0, "right": 1}, choice="press", value="side")


def event_table(**columns):
    """Make sessions of three and two trials. The last trial of the first session is missed."""
    names = [
        *("trial_start", "left", "reward", "trial_start", "lick", "right", "left"),
        "trial_start",
        *("trial_start", "right", "trial_start", "right", "reward"),
    ]
    times = [0, 1, 1.5, 5, 5.2, 6, 6.5, 10, 0, 2, 5, 7, 8]
    table = {
        "subject": ["m1"] * 8 + ["m2"] * 5,
        "session": ["m1-01"] * 8 + ["m2-01"] * 5,
        "time": [float(time) for time in times],
        "event": names,
    }
    return pd.DataFrame({**table, **columns})


def by_value():
    """Make the same events with one name for all choices, and a column of sides and amounts."""
    table = event_table()
    choices = table["event"].isin(["left", "right"])
    table["side"] = table["event"].where(choices)
    table["event"] = table["event"].mask(choices, "press")
    return table


def test_every_value_of_the_trials(tmp_path):
    trials = trials_from_events(event_table(), SETTINGS)
    assert list(trials.columns) == [
        "subject",
        "session",
        "trial",
        "choice",
        "reward",
        "missed",
        "start_time",
        "choice_time",
        "reward_time",
    ]
    assert trials["subject"].tolist() == ["m1"] * 3 + ["m2"] * 2
    assert trials["session"].tolist() == ["m1-01"] * 3 + ["m2-01"] * 2
    assert trials["trial"].tolist() == [0, 1, 2, 0, 1]
    # The first choice of the second trial counts.
    np.testing.assert_array_equal(trials["choice"], [0, 1, NAN, 1, 1])
    np.testing.assert_array_equal(trials["reward"], [1, 0, NAN, 0, 1])
    assert trials["missed"].tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(trials["start_time"], [0, 5, 10, 0, 5])
    np.testing.assert_array_equal(trials["choice_time"], [1, 6, NAN, 2, 7])
    np.testing.assert_array_equal(trials["reward_time"], [1.5, NAN, NAN, NAN, 8])
    sessions = sessions_from_table(trials, Columns(missed="missed", trial="trial"))
    assert (sessions.num_sessions, sessions.num_trials) == (2, 5)
    # A file gives the same table.
    event_table().to_csv(tmp_path / "events.csv", index=False)
    pd.testing.assert_frame_equal(trials_from_events(tmp_path / "events.csv", SETTINGS), trials)


def test_the_side_of_a_choice_can_be_a_value():
    expected = trials_from_events(event_table(), SETTINGS)
    pd.testing.assert_frame_equal(trials_from_events(by_value(), BY_VALUE), expected)
    numbers = by_value()
    numbers["side"] = numbers["side"].map({"left": 1.0, "right": 2.0})
    settings = EventSettings(arms={"1": 0, "2": 1}, choice="press", value="side")
    pd.testing.assert_frame_equal(trials_from_events(numbers, settings), expected)


def test_amounts_forced_missed_and_other_events_are_read():
    table = event_table(value=np.where(event_table()["event"] == "reward", 0.5, NAN))
    table.loc[[4, 7], "event"] = ["forced", "trial_start"]
    omitted = pd.DataFrame(
        {"subject": "m1", "session": "m1-01", "time": [12.0], "event": "omission"}
    )
    table = pd.concat([table.iloc[:8], omitted, table.iloc[8:]], ignore_index=True)
    settings = EventSettings(
        arms={"left": 0, "right": 1},
        amounts=True,
        value="value",
        forced="forced",
        missed="omission",
    )
    trials = trials_from_events(table, settings)
    np.testing.assert_array_equal(trials["reward"], [0.5, 0, NAN, 0, 0.5])
    assert trials["forced"].tolist() == [False, True, False, False, False]
    others = EventSettings(arms={"left": 0, "right": 1}, others=["omission"])
    np.testing.assert_array_equal(
        trials_from_events(table, others)["omission_time"], [NAN, NAN, 12, NAN, NAN]
    )
    table.loc[4, "event"] = "omission"
    both = EventSettings(arms={"left": 0, "right": 1}, missed="omission")
    with pytest.raises(ValueError, match="either a choice or the event 'omission'.* in row 3"):
        trials_from_events(table, both)


def test_a_table_without_a_subject_is_read():
    table = event_table().drop(columns="subject")
    settings = EventSettings(arms={"left": 0, "right": 1}, subject=None)
    assert set(trials_from_events(table, settings)["subject"]) == {"unnamed"}


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        (
            {},
            {"event": "evnt"},
            "EventSettings.event: expected a column 'evnt', .* did you mean 'event'",
        ),
        (
            {},
            {"reward": "rewrd"},
            "expected an event 'rewrd', got 'trial_start', .* did you mean 'reward'",
        ),
        ({}, {"arms": {"left": 0, "rigth": 1}}, "expected an event 'rigth'.* did you mean 'right'"),
        ({"time": list("abcdefghijklm")}, {}, "'time'.* expected numbers, got 'a' in row 0"),
        (
            {"time": [0, NAN] + [5.0] * 11},
            {},
            "'time'.* expected a finite number, got nan in row 1",
        ),
        (
            {"time": [0, 2, 1] + [5.0] * 10},
            {},
            "'time'.* do not fall within a session, got 1 after 2 in row 2 .session 'm1-01'",
        ),
        (
            {"time": [0, 1, 2, 5, 5, 6, 6, 10, 0, 2, 5, 7, 8]},
            {},
            "expected one choice at a time, got 'left' in row 6",
        ),
        (
            {"subject": ["m1"] * 7 + ["m2"] * 6},
            {},
            "one subject in a session, got 'm1' and, in row 7, 'm2'",
        ),
        ({"session": list("aababbbbccccc")}, {"subject": None}, "together, got session 'a' again"),
        ({"event": [None] * 13}, {}, "'event'.* expected a value in every row"),
    ],
)
def test_bad_events_are_refused(changes, settings, message):
    settings = EventSettings(**{"arms": {"left": 0, "right": 1}, **settings})
    with pytest.raises(ValueError, match=f"(^events: .*|^){message}"):
        trials_from_events(event_table(**changes), settings)


@pytest.mark.parametrize(
    ("row", "name", "message"),
    [
        (8, "left", "expected the first trial of the session before .* got 'left' in row 8"),
        (0, "reward", "expected the first trial of the session before .* got 'reward' in row 0"),
        (5, "lick", "expected a reward only in trials with a choice, got 'reward' in row 6"),
    ],
)
def test_contradictory_events_are_refused(row, name, message):
    table = event_table()
    table.loc[row, "event"] = name
    if row == 5:
        table.loc[6, "event"] = "reward"
    with pytest.raises(ValueError, match=f"^events: .*{message}"):
        trials_from_events(table, SETTINGS)


def test_an_unknown_side_is_named():
    table = by_value()
    table.loc[1, "side"] = "middle"
    with pytest.raises(ValueError, match="one of left, right .* got 'middle' in row 1; name it"):
        trials_from_events(table, BY_VALUE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": {"left": 0}}, "EventSettings.arms: expected at least 2 arms"),
        ({"choice": "press"}, "EventSettings.value: expected a column"),
        ({"amounts": True}, "EventSettings.value: expected a column"),
        ({"reward": "left"}, "expected one role per event, got 'left' twice"),
        ({"time": "event"}, "expected one role per column, got 'event' as both time and event"),
        ({"session": None}, "EventSettings.session: expected the name of a column, got None"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EventSettings(**{"arms": {"left": 0, "right": 1}, **settings})


def test_other_objects_than_tables_of_events_are_refused():
    with pytest.raises(TypeError, match=r"events: expected a pandas.DataFrame or the path"):
        trials_from_events([1], SETTINGS)
    with pytest.raises(FileNotFoundError, match="absent.csv: expected a file, got no such file"):
        trials_from_events("absent.csv", SETTINGS)


def test_trials_are_written_to_a_file(tmp_path):
    event_table().to_csv(tmp_path / "events.csv", index=False)
    out = tmp_path / "trials.csv"
    table = write_trials(tmp_path / "events.csv", out, SETTINGS)
    pd.testing.assert_frame_equal(pd.read_csv(out), table)
    with pytest.raises(FileExistsError, match="expected a new file"):
        write_trials(tmp_path / "events.csv", out, SETTINGS)
    with pytest.raises(ValueError, match="expected a name that ends in .csv, got 'trials.txt'"):
        write_trials(tmp_path / "events.csv", tmp_path / "trials.txt", SETTINGS)


# === One row per sample ===


def sample_table(trials=3, gap=60):
    """Make two sessions at 15 Hz. A trial takes 4 s, with a press 1 s after its start.

    The signal is 2 for a second after a rewarded press, 0.5 after another press, else 0. The last
    trial of the first session is missed.
    """
    parts = []
    for session in (1, 2):
        part = pd.DataFrame(0.0, index=range(gap * trials + 15), columns=["signal"])
        for name in ("trial_start", "poke_in", "ipsi_press", "contra_press", "reward", "high"):
            part[name] = 0
        for trial in range(trials):
            start = 15 + gap * trial
            part.loc[start, "trial_start"] = 1
            if session == 1 and trial == trials - 1:
                continue
            press, rewarded = start + 15, trial % 2 == 0
            lever = "contra_press" if trial else "ipsi_press"
            part.loc[press : press + 2, lever] = 1  # Three rows of 1 are one press.
            part.loc[press + 1 : press + 2, "reward"] = int(rewarded)
            part.loc[press : press + 15, "signal"] = 2.0 if rewarded else 0.5
        part.insert(0, "site", 7)
        part.insert(1, "session", session)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


PRESSES = EventSettings(arms={"ipsi_press": 0, "contra_press": 1})


def events_of(samples):
    return events_from_samples(samples, PRESSES.event_names, rate=15, subject="site")


def test_samples_become_events_and_trials():
    samples = sample_table()
    trials = trials_from_events(events_of(samples), PRESSES)
    assert trials["subject"].tolist() == ["7"] * 6
    assert trials["session"].tolist() == ["1"] * 3 + ["2"] * 3
    assert trials["trial"].tolist() == [0, 1, 2] * 2
    assert trials["missed"].tolist() == [False, False, True, False, False, False]
    np.testing.assert_array_equal(trials["choice"], [0, 1, NAN, 0, 1, 1])
    np.testing.assert_array_equal(trials["reward"], [1, 0, NAN, 1, 0, 1])
    np.testing.assert_allclose(trials["choice_time"], [2, 6, NAN, 2, 6, 10])
    recordings = {
        str(name): Recording(np.arange(len(rows)) / 15, rows["signal"])
        for name, rows in samples.groupby("session")
    }
    settings = Photometry(window=(0.0, 1.0), baseline=(-0.5, -0.1), step=1 / 15)
    trials["dopamine"] = photometry_responses(
        trials, recordings, event="choice_time", settings=settings
    )
    np.testing.assert_allclose(trials["dopamine"], [2, 0.5, NAN, 2, 0.5, 2], atol=1e-9)
    columns = Columns(dopamine="dopamine", missed="missed", trial="trial")
    assert sessions_from_table(trials, columns).num_trials == 6


def test_the_first_press_of_a_trial_is_its_choice():
    samples = sample_table()
    samples.loc[40:42, "contra_press"] = 1  # The first trial has an ipsi press in row 30.
    trials = trials_from_events(events_of(samples), PRESSES)
    assert (trials["choice"][0], trials["choice_time"][0]) == (0, 2)


def test_an_event_may_begin_in_the_first_row_of_a_session():
    samples = pd.DataFrame({"session": ["a", "a", "b", "b"], "lick": [0, 1, 1, 1]})
    events = events_from_samples(samples, ["lick"], rate=10, subject=None)
    assert events["session"].tolist() == ["a", "b"]
    assert events["time"].tolist() == [0.1, 0.0]


@pytest.mark.parametrize(
    ("rows", "column", "value", "message"),
    [
        (slice(None), "trial_start", 0, "events: .*expected an event 'trial_start'"),
        (30, "contra_press", 1, "events: .*one choice at a time, got '.*_press' in row"),
        (3, "ipsi_press", 1, "events: .*the first trial of the session before .* in row 0"),
        (150, "reward", 1, "events: .*a reward only in trials with a choice"),
        (40, "reward", 3, "samples: column 'reward' .*: expected 0 or 1 .* got 3 in row 40"),
    ],
)
def test_bad_samples_are_refused(rows, column, value, message):
    samples = sample_table().astype({column: float})
    samples.loc[rows, column] = value
    with pytest.raises(ValueError, match=f"^{message}"):
        trials_from_events(events_of(samples), PRESSES)


def test_bad_arguments_of_samples_are_refused():
    with pytest.raises(ValueError, match="rate: expected a number above 0, got 0"):
        events_from_samples(sample_table(), ["reward"], rate=0, subject="site")
    with pytest.raises(ValueError, match="expected a column 'rewards'.* did you mean 'reward'"):
        events_from_samples(sample_table(), ["rewards"], rate=15, subject="site")
