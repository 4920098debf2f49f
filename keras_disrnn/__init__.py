"""Disentangled recurrent networks for choice and dopamine, in Keras."""

from keras_disrnn.bottleneck import InformationBottleneck
from keras_disrnn.cell import DisRNNCell
from keras_disrnn.core import DisRNN
from keras_disrnn.model import DisRNNModel
from keras_disrnn.readouts import ChoiceReadout, DopamineReadout
from keras_disrnn.res_mlp import ResidualMLP
from keras_disrnn.subjects import SubjectEmbedding
from keras_disrnn.training import compile_stage, train
from keras_disrnn.version import __version__

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
    "compile_stage",
    "train",
]
