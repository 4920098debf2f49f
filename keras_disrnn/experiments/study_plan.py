"""Plan a study: its settings, and the list of its fits, each with a key.

The key of a fit is a digest of everything that the fit depends on: the contents of the data file,
the settings, the seed and the versions of the packages that compute. So a study whose settings have
changed makes only the fits that it does not have yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterator
from dataclasses import KW_ONLY
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keras_disrnn.analysis.studies import row_names
from keras_disrnn.experiments import comparison_plan
from keras_disrnn.experiments.comparison_plan import ComparisonSettings
from keras_disrnn.experiments.data import load_data
from keras_disrnn.experiments.run import check_stages, make_model
from keras_disrnn.experiments.selection_settings import check_scales
from keras_disrnn.experiments.settings import (
    ModelSettings,
    TableData,
    TrainingSettings,
    plain_config,
)
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.utils.checks import check_integer

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.experiments.data import RunData
    from keras_disrnn.models.disrnn_model import DisRNNModel

SCALED_PENALTIES = tuple(name for name, penalty in PENALTIES.items() if penalty.stage is not None)
"""The penalties that a penalty scale multiplies."""

NUMERICAL_PACKAGES = ("keras-disrnn", "tensorflow", "keras", "numpy", "scipy")
"""The packages whose versions are part of a fit's key."""

# === Settings ===


@dataclasses.dataclass(frozen=True)
class BaselineSettings:
    """Which baselines are fitted, and how.

    Args:
        names: Rows of the table of `keras-disrnn compare`, such as "naive", "FQ, choice",
            "Q, dopamine" and "GRU, joint". "affine" rows are not possible.
        num_starts: Number of random starts of each fit of a cognitive model.
        gru_units: Width of the GRU.
        gru_steps: Maximum number of training steps of the GRU.

    Raises:
        ValueError: If a number is out of range.

    Example:

    >>> from keras_disrnn.experiments.study import BaselineSettings
    >>> BaselineSettings(["naive", "FQ, choice"], num_starts=4).names
    ['naive', 'FQ, choice']
    """

    names: list[str] = dataclasses.field(default_factory=lambda: ["naive"])
    _: KW_ONLY
    num_starts: int = 8
    gru_units: int = 16
    gru_steps: int = 400

    def __post_init__(self) -> None:
        for name in ("num_starts", "gru_units", "gru_steps"):
            check_integer(f"baselines.{name}", getattr(self, name), 1)


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """What a study fits: every combination of data set, subject, model, penalty scale and seed.

    Args:
        data: The tables, by name, each with its columns and its split.
        subjects: Whether to fit a model to "each" subject, to all of them "pooled", or "both".
        models: Shapes and penalties of DisRNNs, by name.
        scales: Penalty scales, rising. Each multiplies all penalties of the models but `l2_scale`.
        seeds: Seeds of the initial weights, the noise, the batches and the starts. Baselines other
            than the GRU are fitted with the first seed only.
        training: The stages of training.
        baselines: The baselines, and how they are fitted.
        against: The model of the table that others are compared with; by default the first
            baseline, or else the first model.
        num_bootstrap_samples: Number of bootstrap samples for the intervals.
        figures: Whether each fit gets its figures and its export. This may take longer than a short
            fit; `keras-disrnn plot` and `export` make them later.

    Raises:
        ValueError: If a name or a number is not possible.

    Example:

    >>> from keras_disrnn.experiments.settings import TableData
    >>> from keras_disrnn.experiments.study import StudySettings
    >>> settings = StudySettings({"mice": TableData("trials.csv")}, scales=[1.0, 3.0], seeds=[0, 1])
    >>> settings.subjects
    'each'
    """

    data: dict[str, TableData]
    _: KW_ONLY
    subjects: Literal["each", "pooled", "both"] = "each"
    models: dict[str, ModelSettings] = dataclasses.field(
        default_factory=lambda: {"DisRNN": ModelSettings()}
    )
    scales: list[float] = dataclasses.field(default_factory=lambda: [1.0])
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0])
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    baselines: BaselineSettings = dataclasses.field(default_factory=BaselineSettings)
    against: str | None = None
    num_bootstrap_samples: int = 2000
    figures: bool = False

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data: expected at least one table, by name, got none")
        for name in self.data:
            # Names of figures start with it.
            if not re.fullmatch(r"\w[\w .+-]*", name):
                raise ValueError(
                    "data: expected names of letters, digits, spaces and _ . + -, which file names "
                    f"can have, got {name!r}"
                )
        if not self.models and not self.baselines.names:
            raise ValueError("models and baselines.names: expected at least one model, got none")
        check_scales("scales", self.scales)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected at least one seed, each once, got {self.seeds}")
        for seed in self.seeds:
            check_integer("seeds", seed, 0)
        check_integer("num_bootstrap_samples", self.num_bootstrap_samples, 1)
        if self.training.tensorboard is not None:
            raise ValueError(
                "training.tensorboard: expected none in a study, because all fits would write to "
                f"the same folder, got {self.training.tensorboard!r}"
            )
        both = sorted(set(self.models) & set(self.baselines.names))
        if both:
            raise ValueError(
                f"models: expected names other than those of baselines, got {both[0]!r}"
            )


