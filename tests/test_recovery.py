"""Recovery: the graph of each agent, how a fit is compared with it, and the folder of seeds."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest

import keras_disrnn
from keras_disrnn.analysis import compute_formulas, compute_graph, describe_graph, same_graph
from keras_disrnn.analysis.graph import choice_part, make_graph
from keras_disrnn.bandit import QLearning
from keras_disrnn.cli import main
from keras_disrnn.experiments.data import simulate_data
from keras_disrnn.experiments.folder import ResultFolder, read_config
from keras_disrnn.experiments.recovery import compute_recovery, recover, summarize_recovery
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import ModelSettings, SyntheticData
from keras_disrnn.experiments.truths import TRUTHS
from keras_disrnn.plots import plot_recovery, plot_recovery_by_sessions

SMALL = SyntheticData(8, 6, 15, "reward_seeking")
SHAPE = ModelSettings(
    num_latents=2, num_update_layers=1, num_choice_layers=1, num_dopamine_layers=1
)
QUICK = SelectionSettings(
    scales=[0.5, 3.0], dopamine_scales=[0.5, 2.0],
    warmup_steps=3, steps=3, dopamine_steps=3, separation_steps=0, settle_steps=0, batch_size=6,
)  # fmt: skip
SETTINGS = {"data": SMALL, "model": SHAPE, "selection": QUICK}


def latents_of(graph):
    return [node for node, kind in graph.nodes(data="kind") if kind == "latent"]


def model_of(graph, latents, place):
    """Make a model whose bottlenecks are open at the edges of `graph`.

    `place` is the index of each latent of the graph.
    """
    model = keras_disrnn.DisRNNModel(num_latents=latents, seed=0)
    inputs = {"choice": 0, "reward": 1}
    cell = model.core.cell
    sigma = {
        "latent": np.ones(latents),
        "obs": np.ones((latents, 2)),
        "update": np.ones((latents, latents)),
        "choice": np.ones(latents),
        "dopamine": np.ones(latents + 2),
    }
    for name, index in place.items():
        sigma["latent"][index] = 0.0
        assert name in graph
    for source, target in graph.edges:
        if target == "choice readout":
            sigma["choice"][place[source]] = 0.0
        elif target == "dopamine readout":
            where = latents + inputs[source] if source in inputs else place[source]
            sigma["dopamine"][where] = 0.0
        elif source in inputs:
            sigma["obs"][place[target], inputs[source]] = 0.0
        else:
            sigma["update"][place[target], place[source]] = 0.0
    for layer, name in (
        (cell.latent_bottleneck, "latent"),
        (cell.update_obs_bottleneck, "obs"),
        (cell.update_latent_bottleneck, "update"),
        (model.choice_readout.bottleneck, "choice"),
        (model.dopamine_readout.bottleneck, "dopamine"),
    ):
        layer.raw_sigma.assign(sigma[name].reshape(layer.raw_sigma.shape))
    return model


@pytest.mark.parametrize("agent", TRUTHS)
def test_a_graph_is_recognized_in_any_order_of_its_latents(agent):
    truth = TRUTHS[agent].graph
    names = latents_of(truth)
    for order in (names, [None, None, *names]):
        order = {name: index for index, name in enumerate(order) if name}
        model = model_of(truth, 7, order)
        # Closed latents and their edges are left out. A latent's edge to itself does not count.
        closed = model.core.cell.update_obs_bottleneck.raw_sigma
        values = keras.ops.convert_to_numpy(closed).copy()
        values[6] = 0.0
        if 6 not in order.values():
            closed.assign(values)
        assert same_graph(compute_graph(model), truth)
    for other, its in TRUTHS.items():
        same = same_graph(compute_graph(model), its.graph)
        assert same == same_graph(truth, its.graph), other
    # An open bottleneck of the dopamine readout counts, even if stage 1 closed the latent.
    sigma = model.dopamine_readout.bottleneck.raw_sigma
    opened = keras.ops.convert_to_numpy(sigma).copy()
    opened[(set(range(7)) - set(order.values())).pop()] = 0.0
    sigma.assign(opened)
    graph = compute_graph(model)
    assert not same_graph(graph, truth)
    # The graph of choice does not change.
    assert same_graph(choice_part(graph), choice_part(truth))
    assert graph.number_of_edges() == truth.number_of_edges() + 1


def test_graphs_are_compared_and_described():
    one = make_graph([("choice", "z1"), ("z1", "choice readout")])
    assert same_graph(one, make_graph([("choice", "z4"), ("z4", "choice readout")]))
    assert not same_graph(one, make_graph([("reward", "z1"), ("z1", "choice readout")]))
    assert not same_graph(one, make_graph([("choice", "z1"), ("z1", "dopamine readout")]))
    two = make_graph([("reward", "z1"), ("choice", "z1"), ("z1", "choice readout")])
    assert describe_graph(two) == "choice, reward > z1; z1 > choice readout"


@pytest.mark.parametrize("agent", TRUTHS)
def test_the_graphs_follow_from_the_agents_equations(agent):
    """The graph's inputs, and no fewer, explain each latent, choice and dopamine."""
    truth = TRUTHS[agent]
    played = simulate_data(SyntheticData(60, 1, 100, agent), 5)["train"][1]
    values = {name: of(played.variables) for name, of in truth.variables.items()}
    nodes = dict(zip(latents_of(truth.graph), values, strict=True))
    before = {node: values[name][:, :-1].ravel() for node, name in nodes.items()}
    after = {node: values[name][:, 1:].ravel() for node, name in nodes.items()}
    now = {"choice": played.choice[:, :-1].ravel(), "reward": played.reward[:, :-1].ravel()}

    def explained(target, sources):
        """Compute the R^2 of smooth functions of the latents, one per case of choice and reward."""
        cases = np.zeros(len(target), int)
        for name in ("choice", "reward"):
            if name in sources:
                cases = 2 * cases + now[name].astype(int)
        left = 0.0
        for case in np.unique(cases):
            rows = cases == case
            columns = [np.ones(rows.sum())]
            latents = [before[name][rows] for name in sources if name in before]
            for latent in latents:
                columns += [latent, np.tanh(latent / 2), np.tanh(latent)]
                columns += [np.tanh(latent / 2) * other for other in latents]
            design = np.column_stack(columns)
            fitted = design @ np.linalg.lstsq(design, target[rows], rcond=None)[0]
            left += ((target[rows] - fitted) ** 2).sum()
        return 1 - left / ((target - target.mean()) ** 2).sum()

    for node, target in after.items():
        sources = set(truth.graph.predecessors(node)) | {node}
        assert explained(target, sources) > 0.9999
        for source in sources - {node}:
            assert explained(target, sources - {source}) < 0.999, (node, source)
    probability = played.choice_probability[:, :-1].reshape(-1, 2)
    logit = np.log(probability[:, 1] / probability[:, 0])
    read = set(truth.graph.predecessors("choice readout"))
    assert explained(logit, read) > 0.9999
    for source in read:
        assert explained(logit, read - {source}) < 0.999
    dopamine = played.dopamine[:, :-1].ravel()
    read = set(truth.graph.predecessors("dopamine readout"))
    best = explained(dopamine, read)
    assert best > (0.95 if agent == "forgetting_q_learning" else 0.9999)
    for source in read:
        assert explained(dopamine, read - {source}) < best - 1e-3, source


