"""Which latents a readout uses, on a model whose weights were set by hand."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import keras_disrnn
from keras_disrnn.analysis import compute_evaluation
from keras_disrnn.data import Sessions
from keras_disrnn.experiments.ablation import ablation_markdown, compute_ablation, verdict
from keras_disrnn.plots import plot_ablation

# Each latent is a leaky average of one observation. The ablation has to find its readouts.
SOURCES = ("cue_a", "reward", "cue_b", "cue_c", "cue_c", "choice")
OBSERVATIONS = ("choice", "reward", "cue_a", "cue_b", "cue_c")
CHOICE_READS = np.array([2.5, 0, -2.5, 0, 0, 0])
DOPAMINE_READS = np.array([0, -1.0, 1.0, 0.5, 0.5, 0])
TRUTH = {
    "z1": ("used", "not used", "choice only"),
    "z2": ("not used", "used", "dopamine only"),
    "z3": ("used", "used", "shared"),
    "z4": ("not used", "redundant", "redundant"),
    "z5": ("not used", "redundant", "redundant"),
    "z6": ("not used", "not used", "neither"),
}


def known_model():
    """Make a linear model. Latent j moves by 0.3 towards its source, coded as -1 or 1."""
    latents = len(SOURCES)
    model = keras_disrnn.DisRNNModel(
        num_observations=len(OBSERVATIONS), num_latents=latents, update_units=1,
        num_update_layers=0, choice_units=2, num_choice_layers=0, dopamine_units=1,
        num_dopamine_layers=0, seed=0,
        l2_scale=0.0, choice_penalty=1e-5, dopamine_penalty=1e-5,
    )  # fmt: skip
    network = model.core.cell.update_network
    kernel = np.zeros(network.input_kernel.shape)
    for latent, source in enumerate(SOURCES):
        kernel[latent, OBSERVATIONS.index(source)] = 1.0
    network.input_kernel.assign(kernel)
    network.output_kernel.assign(np.tile([[0.0, 2.0]], (latents, 1, 1)))
    network.output_bias.assign(np.tile([np.log(0.3 / 0.7), -1.0], (latents, 1)))
    model.core.cell.initial_latents.assign(np.zeros(latents))
    closed = np.where(np.arange(latents) == 5, 1.0, 0.01)
    model.core.cell.latent_bottleneck.raw_sigma.assign(closed)
    choice, dopamine = model.choice_readout.network, model.dopamine_readout.network
    choice.input_kernel.assign(np.stack([np.zeros(latents), CHOICE_READS], axis=1))
    choice.output_kernel.assign(np.eye(2))
    dopamine.input_kernel.assign(np.concatenate([DOPAMINE_READS, [0, 1.0]])[:, None])
    dopamine.output_kernel.assign([[1.0]])
    return model


def played(model, sessions, seed):
    """Simulate sessions with the choices and the noisy responses of the model itself."""
    rng = np.random.default_rng(seed)
    trials = 60
    shown = rng.integers(0, 2, (sessions, trials, len(OBSERVATIONS)))
    features = np.zeros((sessions, trials + 1, len(OBSERVATIONS)), "float32")
    features[:, 1:] = shown
    logits = np.asarray(model(features)["choice"])[:, :-1]
    p_right = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    shown[..., 0] = rng.random((sessions, trials)) < p_right
    features[:, 1:] = shown
    response = np.asarray(model(features)["dopamine"])[:, 1:, 0]
    return Sessions.from_trials(
        shown[..., 0],
        shown[..., 1],
        dopamine=response + rng.normal(0, 0.3, response.shape),
        observations=shown[..., 2:],
        observation_names=OBSERVATIONS[2:],
        ids=[f"{seed}-{index}" for index in range(sessions)],
    )


@pytest.fixture(scope="module")
def known():
    model = known_model()
    return model, played(model, 60, 1), played(model, 60, 2)


@pytest.fixture(scope="module")
def ablation(known):
    before = known[0].get_weights()
    ablation = compute_ablation(*known, steps=150, learning_rate=4e-2, num_bootstrap_samples=500)
    for a, b in zip(before, known[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    return ablation


def test_the_verdicts_agree_with_the_truth(ablation):
    found = ablation.verdicts.set_index("latent")
    assert {
        latent: tuple(found.loc[latent, ["choice", "dopamine", "joint"]]) for latent in TRUTH
    } == TRUTH
    assert found["open"].tolist() == [True] * 5 + [False]


def test_the_scores_agree_with_the_evaluation_of_the_model(known, ablation):
    model, _, held_out = known
    effects = ablation.effects.set_index(["readout", "latent"])
    scores = compute_evaluation(model, held_out).summary
    for readout, score in (("choice", "normalized_likelihood"), ("dopamine", "r2")):
        rows = effects.loc[readout]
        np.testing.assert_allclose(rows["intact"], scores[readout][score], rtol=1e-6)
        np.testing.assert_allclose(rows["clamped_loss"], rows["intact"] - rows["clamped"])
        np.testing.assert_allclose(
            rows["retrained_loss"], rows["retrained_all"] - rows["retrained"]
        )
        for kind in ("clamped_loss", "retrained_loss"):
            assert (rows[f"{kind}_lower"] <= rows[kind] + 1e-12).all()
            assert (rows[f"{kind}_upper"] >= rows[kind] - 1e-12).all()
    assert effects.loc["dopamine"]["intact_mse"].iloc[0] == pytest.approx(
        scores["dopamine"]["mse"], rel=1e-5
    )
    # In a linear readout, clamping a latent adds its squared weight times its variance to the MSE.
    latents = np.asarray(model.compute_latents(held_out.features))
    before = np.concatenate([np.zeros_like(latents[:, :1]), latents[:, :-1]], axis=1)[:, 1:]
    responses = held_out.dopamine[:, 1:, 0]
    read = before[..., 1]
    mean = np.asarray(model.compute_latents(known[1].features))[..., 1].mean()
    clamped = np.asarray(model(held_out.features)["dopamine"])[:, 1:, 0] + read - mean
    assert effects.loc[("dopamine", "z2"), "clamped_mse"] == pytest.approx(
        np.mean((clamped - responses) ** 2), rel=1e-4
    )


def test_without_dopamine_choice_alone_is_judged_and_the_seed_decides(known):
    _, train, held_out = known
    model = keras_disrnn.DisRNNModel(
        num_observations=5, num_signals=0, num_latents=2, num_update_layers=0, seed=0
    )
    parts = [
        Sessions.from_trials(
            part.choice[:, :-1], part.features[:, 1:, 1], observations=part.features[:, 1:, 2:]
        )
        for part in (train, held_out)
    ]
    ablation, again, other = (
        compute_ablation(model, *parts, steps=4, num_bootstrap_samples=20, seed=seed)
        for seed in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(ablation.effects, again.effects)
    assert (ablation.effects["retrained"] != other.effects["retrained"]).all()
    assert list(ablation.verdicts.columns) == ["latent", "open", "choice"]
    assert "joint" not in ablation_markdown(ablation)
    assert isinstance(plot_ablation(ablation), Figure)


@pytest.mark.parametrize(
    ("clamped", "retrained", "expected"),
    [
        ((0.02, 0.03), (0.02, 0.03), "used"),
        ((0.02, 0.03), (-0.01, 0.005), "redundant"),
        ((-0.01, 0.005), (-0.01, 0.005), "not used"),
        ((0.0, 0.0), (0.0, 0.0), "not used"),
        ((0.005, 0.03), (0.02, 0.03), "unclear"),
        ((0.02, 0.03), (0.005, 0.03), "unclear"),
        ((-0.01, 0.005), (0.02, 0.03), "unclear"),
        ((np.nan, np.nan), (np.nan, np.nan), "unclear"),
    ],
)
def test_a_verdict_depends_on_the_whole_interval(clamped, retrained, expected):
    row = {"smallest_effect": 0.01}
    for kind, ends in (("clamped_loss", clamped), ("retrained_loss", retrained)):
        row[f"{kind}_lower"], row[f"{kind}_upper"] = ends
    assert verdict(row) == expected


def test_the_tables_and_the_figure_show_the_verdicts(ablation):
    text = ablation_markdown(ablation)
    assert "| z1 | used | not used | choice only |" in text
    assert "| z6 (closed) | not used | not used | neither |" in text
    assert "-0.0000" not in text
    figure = plot_ablation(ablation)
    choice, dopamine = figure.axes
    assert [label.get_text() for label in choice.get_yticklabels()] == [
        *list(TRUTH)[:5],
        "z6 (closed)",
    ]
    rows = ablation.effects.set_index("readout")
    for ax, readout in ((choice, "choice"), (dopamine, "dopamine")):
        (drawn,) = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(drawn, rows.loc[readout, "clamped_loss"])
        assert [text.get_text() for text in ax.texts] == rows.loc[readout, "verdict"].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: expected"),
        ({"smallest_effect": {"pupil": 0.1}}, "'choice' and 'dopamine', got 0.1 for 'pupil'"),
        ({"smallest_effect": {"choice": -0.1}}, "got -0.1 for 'choice'"),
    ],
)
def test_bad_settings_have_one_clear_error(known, settings, message):
    with pytest.raises(ValueError, match=message):
        compute_ablation(*known, **settings)


def test_sessions_that_do_not_match_the_model_are_refused(known):
    model, train, _ = known
    other = Sessions.from_trials([[0, 1]], [[1, 0]], dopamine=[[0.0, 1.0]])
    with pytest.raises(ValueError, match="num_observations: expected sessions with 5"):
        compute_ablation(model, train, other)
