"""The configs of `bandit_dopamine`: simulated sessions, a table of trials, Parker et al. (2016)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import tensorflow_datasets as tfds
from etils import epath

from keras_disrnn import bandit, data
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.tables import check_columns

SPLITS = ("train", "validation", "test")
_TRIALS_AT_ONCE = 2**19
TABLE_ENDINGS = (".csv", ".tsv", ".htsv", ".csv.gz", ".tsv.gz", ".htsv.gz", ".parquet")


def _by_trial(
    dtype: type, width: int | None = None, doc: str | None = None
) -> tfds.features.Tensor:
    """Return a feature of shape `(trials,)`, or `(trials, width)`.

    It is stored as bytes, because lists of numbers take several times longer to write.
    """
    shape = (None,) if width is None else (None, width)
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes", doc=doc)


def _behaviour(reward_doc: str) -> dict[str, Any]:
    return {
        "subject": tfds.features.Text(),
        "session": tfds.features.Text(doc="Unique, also across subjects."),
        "choice": _by_trial(np.int32, doc="The arm chosen, from 0."),
        "reward": _by_trial(np.float32, doc=reward_doc),
    }


@dataclasses.dataclass
class SimulatedConfig(tfds.core.BuilderConfig):
    """Simulated sessions of agents in one environment.

    Attributes:
        agent: An agent of `keras_disrnn.bandit`. Or several of one kind, one for each subject, by
            the subject's name. The sessions of each split are divided among the subjects.
        environment: An environment of `keras_disrnn.bandit`.
        num_train_sessions: Sessions in the split "train". A session is in only one split.
        num_validation_sessions: Sessions in the split "validation".
        num_test_sessions: Sessions in the split "test".
        num_trials: Trials in a session.
        seed: Session i depends only on the seed, i and its agent.
    """

    agent: bandit.Agent | Mapping[str, bandit.Agent] = dataclasses.field(
        default_factory=bandit.QLearning
    )
    environment: bandit.DriftingBandit = dataclasses.field(default_factory=bandit.DriftingBandit)
    num_train_sessions: int = 300
    num_validation_sessions: int = 100
    num_test_sessions: int = 300
    num_trials: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("seed", self.seed, 0)
        kinds = {type(agent) for agent in self.agents.values()}
        if len(kinds) != 1:
            names = sorted(kind.__name__ for kind in kinds)
            raise ValueError(f"agent: expected agents of one kind, got {names or 'none'}")
        for split in SPLITS:
            count = getattr(self, f"num_{split}_sessions")
            if count < len(self.agents):
                raise ValueError(
                    f"num_{split}_sessions: expected at least one for each of {len(self.agents)} "
                    f"subjects, got {count}"
                )

    @property
    def agents(self) -> dict[str, bandit.Agent]:
        """The agent of each subject, by name."""
        if isinstance(self.agent, Mapping):
            return dict(self.agent)
        return {self.agent.name: self.agent}

    @property
    def variable_names(self) -> tuple[str, ...]:
        """Names of the `agent_variables`, in the order of their last axis."""
        return next(iter(self.agents.values())).variable_names(self.environment.num_arms)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the `agent_parameters`, in their order."""
        return tuple(vars(next(iter(self.agents.values()))))

    def features(self) -> dict[str, Any]:
        """Return the features of an example."""
        per_arm = functools.partial(_by_trial, np.float32, self.environment.num_arms)
        variables, parameters = self.variable_names, self.parameter_names
        return {
            **_behaviour("0 or 1."),
            "dopamine": _by_trial(np.float32, doc="The agent's prediction error."),
            "reward_probability": per_arm("Of each arm, before the trial."),
            "choice_probability": per_arm("The agent's, of each arm."),
            "agent_variables": _by_trial(
                np.float32, len(variables), f"Before the trial's update: {', '.join(variables)}."
            ),
            "agent_parameters": tfds.features.Tensor(
                shape=(len(parameters),),
                dtype=np.float32,
                doc=f"The subject's: {', '.join(parameters)}.",
            ),
        }

    def metadata(self) -> dict[str, Any]:
        """Return what the data set is made with."""
        return {
            "agent": next(iter(self.agents.values())).name,
            "parameters": {subject: vars(agent) for subject, agent in self.agents.items()},
            "variable_names": list(self.variable_names),
            "environment": type(self.environment).__name__,
            "environment_parameters": vars(self.environment),
            "num_sessions": {split: getattr(self, f"num_{split}_sessions") for split in SPLITS},
            "num_trials": self.num_trials,
            "seed": self.seed,
            "numpy": np.__version__,
        }

    def shards(self, split: str) -> list[tuple[str, int, int]]:
        """Divide a split into parts to play at once: subject, first session, number of sessions."""
        first = sum(getattr(self, f"num_{name}_sessions") for name in SPLITS[: SPLITS.index(split)])
        sessions = getattr(self, f"num_{split}_sessions")
        group = bandit.SESSIONS_PER_GROUP
        step = max(1, _TRIALS_AT_ONCE // (self.num_trials * group)) * group
        shards = []
        for index, subject in enumerate(self.agents):
            start = first + sessions * index // len(self.agents)
            end = first + sessions * (index + 1) // len(self.agents)
            while start < end:
                # Sessions of a group are drawn together, so do not divide a group.
                stop = min(end, (start // step + 1) * step)
                shards.append((subject, start, stop - start))
                start = stop
        return shards

    def play(self, shard: tuple[str, int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Play the sessions of a shard.

        Yields:
            Pairs of a key and an example.
        """
        subject, first, count = shard
        agent = self.agents[subject]
        parameters = np.array(list(vars(agent).values()), np.float32)
        played = bandit.simulate(
            agent,
            self.environment,
            num_sessions=count,
            num_trials=self.num_trials,
            seed=self.seed,
            first_session=first,
        )
        for index, name in enumerate(played.ids):
            yield (
                name,
                {
                    "subject": subject,
                    "session": name,
                    "choice": played.choice[index],
                    "reward": played.reward[index],
                    "dopamine": played.dopamine[index],
                    "reward_probability": played.reward_probability[index],
                    "choice_probability": played.choice_probability[index],
                    "agent_variables": played.variables[index],
                    "agent_parameters": parameters,
                },
            )


@dataclasses.dataclass
class TrialsTableConfig(tfds.core.BuilderConfig):
    """Sessions from a table with one row per trial in `manual_dir`.

    `keras_disrnn.data.sessions_from_table` reads and checks the table.

    Attributes:
        columns: The column of each role.
        file: Name of the file in `manual_dir`; None if there is only one table.
        num_arms: Number of arms; None to count them in the choices.
        reward_kind: "binary" or "real".
        held_out_every: If given, every n-th session of each subject is in the split "test" and the
            others are in "train", as `keras_disrnn.data.split_by_session` divides them. If None,
            all are in "train".
    """

    columns: data.Columns = dataclasses.field(default_factory=data.Columns)
    file: str | None = None
    num_arms: int | None = None
    reward_kind: str = "binary"
    held_out_every: int | None = None

    @property
    def wanted_file(self) -> str:
        """The file that an error asks for."""
        return " or ".join(TABLE_ENDINGS) if self.file is None else self.file

    @property
    def manual_instructions(self) -> str:
        """What to put where."""
        columns = ", ".join(f"{column!r} ({role})" for role, column in self.columns.roles())
        return (
            f"Put one table, {self.wanted_file}, into manual_dir: one row per trial, the rows of a "
            f"session together and in order, and the columns {columns}. For other names, pass "
            "your own TrialsTableConfig as config."
        )

    def features(self) -> dict[str, Any]:
        """Return the features of an example."""
        features = _behaviour("0 where the trial was missed.")
        features["forced"] = _by_trial(np.bool_, doc="The choice was instructed.")
        features["missed"] = _by_trial(np.bool_, doc="No choice was made; choice is then 0.")
        columns = self.columns
        for name, names, more in (
            ("dopamine", columns.signal_names, " NaN where missing."),
            ("observations", columns.observation_names, ""),
        ):
            if names:
                # One signal is `(trials,)`, as in the simulated configs.
                width = None if (name, len(names)) == ("dopamine", 1) else len(names)
                features[name] = _by_trial(np.float32, width, f"{', '.join(names)}.{more}")
        return features

    def metadata(self) -> dict[str, Any]:
        """Return what the data set is made with. Reading adds `file` and `sha256`."""
        return {
            "columns": dataclasses.asdict(self.columns),
            "num_arms": self.num_arms,
            "reward_kind": self.reward_kind,
            "held_out_every": self.held_out_every,
            "signal_names": list(self.columns.signal_names),
            "observation_names": list(self.columns.observation_names),
        }

    def read(self, path: epath.Path) -> data.Sessions:
        """Read and check the file."""
        return data.sessions_from_table(
            path, self.columns, num_arms=self.num_arms, reward_kind=self.reward_kind
        )


@dataclasses.dataclass
class Parker2016Config(TrialsTableConfig):
    """Dorsomedial recordings of Parker et al. (2016), as published with Lee et al. (2019).

    It reads "Source data 1", with one row per sample, through
    `keras_disrnn.data.events_from_samples` and `trials_from_events`. The response is locked to the
    choice. This config was never run on the original file. The names of columns are guesses, so
    check them and pass your own.

    Attributes:
        events: The events, by the names of their columns of 0 and 1. Also the columns of the
            subject (the recording site) and the session, which may be numbered within subjects.
        signal: Column of the signal.
        rate: Rows per second.
        photometry: How the signal becomes a response.
        columns: The columns of the table of trials; leave it as it is.
        file: As in `TrialsTableConfig`.
        num_arms: As in `TrialsTableConfig`.
        reward_kind: As in `TrialsTableConfig`.
        held_out_every: As in `TrialsTableConfig`.
    """

    columns: data.Columns = dataclasses.field(
        default_factory=lambda: data.Columns(dopamine="dopamine", missed="missed", trial="trial")
    )
    events: data.EventSettings = dataclasses.field(
        default_factory=lambda: data.EventSettings(
            arms={"ipsi_press": 0, "contra_press": 1}, subject="site"
        )
    )
    signal: str = "signal"
    rate: float = 15.0
    photometry: data.Photometry = dataclasses.field(
        default_factory=lambda: data.Photometry(step=1 / 15)
    )

    @property
    def manual_instructions(self) -> str:
        """What to put where."""
        names = [self.events.subject, self.events.session, self.signal, *self.events.event_names]
        return (
            'Download "Source data 1" (one row per sample) of the figures of Lee, Mattar, Parker, '
            "Witten and Daw (2019), eLife 8:e42992, https://doi.org/10.7554/eLife.42992, and put "
            f"it into manual_dir as one table, {self.wanted_file}. Check its column names: the "
            "defaults are guesses, because the file was not at hand. Pass your own with "
            "Parker2016Config(name=..., events=EventSettings(...), signal=...). Now the columns "
            f"are {', '.join(map(repr, names))}."
        )

    def metadata(self) -> dict[str, Any]:
        """Return what the data set is made with."""
        return {
            **super().metadata(),
            "events": dataclasses.asdict(self.events),
            "signal": self.signal,
            "rate": self.rate,
            "photometry": dataclasses.asdict(self.photometry),
        }

    def read(self, path: epath.Path) -> data.Sessions:
        """Read and check the file."""
        subject, session = self.events.subject, self.events.session
        assert subject is not None and session is not None
        samples = data.read_table(path, text=[subject, session])
        try:
            return self._sessions(samples, subject, session)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error

    def _sessions(self, samples: pd.DataFrame, subject: str, session: str) -> data.Sessions:
        check_columns("Parker2016Config", samples, (subject, session, self.signal))
        # Sessions are numbered within subjects.
        samples = samples.assign(**{session: samples[subject] + " " + samples[session]})
        events = data.events_from_samples(
            samples, self.events.event_names, rate=self.rate, subject=subject, session=session
        )
        settings = dataclasses.replace(
            self.events, subject="subject", session="session", time="time", event="event"
        )
        trials = data.trials_from_events(events, settings)
        recordings = {
            name: data.Recording(np.arange(len(rows)) / self.rate, rows[self.signal])
            for name, rows in samples.groupby(session, sort=False)
        }
        trials["dopamine"] = data.photometry_responses(
            trials, recordings, event="choice_time", settings=self.photometry
        )
        return data.sessions_from_table(
            trials, self.columns, num_arms=self.num_arms, reward_kind=self.reward_kind
        )
