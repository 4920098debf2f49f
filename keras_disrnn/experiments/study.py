"""A study: many fits of many subjects, models, penalties and seeds, in one folder.

The folder holds

- `config.yaml`, the study, as the command line takes it with `--config`;
- `study.sqlite`, whose table `fits` has one row a fit, kept up to date while the study runs;
- `fits/KEY/` of each fit: `run/`, for a DisRNN a run folder as `fit` makes it; `fit.json`, what was
  found, written last, or `failure.json`; and `log.txt`;
- the results: `fits.csv`, the tables of `keras_disrnn.analysis.studies` as CSV, `table.md` and
  `table.tex`, `figures/`, and `report.html`.

KEY is a digest of all that a fit depends on: the contents of the data file, the settings, the seed
and the versions of the packages that compute. So whatever changes in a study, only fits that are
not there yet are made, and a fit that was interrupted goes on from its checkpoint.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import re
import shutil
import sqlite3
import statistics
import sys
import time
import traceback
from pathlib import Path
from typing import Literal

import keras
import pandas as pd
import yaml

from keras_disrnn.analysis import (
    comparison_latex,
    comparison_markdown,
    compute_agreement,
    compute_evaluation,
    compute_graph_clusters,
    compute_study_table,
    compute_subject_scores,
)
from keras_disrnn.analysis.graph import graph_from_dict
from keras_disrnn.analysis.studies import StudyFit, describe, row_names
from keras_disrnn.data import Columns
from keras_disrnn.experiments import comparison as comparisons
from keras_disrnn.experiments.comparison import ComparisonSettings
from keras_disrnn.experiments.data import load_data
from keras_disrnn.experiments.folder import write_config
from keras_disrnn.experiments.report import STUDY_FIGURES, write_study_report
from keras_disrnn.experiments.run import make_model, possible_training, run
from keras_disrnn.experiments.settings import (
    BATCH_SIZE,
    ModelSettings,
    TableData,
    TrainingSettings,
    plain_config,
)
from keras_disrnn.experiments.workers import check_engine, run_tasks
from keras_disrnn.io.keras_file import save_model
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.plots import (
    plot_comparison,
    plot_penalty_curves,
    plot_subject_scores,
    save_figure,
)
from keras_disrnn.training.fit import check_training
from keras_disrnn.training.stages import STAGES
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.files import write_atomically, write_json, write_text

SCALED = tuple(name for name, penalty in PENALTIES.items() if penalty.stage is not None)
"""What a multiple multiplies."""

COMPUTING = ("keras-disrnn", "tensorflow", "keras", "numpy", "scipy")
"""The packages whose versions a fit's key has."""

# === Settings ===


