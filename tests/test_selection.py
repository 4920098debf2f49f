"""The choice of the penalties: the rule, the paths, what is kept on the disk."""

import dataclasses

import numpy as np
import pytest

import keras_disrnn
from keras_disrnn import bandit
from keras_disrnn.analysis import compute_evaluation
from keras_disrnn.analysis.graph import make_graph
from keras_disrnn.data import Columns, k_fold, sessions_from_table
from keras_disrnn.experiments.selection import (
    SelectionSettings,
    _Choice,
    _Closed,
    _mixing_edges,
    _representative,
    _select,
    _unmix,
    choose,
    select,
)
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.plots import plot_selection
from keras_disrnn.training.checkpoint import TrainingDiverged

QUICK = SelectionSettings(
    scales=[0.5, 3.0],
    dopamine_scales=[0.5, 2.0],
    warmup_steps=4,
    steps=6,
    dopamine_steps=5,
    unmix_steps=0,
    settle_steps=4,
    batch_size=6,
)


@pytest.fixture(scope="module")
def sessions():
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=12, num_trials=20, seed=1
    )
    table = played.to_table()
    # Another unit: the dopamine penalty must follow it.
    table["dopamine"] *= 10
    return sessions_from_table(table, Columns(dopamine="dopamine", trial="trial"))


def make_model(seed, **arguments):
    arguments = {"num_latents": 2, "num_update_layers": 1, "num_choice_layers": 1, **arguments}
    model = keras_disrnn.DisRNNModel(seed=seed, **arguments)
    model.build((None, None, 2))
    return model


@pytest.mark.parametrize(
    ("loss", "within", "edges", "kinds", "expected"),
    [
        # The sparsest graph in reach, at the multiple that predicts best.
        ([1.0, 1.1, 1.2, 9.0], [1, 1, 1, 0], [9, 6, 6, 3], [0, 1, 1, 3], 1),
        ([1.0, 1.3, 1.2, 9.0], [1, 1, 1, 0], [9, 6, 6, 3], [0, 1, 1, 3], 2),
        # A multiple with that graph counts only where it is in reach itself.
        ([1.0, 0.9, 1.2, 1.0], [1, 0, 1, 1], [9, 6, 6, 7], [0, 1, 1, 3], 2),
        # Of two graphs as sparse, the stronger multiple's.
        ([1.0, 1.1, 1.2], [1, 1, 1], [6, 3, 3], [0, 1, 2], 2),
        ([1.0, 1.1], [1, 0], [9, 1], [0, 1], 0),
    ],
)
def test_the_rule(loss, within, edges, kinds, expected):
    assert choose(loss, np.array(within, bool), edges, kinds) == expected


@pytest.fixture(scope="module")
def selected(sessions, tmp_path_factory):
    """A whole selection with its folder and what it reported."""
    folder, lines = tmp_path_factory.mktemp("paths"), []
    return (
        *select(make_model, sessions, QUICK, seed=3, folder=folder, report=lines.append),
        folder,
        lines,
    )


