"""Write the tables, the figures and the report of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from keras_disrnn.analysis import (
    comparison_latex,
    comparison_markdown,
    compute_agreement,
    compute_graph_clusters,
    compute_study_table,
    compute_subject_scores,
)
from keras_disrnn.analysis.studies import StudyFit
from keras_disrnn.experiments.figures import FORMATS, save_figures
from keras_disrnn.experiments.report import STUDY_FIGURES, write_study_report
from keras_disrnn.experiments.settings import plain_config
from keras_disrnn.experiments.study_fit import read_fit
from keras_disrnn.experiments.study_plan import PlannedFit, StudySettings
from keras_disrnn.plots import (
    plot_comparison,
    plot_penalty_curves,
    plot_subject_scores,
)
from keras_disrnn.utils.files import write_text
from keras_disrnn.utils.tables import escape_markdown, write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_disrnn.experiments.data import RunData

TABLES = ("table", "subjects", "agreement", "graphs")
"""The tables of a study, each a CSV file of all data sets."""


def write_study(
    out: str | Path,
    settings: StudySettings,
    *,
    fits: Sequence[PlannedFit],
    rows: pd.DataFrame,
    loaded: Mapping[str, RunData],
) -> None:
    """Write the results of the fits that are done.

    Remove results that earlier settings made and these settings do not make.

    Args:
        out: The folder of the study.
        settings: The settings of the study.
        fits: The fits.
        rows: The table of fits, as `run_study` returns it.
        loaded: The data of each data set, by name.
    """
    out = Path(out)
    write_csv(out / "fits.csv", rows)
    done = [
        read_fit(out / "fits" / fit.key, fit)
        for fit, state in zip(fits, rows["state"], strict=True)
        if state == "done"
    ]
    figures = out / "figures"
    for kind in STUDY_FIGURES:
        for ending in FORMATS:
            for old in figures.glob(f"*_{kind}.{ending}"):
                old.unlink()
    results = {}
    for name, data in loaded.items():
        own = [fit for fit in done if fit.data == name]
        if own:
            results[name] = _compute_results(own, data, settings)
            _draw(figures, name, own, results[name])
    for kind in TABLES:
        found = [
            result[kind].assign(data=name)
            for name, result in results.items()
            if result[kind] is not None
        ]
        if found:
            write_csv(out / f"{kind}.csv", pd.concat(found))
        else:
            (out / f"{kind}.csv").unlink(missing_ok=True)
    tables = {
        name: result["table"] for name, result in results.items() if result["table"] is not None
    }
    markdown = [
        f"# {escape_markdown(name)}\n\n{comparison_markdown(table)}"
        for name, table in tables.items()
    ]
    # A line break in a name would end the comment.
    latex = [
        f"% {' '.join(name.splitlines())}\n{comparison_latex(table)}"
        for name, table in tables.items()
    ]
    write_text(out / "table.md", "\n".join(markdown))
    write_text(out / "table.tex", "\n".join(latex))
    write_study_report(out, plain_config({"study": settings})["study"], rows, results)


def _compute_results(
    fits: Sequence[StudyFit], data: RunData, settings: StudySettings
) -> dict[str, Any]:
    """Compute the tables of one data set, and sentences on the models that are left out."""
    table, left_out = compute_study_table(
        fits,
        {"train": data.train, "held_out": data.held_out},
        against=settings.against or next(iter(settings.baselines.names), None),
        replicates=settings.num_bootstrap_samples,
    )
    return {
        "table": table,
        "subjects": compute_subject_scores(fits, data.held_out),
        "agreement": compute_agreement(fits),
        "graphs": compute_graph_clusters(fits),
        "left_out": left_out,
    }


def _draw(figures: Path, name: str, fits: Sequence[StudyFit], results: Mapping[str, Any]) -> None:
    pictures: dict[str, tuple[Callable[..., Figure], Any]] = {
        "subjects": (plot_subject_scores, results["subjects"])
    }
    if any(fit.scale is not None for fit in fits):
        pictures["curves"] = (plot_penalty_curves, fits)
    if results["table"] is not None:
        pictures["scores"] = (plot_comparison, results["table"])
    for kind, (plot, shown) in pictures.items():
        save_figures(figures / f"{name}_{kind}", plot, shown)
