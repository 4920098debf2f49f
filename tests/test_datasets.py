"""The TFDS builder, as a user of `tfds.load` meets it."""

from pathlib import Path

import keras_disrnn.datasets
import numpy as np
import pytest
import tensorflow_datasets as tfds
from keras_disrnn.datasets import BanditDopamineConfig, Builder

from keras_disrnn import bandit
from keras_disrnn.data import sessions_from_tfds


class BanditDopamineTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS' own checks: registration, card, features, unique keys, no shared examples."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 300, "validation": 100, "test": 300}
    # The data are simulated, but the test case wants a folder of examples to be there.
    EXAMPLE_DIR = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def examples(folder):
    splits = tfds.load("bandit_dopamine/q_learning", data_dir=folder)
    return {name: list(tfds.as_numpy(split)) for name, split in splits.items()}


def test_examples_are_the_simulated_sessions(examples):
    assert {name: len(split) for name, split in examples.items()} == BanditDopamineTest.SPLITS
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), sessions=700, trials=200, seed=0
    )
    index = {name: i for i, name in enumerate(played.ids)}
    seen = set()
    for split in examples.values():
        for example in split:
            name = example["session"].decode()
            seen.add(name)
            i = index[name]
            for ours, theirs in (
                ("choice", "choice"), ("reward", "reward"), ("dopamine", "dopamine"),
                ("reward_probability", "reward_probability"),
                ("choice_probability", "choice_probability"), ("variables", "agent_variables"),
            ):  # fmt: skip
                np.testing.assert_array_equal(getattr(played, ours)[i], example[theirs])
    assert seen == set(played.ids)


def test_examples_satisfy_the_agents_equations(examples):
    example = examples["test"][7]
    q = np.array([0.5, 0.5])
    for trial in range(len(example["choice"])):
        choice = example["choice"][trial]
        np.testing.assert_allclose(example["agent_variables"][trial], q, atol=1e-6)
        error = example["reward"][trial] - q[choice]
        np.testing.assert_allclose(example["dopamine"][trial], error, atol=1e-6)
        q[choice] += 0.3 * error


def test_a_split_becomes_sessions(folder, examples):
    split = tfds.load("bandit_dopamine/q_learning", split="validation", data_dir=folder)
    sessions = sessions_from_tfds(split)
    assert sessions.n_sessions == 100
    assert sessions.features.shape == (100, 201, 2)
    example = next(e for e in examples["validation"] if e["session"].decode() == sessions.ids[0])
    np.testing.assert_array_equal(sessions.features[0, 1:, 0], example["choice"])
    np.testing.assert_array_equal(sessions.dopamine[0, 1:, 0], example["dopamine"])


def test_a_config_of_ones_own(tmp_path):
    config = BanditDopamineConfig(
        name="fast_learner", agent=bandit.QLearning(alpha=0.9), train_sessions=5,
        validation_sessions=2, test_sessions=3, trials=9, seed=4,
    )  # fmt: skip
    builder = Builder(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    assert builder.info.splits["train"].num_examples == 5
    example = next(iter(tfds.as_numpy(builder.as_dataset(split="test"))))
    assert example["choice"].shape == (9,)
    step = example["agent_variables"][1] - example["agent_variables"][0]
    np.testing.assert_allclose(np.abs(step).max(), 0.9 * abs(example["dopamine"][0]), atol=1e-6)
    assert config.variable_names == ("q0", "q1")


def test_the_card_and_the_citation_are_installed(folder):
    info = tfds.builder("bandit_dopamine/q_learning", data_dir=folder).info
    assert "drifting two-armed bandit" in info.description
    assert "miller2023cognitive" in info.citation
    assert keras_disrnn.datasets.Builder.name == "bandit_dopamine"
