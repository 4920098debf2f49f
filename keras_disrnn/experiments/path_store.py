"""Keep finished paths on disk, so that an interrupted selection resumes to the same weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_disrnn.experiments.folder import ResultFolder, Step, compute_step
from keras_disrnn.experiments.penalty_path import PenaltyPath
from keras_disrnn.experiments.settings import plain_config
from keras_disrnn.training.fit import fingerprint

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.experiments.selection_settings import SelectionSettings
    from keras_disrnn.models.disrnn_model import DisRNNModel


class PathStore:
    """The finished paths of a selection, each a part of a `ResultFolder`.

    A part also holds the state of the model's random generators after the path. So what is trained
    next has the same noise, whether the path was trained or read. Use the store in a `with` block,
    which keeps other processes out of the folder.

    Args:
        folder: The folder; `None` to keep nothing.
        settings: The settings of the selection.
        sessions: The training sessions.
        model: The model that the paths train.
        seed: The seed of the selection.

    Raises:
        FileExistsError: If the folder holds paths of other settings, or anything else.
        ValueError: If the folder holds paths of other data.
    """

    def __init__(
        self,
        folder: str | Path | None,
        *,
        settings: SelectionSettings,
        sessions: Sessions,
        model: DisRNNModel,
        seed: int,
    ) -> None:
        weights = {id(weight) for weight in model.weights}
        self._generators = [each for each in model.variables if id(each) not in weights]
        self._step: Step = compute_step
        self._work: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if folder is not None:
            left_out = ("name", "frozen", "trained")
            shape = {k: v for k, v in model.get_config().items() if k not in left_out}
            config = {"selection": settings, "model": shape, "seed": seed}
            result = ResultFolder(folder, plain_config(config), command="select")
            self._work = result.begin(data=fingerprint(sessions))
            self._step = result.step

    def __enter__(self) -> PathStore:
        self._work.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._work.__exit__(*error)

    def path(self, name: str, train: Callable[[], PenaltyPath]) -> PenaltyPath:
        """Read a path, or train and keep it.

        Args:
            name: Name of the part.
            train: Function that trains the path.

        Returns:
            The path.

        Raises:
            ValueError: If the file of the part is damaged.
        """

        def compute() -> dict[str, Any]:
            path = train()._asdict()
            return path | {"generators": [each.numpy() for each in self._generators]}

        state = self._step(name, compute)
        for generator, value in zip(self._generators, state.pop("generators"), strict=True):
            generator.assign(value)
        return PenaltyPath(**state)