# === The plan ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedFit:
    """One fit of a study.

    Attributes:
        data: Name of the table.
        subject: The subject, or `None` for all subjects together.
        model: Name of the model or the baseline.
        scale: The penalty scale; `None` for a baseline.
        seed: The seed.
        config: All settings, in plain types: for a DisRNN those of `fit`, for a baseline `data`,
            `baseline` and `seed`.
        digest: Digest of the data file.
        key: Digest of everything that the fit depends on.
    """

    data: str
    subject: str | None
    model: str
    scale: float | None
    seed: int
    config: dict[str, Any]
    digest: str
    key: str

    @property
    def label(self) -> str:
        """The fit in words."""
        scale = "" if self.scale is None else f" x{self.scale:g}"
        subject = self.subject or "all subjects"
        return f"{self.data}, {subject}, {self.model}{scale}, seed {self.seed}"


def plan_study(settings: StudySettings) -> tuple[list[PlannedFit], dict[str, RunData]]:
    """List the fits of a study, and refuse settings that cannot be fitted.

    Args:
        settings: The settings of the study.

    Returns:
        The fits, and the data of each data set by name.

    Raises:
        FileNotFoundError: If a table does not exist.
        ValueError: If a column, a name or a number is wrong. The message begins with the data set
            or the setting.
    """
    fits: list[PlannedFit] = []
    loaded: dict[str, RunData] = {}
    for name, given in settings.data.items():
        table = dataclasses.replace(given, table=str(Path(given.table).resolve()))
        try:
            data_set = _DataSet(name, table, settings)
            fits += data_set.plan()
        except (ValueError, OSError) as error:
            raise type(error)(f"data.{name}: {error}") from error
        loaded[name] = data_set.loaded
    # `row_names` reads what planned and finished fits share.
    planned: list[Any] = fits
    names = {
        name for one in loaded for name in row_names([fit for fit in planned if fit.data == one])
    }
    if settings.against not in (None, *names):
        raise ValueError(
            f"against: expected one of {', '.join(map(repr, sorted(names)))}, "
            f"got {settings.against!r}"
        )
    return fits, loaded


