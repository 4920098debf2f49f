"""The data of a run, made or read from its settings."""

import dataclasses

import numpy as np

from keras_disrnn import bandit
from keras_disrnn.data import (
    Sessions,
    sessions_from_table,
    split_by_id,
    split_by_session,
    split_by_subject,
)
from keras_disrnn.experiments.settings import SYNTHETIC_COLUMNS, SyntheticData


@dataclasses.dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        train, held_out: The two parts.
        truth: For synthetic data, the true agent's probability of each choice that it made,
            `(sessions, trials)`, by part.
    """

    train: Sessions
    held_out: Sessions
    truth: dict[str, np.ndarray] | None = None

    def for_model(self, model):
        """The data as the model reads them (see `Sessions.for_model`)."""
        train_part, held_out = (part.for_model(model) for part in (self.train, self.held_out))
        return dataclasses.replace(self, train=train_part, held_out=held_out)


def load_sessions(settings):
    """Reads every session of the table that `TableData` describes, of its subjects."""
    return _take_subjects(_read(settings), settings, "table")


def _read(settings):
    return sessions_from_table(
        settings.table,
        settings.columns,
        num_arms=settings.num_arms,
        reward_kind=settings.reward_kind,
    )


def _take_subjects(sessions, settings, part):
    if not settings.subjects:
        return sessions
    for name in settings.subjects:
        if name not in sessions.subjects:
            known = ", ".join(map(repr, dict.fromkeys(sessions.subjects)))
            raise ValueError(
                f"subjects: expected subjects with sessions in the {part}, got {name!r}; there are "
                f"{known}"
            )
    return sessions.of_subjects(settings.subjects)


def _without_padding(*parts):
    """The parts without the last rows where none of them has a session any more."""
    rows = 1 + max(int(part.trials_per_session.max()) for part in parts)
    names = ("features", "choice", "choice_weight", "dopamine", "dopamine_weight")
    return [
        dataclasses.replace(
            part, **{name: np.ascontiguousarray(getattr(part, name)[:, :rows]) for name in names}
        )
        for part in parts
    ]


def load_data(settings, seed):
    """Makes or reads the data that settings describe.

    Args:
        settings: `SyntheticData` or `TableData`.
        seed: Of the synthetic sessions.

    Returns:
        A `RunData`.

    Raises:
        FileNotFoundError, ValueError: If the data are not as the settings say.
    """
    if isinstance(settings, SyntheticData):
        parts = simulate_data(settings, seed)
        return RunData(
            **{part: sessions for part, (sessions, _) in parts.items()},
            truth={part: played.chosen_probability for part, (_, played) in parts.items()},
        )
    sessions = _read(settings)
    if settings.held_out_sessions and settings.held_out_subjects:
        raise ValueError("held_out_sessions and held_out_subjects: expected one of them, got both")
    if settings.held_out_sessions:
        split = split_by_id(sessions, settings.held_out_sessions)
    elif settings.held_out_subjects:
        split = split_by_subject(sessions, settings.held_out_subjects)
    else:
        split = split_by_session(
            sessions,
            settings.held_out_every,
            offset=settings.held_out_offset,
            within_subject=True,
        )
    if not settings.subjects:
        return RunData(split.train, split.held_out)
    # Split first, so that a subject's sessions are held out alike, alone or with the others.
    parts = [
        _take_subjects(part, settings, f"{name} part")
        for name, part in (("training", split.train), ("held-out", split.held_out))
    ]
    return RunData(*_without_padding(*parts))


def simulate_data(settings, seed):
    """Plays the sessions that `SyntheticData` describes.

    Args:
        settings: `SyntheticData`.
        seed: Of the sessions.

    Returns:
        Dict of part, `"train"` and `"held_out"`, to its `Sessions` and the `SimulatedSessions` that
        they were made from.
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
