"""The builder `bandit_dopamine`: choices, rewards and dopamine at a two-armed bandit."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from keras_disrnn import bandit

_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass
class BanditDopamineConfig(tfds.core.BuilderConfig):
    """Simulated sessions of one agent in one environment.

    Attributes:
        agent: An agent of `keras_disrnn.bandit`.
        environment: An environment of `keras_disrnn.bandit`.
        train_sessions, validation_sessions, test_sessions: Sessions in each split; a session is in
            one split only.
        trials: Trials in a session.
        seed: Session i of all is a function of the seed and i alone.
    """

    agent: bandit.Agent = dataclasses.field(default_factory=bandit.QLearning)
    environment: bandit.DriftingBandit = dataclasses.field(default_factory=bandit.DriftingBandit)
    train_sessions: int = 300
    validation_sessions: int = 100
    test_sessions: int = 300
    trials: int = 200
    seed: int = 0

    @property
    def variable_names(self):
        """Names of the `agent_variables`, in the order of their last axis."""
        return self.agent.variable_names(self.environment.arms)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Sessions at a two-armed bandit with a dopamine response for each trial."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Q-learning at a drifting bandit."}
    BUILDER_CONFIGS = [
        BanditDopamineConfig(
            name="q_learning",
            description="A Q-learning agent (alpha 0.3, beta 3) at a drifting bandit (sigma 0.1).",
        ),
    ]

    # The folder is installed under another name than it has in the source tree: without these
    # two TFDS looks for the card and the citation in the wrong place.
    code_path = epath.Path(__file__)
    pkg_dir_path = code_path.parent

    def _info(self):
        config = self.builder_config
        arms = config.environment.arms
        per_arm = tfds.features.Tensor(shape=(None, arms), dtype=np.float32)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "subject": tfds.features.Text(),
                    "session": tfds.features.Text(),
                    "choice": tfds.features.Tensor(
                        shape=(None,), dtype=np.int32, doc="The arm chosen, from 0."
                    ),
                    "reward": tfds.features.Tensor(shape=(None,), dtype=np.float32, doc="0 or 1."),
                    "dopamine": tfds.features.Tensor(
                        shape=(None,),
                        dtype=np.float32,
                        doc="The agent's prediction error, in units of reward.",
                    ),
                    "reward_probability": per_arm,
                    "choice_probability": per_arm,
                    "agent_variables": tfds.features.Tensor(
                        shape=(None, len(config.variable_names)),
                        dtype=np.float32,
                        doc=f"Before the trial's update: {', '.join(config.variable_names)}.",
                    ),
                }
            ),
            homepage="https://github.com/google-deepmind/disentangled_rnns",
        )

    def _split_generators(self, dl_manager):
        first = 0
        splits = {}
        for split in _SPLITS:
            count = getattr(self.builder_config, f"{split}_sessions")
            splits[split] = self._generate_examples(first, count)
            first += count
        return splits

    def _generate_examples(self, first, count):
        config = self.builder_config
        played = bandit.simulate(
            config.agent,
            config.environment,
            sessions=count,
            trials=config.trials,
            seed=config.seed,
            first_session=first,
        )
        for index, name in enumerate(played.ids):
            yield (
                name,
                {
                    "subject": played.subject,
                    "session": name,
                    "choice": played.choice[index],
                    "reward": played.reward[index],
                    "dopamine": played.dopamine[index],
                    "reward_probability": played.reward_probability[index],
                    "choice_probability": played.choice_probability[index],
                    "agent_variables": played.variables[index],
                },
            )
