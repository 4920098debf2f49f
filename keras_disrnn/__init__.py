"""Disentangled recurrent networks for choice and dopamine, in Keras.

Names and submodules load when they are first used, so that `import keras_disrnn` is quick and does
not import TensorFlow.
"""

import importlib

from keras_disrnn.utils.registration import register_classes as _register_classes
from keras_disrnn.version import __version__

_register_classes()

_HOMES = {
    "ChoiceReadout": "keras_disrnn.layers.readouts",
    "DisRNN": "keras_disrnn.layers.disrnn",
    "DisRNNCell": "keras_disrnn.layers.disrnn_cell",
    "DisRNNModel": "keras_disrnn.models.disrnn_model",
    "DopamineReadout": "keras_disrnn.layers.readouts",
    "InformationBottleneck": "keras_disrnn.layers.information_bottleneck",
    "ResidualMLP": "keras_disrnn.layers.residual_mlp",
    "SubjectEmbedding": "keras_disrnn.layers.subject_embedding",
    "compile_stage": "keras_disrnn.training.stages",
    "train": "keras_disrnn.training.fit",
}
"""Public names and the modules that define them."""

_SUBMODULES = {
    "analysis": "keras_disrnn.analysis",
    "bandit": "keras_disrnn.bandit",
    "baselines": "keras_disrnn.models.baselines",
    "data": "keras_disrnn.data",
    "datasets": "keras_disrnn.datasets",
    "experiments": "keras_disrnn.experiments",
    "export": "keras_disrnn.io.saved_model",
    "plots": "keras_disrnn.plots",
}
"""Public submodules and where they are."""

__all__ = ["__version__", *_HOMES, *_SUBMODULES]


def __getattr__(name):
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(_SUBMODULES[name])
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
