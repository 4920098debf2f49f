"""Disentangled recurrent networks for choice and dopamine, in Keras.

Names and submodules load on first use, so `import keras_disrnn` is quick and does not import
TensorFlow.

Example:

>>> import keras_disrnn
>>> model = keras_disrnn.DisRNNModel(num_latents=3)
>>> sorted(name for name in dir(keras_disrnn) if name.islower() and "_" not in name)
['analysis', 'bandit', 'baselines', 'data', 'datasets', 'experiments', 'export', 'plots', 'train']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_disrnn.utils.lazy import load_lazily
from keras_disrnn.utils.registration import register_classes as _register_classes
from keras_disrnn.version import __version__

_register_classes()

if TYPE_CHECKING:
    # The same names as in the table below, for type checkers and editors.
    import keras_disrnn.datasets as datasets
    from keras_disrnn import analysis, bandit, data, experiments, plots
    from keras_disrnn.io import saved_model as export
    from keras_disrnn.io.keras_file import load_model
    from keras_disrnn.layers.disrnn import DisRNN
    from keras_disrnn.layers.disrnn_cell import DisRNNCell
    from keras_disrnn.layers.information_bottleneck import InformationBottleneck
    from keras_disrnn.layers.readouts import ChoiceReadout, DopamineReadout
    from keras_disrnn.layers.residual_mlp import ResidualMLP
    from keras_disrnn.layers.subject_embedding import SubjectEmbedding
    from keras_disrnn.models import baselines
    from keras_disrnn.models.disrnn_model import DisRNNModel
    from keras_disrnn.models.latents import predict_latents
    from keras_disrnn.training.fit import train
    from keras_disrnn.training.stages import compile_stage

__all__ = [
    "ChoiceReadout",
    "DisRNN",
    "DisRNNCell",
    "DisRNNModel",
    "DopamineReadout",
    "InformationBottleneck",
    "ResidualMLP",
    "SubjectEmbedding",
    "__version__",
    "analysis",
    "bandit",
    "baselines",
    "compile_stage",
    "data",
    "datasets",
    "experiments",
    "export",
    "load_model",
    "plots",
    "predict_latents",
    "train",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = load_lazily(
        __name__,
        names={
            "ChoiceReadout": "keras_disrnn.layers.readouts",
            "DisRNN": "keras_disrnn.layers.disrnn",
            "DisRNNCell": "keras_disrnn.layers.disrnn_cell",
            "DisRNNModel": "keras_disrnn.models.disrnn_model",
            "DopamineReadout": "keras_disrnn.layers.readouts",
            "InformationBottleneck": "keras_disrnn.layers.information_bottleneck",
            "ResidualMLP": "keras_disrnn.layers.residual_mlp",
            "SubjectEmbedding": "keras_disrnn.layers.subject_embedding",
            "compile_stage": "keras_disrnn.training.stages",
            "load_model": "keras_disrnn.io.keras_file",
            "predict_latents": "keras_disrnn.models.latents",
            "train": "keras_disrnn.training.fit",
        },
        submodules={
            "analysis": "keras_disrnn.analysis",
            "bandit": "keras_disrnn.bandit",
            "baselines": "keras_disrnn.models.baselines",
            "data": "keras_disrnn.data",
            "datasets": "keras_disrnn.datasets",
            "experiments": "keras_disrnn.experiments",
            "export": "keras_disrnn.io.saved_model",
            "plots": "keras_disrnn.plots",
        },
    )
