"""Photometry: known signals through each step, bad recordings, and a real session."""

import json

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.data import (
    Photometry,
    Recording,
    align,
    find_artefacts,
    fit_control,
    photometry_responses,
    preprocess,
    response,
    zscore,
)
from keras_disrnn.plots import plot_event_average

NAN = np.nan
TIMES = np.arange(0, 60, 0.01)
EVENTS = np.array([5.0, 15.0, 25.0, 35.0, 45.0])


def bumps(sizes, width=0.5):
    """Make a signal with a box of the given size for `width` seconds after each event."""
    signal = np.zeros(len(TIMES))
    for event, size in zip(EVENTS, sizes, strict=True):
        signal[(event - 1e-9 <= TIMES) & (event + width > TIMES)] = size
    return signal


# === Alignment ===


def test_align_interpolates_linearly():
    recording = Recording([0, 1, 2, 3], [0, 10, 20, 0])
    offsets, values = align(recording, [1.0, 1.5, NAN], (-0.5, 1.0), step=0.5, max_gap=2)
    np.testing.assert_allclose(offsets, [-0.5, 0, 0.5])
    np.testing.assert_allclose(values, [[5, 10, 15], [10, 15, 20], [NAN] * 3])


def test_values_outside_the_recording_or_in_gaps_are_nan():
    times = np.array([0, 0.1, 0.2, 0.3, 0.4, 2.0, 2.1, 2.2])
    signal = np.array([1, 1, NAN, 1, 1, 1, 1, 1.0])
    events = [-0.05, 0.05, 0.15, 0.25, 0.35, 1.0, 2.05, 2.3, 2.2]
    _, values = align(Recording(times, signal), events, (0, 0.1), step=0.1)
    np.testing.assert_array_equal(
        values[:, 0], [NAN, 1, NAN, NAN, 1, NAN, 1, NAN, 1], err_msg="one value per event"
    )


def test_a_response_is_a_mean_minus_a_baseline():
    recording = Recording(TIMES, bumps([1, 2, 3, 4, 5]) + 7)
    settings = Photometry(window=(0.0, 0.45), baseline=(-0.5, -0.1))
    np.testing.assert_allclose(response(recording, EVENTS, settings), [1, 2, 3, 4, 5])
    alone = Photometry(window=(0.0, 0.45), baseline=None)
    np.testing.assert_allclose(response(recording, EVENTS, alone), [8, 9, 10, 11, 12])
    # One end of each window is outside the recording.
    edges = response(recording, [0.2, 5.0, 59.8], settings)
    np.testing.assert_allclose(edges, [NAN, 1, NAN])


def test_float32_clocks_keep_their_digits():
    times = (1e4 + TIMES).astype(np.float32)
    recording = Recording(times, np.ones(len(times), np.float32))
    assert recording.times.dtype == recording.signal.dtype == np.float64


# === Preprocessing ===


def test_the_control_removes_movement_and_bleaching(rng):
    bleaching = 5 * np.exp(-TIMES / 30)
    movement = np.convolve(rng.normal(size=len(TIMES)), np.ones(200) / 200, "same")
    control = 2 + bleaching + movement
    base = 3 + 2 * control
    sensor = bumps([0.1, 0.2, 0.3, 0.2, 0.1])
    recording = Recording(TIMES, base * (1 + sensor), control=control)
    # The bumps shift the fitted line a little.
    np.testing.assert_allclose(fit_control(recording), base, rtol=0.02)
    settings = Photometry(reference="control", window=(0.0, 0.45), baseline=(-0.5, -0.1))
    done = preprocess(recording, settings)
    assert done.control is None
    found = response(done, EVENTS, settings)
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3, 0.2, 0.1], atol=0.006)
    # Without the correction the movement is in the responses.
    raw = preprocess(recording, Photometry(reference="median"))
    assert np.abs(response(raw, EVENTS, settings) - [0.1, 0.2, 0.3, 0.2, 0.1]).max() > 0.02


def test_slow_and_median_references_give_df_over_f():
    drift = 10 + 0.02 * TIMES
    recording = Recording(TIMES, drift * (1 + bumps([0.5] * 5)))
    settings = Photometry(reference="median", window=(0.0, 0.45), baseline=(-0.5, -0.1))
    found = response(preprocess(recording, settings), EVENTS, settings)
    median = np.median(recording.signal)
    np.testing.assert_allclose(found, 0.5 * (10 + 0.02 * EVENTS) / median, atol=0.01)
    slow = Photometry(reference="slow", slow_hz=0.02, window=(0.0, 0.45), baseline=(-0.5, -0.1))
    found = response(preprocess(recording, slow), EVENTS, slow)
    np.testing.assert_allclose(found, 0.5, atol=0.03)


