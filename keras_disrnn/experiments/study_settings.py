"""Settings of a study."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import KW_ONLY
from typing import Literal

from keras_disrnn.experiments.selection_settings import check_scales
from keras_disrnn.experiments.settings import ModelSettings, TableData, TrainingSettings
from keras_disrnn.utils.checks import check_integer


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

    >>> from keras_disrnn.experiments.study_settings import BaselineSettings
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
    >>> from keras_disrnn.experiments.study_settings import StudySettings
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
