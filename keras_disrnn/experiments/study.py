"""A study: many fits of many subjects, models, penalty scales and seeds, in one folder.

The folder holds

- `config.yaml`, the settings, which the command line reads with `--config`;
- `study.sqlite`, whose table `fits` has one row per fit and is kept up to date;
- `fits/KEY/` for each fit: `run/`, for a DisRNN a run folder as `fit` makes it; `fit.json`, the
  result, or `failure.json`; and `log.txt`;
- the results: `fits.csv`, the tables of `keras_disrnn.analysis.studies` as CSV, `table.md` and
  `table.tex`, `figures/`, and `report.html`.

`study_plan` computes the KEY of each fit. When the settings change, only fits that are not in the
folder are made. An interrupted fit resumes from its checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd

from keras_disrnn.experiments.folder import ResultFolder
from keras_disrnn.experiments.settings import plain_config
from keras_disrnn.experiments.study_fit import make_fit
from keras_disrnn.experiments.study_plan import BaselineSettings, StudySettings, plan_study
from keras_disrnn.experiments.study_results import write_study
from keras_disrnn.experiments.study_table import Progress, StudyTable
from keras_disrnn.experiments.workers import check_engine, run_tasks

__all__ = ["BaselineSettings", "StudySettings", "plan_study", "run_study", "write_study"]


def run_study(
    out: str | Path,
    settings: StudySettings,
    *,
    engine: Literal["inline", "local", "ray"] = "local",
    workers: int | None = None,
    threads: int = 1,
    retries: int = 2,
    retry_failed: bool = False,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Make the fits of a study that do not exist yet, and write the results of all.

    Args:
        out: The folder of the study. A folder that holds a study resumes, also with other
            settings: its finished fits are not made again.
        settings: The settings.
        engine: Where the fits run (see `run_tasks`).
        workers: Number of fits at a time; `None` for as many as there are processors, 0 to fit
            nothing and only write the results.
        threads: Number of threads of each worker.
        retries: How often a fit is started again after its worker died.
        retry_failed: Whether to make fits again that failed before.
        report: Function that receives a line of text as each fit ends, and every half minute while
            none does.

    Returns:
        A `pandas.DataFrame` with one row per fit: `data`, `subject` (`None` for all together),
        `model`, `scale`, `seed`, `state` (`"done"`, `"failed"` or `"waiting"`), the scores, `error`
        and `key`.

    Raises:
        FileExistsError: If the folder holds anything else, or another process runs the study.
        FileNotFoundError: If a table does not exist.
        ValueError: If a setting or the data are wrong. Nothing is fitted then.

    Example:

    >>> from keras_disrnn.experiments.settings import TableData
    >>> from keras_disrnn.experiments.study import StudySettings, run_study
    >>> def fit(table):
    ...     settings = StudySettings({"mice": TableData(table)}, scales=[1.0, 3.0])
    ...     return run_study("studies/mice", settings, workers=2)
    """
    config = plain_config({"study": settings})["study"]
    folder = ResultFolder(out, config, command="study", may_change=True)
    check_engine(engine, workers=workers or None, threads=threads, retries=retries)
    began = time.monotonic()
    fits, loaded = plan_study(settings)
    with folder.begin():
        places = folder.path / "fits"
        places.mkdir(exist_ok=True)
        with contextlib.closing(StudyTable(folder.path, fits, retry_failed=retry_failed)) as table:
            progress = Progress(folder.path, table, fits=fits, report=report)
            report(f"{progress.line()} | checked in {time.monotonic() - began:.0f} s")
            if table.waiting and workers != 0:
                # The paths are absolute: a worker on a cluster may have another working directory.
                outcomes = run_tasks(
                    make_fit,
                    [
                        ((places / key).resolve(), fit, settings.figures)
                        for key, fit in table.waiting.items()
                    ],
                    engine=engine,
                    workers=workers,
                    threads=threads,
                    retries=retries,
                    started=lambda task: progress.started(task[1].key),
                    waiting=progress.waiting,
                )
                for outcome in outcomes:
                    progress.ended(outcome.task[1].key, outcome)
            rows = table.rows()
        write_study(folder.path, settings, fits=fits, rows=rows, loaded=loaded)
    return rows
