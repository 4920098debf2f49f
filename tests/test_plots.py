"""Figures, by what is drawn in them: lines, images, labels."""

import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, SubFigure

from keras_disrnn.analysis import (
    ChoiceRule,
    DopamineRule,
    UpdateRule,
    compute_bottlenecks,
    compute_choice_rule,
    compute_dopamine_predictions,
    compute_dopamine_rule,
    compute_session_trace,
    compute_update_rules,
)
from keras_disrnn.data import Sessions
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.plots import (
    plot_bottlenecks,
    plot_choice_rule,
    plot_dopamine_rule,
    plot_dopamine_scatter,
    plot_learning_curves,
    plot_model,
    plot_recovery_by_sessions,
    plot_session,
    plot_structure,
    plot_update_rules,
    save_figure,
    save_formats,
)
from keras_disrnn.plots.style import COLOURS, arm_labels

Z = np.linspace(-1, 2, 5)
W = np.linspace(0, 1, 4)


def make_bottlenecks(latents=3, dopamine=True):
    """Make bottlenecks. Latents are open in the order z3, z1, z2, and other sigmas differ."""
    names = [f"z{i + 1}" for i in range(latents)]
    rows = [("latent", name, name) for name in names]
    rows += [("update", target, s) for target in names for s in ("choice", "reward", *names)]
    rows += [("choice", "choice", name) for name in names]
    rows += [("dopamine", "dopamine", s) for s in (*names, "choice", "reward") if dopamine]
    table = pd.DataFrame(rows, columns=["group", "target", "source"])
    table["sigma"] = np.arange(len(rows)) / 100
    table.loc[: latents - 1, "sigma"] = [0.5, 0.9, 0.1, *np.linspace(0.91, 1, 30)][:latents]
    table["openness"] = 1 - table["sigma"]
    table["multiplier"] = 1.0
    return table


def make_choice_rule(open_latents, arms=2):
    shown = open_latents[:2]
    values = (Z, W)[: len(shown)]
    logits = np.random.default_rng(3).normal(size=(*map(len, values), arms))
    fixed = {name: 0.25 for name in open_latents[2:]}
    return ChoiceRule(shown, values, logits, open_latents, fixed)


def make_dopamine_rule(open_latents, arms=2, rewards=(0.0, 1.0), timing="pre"):
    shown = open_latents[:2]
    values = (Z, W)[: len(shown)]
    choices = np.repeat(np.arange(float(arms)), len(rewards))
    shape = (len(choices), *map(len, values), 2)
    return DopamineRule(
        latents=shown,
        values=values,
        choices=choices,
        rewards=np.tile(rewards, arms),
        prediction=np.random.default_rng(4).normal(size=shape),
        open_latents=open_latents,
        open_observations=("choice", "reward"),
        fixed={name: -0.5 for name in open_latents[2:]},
        timing=timing,
        signal_names=("nacc", "dms"),
    )


def make_update_rule(name, others=(), size=1.0, arms=2):
    rng = np.random.default_rng(5)
    return UpdateRule(
        latent=name,
        values=Z,
        choices=np.repeat(np.arange(float(arms)), 2),
        rewards=np.tile([0.0, 1.0], arms),
        change=size * rng.uniform(-1, 1, (2 * arms, len(Z))),
        open_observations=("reward",),
        others=tuple(
            (other, np.array([-1.0, 0.5, 1.5]), size * rng.uniform(-1, 1, (3, 2 * arms, len(Z))))
            for other in others
        ),
        fixed={},
    )