def test_detrend_and_highpass_remove_slow_changes():
    recording = Recording(TIMES, 3 + 0.5 * TIMES)
    flat = preprocess(recording, Photometry(detrend=True)).signal
    np.testing.assert_allclose(flat, 0, atol=1e-9)
    slow, fast = np.sin(2 * np.pi * 0.02 * TIMES), np.sin(2 * np.pi * 5 * TIMES)
    kept = preprocess(Recording(TIMES, slow + fast), Photometry(highpass_hz=0.5)).signal
    middle = slice(500, -500)
    np.testing.assert_allclose(kept[middle], fast[middle], atol=0.01)


def test_missing_samples_stay_missing_after_a_filter():
    signal = np.sin(TIMES)
    signal[1000:1010] = NAN
    done = preprocess(Recording(TIMES, signal), Photometry(highpass_hz=0.05, detrend=True))
    assert np.flatnonzero(np.isnan(done.signal)).tolist() == list(range(1000, 1010))


# === Responses ===


def test_zscore_uses_only_the_training_sessions(rng):
    sessions = np.repeat(["a", "b", "c"], 50)
    values = rng.normal(2, 3, 150)
    values[3] = NAN
    scored = zscore(values, sessions, training=["a", "b"])
    training = scored[:100][np.isfinite(scored[:100])]
    assert training.mean() == pytest.approx(0)
    assert training.std(ddof=1) == pytest.approx(1)
    assert np.isnan(scored[3])
    # The values of the held-out session do not change the others.
    other = np.where(sessions == "c", 1000.0, values)
    np.testing.assert_array_equal(zscore(other, sessions, training=["a", "b"])[:100], scored[:100])


def test_zscore_can_use_each_subject_separately(rng):
    subjects = np.repeat(["m1", "m2"], 40)
    sessions = np.repeat(["a", "b", "c", "d"], 20)
    values = np.where(subjects == "m1", 1.0, 100.0) * rng.normal(5, 1, 80)
    scored = zscore(values, sessions, training=["a", "c"], by=subjects)
    for session in ("a", "c"):
        assert scored[sessions == session].mean() == pytest.approx(0)
    with pytest.raises(ValueError, match="training responses of 'm2' .* add a session of 'm2'"):
        zscore(values, sessions, training=["a", "b"], by=subjects)
    with pytest.raises(ValueError, match="training: expected sessions of these responses, got 'e'"):
        zscore(values, sessions, training=["e"])
    with pytest.raises(ValueError, match="sessions: expected an entry for each of the 80 values"):
        zscore(values, sessions[:3], training=["a"])


def test_artefacts_are_named(rng):
    sessions = np.repeat(list("abcdef"), 100)
    values = rng.normal(size=(600, 3))
    values[100:200] *= 4
    values[200:300] *= 0.01
    values[300:380] = NAN
    reasons = find_artefacts(values, sessions)
    assert list(reasons) == ["b", "c", "d"]
    assert "standard deviation 4" in reasons["b"]
    assert reasons["d"] == "80% of the signal is missing"
    assert find_artefacts(values[400:, 0], sessions[400:]) == {}
    with pytest.raises(ValueError, match="one session per event, got shapes"):
        find_artefacts(values, sessions[:5])


# === Tables ===


def trial_table():
    return pd.DataFrame({"session": ["a"] * 3 + ["b"] * 2 + ["c"], "time": [5, NAN, 25, 5, 15, 3]})


def test_responses_are_in_the_rows_of_the_table():
    recordings = {
        "a": Recording(TIMES, bumps([1, 2, 3, 4, 5])),
        "b": Recording(TIMES, bumps([6, 7, 8, 9, 10])),
        "c": None,
    }
    settings = Photometry(window=(0.0, 0.45))
    found = photometry_responses(trial_table(), recordings, event="time", settings=settings)
    np.testing.assert_allclose(found, [1, NAN, 3, 6, 7, NAN])