def test_scores_are_those_of_sessions_no_path_saw(sessions, selected):
    model, selections, folder, lines = selected
    table = selections["choice"].table
    assert len(lines) == 2 * (2 + 1) * 2 + 2
    weights = {}
    for number in range(2):
        with np.load(folder / f"choice-fold{number}.npz") as stored:
            for rung in range(2):
                count = sum(name.startswith(f"weights/{rung}/") for name in stored.files)
                weights[number, rung] = [stored[f"weights/{rung}/{i}"] for i in range(count)]
    again = make_model(0)
    for rung in range(2):
        log_likelihood = 0.0
        for number, split in enumerate(k_fold(sessions, 2, seed=3)):
            again.set_weights(weights[number, rung])
            rows = compute_evaluation(again, split.held_out).per_session
            log_likelihood += rows["log_likelihood"].sum()
        expected = np.exp(log_likelihood / sessions.n_trials)
        assert table["score"][rung] == pytest.approx(expected, rel=1e-6)
    assert table["cost"].min() == 0
    assert table["chosen"].sum() == 1

    # What the model ends with is what was chosen.
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
        select(make_model, sessions, QUICK, seed=3, folder=tmp_path, report=interrupt)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["choice-fold0.npz"]
    lines = []
    model, found = select(make_model, sessions, QUICK, seed=3, folder=tmp_path, report=lines.append)
    assert not any(line.startswith("choice, fold 1/") for line in lines)
    # And once more, with every path taken from the disk.
    for ended, results in (
        (model, found),
        select(make_model, sessions, QUICK, seed=3, folder=tmp_path),
    ):
        for weight, other in zip(ended.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, other)
        for stage in ("choice", "dopamine"):
            assert results[stage].table.equals(expected[stage].table)
            assert results[stage].notes == expected[stage].notes

    other = dataclasses.replace(QUICK, steps=7)
    with pytest.raises(ValueError, match=r"choice-fold0.npz: was made with other settings"):
        select(make_model, sessions, other, seed=3, folder=tmp_path)
    (tmp_path / "choice-fold0.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"choice-fold0.npz: expected a path of penalties"):
        select(make_model, sessions, QUICK, seed=3, folder=tmp_path)


def test_of_choice_alone_and_several_starts_the_cheapest_is_taken(sessions, tmp_path):
    settings = dataclasses.replace(QUICK, starts=3, settle_steps=0)
    model, selections = select(
        lambda seed: make_model(seed, num_signals=0),
        dataclasses.replace(
            sessions,
            dopamine=sessions.dopamine[..., :0],
            dopamine_weight=sessions.dopamine_weight[..., :0],
            signal_names=(),
        ),
        settings,
        folder=tmp_path,
    )
    assert list(selections) == ["choice"]
    table = selections["choice"].table
    rung = int(np.flatnonzero(table["chosen"])[0])
    paths = [np.load(tmp_path / f"choice-start{start}.npz") for start in range(3)]
    best = int(np.argmin([path["losses"][rung] for path in paths]))
    np.testing.assert_array_equal(model.get_weights()[0], paths[best][f"weights/{rung}/0"])
    assert len({float(path["losses"][0]) for path in paths}) == 3


class _Graphs:
    """A stage whose weights are the graphs themselves."""

    @staticmethod
    def with_weights(weights):
        return weights

    @staticmethod
    def graph(model):
        return model


def test_the_fit_of_a_multiple_has_the_graph_that_its_score_was_reached_by():
    one = make_graph([("choice", "z1"), ("z1", "choice readout")])
    renamed = make_graph([("choice", "z5"), ("z5", "choice readout")])
    two = make_graph([("choice", "z1"), ("choice", "z2"), ("z2", "choice readout")])

    def path(graph, loss):
        return {"weights": [graph], "losses": [loss]}

    def taken(folds, starts):
        weights, graph, agreement = _representative(_Graphs, folds, starts, 0)
        assert graph is weights
        return weights, agreement

    # A path on all sessions that ended elsewhere, at a smaller loss, is passed over.
    folds = [path(two, 0.6), path(two.copy(), 0.5)]
    assert taken(folds, [path(one, 0.4)]) == (folds[1]["weights"][0], 0.5)
    # One with the graph of the folds is preferred to theirs, whatever its loss.
    start = path(renamed, 0.7)
    assert taken([path(one, 0.6), path(one, 0.5)], [start]) == (renamed, 1.0)
    # Of several such the one with the smallest loss; a single fold's graph is outvoted.
    starts = [start, path(one.copy(), 0.6), path(two, 0.1)]
    folds = [path(one, 0.6), path(two, 0.5), path(one, 0.5)]
    assert taken(folds, starts) == (starts[1]["weights"][0], 0.6)


MIXED = [
    ("choice", "z1"), ("reward", "z1"), ("z2", "z1"), ("reward", "z2"), ("z1", "z2"),
    ("z1", "choice readout"), ("z2", "choice readout"),
]  # fmt: skip
PARTED = [("reward", "z2"), ("choice", "z1"), ("reward", "z1"), ("z2", "z1")]
PARTED.append(("z1", "choice readout"))


def test_only_latents_with_several_readers_can_be_mixtures():
    assert _mixing_edges(make_graph(MIXED)) == [
        ("z1", "choice readout"), ("z1", "z2"), ("z2", "choice readout"), ("z2", "z1"),
    ]  # fmt: skip
    assert _mixing_edges(make_graph(PARTED)) == []
    two_values = [(name, z) for z in ("z1", "z2") for name in ("choice", "reward")]
    two_values += [("z1", "choice readout"), ("z2", "choice readout")]
    assert _mixing_edges(make_graph(two_values)) == []


class _Landscape(_Graphs):
    """A stage in which training without an edge leads to a known graph, at a known loss."""

    name = "choice"

    def __init__(self, ends):
        self.model, self.ends = self, ends

    def with_weights(self, weights):
        self.now = weights
        return self

    def get_weights(self):
        return self.now

    def graph(self, model):
        return make_graph(self.now[0])

    def objective(self, sessions):
        return self.now[1]

    def bottleneck(self, source, target):
        return (source, target), ()

    def train(self, sessions, steps, learning_rate, seed, callbacks):
        if callbacks:
            end = self.ends.get((self.now[2], callbacks[0]._bottleneck), (MIXED, 0.51))
            self.now = (*end, self.now[2])


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # The best trial, not the first that is better.
        ({("a", ("z1", "z2")): (PARTED, 0.499), ("a", ("z2", "z1")): (PARTED, 0.49)}, 0.49),
        # Gains below what the noise moves are none.
        ({("a", ("z1", "z2")): (PARTED, 0.4999)}, None),
        # A second fit of the same graph is tried where the first does not part,
        ({("b", ("z1", "z2")): (PARTED, 0.48)}, 0.48),
        # or parts at a gain that leaves a mixture; but not where it parts.
        ({("a", ("z1", "z2")): (MIXED, 0.499), ("b", ("z2", "z1")): (PARTED, 0.49)}, 0.49),
        ({("a", ("z1", "z2")): (PARTED, 0.499), ("b", ("z2", "z1")): (PARTED, 0.49)}, 0.499),
    ],
)
def test_of_the_trials_that_part_mixtures_the_best_is_kept(ends, expected):
    candidates = [(MIXED, 0.5, "a"), (MIXED, 0.6, "b")]
    path = _unmix(_Landscape(ends), None, QUICK, candidates, 0, lambda line: None)
    assert [weights[1] for weights in path["weights"]] == ([] if expected is None else [expected])
    assert path["losses"] == pytest.approx([] if expected is None else [0.5 - expected])


