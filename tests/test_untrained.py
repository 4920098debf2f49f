"""Parts of a model that were never trained are absent from its results."""

import json

import keras
import numpy as np
import pytest

import keras_disrnn
from keras_disrnn import analysis, baselines
from keras_disrnn.bandit import agent_from_model
from keras_disrnn.cli import main
from keras_disrnn.data import Sessions
from keras_disrnn.io.keras_file import load_model, save_model
from keras_disrnn.training.fit import train

SMALL = [
    "--data.num_sessions=6", "--data.num_held_out_sessions=3", "--data.num_trials=12",
    "--model.num_latents=2", "--model.update_units=2", "--model.num_update_layers=1",
    "--training.warmup_steps=2", "--training.steps_per_epoch=2",
]  # fmt: skip


def make_sessions(rng, count=4, **kwargs):
    choice, reward = rng.integers(0, 2, (2, count, 8))
    return Sessions.from_trials(choice, reward, dopamine=rng.normal(size=(count, 8)), **kwargs)


def make_model(**kwargs):
    return keras_disrnn.DisRNNModel(
        num_latents=2, update_units=2, num_update_layers=1, seed=0, **kwargs
    )


def fit_stages(model, sessions, **steps):
    steps = {f"{name}_steps": steps.get(name, 0) for name in ("warmup", "stage1", "stage2")}
    return train(model, sessions, **steps, steps_per_epoch=2, verbose=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run without stage 2, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    steps = ["--training.stage1_steps=2", "--training.stage2_steps=0"]
    assert main(["demo", f"--out={folder}", *SMALL, *steps]) == 0
    return folder


LINE = "Never trained, and left out of scores, figures, graph and equations: dopamine_readout."


def test_a_run_without_stage_2_has_no_dopamine_in_any_result(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert "dopamine" not in metrics["train"] and "dopamine" not in metrics["held_out"]
    assert metrics["train"]["choice"]["n"] == 72
    assert metrics["untrained"] == ["dopamine_readout"]
    assert "dopamine readout" not in metrics["graph"]["nodes"]
    assert list(metrics["bottlenecks"]) == ["latent", "update", "choice"]
    names = {path.stem for path in (run / "figures").iterdir()}
    assert "choice_rule" in names and not {"dopamine", "dopamine_rule"} & names
    report = (run / "report.html").read_text()
    assert report.count(LINE) == 1 and "R² of dopamine" not in report
    card = (run / "saved_model" / "README.md").read_text()
    assert card.count(LINE) == 1 and "R² of dopamine" not in card and "| dopamine |" not in card
    manifest = json.loads((run / "saved_model" / "manifest.json").read_text())
    assert sorted(manifest["endpoints"]["serve"]["outputs"]) == ["choice", "latents"]
    exported = keras_disrnn.export.load(run / "saved_model")
    assert sorted(exported.serve(np.zeros((1, 3, 2), "float32"))) == ["choice", "latents"]


def test_commands_that_read_the_run_again_leave_dopamine_out_too(run, tmp_path, capsys):
    assert main(["evaluate", f"--run={run}"]) == 0
    assert json.loads(capsys.readouterr().out)["untrained"] == ["dopamine_readout"]
    assert main(["plot", f"--run={run}", f"--out={tmp_path / 'p'}", "--formats=[png]"]) == 0
    assert not (tmp_path / "p" / "dopamine.png").exists()
    assert main(["export", f"--run={run}", f"--out={tmp_path / 'e'}"]) == 0
    assert LINE in (tmp_path / "e" / "README.md").read_text()


def test_a_run_without_training_of_choices_has_scores_of_dopamine_alone(tmp_path, capsys):
    steps = ["--training.warmup_steps=0", "--training.stage1_steps=0", "--training.stage2_steps=2"]
    assert main(["demo", f"--out={tmp_path / 'run'}", *SMALL, *steps]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["held_out"]) == ["dopamine"]
    assert metrics["untrained"] == ["core", "choice_readout"] and metrics["open_latents"] == []
    figures = {path.stem for path in (tmp_path / "run" / "figures").iterdir()}
    assert not {"choice_rule", "session", "update_rules"} & figures
    assert "core, choice_readout." in capsys.readouterr().out


def test_the_file_of_a_model_keeps_what_was_trained(rng, tmp_path):
    sessions, model = make_sessions(rng), make_model()
    assert model.trained == model.untrained == ()
    fit_stages(model, sessions, stage1=2)
    assert model.untrained == ("dopamine_readout",)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.untrained == ("dopamine_readout",)
    fit_stages(loaded, sessions, stage2=2)
    assert loaded.untrained == ()
    model.save_weights(tmp_path / "model.weights.h5")
    other = make_model()
    other.load_weights(tmp_path / "model.weights.h5")
    assert other.trained == ("core", "choice_readout")


def test_a_checkpoint_in_the_middle_of_a_fit_knows_what_is_being_trained(rng, tmp_path):
    sessions, model = make_sessions(rng), make_model()
    keras_disrnn.compile_stage(model, "warmup")
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    model.fit(sessions.dataset(steps=2), callbacks=[keep], verbose=0, shuffle=False)
    assert load_model(tmp_path / "model.keras").untrained == ("dopamine_readout",)


def test_training_that_resumes_knows_what_was_trained_before(rng, tmp_path):
    sessions, kept = make_sessions(rng), tmp_path / "state.npz"
    for _ in range(2):
        model = make_model()
        train(
            model, sessions, warmup_steps=2, stage1_steps=0, stage2_steps=0, steps_per_epoch=2,
            checkpoint=kept, verbose=0,
        )  # fmt: skip
        assert model.trained == ("core", "choice_readout")


def test_analyses_leave_out_an_untrained_readout(rng):
    sessions, model = make_sessions(rng), make_model()
    fit_stages(model, sessions, warmup=2)
    assert set(analysis.compute_evaluation(model, sessions).summary) == {"choice"}
    assert "dopamine" not in set(analysis.compute_bottlenecks(model)["group"])
    assert "dopamine readout" not in analysis.compute_graph(model)
    assert analysis.compute_formulas(model, sessions).dopamine.empty
    assert "dopamine" not in analysis.rule_tables(model, points=3)
    trace = analysis.compute_session_trace(model, sessions, 0)
    assert not [name for name in trace if "dopamine" in name]
    _, signal = agent_from_model(model).update(np.zeros((4, 1)), np.zeros(1, int), np.zeros(1))
    assert np.isnan(signal).all()
    fit_stages(model, sessions, stage2=2)
    assert set(analysis.compute_evaluation(model, sessions).summary) == {"choice", "dopamine"}
    assert "dopamine" in set(analysis.compute_bottlenecks(model)["group"])


def test_embeddings_that_were_never_trained_are_refused(rng):
    sessions = make_sessions(rng, subjects=["a", "a", "b", "b"])
    model = make_model(num_observations=3, subjects=["a", "b"], subject_units=1)
    fit_stages(model, sessions, stage2=2)
    assert "subject" not in set(analysis.compute_bottlenecks(model)["group"])
    with pytest.raises(ValueError, match="model: expected trained embeddings"):
        analysis.compute_embeddings(model)


def test_a_gru_that_was_fitted_to_choices_has_no_score_of_dopamine(rng, tmp_path):
    sessions, model = make_sessions(rng), baselines.GRU(2)
    model.fit_sessions(sessions, "choice", steps=2, steps_per_epoch=2)
    assert set(analysis.compute_evaluation(model, sessions).summary) == {"choice"}
    save_model(model, tmp_path / "gru.keras")
    loaded = load_model(tmp_path / "gru.keras", kind=None)
    assert set(analysis.compute_evaluation(loaded, sessions).summary) == {"choice"}