# === Bad recordings ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1, 2], [1, 2]), "signal: expected a value for each of the 3 times, got 2"),
        (([0, 1, 2], [1, 2, 3], [1]), "control: expected a value for each of the 3 times, got 1"),
        (
            ([0, 0.2, 0.1], [1, 2, 3]),
            "times: expected rising numbers, got 0.1 after 0.2 in sample 2; sort",
        ),
        (([0, 0.1, 0.1], [1, 2, 3]), "got 0.1 after 0.1 in sample 2; sort the samples, or cut"),
        (([0, NAN, 1], [1, 2, 3]), "times: expected finite numbers, got nan in sample 1; leave"),
        ((np.arange(5) * 7.7, np.ones(5)), "seem to be in milliseconds .divide by 1000."),
        ((np.arange(5) * 1e-9, np.ones(5)), "they seem to be in another unit"),
        (([0], [1]), "times: expected at least 2 samples, got 1"),
        (([0, 1], [NAN, NAN]), "signal: expected a value in some sample, got NaN in all 2; pass"),
        (([0, 1], [1, np.inf]), "signal: expected finite numbers.* got inf in sample 1 .1 s."),
        (([0, 1], ["a", "b"]), "signal: expected an array of numbers, got list"),
        (([0, 1], [1j, 2]), "signal: expected an array of numbers"),
        (([0, 1], [[1, 2], [3, 4]]), r"shape \(samples,\), got \(2, 2\); pick one channel"),
        ((pd.date_range("2024", periods=3), [1, 2, 3]), "times: expected an array of numbers"),
    ],
)
def test_bad_recordings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^m1-01: .*{message}"):
        Recording(*arguments[:2], control=(*arguments, None)[2], name="m1-01")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": (1, 0)}, "window: expected two numbers of seconds, the first below"),
        ({"window": 0.5}, "window: expected two numbers of seconds.* got 0.5"),
        ({"baseline": (0, NAN)}, "baseline: expected two numbers of seconds"),
        ({"window": (0, 1e9)}, "window: expected at most a million instants"),
        ({"step": 0}, "step: expected a number above 0, got 0"),
        ({"highpass_hz": "1"}, "highpass_hz: expected a number above 0, got '1'"),
        ({"max_gap": True}, "max_gap: expected a number above 0, got True"),
        ({"reference": "isosbestic"}, "reference: expected None or one of .* got 'isosbestic'"),
        ({"detrend": "linear"}, "detrend: expected True or False, got 'linear'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^Photometry.{message}"):
        Photometry(**settings)


@pytest.mark.parametrize(
    ("recording", "settings", "message"),
    [
        (
            Recording(TIMES, np.ones(6000)),
            {"reference": "control"},
            "control: expected the isosbestic channel, got None",
        ),
        (
            Recording(TIMES, np.ones(6000), control=np.ones(6000)),
            {"reference": "control"},
            "control: expected values that vary",
        ),
        (
            Recording(TIMES, np.sin(TIMES)),
            {"reference": "slow"},
            r"F0 \(slow\): expected values above 0.* reference=None if the signal is dF/F",
        ),
        (
            Recording(TIMES, TIMES),
            {"highpass_hz": 60},
            "highpass: expected a corner below half the sampling rate .50 Hz., got",
        ),
    ],
)
def test_bad_preprocessing_is_refused(recording, settings, message):
    with pytest.raises(ValueError, match=f"^recording: .*{message}"):
        preprocess(recording, Photometry(**settings))


A = Recording(TIMES, np.sin(TIMES))


@pytest.mark.parametrize(
    ("table", "recordings", "message"),
    [
        ({}, {"a": A, "b": A}, "recordings: expected one for session 'c', got none; pass None"),
        (
            {},
            {"a": A, "b": A, "c": A, "d": A},
            "expected sessions of the table's column 'session', got 'd'",
        ),
        ({}, {"a": A, "b": A, "c": A.signal}, "a Recording or None for session 'c', got ndarray"),
        (
            {"time": [5, 4, 3, 5, 6, 7]},
            {},
            r"expected rising times in a session, got 4 after 5 in row 1",
        ),
        ({"time": ["5", "x", "7", "5", "6", "7"]}, {}, "expected seconds, got 'x' in row 1"),
        (
            {"time": np.arange(6) * 1e5 + 500},
            {},
            "session 'a': events: expected times on the recording",
        ),
    ],
)
def test_bad_tables_of_events_are_refused(table, recordings, message):
    recordings = recordings or {"a": A, "b": A, "c": A}
    with pytest.raises(ValueError, match=message):
        photometry_responses(trial_table().assign(**table), recordings, event="time")


