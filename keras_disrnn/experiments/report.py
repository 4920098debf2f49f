"""The reports of a run and of a study: one HTML page, with its figures, that needs no package."""

import base64
import functools
import json
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import yaml

from keras_disrnn.analysis.comparison import comparison_cells
from keras_disrnn.analysis.studies import CHOSEN
from keras_disrnn.files import write_text
from keras_disrnn.version import __version__

FIGURES = {
    "penalties": (
        "Choice of the penalties",
        "Cross-validated score of each multiple of the penalties. Bars: standard error of the "
        "difference to the best, paired by session, which the choice goes by; band: of the best "
        "score by itself. Below, what the fit to all training sessions leaves open. The ring is "
        "the choice.",
    ),
    "bottlenecks": (
        "Bottlenecks",
        "Dark is open: information flows. A model that found a small cognitive model has few open "
        "latents, each fed by few inputs. The last panel shows what the dopamine readout reads, "
        "where there is one.",
    ),
    "choice_rule": ("Choice rule", "What the choice readout makes of the open latents."),
    "dopamine_rule": (
        "Dopamine rule",
        "What the dopamine readout predicts from the open latents, for each choice and reward.",
    ),
    "update_rules": (
        "Update rules",
        "How each open latent changes on a trial, by its value, for each choice and reward.",
    ),
    "subjects": (
        "Subjects",
        "What tells the subjects apart: each one's place along the open dimensions of the "
        "embedding, in the order of the first.",
    ),
    "session": (
        "A held-out session",
        "Choices and rewards, the model's predictions, its latents, and the dopamine response.",
    ),
    "dopamine": ("Dopamine, held out", "Predicted against recorded responses."),
    "learning_curves": (
        "Learning curves",
        "Training and held-out sessions. A loss means something else in each stage.",
    ),
}


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
        scores=tabulate_scores(metrics, _with_error),
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
        loader=jinja2.PackageLoader("keras_disrnn", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return pages.get_template(name)


def _figure(path, title, text):
    return {"title": title, "text": text, "data": base64.b64encode(path.read_bytes()).decode()}


def tabulate_scores(metrics, cell):
    """The scores of a run's metrics.json, as they are printed.

    Args:
        metrics: The contents of metrics.json.
        cell: Function of a dict of scores and the name of one in it, which may be absent, to text.

    Returns:
        A list of rows (name, training, held out).
    """
    parts = [metrics["train"], metrics["held_out"]]
    rows = [("normalized likelihood of choice", ("choice",), "normalized_likelihood")]
    if "true_agent" in parts[0]:
        agent = ("true_agent", "choice")
        rows.append(("the same, of the true agent", agent, "normalized_likelihood"))
        rows.append(("the same, model minus true agent", ("true_agent",), "difference"))
    if "dopamine" in parts[0]:
        rows.append(("mean squared error of dopamine", ("dopamine",), "mse"))
        rows.append(("R² of dopamine", ("dopamine",), "r2"))
    return [
        (name, *(cell(functools.reduce(_inside, path, part), key) for part in parts))
        for name, path, key in rows
    ]


def _inside(scores, name):
    return scores.get(name, {})


def _with_error(scores, key):
    value, error = scores.get(key), scores.get(f"{key}_se")
    if value is None:
        return "–"
    digits = 5 if key == "difference" else 4
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
