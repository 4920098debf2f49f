"""Separate latents that are mixtures of two variables.

Two latents that each hold a part of two variables need every bottleneck that either variable needs.
Training does not leave such an optimum: rotating the latents step by step increases the loss before
it decreases it. `separate_latents` closes one bottleneck at a time while training continues, and
keeps the result if its loss is lower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_disrnn.analysis.graph import describe_graph
from keras_disrnn.experiments.penalty_path import PenaltyPath

if TYPE_CHECKING:
    import networkx

    from keras_disrnn.data import Sessions
    from keras_disrnn.experiments.selection_stages import Stage

MIN_GAIN = 5e-4
"""How much the loss (nats per choice) must decrease. Draws of the noise change it by less."""

MAX_TRIALS = 9
"""How many bottlenecks are closed in turn. Three latents have this many."""


class CloseBottleneck(keras.callbacks.Callback):
    """Keep one bottleneck closed while a model trains.

    Args:
        bottleneck: The layer of bottlenecks.
        index: Index of the bottleneck in the layer.
    """

    def __init__(self, bottleneck: Any, index: tuple[int, ...]) -> None:
        super().__init__()
        self.bottleneck, self.index = bottleneck, index

    def _close(self) -> None:
        for weight, value in (
            (self.bottleneck.raw_sigma, 1.0),
            (self.bottleneck.raw_multiplier, 0.0),
        ):
            values = weight.numpy()
            values[self.index] = value
            weight.assign(values)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._close()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._close()


def get_latents(graph: networkx.DiGraph) -> set[str]:
    """Return the names of a graph's latents."""
    return {node for node, kind in graph.nodes(data="kind") if kind == "latent"}


def find_mixing_edges(graph: networkx.DiGraph) -> list[tuple[str, str]]:
    """List the edges that a mixture of two variables may have needlessly.

    Args:
        graph: A graph, as `compute_graph` returns it.

    Returns:
        The edges out of latents that have at least two readers, as `(source, target)`.

    Example:

    >>> from keras_disrnn.analysis.graph import make_graph
    >>> from keras_disrnn.experiments.separation import find_mixing_edges
    >>> edges = [("reward", "z2"), ("z2", "z1"), ("z2", "choice readout"), ("z1", "choice readout")]
    >>> find_mixing_edges(make_graph(edges))
    [('z2', 'choice readout'), ('z2', 'z1')]
    """
    return [
        (source, target)
        for source in sorted(get_latents(graph))
        for target in sorted(graph.successors(source))
        if graph.out_degree(source) > 1
    ]


def separate_latents(
    stage: Stage,
    sessions: Sessions,
    *,
    candidates: Sequence[list[Any]],
    steps: int,
    learning_rate: float,
    seed: int,
    report: Callable[[str], None],
) -> PenaltyPath:
    """Search for a better optimum than mixtures of latents.

    Each trial closes one bottleneck, trains for `steps` at the learning rate and for as many at a
    fifth of it. The best trial is kept if its loss, with noise and penalties, is lower by
    `MIN_GAIN`. The search continues from there.

    Args:
        stage: The stage, at the penalty scale to train at.
        sessions: The training sessions.
        candidates: Weights of fits with the same graph, the chosen fit first. The others are tried
            while a latent still has several readers.
        steps: Training steps of each trial at each of the two learning rates.
        learning_rate: The learning rate.
        seed: Seed of the batches.
        report: Function that receives a line of text after each trial.

    Returns:
        A path with the weights of the best fit and, as its loss, by how much the loss decreased;
        an empty path if no trial was better.
    """

    def train_from(weights: list[Any], callbacks: Sequence[Any] = ()) -> tuple[float, list[Any]]:
        stage.set_weights(weights)
        for rate in (learning_rate, learning_rate / 5):
            stage.train(sessions, steps=steps, learning_rate=rate, seed=seed, callbacks=callbacks)
        return stage.training_loss(sessions), stage.model.get_weights()

    # Longer training decreases the loss too, so compare with a fit that was trained for as long.
    initial_loss = lowest_loss = train_from(candidates[0])[0]
    best = None
    for weights in candidates:
        while edges := find_mixing_edges(stage.graph(weights))[:MAX_TRIALS]:
            trials = []
            for source, target in edges:
                closed = CloseBottleneck(*stage.bottleneck(source, target))
                trials.append(train_from(weights, [closed]))
                report(
                    f"{stage.name}, without {source} > {target}: loss "
                    f"{trials[-1][0] - lowest_loss:+.2g}, {describe_graph(stage.graph())}"
                )
            loss, trained = min(trials, key=lambda trial: trial[0])
            if loss > lowest_loss - MIN_GAIN:
                break
            lowest_loss = loss
            weights = best = trained
        if best is not None and not find_mixing_edges(stage.graph(best)):
            break
    if best is None:
        return PenaltyPath([], np.array([]), np.array([]))
    return PenaltyPath([best], np.array([initial_loss - lowest_loss]), np.array([]))
