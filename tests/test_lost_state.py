"""State that files and resumed trainings keep; models of NaN; and why a training diverged."""

import keras
import numpy as np
import pytest

import keras_disrnn
from keras_disrnn import analysis, baselines
from keras_disrnn.cli import main
from keras_disrnn.data import Sessions
from keras_disrnn.io.keras_file import load_model, save_model
from keras_disrnn.io.reference import write_reference
from keras_disrnn.training.checkpoint import TrainingDiverged
from keras_disrnn.training.fit import train


@pytest.fixture
def sessions(rng):
    choice, reward = rng.integers(0, 2, (2, 4, 8))
    return Sessions.from_trials(choice, reward, dopamine=rng.normal(size=(4, 8)))


def make_model(**kwargs):
    return keras_disrnn.DisRNNModel(
        num_latents=2, update_units=2, num_update_layers=1, seed=0, name="m", **kwargs
    )


def train_briefly(model, sessions, **kwargs):
    steps = {"warmup_steps": 4, "stage1_steps": 4, "stage2_steps": 0, "steps_per_epoch": 2}
    return train(model, sessions, **{**steps, "verbose": 0, **kwargs})


def state_of(model):
    return (
        model.noise, model.penalised, model.frozen,
        [np.asarray(v) for v in (*model.variables, *model.optimizer.variables)],
    )  # fmt: skip


# === What a file keeps in the warm-up ===


def test_a_checkpoint_of_keras_keeps_the_state_of_the_warmup(sessions, tmp_path):
    model = make_model()
    keras_disrnn.compile_stage(model, "warmup")
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    model.fit(sessions.dataset(steps=1), callbacks=[keep], verbose=0, shuffle=False)
    for again in (
        keras.models.load_model(tmp_path / "model.keras"),
        load_model(tmp_path / "model.keras"),
    ):
        assert (again.noise, again.penalised) == (False, False)
        assert again.frozen == ("dopamine_readout",)


def test_backup_and_restore_continues_the_warmup_at_the_same_weights(sessions, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(*callbacks):
        model = make_model()
        keras_disrnn.compile_stage(model, "warmup")
        model.fit(sessions.dataset(), epochs=4, callbacks=callbacks, verbose=0, shuffle=False)
        return model

    whole = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(keras.callbacks.BackupAndRestore(tmp_path / "backup"), Stop())
    resumed = fit(keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (resumed.noise, resumed.penalised) == (False, False)


# === Training that is called again ===


def test_training_that_is_called_again_leaves_the_model_compiled_as_before(sessions, tmp_path):
    models = [make_model() for _ in range(2)]
    for model in models:
        train_briefly(model, sessions, stage2_steps=4, checkpoint=tmp_path / "state.npz")
    (*first, first_values), (*second, second_values) = map(state_of, models)
    assert first == second == [True, True, ("core", "choice_readout")]
    for one, other in zip(first_values, second_values, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stage_that_a_callback_ended_is_finished(sessions, tmp_path):
    models, lengths = [], []
    for _ in range(2):
        stop = keras.callbacks.EarlyStopping(
            "loss", patience=0, min_delta=10, restore_best_weights=True
        )
        models.append(make_model())
        history = train_briefly(
            models[-1], sessions, warmup_steps=10, stage1_steps=10, callbacks=[stop],
            checkpoint=tmp_path / "state.npz",
        )  # fmt: skip
        lengths.append(history["stage"].value_counts().to_dict())
    assert lengths[0] == lengths[1] == {"warmup": 2, "stage1": 2}
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


# === Weights that are not finite ===


@pytest.mark.parametrize("use", [
    lambda model, sessions, folder: save_model(model, folder / "model.keras"),
    lambda model, sessions, folder: keras_disrnn.export.export(model, folder / "export"),
    lambda model, sessions, folder: analysis.compute_evaluation(model, sessions),
    lambda model, sessions, folder: analysis.compute_evaluation({"unnamed": model}, sessions),
    lambda model, sessions, folder: write_reference(model, folder / "reference"),
])  # fmt: skip
def test_a_model_with_a_weight_of_nan_is_refused_by_the_name_of_the_weight(use, sessions, tmp_path):
    model = make_model(dopamine_timing="post")
    model.core.cell.initial_latents.assign([0.0, np.nan])
    with pytest.raises(ValueError, match="^m/core/cell/initial_latents: expected finite weights"):
        use(model, sessions, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_baseline_with_a_weight_of_infinity_is_refused_too(sessions):
    model = baselines.GRU(2)
    model.choice_head.bias.assign([0.0, np.inf])
    with pytest.raises(ValueError, match="bias: expected finite weights"):
        analysis.compute_evaluation(model, sessions)


def test_the_export_of_a_file_with_a_weight_of_nan_fails(tmp_path, capsys):
    model = make_model()
    model.core.cell.initial_latents.assign([0.0, np.nan])
    model.save(tmp_path / "model.keras")
    export = ["export", f"--run={tmp_path / 'model.keras'}", f"--out={tmp_path / 'out'}"]
    assert main(export) == 1
    assert "initial_latents: expected finite weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# === Why a training diverged ===


def test_a_penalty_that_makes_the_loss_infinite_is_named(sessions):
    with pytest.raises(TrainingDiverged) as error:
        train_briefly(make_model(latent_penalty=1e38, choice_penalty=2.0), sessions, warmup_steps=0)
    message = str(error.value)
    assert "by step 2 of epoch 1" in message and "penalty_latent is" in message
    assert "latent_penalty is 1e+38: lower it" in message
    assert "learning rate" not in message


def test_an_observation_that_makes_the_loss_infinite_is_named(rng):
    choice, reward = rng.integers(0, 2, (2, 4, 8))
    times = np.where(np.arange(8) == 3, 1e38, 0.5) * np.ones((4, 1))
    sessions = Sessions.from_trials(
        choice, reward, observations=times[..., None], observation_names=["reaction_time"]
    )
    model = make_model(num_observations=3, num_signals=0)
    with pytest.raises(TrainingDiverged, match="'reaction_time' reaches 1e\\+38: standardise it"):
        train_briefly(model, sessions)


def test_a_learning_rate_that_is_too_large_is_named_with_its_value(sessions):
    with pytest.raises(TrainingDiverged, match="try a smaller learning rate than 1e\\+37"):
        train_briefly(make_model(), sessions, learning_rate=1e37)