def test_absent_columns_of_events_are_named():
    with pytest.raises(ValueError, match="expected a column 'tim', .* did you mean 'time'"):
        photometry_responses(trial_table(), {}, event="tim")
    with pytest.raises(ValueError, match="events: expected numbers of seconds"):
        align(A, ["five"], (0, 1))
    with pytest.raises(ValueError, match=r"events: expected shape \(events,\)"):
        align(A, [[1.0]], (0, 1))


# === A real session ===


@pytest.fixture
def example(shared):
    """Read a recorded session, its rows of the table of trials, and their windows."""
    folder = shared / "data" / "dlight_bandit"
    session = json.loads((folder / "example_session" / "session_info.json").read_text())
    table = pd.read_csv(folder / "trials.csv.gz")
    here = (table["session_id"] == session["session_id"]).to_numpy()
    recording = Recording(
        np.load(folder / "example_session" / "dlight.times.npy"),
        np.load(folder / "example_session" / "dlight.signal.npy"),
    )
    windows = np.load(folder / "windows.npz")
    return recording, table[here], windows["dlight"][here], windows["t_rel_choice"]


@pytest.mark.parametrize(
    ("column", "window", "baseline"),
    [
        ("dlight_post", (0.7, 1.2), None),
        ("dlight_base", (0.3, 0.5), None),
        ("dlight_response", (0.7, 1.2), (0.3, 0.5)),
    ],
)
def test_agrees_with_the_example_session(example, column, window, baseline):
    recording, trials, _, _ = example
    found = response(
        recording, trials["times.choice"], Photometry(window=window, baseline=baseline)
    )
    # The table is rounded to five digits.
    np.testing.assert_allclose(found, trials[column], rtol=0, atol=1e-5)


def test_agrees_with_the_example_windows(example):
    recording, trials, windows, offsets = example
    found_offsets, found = align(recording, trials["times.choice"], (-1, 4))
    np.testing.assert_allclose(found_offsets, offsets, atol=1e-6)
    # float16 has 11 bits.
    np.testing.assert_allclose(found, windows.astype(float), rtol=2**-11, atol=1e-4)


def test_the_known_artefacts_are_named(shared):
    folder = shared / "data" / "dlight_bandit"
    table = pd.read_csv(folder / "trials.csv.gz")
    windows = np.load(folder / "windows.npz")["dlight"]
    names = list(find_artefacts(windows, table["session_id"]))
    days = table.groupby("session_id")["day"].first()
    subjects = table.groupby("session_id")["subject"].first()
    assert [(subjects[n], days[n]) for n in names] == [("05_C1T4_R", 3), ("08_C2T1_R", 2)]


# === Figure ===


def test_event_average_draws_the_means():
    offsets = np.array([-1.0, 0.0, 1.0])
    values = np.array([[0, 1, 2], [0, 3, NAN], [0, -1, -1], [0, -3, -1.0]])
    figure = plot_event_average(offsets, values, [1, 1, 0, 0], value=[0.1, 0.9, 0.1, NAN])
    left, right = figure.axes
    means = {line.get_label(): line.get_ydata() for line in left.lines}
    np.testing.assert_allclose(means["rewarded (2)"], [0, 2, 2])
    np.testing.assert_allclose(means["unrewarded (2)"], [0, -2, -1])
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert "high value, rewarded (1)" in labels
    assert not any("high value, unrewarded" in label for label in labels)
    assert left.get_xlabel() == "seconds after the event"
    assert len(plot_event_average(offsets, values, [1, 1, 0, 0]).axes) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], np.ones((2, 3)), [1, 0]), r"values: expected shape \(2, 2\), got \(2, 3\)"),
        (([0], np.ones((2, 1)), [1, 0], [1]), r"value: expected shape \(2,\), got \(1,\)"),
        (([0], np.ones((2, 1)), [NAN, NAN]), "reward: expected a number in some trial, got none"),
    ],
)
def test_bad_event_averages_are_refused(arguments, message):
    offsets, values, reward, *value = arguments
    with pytest.raises(ValueError, match=message):
        plot_event_average(offsets, values, reward, value=value[0] if value else None)


# === Slow recordings, gaps of the clock, and controls ===


