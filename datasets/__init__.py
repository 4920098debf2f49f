"""TensorFlow Datasets builders. Importing this package registers them for `tfds.load`:

>>> import keras_disrnn.datasets
>>> examples = tfds.load("bandit_dopamine/q_learning", split="train")
"""

from keras_disrnn.datasets.bandit_dopamine.bandit_dopamine_dataset_builder import (
    Builder,
    Parker2016Config,
    SimulatedConfig,
    TrialsTableConfig,
)

__all__ = ["Builder", "Parker2016Config", "SimulatedConfig", "TrialsTableConfig"]


def __dir__() -> list[str]:
    return sorted(__all__)
