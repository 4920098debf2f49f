"""The builder `bandit_dopamine`: choices, rewards and dopamine at a two-armed bandit."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from keras_disrnn import bandit, data

_SPLITS = ("train", "validation", "test")
_TRIALS_AT_ONCE = 2**19
_TABLE_ENDINGS = (".csv", ".tsv", ".htsv", ".csv.gz", ".tsv.gz", ".htsv.gz", ".parquet")


def _by_trial(dtype, width=None, doc=None):
    """A feature of `(trials,)`, or of `(trials, width)`.

    Stored as bytes: lists of numbers take several times longer to write.
    """
    shape = (None,) if width is None else (None, width)
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes", doc=doc)


def _behaviour(reward_doc):
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
        agent: An agent of `keras_disrnn.bandit`; or several of one kind, one for each subject, by
            the subject's name. Subjects share out the sessions of every split.
        environment: An environment of `keras_disrnn.bandit`.
        train_sessions, validation_sessions, test_sessions: Sessions in each split; a session is in
            one split only.
        trials: Trials in a session.
        seed: What happens in session i of all is a function of the seed, i and its agent alone.
    """

    agent: bandit.Agent | Mapping[str, bandit.Agent] = dataclasses.field(
        default_factory=bandit.QLearning
    )
    environment: bandit.DriftingBandit = dataclasses.field(default_factory=bandit.DriftingBandit)
    train_sessions: int = 300
    validation_sessions: int = 100
    test_sessions: int = 300
    trials: int = 200
    seed: int = 0

    def __post_init__(self):
        kinds = {type(agent) for agent in self.agents.values()}
        if len(kinds) != 1:
            names = sorted(kind.__name__ for kind in kinds)
            raise ValueError(f"agent: expected agents of one kind, got {names or 'none'}")
        for split in _SPLITS:
            count = getattr(self, f"{split}_sessions")
            if count < len(self.agents):
                raise ValueError(
                    f"{split}_sessions: expected at least one for each of {len(self.agents)} "
                    f"subjects, got {count}"
                )

    @property
    def agents(self):
        """The agent of each subject, by name."""
        if isinstance(self.agent, Mapping):
            return dict(self.agent)
        return {self.agent.name: self.agent}

    @property
    def variable_names(self):
        """Names of the `agent_variables`, in the order of their last axis."""
        return next(iter(self.agents.values())).variable_names(self.environment.num_arms)

    @property
    def parameter_names(self):
        """Names of the `agent_parameters`, in their order."""
        return tuple(vars(next(iter(self.agents.values()))))

    def features(self):
        """The features of an example."""
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

    def metadata(self):
        """What the data set was made with."""
        return {
            "agent": next(iter(self.agents.values())).name,
            "parameters": {subject: vars(agent) for subject, agent in self.agents.items()},
            "variable_names": list(self.variable_names),
            "environment": type(self.environment).__name__,
            "environment_parameters": vars(self.environment),
            "sessions": {split: getattr(self, f"{split}_sessions") for split in _SPLITS},
            "trials": self.trials,
            "seed": self.seed,
            "numpy": np.__version__,
        }

    def shards(self, split):
        """Cuts a split into parts that are played at once: subject, first session, sessions."""
        first = sum(getattr(self, f"{name}_sessions") for name in _SPLITS[: _SPLITS.index(split)])
        sessions = getattr(self, f"{split}_sessions")
        group = bandit.SESSIONS_PER_GROUP
        step = max(1, _TRIALS_AT_ONCE // (self.trials * group)) * group
        shards = []
        for index, subject in enumerate(self.agents):
            start = first + sessions * index // len(self.agents)
            end = first + sessions * (index + 1) // len(self.agents)
            while start < end:
                # Sessions of a group draw together, so a group is better not cut.
                stop = min(end, (start // step + 1) * step)
                shards.append((subject, start, stop - start))
                start = stop
        return shards

    def play(self, shard):
        """Plays the sessions of a shard.

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
            num_trials=self.trials,
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
    """Sessions from a table with one row a trial, which lies in `manual_dir`.

    The table is read and checked by `keras_disrnn.data.sessions_from_table`.

    Attributes:
        columns: Which column holds what.
        file: Name of the file in `manual_dir`; None for the one table that is there.
        num_arms: Number of arms; None to take it from the choices.
        reward_kind: "binary" or "real".
        held_out_every: When given, every n-th session of each subject is the split `test` and the
            rest `train`, as by `keras_disrnn.data.split_by_session`; when None all are `train`.
    """

    columns: data.Columns = dataclasses.field(default_factory=data.Columns)
    file: str | None = None
    num_arms: int | None = None
    reward_kind: str = "binary"
    held_out_every: int | None = None

    @property
    def trial_columns(self):
        """The columns of the table of trials that is read in the end."""
        return self.columns

    @property
    def wanted_file(self):
        """How to name the file to the user."""
        return " or ".join(_TABLE_ENDINGS) if self.file is None else self.file

    @property
    def manual_instructions(self):
        """What to put where."""
        columns = ", ".join(f"{column!r} ({role})" for role, column in self.columns.roles())
        return (
            f"Put one table, {self.wanted_file}, into manual_dir: one row a trial, the rows of a "
            f"session together and in order, and the columns {columns}. With other names, give "
            "your own TrialsTableConfig as config."
        )

    def features(self):
        """The features of an example."""
        features = _behaviour("0 where the trial was missed.")
        features["forced"] = _by_trial(np.bool_, doc="The choice was instructed.")
        features["missed"] = _by_trial(np.bool_, doc="No choice was made; choice is then 0.")
        columns = self.trial_columns
        for name, names, more in (
            ("dopamine", columns.signal_names, " NaN where missing."),
            ("observations", columns.observation_names, ""),
        ):
            if names:
                # One signal is `(trials,)`, as in the simulated configs.
                width = None if (name, len(names)) == ("dopamine", 1) else len(names)
                features[name] = _by_trial(np.float32, width, f"{', '.join(names)}.{more}")
        return features

    def metadata(self):
        """What the data set was made with; `file` and `sha256` are added when it is read."""
        return {
            "columns": dataclasses.asdict(self.columns),
            "num_arms": self.num_arms,
            "reward_kind": self.reward_kind,
            "held_out_every": self.held_out_every,
            "signal_names": list(self.trial_columns.signal_names),
            "observation_names": list(self.trial_columns.observation_names),
        }

    def read(self, path):
        """Reads and checks the file."""
        return data.sessions_from_table(
            path, self.columns, num_arms=self.num_arms, reward_kind=self.reward_kind
        )


@dataclasses.dataclass
class Parker2016Config(TrialsTableConfig):
    """Dorsomedial recordings of Parker et al. (2016), as published with Lee et al. (2019).

    Never run on the original files: the names of the columns are guesses, and settings.

    Attributes:
        columns: Where a file of one row a trial ("Source data 2") has what, with the event's
            signal and the response window; or where one of a row a timepoint ("Source data 1") has.
        photometry: How the signal of "Source data 1" becomes a response; None for the defaults.
        file, num_arms, reward_kind, held_out_every: As in `TrialsTableConfig`.
    """

    columns: data.Source2Columns | data.Source1Columns = dataclasses.field(
        default_factory=data.Source2Columns
    )
    photometry: data.Photometry | None = None

    def __post_init__(self):
        if self.photometry is not None and not self._is_by_time:
            raise ValueError(
                "photometry: expected None with Source2Columns, whose responses are made already; "
                f"set its window instead, got {self.photometry!r}"
            )

    @property
    def _is_by_time(self):
        return isinstance(self.columns, data.Source1Columns)

    @property
    def trial_columns(self):
        """The columns of the table of trials that is read in the end."""
        if self._is_by_time:
            return data.Columns(dopamine="dopamine", missed="missed", trial="trial")
        return data.Columns(dopamine="dopamine")

    @property
    def manual_instructions(self):
        """What to put where."""
        kind, row = ("1", "timepoint") if self._is_by_time else ("2", "trial")
        names = ", ".join(
            f"{field.name}={getattr(self.columns, field.name)!r}"
            for field in dataclasses.fields(self.columns)
        )
        return (
            f'Download "Source data {kind}" (one row a {row}) of the figures of Lee, Mattar, '
            "Parker, Witten and Daw (2019), eLife 8:e42992, https://doi.org/10.7554/eLife.42992, "
            f"by hand, and put it into manual_dir as one table, {self.wanted_file}. Look at its "
            "column names: those expected here are guesses, as the file was not at hand. Say "
            f"which is which with Parker2016Config(name=..., columns={type(self.columns).__name__}"
            f"(...)); now it is {names}."
        )

    def metadata(self):
        """What the data set was made with."""
        photometry = self.photometry and dataclasses.asdict(self.photometry)
        return {**super().metadata(), "photometry": photometry}

    def read(self, path):
        """Reads and checks the file."""
        if self._is_by_time:
            table = data.read_source_data_1(path, self.columns, self.photometry)
        else:
            table = data.read_source_data_2(path, self.columns)
        return data.sessions_from_table(
            table, self.trial_columns, num_arms=self.num_arms, reward_kind=self.reward_kind
        )


def _find_table(folder, file):
    """The file of that name in `manual_dir`, or the one table that is there."""
    there = sorted(path.name for path in folder.iterdir())
    if file is not None:
        if file not in there:
            raise FileNotFoundError(f"{folder}: expected the file {file}, got {', '.join(there)}")
        return folder / file
    tables = [name for name in there if name.lower().endswith(_TABLE_ENDINGS)]
    if len(tables) != 1:
        raise ValueError(
            f"{folder}: expected one table ({', '.join(_TABLE_ENDINGS)}), got "
            f"{', '.join(tables) or 'none'}; name it with the config's file"
        )
    return folder / tables[0]


class Builder(tfds.core.GeneratorBasedBuilder):
    """Sessions at a two-armed bandit with a dopamine response for each trial."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {
        "2.0.0": "Other agents, several subjects, recorded tables; all simulated sessions are new.",
        "1.0.0": "Q-learning at a drifting bandit.",
    }
    BUILDER_CONFIGS = [
        SimulatedConfig(
            name="q_learning",
            description="A Q-learning agent (alpha 0.3, beta 3) at a drifting bandit (sigma 0.1).",
        ),
        SimulatedConfig(
            name="forgetting_q_learning",
            description="Forgetting Q-learning (alpha 0.3; kappa 2.5, 0.5).",
            agent=bandit.ForgettingQLearning(),
        ),
        SimulatedConfig(
            name="differential_forgetting_q_learning",
            description="Differential forgetting Q-learning (alpha 0.4, 0.1; kappa 2.5, 0.5).",
            agent=bandit.DifferentialForgettingQLearning(),
        ),
        SimulatedConfig(
            name="reward_seeking",
            description="One signed value that follows the arm that pays (alpha 0.3, beta 1.5).",
            agent=bandit.RewardSeeking(),
        ),
        SimulatedConfig(
            name="leaky_actor_critic",
            description="A leaky actor-critic (critic 0.3, learn 1, forget 0.05).",
            agent=bandit.LeakyActorCritic(),
        ),
        SimulatedConfig(
            name="multi_subject",
            description="Ten Q-learning agents (beta 3) with learning rates from 0.1 to 0.82.",
            agent={
                f"subject_{i}": bandit.QLearning(alpha=round(0.1 + 0.08 * i, 2)) for i in range(10)
            },
        ),
        SimulatedConfig(
            name="large",
            description="As q_learning, 51,000 sessions: ten million training trials.",
            train_sessions=50_000,
            validation_sessions=500,
            test_sessions=500,
        ),
        Parker2016Config(
            name="parker2016",
            description="Parker et al. (2016), from Source data 2 of Lee et al. (2019). Never run "
            "on the original file.",
        ),
        TrialsTableConfig(
            name="trials_table",
            description="Your own table, one row a trial.",
            columns=data.Columns(dopamine="dopamine"),
        ),
    ]

    # The folder is installed under another name than it has in the source tree: without these
    # two TFDS looks for the card and the citation in the wrong place.
    code_path = epath.Path(__file__)
    pkg_dir_path = code_path.parent

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for key, value in self._metadata().items():
            stored = self.info.metadata.get(key)
            if key != "numpy" and stored != value:
                raise ValueError(
                    f"{self.data_path}: this data set was made with {key} {stored}, while the "
                    f"config {self.builder_config.name!r} says {value}; give the config another "
                    "name, or delete the folder"
                )

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self):
        """What the user has to provide; None for simulated data."""
        return getattr(self.builder_config, "manual_instructions", None)

    def _metadata(self):
        # As it comes back from the disk, where it is JSON.
        text = json.dumps(
            self.builder_config.metadata(), default=lambda value: np.asarray(value).tolist()
        )
        return json.loads(text)

    def _info(self):
        config = self.builder_config
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(config.features()),
            homepage="https://github.com/google-deepmind/disentangled_rnns",
            metadata=tfds.core.MetadataDict(self._metadata()),
        )

    def _download_and_prepare(self, dl_manager, download_config=None):
        # Beam does the work where the user has said how to run it. The examples are the same.
        self._beam = bool(
            download_config and (download_config.beam_runner or download_config.beam_options)
        )
        super()._download_and_prepare(dl_manager, download_config)

    def _split_generators(self, dl_manager):
        config = self.builder_config
        if isinstance(config, SimulatedConfig):
            return {split: self._generate_examples(config.shards(split)) for split in _SPLITS}
        path = _find_table(dl_manager.manual_dir, config.file)
        sessions = config.read(path)
        self.info.metadata["file"] = path.name
        self.info.metadata["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        if config.held_out_every is None:
            parts = {"train": sessions}
        else:
            train, held_out = data.split_by_session(
                sessions, config.held_out_every, within_subject=True
            )
            parts = {"train": train, "test": held_out}
        return {
            split: ((example["session"], example) for example in data.examples_from_sessions(part))
            for split, part in parts.items()
        }

    def _generate_examples(self, shards):
        play = self.builder_config.play
        if not self._beam:
            return (pair for shard in shards for pair in play(shard))
        try:
            import apache_beam as beam
        except ImportError as error:
            raise ImportError(
                "beam_runner and beam_options need Apache Beam: pip install 'keras-disrnn[beam]'"
            ) from error
        return beam.Create(shards) | beam.Reshuffle() | beam.FlatMap(play)
