"""Write the report of a run or of a study: one HTML page that contains its figures."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from keras_disrnn.analysis.comparison import comparison_cells
from keras_disrnn.analysis.scores import tabulate_scores, untrained_note, with_error
from keras_disrnn.analysis.studies import CHOSEN
from keras_disrnn.plots.captions import FIGURES
from keras_disrnn.utils.files import read_json, write_text
from keras_disrnn.utils.tables import to_html
from keras_disrnn.version import __version__


def write_report(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    summaries: Mapping[str, pd.DataFrame],
    selections: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Write report.html of a run whose other files are written.

    Args:
        folder: The run folder.
        config: The settings of the run in plain types.
        summaries: Name of a part of the data to the table that describes it.
        selections: Stage to the table of penalty scales, if the run selected them.
    """
    folder = Path(folder)
    metrics = read_json(folder / "metrics.json", "the scores of a run")
    environment = read_json(folder / "environment.json", "the record of a run")
    page = _template("report.html").render(
        title=folder.resolve().name,
        metrics=metrics,
        notes=[*filter(None, [untrained_note(metrics)]), *metrics.get("notes", [])],
        scores=tabulate_scores(metrics, with_error),
        tables={name: to_html(table, index=True) for name, table in summaries.items()},
        selections={
            stage: to_html(table.drop(columns=["within"]))
            for stage, table in (selections or {}).items()
        },
        figures=[
            _figure(path, title, text)
            for name, (title, text) in FIGURES.items()
            if (path := folder / "figures" / f"{name}.png").exists()
        ],
        bottlenecks=to_html(
            pd.DataFrame.from_dict(metrics["bottlenecks"], "index"), index=True, decimals=2
        ),
        seconds=[(name, f"{value:.1f}") for name, value in metrics["seconds"].items()],
        settings=yaml.safe_dump(dict(config), sort_keys=False),
        environment=environment,
    )
    write_text(folder / "report.html", page)


STUDY_FIGURES = {
    "scores": ("Scores", "Filled: held-out sessions; open: training sessions."),
    "curves": (
        "Likelihood and graph by penalty scale",
        "Above, the held-out likelihood: thin lines are subjects (mean over seeds), the thick line "
        "is their mean, and dashed lines are the means of models without penalties. Below, the "
        "number of edges in the graphs of open bottlenecks, and the share of pairs of seeds that "
        "agree on the graph.",
    ),
    "subjects": (
        "Subjects",
        "Held-out likelihood of each subject and model. A ring marks the best model.",
    ),
}
"""Kinds of figures of a study: their titles and captions."""

MOST_ROWS = 20
"""Maximum number of rows of the table of graphs."""


def write_study_report(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    rows: pd.DataFrame,
    results: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write report.html of a study whose figures are drawn.

    Args:
        folder: The folder of the study.
        config: Its settings in plain types.
        rows: The table that `run_study` returns.
        results: Data set to a dict of the tables of `keras_disrnn.analysis.studies`: `table`,
            `subjects`, `agreement` and `graphs` (`None` if there is none), and the list `left_out`.
    """
    folder = Path(folder)
    failed = rows[rows["state"] == "failed"]
    seconds = rows.drop_duplicates("key").query("state == 'done'")["seconds"].sum()
    page = _template("study.html").render(
        title=folder.resolve().name,
        version=__version__,
        states=rows["state"].value_counts().to_dict(),
        count=len(rows),
        hours=f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.1f} min",
        chosen=CHOSEN,
        results={name: _study_part(folder, name, found) for name, found in results.items()},
        failures=[
            (
                f"{row.data}, {row.subject or 'all subjects'}, {row.model}"
                f"{'' if pd.isna(row.scale) else f' x{row.scale:g}'}, seed {row.seed} ({row.key})",
                row.error,
            )
            for row in failed.itertuples()
        ],
        settings=yaml.safe_dump(dict(config), sort_keys=False),
    )
    write_text(folder / "report.html", page)


def _study_part(folder: Path, name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    best = found["subjects"][found["subjects"]["best"]].drop(columns="best")
    graphs, agreement = found["graphs"], found["agreement"]
    if agreement is not None:
        # Mean over the subjects: at which scale of which model seeds agree.
        pooled = agreement["subject"].isna()
        if pooled.any() and not pooled.all():
            names = agreement["model"] + np.where(pooled, ", pooled", "")
            agreement = agreement.assign(model=names)
        agreement = (
            agreement.groupby(["model", "scale"], sort=False)
            .agg(
                subjects=("seeds", "size"),
                seeds=("seeds", "max"),
                same_graph=("same_graph", "mean"),
                likelihood_range=("likelihood_range", "mean"),
            )
            .reset_index()
        )
    return {
        "table": {
            title: _html(cells)
            for title, cells in comparison_cells(found["table"]).items()
            if len(cells)
        }
        if found["table"] is not None
        else {},
        "left_out": found["left_out"],
        "figures": [
            _figure(path, title, text)
            for kind, (title, text) in STUDY_FIGURES.items()
            if (path := folder / "figures" / f"{name}_{kind}.png").exists()
        ],
        "best": _html(best),
        "agreement": _html(agreement),
        "graphs": _html(graphs.head(MOST_ROWS) if graphs is not None else None),
        "more_graphs": 0 if graphs is None else max(0, len(graphs) - MOST_ROWS),
    }


def _html(table: pd.DataFrame | None) -> str | None:
    return None if table is None or not len(table) else to_html(table)


def _template(name: str) -> jinja2.Template:
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_disrnn.experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return pages.get_template(name)


def _figure(path: Path, title: str, text: str) -> dict[str, str]:
    return {"title": title, "text": text, "data": base64.b64encode(path.read_bytes()).decode()}
