"""The selection of penalties: the rule, the paths, the separation of latents, resuming."""

import dataclasses
import shutil

import numpy as np
import pytest

import keras_disrnn
from keras_disrnn import bandit
from keras_disrnn.analysis import compute_evaluation
from keras_disrnn.analysis.graph import make_graph
from keras_disrnn.data import Columns, k_fold, sessions_from_table
from keras_disrnn.experiments.penalty_choice import choose_representative, choose_scale
from keras_disrnn.experiments.penalty_path import PenaltyPath
from keras_disrnn.experiments.selection import StageSelection, select
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.selection_stages import ChoiceStage
from keras_disrnn.experiments.separation import (
    CloseBottleneck,
    find_mixing_edges,
    separate_latents,
)
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.plots import plot_selection
from keras_disrnn.training.checkpoint import TrainingDiverged
from keras_disrnn.utils.state import load_state

QUICK = SelectionSettings(
    scales=[0.5, 3.0],
    dopamine_scales=[0.5, 2.0],
    warmup_steps=4,
    steps=6,
    dopamine_steps=5,
    separation_steps=0,
    settle_steps=4,
    batch_size=6,
)


@pytest.fixture(scope="module")
def sessions():
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=12, num_trials=20, seed=1
    )
    table = played.to_table()
    # Another unit: the dopamine penalty must scale with it.
    table["dopamine"] *= 10
    return sessions_from_table(table, Columns(dopamine="dopamine", trial="trial"))


def make_model(seed, **arguments):
    arguments = {"num_latents": 2, "num_update_layers": 1, "num_choice_layers": 1, **arguments}
    model = keras_disrnn.DisRNNModel(seed=seed, **arguments)
    return model


@pytest.mark.parametrize(
    ("loss", "within", "edges", "graph_ids", "expected"),
    [
        # The sparsest graph in reach, at the scale that predicts best.
        ([1.0, 1.1, 1.2, 9.0], [1, 1, 1, 0], [9, 6, 6, 3], [0, 1, 1, 3], 1),
        ([1.0, 1.3, 1.2, 9.0], [1, 1, 1, 0], [9, 6, 6, 3], [0, 1, 1, 3], 2),
        # A scale with that graph counts only if it is in reach itself.
        ([1.0, 0.9, 1.2, 1.0], [1, 0, 1, 1], [9, 6, 6, 7], [0, 1, 1, 3], 2),
        # Of two equally sparse graphs, the one of the stronger scale.
        ([1.0, 1.1, 1.2], [1, 1, 1], [6, 3, 3], [0, 1, 2], 2),
        ([1.0, 1.1], [1, 0], [9, 1], [0, 1], 0),
    ],
)
def test_the_rule_chooses_the_best_scale_with_the_sparsest_graph(
    loss, within, edges, graph_ids, expected
):
    assert choose_scale(loss, within=within, edges=edges, graph_ids=graph_ids) == expected


@pytest.fixture(scope="module")
def selected(sessions, tmp_path_factory):
    """A complete selection, with its folder and the lines that it reported."""
    folder, lines = tmp_path_factory.mktemp("paths"), []
    model, selections = select(
        make_model, sessions, settings=QUICK, seed=3, folder=folder, report=lines.append
    )
    return model, selections, folder, lines


def read_path(folder, name):
    return PenaltyPath(
        **{
            key: value
            for key, value in load_state(folder / "parts" / f"{name}.npz").items()
            if key != "generators"
        }
    )


def test_each_session_is_scored_by_a_path_that_did_not_train_on_it(sessions, selected):
    _, selections, folder, lines = selected
    table = selections["choice"].table
    assert len(lines) == 2 * (2 + 1) * 2 + 2
    folds = [read_path(folder, f"choice-fold{number}") for number in range(2)]
    again = make_model(0)
    for index in range(2):
        log_likelihood = 0.0
        for number, split in enumerate(k_fold(sessions, 2, seed=3)):
            again.set_weights(folds[number].weights[index])
            rows = compute_evaluation(again, split.held_out).per_session
            log_likelihood += rows["log_likelihood"].sum()
        expected = np.exp(log_likelihood / sessions.num_trials)
        assert table["score"][index] == pytest.approx(expected, rel=1e-6)
    assert table["cost"].min() == 0
    assert table["chosen"].sum() == 1