@dataclasses.dataclass(frozen=True)
class BaselineSettings:
    """Which baselines are fitted, and how (see `keras_disrnn.compare`).

    Args:
        names: Names of rows of the table of `keras-disrnn compare`: "naive", "FQ, choice", "Q,
            dopamine", "GRU, joint" and so on ("affine" excepted).
        starts: Random starts of each cognitive fit.
        gru_units: Width of the GRU.
        gru_steps: Most steps of its training.
    """

    names: list[str] = dataclasses.field(default_factory=lambda: ["naive"])
    starts: int = 8
    gru_units: int = 16
    gru_steps: int = 400

    def __post_init__(self):
        for name in ("starts", "gru_units", "gru_steps"):
            check_integer(f"baselines.{name}", getattr(self, name), 1)


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """What a study fits: data sets x subjects x models x penalties x seeds.

    Args:
        data: The tables, by name, each with its columns and split.
        subjects: Whether a model is fitted to "each" subject, to all of them "pooled", or "both".
        models: Shapes and penalties of DisRNNs, by name.
        scales: Multiples of all their penalties but `l2_scale`, rising.
        seeds: Of initial weights, noise, batches and starts. Baselines but the GRU are fitted with
            the first alone.
        training: The stages of training.
        baselines: The baselines.
        against: The model of Table 1 that differences are taken to; by default the first baseline,
            or else the first model.
        replicates: Resamples of the bootstrap.
        figures: Whether each fit gets its figures and its export, which may take longer than a
            short fit does; `keras-disrnn plot` and `export` make them later.
    """

    data: dict[str, TableData]
    subjects: Literal["each", "pooled", "both"] = "each"
    models: dict[str, ModelSettings] = dataclasses.field(
        default_factory=lambda: {"DisRNN": ModelSettings()}
    )
    scales: list[float] = dataclasses.field(default_factory=lambda: [1.0])
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0])
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    baselines: BaselineSettings = dataclasses.field(default_factory=BaselineSettings)
    against: str | None = None
    replicates: int = 2000
    figures: bool = False

    def __post_init__(self):
        if not self.data:
            raise ValueError("data: expected at least one table, by name, got none")
        for name in self.data:
            # It begins the names of figures.
            if not re.fullmatch(r"\w[\w .+-]*", name):
                raise ValueError(
                    "data: expected names of letters, digits, spaces and _ . + -, which files can "
                    f"have, got {name!r}"
                )
        if not self.models and not self.baselines.names:
            raise ValueError("models and baselines.names: expected at least one model, got none")
        rising = all(b > a for a, b in zip([0, *self.scales], self.scales, strict=False))
        if not self.scales or not rising:
            raise ValueError(f"scales: expected rising numbers above 0, got {self.scales}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected at least one, each once, got {self.seeds}")
        for seed in self.seeds:
            check_integer("seeds", seed, 0)
        check_integer("replicates", self.replicates, 1)
        if self.training.tensorboard is not None:
            raise ValueError(
                "training.tensorboard: expected none in a study, whose fits would all write there, "
                f"got {self.training.tensorboard!r}"
            )
        both = sorted(set(self.models) & set(self.baselines.names))
        if both:
            raise ValueError(
                f"models: expected names other than those of baselines, got {both[0]!r}"
            )


# === The plan ===


@dataclasses.dataclass(frozen=True)
class PlannedFit:
    """A fit of a study.

    Attributes:
        data: Name of the table.
        subject: The subject, or `None` for all of them together.
        model: Name of the model or the baseline.
        scale: Multiple of the penalties; `None` for a baseline.
        seed: The seed.
        config: All settings, in plain types: of a DisRNN those of `fit`; of a baseline `data`,
            `baseline` and `seed`.
        digest: Digest of the data file.
        key: Digest of all that the fit depends on.
    """

    data: str
    subject: str | None
    model: str
    scale: float | None
    seed: int
    config: dict
    digest: str
    key: str

    @property
    def label(self):
        """The fit in words."""
        scale = "" if self.scale is None else f" x{self.scale:g}"
        return (
            f"{self.data}, {self.subject or 'all subjects'}, {self.model}{scale}, seed {self.seed}"
        )


def plan_study(settings):
    """Lists the fits of a study, and refuses what could not be fitted.

    Args:
        settings: `StudySettings`.

    Returns:
        A list of `PlannedFit`, and a dict of data set to its `RunData`.

    Raises:
        FileNotFoundError, ValueError: If a file, a column, a name or a number is wrong; the message
            begins with the data set or the setting.
    """
    fits, loaded = [], {}
    versions = {name: importlib.metadata.version(name) for name in COMPUTING}
    for name, given in settings.data.items():
        table = dataclasses.replace(given, table=str(Path(given.table).resolve()))
        try:
            whole = loaded[name] = load_data(table, 0)
            digest = _digest(table.table)
            networks = {model: _make(whole, model, settings) for model in settings.models}
            for subject in _subjects(settings, whole):
                data = table if subject is None else dataclasses.replace(table, subjects=[subject])
                part = whole if subject is None else load_part(whole, subject)
                _check_held_out(part, subject)
                fits += _plan_models(
                    settings, networks, name, subject, data, part, digest, versions
                )
                fits += _plan_baselines(settings, name, subject, data, part.train, digest, versions)
        except (ValueError, OSError) as error:
            raise type(error)(f"data.{name}: {error}") from error
    names = {name for one in loaded for name in row_names([f for f in fits if f.data == one])}
    if settings.against not in (None, *names):
        raise ValueError(
            f"against: expected one of {', '.join(map(repr, sorted(names)))}, "
            f"got {settings.against!r}"
        )
    return fits, loaded


