"""Experiments from data to a folder of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_disrnn.utils.lazy import load_lazily

if TYPE_CHECKING:
    from keras_disrnn.experiments import (
        ablation,
        adaptation,
        behaviour,
        commands,
        comparison,
        metrics,
        recovery,
        run,
        selection,
        settings,
        study,
    )

__all__ = [
    "ablation",
    "adaptation",
    "behaviour",
    "commands",
    "comparison",
    "metrics",
    "recovery",
    "run",
    "selection",
    "settings",
    "study",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = load_lazily(
        __name__, names={}, submodules={name: f"{__name__}.{name}" for name in __all__}
    )