def test_the_model_ends_with_the_chosen_penalties(sessions, selected):
    model, selections, _, _ = selected
    base = make_model(0)
    for name in (n for n, p in PENALTIES.items() if p.stage == "choice" and not p.of_subjects):
        chosen = getattr(base, name) * selections["choice"].scale
        assert getattr(model, name) == pytest.approx(chosen)
    variance = np.var(sessions.dopamine[sessions.dopamine_weight > 0])
    assert model.dopamine_penalty == pytest.approx(
        base.dopamine_penalty * variance * selections["dopamine"].scale, rel=1e-5
    )
    assert model.l2_scale == base.l2_scale
    assert plot_selection(selections).axes[0].get_title() == "choice, cross-validated"


def test_an_interrupted_selection_ends_at_the_same_weights(sessions, selected, tmp_path):
    whole, expected, _, _ = selected

    class Interrupted(Exception):
        pass

    seen = []

    def interrupt(line):
        seen.append(line)
        if len(seen) == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        select(make_model, sessions, settings=QUICK, seed=3, folder=tmp_path, report=interrupt)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["choice-fold0.npz"]
    lines = []
    resumed = select(
        make_model, sessions, settings=QUICK, seed=3, folder=tmp_path, report=lines.append
    )
    assert not any(line.startswith("choice, fold 1/") for line in lines)
    # Select once more, with every path read from disk.
    again = []
    read = select(
        make_model, sessions, settings=QUICK, seed=3, folder=tmp_path, report=again.append
    )
    assert again == [line for line in lines if ": chosen" in line]
    for model, results in (resumed, read):
        for weight, other in zip(model.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, other)
        for stage in ("choice", "dopamine"):
            assert results[stage].table.equals(expected[stage].table)
            assert results[stage].notes == expected[stage].notes


def test_paths_of_other_settings_or_data_are_refused(sessions, selected):
    folder = selected[2]
    with pytest.raises(FileExistsError, match=r"got another selection.steps \(7, not 6\)"):
        select(
            make_model,
            sessions,
            settings=dataclasses.replace(QUICK, steps=7),
            seed=3,
            folder=folder,
        )
    with pytest.raises(FileExistsError, match=r"got another model.seed \(4, not 3\)"):
        select(make_model, sessions, settings=QUICK, seed=4, folder=folder)
    with pytest.raises(FileExistsError, match="got another model.latent_penalty"):
        select(
            lambda seed: make_model(seed, latent_penalty=0.5),
            sessions,
            settings=QUICK,
            seed=3,
            folder=folder,
        )
    with pytest.raises(ValueError, match="got data that have changed"):
        select(make_model, sessions.subset(range(6)), settings=QUICK, seed=3, folder=folder)