def load_part(whole, subject):
    """A `RunData` of the sessions of one subject."""
    parts = {}
    for part in ("train", "held_out"):
        sessions = getattr(whole, part)
        if subject not in sessions.subjects:
            raise ValueError(
                f"subject {subject!r} has no session in the {part.replace('_', '-')} part: hold "
                'out others, leave it out with "subjects", or fit all subjects "pooled"'
            )
        parts[part] = sessions.of_subjects([subject])
    return dataclasses.replace(whole, **parts, truth=None)


def _subjects(settings, whole):
    pooled, each = [None], list(dict.fromkeys([*whole.train.subjects, *whole.held_out.subjects]))
    return {"each": each, "pooled": pooled, "both": each + pooled}[settings.subjects]


def _check_held_out(part, subject):
    if not part.held_out.choice_weight.any():
        who = "" if subject is None else f" of subject {subject!r}"
        raise ValueError(
            f"expected a free choice{who} in the held-out part to score models by, got none: hold "
            "out other sessions"
        )


def _digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _make(data, model, settings):
    """A model to check with: seeds and multiples change no shape."""
    try:
        return make_model(data.train, settings.models[model], 0)
    except ValueError as error:
        raise ValueError(f"models.{model}: {error}") from error


def _plan_models(settings, networks, name, subject, data, part, digest, versions):
    for model, shape in settings.models.items():
        training = possible_training(part.train, settings.training)
        steps = {stage: getattr(training, f"{stage}_steps") for stage in STAGES}
        # Which subjects there are changes the shape only where a model tells them apart.
        network = networks[model]
        if subject is not None and shape.subject_units:
            network = _make(part, model, settings)
        try:
            check_training(
                network,
                part.for_model(network).train,
                steps,
                steps_per_epoch=training.steps_per_epoch,
                learning_rate=training.learning_rate,
                settle_steps=training.settle_steps,
            )
        except ValueError as error:
            who = "" if subject is None else f"subject {subject!r}, "
            raise ValueError(f"{who}models.{model}: {error}") from error
        for scale in settings.scales:
            scaled = {penalty: getattr(shape, penalty) * scale for penalty in SCALED}
            for seed in settings.seeds:
                config = plain_config(
                    {
                        "data": data,
                        "model": dataclasses.replace(shape, **scaled),
                        "training": settings.training,
                        "seed": seed,
                    }
                )
                key = _key(config, digest, versions, figures=settings.figures)
                yield PlannedFit(name, subject, model, scale, seed, config, digest, key)


def _plan_baselines(settings, name, subject, data, train, digest, versions):
    chosen = settings.baselines
    known = [
        label
        for label in comparisons.plan_models(train, _comparison(chosen), None, None, 0)
        if not label.endswith(", affine")
    ]
    for label in chosen.names:
        if label not in known:
            raise ValueError(
                f"baselines.names: expected names of {', '.join(map(repr, known))}, got {label!r}"
            )
        kind = {"naive": (), "GRU, choice": ("gru_units", "gru_steps")}
        kind["GRU, joint"] = kind["GRU, choice"]
        used = kind.get(label, ("starts",))
        for seed in settings.seeds if label.startswith("GRU") else settings.seeds[:1]:
            baseline = {"name": label, **{field: getattr(chosen, field) for field in used}}
            config = plain_config({"data": data, "baseline": baseline, "seed": seed})
            key = _key(config, digest, versions)
            yield PlannedFit(name, subject, label, None, seed, config, digest, key)


