"""The core, the readouts and the choice likelihood on the CPU, in C++, with exact gradients.

`DisRNN(implementation="auto")`, the readouts and the losses use the library if they can. It is
built when the package is installed and there is a C++ compiler. Without it everything runs in Keras
operations.
"""

from keras_disrnn.native.library import (
    ACTIVATIONS,
    INSTRUCTIONS,
    best_instructions,
    disabled,
    is_disabled,
    processor_count,
    thread_count,
    why_not,
    why_not_of_dtype,
    yield_processors,
)
from keras_disrnn.native.likelihood import run_log_likelihood
from keras_disrnn.native.passes import Pass
from keras_disrnn.native.readout import Readout, ReadoutParameters, run_readout
from keras_disrnn.native.recurrence import COSTS, Parameters, Recurrence, run_core

__all__ = [
    "ACTIVATIONS",
    "COSTS",
    "INSTRUCTIONS",
    "Parameters",
    "Pass",
    "Readout",
    "ReadoutParameters",
    "Recurrence",
    "best_instructions",
    "disabled",
    "is_disabled",
    "processor_count",
    "run_core",
    "run_log_likelihood",
    "run_readout",
    "thread_count",
    "why_not",
    "why_not_of_dtype",
    "yield_processors",
]
