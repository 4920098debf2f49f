"""The two stages of a selection: how each one starts, trains, is scored and is described."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_disrnn.analysis.bottlenecks import compute_bottlenecks, latent_names, participation_ratio
from keras_disrnn.analysis.evaluation import mean_squared_error, ratio_likelihood, session_totals
from keras_disrnn.analysis.graph import READOUTS, choice_part, compute_graph, dopamine_part
from keras_disrnn.experiments.settings import BATCH_SIZE
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.training.fit import train
from keras_disrnn.utils.thresholds import SMALLEST_EFFECT

if TYPE_CHECKING:
    import networkx

    from keras_disrnn.data import Sessions
    from keras_disrnn.experiments.selection_settings import SelectionSettings
    from keras_disrnn.models.disrnn_model import DisRNNModel

UNCLEAR_SIGMA = (0.25, 0.75)
"""A bottleneck with a sigma between these is neither clearly open nor clearly closed."""


class Stage(abc.ABC):
    """A stage of training whose penalties are selected.

    Args:
        model: The model to train. Its weights change.
        settings: The settings of the selection.

    Attributes:
        name: `"choice"` or `"dopamine"`.
        title: What the score is called in reports.
        higher_is_better: Whether a higher score is better.
        trains_core: Whether the stage trains the core. Its paths then start from new initial
            weights, with warm-up steps.
        training_stage: Name of the stage in `train`.
        groups: Groups of bottlenecks that the stage trains; the first one gives the openness.
        scales: The penalty scales, rising.
        steps: Training steps at each scale.
        penalties: Penalty weights at scale 1, by name.
    """

    name: str
    title: str
    higher_is_better: bool
    trains_core: bool
    training_stage: str
    groups: tuple[str, ...]
    scales: Sequence[float]
    steps: int

    def __init__(self, model: DisRNNModel, settings: SelectionSettings) -> None:
        self.model, self._settings = model, settings
        self.penalties: dict[str, float] = {
            name: getattr(model, name)
            for name in model.penalty_names
            if PENALTIES[name].stage == self.name
        }

    @abc.abstractmethod
    def begin(self, seed: int) -> None:
        """Set the weights that a path starts from."""

    @abc.abstractmethod
    def session_sums(self, sessions: Sessions) -> np.ndarray:
        """Compute sums of each session, `(S, K)`, from which `score` computes the score."""

    @abc.abstractmethod
    def score(self, sums: np.ndarray) -> Any:
        """Compute the score from sums `(..., K)`."""

    @abc.abstractmethod
    def tolerance(self, sums: np.ndarray) -> float:
        """Return how much of the score may be lost without mattering."""

    @abc.abstractmethod
    def _part_of_graph(self, graph: networkx.DiGraph) -> networkx.DiGraph:
        """Return the part of a graph that the stage trains."""

    def set_weights(self, weights: list[Any]) -> DisRNNModel:
        """Set the model's weights and return the model."""
        self.model.set_weights(weights)
        return self.model

    def set_scale(self, scale: float) -> None:
        """Multiply the model's penalty weights at scale 1 by a penalty scale."""
        for name, value in self.penalties.items():
            setattr(self.model, name, value * scale)

    def graph(self, weights: list[Any] | None = None) -> networkx.DiGraph:
        """Compute the graph of the given weights, or of the current ones."""
        if weights is not None:
            self.set_weights(weights)
        return self._part_of_graph(compute_graph(self.model))

    def bottleneck(self, source: str, target: str) -> tuple[Any, tuple[int, ...]]:
        """Return the layer of bottlenecks of an edge out of a latent, and the edge's index."""
        cell = self.model.core.cell
        names = latent_names(cell.num_latents)
        index = (names.index(source),)
        if target == READOUTS["choice"]:
            return self.model.choice_readout.bottleneck, index
        return cell.update_latent_bottleneck, (names.index(target), *index)

    def loss(self, sessions: Sessions) -> float:
        """Compute the loss with penalties and without noise."""
        results = self.model.evaluate(sessions.dataset(BATCH_SIZE), verbose=0, return_dict=True)
        return float(results["loss"])

    def training_loss(self, sessions: Sessions) -> float:
        """Compute what training minimizes, with penalties and one draw of the noise."""
        total = 0.0
        for features, targets, weights in sessions.dataset(BATCH_SIZE):
            outputs = self.model(features, training=True)
            loss = self.model.compute_loss(features, targets, outputs, weights, training=True)
            total += float(loss) * len(features)
        return total / sessions.num_sessions

    def openness(self, weights: list[Any]) -> float:
        """Compute the participation ratio of the first group's bottlenecks."""
        rows = compute_bottlenecks(self.set_weights(weights))
        return participation_ratio(rows.loc[rows["group"] == self.groups[0], "sigma"])

    def describe_unclear_bottlenecks(self) -> list[str]:
        """Return one sentence per bottleneck of the graph that is neither open nor closed."""
        rows = compute_bottlenecks(self.model)
        rows = rows[rows["group"].isin(self.groups)]
        nodes = self.graph().nodes
        rows = rows[rows["sigma"].between(*UNCLEAR_SIGMA) & rows["source"].isin(nodes)]
        rows = rows[rows["target"].isin([*nodes, "choice", "dopamine"])]
        rows = rows[(rows["group"] == "latent") | (rows["source"] != rows["target"])]
        return [
            f"The bottleneck from {source} to {target} is neither open nor closed "
            f"(sigma {sigma:.2f})."
            for source, target, sigma in zip(
                rows["source"], rows["target"], rows["sigma"], strict=True
            )
        ]

    def train(
        self,
        sessions: Sessions,
        *,
        steps: int,
        learning_rate: float,
        seed: int,
        warmup: bool = False,
        callbacks: Sequence[Any] = (),
    ) -> None:
        """Train the model for some steps at the current penalty scale."""
        batch_size = self._settings.batch_size
        counts: dict[str, Any] = dict.fromkeys(("warmup_steps", "stage1_steps", "stage2_steps"), 0)
        counts["warmup_steps" if warmup else f"{self.training_stage}_steps"] = steps
        train(
            self.model,
            sessions,
            **counts,
            steps_per_epoch=steps,
            batch_size=batch_size if batch_size < sessions.num_sessions else None,
            learning_rate=learning_rate,
            seed=seed,
            callbacks=callbacks,
            verbose=0,
        )