def _comparison(baseline):
    return ComparisonSettings(
        starts=baseline.starts,
        gru_units=baseline.gru_units,
        gru_steps=baseline.gru_steps,
        disrnn=False,
    )


def _key(config, digest, versions, **further):
    # The same data elsewhere are the same data.
    data = {name: value for name, value in config["data"].items() if name != "table"}
    content = {**config, "data": data, "digest": digest, "versions": versions, **further}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


# === One fit ===


def make_fit(folder, config, digest, figures=False):
    """Makes a fit's folder, or goes on with it.

    Args:
        folder: The folder of the fit.
        config, digest: Those of a `PlannedFit`.
        figures: Whether to draw figures and to export.

    Returns:
        The contents of fit.json: `scores`, the row of the study's table; `graph`, of a DisRNN; and
        the `config`.

    Raises:
        ValueError: If the data file is no longer the one that the fit was planned for.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (
        open(folder / "log.txt", "a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
    ):
        try:
            if _digest(config["data"]["table"]) != digest:
                raise ValueError(
                    f"{config['data']['table']}: expected the table as it was when the study began,"
                    " but it has changed since; give the command again"
                )
            if "baseline" in config:
                found = _make_baseline(folder / "run", config)
            else:
                found = _make_disrnn(folder / "run", config, figures)
        except Exception:
            traceback.print_exc(file=log)
            raise
        finally:
            # A worker makes many models; Keras would keep them all.
            keras.backend.clear_session()
    found["scores"] = {
        "seconds": time.monotonic() - began,
        "mebibytes": _peak_memory(),
        **found["scores"],
    }
    found["config"] = config
    (folder / "failure.json").unlink(missing_ok=True)
    write_json(folder / "fit.json", found)
    return found


def _make_disrnn(out, config, figures):
    _clear(out, config)
    if not (out / "report.html").exists():
        data = _data_of(config)
        model, training = ModelSettings(**config["model"]), TrainingSettings(**config["training"])
        run("fit", out, data, model, training, config["seed"], full=figures)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    history = pd.read_csv(out / "history.csv")
    of_choice = history[history["stage"] != "stage2"]
    graph = graph_from_dict(metrics["graph"])
    scores = _scores(metrics) | {
        "loss": float((of_choice if len(of_choice) else history)["loss"].iloc[-1]),
        "parameters": metrics["parameters"],
        "open_latents": len(metrics["open_latents"]),
        "edges": graph.number_of_edges(),
        "graph": describe(graph),
        # Those before an interruption, too.
        "seconds": sum(metrics["seconds"].values()),
    }
    return {"scores": scores, "graph": metrics["graph"]}


def _make_baseline(out, config):
    out.mkdir(exist_ok=True)
    sessions = load_data(_data_of(config), config["seed"])
    settings = dict(config["baseline"])
    name = settings.pop("name")
    plan = comparisons.plan_models(
        sessions.train, _comparison(BaselineSettings(**settings)), None, None, config["seed"]
    )
    model = plan[name](sessions.train, {}, None)
    metrics, tables = {}, []
    for part in ("train", "held_out"):
        evaluation = compute_evaluation(model, getattr(sessions, part), batch_size=BATCH_SIZE)
        metrics[part] = evaluation.summary
        tables.append(evaluation.per_session.assign(part=part))
    metrics["parameters"] = getattr(model, "parameter_count", None) or model.count_params()
    write_config(out, config)
    write_text(out / "sessions.csv", pd.concat(tables).to_csv(index=False))
    if getattr(model, "last_fit", None) is not None:
        write_text(out / "estimates.csv", model.last_fit.estimates.to_csv(index=False))
    write_json(out / "metrics.json", metrics)
    save_model(model, out / "model.keras")
    scores = _scores(metrics)
    # What is minimised without penalties, to choose among seeds by.
    loss = -scores["train_likelihood"]
    return {"scores": scores | {"loss": loss, "parameters": metrics["parameters"]}, "graph": None}


def _data_of(config):
    return TableData(**{**config["data"], "columns": Columns(**config["data"]["columns"])})


def _clear(out, config):
    """Removes what a run cannot go on from: one whose settings were not yet written when it was
    stopped, or whose data have moved.
    """
    try:
        same = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8")) == config
    except OSError:
        same = False
    if out.exists() and not same and not (out / "report.html").exists():
        shutil.rmtree(out)


def _scores(metrics):
    scores = {}
    for part, prefix in (("train", "train_"), ("held_out", "")):
        choice, dopamine = metrics[part]["choice"], metrics[part].get("dopamine", {})
        scores |= {
            f"{prefix}likelihood": choice["normalized_likelihood"],
            f"{prefix}likelihood_se": choice["normalized_likelihood_se"],
            f"{prefix}mse": dopamine.get("mse"),
            f"{prefix}r2": dopamine.get("r2"),
        }
    return scores


def _peak_memory():
    """Peak memory of this process, MiB; `None` where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, and not KiB.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# === The study ===


