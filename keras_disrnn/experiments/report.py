"""The reports of a run and of a study: one HTML page, with its figures, that needs no package."""

import base64
import json
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import yaml

from keras_disrnn.analysis.comparison import comparison_cells
from keras_disrnn.analysis.scores import tabulate_scores, with_error
from keras_disrnn.analysis.studies import CHOSEN
from keras_disrnn.plots.captions import FIGURES
from keras_disrnn.utils.files import write_text
from keras_disrnn.version import __version__


def write_report(folder, config, summaries, selections=None):
    """Writes report.html of a run folder that holds everything else.

    Args:
        folder: The run folder.
        config: The run's settings, nested plain values.
        summaries: Name of a part of the data to the table that describes it.
        selections: Stage to the table of penalties tried, where they were chosen.
    """
    folder = Path(folder)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    page = _template("report.html").render(
        title=folder.resolve().name,
        metrics=metrics,
        scores=tabulate_scores(metrics, with_error),
        tables={
            name: table.to_html(float_format=lambda value: f"{value:.4g}", border=0)
            for name, table in summaries.items()
        },
        selections={
            stage: table.drop(columns=["within"]).to_html(
                float_format=lambda value: f"{value:.4g}", border=0, index=False
            )
            for stage, table in (selections or {}).items()
        },
        figures=[
            _figure(path, title, text)
            for name, (title, text) in FIGURES.items()
            if (path := folder / "figures" / f"{name}.png").exists()
        ],
        bottlenecks=pd.DataFrame.from_dict(metrics["bottlenecks"], "index").to_html(
            border=0, float_format=lambda value: f"{value:.2f}"
        ),
        settings=yaml.safe_dump(config, sort_keys=False),
        environment=environment,
    )
    write_text(folder / "report.html", page)


STUDY_FIGURES = {
    "scores": ("Scores", "Filled: held-out sessions; open: training sessions."),
    "curves": (
        "What the penalties cost, and what they leave open",
        "Above, held-out likelihood: thin lines are subjects (mean over seeds), the thick one is "
        "their mean, dashed ones are the means of models without penalties. Below, how many edges "
        "the graphs of open bottlenecks have, with the share of pairs of seeds that agree on the "
        "graph.",
    ),
    "subjects": (
        "Subjects",
        "Each subject's held-out likelihood by each model; the ring is the best.",
    ),
}
MOST_ROWS = 20
"""A table of graphs or of agreement shows so many rows."""


def write_study_report(folder, config, rows, results):
    """Writes report.html of a study whose figures are drawn.

    Args:
        folder: The folder of the study.
        config: Its settings, nested plain values.
        rows: What `keras_disrnn.study.run_study` returns.
        results: Data set to a dict of the tables of `keras_disrnn.analysis.studies`: `table`,
            `subjects`, `agreement`, `graphs` (`None` where there is none) and the list `left_out`.
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
        settings=yaml.safe_dump(config, sort_keys=False),
    )
    write_text(folder / "report.html", page)


def _study_part(folder, name, found):
    best = found["subjects"][found["subjects"]["best"]].drop(columns="best")
    graphs, agreement = found["graphs"], found["agreement"]
    if agreement is not None:
        # Over the subjects: which multiple of which model leaves seeds in agreement.
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


def _html(table):
    if table is None or not len(table):
        return None
    return table.to_html(
        float_format=lambda value: f"{value:.4g}", border=0, index=False, na_rep="–"
    )


def _template(name):
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_disrnn.experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return pages.get_template(name)


def _figure(path, title, text):
    return {"title": title, "text": text, "data": base64.b64encode(path.read_bytes()).decode()}