def test_a_damaged_path_is_named(sessions, selected, tmp_path):
    folder = tmp_path / "paths"
    shutil.copytree(selected[2], folder)
    (folder / "parts" / "choice-fold0.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"choice-fold0.npz: expected .* that cannot be read"):
        select(make_model, sessions, settings=QUICK, seed=3, folder=folder)


def test_of_several_starts_the_one_with_the_lowest_loss_is_taken(sessions, tmp_path):
    """Also without dopamine, when choice is the only stage."""
    settings = dataclasses.replace(QUICK, num_starts=3, settle_steps=0)
    model, selections = select(
        lambda seed: make_model(seed, num_signals=0),
        dataclasses.replace(
            sessions,
            dopamine=sessions.dopamine[..., :0],
            dopamine_weight=sessions.dopamine_weight[..., :0],
            signal_names=(),
        ),
        settings=settings,
        folder=tmp_path,
    )
    assert list(selections) == ["choice"]
    table = selections["choice"].table
    index = int(np.flatnonzero(table["chosen"])[0])
    paths = [read_path(tmp_path, f"choice-start{start}") for start in range(3)]
    best = int(np.argmin([path.losses[index] for path in paths]))
    np.testing.assert_array_equal(model.get_weights()[0], paths[best].weights[index][0])
    assert len({float(path.losses[0]) for path in paths}) == 3


class GraphStage:
    """A stage whose weights are the graphs themselves."""

    @staticmethod
    def graph(weights):
        return weights


def test_a_scale_is_represented_by_a_fit_with_the_graph_of_most_folds():
    one = make_graph([("choice", "z1"), ("z1", "choice readout")])
    renamed = make_graph([("choice", "z5"), ("z5", "choice readout")])
    two = make_graph([("choice", "z1"), ("choice", "z2"), ("z2", "choice readout")])

    def path(graph, loss):
        return PenaltyPath([graph], [loss], [])

    def choose(folds, starts):
        weights, graph, agreement = choose_representative(GraphStage, 0, folds=folds, starts=starts)
        assert graph is weights
        return weights, agreement

    # A path on all sessions with another graph is skipped, although its loss is lower.
    folds = [path(two, 0.6), path(two.copy(), 0.5)]
    assert choose(folds, [path(one, 0.4)]) == (folds[1].weights[0], 0.5)
    # A path on all sessions with the graph of the folds is preferred to them at any loss.
    start = path(renamed, 0.7)
    assert choose([path(one, 0.6), path(one, 0.5)], [start]) == (renamed, 1.0)
    # Of several such paths the one with the lowest loss. A single fold is outvoted.
    starts = [start, path(one.copy(), 0.6), path(two, 0.1)]
    folds = [path(one, 0.6), path(two, 0.5), path(one, 0.5)]
    assert choose(folds, starts) == (starts[1].weights[0], 0.6)


MIXED = [
    ("choice", "z1"), ("reward", "z1"), ("z2", "z1"), ("reward", "z2"), ("z1", "z2"),
    ("z1", "choice readout"), ("z2", "choice readout"),
]  # fmt: skip
SEPARATED = [
    ("reward", "z2"), ("choice", "z1"), ("reward", "z1"), ("z2", "z1"), ("z1", "choice readout"),
]  # fmt: skip


def test_only_latents_with_several_readers_can_be_mixtures():
    assert find_mixing_edges(make_graph(MIXED)) == [
        ("z1", "choice readout"), ("z1", "z2"), ("z2", "choice readout"), ("z2", "z1"),
    ]  # fmt: skip
    assert find_mixing_edges(make_graph(SEPARATED)) == []
    two_values = [(name, z) for z in ("z1", "z2") for name in ("choice", "reward")]
    two_values += [("z1", "choice readout"), ("z2", "choice readout")]
    assert find_mixing_edges(make_graph(two_values)) == []


class KnownStage:
    """A stage in which training without an edge leads to a known graph, at a known loss.

    Weights are `(edges, loss, name of the fit)`.

    Args:
        ends: `(name of the fit, edge)` to `(edges, loss)`.
    """

    name = "choice"

    def __init__(self, ends):
        self.model, self.ends = self, ends

    def set_weights(self, weights):
        self.now = weights

    def get_weights(self):
        return self.now

    def graph(self, weights=None):
        if weights is not None:
            self.now = weights
        return make_graph(self.now[0])

    def training_loss(self, sessions):
        return self.now[1]

    def bottleneck(self, source, target):
        return (source, target), ()

    def train(self, sessions, *, steps, learning_rate, seed, callbacks):
        if callbacks:
            end = self.ends.get((self.now[2], callbacks[0].bottleneck), (MIXED, 0.51))
            self.now = (*end, self.now[2])


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # The best trial, not the first one that is better.
        ({("a", ("z1", "z2")): (SEPARATED, 0.499), ("a", ("z2", "z1")): (SEPARATED, 0.49)}, 0.49),
        # A gain that the noise could make does not count.
        ({("a", ("z1", "z2")): (SEPARATED, 0.4999)}, None),
        # A second fit of the same graph is tried if the first one does not separate,
        ({("b", ("z1", "z2")): (SEPARATED, 0.48)}, 0.48),
        # or if it gains but leaves a mixture, but not if it separates.
        ({("a", ("z1", "z2")): (MIXED, 0.499), ("b", ("z2", "z1")): (SEPARATED, 0.49)}, 0.49),
        ({("a", ("z1", "z2")): (SEPARATED, 0.499), ("b", ("z2", "z1")): (SEPARATED, 0.49)}, 0.499),
    ],
)
def test_the_best_trial_of_separation_is_kept(ends, expected):
    path = separate_latents(
        KnownStage(ends),
        None,
        candidates=[(MIXED, 0.5, "a"), (MIXED, 0.6, "b")],
        steps=1,
        learning_rate=0.1,
        seed=0,
        report=lambda line: None,
    )
    assert [weights[1] for weights in path.weights] == ([] if expected is None else [expected])
    assert path.losses == pytest.approx([] if expected is None else [0.5 - expected])


