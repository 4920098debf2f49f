"""Select the penalties by cross-validation over sessions, and train a model with them.

1. A path trains one model at rising penalty scales, each from the weights of the scale before
   (`penalty_path`). Paths on folds of the sessions score each scale and show which graph it leaves
   open. Paths on all sessions give the weights.
2. One scale is chosen (`penalty_choice`).
3. Latents of the chosen fit that are mixtures of two variables are separated (`separation`).
4. The last steps train the chosen fit at a lower learning rate.

The stage of choice comes first. If dopamine was recorded, the penalty of the dopamine readout is
selected in the same way (`selection_stages`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_disrnn.analysis.graph import describe_graph, same_graph
from keras_disrnn.data.splits import Split, k_fold
from keras_disrnn.experiments.path_store import PathStore
from keras_disrnn.experiments.penalty_choice import choose_representative, tabulate_scales
from keras_disrnn.experiments.penalty_path import PenaltyPath, train_path
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.selection_stages import ChoiceStage, DopamineStage, Stage
from keras_disrnn.experiments.separation import find_mixing_edges, get_latents, separate_latents
from keras_disrnn.training.fit import check_training
from keras_disrnn.utils.checks import check_integer

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.models.disrnn_model import DisRNNModel


@dataclasses.dataclass(frozen=True)
class Selection:
    """The penalty scales that were tried for one stage, and the one that was chosen.

    Attributes:
        table: A `pandas.DataFrame` with one row per penalty scale:

            - `scale`, and the penalty weights by name;
            - `score`, the cross-validated normalized likelihood (of dopamine the MSE), and
              `score_se`, its standard error;
            - `cost`, the loss against the best scale, and `cost_se`, its standard error, paired by
              session;
            - `within`, whether the scale is in reach of the best;
            - `graph`, the graph found in most folds, in words, and `edges`, its number of edges;
            - `open`, the participation ratio of openness (it has no threshold);
            - `agreement`, the share of the other paths with the same graph;
            - `chosen`.
        notes: Sentences on what is not clear-cut.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def scale(self) -> float:
        """The chosen penalty scale."""
        return float(self.table.loc[self.table["chosen"], "scale"].iloc[0])


