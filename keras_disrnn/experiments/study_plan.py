"""Plan a study: the list of its fits, each with a key.

The key of a fit is a digest of everything that the fit depends on: the contents of the data file,
the settings, the seed and the versions of the packages that compute. So a study whose settings have
changed makes only the fits that it does not have yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_disrnn.analysis.studies import row_names
from keras_disrnn.experiments import comparison_plan
from keras_disrnn.experiments.comparison_settings import ComparisonSettings
from keras_disrnn.experiments.data import load_data
from keras_disrnn.experiments.run import check_stages, make_model
from keras_disrnn.experiments.settings import (
    TableData,
    plain_config,
)
from keras_disrnn.experiments.study_settings import BaselineSettings, StudySettings
from keras_disrnn.models.penalties import PENALTIES

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.experiments.data import RunData
    from keras_disrnn.models.disrnn_model import DisRNNModel

SCALED_PENALTIES = tuple(name for name, penalty in PENALTIES.items() if penalty.stage is not None)
"""The penalties that a penalty scale multiplies."""

NUMERICAL_PACKAGES = ("keras-disrnn", "tensorflow", "keras", "numpy", "scipy")
"""The packages whose versions are part of a fit's key."""


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