def test_variables_are_matched_one_to_one():
    sessions, played = simulate_data(SyntheticData(1, 40, 40), 2)["held_out"]
    truth = TRUTHS["q_learning"].graph
    model = model_of(truth, 3, {"q0": 2, "q1": 0})
    result = compute_recovery(model, QLearning(alpha=0.4), sessions=sessions, played=played)
    assert result["graph"] and result["choice_graph"]
    rates = compute_formulas(model, sessions).learning_rates().set_index("latent")["alpha"]
    for name in ("Q0", "Q1"):
        assert result[f"{name}: true_alpha"] == 0.4
        assert result[f"{name}: alpha"] == rates[result[f"{name}: latent"]].max()
    assert {result["Q0: latent"], result["Q1: latent"]} == {"z1", "z3"}
    latents = keras.ops.convert_to_numpy(model.compute_latents(sessions.features))[:, :-1].reshape(
        -1, 3
    )
    for name, column in (("Q0", 0), ("Q1", 1)):
        partner = int(result[f"{name}: latent"][1:]) - 1
        variable = played.variables[..., column].ravel()
        expected = abs(np.corrcoef(latents[:, partner], variable)[0, 1])
        assert result[f"{name}: r"] == pytest.approx(expected, abs=1e-6)
        assert expected**2 <= result[f"{name}: linear_r2"] + 1e-6
    true_log = np.log(played.chosen_probability).mean()
    assert result["true_likelihood"] == pytest.approx(np.exp(true_log), rel=1e-6)
    assert result["difference"] == pytest.approx(result["likelihood"] - result["true_likelihood"])


