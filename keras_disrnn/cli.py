"""The command line: `keras-disrnn demo`, `fit`, `evaluate`, `export`, `plot` and `baselines`.

Every setting is a flag (`keras-disrnn fit --help`) and can come from a file: `--config
settings.yaml`, such as the `config.yaml` of a run folder; flags override it.
"""

import json
import sys
from pathlib import Path

import jsonargparse

from keras_disrnn import compare as comparisons
from keras_disrnn import native
from keras_disrnn import run as runs
from keras_disrnn.analysis import comparison_markdown
from keras_disrnn.compare import BaselineSettings
from keras_disrnn.data import sessions_from_table
from keras_disrnn.export import export as export_model
from keras_disrnn.run import ModelSettings, SyntheticData, TableData, TrainingSettings
from keras_disrnn.training import TrainingDiverged


def demo(
    out: str,
    data: SyntheticData = SyntheticData(),  # noqa: B008 - frozen, and read by the parser
    model: ModelSettings = ModelSettings(),  # noqa: B008
    training: TrainingSettings = TrainingSettings(),  # noqa: B008
    seed: int = 0,
):
    """Make synthetic data of a Q-learning agent, fit it, compare with the truth, report.

    Args:
        out: The run folder to make; an interrupted run in it goes on.
        data: The synthetic sessions.
        model: Shape and penalties of the model.
        training: The stages of training.
        seed: Of the data, the initial weights, the noise and the batches.
    """
    _finish(out, runs.run("demo", out, data, model, training, seed))


def fit(
    data: TableData,
    out: str,
    model: ModelSettings = ModelSettings(),  # noqa: B008
    training: TrainingSettings = TrainingSettings(),  # noqa: B008
    seed: int = 0,
):
    """Fit a table with one row a trial, score the held-out sessions, report.

    Args:
        data: The table, its columns, and what is held out.
        out: The run folder to make; an interrupted run in it goes on.
        model: Shape and penalties of the model.
        training: The stages of training.
        seed: Of the initial weights, the noise and the batches.
    """
    _finish(out, runs.run("fit", out, data, model, training, seed))


def evaluate(run: str, table: str | None = None, out: str | None = None):
    """Score the model of a run, on its own data or on another table of the same columns.

    Args:
        run: The folder of a finished run.
        table: Another table, all of whose sessions are scored.
        out: A new JSON file for the scores; they are printed in any case.
    """
    if out is not None and Path(out).exists():
        raise FileExistsError(f"{out}: exists already; choose a new file")
    model, data, seed = runs.load_run(run)
    if table is None:
        metrics, _ = runs.compute_metrics(model, runs.load_data(data, seed))
    else:
        metrics = runs.score_sessions(model, _read_like(data, table))
    if out is not None:
        runs.write_json(out, metrics)
    print(json.dumps(runs.plain(metrics), indent=2))


def export(run: str, out: str):
    """Write the model of a run as a SavedModel, for programs that have TensorFlow alone.

    Args:
        run: The folder of a finished run.
        out: The new folder.
    """
    model, _, _ = runs.load_run(run)
    digest = export_model(model, out, run=run)
    print(f"Wrote {out}: load it with tensorflow.saved_model.load({out!r})")
    print(f"SHA-256 of its manifest: {digest}")


def plot(run: str, out: str, formats: list[str] = ["png", "pdf"]):  # noqa: B006 - for the parser
    """Draw the figures of a run again.

    Args:
        run: The folder of a finished run.
        out: The new folder of figures.
        formats: Endings of the files, such as png, pdf and svg.
    """
    if Path(out).exists():
        raise FileExistsError(f"{out}: exists already; choose a new folder")
    model, data, seed = runs.load_run(run)
    history, metrics = runs.load_results(run)
    runs.draw(model, runs.load_data(data, seed), out, history, metrics, formats)
    print(f"Wrote {out}")


def baselines(
    data: TableData,
    out: str,
    settings: BaselineSettings = BaselineSettings(),  # noqa: B008
    seed: int = 0,
):
    """Fit the baselines to a table, score them on training and held-out sessions, tabulate.

    Args:
        data: The table, its columns, and what is held out.
        out: The new folder of tables.
        settings: How the baselines are fitted and scored.
        seed: Of starts, initial weights and resamples.
    """
    table = comparisons.compare(out, data, settings, seed)
    print(comparison_markdown(table), end="")
    print(f"Wrote {out}")


def main(arguments=None):
    """Runs the command line; returns its exit status.

    Args:
        arguments: The words after the program's name; by default those of the process.
    """
    native.yield_processors()
    try:
        jsonargparse.auto_cli(
            [demo, fit, evaluate, export, plot, baselines],
            args=arguments,
            as_positional=False,
            prog="keras-disrnn",
            description="Disentangled RNNs of choice and dopamine.",
        )
    except (ValueError, OSError, TrainingDiverged) as error:
        print(f"keras-disrnn: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("keras-disrnn: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _read_like(data, table):
    if not isinstance(data, TableData):
        columns = runs.SYNTHETIC_COLUMNS
        return sessions_from_table(table, columns)
    return sessions_from_table(table, data.columns, arms=data.arms, reward_kind=data.reward_kind)


def _finish(out, metrics):
    held_out = metrics["held_out"]
    choice = held_out["choice"]["normalized_likelihood"]
    print(f"\nHeld-out sessions: normalized likelihood {choice:.4f}", end="")
    if "true_agent" in held_out:
        truth = held_out["true_agent"]
        likelihood = truth["choice"]["normalized_likelihood"]
        print(f" (true agent {likelihood:.4f})", end="")
    if "dopamine" in held_out:
        print(f", dopamine R^2 {held_out['dopamine']['r2']:.4f}", end="")
    print(f"; open latents: {', '.join(metrics['open_latents']) or 'none'}")
    print(f"Report: {Path(out) / 'report.html'}")
