"""Settings of simulations by fitted models."""

from __future__ import annotations

import dataclasses
from typing import Literal

from keras_disrnn.experiments.comparison_settings import Cognitive


@dataclasses.dataclass(frozen=True)
class EnvironmentSettings:
    """The task that an agent plays.

    Args:
        kind: "drifting" for drifting reward probabilities, "blocks" for blocks that switch (see
            `BlockBandit`), "schedule" for the schedule of a table.
        drift: Of drifting: standard deviation of the change from trial to trial.
        high: Of blocks: reward probability of the better arm.
        low: Of blocks: reward probability of the other arms.
        rewards: Of blocks: minimum number of rewards in a block.
        switch: Of blocks: probability that each further reward ends the block.
        schedule: Of a schedule: the table, with one row per trial.
        columns: Of a schedule: the columns of the arms' reward probabilities, in the order of the
            arms.
        session: Of a schedule: the column of session ids.

    Example:

    >>> from keras_disrnn.experiments.behaviour_settings import EnvironmentSettings
    >>> EnvironmentSettings(kind="blocks", high=0.8).switch
    0.4
    """

    kind: Literal["drifting", "blocks", "schedule"] = "drifting"
    drift: float = 0.1
    high: float = 0.7
    low: float = 0.1
    rewards: int = 10
    switch: float = 0.4
    schedule: str | None = None
    columns: list[str] = dataclasses.field(default_factory=list)
    session: str = "session"


@dataclasses.dataclass(frozen=True)
class BehaviourSettings:
    """The models that are compared with the animals.

    Args:
        models: Models that play: name to a run folder, a `.keras` file or a SavedModel.
        cognitive: Baselines that are fitted to all choices of the table, and then play, by their
            names in `keras-disrnn compare`, such as "Q" or "DFQ".
        better: Columns that give the better arm of each trial: one column with its number, or one
            column per arm with its reward probability. With the probabilities, models play the
            animals' own schedules.
        environment: The task that models play if the probabilities are not in the table.
        times: Number of sessions that models play for each session of the animals.
        lags: Number of earlier trials in the regression.
        num_bootstrap_samples: Number of bootstrap samples for the intervals.
        figures: File name extensions of the figure.

    Example:

    >>> from keras_disrnn.experiments.behaviour_settings import BehaviourSettings
    >>> BehaviourSettings(cognitive=["Q"]).times
    4
    """

    models: dict[str, str] = dataclasses.field(default_factory=dict)
    cognitive: list[Cognitive] = dataclasses.field(default_factory=list)
    better: list[str] = dataclasses.field(default_factory=list)
    environment: EnvironmentSettings = dataclasses.field(default_factory=EnvironmentSettings)
    times: int = 4
    lags: int = 5
    num_bootstrap_samples: int = 1000
    figures: list[str] = dataclasses.field(default_factory=lambda: ["png", "pdf"])