def test_finished_seeds_are_not_fitted_again(tmp_path):
    lines = []
    table = recover(tmp_path, [0, 1], **SETTINGS, report=lines.append)
    assert len(lines) == 2
    assert table["seed"].tolist() == [0, 1]
    assert table["s: r"].between(0, 1).all()
    (tmp_path / "seed-1" / "result.json").unlink()
    again = recover(tmp_path, [0, 1], **SETTINGS, report=lines.append)
    assert len(lines) == 3
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))
    stored = pd.read_csv(tmp_path / "recovery.csv")
    assert stored["likelihood"].tolist() == pytest.approx(table["likelihood"].tolist())
    summary = summarize_recovery(table)
    assert summary["seeds"] == 2 and summary["graph"] == int(table["graph"].sum())
    assert summary["difference"] == pytest.approx(table["difference"].mean())
    assert plot_recovery(table).axes[0].get_title() == "graph found"
    assert read_config(tmp_path)["data"]["agent"] == "reward_seeking"
    other = SETTINGS | {"data": SyntheticData(8, 6, 15)}
    with pytest.raises(FileExistsError, match="got another data.agent"):
        recover(tmp_path, [0], **other)
    with (
        ResultFolder(tmp_path, read_config(tmp_path), command="recover").begin(),
        pytest.raises(FileExistsError, match="process .* works"),
    ):
        recover(tmp_path, [0], **SETTINGS)
    (tmp_path / "seed-0" / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"seed-0/result.json: expected the result of a seed"):
        recover(tmp_path, [0], **SETTINGS)


def test_a_foreign_folder_is_refused_before_any_fit(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="mine.txt"):
        recover(tmp_path, [0], **SETTINGS)


@pytest.mark.slow
def test_the_command_recovers_several_numbers_of_sessions(tmp_path):
    flags = [
        f"--{group}.{name}={value}"
        for group, settings in SETTINGS.items()
        for name, value in dataclasses.asdict(settings).items()
        if name != "num_sessions"
    ]
    assert main(["recover", f"--out={tmp_path}", "--num_seeds=1", "--sizes=[6, 9]", *flags]) == 0
    table = pd.read_csv(tmp_path / "recovery.csv")
    assert table["sessions"].tolist() == [6, 9]
    for size in (6, 9):
        stored = read_config(tmp_path / f"sessions-{size}")
        assert stored["data"]["num_sessions"] == size
    assert (tmp_path / "recovery.png").exists()


def test_recovery_is_drawn_over_the_number_of_sessions():
    table = pd.DataFrame(
        {
            "sessions": [6, 6, 6, 9, 9],
            "graph": [False, True, False, True, True],
            "difference": [-0.02, -0.01, -0.03, -0.001, -0.002],
            "dopamine_r2": [0.8, 0.9, 0.7, 0.99, 0.98],
        }
    )
    share, difference, _ = plot_recovery_by_sessions(table).axes
    np.testing.assert_array_equal(share.lines[0].get_xdata(), [6, 9])
    np.testing.assert_allclose(share.lines[0].get_ydata(), [1 / 3, 1])
    low, high = share.lines[1].get_ydata()
    assert 0 < low < 1 / 3 < high < 1
    np.testing.assert_allclose(difference.lines[0].get_ydata(), [-0.02, -0.0015])
    assert sum(len(dots.get_offsets()) for dots in difference.collections) == len(table)


@pytest.mark.slow
def test_workers_give_the_same_numbers(tmp_path):
    one = recover(tmp_path / "1", [0, 1], **SETTINGS)
    two = recover(tmp_path / "2", [0, 1], **SETTINGS, workers=2)
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"))


@pytest.mark.slow
def test_q_learning_is_recovered(tmp_path):
    table = recover(
        tmp_path,
        [0],
        data=SyntheticData(100, 300, 100),
        model=ModelSettings(),
        selection=SelectionSettings(),
    )
    assert table["graph"].all()
    assert table["difference"].min() > -0.003
    assert table["dopamine_r2"].min() > 0.99
    assert table[["Q0: r", "Q1: r"]].min(axis=None) > 0.97
    assert summarize_recovery(table)["alpha_error"] < 0.08