class ScoredStage(KnownStage):
    """A `KnownStage` with a score for the name of each fit."""

    title, higher_is_better, trains_core = "likelihood", True, True
    penalties, scales = {}, QUICK.scales

    def __init__(self, ends, scores):
        super().__init__(ends)
        self._scores = scores

    def set_scale(self, scale):
        self.scale = scale

    def session_sums(self, sessions):
        return np.array([[self._scores[self.now[2]], 1.0]])

    @staticmethod
    def score(sums):
        return sums[..., 0] / sums[..., 1]

    @staticmethod
    def tolerance(sums):
        return 0.002

    def openness(self, weights):
        return 1.0

    def describe_unclear_bottlenecks(self):
        return []


class KnownStore:
    """A store of paths in which the weaker scale is better by 0.003."""

    def path(self, name, train):
        if "separated" in name:
            return train()
        fits = [(MIXED, 0.5, "weak"), (MIXED, 0.5, "strong")]
        sums = np.array([[[0.620, 1.0]] * 6, [[0.617, 1.0]] * 6])
        return PenaltyPath(fits, [0.5, 0.5], sums)


@pytest.mark.parametrize(
    ("separates", "scores", "chosen"),
    [
        # Separated at the stronger scale, and nearly as good.
        ("strong", {"weak": 0.620, "strong": 0.6185}, 1),
        # As sparse, but worse by an amount that matters.
        ("strong", {"weak": 0.620, "strong": 0.6175}, 0),
        # Separated at the chosen scale: the stronger one is not tried.
        ("weak", {"weak": 0.620, "strong": 0.620}, 0),
        # Separated at neither scale.
        ("none", {"weak": 0.620, "strong": 0.620}, 0),
    ],
)
def test_a_stronger_scale_is_taken_where_it_separates_the_mixtures(
    sessions, separates, scores, chosen
):
    stage = ScoredStage({(separates, ("z1", "z2")): (SEPARATED, 0.49)}, scores)
    found = StageSelection(
        stage,
        sessions,
        settings=dataclasses.replace(QUICK, separation_steps=1, settle_steps=0),
        seed=0,
        store=KnownStore(),
        report=lambda line: None,
    ).run()
    assert list(np.flatnonzero(found.table["chosen"])) == [chosen]
    assert found.scale == stage.scale == QUICK.scales[chosen]
    separated = separates != "none" and scores["strong"] != 0.6175
    assert (stage.now[0] == SEPARATED) == separated
    assert any("out of reach" in note for note in found.notes) == bool(chosen)


def test_one_bottleneck_stays_closed_while_the_others_train(sessions):
    model = make_model(0)
    stage = ChoiceStage(model, QUICK, make_model=make_model)
    before = model.get_weights()
    closed = CloseBottleneck(*stage.bottleneck("z2", "z1"))
    stage.train(sessions, steps=20, learning_rate=1e-2, seed=0, callbacks=[closed])
    bottleneck = model.core.cell.update_latent_bottleneck
    assert bottleneck.raw_multiplier.numpy()[0, 1] == 0
    assert bottleneck.raw_sigma.numpy()[0, 1] == 1
    assert bottleneck.raw_multiplier.numpy()[1, 0] not in (0, 1)
    assert stage.bottleneck("z2", "choice readout")[0] is model.choice_readout.bottleneck
    assert not np.array_equal(before[0], model.get_weights()[0])
    assert stage.training_loss(sessions) == pytest.approx(stage.loss(sessions), rel=0.1)


def test_a_path_that_diverges_is_trained_again_at_half_the_learning_rate(sessions):
    # The targets of the latents are bounded, so only a rate beyond float32 gives an infinite loss.
    settings = dataclasses.replace(QUICK, learning_rate=1e38)
    lines = []
    with pytest.raises(TrainingDiverged, match=r"choice, fold 1/2, at a learning rate of 2.5e\+37"):
        select(make_model, sessions, settings=settings, report=lines.append)
    assert [line.rpartition(" ")[2] for line in lines] == ["5e+37", "2.5e+37"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": [1.0]}, r"scales: expected at least two rising numbers above 0, got \[1.0\]"),
        ({"scales": [1.0, 1.0]}, "scales: expected"),
        ({"dopamine_scales": [0.0, 1.0]}, "dopamine_scales: expected"),
        ({"num_folds": 1}, "num_folds: expected a whole number of at least 2, got 1"),
        ({"num_starts": 0}, "num_starts: expected a whole number of at least 1, got 0"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number above 0, got nan"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SelectionSettings(**arguments)