def select(
    make_model: Callable[[int], DisRNNModel],
    sessions: Sessions,
    *,
    settings: SelectionSettings | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[DisRNNModel, dict[str, Selection]]:
    """Select the penalties and train a model with them.

    Args:
        make_model: Function from a seed to a new, built `DisRNNModel`. Models of different seeds
            differ in their initial weights alone.
        sessions: The training sessions. The final model is trained on all of them.
        settings: The settings; `None` for the default ones.
        seed: Seed of the folds, the initial weights, the noise and the batches.
        folder: Folder of finished paths. With the same settings and data they are read from it and
            not trained again. `None` to keep nothing.
        report: Function that receives a line of text after each penalty scale.

    Returns:
        The trained model, and a dict of stage name (`"choice"` and, if dopamine was recorded,
        `"dopamine"`) to `Selection`.

    Raises:
        ValueError: If there are fewer sessions than folds, or if the folder holds paths of other
            settings.
        TrainingDiverged: If a path diverges even at a quarter of the learning rate.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.experiments.selection import select
    >>> def make_model(seed):
    ...     return keras_disrnn.DisRNNModel(num_observations=2, seed=seed)
    >>> def fit(sessions):
    ...     return select(make_model, sessions, folder="paths", report=print)
    """
    settings = settings or SelectionSettings()
    check_integer("seed", seed, 0)
    model = make_model(seed)
    sessions = sessions.for_model(model)
    check_selection(model, sessions, settings, seed)
    with PathStore(folder, settings=settings, sessions=sessions, model=model, seed=seed) as store:
        options: dict[str, Any] = {
            "settings": settings,
            "seed": seed,
            "store": store,
            "report": report or (lambda line: None),
        }
        choice = ChoiceStage(model, settings, make_model=make_model)
        selections = {"choice": StageSelection(choice, sessions, **options).run()}
        if model.num_signals and sessions.dopamine_weight.any():
            dopamine = DopamineStage(model, settings, sessions=sessions)
            selections["dopamine"] = StageSelection(dopamine, sessions, **options).run()
    return model, selections


def check_selection(
    model: DisRNNModel, sessions: Sessions, settings: SelectionSettings, seed: int
) -> None:
    """Check that penalties can be selected on sessions with these settings.

    Args:
        model: The model.
        sessions: The training sessions, as the model reads them.
        settings: The settings.
        seed: The seed of the selection.

    Raises:
        ValueError: If there are fewer sessions than folds, or they do not match the model.
    """
    k_fold(sessions, settings.num_folds, seed=seed)
    check_training(
        model,
        sessions,
        {"warmup": settings.warmup_steps, "stage1": settings.steps, "stage2": 0, "joint": 0},
        steps_per_epoch=max(settings.warmup_steps, settings.steps),
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
    )


class StageSelection:
    """The selection of one stage.

    Args:
        stage: The stage.
        sessions: The training sessions.
        settings: The settings.
        seed: Seed of the folds, the initial weights, the noise and the batches.
        store: The store of finished paths.
        report: Function that receives lines of text.
    """

    def __init__(
        self,
        stage: Stage,
        sessions: Sessions,
        *,
        settings: SelectionSettings,
        seed: int,
        store: PathStore,
        report: Callable[[str], None],
    ) -> None:
        self._stage, self._sessions, self._settings = stage, sessions, settings
        self._seed, self._store, self._report = seed, store, report
        self._folds: list[PenaltyPath] = []
        self._starts: list[PenaltyPath] = []
        self._notes: list[str] = []

    def run(self) -> Selection:
        """Choose the stage's penalty scale and train the stage's model at it."""
        stage = self._stage
        sums = self._train_folds()
        self._train_starts()
        table, chosen, self._notes = tabulate_scales(
            stage, sums, folds=self._folds, starts=self._starts
        )
        chosen, weights = self._choose_weights(chosen)
        table["chosen"] = np.arange(len(table)) == chosen
        stage.set_scale(stage.scales[chosen])
        self._settle(weights)
        notes = (*self._notes, *stage.describe_unclear_bottlenecks())
        self._report(
            f"{stage.name}: chosen penalty scale {stage.scales[chosen]:g}, "
            f"{describe_graph(stage.graph())}"
        )
        return Selection(table, notes)

    def _train_folds(self) -> np.ndarray:
        """Train a path on each fold; return the sums of each session from outside its fold."""
        by_session: dict[str, np.ndarray] = {}
        for number, split in enumerate(
            k_fold(self._sessions, self._settings.num_folds, seed=self._seed)
        ):
            path = self._path(
                f"{self._stage.name}-fold{number}",
                split=split,
                seed=1000 * (self._seed + 1) + number,
                label=f"{self._stage.name}, fold {number + 1}/{self._settings.num_folds}",
            )
            self._folds.append(path)
            by_session |= dict(zip(split.held_out.ids, path.sums.swapaxes(0, 1), strict=True))
        return np.stack([by_session[name] for name in self._sessions.ids])

    def _train_starts(self) -> None:
        count = self._settings.num_starts if self._stage.trains_core else 1
        for number in range(count):
            path = self._path(
                f"{self._stage.name}-start{number}",
                split=None,
                seed=self._seed + 1_000_000 * number,
                label=f"{self._stage.name}, all sessions"
                + (f", start {number + 1}" if number else ""),
            )
            self._starts.append(path)

    def _path(self, name: str, *, split: Split | None, seed: int, label: str) -> PenaltyPath:
        def train() -> PenaltyPath:
            return train_path(
                self._stage,
                self._sessions,
                split=split,
                settings=self._settings,
                seed=seed,
                report=self._report,
                label=label,
            )

        return self._store.path(name, train)

    def _choose_weights(self, chosen: int) -> tuple[int, list[Any]]:
        """Return the index of the scale and the weights, separated if they were mixtures."""
        stage = self._stage
        weights, gain = self._separate(chosen, "separated")
        if gain is not None:
            self._notes.append(
                "The latents of the chosen fit were mixtures. Training with one of their "
                f"bottlenecks closed separated them to '{self._describe(weights)}', at a loss that "
                f"is lower by {gain:.2g}. The scores are those of the mixtures."
            )
        if chosen + 1 == len(stage.scales) or not self._is_mixed(weights):
            return chosen, weights
        separated, gain = self._separate(chosen + 1, "separated-stronger")
        if gain is None or self._is_mixed(separated):
            return chosen, weights
        loss, tolerance = self._compare_scores(weights, separated)
        if loss > tolerance:
            return chosen, weights
        self._notes.append(
            f"At the penalty scale {stage.scales[chosen]:g} the latents stayed mixtures. At "
            f"{stage.scales[chosen + 1]:g}, where the mixtures were out of reach, they separate to "
            f"'{self._describe(separated)}'. This fit is taken, because it loses only "
            f"{max(loss, 0):.2g} on the training sessions."
        )
        return chosen + 1, separated

    def _separate(self, index: int, name: str) -> tuple[list[Any], float | None]:
        """Return the weights that represent a scale, with mixtures of latents separated.

        Also returns by how much the loss decreased, or `None` if nothing was separated.
        """
        stage = self._stage
        stage.set_scale(stage.scales[index])
        fit = choose_representative(stage, index, folds=self._folds, starts=self._starts)
        if not self._settings.separation_steps or not self._is_mixed(fit.weights):
            return fit.weights, None
        paths = (*self._starts, *self._folds)
        others = [path.weights[index] for path in paths if path.weights[index] is not fit.weights]
        others = [weights for weights in others if same_graph(stage.graph(weights), fit.graph)]
        path = self._store.path(
            f"{stage.name}-{name}",
            lambda: separate_latents(
                stage,
                self._sessions,
                candidates=[fit.weights, *others],
                steps=self._settings.separation_steps,
                learning_rate=self._settings.learning_rate,
                seed=self._seed,
                report=self._report,
            ),
        )
        if not path.weights:
            return fit.weights, None
        return path.weights[0], float(path.losses[0])

    def _settle(self, weights: list[Any]) -> None:
        """Train the last steps, and undo them if they change which latents are open."""
        stage = self._stage
        latents = get_latents(stage.graph(weights))
        if not self._settings.settle_steps:
            return
        stage.train(
            self._sessions,
            steps=self._settings.settle_steps,
            learning_rate=self._settings.learning_rate / 5,
            seed=self._seed,
        )
        if get_latents(stage.graph()) != latents:
            stage.set_weights(weights)
            self._notes.append(
                "The last steps changed which latents are open and were undone: the chosen graph "
                "is not stable at this penalty scale."
            )

    def _compare_scores(self, weights: list[Any], others: list[Any]) -> tuple[float, float]:
        """Return what other weights lose of the likelihood, and how much loss is tolerated."""
        sums = []
        for each in (weights, others):
            self._stage.set_weights(each)
            sums.append(self._stage.session_sums(self._sessions).sum(axis=0))
        before, after = (float(self._stage.score(each)) for each in sums)
        return before - after, self._stage.tolerance(sums[0])

    def _is_mixed(self, weights: list[Any]) -> bool:
        return bool(find_mixing_edges(self._stage.graph(weights)))

    def _describe(self, weights: list[Any]) -> str:
        return describe_graph(self._stage.graph(weights))
