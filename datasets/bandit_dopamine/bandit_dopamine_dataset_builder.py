"""The builder `bandit_dopamine`: choices, rewards and dopamine at a two-armed bandit."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from keras_disrnn import bandit, data
from keras_disrnn.datasets.bandit_dopamine.configs import (
    SPLITS,
    TABLE_ENDINGS,
    Parker2016Config,
    SimulatedConfig,
    TrialsTableConfig,
)


def _find_table(folder: epath.Path, file: str | None) -> epath.Path:
    """Return the file of that name in `manual_dir`, or the only table there."""
    there = sorted(path.name for path in folder.iterdir())
    if file is not None:
        if file not in there:
            raise FileNotFoundError(f"{folder}: expected the file {file}, got {', '.join(there)}")
        return folder / file
    tables = [name for name in there if name.lower().endswith(TABLE_ENDINGS)]
    if len(tables) != 1:
        raise ValueError(
            f"{folder}: expected one table ({', '.join(TABLE_ENDINGS)}), got "
            f"{', '.join(tables) or 'none'}; name it with the config's file"
        )
    return folder / tables[0]


class Builder(tfds.core.GeneratorBasedBuilder):
    """Sessions at a two-armed bandit with a dopamine response for each trial."""

    VERSION = tfds.core.Version("3.0.0")
    RELEASE_NOTES = {
        "3.0.0": "Counts in the metadata are called num_...; parker2016 is read from events.",
        "2.0.0": "More agents, several subjects, recorded tables; all simulated sessions are new.",
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
            num_train_sessions=50_000,
            num_validation_sessions=500,
            num_test_sessions=500,
        ),
        Parker2016Config(
            name="parker2016",
            description="Parker et al. (2016), from Source data 1 of Lee et al. (2019). Never run "
            "on the original file.",
        ),
        TrialsTableConfig(
            name="trials_table",
            description="Your own table, one row per trial.",
            columns=data.Columns(dopamine="dopamine"),
        ),
    ]

    # The folder has another name when it is installed. Without these two, TFDS looks for the card
    # and the citation in the wrong place.
    code_path = epath.Path(__file__)
    pkg_dir_path = code_path.parent

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for key, value in self._metadata().items():
            stored = self.info.metadata.get(key)
            if key != "numpy" and stored != value:
                raise ValueError(
                    f"{self.data_path}: expected data made with {key} {value}, as in the config "
                    f"{self.builder_config.name!r}, got data made with {stored}; give the config "
                    "another name, or delete the folder"
                )

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str | None:
        """What the user has to provide; None for simulated data."""
        return getattr(self.builder_config, "manual_instructions", None)

    def _metadata(self) -> dict[str, Any]:
        # The disk has it as JSON.
        text = json.dumps(
            self.builder_config.metadata(), default=lambda value: np.asarray(value).tolist()
        )
        return json.loads(text)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(config.features()),
            homepage="https://github.com/google-deepmind/disentangled_rnns",
            metadata=tfds.core.MetadataDict(self._metadata()),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        # With options for Beam, Beam does the work. The examples are the same.
        self._beam = bool(
            download_config and (download_config.beam_runner or download_config.beam_options)
        )
        super()._download_and_prepare(dl_manager, download_config)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        config = self.builder_config
        if isinstance(config, SimulatedConfig):
            return {split: self._generate_examples(config.shards(split)) for split in SPLITS}
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

    def _generate_examples(self, shards: list[tuple[str, int, int]]) -> Any:
        play = self.builder_config.play
        if not self._beam:
            return (pair for shard in shards for pair in play(shard))
        try:
            import apache_beam as beam
        except ImportError as error:
            raise ImportError(
                "beam_runner and beam_options: expected the package apache-beam, got none; install "
                "it with pip install 'keras-disrnn[beam]'"
            ) from error
        return beam.Create(shards) | beam.Reshuffle() | beam.FlatMap(play)