def draw(figure):
    """Render a figure, and return the renderer, which measures its parts."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def lines(ax):
    """Return the lines with data, without the faint ones through zero."""
    return [line for line in ax.get_lines() if len(line.get_xdata()) > 2]


def texts(ax):
    return " ".join(text.get_text() for text in ax.texts)


def legend_labels(owner):
    legend = owner.legends[0] if isinstance(owner, Figure) else owner.get_legend()
    return [text.get_text() for text in legend.get_texts()]


# === Bottlenecks ===


def test_bottlenecks_are_drawn_open_first_under_their_names():
    figure = plot_bottlenecks(make_bottlenecks())
    *panels, bar = figure.axes
    assert [ax.get_title() for ax in panels] == [
        "latents",
        "update networks",
        "choice\nnetwork",
        "dopamine\nnetwork",
    ]
    latent, update, choice, dopamine = panels
    order = ["z3", "z1", "z2"]
    assert labels(latent.get_yticklabels()) == order
    np.testing.assert_allclose(latent.images[0].get_array(), [[0.9], [0.5], [0.1]])
    assert labels(update.get_yticklabels()) == order
    assert labels(update.get_xticklabels()) == ["choice", "reward", *order]
    table = make_bottlenecks().set_index(["group", "target", "source"])["openness"]
    drawn = update.images[0].get_array()
    assert drawn.shape == (3, 5)
    assert drawn[0, 4] == table["update", "z3", "z2"]
    assert drawn[2, 0] == table["update", "z2", "choice"]
    assert drawn[1, 2] == table["update", "z1", "z3"]
    np.testing.assert_allclose(
        choice.images[0].get_array()[:, 0], [table["choice", "choice", name] for name in order]
    )
    assert labels(dopamine.get_yticklabels()) == [*order, "choice", "reward"]
    assert dopamine.images[0].get_array()[4, 0] == table["dopamine", "dopamine", "reward"]
    for ax in panels:
        assert ax.images[0].get_clim() == (0, 1)
        assert ax.images[0].get_cmap().name == "Oranges"
    assert bar.get_ylabel() == "openness, 1 − σ"


@pytest.mark.parametrize("latents", [1, 30])
def test_bottlenecks_of_few_and_many_latents_without_dopamine(latents):
    figure = plot_bottlenecks(make_bottlenecks(latents, dopamine=False))
    assert len(figure.axes) == 4  # three panels and the colour bar
    assert len(figure.axes[0].get_yticklabels()) == latents
    width, height = figure.get_size_inches()
    assert width <= 14 and height <= 9


def test_bottlenecks_are_drawn_in_a_given_figure():
    figure = Figure(layout="constrained")
    left, right = figure.subfigures(1, 2)
    assert plot_bottlenecks(make_bottlenecks(), left) is left
    assert plot_dopamine_rule(make_dopamine_rule(("z1", "z2")), right) is right
    assert len(left.axes) == len(right.axes) == 5
    draw(figure)


# === Choice rule ===


def test_choice_rule_of_one_latent_is_a_line():
    rule = make_choice_rule(("z3",))
    ax = plot_choice_rule(rule)
    (line,) = lines(ax)
    np.testing.assert_array_equal(line.get_xdata(), Z)
    np.testing.assert_array_equal(line.get_ydata(), rule.logits[:, 1] - rule.logits[:, 0])
    assert ax.get_xlabel() == "z3"
    assert ax.get_ylabel() == "logit(right) − logit(left)"


def test_choice_rule_of_two_latents_is_a_map():
    rule = make_choice_rule(("z3", "z1"))
    ax = plot_choice_rule(rule, arm_names=("A", "B"))
    (mesh,) = [c for c in ax.collections if hasattr(c, "get_coordinates")]
    # The first latent runs along x: columns of the drawn array.
    np.testing.assert_array_equal(mesh.get_array(), rule.contrast.T)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z3", "z1")
    limit = np.abs(rule.contrast).max()
    assert mesh.get_clim() == (-limit, limit)
    assert mesh.get_cmap().name == "coolwarm"
    assert ax.figure.axes[1].get_ylabel() == "logit(B) − logit(A)"
    assert not ax.texts


def test_choice_rule_says_where_further_latents_are_fixed():
    ax = plot_choice_rule(make_choice_rule(("z3", "z1", "z5")))
    assert texts(ax) == "z5 = 0.25"


@pytest.mark.parametrize("arms", [2, 3])
def test_choice_rule_without_open_latents_has_a_bar_for_each_arm(arms):
    rule = make_choice_rule((), arms)
    ax = plot_choice_rule(rule)
    heights = [patch.get_height() for patch in ax.patches]
    np.testing.assert_allclose(heights, np.exp(rule.logits) / np.exp(rule.logits).sum())
    assert labels(ax.get_xticklabels()) == list(arm_labels(arms))
    assert texts(ax) == "no open latent: constant"


def test_choice_rule_of_three_arms():
    rule = make_choice_rule(("z1",), arms=3)
    ax = plot_choice_rule(rule)
    assert legend_labels(ax) == ["arm 0", "arm 1", "arm 2"]
    relative = rule.logits - rule.logits.mean(-1, keepdims=True)
    np.testing.assert_allclose([line.get_ydata() for line in lines(ax)], relative.T)
    assert [line.get_color() for line in lines(ax)] == list(COLOURS[:3])

    rule = make_choice_rule(("z1", "z2"), arms=3)
    ax = plot_choice_rule(rule)
    np.testing.assert_array_equal(ax.collections[0].get_array(), rule.logits.argmax(-1).T)
    assert labels(ax.figure.axes[1].get_yticklabels()) == ["arm 0", "arm 1", "arm 2"]
    draw(ax.figure)

    ax = plot_choice_rule(rule, arm=2)
    relative = rule.logits[..., 2] - rule.logits.mean(-1)
    np.testing.assert_allclose(ax.collections[0].get_array(), relative.T)
    with pytest.raises(ValueError, match="arm: expected an arm from 0 to 2, got 3"):
        plot_choice_rule(rule, arm=3)


def test_arm_names_must_fit():
    with pytest.raises(ValueError, match="arm_names: expected 2 names.*got 1"):
        plot_choice_rule(make_choice_rule(("z1",)), arm_names=("left",))


# === Dopamine rule ===


def test_dopamine_rule_of_two_latents_has_a_panel_for_each_combination():
    rule = make_dopamine_rule(("z2", "z1", "z4"))
    figure = plot_dopamine_rule(rule, units="z-score")
    *panels, bar = figure.axes
    assert [ax.get_title() for ax in panels] == [
        "left, unrewarded",
        "left, rewarded",
        "right, unrewarded",
        "right, rewarded",
    ]
    limit = np.abs(rule.prediction[..., 0]).max()
    for combination, ax in enumerate(panels):
        mesh = ax.collections[0]
        np.testing.assert_array_equal(mesh.get_array(), rule.prediction[combination, ..., 0].T)
        assert mesh.get_clim() == (-limit, limit)
    assert bar.get_ylabel() == "predicted nacc (z-score)"
    assert panels[2].get_xlabel() == "z2" and panels[2].get_ylabel() == "z1"
    assert "before the outcome" in figure.get_suptitle()
    assert texts(panels[0]) == "z4 = -0.5"


def test_dopamine_rule_of_one_latent_has_a_line_for_each_combination():
    rule = make_dopamine_rule(("z2",), timing="post")
    figure = plot_dopamine_rule(rule, signal="dms")
    (ax,) = figure.axes
    drawn = lines(ax)
    np.testing.assert_array_equal([line.get_ydata() for line in drawn], rule.prediction[..., 1])
    assert [line.get_linestyle() for line in drawn] == ["--", "-", "--", "-"]
    assert len({line.get_color() for line in drawn}) == 2
    assert legend_labels(ax)[3] == "right, rewarded"
    assert ax.get_xlabel() == "z2 after the outcome"
    assert ax.get_ylabel() == "predicted dms"
    with pytest.raises(ValueError, match=r"signal: expected one of \('nacc', 'dms'\), got 'vta'"):
        plot_dopamine_rule(rule, signal="vta")


def test_dopamine_rule_without_open_latents_has_a_bar_for_each_combination():
    rule = make_dopamine_rule((), arms=3)
    (ax,) = plot_dopamine_rule(rule).axes
    heights = [patch.get_height() for patch in ax.patches]
    np.testing.assert_array_equal(heights, rule.prediction[:, 0])
    assert labels(ax.get_xticklabels())[5] == "arm 2\nrewarded"


def test_dopamine_maps_away_from_zero_use_all_colours():
    rule = make_dopamine_rule(("z1", "z2"))
    rule.prediction[...] = np.abs(rule.prediction) + 5
    drawn = rule.prediction[..., 0]
    mesh = plot_dopamine_rule(rule).axes[0].collections[0]
    assert mesh.get_clim() == (drawn.min(), drawn.max())


def test_dopamine_panels_are_limited_with_a_warning():
    rule = make_dopamine_rule(("z1", "z2"), arms=8)
    with pytest.warns(UserWarning, match="drawing 12 of 16 combinations"):
        figure = plot_dopamine_rule(rule)
    assert len(figure.axes) == 13
    assert figure.axes[11].get_title() == "arm 5, rewarded"


# === Update rules ===


def test_update_rules_have_a_panel_for_each_latent():
    rules = (make_update_rule("z1"), make_update_rule("z4", size=0.5))
    figure = plot_update_rules(rules)
    assert len(figure.axes) == 2
    for ax, rule in zip(figure.axes, rules, strict=True):
        drawn = lines(ax)
        np.testing.assert_array_equal([line.get_ydata() for line in drawn], rule.change)
        np.testing.assert_array_equal(drawn[0].get_xdata(), Z)
        assert [line.get_linestyle() for line in drawn] == ["--", "-", "--", "-"]
        assert ax.get_title() == f"{rule.latent}  (reads reward)"
        assert ax.get_xlabel() == f"{rule.latent} before the trial"
        assert ax.get_ylabel() == f"change of {rule.latent}"
        assert ax.get_aspect() == 1
        # One scale on both axes, in all panels, with room for all.
        assert np.ptp(ax.get_xlim()) == pytest.approx(np.ptp(ax.get_ylim()))
        assert ax.get_xlim() == figure.axes[0].get_xlim()
        assert ax.get_xlim()[0] < -1 and ax.get_xlim()[1] > 2
        assert sum(ax.get_ylim()) == pytest.approx(0)
    assert legend_labels(figure) == [
        "left, unrewarded",
        "left, rewarded",
        "right, unrewarded",
        "right, rewarded",
    ]


def test_large_changes_fit_into_the_panels():
    figure = plot_update_rules((make_update_rule("z1", size=9.0),))
    low, high = figure.axes[0].get_ylim()
    assert low < min(line.get_ydata().min() for line in lines(figure.axes[0]))
    assert high > max(line.get_ydata().max() for line in lines(figure.axes[0]))


def test_update_rules_show_the_most_open_other_latent():
    rules = (make_update_rule("z1", others=("z3", "z2")), make_update_rule("z2"))
    figure = plot_update_rules(rules)
    drawn = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in drawn] == [
        "z1  (z3 = -1)",
        "z1  (z3 = 0.5)",
        "z1  (z3 = 1.5)",
        "z2  (reads reward)",
    ]
    _, _, changes = rules[0].others[0]
    for ax, expected in zip(drawn, changes, strict=False):
        np.testing.assert_array_equal([line.get_ydata() for line in lines(ax)], expected)


def test_update_panels_are_limited_with_a_warning():
    rules = tuple(make_update_rule(f"z{i}", others=("z9",)) for i in range(6))
    with pytest.warns(UserWarning, match="drawing 15 of 18 panels"):
        figure = plot_update_rules(rules)
    assert len(figure.axes) == 15
    with pytest.warns(UserWarning, match="drawing 1 of 18 panels"):
        assert len(plot_update_rules(rules, max_panels=1).axes) == 1
    with pytest.raises(ValueError, match="max_panels: expected at least 1, got 0"):
        plot_update_rules(rules, max_panels=0)


def test_no_update_rules_give_an_empty_figure():
    (ax,) = plot_update_rules(()).axes
    assert texts(ax) == "no open latent"


# === Learning curves ===


def make_history():
    return pd.DataFrame(
        {
            "stage": ["warmup"] * 2 + ["stage1"] * 3 + ["stage2"],
            "epoch": [1, 2, 1, 2, 3, 1],
            "step": [10, 20, 10, 20, 30, 10],
            "loss": [0.7, 0.6, 0.9, 0.65, 0.6, 0.01],
            "val_loss": [0.71, 0.61, 0.91, 0.66, 0.61, np.nan],
            "choice_normalized_likelihood": [0.5, 0.55, 0.56, 0.57, 0.58, 0.58],
            "dopamine_mse": [np.nan] * 5 + [0.01],
            "open_latent": [5, 5, 4, 3, 2, 2],
        }
    )


def test_learning_curves_continue_from_stage_to_stage():
    figure = plot_learning_curves(make_history(), references={"choice_normalized_likelihood": 0.59})
    loss, likelihood, dopamine = figure.axes
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "loss",
        "choice normalized likelihood",
        "dopamine mse",
    ]
    assert loss.get_xlabel() == "step"
    training = [line for line in loss.get_lines() if line.get_color() == COLOURS[0]]
    assert [list(line.get_xdata()) for line in training] == [[10, 20], [30, 40, 50], [60]]
    assert [list(line.get_ydata()) for line in training] == [[0.7, 0.6], [0.9, 0.65, 0.6], [0.01]]
    held_out = [line for line in loss.get_lines() if line.get_color() == COLOURS[1]]
    assert [list(line.get_ydata()) for line in held_out] == [[0.71, 0.61], [0.91, 0.66, 0.61]]
    assert [text.get_text() for text in loss.texts] == ["warmup", "stage1", "stage2"]
    assert [text.xy[0] for text in loss.texts] == [0, 20, 50]
    assert loss.get_yscale() == "log" and likelihood.get_yscale() == "linear"
    assert legend_labels(figure) == ["training", "held out", "reference"]
    reference = likelihood.get_lines()[-4]
    assert list(reference.get_ydata()) == [0.59, 0.59]
    (point,) = [line for line in dopamine.get_lines() if line.get_color() == COLOURS[0]]
    assert list(point.get_xdata()) == [60] and point.get_marker() == "."


def test_learning_curves_of_chosen_metrics():
    figure = plot_learning_curves(make_history(), metrics=["open_latent"])
    (ax,) = figure.axes
    assert ax.get_ylabel() == "open latent"
    with pytest.raises(ValueError, match="metrics: expected names among.*got 'accuracy'"):
        plot_learning_curves(make_history(), metrics=["accuracy"])
    with pytest.raises(ValueError, match="metrics: expected 1 to 6 names, got 7"):
        plot_learning_curves(make_history(), metrics=["loss"] * 7)
    with pytest.raises(ValueError, match="history: expected at least one row"):
        plot_learning_curves(make_history()[:0])


def test_learning_curves_of_a_plain_fit():
    history = pd.DataFrame({"epoch": [0, 1, 2], "accuracy": [0.1, 0.2, 0.3]})
    (ax,) = plot_learning_curves(history).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "accuracy")
    assert list(ax.get_lines()[0].get_xdata()) == [0, 1, 2]


# === Session ===


def make_trace(arms=2, signals=("dopamine",), latents=3):
    choice = np.array([0, 1, 1, np.nan, 0, 1.0])
    trace = pd.DataFrame(
        {
            "session": "mouse-7",
            "trial": np.arange(6),
            "kind": ["free", "free", "forced", "missed", "free", "free"],
            "choice": choice,
            "reward": [1, 0, 1, np.nan, 0, 1.0],
        }
    )
    for arm in range(arms):
        trace[f"choice_probability_{arm}"] = np.linspace(0.1, 0.8, 6) + arm / 100
    for i in range(latents):
        trace[f"z{i + 1}"] = (i + 1) * np.linspace(-1, 1, 6)
    for signal in signals:
        trace[f"recorded_{signal}"] = [0.5, np.nan, 1, np.nan, 2, 3]
        trace[f"predicted_{signal}"] = [0.4, 0.2, 1.1, np.nan, 2, 3]
    return trace


def ticks(ax):
    """`{(trial, colour): (start, end)}` of every choice tick."""
    return {
        (segment[0, 0], to_hex(collection.get_color()[0]).upper()): tuple(segment[:, 1])
        for collection in ax.collections
        for segment in collection.get_segments()
    }


def test_session_shows_choices_latents_and_dopamine():
    trace = make_trace()
    figure = plot_session(trace, units="z-score")
    choices, latents, dopamine = figure.axes
    assert choices.get_title() == "session mouse-7"
    assert choices.get_ylabel() == "p(right)"
    (p_right,) = lines(choices)
    np.testing.assert_array_equal(p_right.get_ydata(), trace["choice_probability_1"])
    drawn = ticks(choices)
    blue, orange, grey = COLOURS[0], COLOURS[1], "#777777"
    assert drawn.keys() == {(0, blue), (1, orange), (2, grey), (4, blue), (5, orange)}
    lengths = {trial: abs(end - start) for (trial, _), (start, end) in drawn.items()}
    assert lengths[0] == pytest.approx(lengths[2]) == pytest.approx(lengths[5])
    assert lengths[1] == pytest.approx(lengths[4]) and lengths[1] < lengths[0]
    assert max(drawn[0, blue]) < 0 and min(drawn[1, orange]) > 1
    assert legend_labels(choices) == ["rewarded", "unrewarded", "forced", "missed"]

    assert [line.get_label() for line in lines(latents)] == ["z1", "z2", "z3"]
    np.testing.assert_array_equal(lines(latents)[2].get_ydata(), trace["z3"])
    recorded, predicted = lines(dopamine)
    np.testing.assert_array_equal(recorded.get_ydata(), trace["recorded_dopamine"])
    np.testing.assert_array_equal(predicted.get_ydata(), trace["predicted_dopamine"])
    assert dopamine.get_ylabel() == "dopamine (z-score)"
    assert dopamine.get_xlabel() == "trial"
    for ax in figure.axes:
        missed = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
        assert [list(line.get_xdata()) for line in missed] == [[3, 3]]


def test_session_of_three_arms_without_dopamine():
    trace = make_trace(arms=3, signals=())
    trace.loc[5, "choice"] = 2
    choices, _ = plot_session(trace, arm_names=("a", "b", "c")).axes
    assert choices.get_ylabel() == "p(arm)"
    assert [line.get_label() for line in lines(choices)] == ["a", "b", "c"]
    drawn = ticks(choices)
    rows = {trial: start for (trial, _), (start, _) in drawn.items()}
    assert 1 < rows[0] == rows[4] < rows[1] == rows[2] < rows[5]
    assert choices.get_ylim()[1] > max(end for _, end in drawn.values())


def test_session_draws_the_given_latents():
    trace = make_trace(latents=9)
    latents = plot_session(trace).axes[1]
    # Only the latents that vary most are drawn.
    assert [line.get_label() for line in lines(latents)] == [f"z{i}" for i in range(4, 10)]
    part = plot_session(trace[2:5], latents=["z2"])
    assert [line.get_label() for line in lines(part.axes[1])] == ["z2"]
    assert part.axes[-1].get_xlim() == (1, 5)
    assert len(plot_session(trace, latents=[]).axes) == 2
    with pytest.warns(UserWarning, match="drawing 6 of 7 latents"):
        many = plot_session(trace, latents=[f"z{i}" for i in range(1, 8)])
    assert len(lines(many.axes[1])) == 6
    with pytest.raises(ValueError, match=r"latents: expected names among .*got 'z10'"):
        plot_session(trace, latents=["z10"])
    with pytest.raises(ValueError, match="trace: expected at least one trial"):
        plot_session(trace[:0])


def test_session_of_many_signals_is_limited():
    with pytest.warns(UserWarning, match="drawing 3 of 4 dopamine signals"):
        figure = plot_session(make_trace(signals=("a", "b", "c", "d")))
    assert [ax.get_ylabel() for ax in figure.axes[2:]] == ["a", "b", "c"]


# === Dopamine scatter ===


def test_scatter_shows_every_trial_and_r2():
    recorded = np.array([0.0, 1.0, 2.0, 3.0])
    predicted = np.array([0.5, 1.0, 2.0, 2.0])
    table = pd.DataFrame({"signal": "nacc", "recorded": recorded, "predicted": predicted})
    other = table.assign(signal="dms", predicted=0.0)
    ax = plot_dopamine_scatter(pd.concat([table, other]), units="dF/F")
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), np.c_[recorded, predicted])
    assert texts(ax) == f"R² = {1 - 1.25 / 5:.3f}\n4 trials"
    (identity,) = ax.get_lines()
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("recorded nacc (dF/F)", "predicted nacc (dF/F)")
    ax = plot_dopamine_scatter(pd.concat([table, other]), signal="dms")
    assert "R² = -1.8" in texts(ax)
    with pytest.raises(ValueError, match="got 'vta'"):
        plot_dopamine_scatter(table, signal="vta")


def test_scatter_of_many_trials_counts_them_all(rng):
    recorded = rng.normal(size=5000)
    table = pd.DataFrame({"signal": "nacc", "recorded": recorded, "predicted": recorded / 2})
    ax = plot_dopamine_scatter(table)
    assert ax.collections[0].get_array().sum() == 5000
    assert ax.figure.axes[1].get_ylabel() == "trials"


def test_scatter_of_no_or_constant_dopamine():
    table = pd.DataFrame({"signal": ["nacc"] * 3, "recorded": 1.0, "predicted": [0.5, 1, 1]})
    assert "R² = nan" in texts(plot_dopamine_scatter(table))
    ax = plot_dopamine_scatter(table[:0])
    assert texts(ax) == "no trial with dopamine"
    assert ax.get_xlabel() == "recorded dopamine"


# === For a paper ===


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    ("latents", "others", "dopamine"),
    [
        ((), (), True),
        (("z1",), (), False),
        (("z1", "z2"), (), True),
        (("z1", "z2"), ("z3",), True),
        (("z1", "z2", "z3", "z4", "z5"), (), False),
        (("z1", "z2", "z3", "z4", "z5"), ("z6",), True),
    ],
)
def test_a_model_on_a_page_has_every_part_and_stays_on_it(latents, others, dopamine):
    rules = tuple(make_update_rule(name, others) for name in latents)
    dopamine_rule = make_dopamine_rule(latents) if dopamine else None
    figure = plot_model(
        make_bottlenecks(),
        choice_rule=make_choice_rule(latents),
        update_rules=rules,
        dopamine_rule=dopamine_rule,
    )
    assert figure.get_size_inches()[0] == pytest.approx(183 / 25.4, abs=0.01)
    letters = [text.get_text() for part in figure.findobj(SubFigure) for text in part.texts]
    assert sorted(text for text in letters if text in tuple("abcd")) == list("abcd"[: 3 + dopamine])
    drawn = figure.get_tightbbox(draw(figure))
    width, height = figure.get_size_inches()
    assert drawn.x0 > -0.01 and drawn.y0 > -0.01
    assert drawn.x1 < width + 0.01 and drawn.y1 < height + 0.01


def test_the_structure_has_its_width():
    figure = plot_structure(make_bottlenecks())
    draw(figure)
    assert figure.get_size_inches()[0] == pytest.approx(135 / 25.4, abs=0.02)
    assert len(figure.axes) == 5


# === Files and global state ===


def test_a_dollar_in_a_name_is_a_dollar(tmp_path):
    def draw():
        figure = Figure()
        figure.subplots().set_xlabel("went_$left$")
        return figure

    path = save_figure(tmp_path / "names.svg", draw)
    assert "went_$left$" in path.read_text()


def test_logarithmic_axes_have_plain_numbers(tmp_path):
    random = np.random.default_rng(0)
    recorded = random.normal(size=5000).round(1)
    trials = pd.DataFrame({"signal": "dms", "recorded": recorded, "predicted": recorded})
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [300.0, 20.0, 0.02]})
    sizes = {"sessions": [30, 300], "graph": True, "difference": 0.0, "dopamine_r2": 0.9}
    for plot, table, numbers in (
        (plot_dopamine_scatter, trials, "100"),
        (plot_learning_curves, history, "0.1"),
        (plot_recovery_by_sessions, pd.DataFrame(sizes), "300"),
    ):
        drawn = save_figure(tmp_path / "figure.svg", plot, table).read_text()
        assert "$" not in drawn and "mathdefault" not in drawn
        assert f">{numbers}<" in drawn


def test_figures_are_saved(tmp_path):
    path = save_figure(tmp_path / "new" / "rule.png", plot_choice_rule, make_choice_rule(("z1",)))
    assert path.read_bytes().startswith(b"\x89PNG")
    path = save_figure(tmp_path / "b.pdf", plot_bottlenecks, make_bottlenecks(), dpi=50)
    assert path.read_bytes().startswith(b"%PDF")


def test_figures_load_without_tensorflow():
    script = "import sys, keras_disrnn.plots; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_a_plot_that_fails_warns(tmp_path):
    with pytest.warns(RuntimeWarning, match=r"no figure .*s\.png: ValueError: trace: expected"):
        assert save_figure(tmp_path / "s.png", plot_session, make_trace()[:0]) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(RuntimeWarning, match="no figure"):
        save_figure(tmp_path / "s.nosuchformat", plot_session, make_trace())


def test_a_figure_is_drawn_once_for_all_formats_with_the_same_pixels(tmp_path):
    drawn = []

    def plot():
        drawn.append(plot_bottlenecks(make_bottlenecks()))
        return drawn[-1]

    paths = save_formats(tmp_path / "figure", plot, formats=["png", "pdf", "svg"])
    assert [path.name for path in paths] == ["figure.png", "figure.pdf", "figure.svg"]
    assert len(drawn) == 1
    plot().savefig(tmp_path / "expected.png", dpi=150)
    found, expected = (plt.imread(tmp_path / f"{name}.png") for name in ("figure", "expected"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("error::UserWarning")
def test_figures_do_not_change_global_state():
    style, opened = dict(mpl.rcParams), plt.get_fignums()
    drawn = [
        plot_bottlenecks(make_bottlenecks()),
        plot_choice_rule(make_choice_rule(("z1", "z2"))).figure,
        plot_dopamine_rule(make_dopamine_rule(("z1",))),
        plot_dopamine_rule(make_dopamine_rule(("z1", "z2"))),
        plot_update_rules((make_update_rule("z1"), make_update_rule("z2", others=("z1",)))),
        plot_learning_curves(make_history()),
        plot_session(make_trace()),
    ]
    for figure in drawn:
        draw(figure)
    assert dict(mpl.rcParams) == style
    assert plt.get_fignums() == opened == []


def overlaps(figure):
    """Return names of panels with titles or labels outside the figure or over the legend."""
    renderer = draw(figure)
    legend = figure.legends[0].get_window_extent(renderer)
    bad = []
    for ax in figure.axes:
        if ax.axison:
            box = ax.get_tightbbox(renderer)
            if box.overlaps(legend) or not (box.y1 <= figure.bbox.y1 + 1 and box.y0 >= -1):
                bad.append(ax.get_title())
    return bad


@pytest.mark.parametrize(
    ("count", "others", "arms"),
    [(1, (), 2), (1, (), 3), (2, (), 2), (2, (), 3), (4, (), 3), (1, ("z9",), 3), (2, ("z9",), 2)],
)
def test_update_panels_do_not_overlap_the_legend(count, others, arms):
    rules = tuple(make_update_rule(f"z{i + 1}", others, arms=arms) for i in range(count))
    assert overlaps(plot_update_rules(rules)) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_learning_curves_do_not_overlap_the_legend(count):
    metrics = ["loss", "choice_normalized_likelihood", "dopamine_mse", "open_latent"][:count]
    assert overlaps(plot_learning_curves(make_history(), metrics=metrics)) == []


@pytest.mark.parametrize("latents", [1, 5])
def test_all_figures_of_a_real_model_are_drawn(rng, latents):
    model = DisRNNModel(num_latents=latents, num_arms=2, seed=1)
    sessions = Sessions.from_trials(
        choice=rng.integers(0, 2, (3, 15)),
        reward=rng.integers(0, 2, (3, 15)),
        dopamine=rng.normal(size=(3, 15)),
    )
    model(sessions.features)
    rule = compute_choice_rule(model, sessions.features, points=6)
    ax = Figure().subplots()
    assert plot_choice_rule(rule, ax) is ax
    assert ax.get_xlabel() == rule.latents[0]
    figure = plot_bottlenecks(compute_bottlenecks(model))
    assert len(figure.axes) == 5
    rule = compute_dopamine_rule(model, sessions.features, points=6)
    assert len(plot_dopamine_rule(rule).axes) == (1 if latents == 1 else 5)
    rules = compute_update_rules(model, sessions.features, points=6)
    assert len(plot_update_rules(rules).axes) == (1 if latents == 1 else 15)
    trace = compute_session_trace(model, sessions, 2)
    predicted = lines(plot_session(trace).axes[2])[1].get_ydata()
    table = compute_dopamine_predictions(model, sessions)
    np.testing.assert_allclose(predicted, table["predicted"][30:], atol=1e-5)
    assert len(plot_dopamine_scatter(table).collections[0].get_offsets()) == 45