def run_study(
    out,
    settings,
    *,
    engine="local",
    workers=None,
    threads=1,
    retries=2,
    retry_failed=False,
    report=print,
):
    """Makes the fits of a study that are not there yet, and the report of all.

    Args:
        out: The folder of the study. One that holds a study, of these settings or of others, goes
            on: what is there already is taken as it is.
        settings: `StudySettings`.
        engine, threads, retries: As for `run_tasks`.
        workers: Fits at a time; `None` for as many as there are processors, 0 to report what is
            there and fit nothing.
        retry_failed: Whether fits that failed before are tried again.
        report: Called with a line of text as fits end, and every half minute while none does.

    Returns:
        A `pandas.DataFrame`, one row a fit: `data`, `subject` (`None` for all together), `model`,
        `scale`, `seed`, `state` (`"done"`, `"failed"` or `"waiting"`), the scores, `error`, `key`.

    Raises:
        FileExistsError: If the folder holds anything else, or the study runs already.
        FileNotFoundError, ValueError: If a setting or the data are wrong; nothing is fitted then.
    """
    out = Path(out)
    # The lock is there before anything else is, however early a study was stopped.
    ours = any((out / name).exists() for name in (".lock", "study.sqlite"))
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: exists and holds no study; choose a new folder")
    check_engine(engine, workers or None, threads, retries)
    began = time.monotonic()
    fits, loaded = plan_study(settings)
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out), contextlib.closing(_Table(out, fits, retry_failed)) as table:
        (out / "fits").mkdir(exist_ok=True)
        write_config(out, plain_config({"study": settings})["study"])
        progress = _Progress(out, table, fits, report)
        report(f"{progress.line()} | checked in {time.monotonic() - began:.0f} s")
        # Absolute, as a worker on a cluster may stand elsewhere.
        tasks = [
            ((out / "fits" / key).resolve(), fit.config, fit.digest, settings.figures)
            for key, fit in table.left.items()
        ]
        if tasks and workers != 0:
            for outcome in run_tasks(
                make_fit,
                tasks,
                engine=engine,
                workers=workers,
                threads=threads,
                retries=retries,
                started=lambda task: progress.started(task[0].name),
                waiting=progress.waiting,
            ):
                progress.ended(outcome.task[0].name, outcome)
        rows = table.rows()
        write_study(out, settings, fits, rows, loaded)
    return rows


