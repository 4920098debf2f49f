"""Runs the Python blocks of docs/data.md, in order, on files written here."""

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import test_events
import test_nwb

from keras_disrnn.data import Sessions

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
MARK = "<!-- needs the recordings -->"


def blocks():
    """Return (needs the recordings, code) of every Python block."""
    found = re.findall(rf"({MARK}\n)?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [(bool(mark), code) for mark, code in found]


def write_files(folder, rng):
    """Write the files that the page reads."""
    lengths = (30, 45, 40, 35)
    total, outcomes = sum(lengths), np.concatenate([10 + 5.0 * np.arange(n) for n in lengths])
    table = pd.DataFrame(
        {
            "mouse": np.repeat(["m1", "m1", "m2", "m2"], lengths),
            "day": np.repeat(["m1-01", "m1-02", "m2-01", "m2-02"], lengths),
            "trial": np.concatenate([np.arange(n) for n in lengths]),
            "went_right": rng.integers(0, 2, total),
            "rewarded": rng.integers(0, 2, total),
            "dlight": rng.normal(size=total).round(3),
            "forced": rng.random(total) < 0.1,
            "missed": False,
            "outcome_time": outcomes,
            "phase": np.repeat(["train", "train", "train", "test"], lengths),
        }
    )
    table.to_csv(folder / "trials.csv", index=False)
    table.to_csv(folder / "european.csv", index=False, sep=";", decimal=",", encoding="latin-1")
    (folder / "signals").mkdir()
    for day, rows in table.groupby("day"):
        times = np.arange(0, rows["outcome_time"].max() + 10, 0.02)
        iso = 5 + np.sin(times / 20) + rng.normal(0, 0.01, len(times))
        since = times - rows["outcome_time"].to_numpy()[:, None]
        bump = ((since >= 0) & (since < 1)) * (rows["rewarded"].to_numpy()[:, None] - 0.3)
        parts = {"times": times, "iso": iso, "gcamp": (2 * iso + 1) * (1 + 0.1 * bump.sum(axis=0))}
        for part, values in parts.items():
            np.save(folder / "signals" / f"{day}.{part}.npy", values)
    test_nwb.write(folder / "m1.nwb")
    test_nwb.write(folder / "m2.nwb", subject="m2", session="m2-01")
    names = {"left": "left_press", "right": "right_press"}
    events = test_events.event_table().replace({"event": names})
    events.to_csv(folder / "events.csv", index=False)
    test_events.sample_table().to_csv(folder / "source1.csv", index=False)
    source_2().to_csv(folder / "source2.csv", index=False)


def source_2():
    """Make a table of two sites with two and one sessions, numbered within sites."""
    table = pd.DataFrame(
        {
            "site": [1, 1, 1, 1, 2, 2],
            "session": [1, 1, 1, 2, 1, 1],
            "choice": ["ipsi", "contra", "contra", "ipsi", "contra", "ipsi"],
            "reward": [1, 0, 1, 1, 0, 0],
        }
    )
    return table.assign(**{f"press_{i}": i + np.arange(6) / 10 for i in range(4)})


def run(code, names):
    exec(compile(code, str(PAGE), "exec"), names)


def test_the_page_runs(tmp_path, monkeypatch, capsys, rng):
    pytest.importorskip("pynwb", reason="the page reads NWB files")
    mpl.use("agg")
    write_files(tmp_path, rng)
    monkeypatch.chdir(tmp_path)
    names = {}
    mine = [code for needs, code in blocks() if not needs]
    assert len(mine) >= 12
    for code in mine:
        run(code, names)
    assert (tmp_path / "average.pdf").stat().st_size > 1000
    # The page shows the error that is raised.
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert f"    {said}\n" in PAGE.read_text("utf-8")
    assert names["nwb_sessions"].num_sessions == 2
    assert names["predicted"]["choice_likelihood"].notna().all()
    assert names["event_sessions"].trials_per_session.tolist() == [3, 2]
    assert names["parker_1"].subjects == ("7", "7")
    np.testing.assert_allclose(names["parker_1"].dopamine[0, 1:, 0], [2, 0.5, 0], atol=0.2)
    assert names["parker_2"].ids == ("1 1", "1 2", "2 1")
    # The mean of the columns with 1 and 2, and a tenth more a row.
    np.testing.assert_allclose(names["parker_2"].dopamine[0, 1:, 0], [1.5, 1.6, 1.7])


def test_the_recordings_of_the_page(tmp_path, monkeypatch, shared):
    monkeypatch.chdir(shared / "data")
    names = {"np": np, "pd": pd, "Sessions": Sessions}
    exec("from keras_disrnn.data import Columns, sessions_from_table", names)
    for needs, code in blocks():
        if needs:
            run(code, names)
    sizes = [(names[name].num_sessions, names[name].num_trials) for name in ("mice", "monkey")]
    assert sizes[1] == (84, 84 * 499)
    assert names["dlight"].num_trials == 9684
    assert sizes[0][0] == 255
