"""The command line, `keras-disrnn COMMAND`; the commands are the functions below.

Every setting is a flag (`keras-disrnn fit --help`) and can come from a file: `--config
settings.yaml`, such as the `config.yaml` of a run folder; flags override it.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Literal

import jsonargparse
import pandas as pd

from keras_disrnn import native
from keras_disrnn.analysis import (
    comparison_markdown,
    compute_embedding_correlations,
    compute_embeddings,
    compute_subject_rates,
    open_embeddings,
)
from keras_disrnn.data import (
    EventSettings,
    read_table,
    sessions_from_table,
    write_trials,
)
from keras_disrnn.experiments import behaviour as simulation
from keras_disrnn.experiments import comparison as comparisons
from keras_disrnn.experiments import recovery as recoveries
from keras_disrnn.experiments import run as runs
from keras_disrnn.experiments import study as studies
from keras_disrnn.experiments.ablation import SMALLEST_EFFECT, ablation_markdown, compute_ablation
from keras_disrnn.experiments.adaptation import adapt_and_score
from keras_disrnn.experiments.behaviour import BehaviourSettings, EnvironmentSettings
from keras_disrnn.experiments.comparison import ComparisonSettings, OptionalTable
from keras_disrnn.experiments.data import load_data
from keras_disrnn.experiments.figures import draw
from keras_disrnn.experiments.folder import load_results, load_run, load_training, write_config
from keras_disrnn.experiments.selection import SelectionSettings
from keras_disrnn.experiments.settings import (
    BATCH_SIZE,
    SYNTHETIC_COLUMNS,
    ModelSettings,
    SyntheticData,
    TableData,
    TrainingSettings,
    plain_config,
)
from keras_disrnn.experiments.study import BaselineSettings, StudySettings
from keras_disrnn.io.keras_file import load_model, save_model
from keras_disrnn.io.reference_files import CONFIG, PARAMS, read_reference, write_reference
from keras_disrnn.io.saved_model import export as export_model
from keras_disrnn.plots import (
    plot_ablation,
    plot_embeddings,
    plot_recovery,
    plot_recovery_by_sessions,
    save_figure,
)
from keras_disrnn.training.checkpoint import TrainingDiverged
from keras_disrnn.utils.files import new_folder, plain, write_json, write_text


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


def select(
    data: TableData,
    out: str,
    model: ModelSettings = ModelSettings(),  # noqa: B008
    selection: SelectionSettings = SelectionSettings(),  # noqa: B008
    seed: int = 0,
):
    """Fit a table with penalties that are chosen by cross-validation, score, report.

    Args:
        data: The table, its columns, and what is held out (of the choice, too).
        out: The run folder to make; an interrupted run in it goes on.
        model: Shape of the model, and its penalties at the multiple 1.
        selection: The penalties to try, and how.
        seed: Of folds, initial weights, noise and batches.
    """
    _finish(out, runs.run("select", out, data, model, selection, seed))


def recover(
    out: str,
    data: SyntheticData = SyntheticData(),  # noqa: B008
    model: ModelSettings = ModelSettings(),  # noqa: B008
    selection: SelectionSettings = SelectionSettings(),  # noqa: B008
    seeds: int = 20,
    first_seed: int = 0,
    sizes: list[int] = [],  # noqa: B006 - for the parser
    workers: int = 1,
):
    """Make sessions of a known agent, fit them as `select` does, and hold the fits against it.

    Args:
        out: The folder of results, one a seed; seeds that are there already are not fitted again.
        data: The agent and the sessions of each seed.
        model: Shape of the model, and its penalties at the multiple 1.
        selection: The penalties to try, and how.
        seeds: How many seeds.
        first_seed: The first of them.
        sizes: In place of `data.sessions`: several numbers of training sessions, to see how many
            are needed; each has a folder in `out`.
        workers: Fits side by side, each on one processor.
    """
    tables = []
    for size in sizes or [data.sessions]:
        table = recoveries.recover(
            Path(out) / f"sessions-{size}" if sizes else out,
            range(first_seed, first_seed + seeds),
            dataclasses.replace(data, sessions=size),
            model,
            selection,
            workers=workers,
        )
        tables.append(table.assign(sessions=size))
        if sizes:
            print(f"sessions: {size}")
        for name, value in recoveries.summarize_recovery(table).items():
            print(f"{name}: {value:.5g}" if isinstance(value, float) else f"{name}: {value}")
    table = pd.concat(tables, ignore_index=True)
    if sizes:
        write_text(Path(out) / "recovery.csv", table.to_csv(index=False))
    draw = plot_recovery_by_sessions if sizes else plot_recovery
    for ending in ("png", "pdf"):
        save_figure(Path(out) / f"recovery.{ending}", draw, table)
    print(f"Wrote {out}")


def evaluate(run: str, table: str | None = None, out: str | None = None):
    """Score the model of a run, on its own data or on another table of the same columns.

    Args:
        run: The folder of a finished run.
        table: Another table, all of whose sessions are scored.
        out: A new JSON file for the scores; they are printed in any case.
    """
    if out is not None and Path(out).exists():
        raise FileExistsError(f"{out}: exists already; choose a new file")
    model, data, seed = load_run(run)
    if table is None:
        metrics, _ = runs.compute_metrics(model, load_data(data, seed))
    else:
        metrics = runs.score_sessions(model, _read_like(data, table))
    if out is not None:
        write_json(out, metrics)
    print(json.dumps(plain(metrics), indent=2))


def export(run: str, out: str, format: Literal["saved_model", "reference"] = "saved_model"):
    """Write a model for programs that have TensorFlow alone, or for the authors' package.

    Args:
        run: The folder of a finished run, or a .keras file.
        out: The new folder.
        format: A SavedModel; or params.json and config.json of `disentangled-rnns`.
    """
    if Path(run).is_file():
        model, record = load_model(run, kind=None), None
    else:
        (model, _, _), record = load_run(run), run
    if format == "reference":
        write_reference(model, out)
        print(f"Wrote {out}: {PARAMS} and {CONFIG}")
        return
    digest = export_model(model, out, run=record)
    print(f"Wrote {out}: load it with tensorflow.saved_model.load({out!r})")
    print(f"SHA-256 of its manifest: {digest}")


def import_(params: str, out: str, configuration: str | None = None):
    """Make a model of this package from one of the authors' (`disentangled-rnns`).

    Nothing in the files is executed.

    Args:
        params: Its parameters: JSON (.json), or a pickled dict of arrays.
        out: The new .keras file.
        configuration: The fields of its config object: JSON (.json), or a pickle.
    """
    if Path(out).exists():
        raise FileExistsError(f"{out}: exists already; choose a new file")
    if Path(out).suffix != ".keras":
        raise ValueError(f"{out}: expected a file that ends in .keras")
    model = read_reference(params, configuration)
    save_model(model, out)
    print(f"Wrote {out}: {model.core.cell.num_latents} latents, {model.count_params()} parameters")


def plot(run: str, out: str, formats: list[str] = ["png", "pdf"]):  # noqa: B006 - for the parser
    """Draw the figures of a run again.

    Args:
        run: The folder of a finished run.
        out: The new folder of figures.
        formats: Endings of the files, such as png, pdf and svg.
    """
    if Path(out).exists():
        raise FileExistsError(f"{out}: exists already; choose a new folder")
    model, data, seed = load_run(run)
    sessions = load_data(data, seed)
    draw(model, sessions, out, formats=formats, **load_results(run))
    print(f"Wrote {out}")


def ablate(
    run: str,
    out: str,
    steps: int | None = None,
    smallest_choice: float = SMALLEST_EFFECT["choice"],
    smallest_dopamine: float = SMALLEST_EFFECT["dopamine"],
    replicates: int = 2000,
    seed: int = 0,
):
    """Test which latents of a run the choice and the dopamine readout use.

    Args:
        run: The folder of a finished run.
        out: The new folder of tables and figures.
        steps: Steps of each refit; by default those of the run's stage 2.
        smallest_choice: The smallest loss of normalized likelihood that counts.
        smallest_dopamine: The smallest loss of R^2 of dopamine that counts.
        replicates: Resamples of the bootstrap.
        seed: Of the new readouts' weights, their noise, the batches and the resamples.
    """
    if Path(out).exists():
        raise FileExistsError(f"{out}: exists already; choose a new folder")
    model, data, data_seed = load_run(run)
    training = load_training(run)
    if steps is None and not training.stage2_steps:
        raise ValueError(f"steps: expected a number, as {run} has no stage 2 to take it from")
    sessions = load_data(data, data_seed)
    ablation = compute_ablation(
        model,
        sessions.train,
        sessions.held_out,
        steps=training.stage2_steps if steps is None else steps,
        learning_rate=training.learning_rate,
        batch_size=training.batch_size,
        buckets=training.buckets,
        smallest_effect={"choice": smallest_choice, "dopamine": smallest_dopamine},
        replicates=replicates,
        seed=seed,
        progress=print,
    )
    folder = Path(out)
    folder.mkdir(parents=True)
    write_text(folder / "effects.csv", ablation.effects.to_csv(index=False))
    write_text(folder / "verdicts.csv", ablation.verdicts.to_csv(index=False))
    write_text(folder / "ablation.md", ablation_markdown(ablation))
    for ending in ("png", "pdf"):
        save_figure(folder / f"ablation.{ending}", plot_ablation, ablation)
    print(f"\n{ablation_markdown(ablation)}")
    print(f"Wrote {out}")


def subjects(run: str, out: str, known: str | None = None, column: str = "subject"):
    """Write down and draw what the model of a run knows of each of its subjects.

    Args:
        run: The folder of a finished run of a model with subjects.
        out: The new folder: `embeddings.csv`, with the learning rates read off each subject's
            update rules, and the figure `embeddings`; with `known` also `correlations.csv`,
            Spearman's rank correlations, and the figures `known_embeddings` and `known_rates`.
        known: A table with one row a subject and columns of numbers to hold them against.
        column: Its column of subjects.
    """
    if Path(out).exists():
        raise FileExistsError(f"{out}: exists already; choose a new folder")
    facts = None
    if known is not None:
        facts = read_table(known, text=[column])
        if column not in facts:
            raise ValueError(f"{known}: no column {column!r}, got {', '.join(facts.columns)}")
        facts = facts.assign(subject=facts[column])
    model, data, seed = load_run(run)
    embeddings, dimensions = compute_embeddings(model), open_embeddings(model)
    if facts is not None:
        correlations = compute_embedding_correlations(embeddings, facts)
    rates = compute_subject_rates(model, load_data(data, seed).train)
    if facts is not None:
        more = compute_embedding_correlations(rates, facts)
        correlations = pd.concat([correlations, more], ignore_index=True)
    table = embeddings.merge(rates, on="subject", how="left")
    figures = {"embeddings": (embeddings,)}
    if facts is not None:
        figures |= {"known_embeddings": (embeddings, facts), "known_rates": (rates, facts)}
    with new_folder(out) as folder:
        write_text(folder / "embeddings.csv", table.to_csv(index=False))
        for name, shown in figures.items():
            which = None if name == "known_rates" else dimensions
            for ending in ("png", "pdf"):
                save_figure(folder / f"{name}.{ending}", plot_embeddings, *shown, dimensions=which)
        if facts is not None:
            write_text(folder / "correlations.csv", correlations.to_csv(index=False))
    print(table.to_string(index=False))
    print(f"\nOpen dimensions: {', '.join(dimensions) or 'none'}")
    if facts is not None:
        print(correlations.to_string(index=False))
    print(f"Wrote {out}")


def adapt(run: str, data: TableData, out: str, targets: Literal["choice", "joint"] = "choice"):
    """Fit the embeddings of new subjects to a run's model, the rest of it frozen, and score them.

    Args:
        run: The folder of a finished run of a model with subjects.
        data: The table of the new subjects, its columns, and what is held out of the fit (sessions
            of subjects that the model has seen are passed over).
        out: The new folder: `model.keras`, of old and new subjects; `subjects.csv`, what was
            fitted; `metrics.json` and `sessions.csv`, the scores of training and held-out sessions
            of the new subjects, before the fit (at the mean embedding) and after; `config.yaml`.
        targets: What the embeddings are fitted to: choices alone, or choices and dopamine jointly.
    """
    if Path(out).exists():
        raise FileExistsError(f"{out}: exists already; choose a new folder")
    model, _, _ = load_run(run)
    parts = load_data(data, 0)
    adaptation, scores, sessions = adapt_and_score(
        model, parts.train, parts.held_out, targets, BATCH_SIZE
    )
    with new_folder(out) as folder:
        config = {"run": run, "data": data, "targets": targets}
        write_config(folder, plain_config(config))
        write_text(folder / "subjects.csv", adaptation.subjects.to_csv(index=False))
        write_text(folder / "sessions.csv", sessions.to_csv(index=False))
        write_json(folder / "metrics.json", scores)
        save_model(adaptation.model, folder / "model.keras")
    print(adaptation.subjects.to_string(index=False))
    for kind, score, name in (
        ("choice", "normalized_likelihood", "normalized likelihood"),
        ("dopamine", "mse", "mean squared error of dopamine"),
    ):
        if kind in scores["after"]["held_out"]:
            before, after = (scores[moment]["held_out"][kind][score] for moment in scores)
            print(
                f"Held-out sessions of new subjects: {name} {before:.4f} at the mean embedding, "
                f"{after:.4f} at their own"
            )
    print(f"Wrote {out}")


def compare(
    out: str,
    data: OptionalTable = OptionalTable(),  # noqa: B008
    synthetic: SyntheticData = SyntheticData(),  # noqa: B008
    settings: ComparisonSettings = ComparisonSettings(),  # noqa: B008
    model: ModelSettings = ModelSettings(),  # noqa: B008
    training: TrainingSettings = TrainingSettings(),  # noqa: B008
    selection: SelectionSettings | None = None,
    seed: int = 0,
):
    """Fit baselines and a DisRNN, score them on training and held-out sessions, tabulate.

    Args:
        out: The new folder of tables and figures.
        data: The table, its columns, and what is held out.
        synthetic: The sessions to make where there is no table.
        settings: Which models are fitted, and how they are scored.
        model: Shape and penalties of the DisRNN.
        training: The stages of its training with these penalties.
        selection: In place of `training`: the penalties to choose from, and how (say at least
            `--selection.folds 2`).
        seed: Of synthetic data, starts, initial weights, noise, batches and resamples.
    """
    # The parser makes a list of a tuple, so the two are compared as plain values.
    given, default = (plain_config({"data": each}) for each in (data, OptionalTable()))
    if data.table is None and given != default:
        raise ValueError("data.table: expected a file, as other settings of data are given")
    chosen = synthetic if data.table is None else data
    table = comparisons.compare(out, chosen, settings, model, selection or training, seed)
    print(f"\n{comparison_markdown(table)}")
    print(f"Wrote {out}")


def study(
    data: dict[str, TableData],
    out: str,
    subjects: Literal["each", "pooled", "both"] = "each",
    models: dict[str, ModelSettings] = {"DisRNN": ModelSettings()},  # noqa: B006, B008
    scales: list[float] = [1.0],  # noqa: B006
    seeds: list[int] = [0],  # noqa: B006
    training: TrainingSettings = TrainingSettings(),  # noqa: B008
    baselines: BaselineSettings = BaselineSettings(),  # noqa: B008
    against: str | None = None,
    replicates: int = 2000,
    figures: bool = False,
    engine: Literal["local", "ray", "inline"] = "local",
    workers: int | None = None,
    threads: int = 1,
    retries: int = 2,
    retry_failed: bool = False,
):
    """Make many fits, of data sets x subjects x models x penalties x seeds, and report on all.

    The same command goes on with a study that was stopped, or whose settings have changed: only
    fits that are not there yet are made.

    Args:
        data: The tables, by name, each as for `fit`.
        out: The folder of the study.
        subjects: Whether a model is fitted to each subject, to all of them pooled, or both.
        models: Shapes and penalties of DisRNNs, by name.
        scales: Multiples of all their penalties but `l2_scale`, rising.
        seeds: Of initial weights, noise, batches and starts.
        training: The stages of training.
        baselines: The baselines, and how they are fitted.
        against: The model that differences are taken to; by default the first baseline.
        replicates: Resamples of the bootstrap.
        figures: Whether each fit gets its figures and its export, too.
        engine: Fits run in processes of this machine ("local"), on a Ray cluster ("ray"; that of
            RAY_ADDRESS, or of this machine), or in this process ("inline").
        workers: Fits at a time; by default one for each processor, 0 to fit nothing and report.
        threads: Threads of each.
        retries: How often a fit is begun again whose worker died.
        retry_failed: Whether to try fits again that failed before.
    """
    settings = StudySettings(
        data,
        subjects,
        models,
        scales,
        seeds,
        training,
        baselines,
        against,
        replicates,
        figures,
    )
    rows = studies.run_study(
        out,
        settings,
        engine=engine,
        workers=workers,
        threads=threads,
        retries=retries,
        retry_failed=retry_failed,
        report=lambda line: print(line, flush=True),
    )
    for row in rows[rows["state"] == "failed"].itertuples():
        print(f"Failed: {row.data}, {row.subject or 'all subjects'}, {row.model}: {row.error}")
    print(f"Report: {Path(out) / 'report.html'}")


def events(events: str, out: str, settings: EventSettings):
    """Make a table of trials from a table with one row an event.

    Args:
        events: The table of events (CSV, TSV or Parquet).
        out: The new CSV file.
        settings: The columns and the events, such as `--settings.arms='{left: 0, right: 1}'`.
    """
    write_trials(events, out, settings)
    flags = "--data.columns.missed=missed --data.columns.trial=trial"
    forced = "" if settings.forced is None else " --data.columns.forced=forced"
    print(f"Wrote {out}; read it with --data.table={out} {flags}{forced}")


def simulate(
    model: str,
    out: str,
    environment: EnvironmentSettings = EnvironmentSettings(),  # noqa: B008
    sessions: int = 300,
    trials: int | None = None,
    seed: int = 0,
    subject: str | None = None,
):
    """Let a fitted model play, and write its sessions as a table like any other.

    Args:
        model: A run folder, a .keras file or a SavedModel.
        out: The new table, .csv, .csv.gz or .parquet.
        environment: What it plays.
        sessions: Number of sessions.
        trials: Trials of each; by default 200, or as many as the schedule has.
        seed: Of choices, rewards and reward probabilities.
        subject: Of a model of several subjects, the one that plays: its name, or, of a SavedModel,
            its index.
    """
    played = simulation.simulate_table(model, out, environment, sessions, trials, seed, subject)
    print(f"Wrote {out}: {sessions} sessions, {played.lengths.sum()} trials")


def behaviour(
    data: TableData,
    out: str,
    settings: BehaviourSettings = BehaviourSettings(),  # noqa: B008
    seed: int = 0,
):
    """Compare how models play with how the animals of a table do: statistics, distances, figure.

    Args:
        data: The table and its columns; all of its sessions are compared.
        out: The new folder.
        settings: The models, and what they play.
        seed: Of fits, simulations and resamples.
    """
    found, distances = simulation.compare_behaviour(out, data, settings, seed)
    for statistic, reason in found["animals"].skipped.items():
        print(f"Left out {statistic}: {reason}")
    if len(distances):
        print(distances.round(4).to_string(index=False))
    print(f"Wrote {out}")


COMMANDS = (
    demo,
    fit,
    select,
    recover,
    evaluate,
    export,
    import_,
    plot,
    ablate,
    subjects,
    adapt,
    compare,
    study,
    events,
    simulate,
    behaviour,
)


def main(arguments=None):
    """Runs the command line; returns its exit status.

    Args:
        arguments: The words after the program's name; by default those of the process.
    """
    native.yield_processors()
    try:
        jsonargparse.auto_cli(
            {command.__name__.rstrip("_"): command for command in COMMANDS},
            args=arguments,
            as_positional=False,
            prog="keras-disrnn",
            description="Disentangled RNNs of choice and dopamine.",
        )
    except (ValueError, OSError, TrainingDiverged) as error:
        print(f"keras-disrnn: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Most go on with what they kept; `ablate` and others that take minutes begin again.
        print("keras-disrnn: interrupted; give the same command again", file=sys.stderr)
        return 130
    return 0


def _read_like(data, table):
    if not isinstance(data, TableData):
        columns = SYNTHETIC_COLUMNS
        return sessions_from_table(table, columns)
    return sessions_from_table(
        table, data.columns, num_arms=data.num_arms, reward_kind=data.reward_kind
    )


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