@contextlib.contextmanager
def _lock(out):
    """Keeps a second process out; the lock goes with the process, however it ends."""
    connection = sqlite3.connect(out / ".lock", timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise FileExistsError(f"{out}: this study runs already, in another process") from error
        raise OSError(f"{out}: expected a folder to write in, got {error}") from error
    try:
        yield
    finally:
        connection.close()


_COLUMNS = {
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
"""Of the table `fits`."""


class _Table:
    """The table `fits` of study.sqlite.

    What counts are the folders of the fits: the table is made anew from them. The file is written
    as a whole, so that nobody who reads it can hold the study up.
    """

    def __init__(self, out, fits, retry_failed):
        self._path = out / "study.sqlite"
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
        self._connection.execute(f"CREATE TABLE fits ({columns})")
        self._connection.execute("CREATE INDEX keys ON fits (key)")
        self.left = {}
        for fit in fits:
            names = ("data", "subject", "model", "scale", "seed", "key")
            row = {name: getattr(fit, name) for name in names}
            row |= _read_fit(out / "fits" / fit.key, retry_failed)
            if row["state"] == "waiting":
                self.left[fit.key] = fit
            places = ", ".join("?" * len(_COLUMNS))
            values = [row.get(name) for name in _COLUMNS]
            self._connection.execute(f"INSERT INTO fits VALUES ({places})", values)
        self._write()

    def _write(self):
        write_atomically(self._path, lambda file: file.write(self._connection.serialize()))

    def close(self):
        self._connection.close()

    def update(self, key, **values):
        """Changes every row of a key: fits that are the same are made once."""
        names = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE fits SET {names} WHERE key = ?", [*values.values(), key])
        self._write()

    def rows(self):
        rows = pd.read_sql_query("SELECT * FROM fits ORDER BY rowid", self._connection)
        subjects = rows["subject"].astype(object)
        return rows.assign(subject=subjects.where(subjects.notna(), None))


def _read_fit(folder, retry_failed):
    """Cells of a fit's row, from its folder."""
    for name, state in (("fit.json", "done"), ("failure.json", "failed")):
        try:
            stored = json.loads((folder / name).read_text(encoding="utf-8"))
        except OSError:
            continue
        if state == "done":
            return {"state": state, **stored["scores"]}
        if not retry_failed:
            return {"state": state, "error": stored["error"]}
    return {"state": "waiting"}


class _Progress:
    """Keeps the table up to date, and tells how far the study is.

    The time left is told from the mean time of the fits that are done: of the same data set and
    model, of subjects alone or together; or else of all.
    """

    def __init__(self, out, table, fits, report):
        self._out, self._table, self._report = out, table, report
        self._fits = {fit.key: fit for fit in fits}
        self._running = {}
        self._seconds = {}
        self._told = time.monotonic()
        self._most = 1
        for row in table.rows().itertuples():
            if row.state == "done":
                self._note(row.key, row.seconds)

    def started(self, key):
        self._running[key] = time.monotonic()
        self._most = max(self._most, len(self._running))
        self._table.update(key, state="running", began=time.time())

    def ended(self, key, outcome):
        fit = self._fits[key]
        if outcome.error is None:
            scores = outcome.value["scores"]
            self._note(key, scores["seconds"])
            self._table.update(key, state="done", **scores)
            what = f"likelihood {scores['likelihood']:.4f}, {scores['seconds']:.0f} s"
        else:
            error = f"{type(outcome.error).__name__}: {outcome.error}"
            folder = self._out / "fits" / key
            folder.mkdir(parents=True, exist_ok=True)
            failure = {"error": error, "traceback": outcome.traceback, "config": fit.config}
            write_json(folder / "failure.json", failure)
            self._table.update(key, state="failed", error=error)
            what = f"FAILED: {error}"
        del self._running[key]
        self._tell(f"{fit.label}: {what}")

    def waiting(self):
        if time.monotonic() - self._told > 30:
            now = time.monotonic()
            self._tell(
                "; ".join(
                    f"{self._fits[key].label} for {now - since:.0f} s"
                    for key, since in self._running.items()
                )
            )

    def _kind(self, key):
        fit = self._fits[key]
        return fit.data, fit.subject is None, fit.model

    def _note(self, key, seconds):
        self._seconds.setdefault(self._kind(key), []).append(seconds)

    def _tell(self, what):
        self._told = time.monotonic()
        self._report(f"{self.line()} | {what}")

    def line(self):
        """How many fits are done, run, have failed and wait, and how long that will take."""
        rows = self._table.rows().drop_duplicates("key")
        counts = rows["state"].value_counts()
        parts = [f"{counts.get('done', 0)} of {len(rows)} done"]
        parts += [
            f"{counts[state]} {state}" for state in ("running", "failed") if counts.get(state, 0)
        ]
        known = [seconds for each in self._seconds.values() for seconds in each]
        left = rows["key"][rows["state"].isin(["waiting", "running"])]
        if known and len(left):
            seconds = 0.0
            for key in left:
                mean = statistics.fmean(self._seconds.get(self._kind(key), known))
                run_for = time.monotonic() - self._running.get(key, time.monotonic())
                seconds += max(mean - run_for, 0.0)
            parts.append(f"about {_duration(seconds / self._most)} left")
        return ", ".join(parts)


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# === Results ===


def write_study(out, settings, fits, rows, loaded):
    """Writes the tables, the figures and the report of a study from the fits that are done.

    Args:
        out: The folder of the study.
        settings: `StudySettings`.
        fits: The `PlannedFit`s.
        rows: What `run_study` returns.
        loaded: Data set to `RunData`.
    """
    out = Path(out)
    write_text(out / "fits.csv", rows.to_csv(index=False))
    done = [
        _read_study_fit(out / "fits" / fit.key, fit)
        for fit, state in zip(fits, rows["state"], strict=True)
        if state == "done"
    ]
    results, figures = {}, out / "figures"
    # None of what other settings once made is to be taken for a result of these.
    for kind in STUDY_FIGURES:
        for ending in ("png", "pdf"):
            for old in figures.glob(f"*_{kind}.{ending}"):
                old.unlink()
    tables = {name: [] for name in ("table", "subjects", "agreement", "graphs")}
    markdown, latex = [], []
    for name, data in loaded.items():
        own = [fit for fit in done if fit.data == name]
        if not own:
            continue
        parts = {"train": data.train, "held_out": data.held_out}
        table, left_out = compute_study_table(
            own,
            parts,
            against=settings.against or next(iter(settings.baselines.names), None),
            replicates=settings.replicates,
        )
        found = {
            "table": table,
            "subjects": compute_subject_scores(own, data.held_out),
            "agreement": compute_agreement(own),
            "graphs": compute_graph_clusters(own),
        }
        pictures = {"subjects": (plot_subject_scores, found["subjects"])}
        if any(fit.scale is not None for fit in own):
            pictures["curves"] = (plot_penalty_curves, own)
        if table is not None:
            markdown.append(f"# {name}\n\n{comparison_markdown(table)}")
            latex.append(f"% {name}\n{comparison_latex(table)}")
            pictures["scores"] = (plot_comparison, table)
        for figure, (plot, shown) in pictures.items():
            for ending in ("png", "pdf"):
                save_figure(figures / f"{name}_{figure}.{ending}", plot, shown)
        results[name] = {**found, "left_out": left_out}
        for kind, each in found.items():
            if each is not None:
                tables[kind].append(each.assign(data=name))
    for kind, each in tables.items():
        if each:
            write_text(out / f"{kind}.csv", pd.concat(each).to_csv(index=False))
        else:
            (out / f"{kind}.csv").unlink(missing_ok=True)
    write_text(out / "table.md", "\n".join(markdown))
    write_text(out / "table.tex", "\n".join(latex))
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    write_study_report(out, config, rows, results)


def _read_study_fit(folder, fit):
    stored = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    sessions = pd.read_csv(folder / "run" / "sessions.csv", dtype={"session": str, "subject": str})
    return StudyFit(
        data=fit.data,
        subject=fit.subject,
        model=fit.model,
        scale=fit.scale,
        seed=fit.seed,
        scores=stored["scores"],
        graph=None if stored["graph"] is None else graph_from_dict(stored["graph"]),
        sessions=sessions,
    )
