"""TensorFlow Datasets builders. Importing this package registers them for `tfds.load`.

Example:
    >>> import keras_disrnn.datasets
    >>> keras_disrnn.datasets.Builder.name
    'bandit_dopamine'
"""

from keras_disrnn.datasets.bandit_dopamine.bandit_dopamine_dataset_builder import Builder
from keras_disrnn.datasets.bandit_dopamine.configs import (
    Parker2016Config,
    SimulatedConfig,
    TrialsTableConfig,
)

__all__ = ["Builder", "Parker2016Config", "SimulatedConfig", "TrialsTableConfig"]


def __dir__() -> list[str]:
    return sorted(__all__)