class _DataSet:
    """The fits of one data set."""

    def __init__(self, name: str, table: TableData, settings: StudySettings) -> None:
        self._name, self._table, self._settings = name, table, settings
        self.loaded = load_data(table, 0)
        self._digest = digest_file(table.table)
        self._networks = {model: self._make(self.loaded, model) for model in settings.models}

    def plan(self) -> Iterator[PlannedFit]:
        for subject in self._subjects():
            data, part = self._table, self.loaded
            if subject is not None:
                data = dataclasses.replace(data, subjects=[subject])
                part = load_part(part, subject)
            _check_held_out(part, subject)
            yield from self._plan_models(subject, data, part)
            yield from self._plan_baselines(subject, data, part.train)

    def _subjects(self) -> list[str | None]:
        found = [*self.loaded.train.subjects, *self.loaded.held_out.subjects]
        each: list[str | None] = list(dict.fromkeys(found))
        if self._settings.subjects == "each":
            return each
        return [None] if self._settings.subjects == "pooled" else [*each, None]

    def _make(self, data: RunData, model: str) -> DisRNNModel:
        """Make a model to check with. Its shape does not depend on seeds and penalty scales."""
        try:
            return make_model(data.train, self._settings.models[model], 0)
        except ValueError as error:
            raise ValueError(f"models.{model}: {error}") from error

    def _plan_models(
        self, subject: str | None, data: TableData, part: RunData
    ) -> Iterator[PlannedFit]:
        for model, shape in self._settings.models.items():
            # The subjects change the shape of a model only if it has an embedding of them.
            network = self._networks[model]
            if subject is not None and shape.subject_units:
                network = self._make(part, model)
            try:
                read = part.for_model(network)
                check_stages(network, read.train, self._settings.training, read.held_out)
            except ValueError as error:
                who = "" if subject is None else f"subject {subject!r}, "
                raise ValueError(f"{who}models.{model}: {error}") from error
            for scale in self._settings.scales:
                scaled = {name: getattr(shape, name) * scale for name in SCALED_PENALTIES}
                for seed in self._settings.seeds:
                    config = {
                        "data": data,
                        "model": dataclasses.replace(shape, **scaled),
                        "training": self._settings.training,
                        "seed": seed,
                    }
                    yield self._fit(subject, model, scale, config, figures=self._settings.figures)

    def _plan_baselines(
        self, subject: str | None, data: TableData, train: Sessions
    ) -> Iterator[PlannedFit]:
        chosen = self._settings.baselines
        known = [
            label for label in plan_baselines(train, chosen, 0) if not label.endswith(", affine")
        ]
        for label in chosen.names:
            if label not in known:
                raise ValueError(
                    f"baselines.names: expected names of {', '.join(map(repr, known))}, "
                    f"got {label!r}"
                )
            is_gru = label.startswith("GRU")
            used = ["gru_units", "gru_steps"] if is_gru else ["num_starts"]
            if label == "naive":
                used = []
            for seed in self._settings.seeds if is_gru else self._settings.seeds[:1]:
                baseline = {"name": label, **{name: getattr(chosen, name) for name in used}}
                config = {"data": data, "baseline": baseline, "seed": seed}
                yield self._fit(subject, label, None, config)

    def _fit(
        self,
        subject: str | None,
        model: str,
        scale: float | None,
        config: dict[str, Any],
        **further: Any,
    ) -> PlannedFit:
        config = plain_config(config)
        return PlannedFit(
            data=self._name,
            subject=subject,
            model=model,
            scale=scale,
            seed=config["seed"],
            config=config,
            digest=self._digest,
            key=_compute_key(config, self._digest, **further),
        )


def load_part(whole: RunData, subject: str) -> RunData:
    """Take the sessions of one subject.

    Args:
        whole: The data of all subjects.
        subject: The subject.

    Returns:
        The data of the subject, without the true agent.

    Raises:
        ValueError: If the subject has no training or no held-out session.
    """
    parts = {}
    for part in ("train", "held_out"):
        sessions = getattr(whole, part)
        if subject not in sessions.subjects:
            raise ValueError(
                f"subject {subject!r}: expected sessions in both parts, got no session in the "
                f"{part.replace('_', '-')} part; hold out other sessions, leave the subject out "
                'with "subjects", or fit all subjects "pooled"'
            )
        parts[part] = sessions.of_subjects([subject])
    return dataclasses.replace(whole, **parts, truth=None)


def plan_baselines(train: Sessions, settings: BaselineSettings, seed: int) -> dict[str, Any]:
    """List the baselines that can be fitted to some sessions.

    Args:
        train: The training sessions.
        settings: How they are fitted.
        seed: The seed of the fits.

    Returns:
        What `plan_models` returns for the baselines.
    """
    comparison = ComparisonSettings(
        num_starts=settings.num_starts,
        gru_units=settings.gru_units,
        gru_steps=settings.gru_steps,
    )
    return comparison_plan.plan_baselines(train, comparison, seed)


def digest_file(path: str | Path) -> str:
    """Compute the SHA-256 digest of a file's contents."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _check_held_out(part: RunData, subject: str | None) -> None:
    if not part.held_out.choice_weight.any():
        who = "" if subject is None else f" of subject {subject!r}"
        raise ValueError(
            f"sessions: expected a free choice{who} in the held-out part, got none; hold out other "
            "sessions"
        )


def _compute_key(config: dict[str, Any], digest: str, **further: Any) -> str:
    # The location of the data file does not count, only its contents.
    data = {name: value for name, value in config["data"].items() if name != "table"}
    versions = {name: importlib.metadata.version(name) for name in NUMERICAL_PACKAGES}
    content = {**config, "data": data, "digest": digest, "versions": versions, **further}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
