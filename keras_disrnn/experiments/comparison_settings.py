"""Settings of a comparison of models."""

from __future__ import annotations

import dataclasses
from typing import Literal

from keras_disrnn.experiments.settings import TableData

Cognitive = Literal[
    "Q",
    "FQ",
    "DFQ",
    "actor-critic",
    "two-rate Q",
    "kernel Q",
    "fast-slow Q",
    "biased DFQ",
    "belief",
    "logistic",
    "threshold",
    "WSLS",
]
"""The names of the cognitive models."""


@dataclasses.dataclass(frozen=True)
class ComparisonSettings:
    """Which models are compared, and how they are fitted and scored.

    Args:
        cognitive: The cognitive models: "Q", "FQ", "DFQ", "actor-critic", "two-rate Q", "kernel Q",
            "fast-slow Q", "biased DFQ", "belief", "logistic", "threshold" or "WSLS"; or "all".
        per_subject: Whether to fit the naive and the cognitive models to each subject instead of to
            all subjects together. GRU and DisRNN are always fitted to all.
        partial_pooling: Whether to fit the cognitive models once more, with parameters of each
            subject that come from one population. This needs several subjects, each in both parts.
        num_starts: Number of random starts of each fit of a cognitive model.
        gru_units: Width of the GRU; 0 to leave it out.
        gru_steps: Maximum number of training steps of the GRU.
        gru_seeds: Number of seeds of the GRU, counted from the seed of the comparison. With more
            than one, `seeds.csv` has their mean and spread, and the best by training loss.
        gru_subjects: Whether to fit the GRU once more with the subjects' identity, if there are
            several subjects and all held-out ones are among them.
        disrnn: Whether to fit a DisRNN.
        leave_one_subject_out: Whether to leave out each subject in turn, and score its sessions
            with models of the others. The split of the data is then not used.
        against: The model that the others are compared with.
        num_bootstrap_samples: Number of bootstrap samples for the intervals.
        models: Further models to score: name to a `.keras` file, such as the `model.keras` of a run
            folder. They must have been fitted to the same training sessions.

    Example:

    >>> from keras_disrnn.experiments.comparison_settings import ComparisonSettings
    >>> ComparisonSettings(cognitive=["FQ"], gru_units=0).against
    'naive'
    """

    cognitive: list[Cognitive | Literal["all"]] = dataclasses.field(
        default_factory=lambda: ["Q", "FQ", "DFQ", "actor-critic"]
    )
    per_subject: bool = False
    partial_pooling: bool = False
    num_starts: int = 8
    gru_units: int = 16
    gru_steps: int = 400
    gru_seeds: int = 1
    gru_subjects: bool = True
    disrnn: bool = True
    leave_one_subject_out: bool = False
    against: str = "naive"
    num_bootstrap_samples: int = 2000
    models: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OptionalTable(TableData):
    """A table as `TableData` describes it, or none.

    Example:

    >>> from keras_disrnn.experiments.comparison_settings import OptionalTable
    >>> OptionalTable().table is None
    True
    """

    table: str | None = None  # type: ignore[assignment]
