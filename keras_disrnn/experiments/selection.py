"""The choice of the penalties: a path from weak to strong, cross-validated over sessions.

A path trains one model at rising multiples of its penalties, each from the weights of the one
before. Paths on folds of the sessions say what each multiple costs in likelihood, and which graph
it leaves open; a path on all sessions gives the weights. In reach is every multiple that loses no
more against the best than one standard error (as Breiman et al. 1984, Classification and Regression
Trees, section 3.4.3, but of the difference, paired by session, which tells a real loss in few
sessions), or so little that it does not matter (`SMALLEST_EFFECT`). Chosen is the sparsest graph in
reach, and of the multiples in reach that leave it the one that predicts best, so that the strength
needed to find a structure does not blunt the model that has it.
"""

import dataclasses
import functools
import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from keras_disrnn.analysis.bottlenecks import compute_bottlenecks, latent_names, participation_ratio
from keras_disrnn.analysis.evaluation import (
    jackknife_se,
    mean_squared_error,
    ratio_likelihood,
    session_totals,
)
from keras_disrnn.analysis.graph import (
    READOUTS,
    choice_part,
    compute_graph,
    describe_graph,
    dopamine_part,
    same_graph,
)
from keras_disrnn.data.splits import k_fold
from keras_disrnn.experiments.ablation import SMALLEST_EFFECT
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.training.checkpoint import TrainingDiverged
from keras_disrnn.training.fit import fingerprint, train
from keras_disrnn.utils.files import write_atomically

ATTEMPTS = 3
"""How often a path is trained before it is given up."""

LEAST_GAIN = 5e-4
"""By how many nats a choice a loss must be smaller to count: draws of the noise move it by less."""

MOST_TRIALS = 9
"""How many bottlenecks are closed in turn to part mixtures: three latents have so many."""

UNCLEAR_SIGMA = (0.25, 0.75)
"""Between these a bottleneck is neither clearly open nor clearly closed."""


