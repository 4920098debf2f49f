"""The command line `keras-disrnn COMMAND`. Each function below is a command.

Every setting is a flag (see `keras-disrnn fit --help`). Settings can also come from a file:
`--config settings.yaml`, such as the `config.yaml` of a run folder. Flags override the file.

Help texts and refusals need settings only. `keras_disrnn.experiments` loads the rest on first use.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jsonargparse

from keras_disrnn import data as tables
from keras_disrnn import experiments
from keras_disrnn.data.columns import EventSettings
from keras_disrnn.experiments.behaviour_settings import BehaviourSettings, EnvironmentSettings
from keras_disrnn.experiments.comparison_settings import ComparisonSettings, OptionalTable
from keras_disrnn.experiments.flags import choose_commands, quote_names
from keras_disrnn.experiments.prepared_settings import RecordedData
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import (
    ModelSettings,
    SyntheticData,
    TableData,
    TrainingSettings,
)
from keras_disrnn.experiments.study_settings import StudySettings
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.files import plain
from keras_disrnn.utils.thresholds import SMALLEST_EFFECT
from keras_disrnn.version import __version__

# The defaults are frozen dataclasses, and the parser copies lists.
# ruff: noqa: B006, B008


def demo(
    out: str,
    data: SyntheticData = SyntheticData(),
    model: ModelSettings = ModelSettings(),
    training: TrainingSettings = TrainingSettings(),
    seed: int = 0,
) -> None:
    """Simulate data of a Q-learning agent, fit them, compare with the truth, and report.

    Args:
        out: The run folder. An interrupted run in it is resumed.
        data: The synthetic sessions.
        model: Shape and penalties of the model.
        training: The stages of training.
        seed: Seed of the data, the initial weights, the noise and the batches.
    """
    _run("demo", out, data=data, model=model, training=training, seed=seed)


def fit(
    data: RecordedData,
    out: str,
    model: ModelSettings = ModelSettings(),
    training: TrainingSettings = TrainingSettings(),
    seed: int = 0,
) -> None:
    """Fit a table or a prepared data set, score the held-out sessions, and report.

    Args:
        data: The table, its columns, and the held-out sessions. Or a prepared data set.
        out: The run folder. An interrupted run in it is resumed.
        model: Shape and penalties of the model.
        training: The stages of training.
        seed: Seed of the initial weights, the noise and the batches.
    """
    _run("fit", out, data=data.chosen(), model=model, training=training, seed=seed)


def select(
    data: RecordedData,
    out: str,
    model: ModelSettings = ModelSettings(),
    selection: SelectionSettings = SelectionSettings(),
    seed: int = 0,
) -> None:
    """Fit a table or data set with penalties chosen by cross-validation, score, and report.

    Args:
        data: As for `fit`. The choice does not use the held-out sessions.
        out: The run folder. An interrupted run in it is resumed.
        model: Shape of the model, and its penalties at scale 1.
        selection: The penalty scales to try, and how.
        seed: Seed of the folds, the initial weights, the noise and the batches.
    """
    _run("select", out, data=data.chosen(), model=model, training=selection, seed=seed)


def recover(
    out: str,
    data: SyntheticData = SyntheticData(),
    model: ModelSettings = ModelSettings(),
    selection: SelectionSettings = SelectionSettings(),
    num_seeds: int = 20,
    first_seed: int = 0,
    sizes: list[int] = [],
    workers: int = 1,
) -> None:
    """Simulate a known agent, fit its sessions as `select` does, and compare the fits with it.

    Args:
        out: The folder of results, with a folder for each seed. Finished seeds are not fitted
            again.
        data: The agent and the sessions of each seed.
        model: Shape of the model, and its penalties at scale 1.
        selection: The penalty scales to try, and how.
        num_seeds: Number of seeds.
        first_seed: The first seed.
        sizes: Several numbers of training sessions, instead of `data.num_sessions`, to see how many
            are needed. Each has a folder in `out`.
        workers: Number of fits at a time, each on one processor.
    """
    check_integer("first_seed", first_seed, 0)
    experiments.commands.recover_sizes(
        out,
        range(first_seed, first_seed + num_seeds),
        data=data,
        model=model,
        selection=selection,
        sizes=sizes,
        workers=workers,
        report=functools.partial(print, flush=True),
    )
    print(f"Wrote {out}")


def evaluate(run: str, table: str | None = None, out: str | None = None) -> None:
    """Score the model of a run, on its own data or on another table with the same columns.

    Args:
        run: The folder of a finished run.
        table: Another table. All of its sessions are scored.
        out: A new JSON file for the scores, which are also printed.
    """
    print(json.dumps(plain(experiments.commands.evaluate_run(run, table, out)), indent=2))


def export_(
    run: str, out: str, format: Literal["saved_model", "reference"] = "saved_model"
) -> None:
    """Export a model for programs that have only TensorFlow, or for the authors' package.

    Args:
        run: The folder of a finished run, or a .keras file.
        out: The new folder.
        format: A SavedModel, or the params.json and config.json of `disentangled-rnns`.
    """
    digest = experiments.commands.export_run(run, out, format)
    if digest is None:
        print(f"Wrote {out}")
        return
    print(f"Wrote {out}: load it with tensorflow.saved_model.load({out!r})")
    print(f"SHA-256 of its manifest: {digest}")


def import_(params: str, out: str, configuration: str | None = None) -> None:
    """Convert a model of the authors' package (`disentangled-rnns`) to one of this package.

    Code in the files is never executed.

    Args:
        params: Its parameters: JSON (.json), or a pickled dict of arrays.
        out: The new .keras file.
        configuration: The fields of its config object: JSON (.json), or a pickle.
    """
    model = experiments.commands.import_model(params, out, configuration)
    print(f"Wrote {out}: {model.core.cell.num_latents} latents, {model.count_params()} parameters")


def plot(run: str, out: str, formats: list[str] = ["png", "pdf"]) -> None:
    """Draw the figures of a run again.

    Args:
        run: The folder of a finished run.
        out: The new folder of figures.
        formats: File name extensions, such as png, pdf and svg.
    """
    experiments.commands.plot_run(run, out, formats)
    print(f"Wrote {out}")


def ablate(
    run: str,
    out: str,
    steps: int | None = None,
    smallest_choice: float = SMALLEST_EFFECT["choice"],
    smallest_dopamine: float = SMALLEST_EFFECT["dopamine"],
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> None:
    """Test which latents of a run the choice readout and the dopamine readout use.

    Args:
        run: The folder of a finished run.
        out: The folder of tables and figures. An interrupted ablation in it is resumed.
        steps: Steps of each retraining. By default those of the run's stage 2.
        smallest_choice: The smallest loss of normalized likelihood that counts.
        smallest_dopamine: The smallest loss of R^2 of dopamine that counts.
        num_bootstrap_samples: Number of bootstrap samples for the intervals.
        seed: Seed of the new readouts' weights, their noise, the batches and the bootstrap.
    """
    ablation = experiments.ablation.ablate_run(
        run,
        out,
        steps=steps,
        smallest_effect={"choice": smallest_choice, "dopamine": smallest_dopamine},
        num_bootstrap_samples=num_bootstrap_samples,
        seed=seed,
    )
    print(f"\n{experiments.ablation.ablation_markdown(ablation)}")
    print(f"Wrote {out}")


def subjects(run: str, out: str, known: str | None = None, column: str = "subject") -> None:
    """Write and draw what the model of a run has learned about each of its subjects.

    Args:
        run: The folder of a finished run of a model with subjects.
        out: The new folder: `embeddings.csv`, with the learning rates of each subject's update
            rules, and the figure `embeddings`. With `known` also `correlations.csv` (Spearman's
            rank correlations) and the figures `known_embeddings` and `known_rates`.
        known: A table with one row per subject and columns of numbers to compare them with.
        column: The column of subjects in that table.
    """
    report = experiments.commands.report_subjects(run, out, known=known, column=column)
    print(report.table.to_string(index=False))
    print(f"\nOpen dimensions: {', '.join(report.dimensions) or 'none'}")
    if report.correlations is not None:
        print(report.correlations.to_string(index=False))
    print(f"Wrote {out}")


def adapt(
    run: str, data: RecordedData, out: str, targets: Literal["choice", "joint"] = "choice"
) -> None:
    """Fit the embeddings of new subjects to a run's model, with everything else frozen, and score.

    Args:
        run: The folder of a finished run of a model with subjects.
        data: The table of the new subjects, its columns, and the sessions held out of the fit.
            Sessions of subjects that the model knows are skipped.
        out: The folder: `model.keras`, with old and new subjects; `subjects.csv`, what was fitted;
            `metrics.json` and `sessions.csv`, the scores of the new subjects before the fit (at the
            mean embedding) and after it; `config.yaml`. An interrupted adaptation is resumed.
        targets: What the embeddings are fitted to: choices only, or choices and dopamine jointly.
    """
    adaptation, scores = experiments.adaptation.adapt_run(run, out, data.chosen(), targets)
    print(adaptation.subjects.to_string(index=False))
    print(experiments.adaptation.summarize_adaptation(scores))
    print(f"Wrote {out}")


def compare(
    out: str,
    data: OptionalTable = OptionalTable(),
    synthetic: SyntheticData = SyntheticData(),
    settings: ComparisonSettings = ComparisonSettings(),
    model: ModelSettings = ModelSettings(),
    training: TrainingSettings = TrainingSettings(),
    selection: SelectionSettings | None = None,
    seed: int = 0,
) -> None:
    """Fit baselines and a DisRNN, score them on training and held-out sessions, and tabulate.

    Args:
        out: The folder of tables and figures. An interrupted comparison in it is resumed.
        data: The table, its columns, and the held-out sessions.
        synthetic: The sessions to simulate if there is no table.
        settings: Which models are fitted, and how they are scored.
        model: Shape and penalties of the DisRNN.
        training: The stages of its training with these penalties.
        selection: Used instead of `training` to choose the penalties: the scales to try, and how
            (give at least `--selection.num_folds 2`).
        seed: Seed of the synthetic data, starts, initial weights, noise, batches and bootstrap.
    """
    table = experiments.comparison.compare(
        out,
        data=experiments.comparison.choose_data(data, synthetic),
        settings=settings,
        model=model,
        training=selection or training,
        seed=seed,
    )
    print(f"\n{experiments.comparison.comparison_markdown(table)}")
    print(f"Wrote {out}")


def study(
    out: str,
    engine: Literal["local", "ray", "inline"] = "local",
    workers: int | None = None,
    threads: int = 1,
    retries: int = 2,
    retry_failed: bool = False,
    **settings: Any,
) -> None:
    """Make many fits, of data sets x subjects x models x penalties x seeds, and report on all.

    The same command resumes a study that was stopped, or whose settings have changed. Only fits
    that do not exist yet are made.

    Args:
        out: The folder of the study.
        engine: Where the fits run: in processes of this machine ("local"), on a Ray cluster ("ray":
            that of RAY_ADDRESS, or one of this machine), or in this process ("inline").
        workers: Number of fits at a time. By default one per processor; 0 to fit nothing and only
            write the report.
        threads: Number of threads of each worker.
        retries: How often a fit is started again after its worker died.
        retry_failed: Whether to make fits again that failed before.
        **settings: The fields of `StudySettings`.
    """
    rows = experiments.study.run_study(
        out,
        StudySettings(**settings),
        engine=engine,
        workers=workers,
        threads=threads,
        retries=retries,
        retry_failed=retry_failed,
        report=functools.partial(print, flush=True),
    )
    for row in rows[rows["state"] == "failed"].itertuples():
        print(f"Failed: {row.data}, {row.subject or 'all subjects'}, {row.model}: {row.error}")
    print(f"Report: {Path(out) / 'report.html'}")


def events(events: str, out: str, settings: EventSettings) -> None:
    """Make a table of trials from a table with one row per event.

    Args:
        events: The table of events (CSV, TSV or Parquet).
        out: The new CSV file.
        settings: The columns and the events, such as `--settings.arms='{left: 0, right: 1}'`.
    """
    tables.write_trials(events, out, settings)
    flags = "--data.columns.missed=missed --data.columns.trial=trial"
    forced = "" if settings.forced is None else " --data.columns.forced=forced"
    print(f"Wrote {out}; read it with --data.table={out} {flags}{forced}")


def simulate(
    model: str,
    out: str,
    environment: EnvironmentSettings = EnvironmentSettings(),
    num_sessions: int = 300,
    num_trials: int | None = None,
    seed: int = 0,
    subject: str | None = None,
) -> None:
    """Let a fitted model play, and write its sessions as a table.

    Args:
        model: A run folder, a .keras file or a SavedModel.
        out: The new table, .csv, .csv.gz or .parquet.
        environment: The task that it plays.
        num_sessions: Number of sessions.
        num_trials: Number of trials in each. By default 200, or as many as the schedule has.
        seed: Seed of the choices, rewards and reward probabilities.
        subject: The subject that plays, if the model has several: its name, or its index in a
            SavedModel.
    """
    size: dict[str, Any] = {"num_sessions": num_sessions, "num_trials": num_trials}
    played = experiments.behaviour.simulate_table(
        model, out, environment=environment, seed=seed, subject=subject, **size
    )
    print(f"Wrote {out}: {num_sessions} sessions, {played.lengths.sum()} trials")


def behaviour(
    data: TableData,
    out: str,
    settings: BehaviourSettings = BehaviourSettings(),
    seed: int = 0,
) -> None:
    """Compare how models play with how the animals of a table play: statistics, distances, figure.

    Args:
        data: The table and its columns. All of its sessions are compared.
        out: The new folder.
        settings: The models, and the task that they play.
        seed: Seed of the fits, the simulations and the bootstrap.
    """
    experiments.commands.print_behaviour(out, data, settings=settings, seed=seed)


def summary(data: RecordedData) -> None:
    """Print what a table holds, by subject: counts, rates, and each observation and signal.

    Args:
        data: The table and its columns. The split is not used.
    """
    experiments.commands.print_summary(data.chosen())


# fmt: off
COMMANDS = (
    demo, fit, select, recover, evaluate, export_, import_, plot, ablate, subjects, adapt, compare,
    study, events, simulate, behaviour, summary,
)
# fmt: on


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after the name of the program. By default those of this process.

    Returns:
        The exit status: 0, 1 after an error, or 130 after an interruption.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        jsonargparse.auto_cli(
            choose_commands(COMMANDS, words, quick=(events,)),
            args=quote_names(words),
            as_positional=False,
            prog="keras-disrnn",
            version=__version__,
            description="Disentangled RNNs of choice and dopamine.",
        )
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"keras-disrnn: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("keras-disrnn: interrupted; give the same command again", file=sys.stderr)
        return 130
    return 0


def _run(command: str, out: str, **settings: Any) -> None:
    metrics = experiments.run.run(command, out, **settings)
    print(f"\n{experiments.metrics.summarize_metrics(metrics)}")
    print(f"Report: {Path(out) / 'report.html'}")
