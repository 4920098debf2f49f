"""The table of a study's fits, kept up to date while the study runs, and its progress."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from keras_disrnn.experiments.study_fit import AGAIN, read_scores
from keras_disrnn.experiments.study_plan import PlannedFit
from keras_disrnn.experiments.workers import Outcome
from keras_disrnn.utils.files import read_json, write_atomically, write_json

REPORT_SECONDS = 30
"""How often progress is reported while no fit ends."""

COLUMNS = {
    **dict.fromkeys(("data", "subject", "model"), "TEXT"),
    "scale": "REAL",
    "seed": "INTEGER",
    "state": "TEXT",
    **dict.fromkeys(("train_likelihood", "train_likelihood_se", "train_mse", "train_r2"), "REAL"),
    **dict.fromkeys(("likelihood", "likelihood_se", "mse", "r2", "loss"), "REAL"),
    **dict.fromkeys(("parameters", "open_latents", "edges"), "INTEGER"),
    "graph": "TEXT",
    **dict.fromkeys(("began", "seconds", "mebibytes"), "REAL"),
    **dict.fromkeys(("error", "key"), "TEXT"),
}
"""The columns of the table `fits`, with their types."""


class StudyTable:
    """The table `fits` of `study.sqlite`.

    The folders of the fits are the record: the table is made from them when a study starts. Every
    change replaces the whole file, so that a reader can never block the study.

    Args:
        folder: The folder of the study.
        fits: The fits, one row each.
        retry_failed: Whether to make fits again that failed before.

    Attributes:
        waiting: The fits that must be made, by key.
    """

    def __init__(
        self, folder: Path, fits: Sequence[PlannedFit], *, retry_failed: bool = False
    ) -> None:
        self._path = folder / "study.sqlite"
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        self._connection.execute(f"CREATE TABLE fits ({columns})")
        self._connection.execute("CREATE INDEX keys ON fits (key)")
        self.waiting: dict[str, PlannedFit] = {}
        places = ", ".join("?" * len(COLUMNS))
        for fit in fits:
            names = ("data", "subject", "model", "scale", "seed", "key")
            row = {name: getattr(fit, name) for name in names}
            row |= _read_row(folder / "fits" / fit.key, retry_failed)
            if row["state"] == "waiting":
                self.waiting[fit.key] = fit
            values = [row.get(name) for name in COLUMNS]
            self._connection.execute(f"INSERT INTO fits VALUES ({places})", values)
        self._write()

    def _write(self) -> None:
        write_atomically(self._path, lambda file: file.write(self._connection.serialize()))

    def close(self) -> None:
        """Close the table. Its file stays."""
        self._connection.close()

    def update(self, key: str, **values: Any) -> None:
        """Change the cells of every row with a key. Equal fits share a key and are made once."""
        names = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE fits SET {names} WHERE key = ?", [*values.values(), key])
        self._write()

    def rows(self) -> pd.DataFrame:
        """Return the table, with `None` as the subject of fits to all subjects."""
        rows = pd.read_sql_query("SELECT * FROM fits ORDER BY rowid", self._connection)
        subjects = rows["subject"].astype(object)
        return rows.assign(subject=subjects.where(subjects.notna(), None))


def _read_row(folder: Path, retry_failed: bool) -> dict[str, Any]:
    """Read the cells of a fit's row from its folder."""
    try:
        if (folder / "fit.json").exists():
            return {"state": "done", **read_scores(folder)["scores"]}
        if (folder / "failure.json").exists() and not retry_failed:
            stored = read_json(folder / "failure.json", "the error of a fit", remedy=AGAIN)
            return {"state": "failed", "error": stored["error"]}
    except (OSError, ValueError) as error:
        if not retry_failed:
            # A damaged fit does not stop the others.
            return {"state": "failed", "error": str(error)}
    return {"state": "waiting"}


class Progress:
    """Keeps the table up to date and reports how far the study is.

    The remaining time is estimated from the mean time of finished fits of the same data set and
    model. If there are none, all finished fits count.

    Args:
        folder: The folder of the study.
        table: The table of its fits.
        fits: The fits.
        report: Function that receives a line of text.
    """

    def __init__(
        self,
        folder: Path,
        table: StudyTable,
        *,
        fits: Sequence[PlannedFit],
        report: Callable[[str], None],
    ) -> None:
        self._folder, self._table, self._report = folder, table, report
        self._fits = {fit.key: fit for fit in fits}
        self._running: dict[str, float] = {}
        self._seconds: dict[tuple, list[float]] = {}
        self._reported = time.monotonic()
        self._max_running = 1
        for row in table.rows().itertuples():
            if row.state == "done":
                self._add_seconds(row.key, row.seconds)

    def started(self, key: str) -> None:
        """Record that a worker has started a fit."""
        self._running[key] = time.monotonic()
        self._max_running = max(self._max_running, len(self._running))
        self._table.update(key, state="running", began=time.time())

    def ended(self, key: str, outcome: Outcome) -> None:
        """Record how a fit ended. A failure is kept in `failure.json`."""
        fit = self._fits[key]
        if outcome.error is None:
            scores = outcome.value["scores"]
            self._add_seconds(key, scores["seconds"])
            self._table.update(key, state="done", **scores)
            result = f"likelihood {scores['likelihood']:.4f}, {scores['seconds']:.0f} s"
        else:
            error = f"{type(outcome.error).__name__}: {outcome.error}"
            folder = self._folder / "fits" / key
            folder.mkdir(parents=True, exist_ok=True)
            failure = {"error": error, "traceback": outcome.traceback, "config": fit.config}
            write_json(folder / "failure.json", failure, checked=True)
            self._table.update(key, state="failed", error=error)
            result = f"FAILED: {error}"
        del self._running[key]
        self._report_line(f"{fit.label}: {result}")

    def waiting(self) -> None:
        """Report the running fits if nothing was reported for a while."""
        now = time.monotonic()
        if now - self._reported > REPORT_SECONDS:
            running = [
                f"{self._fits[key].label} for {now - began:.0f} s"
                for key, began in self._running.items()
            ]
            self._report_line("; ".join(running))

    def line(self) -> str:
        """Return how many fits are done, run, failed and wait, and how long the rest will take."""
        rows = self._table.rows().drop_duplicates("key")
        counts = rows["state"].value_counts()
        parts = [f"{counts.get('done', 0)} of {len(rows)} done"]
        parts += [
            f"{counts[state]} {state}" for state in ("running", "failed") if counts.get(state, 0)
        ]
        known = [seconds for each in self._seconds.values() for seconds in each]
        unfinished = rows["key"][rows["state"].isin(["waiting", "running"])]
        if known and len(unfinished):
            seconds = 0.0
            for key in unfinished:
                mean = statistics.fmean(self._seconds.get(self._kind(key), known))
                elapsed = time.monotonic() - self._running.get(key, time.monotonic())
                seconds += max(mean - elapsed, 0.0)
            parts.append(f"about {_format_duration(seconds / self._max_running)} left")
        return ", ".join(parts)

    def _kind(self, key: str) -> tuple:
        fit = self._fits[key]
        return fit.data, fit.subject is None, fit.model

    def _add_seconds(self, key: str, seconds: float) -> None:
        self._seconds.setdefault(self._kind(key), []).append(seconds)

    def _report_line(self, text: str) -> None:
        self._reported = time.monotonic()
        self._report(f"{self.line()} | {text}")


def _format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