@dataclasses.dataclass(frozen=True)
class SelectionSettings:
    """How the penalties are chosen.

    Args:
        scales: Multiples of the model's latent, update and choice penalties, rising.
        dopamine_scales: Multiples of its dopamine penalty, which is taken relative to the variance
            of the dopamine response, rising.
        folds: Parts of the sessions, each of which is scored by a path on the others; at least 2.
        starts: Paths on all sessions, from different initial weights; of those with the graph that
            most folds have, the one with the smallest loss (penalties included) is taken.
        warmup_steps: Steps without noise and penalties at the start of each path.
        steps: Steps at each multiple.
        dopamine_steps: Steps of the dopamine readout at each multiple.
        unmix_steps: Steps of each trial to part latents that are mixtures, and as many at a fifth
            of the learning rate; 0 for no trials.
        settle_steps: Steps at the chosen multiple in the end, at a fifth of the learning rate.
        batch_size: Sessions in a step.
        learning_rate: Of Adam; halved for a path that diverges.
    """

    scales: list[float] = dataclasses.field(default_factory=lambda: [0.3, 1.0, 2.0, 4.0])
    dopamine_scales: list[float] = dataclasses.field(default_factory=lambda: [0.3, 1.0, 3.0, 10.0])
    folds: int = 2
    starts: int = 1
    warmup_steps: int = 300
    steps: int = 300
    dopamine_steps: int = 200
    unmix_steps: int = 300
    settle_steps: int = 300
    batch_size: int = 75
    learning_rate: float = 5e-3

    def __post_init__(self):
        for name in ("scales", "dopamine_scales"):
            values = getattr(self, name)
            if len(values) < 2 or any(b <= a for a, b in zip([0, *values], values, strict=False)):
                raise ValueError(
                    f"{name}: expected at least two rising numbers above 0, got {values}"
                )
        for name, least in (
            ("folds", 2),
            ("starts", 1),
            ("warmup_steps", 0),
            ("steps", 1),
            ("dopamine_steps", 1),
            ("unmix_steps", 0),
            ("settle_steps", 0),
            ("batch_size", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate: expected a number above 0, got {self.learning_rate}")


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was tried for one stage, and what was chosen.

    Attributes:
        table: A `pandas.DataFrame`, one row a multiple: `scale`; the penalties; `score`, the
            cross-validated normalized likelihood (or, of dopamine, the MSE), and `score_se`;
            `cost`, what it loses against the best multiple, and `cost_se`, paired by session;
            `within`, whether it is in reach of the best; `graph`, in words, that most folds have;
            `edges` in it; `open`, the participation ratio of openness (no threshold); `agreement`,
            the share of the other paths, on folds and on all sessions, with the same graph;
            `chosen`.
        notes: Sentences on what is not clear-cut; empty where everything is.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def scale(self):
        """The multiple that was chosen."""
        return float(self.table.loc[self.table["chosen"], "scale"].iloc[0])


def select(make_model, sessions, settings=None, *, seed=0, folder=None, report=None):
    """Chooses the penalties and trains the model with them: both stages, the second where dopamine
    was recorded.

    Args:
        make_model: Function from a seed to a new, built `DisRNNModel`; all alike but for the seed.
        sessions: The training `Sessions`; none of them is held out of the final model.
        settings: `SelectionSettings`.
        seed: Of folds, initial weights, noise and batches.
        folder: Where finished paths are kept; given the same settings and data, they are taken
            from there and not trained again. `None` to keep nothing.
        report: Called with a line of text after each multiple.

    Returns:
        The trained model, and a dict of stage (`"choice"` and, with dopamine, `"dopamine"`) to its
        `Selection`.

    Raises:
        ValueError: If there are fewer sessions than folds, or the folder holds other paths.
        TrainingDiverged: If a path diverges at a quarter of the learning rate, too.
    """
    settings = settings or SelectionSettings()
    report = report or (lambda line: None)
    model = make_model(seed)
    sessions = sessions.for_model(model)
    store = _Store(folder, settings, sessions, model, seed)
    choice = _Choice(make_model, model, settings)
    selections = {"choice": _select(choice, sessions, settings, seed, store, report)}
    if model.num_signals and sessions.dopamine_weight.any():
        dopamine = _Dopamine(model, sessions, settings)
        selections["dopamine"] = _select(dopamine, sessions, settings, seed, store, report)
    return model, selections


def _select(stage, sessions, settings, seed, store, report):
    """Chooses one stage's multiple and leaves the stage's model trained at it."""
    splits = list(k_fold(sessions, settings.folds, seed=seed))
    scores, folds = {}, []
    for number, split in enumerate(splits):
        label = f"{stage.name}, fold {number + 1}/{settings.folds}"
        path = store.path(
            f"{stage.name}-fold{number}",
            lambda split=split, number=number, label=label: _train_path(
                stage,
                sessions,
                split,
                settings,
                1000 * (seed + 1) + number,
                report,
                label,
            ),
        )
        scores |= dict(zip(split.held_out.ids, path["totals"].swapaxes(0, 1), strict=True))
        folds.append(path)
    totals = np.stack([scores[name] for name in sessions.ids])

    starts = []
    for start in range(settings.starts if stage.restarts else 1):
        label = f"{stage.name}, all sessions" + (f", start {start + 1}" if start else "")
        starts.append(
            store.path(
                f"{stage.name}-start{start}",
                lambda start=start, label=label: _train_path(
                    stage, sessions, None, settings, seed + 1_000_000 * start, report, label
                ),
            )
        )
    table, chosen, notes = _choose(stage, totals, folds, starts)
    part = functools.partial(_part, stage, sessions, settings, folds, starts, seed, store, report)
    weights, gain = part(chosen, "unmixed")
    if gain is not None:
        notes.append(
            "The latents of the chosen fit were mixtures: where one of their bottlenecks was "
            f"closed, training went on to '{_describe(stage, weights)}', at a loss that is smaller "
            f"by {gain:.2g}. The scores are of the mixtures."
        )
    if chosen + 1 < len(stage.scales) and _is_mixed(stage, weights):
        parted, gain = part(chosen + 1, "unmixed-stronger")
        if gain is not None and not _is_mixed(stage, parted):
            lost, tolerance = _compare_scores(stage, sessions, weights, parted)
            if lost <= tolerance:
                weights, chosen = parted, chosen + 1
                table["chosen"] = np.arange(len(table)) == chosen
                notes.append(
                    f"At the multiple {table['scale'].iloc[chosen - 1]:g} the latents stayed "
                    f"mixtures. At {table['scale'].iloc[chosen]:g}, where mixtures were out of "
                    f"reach, they part to '{_describe(stage, weights)}', which predicts the "
                    f"training sessions within {max(lost, 0):.2g} as well: it is taken."
                )
    scale = table["scale"].iloc[chosen]
    stage.set_scale(scale)
    latents = _latents(stage.graph(stage.with_weights(weights)))
    if settings.settle_steps:
        stage.train(sessions, settings.settle_steps, settings.learning_rate / 5, seed)
        if _latents(stage.graph(stage.model)) != latents:
            stage.with_weights(weights)
            notes.append(
                "The last steps changed which latents are open, and were taken back: the chosen "
                "graph is not stable at this multiple."
            )
    notes += stage.unclear()
    report(f"{stage.name}: chosen x{scale:g}, {describe_graph(stage.graph(stage.model))}")
    return Selection(table, tuple(notes))


def _part(stage, sessions, settings, folds, starts, seed, store, report, rung, name):
    """The fit of a multiple, its latents parted where they are mixtures.

    Returns:
        Its weights, and by how much parting lowered the loss, or `None` where nothing was parted.
    """
    stage.set_scale(stage.scales[rung])
    weights, graph, _ = _representative(stage, folds, starts, rung)
    if not settings.unmix_steps or not _is_mixed(stage, weights):
        return weights, None
    others = [path["weights"][rung] for path in (*starts, *folds)]
    others = [
        other
        for other in others
        if other is not weights and same_graph(stage.graph(stage.with_weights(other)), graph)
    ]
    path = store.path(
        f"{stage.name}-{name}",
        lambda: _unmix(stage, sessions, settings, [weights, *others], seed, report),
    )
    if not len(path["weights"]):
        return weights, None
    return path["weights"][0], float(path["losses"][0])


def _is_mixed(stage, weights):
    return bool(_mixing_edges(stage.graph(stage.with_weights(weights))))


def _describe(stage, weights):
    return describe_graph(stage.graph(stage.with_weights(weights)))


def _compare_scores(stage, sessions, weights, others):
    """What other weights lose of the likelihood, without noise, and what counts as a loss."""
    sums = []
    for each in (weights, others):
        stage.with_weights(each)
        sums.append(stage.totals(sessions).sum(axis=0))
    one, other = (float(stage.score(each)) for each in sums)
    return one - other, stage.tolerance(sums[0])


def _latents(graph):
    return {node for node, kind in graph.nodes(data="kind") if kind == "latent"}


def _mixing_edges(graph):
    """The edges out of latents that have another reader: of these a mixture may have too many."""
    return [
        (source, target)
        for source in sorted(_latents(graph))
        for target in sorted(graph.successors(source))
        if graph.out_degree(source) > 1
    ]


def _unmix(stage, sessions, settings, candidates, seed, report):
    """Looks for a better optimum than mixtures of latents, which training does not leave.

    Two latents that each hold a part of two variables need every bottleneck that either variable
    needs, yet turning them apart step by step costs before it pays. So one bottleneck at a time is
    held closed while training goes on; the best of these trials is kept if its loss, with noise and
    penalties, is the smaller one, and tried further.

    Args:
        candidates: Weights of fits with the graph that was chosen, the chosen ones first. A further
            one is tried as long as no latent's readers are down to one.

    Returns:
        A path with one rung, and as its loss what was gained; or with none.
    """

    def train_from(start, callbacks=()):
        stage.with_weights(start)
        for rate in (settings.learning_rate, settings.learning_rate / 5):
            stage.train(sessions, settings.unmix_steps, rate, seed, callbacks=callbacks)
        return stage.objective(sessions), stage.model.get_weights()

    def mixing(weights):
        return _mixing_edges(stage.graph(stage.with_weights(weights)))

    # Training on lowers the loss too: what counts is by how much more it is lowered.
    first = value = train_from(candidates[0])[0]
    kept = None
    for start in candidates:
        while edges := mixing(start)[:MOST_TRIALS]:
            trials = []
            for source, target in edges:
                trials.append(train_from(start, [_Closed(stage, source, target)]))
                report(
                    f"{stage.name}, without {source} > {target}: the loss is "
                    f"{trials[-1][0] - value:+.2g}, {describe_graph(stage.graph(stage.model))}"
                )
            best = min(trials, key=lambda trial: trial[0])
            if best[0] > value - LEAST_GAIN:
                break
            value, kept = best
            start = kept
        if kept is not None and not mixing(kept):
            break
    return {
        "weights": [] if kept is None else [kept],
        "losses": np.array([] if kept is None else [first - value]),
        "totals": np.array([]),
    }


class _Closed(keras.callbacks.Callback):
    """Holds the bottleneck of an edge closed while a model trains."""

    def __init__(self, stage, source, target):
        super().__init__()
        self._bottleneck, self._place = stage.bottleneck(source, target)

    def _close(self):
        for weight, value in (
            (self._bottleneck.raw_sigma, 1.0),
            (self._bottleneck.raw_multiplier, 0.0),
        ):
            values = weight.numpy()
            values[self._place] = value
            weight.assign(values)

    def on_train_begin(self, logs=None):
        self._close()

    def on_train_batch_end(self, batch, logs=None):
        self._close()


def _train_path(stage, sessions, split, settings, seed, report, label):
    """Trains from weak to strong, on all sessions or on those of a split.

    Returns each rung's weights, its loss on all sessions, and the sums of held-out sessions.

    A path that diverges is begun again at half the learning rate, twice at most: one fit of many
    should not cost the others.
    """
    rate = settings.learning_rate
    for attempt in range(ATTEMPTS):
        try:
            return _climb(stage, sessions, split, settings, rate, seed, report, label)
        except TrainingDiverged as error:
            if attempt + 1 == ATTEMPTS:
                raise TrainingDiverged(
                    f"{label}, at a learning rate of {rate:g}: {error}"
                ) from error
            rate /= 2
            report(f"{label}: the loss is no longer finite; again at a learning rate of {rate:g}")


def _climb(stage, sessions, split, settings, learning_rate, seed, report, label):
    train_part = sessions if split is None else split.train
    stage.begin(seed)
    if stage.warms_up and settings.warmup_steps:
        stage.train(train_part, settings.warmup_steps, learning_rate, seed, warmup=True)
    weights, totals, losses = [], [], []
    for index, scale in enumerate(stage.scales):
        stage.set_scale(scale)
        stage.train(train_part, stage.steps, learning_rate, seed + index)
        weights.append(stage.model.get_weights())
        losses.append(stage.loss(sessions))
        line = f"{label}, penalties x{scale:g}: "
        if split is not None:
            totals.append(stage.totals(split.held_out))
            line += f"{stage.title} {float(stage.score(totals[-1].sum(axis=0))):.4f}, "
        report(line + (describe_graph(stage.graph(stage.model)) or "all closed"))
    return {
        "weights": weights,
        "losses": np.asarray(losses),
        "totals": np.asarray(totals),
    }


def _choose(stage, totals, folds, starts):
    """The table of multiples, the row to take, and what is not clear-cut.

    Args:
        stage: What is being chosen for.
        totals: `(sessions, scales, ...)` sums of each session, scored out of fold.
        folds: The path on each fold.
        starts: Paths on all sessions.
    """
    count = len(stage.scales)
    pooled = totals.sum(axis=0)
    scores = np.array([float(stage.score(pooled[i])) for i in range(count)])
    errors = np.array([jackknife_se(stage.score, totals[:, i]) for i in range(count)])
    loss = -scores if stage.higher_is_better else scores
    best = int(np.argmin(loss))
    cost = loss - loss[best]

    def difference(sums, i):
        return stage.score(sums[..., 0, :]) - stage.score(sums[..., 1, :])

    cost_errors = [
        jackknife_se(lambda sums, i=i: difference(sums, i), totals[:, [i, best]])
        if i != best
        else 0.0
        for i in range(count)
    ]
    within = cost <= np.maximum(cost_errors, stage.tolerance(pooled[best]))
    rungs = [_representative(stage, folds, starts, i) for i in range(count)]
    graphs = [graph for _, graph, _ in rungs]
    openness = [stage.openness(stage.with_weights(weights)) for weights, _, _ in rungs]
    edges = np.array([graph.number_of_edges() for graph in graphs])
    kinds = [
        next(j for j in range(i + 1) if same_graph(graph, graphs[j]))
        for i, graph in enumerate(graphs)
    ]
    chosen = choose(loss, within, edges, kinds)
    table = pd.DataFrame(
        {
            "scale": stage.scales,
            **{name: stage.base[name] * np.asarray(stage.scales) for name in stage.base},
            "score": scores,
            "score_se": errors,
            "cost": cost,
            "cost_se": cost_errors,
            "within": within,
            "graph": [describe_graph(graph) for graph in graphs],
            "edges": edges,
            "open": openness,
            "agreement": [agreement for _, _, agreement in rungs],
            "chosen": np.arange(count) == chosen,
        }
    )
    notes = []
    if chosen == 0 and edges[0] > edges[-1]:
        notes.append("The weakest multiple is chosen: weaker ones may predict better.")
    if within[-1] and edges[-1] > 0:
        notes.append(
            "The strongest multiple is in reach of the best: a stronger one may leave a sparser "
            "graph at no more cost."
        )
    if rungs[chosen][2] < 1:
        notes.append(
            f"{rungs[chosen][2]:.0%} of the other fits have the chosen graph at this multiple."
        )
    beyond = [i for i in range(count) if not within[i] and edges[i] < edges[chosen]]
    if beyond:
        nearest = min(beyond, key=lambda i: cost[i])
        if cost[nearest] < max(3 * cost_errors[nearest], 2 * stage.tolerance(pooled[best])):
            notes.append(
                f"The sparser graph '{describe_graph(graphs[nearest])}' is only just out of reach: "
                f"it costs {cost[nearest]:.2g}, standard error {cost_errors[nearest]:.2g}."
            )
    return table, chosen, notes


def _representative(stage, folds, starts, rung):
    """The fit of a multiple that its cross-validated score speaks of.

    The score was reached by the graphs of the folds, and says nothing of a path on all sessions
    that ended in another one. So the graph is the one that most folds have, and the weights are
    of a path on all sessions that has it too, or else of a fold.

    Returns:
        Its weights, its graph, and the share of the other paths that have the same graph.
    """
    paths = [*starts, *folds]
    graphs = [stage.graph(stage.with_weights(path["weights"][rung])) for path in paths]
    alike = np.array([[same_graph(graph, other) for other in graphs] for graph in graphs])
    votes = alike[:, len(starts) :].sum(axis=1)
    losses = [path["losses"][rung] for path in paths]
    # Paths on all sessions first, then the smallest loss (penalties included).
    taken = min(np.flatnonzero(votes == votes.max()), key=lambda i: (i >= len(starts), losses[i]))
    agreement = (alike[taken].sum() - 1) / (len(paths) - 1)
    return paths[taken]["weights"][rung], graphs[taken], agreement


def choose(loss, within, edges, kinds):
    """The rule: of the multiples in reach those with the sparsest graph, and of them the best.

    Args:
        loss: `(scales,)`, smaller is better; scales rising.
        within: `(scales,)`, whether each is in reach of the best.
        edges: `(scales,)`, number of edges of each graph.
        kinds: `(scales,)`, equal where the graphs are.

    Returns:
        The index of the choice. Among different graphs with as few edges, the one that the
        strongest multiple leaves counts.
    """
    reach = np.flatnonzero(within)
    edges = np.asarray(edges)[reach]
    sparsest = reach[np.flatnonzero(edges == edges.min())[-1]]
    alike = [i for i in reach if kinds[i] == kinds[sparsest]]
    return alike[int(np.argmin(np.asarray(loss)[alike]))]


# === What is chosen for ===


class _Stage:
    """A stage's share in the selection: how it begins, trains and is scored.

    Attributes:
        model: The model that is trained; its weights change.
        scales: The multiples.
        steps: Steps at each.
        base: Name of each penalty to its value at the multiple 1.
    """

    def with_weights(self, weights):
        self.model.set_weights(weights)
        return self.model

    def set_scale(self, scale):
        for name, value in self.base.items():
            setattr(self.model, name, value * scale)

    def loss(self, sessions):
        outputs = self.model.evaluate(sessions.dataset(256), verbose=0, return_dict=True)
        return float(outputs["loss"])

    def objective(self, sessions):
        """What training minimises, noise included: the mean over sessions of one draw."""
        total = 0.0
        for features, targets, weights in sessions.dataset(256):
            outputs = self.model(features, training=True)
            loss = self.model.compute_loss(features, targets, outputs, weights, training=True)
            total += float(loss) * len(features)
        return total / sessions.n_sessions

    def unclear(self):
        rows = compute_bottlenecks(self.model)
        rows = rows[rows["group"].isin(self.groups)]
        kept = self.graph(self.model).nodes
        low, high = UNCLEAR_SIGMA
        rows = rows[rows["sigma"].between(low, high) & rows["source"].isin(kept)]
        rows = rows[rows["target"].isin([*kept, "choice", "dopamine"])]
        rows = rows[(rows["group"] == "latent") | (rows["source"] != rows["target"])]
        return [
            f"The bottleneck from {source} to {target} is neither open nor closed "
            f"(sigma {sigma:.2f})."
            for source, target, sigma in zip(
                rows["source"], rows["target"], rows["sigma"], strict=True
            )
        ]

    def openness(self, model):
        rows = compute_bottlenecks(model)
        return participation_ratio(rows.loc[rows["group"] == self.groups[0], "sigma"])


class _Choice(_Stage):
    """Stage 1: core and choice readout."""

    name, title, higher_is_better, warms_up, restarts = "choice", "likelihood", True, True, True
    groups = ("latent", "update", "choice")

    def __init__(self, make_model, model, settings):
        self.make_model, self.model, self.settings = make_model, model, settings
        self.scales, self.steps = settings.scales, settings.steps
        self.base = {
            name: getattr(model, name)
            for name in model.penalty_names
            if PENALTIES[name].stage == "choice"
        }

    def begin(self, seed):
        fresh = self.make_model(seed)
        for variable, value in zip(self.model.variables, fresh.variables, strict=True):
            variable.assign(value)

    def train(self, sessions, steps, learning_rate, seed, warmup=False, callbacks=()):
        _train(
            self.model,
            sessions,
            self.settings,
            steps,
            learning_rate,
            seed,
            "warmup" if warmup else "stage1",
            callbacks,
        )

    def bottleneck(self, source, target):
        """The bottleneck of an edge out of a latent, and the place of the edge in it."""
        cell = self.model.core.cell
        names = latent_names(cell.num_latents)
        place = (names.index(source),)
        if target == READOUTS["choice"]:
            return self.model.choice_readout.bottleneck, place
        return cell.update_latent_bottleneck, (names.index(target), *place)

    def totals(self, sessions):
        return session_totals(self.model, sessions, batch_size=256)[0]

    @staticmethod
    def score(sums):
        return ratio_likelihood(sums[..., 0], sums[..., 1])

    @staticmethod
    def tolerance(pooled):
        return SMALLEST_EFFECT["choice"]

    @staticmethod
    def graph(model):
        return choice_part(compute_graph(model))


class _Dopamine(_Stage):
    """Stage 2: the dopamine readout on the core that stage 1 left."""

    name, title, higher_is_better, warms_up, restarts = "dopamine", "MSE", False, False, False
    groups = ("dopamine",)

    def __init__(self, model, sessions, settings):
        self.model, self.settings = model, settings
        self.scales, self.steps = settings.dopamine_scales, settings.dopamine_steps
        recorded = sessions.dopamine[sessions.dopamine_weight > 0]
        # A squared error has the response's units; a price in them would mean something else for
        # every recording.
        self.base = {
            name: getattr(model, name) * float(np.var(recorded))
            for name in model.penalty_names
            if PENALTIES[name].stage == "dopamine"
        }
        self._initial = [variable.numpy() for variable in model.variables]

    def begin(self, seed):
        for variable, value in zip(self.model.variables, self._initial, strict=True):
            variable.assign(value)

    def train(self, sessions, steps, learning_rate, seed):
        _train(self.model, sessions, self.settings, steps, learning_rate, seed, "stage2")

    def totals(self, sessions):
        return session_totals(self.model, sessions, batch_size=256)[1].sum(axis=1)

    @staticmethod
    def score(sums):
        return mean_squared_error(sums)

    @staticmethod
    def tolerance(pooled):
        return SMALLEST_EFFECT["dopamine"] * pooled[3] / pooled[0]

    @staticmethod
    def graph(model):
        return dopamine_part(compute_graph(model))


def _train(model, sessions, settings, steps, learning_rate, seed, stage, callbacks=()):
    size = settings.batch_size if settings.batch_size < sessions.n_sessions else None
    counts = dict.fromkeys(("warmup_steps", "stage1_steps", "stage2_steps"), 0)
    train(
        model,
        sessions,
        **{**counts, f"{stage}_steps": steps},
        steps_per_epoch=steps,
        batch_size=size,
        learning_rate=learning_rate,
        seed=seed,
        callbacks=callbacks,
        verbose=0,
    )


# === Paths on the disk ===


class _Store:
    """Keeps finished paths in a folder, so that an interrupted selection goes on.

    With each path goes the state in which it left the model's random generators: what is trained
    next has the same noise, whether the path was made or read.
    """

    def __init__(self, folder, settings, sessions, model, seed):
        self._folder = None if folder is None else Path(folder)
        weights = {id(weight) for weight in model.weights}
        self._generators = [each for each in model.variables if id(each) not in weights]
        config = {k: v for k, v in model.get_config().items() if k not in ("name", "frozen")}
        self._key = json.dumps(
            {
                "settings": dataclasses.asdict(settings),
                "data": fingerprint(sessions),
                "model": config,
                "seed": seed,
            },
            sort_keys=True,
        )

    def path(self, name, make):
        """The path of that name, from the disk or made now."""
        if self._folder is None:
            return make()
        file = self._folder / f"{name}.npz"
        if file.exists():
            return self._read(file)
        made = make()
        arrays = {"losses": made["losses"], "totals": made["totals"]}
        for rung, weights in enumerate(made["weights"]):
            arrays |= {f"weights/{rung}/{i}": array for i, array in enumerate(weights)}
        arrays |= {f"generator/{i}": state.numpy() for i, state in enumerate(self._generators)}
        arrays["key"] = np.frombuffer(self._key.encode(), np.uint8)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda stream: np.savez(stream, **arrays))
        return made

    def _read(self, file):
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            key = arrays["key"].tobytes().decode()
            rungs = len(arrays["losses"])
            weights = []
            for rung in range(rungs):
                names = [name for name in arrays if name.startswith(f"weights/{rung}/")]
                weights.append([arrays[f"weights/{rung}/{i}"] for i in range(len(names))])
            path = {"weights": weights, "losses": arrays["losses"], "totals": arrays["totals"]}
            states = [arrays[f"generator/{i}"] for i in range(len(self._generators))]
        except Exception as error:
            raise ValueError(
                f"{file}: expected a path of penalties, but it cannot be read ({error}); remove it "
                "to train it again"
            ) from error
        if key != self._key:
            raise ValueError(
                f"{file}: was made with other settings, data or seed; choose another folder"
            )
        for generator, state in zip(self._generators, states, strict=True):
            generator.assign(state)
        return path