class _Chosen(_Landscape):
    """The landscape as a stage to select in; the third of its weights tells of multiple and fit."""

    title, higher_is_better, restarts, base, scales = "likelihood", True, True, {}, QUICK.scales

    def __init__(self, ends, scores):
        super().__init__(ends)
        self._scores = scores

    def set_scale(self, scale):
        self.scale = scale

    def totals(self, sessions):
        return np.array([[self._scores[self.now[2]], 1.0]])

    @staticmethod
    def score(sums):
        return sums[..., 0] / sums[..., 1]

    @staticmethod
    def tolerance(pooled):
        return 0.002

    def openness(self, model):
        return 1.0

    def unclear(self):
        return []


class _Shelf:
    """A store of paths whose weaker multiple is the better one by 0.003."""

    def path(self, name, make):
        if "unmixed" in name:
            return make()
        fits = [(MIXED, 0.5, "weak"), (MIXED, 0.5, "strong")]
        totals = np.array([[[0.620, 1.0]] * 6, [[0.617, 1.0]] * 6])
        return {"weights": fits, "losses": [0.5, 0.5], "totals": totals}


@pytest.mark.parametrize(
    ("edge", "scores", "taken"),
    [
        # Parted at the stronger multiple, and nearly as good.
        ("strong", {"weak": 0.620, "strong": 0.6185}, 1),
        # As sparse, but worse by what counts.
        ("strong", {"weak": 0.620, "strong": 0.6175}, 0),
        # Parted where it was chosen: nothing else is tried.
        ("weak", {"weak": 0.620, "strong": 0.620}, 0),
        # Parted nowhere.
        ("none", {"weak": 0.620, "strong": 0.620}, 0),
    ],
)
def test_mixtures_give_way_to_a_stronger_multiple_that_parts_them(sessions, edge, scores, taken):
    stage = _Chosen({(edge, ("z1", "z2")): (PARTED, 0.49)}, scores)
    settings = dataclasses.replace(QUICK, unmix_steps=1, settle_steps=0)
    found = _select(stage, sessions, settings, 0, _Shelf(), lambda line: None)
    assert list(np.flatnonzero(found.table["chosen"])) == [taken]
    assert found.scale == stage.scale == QUICK.scales[taken]
    assert (stage.now[0] == PARTED) == (edge != "none" and scores["strong"] != 0.6175)
    assert any("where mixtures were out of reach" in note for note in found.notes) == bool(taken)


def test_a_bottleneck_is_held_closed_while_others_train(sessions):
    model = make_model(0)
    stage = _Choice(make_model, model, QUICK)
    before = model.get_weights()
    stage.train(sessions, 20, 1e-2, 0, callbacks=[_Closed(stage, "z2", "z1")])
    bottleneck = model.core.cell.update_latent_bottleneck
    assert bottleneck.raw_multiplier.numpy()[0, 1] == 0
    assert bottleneck.raw_sigma.numpy()[0, 1] == 1
    assert bottleneck.raw_multiplier.numpy()[1, 0] not in (0, 1)
    assert stage.bottleneck("z2", "choice readout")[0] is model.choice_readout.bottleneck
    assert not np.array_equal(before[0], model.get_weights()[0])
    assert stage.objective(sessions) == pytest.approx(stage.loss(sessions), rel=0.1)


def test_a_path_that_diverges_is_tried_again_more_slowly(sessions):
    # A latent's target is bounded, so only a rate beyond float32 makes the loss infinite.
    settings = dataclasses.replace(QUICK, learning_rate=1e38)
    lines = []
    with pytest.raises(TrainingDiverged, match=r"choice, fold 1/2, at a learning rate of 2.5e\+37"):
        select(make_model, sessions, settings, report=lines.append)
    assert [line.rpartition(" ")[2] for line in lines] == ["5e+37", "2.5e+37"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": [1.0]}, r"scales: expected at least two rising numbers above 0, got \[1.0\]"),
        ({"scales": [1.0, 1.0]}, "scales: expected"),
        ({"dopamine_scales": [0.0, 1.0]}, "dopamine_scales: expected"),
        ({"folds": 1}, "folds: expected at least 2, got 1"),
        ({"starts": 0}, "starts: expected at least 1, got 0"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number above 0, got nan"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SelectionSettings(**arguments)