class ChoiceStage(Stage):
    """Stage 1: the core and the choice readout.

    Args:
        model: The model to train.
        settings: The settings of the selection.
        make_model: Function from a seed to a new, built model.
    """

    name, title, higher_is_better = "choice", "likelihood", True
    trains_core, training_stage = True, "stage1"
    groups = ("latent", "update", "choice")

    def __init__(
        self,
        model: DisRNNModel,
        settings: SelectionSettings,
        *,
        make_model: Callable[[int], DisRNNModel],
    ) -> None:
        super().__init__(model, settings)
        self._make_model = make_model
        self.scales, self.steps = settings.scales, settings.steps

    def begin(self, seed: int) -> None:
        _assign(self.model.variables, self._make_model(seed).variables)

    def session_sums(self, sessions: Sessions) -> np.ndarray:
        return session_totals(self.model, sessions, batch_size=BATCH_SIZE)[0]

    def score(self, sums: np.ndarray) -> Any:
        return ratio_likelihood(sums[..., 0], sums[..., 1])

    def tolerance(self, sums: np.ndarray) -> float:
        return SMALLEST_EFFECT["choice"]

    def _part_of_graph(self, graph: networkx.DiGraph) -> networkx.DiGraph:
        return choice_part(graph)


class DopamineStage(Stage):
    """Stage 2: the dopamine readout on the frozen core.

    Args:
        model: The model, with the core that stage 1 trained.
        settings: The settings of the selection.
        sessions: The training sessions.
    """

    name, title, higher_is_better = "dopamine", "MSE", False
    trains_core, training_stage = False, "stage2"
    groups = ("dopamine",)

    def __init__(
        self, model: DisRNNModel, settings: SelectionSettings, *, sessions: Sessions
    ) -> None:
        super().__init__(model, settings)
        self.scales, self.steps = settings.dopamine_scales, settings.dopamine_steps
        # A squared error has the squared unit of the response. Penalties relative to the variance
        # mean the same for every recording.
        variance = float(np.var(sessions.dopamine[sessions.dopamine_weight > 0]))
        self.penalties = {name: value * variance for name, value in self.penalties.items()}
        self._initial = [variable.numpy() for variable in model.variables]

    def begin(self, seed: int) -> None:
        _assign(self.model.variables, self._initial)

    def session_sums(self, sessions: Sessions) -> np.ndarray:
        _, dopamine = session_totals(self.model, sessions, batch_size=BATCH_SIZE)
        return np.asarray(dopamine).sum(axis=1)

    def score(self, sums: np.ndarray) -> Any:
        return mean_squared_error(sums)

    def tolerance(self, sums: np.ndarray) -> float:
        return SMALLEST_EFFECT["dopamine"] * sums[3] / sums[0]

    def _part_of_graph(self, graph: networkx.DiGraph) -> networkx.DiGraph:
        return dopamine_part(graph)


def _assign(variables: Iterable[Any], values: Iterable[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
