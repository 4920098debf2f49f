"""The report of a run: one HTML page, figures inside it, readable without the package."""

import base64
import json
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from keras_disrnn.files import write_text

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
        "latents, each fed by few inputs. The fourth panel shows what the dopamine readout reads.",
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
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_disrnn", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = pages.get_template("report.html").render(
        title=folder.resolve().name,
        metrics=metrics,
        scores=_scores(metrics),
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
            {"title": title, "text": text, "data": base64.b64encode(path.read_bytes()).decode()}
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


def _scores(metrics):
    """Rows of the score table: (name, training, held out)."""
    parts = [metrics["train"], metrics["held_out"]]

    def row(name, group, key, error=None, digits=4):
        cells = []
        for part in parts:
            scores = part.get(group, {})
            value = scores.get(key)
            text = "–" if value is None else f"{value:.{digits}f}"
            if value is not None and error and scores.get(error) is not None:
                text += f" ± {scores[error]:.{digits}f}"
            cells.append(text)
        return (name, *cells)

    rows = [
        row(
            "Choice: normalized likelihood",
            "choice",
            "normalized_likelihood",
            "normalized_likelihood_se",
        )
    ]
    if "true_agent" in parts[0]:
        agent = [part["true_agent"]["choice"]["normalized_likelihood"] for part in parts]
        rows.append(("Choice: the true agent's", *(f"{value:.4f}" for value in agent)))
        rows.append(
            row("Choice: model minus true agent", "true_agent", "difference", "difference_se", 5)
        )
    if "dopamine" in parts[0]:
        rows.append(row("Dopamine: mean squared error", "dopamine", "mse", "mse_se"))
        rows.append(row("Dopamine: R²", "dopamine", "r2", "r2_se"))
    return rows