@pytest.mark.parametrize("rate", [3.99, 3, 2, 1.5])
def test_a_max_gap_below_the_step_between_samples_is_refused(rate):
    times = np.arange(0, 60, 1 / rate)
    table = pd.DataFrame({"session": ["s"] * 5, "at": EVENTS})
    recordings = {"s": Recording(times, np.sin(times))}
    message = r"session 's': max_gap: expected at least .* got 0.25 s, .* pass max_gap="
    with pytest.raises(ValueError, match=message):
        photometry_responses(table, recordings, event="at")
    wide = Photometry(max_gap=2 / rate)
    assert np.isfinite(photometry_responses(table, recordings, event="at", settings=wide)).all()


def test_a_clock_that_jitters_around_max_gap_is_refused(rng):
    times = np.cumsum(rng.uniform(0.2, 0.32, 200))
    with pytest.raises(ValueError, match="max_gap: expected .* of the signal a gap; pass max_gap="):
        align(Recording(times, np.ones(200)), [20.0], (0, 1))


def test_a_session_without_any_response_is_named():
    signal = np.where((TIMES > 4) & (TIMES < 46), NAN, 1.0)
    table = pd.DataFrame({"session": ["s"] * 5, "at": EVENTS})
    with pytest.warns(UserWarning, match="session 's': .* got NaN in all 5 with the event 'at'"):
        found = photometry_responses(table, {"s": Recording(TIMES, signal)}, event="at")
    assert np.isnan(found).all()


@pytest.mark.parametrize(
    "how", [{"reference": "slow"}, {"highpass_hz": 0.05}, {"detrend": True}, {"reference": None}]
)
def test_rows_left_out_are_filtered_as_missing_samples(how):
    times = np.arange(0, 1200, 0.05)
    events = np.r_[np.arange(10, 390, 10.0), np.arange(802, 1190, 10.0)]
    bumps = sum(0.05 * np.exp(-(((times - event - 0.5) / 0.3) ** 2)) for event in events)
    signal = (1 + 0.5 * np.exp(-times / 300)) * (1 + bumps)
    gap = (times > 400) & (times < 800)
    control = 1 + 0.2 * np.exp(-times / 300)
    settings = Photometry(**how)
    missing = preprocess(Recording(times, np.where(gap, NAN, signal), control=control), settings)
    cut = preprocess(Recording(times[~gap], signal[~gap], control=control[~gap]), settings)
    np.testing.assert_array_equal(cut.times, times[~gap])
    np.testing.assert_allclose(cut.signal, missing.signal[~gap], atol=1e-12)


def test_a_gap_of_many_recordings_is_refused():
    times = np.append(np.arange(0, 10, 0.1), 1e9)
    with pytest.raises(ValueError, match=r"times: .* got 1e\+09 s without samples after 9.9 s"):
        preprocess(Recording(times, np.ones(101)), Photometry(detrend=True))
    # Without a filter, nothing bridges the gap.
    assert len(preprocess(Recording(times, np.ones(101)), Photometry()).signal) == 101


def test_a_control_that_runs_against_the_signal_is_named(rng):
    bleaching = 1 + 0.5 * np.exp(-TIMES / 30)
    mirror = 2 - bleaching + 0.001 * rng.normal(size=len(TIMES))
    recording = Recording(TIMES, bleaching, control=mirror, name="m1-01")
    with pytest.warns(UserWarning, match="m1-01: control: .* slope -1 .correlation -1.00.; check"):
        preprocess(recording, Photometry(reference="control"))


def test_masked_samples_are_missing_and_complex_ones_refused():
    signal = np.ma.masked_equal([1.0, -999.0, 2.0], -999.0)
    recording = Recording([0, 1, 2], signal, control=signal)
    np.testing.assert_array_equal(recording.signal, [1, NAN, 2])
    np.testing.assert_array_equal(recording.control, [1, NAN, 2])
    for odd in (np.array([1, 2, 3j]), np.array([1, "2", 3], object), ["1", "2", "3"]):
        with pytest.raises(ValueError, match="signal: expected an array of numbers"):
            Recording([0, 1, 2], odd)
        with pytest.raises(ValueError, match="events: expected numbers of seconds"):
            align(recording, odd, (0, 1), max_gap=2)
        for function in (find_artefacts, lambda v, s: zscore(v, s, training=["a"])):
            with pytest.raises(ValueError, match="values: expected numbers, got .* convert them"):
                function(odd, ["a", "a", "a"])
    scores = zscore(np.ma.masked_equal([1, 3, -9], -9), ["a"] * 3, training=["a"])
    np.testing.assert_allclose(scores, [-(0.5**0.5), 0.5**0.5, NAN])
