"""Simulate or read the data that settings describe."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

import numpy as np

from keras_disrnn import bandit
from keras_disrnn.data import (
    Sessions,
    Split,
    sessions_from_table,
    split_by_id,
    split_by_session,
    split_by_subject,
)
from keras_disrnn.experiments.folder import read_digest
from keras_disrnn.experiments.prepared import read_prepared
from keras_disrnn.experiments.prepared_settings import TfdsData
from keras_disrnn.experiments.settings import SYNTHETIC_COLUMNS, SyntheticData, TableData
from keras_disrnn.experiments.stored_run import load_run
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.training.fit import fingerprint

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        train: The training sessions.
        held_out: The held-out sessions.
        truth: For synthetic data, a dict of part to the true agent's probability of each of its
            choices, `(sessions, trials)`.
    """

    train: Sessions
    held_out: Sessions
    truth: dict[str, np.ndarray] | None = None

    @property
    def digest(self) -> str:
        """A digest of both parts, to recognise data that have changed."""
        return f"{fingerprint(self.train)}-{fingerprint(self.held_out)}"

    def for_model(self, model: DisRNNModel) -> RunData:
        """Return the data as a model reads them (see `Sessions.for_model`)."""
        train_part, held_out = (part.for_model(model) for part in (self.train, self.held_out))
        return dataclasses.replace(self, train=train_part, held_out=held_out)


def load_sessions(settings: TableData | TfdsData) -> Sessions:
    """Read all sessions of a table or a prepared data set, training and held-out ones.

    Args:
        settings: The table, its columns and the subjects to use. Or the prepared data set.
    """
    if isinstance(settings, TfdsData):
        return _take_subjects(read_prepared(settings)[0], settings, "data set")
    return _take_subjects(_read(settings), settings, "table")


def _read(settings: TableData) -> Sessions:
    return sessions_from_table(
        settings.table,
        settings.columns,
        num_arms=settings.num_arms,
        reward_kind=settings.reward_kind,
    )


def _take_subjects(sessions: Sessions, settings: TableData | TfdsData, part: str) -> Sessions:
    if not settings.subjects:
        return sessions
    for name in settings.subjects:
        if name not in sessions.subjects:
            known = ", ".join(map(repr, dict.fromkeys(sessions.subjects)))
            raise ValueError(
                f"subjects: expected subjects with sessions in the {part} ({known}), got {name!r}"
            )
    return sessions.of_subjects(settings.subjects)


def _without_padding(*parts: Sessions) -> list[Sessions]:
    """Remove the final time steps that are padding in every session of every part."""
    rows = 1 + max(int(part.trials_per_session.max()) for part in parts)
    names = ("features", "choice", "choice_weight", "dopamine", "dopamine_weight")
    shorter = []
    for part in parts:
        arrays: Any = {name: np.ascontiguousarray(getattr(part, name)[:, :rows]) for name in names}
        shorter.append(dataclasses.replace(part, **arrays))
    return shorter


def load_data(settings: TableData | TfdsData | SyntheticData, seed: int) -> RunData:
    """Simulate or read the data that settings describe.

    Args:
        settings: The settings.
        seed: Seed of the synthetic sessions.

    Returns:
        The data.

    Raises:
        FileNotFoundError, ValueError: If the data are not as the settings say.

    Example:

    >>> from keras_disrnn.experiments.data import load_data
    >>> from keras_disrnn.experiments.settings import SyntheticData
    >>> load_data(SyntheticData(3, 2, 10), seed=0).train.num_sessions
    3
    """
    if isinstance(settings, SyntheticData):
        simulated = simulate_data(settings, seed)
        return RunData(
            simulated["train"][0],
            simulated["held_out"][0],
            {part: played.chosen_probability for part, (_, played) in simulated.items()},
        )
    split = _split(settings)
    if not settings.subjects:
        return RunData(split.train, split.held_out)
    # Split first, so that the same sessions of a subject are held out, alone or with others.
    parts = [
        _take_subjects(part, settings, f"{name} part")
        for name, part in (("training", split.train), ("held-out", split.held_out))
    ]
    train, held_out = _without_padding(*parts)
    return RunData(train, held_out)


def _split(settings: TableData | TfdsData) -> Split:
    if isinstance(settings, TfdsData):
        sessions, held_out = read_prepared(settings)
        return split_by_id(sessions, held_out)
    sessions = _read(settings)
    if settings.held_out_sessions and settings.held_out_subjects:
        raise ValueError("held_out_sessions and held_out_subjects: expected one of them, got both")
    if settings.held_out_sessions:
        return split_by_id(sessions, settings.held_out_sessions)
    if settings.held_out_subjects:
        return split_by_subject(sessions, settings.held_out_subjects)
    return split_by_session(
        sessions,
        settings.held_out_every,
        offset=settings.held_out_offset,
        within_subject=True,
    )


def load_run_data(folder: str | os.PathLike[str]) -> tuple[DisRNNModel, RunData]:
    """Read a finished run, and check that its data are those that it was fitted to.

    Args:
        folder: The folder of a run.

    Returns:
        `(model, data)`.

    Raises:
        FileNotFoundError: If the folder is not that of a finished run, or its table is not there.
        ValueError: If a file of the run cannot be read, or its data have changed.
    """
    model, settings, seed = load_run(folder)
    data = load_data(settings, seed)
    stored = read_digest(folder)
    if stored is None:
        logger.warning("%s: has no digest of its data, so changes of the data go unnoticed", folder)
    elif not data.for_model(model).digest.startswith(stored):
        place = ""
        if not isinstance(settings, SyntheticData):
            path = settings.table if isinstance(settings, TableData) else settings.find()
            place = f" in {path}"
        raise ValueError(
            f"{folder}: expected the data that the run was fitted to, got data{place} that have "
            "changed since; restore them, or score other data with evaluate --table"
        )
    return model, data


def simulate_data(
    settings: SyntheticData, seed: int
) -> dict[str, tuple[Sessions, bandit.SimulatedSessions]]:
    """Simulate the sessions that settings describe.

    Args:
        settings: The settings.
        seed: Seed of the sessions.

    Returns:
        Dict of part, `"train"` and `"held_out"`, to its sessions and the `SimulatedSessions` from
        which they were made.
    """
    agent = settings.make_agent()
    environment = bandit.DriftingBandit(sigma=settings.drift)
    parts, first = {}, 0
    for part, count in (
        ("train", settings.num_sessions),
        ("held_out", settings.num_held_out_sessions),
    ):
        played = bandit.simulate(
            agent,
            environment,
            num_sessions=count,
            num_trials=settings.num_trials,
            seed=seed,
            first_session=first,
        )
        first += count
        parts[part] = sessions_from_table(played.to_table(), SYNTHETIC_COLUMNS), played
    return parts
