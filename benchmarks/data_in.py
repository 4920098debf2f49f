"""Measure the readers of data, and check that they lose nothing.

    python benchmarks/data_in.py [--shared ../shared]

The program prints trials per second and peak memory of each reader, on random sessions of 200
trials. Each reader runs in its own process. If the folder of recordings exists, the program
also prints the agreement with the example session and the number of rows before and after reading.
It also prints how much padding bucketed batches save.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

TRIALS = 200
RATE = 130.0
NWB_TRIALS = 4_000
WAYS = ("csv", "csv.gz", "parquet", "arrays", "nwb", "photometry")


def make_table(trials):
    rng = np.random.default_rng(0)
    session = np.arange(trials) // TRIALS
    return pd.DataFrame(
        {
            "subject": np.char.add("m", (session // 50).astype(str)),
            "session": np.char.add("s", session.astype(str)),
            "trial": np.arange(trials) % TRIALS,
            "choice": rng.integers(0, 2, trials),
            "reward": rng.integers(0, 2, trials),
            "dopamine": rng.normal(size=trials).round(5),
            "event": 5.0 + 10.0 * (np.arange(trials) % TRIALS),
        }
    )


def make_signal():
    times = np.arange(0, 10 * TRIALS + 10, 1 / RATE)
    return times, np.random.default_rng(1).normal(5, 1, len(times))


def write_nwb(path, table):
    import pynwb

    file = pynwb.NWBFile(
        session_description="random trials",
        identifier=path.stem,
        session_id=table["session"].iloc[0],
        session_start_time=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        subject=pynwb.file.Subject(subject_id=table["subject"].iloc[0]),
    )
    for name in ("choice", "reward", "event"):
        file.add_trial_column(name, name)
    for row in table.itertuples():
        file.add_trial(
            start_time=row.event - 1,
            stop_time=row.event + 5,
            choice=row.choice,
            reward=row.reward,
            event=row.event,
        )
    _, signal = make_signal()
    series = pynwb.TimeSeries(name="dlight", data=signal, unit="F", starting_time=0.0, rate=RATE)
    file.add_acquisition(series)
    with pynwb.NWBHDF5IO(str(path), "w") as writer:
        writer.write(file)


def prepare(folder, way, trials):
    """Make the input of a reader, before the clock starts."""
    from keras_disrnn.data import Recording

    table = make_table(trials)
    if way in ("csv", "csv.gz"):
        table.to_csv(folder / f"a.{way}", index=False)
        return folder / f"a.{way}"
    if way == "parquet":
        table.to_parquet(folder / "a.parquet")
        return folder / "a.parquet"
    if way == "arrays":
        names = ("choice", "reward", "dopamine")
        return {name: list(table[name].to_numpy().reshape(-1, TRIALS)) for name in names}
    if way == "nwb":
        paths = []
        for number, (_, part) in enumerate(table.groupby("session", sort=False)):
            paths.append(folder / f"{number}.nwb")
            write_nwb(paths[-1], part)
        return paths
    times, signal = make_signal()
    recording = Recording(times, signal, control=signal + np.sin(times))
    return table, dict.fromkeys(table["session"].unique(), recording)


def read(way, given):
    from keras_disrnn import data

    columns = data.Columns(dopamine="dopamine", trial="trial")
    settings = data.Photometry(reference="control", highpass_hz=0.01)
    if way == "arrays":
        return data.Sessions.from_trials(**given)
    if way == "nwb":
        table = data.read_nwb(given, series="dlight", event="event")
        return data.sessions_from_table(table, data.Columns(dopamine="dopamine"))
    if way == "photometry":
        table, recordings = given
        found = data.photometry_responses(table, recordings, event="event", settings=settings)
        return data.sessions_from_table(table.assign(dopamine=found), columns)
    return data.sessions_from_table(given, columns)


def peak(reset=False):
    """Return the peak resident memory of this process since the last reset, in MB (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def measure(way, trials):
    """Measure one reader in this process, after a small read, and print one line of JSON."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        read(way, prepare(folder, way, TRIALS))
        # Another process writes the files, so its memory does not count here.
        if way in ("csv", "csv.gz", "parquet"):
            command = [sys.executable, __file__, "--make", way, str(trials), str(folder)]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            given = folder / f"a.{way}"
        else:
            given = prepare(folder, way, trials)
        before, start = peak(reset=True), time.perf_counter()
        sessions = read(way, given)
        seconds = time.perf_counter() - start
        if sessions.num_trials != trials:
            raise SystemExit(f"{way}: {trials} rows in, {sessions.num_trials} out")
        print(json.dumps({"rate": trials / seconds, "memory": peak() - before}), flush=True)


def ways(sizes):
    print("reader | trials | trials per second | added peak memory, MB\n---|---|---|---")
    for way in WAYS:
        for trials in (NWB_TRIALS,) if way in ("nwb", "photometry") else sizes:
            command = [sys.executable, __file__, "--one", way, str(trials)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{way} | {trials:,} | failed: {done.stderr.strip().splitlines()[-1]} |")
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{way} | {trials:,} | {result['rate']:,.0f} | {result['memory']:,.0f}", flush=True
            )


def padding(name, sessions, batch_size):
    filled = int(sessions.trials_per_session.sum()) + sessions.num_sessions
    shares = []
    for buckets in (1, 2, 4, 8):
        stream = sessions.dataset(batch_size, buckets=buckets)
        computed = sum(x.shape[0] * x.shape[1] for x, _, _ in stream)
        shares.append(f"{1 - filled / computed:.1%}")
    print(f"{name}, batches of {batch_size} | {' | '.join(shares)}")


def recordings(folder):
    from keras_disrnn import data

    table = pd.read_csv(folder / "dlight_bandit" / "trials.csv.gz")
    example = folder / "dlight_bandit" / "example_session"
    session = json.loads((example / "session_info.json").read_text())["session_id"]
    here = (table["session_id"] == session).to_numpy()
    recording = data.Recording(
        np.load(example / "dlight.times.npy"), np.load(example / "dlight.signal.npy")
    )
    events = table.loc[here, "times.choice"]
    print(f"\nexample session, {here.sum()} trials | largest difference\n---|---")
    for column, window, baseline in (
        ("dlight_post", (0.7, 1.2), None),
        ("dlight_base", (0.3, 0.5), None),
        ("dlight_response", (0.7, 1.2), (0.3, 0.5)),
    ):
        found = data.response(recording, events, data.Photometry(window=window, baseline=baseline))
        print(f"{column} | {np.abs(found - table.loc[here, column]).max():.1e}")
    windows = np.load(folder / "dlight_bandit" / "windows.npz")["dlight"]
    _, found = data.align(recording, events, (-1, 4))
    print(f"windows.npz (float16) | {np.abs(found - windows[here]).max():.1e}")
    for name, reason in data.find_artefacts(windows, table["session_id"]).items():
        print(f"artefact check would drop {name}: {reason}")

    columns = data.Columns(
        session="session_id",
        choice="choice_right",
        dopamine="dlight_response",
        forced="forced_choice",
        trial="trial",
    )
    dlight = data.sessions_from_table(table, columns)
    mouse = pd.read_csv(folder / "mouse_bandit" / "trials.csv.gz")
    mouse["session"] = mouse["mouse"].astype(str) + " " + mouse["date"].astype(str)
    columns = data.Columns(subject="mouse", choice="right", trial="trial")
    mice = data.sessions_from_table(mouse, columns)
    pennies = np.load(folder / "matching_pennies" / "mp_beh_m18_500completed.npy")
    choice, reward = pennies[:-1, :, 2].T, pennies[1:, :, 1].T
    monkey = data.Sessions.from_trials(choice, reward)
    print("\nrecording | rows in | sessions | trials out\n---|---|---|---")
    for name, rows, sessions in (
        ("dlight_bandit", len(table), dlight),
        ("mouse_bandit", len(mouse), mice),
        ("matching_pennies (without the outcome of the last trial of a session)",
         pennies.shape[0] * pennies.shape[1], monkey),
    ):  # fmt: skip
        print(f"{name} | {rows:,} | {sessions.num_sessions} | {sessions.num_trials:,}")
    print("\npadding, share of the computed time steps | 1 bucket | 2 | 4 | 8\n---|---|---|---|---")
    padding("dlight_bandit", dlight, 4)
    padding("mouse_bandit", mice, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        way, trials, folder = arguments.make
        prepare(Path(folder), way, int(trials))
    elif arguments.one:
        measure(arguments.one[0], int(arguments.one[1]))
    else:
        ways(arguments.sizes)
        if (arguments.shared / "data").is_dir():
            recordings(arguments.shared / "data")
        else:
            print(f"\n{arguments.shared}/data does not exist; no recordings to compare with")


if __name__ == "__main__":
    main()
