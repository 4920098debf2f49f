"""Registration of the package's classes with Keras before their modules are imported.

`keras.models.load_model` finds custom classes only in the registry of Keras. The classes of this
package register themselves when their modules are imported, which `import keras_disrnn` does not
do. This module registers placeholders instead, which import the class when a file needs it.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "keras_disrnn"

CLASSES = {
    "keras_disrnn.layers.disrnn": ("DisRNN",),
    "keras_disrnn.layers.disrnn_cell": ("DisRNNCell",),
    "keras_disrnn.layers.information_bottleneck": ("InformationBottleneck",),
    "keras_disrnn.layers.readouts": ("ChoiceReadout", "DopamineReadout"),
    "keras_disrnn.layers.residual_mlp": ("ResidualMLP",),
    "keras_disrnn.layers.subject_embedding": ("SubjectEmbedding",),
    "keras_disrnn.models.baselines": (
        "BayesianBelief",
        "BiasedForgettingQLearning",
        "ChoiceKernelQLearning",
        "CompareToThreshold",
        "DifferentialForgettingQLearning",
        "DualRateQLearning",
        "FastSlowQLearning",
        "ForgettingQLearning",
        "GRU",
        "LeakyActorCritic",
        "Naive",
        "QLearning",
        "RecursiveLogistic",
        "ValueRegression",
        "WinStayLoseShift",
    ),
    "keras_disrnn.models.disrnn_model": ("DisRNNModel",),
    "keras_disrnn.objectives.losses": ("ChoiceCrossentropy", "DopamineMSE", "LogDopamineMSE"),
    "keras_disrnn.objectives.metrics": (
        "DopamineMeanSquaredError",
        "DopamineR2",
        "NormalizedLikelihood",
    ),
    "keras_disrnn.objectives.optimizer": ("FlatAdam",),
}
"""The modules with registered classes, and the names of these classes."""


class _Placeholder:
    """Stands for a registered class until a file needs it."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self.__name__ = module, name

    def from_config(self, config: dict[str, Any], **kwargs: Any) -> Any:
        """Import the class, which then takes this placeholder's place, and use its method."""
        kind = getattr(importlib.import_module(self._module), self.__name__)
        return kind.from_config(config, **kwargs)


def _register() -> None:
    import keras

    registry = keras.saving.get_custom_objects()
    for module, names in CLASSES.items():
        for name in names:
            registry.setdefault(f"{PACKAGE}>{name}", _Placeholder(module, name))


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Registers the placeholders as soon as Keras is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register()

            setattr(spec.loader, "exec_module", execute_and_register)  # noqa: B010
        return spec


def register_classes() -> None:
    """Register the package's classes now, or when Keras is imported.

    Example:
        >>> import keras
        >>> import keras_disrnn
        >>> "keras_disrnn>DisRNNModel" in keras.saving.get_custom_objects()
        True
    """
    keras = sys.modules.get("keras")
    if keras is None:
        sys.meta_path.insert(0, _AfterKeras())
    elif hasattr(keras, "saving"):
        _register()
