"""The model as Keras users use it: configuration, optimizers, callbacks, files, plain arrays."""

import dataclasses
import inspect
import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from test_training import make_sessions

import keras_disrnn
from keras_disrnn import baselines
from keras_disrnn.data import Sessions
from keras_disrnn.io import keras_file
from keras_disrnn.objectives.losses import ChoiceCrossentropy
from keras_disrnn.objectives.metrics import NormalizedLikelihood
from keras_disrnn.training.stages import compile_stage, stage_of
from keras_disrnn.utils.registration import CLASSES
from keras_disrnn.utils.state import load_state, save_state

DATA = Path(__file__).parent / "data"
OTHER_ARGUMENTS = {
    "num_observations": 4, "num_arms": 3, "num_signals": 2, "num_latents": 3, "update_units": 4,
    "num_update_layers": 1, "choice_units": 3, "num_choice_layers": 1, "dopamine_units": 5,
    "num_dopamine_layers": 3, "activation": "tanh", "max_latent_value": 1.5,
    "dopamine_timing": "post", "latent_penalty": 0.1, "update_obs_penalty": 0.2,
    "update_latent_penalty": 0.3, "choice_penalty": 0.4, "dopamine_penalty": 0.5, "l2_scale": 0.6,
    "subjects": ("ada", "bob"), "subject_units": 2, "subject_penalty": 0.7,
    "update_subject_penalty": 0.8, "choice_subject_penalty": 0.9, "dopamine_subject_penalty": 0.15,
    "frozen": ("core",), "trained": ("core",), "reference": {"config": {"n_subjects": 2}},
    "seed": 7, "implementation": "keras",
}  # fmt: skip
"""Every argument of the model, with another value than its default."""


def make_model(**arguments):
    small = {"num_latents": 2, "update_units": 2, "num_update_layers": 1, "seed": 1}
    return keras_disrnn.DisRNNModel(**{**small, **arguments})


@pytest.fixture(scope="module")
def sessions():
    return make_sessions(8, 10)


def assert_same_weights(first, second):
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def has_moved_from(layer, fresh):
    pairs = zip(layer.get_weights(), fresh.get_weights(), strict=True)
    return any(not np.array_equal(one, other) for one, other in pairs)


def has_moved(model):
    return has_moved_from(model, make_model(num_signals=model.num_signals))


# === Constructor and configuration ===


def test_every_argument_is_an_attribute_and_in_the_configuration():
    parameters = inspect.signature(keras_disrnn.DisRNNModel.__init__).parameters
    names = [name for name in parameters if name not in ("self", "kwargs")]
    assert list(OTHER_ARGUMENTS) == names
    assert all(parameters[name].annotation is not inspect.Parameter.empty for name in names)
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name in names[1:])
    model = keras_disrnn.DisRNNModel(**OTHER_ARGUMENTS)
    for name, value in OTHER_ARGUMENTS.items():
        assert value != parameters[name].default, name
        assert getattr(model, name) == value, name
    config = json.loads(json.dumps(model.get_config()))
    lists = {"subjects": ["ada", "bob"], "frozen": ["core"], "trained": ["core"]}
    assert {name: config[name] for name in names} == {**OTHER_ARGUMENTS, **lists}
    assert model.num_subjects == 2


@pytest.mark.parametrize("copy", [
    lambda model: type(model).from_config(model.get_config()),
    keras.models.clone_model,
])  # fmt: skip
def test_a_copy_of_a_model_with_a_seed_has_the_same_initial_weights(copy):
    model = keras_disrnn.DisRNNModel(**OTHER_ARGUMENTS)
    again = copy(model)
    assert again is not model
    assert again.get_config() == model.get_config()
    assert_same_weights(again, model)
    other = keras_disrnn.DisRNNModel(**{**OTHER_ARGUMENTS, "seed": 8})
    assert not np.array_equal(other.initial_latents, model.initial_latents)


def test_the_model_has_its_weights_from_the_start(capsys):
    model = make_model()
    weights = [id(weight) for weight in model.weights]
    assert model.built
    assert model.count_params() == sum(weight.size for weight in model.get_weights()) > 0
    model.summary()
    printed = capsys.readouterr().out
    assert f"Total params: {model.count_params()}" in printed
    assert "choice_readout" in printed
    model.build((None, None, 2))
    model(np.zeros((1, 3, 2), "float32"))
    assert [id(weight) for weight in model.weights] == weights


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning:keras")
def test_a_subclass_can_add_layers(sessions):
    class WithHead(keras_disrnn.DisRNNModel):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.head = keras.layers.Dense(1)

        def build(self, input_shape=None):
            self.head.build((None, self.num_latents))
            super().build(input_shape)

    model = WithHead(num_latents=2, update_units=2, num_update_layers=1, seed=1)
    assert not model.built
    compile_stage(model, "warmup")
    assert model.count_params() == make_model().count_params() + 3
    model.fit(sessions.dataset(), verbose=0)
    assert has_moved_from(model.core, make_model().core)


@pytest.mark.parametrize("seed", [-1, 1.5, "one"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed: expected a whole number of at least 0"):
        make_model(seed=seed)


# === Optimizers and schedules ===

DECAY = keras.optimizers.schedules.CosineDecay(1e-2, 6)


@pytest.mark.parametrize(("arguments", "kind"), [
    ({}, "FlatAdam"),
    ({"learning_rate": DECAY}, "FlatAdam"),
    ({"optimizer": "sgd"}, "SGD"),
    ({"optimizer": "rmsprop", "learning_rate": DECAY}, "RMSprop"),
    ({"optimizer": keras.optimizers.Lion(1e-3)}, "Lion"),
    ({"optimizer": keras.optimizers.AdamW(DECAY, weight_decay=0.01)}, "AdamW"),
])  # fmt: skip
def test_a_stage_takes_any_optimizer_and_schedule(sessions, arguments, kind):
    model = make_model()
    for stage in ("warmup", "stage1"):
        compile_stage(model, stage, **arguments)
        assert type(model.optimizer).__name__ == kind
        assert model.optimizer.iterations.numpy() == 0
        history = model.fit(sessions.dataset(steps=4), verbose=0, shuffle=False).history
        assert np.isfinite(history["loss"]).all()
        assert model.optimizer.iterations.numpy() == 4
    assert has_moved(model)
    given = arguments.get("optimizer")
    if isinstance(given, keras.optimizers.Optimizer):
        assert given is not model.optimizer
        assert not given.built


def test_a_name_takes_the_learning_rate_and_an_object_keeps_its_own():
    model = make_model()
    compile_stage(model, "stage1", optimizer="sgd", learning_rate=0.25, clip_norm=2.0)
    assert float(model.optimizer.learning_rate) == 0.25
    assert model.optimizer.global_clipnorm == 2.0
    compile_stage(model, "stage1", optimizer=keras.optimizers.SGD(0.125, momentum=0.5))
    assert float(model.optimizer.learning_rate) == 0.125
    assert model.optimizer.momentum == 0.5
    with pytest.raises(ValueError, match=r"clip_norm: expected 1.0, the default"):
        compile_stage(model, "stage1", optimizer=keras.optimizers.SGD(), clip_norm=2.0)


def test_a_schedule_starts_again_in_each_stage(sessions):
    rates = []

    class NoteRate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    keras_disrnn.train(
        make_model(), sessions, warmup_steps=4, stage1_steps=4, stage2_steps=4, steps_per_epoch=2,
        learning_rate=DECAY, callbacks=[NoteRate()], verbose=0,
    )  # fmt: skip
    np.testing.assert_allclose(rates, 3 * [float(DECAY(2)), float(DECAY(4))], rtol=1e-6)


class Interruption(keras.callbacks.Callback):
    """Raises at the end of the n-th epoch of all stages."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_epoch_end(self, epoch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", [
    {"learning_rate": DECAY},
    {"optimizer": keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5),
                                       momentum=0.9)},
    {"optimizer": "lion"},
])  # fmt: skip
def test_an_interrupted_training_resumes_to_the_same_bits(sessions, tmp_path, optimizer):
    arguments = {
        "warmup_steps": 4, "stage1_steps": 6, "stage2_steps": 4, "steps_per_epoch": 2,
        "batch_size": 3, "verbose": 0, **optimizer,
    }  # fmt: skip
    whole, resumed = make_model(), make_model()
    keras_disrnn.train(whole, sessions, **arguments)
    path = tmp_path / "checkpoint.npz"
    # The stages have 2, 3 and 2 epochs: the interruptions fall into stage 1 and stage 2.
    for after in (4, 2):
        with pytest.raises(KeyboardInterrupt):
            keras_disrnn.train(
                make_model(), sessions, checkpoint=path, callbacks=[Interruption(after)],
                **arguments,
            )  # fmt: skip
    history = keras_disrnn.train(resumed, sessions, checkpoint=path, **arguments)
    assert len(history) == 7
    assert_same_weights(resumed, whole)
    other = {**arguments, "optimizer": "sgd", "learning_rate": 0.5}
    with pytest.raises(ValueError, match="another setting of 'optimizer"):
        keras_disrnn.train(make_model(), sessions, checkpoint=path, **other)


def test_a_checkpoint_of_another_version_is_refused(sessions, tmp_path):
    path = tmp_path / "checkpoint.npz"
    arguments = {"warmup_steps": 2, "stage1_steps": 0, "stage2_steps": 0, "verbose": 0}
    keras_disrnn.train(make_model(), sessions, checkpoint=path, **arguments)
    state = load_state(path)
    save_state(path, {**state, "version": "9.8.7"})
    with pytest.raises(ValueError, match=r"checkpoint.npz: .* got one of version 9\.8\.7"):
        keras_disrnn.train(make_model(), sessions, checkpoint=path, **arguments)
    # Version 0.1.0 wrote its state under this name, without a version.
    np.savez(path, state=np.frombuffer(b'{"stage": "warmup"}', np.uint8))
    with pytest.raises(ValueError, match=r"checkpoint.npz: .* got one of version 0\.1\.0"):
        keras_disrnn.train(make_model(), sessions, checkpoint=path, **arguments)


# === Plain compile and fit ===


def compile_plainly(model, optimizer="adam"):
    model.compile(
        optimizer=optimizer,
        loss={"choice": ChoiceCrossentropy()},
        weighted_metrics={"choice": [NormalizedLikelihood()]},
    )
    return model


@pytest.mark.parametrize(
    "optimizer", ["sgd", keras.optimizers.Lion(1e-3), keras.optimizers.Adam(DECAY)]
)
def test_plain_compile_takes_any_optimizer(sessions, optimizer):
    model = compile_plainly(make_model(), optimizer)
    history = model.fit(sessions.dataset(steps=3), verbose=0, shuffle=False).history
    assert np.isfinite(history["loss"]).all()
    assert {"penalty_latent", "open_latent"} <= set(history)
    assert has_moved(model)


def test_callbacks_of_keras_work(sessions, tmp_path):
    model = make_model()
    compile_stage(model, "stage1", learning_rate=0.0)
    stop = keras.callbacks.EarlyStopping(
        "val_choice_normalized_likelihood", mode="max", patience=2, restore_best_weights=True
    )
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="loss")
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(
        sessions.dataset(steps=2), epochs=10, validation_data=sessions.dataset(),
        callbacks=[stop, best, log], shuffle=False, verbose=0,
    )  # fmt: skip
    # At a learning rate of 0 the first epoch is the best.
    assert len(history.history["loss"]) == 3
    assert (tmp_path / "log.csv").read_text().count("\n") == 4
    assert_same_weights(keras.models.load_model(tmp_path / "best.keras"), model)


def test_backup_and_restore_resumes_after_an_interruption(sessions, tmp_path):
    epochs = []

    class NoteEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)

    for callbacks in ([Interruption(3)], []):
        model = make_model()
        compile_stage(model, "stage1")
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        arguments = {"epochs": 4, "shuffle": False, "verbose": 0}
        callbacks = [NoteEpoch(), *callbacks, backup]
        try:
            model.fit(sessions.dataset(steps=2), callbacks=callbacks, **arguments)
        except KeyboardInterrupt:
            assert epochs == [0, 1, 2]
    assert epochs == [0, 1, 2, 2, 3]
    assert has_moved(model)


def test_keras_tuner_searches_arguments_of_the_model(sessions, tmp_path):
    tuner = pytest.importorskip("keras_tuner", reason="needs the package keras-tuner")

    def build(parameters):
        model = make_model(num_latents=parameters.Int("num_latents", 1, 3))
        rate = parameters.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        compile_stage(model, "stage1", learning_rate=rate)
        return model

    search = tuner.RandomSearch(
        build, objective=tuner.Objective("val_choice_normalized_likelihood", "max"), max_trials=2,
        directory=tmp_path, project_name="search", seed=0,
    )  # fmt: skip
    search.search(
        sessions.dataset(steps=2), validation_data=sessions.dataset(), epochs=1, verbose=0
    )
    best = search.get_best_hyperparameters()[0]
    assert search.get_best_models()[0].num_latents == best.get("num_latents")


@pytest.mark.parametrize("stage", ["warmup", "stage2"])
def test_a_loaded_model_continues_its_training(sessions, tmp_path, stage):
    model = make_model()
    compile_stage(model, stage, learning_rate=DECAY)
    model.noise = False
    model.fit(sessions.dataset(steps=3), verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (again.noise, again.penalised) == (model.noise, model.penalised)
    assert again.frozen == model.frozen
    if stage == "warmup":
        assert stage_of(again) == stage
    for each in (model, again):
        each.fit(sessions.dataset(steps=3), verbose=0, shuffle=False)
    assert_same_weights(again, model)
    assert again.optimizer.iterations.numpy() == 6


# === Targets need weights ===


def test_targets_without_weights_are_refused_with_the_right_call(sessions):
    model = make_model()
    compile_stage(model, "stage1")
    before = model.get_weights()
    x, y, weight = next(iter(sessions.dataset().as_numpy_iterator()))
    pairs = sessions.dataset(steps=2).map(lambda x, y, weight: (x, y))
    for use in (
        lambda: model.fit(x, y, verbose=0),
        lambda: model.fit(pairs, verbose=0),
        lambda: model.fit(sessions.dataset(), validation_data=pairs, verbose=0),
        lambda: model.fit(x, y, sample_weight=weight, validation_data=(x, y), verbose=0),
        lambda: model.fit(x, y, sample_weight=weight["choice"], verbose=0),
        lambda: model.evaluate(x, y, verbose=0),
        lambda: model.evaluate(pairs, verbose=0),
        lambda: model.train_on_batch(x, y),
        lambda: model.test_on_batch(x, y),
    ):
        with pytest.raises(ValueError, match=r"sample_weight: .*call model.fit\(sessions.dataset"):
            use()
    # The features of a time step contain the choice of its trial, so the model could copy it.
    for leak in (x[..., 0], x[..., :1], [x[..., 0]]):
        with pytest.raises(ValueError, match=r"y: expected a dict .*model.fit\(sessions.dataset"):
            model.fit(x, leak, verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_with_weights_are_what_the_dataset_gives():
    sessions = Sessions.from_trials(
        choice=[[1] * 30, [1] * 5],
        reward=[[1] * 30, [1] * 5],
        dopamine=[[0.5, 0.7] * 15, [0.5] * 5],
    )
    model = make_model()
    compile_stage(model, "joint")
    x, y, weight = next(iter(sessions.dataset().as_numpy_iterator()))
    arrays = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    whole = model.evaluate(sessions.dataset(), verbose=0, return_dict=True)
    assert arrays == pytest.approx(whole, rel=1e-5)
    # Padding has no weight, so its values have no effect.
    padding = weight["choice"] == 0
    assert padding.sum() == 2 + 25
    changed = {**y, "choice": np.where(padding, 1 - y["choice"], y["choice"])}
    again = model.evaluate(x, changed, sample_weight=weight, verbose=0, return_dict=True)
    assert again == pytest.approx(arrays, rel=1e-6)


def test_targets_that_the_model_has_no_output_for_are_refused(sessions):
    bare = Sessions.from_trials(choice=[[0, 1]], reward=[[1, 0]])
    for num_signals, data in ((0, sessions), (1, bare)):
        model = make_model(num_signals=num_signals)
        compile_stage(model, "stage1")
        with pytest.raises(
            ValueError, match=f"y: expected the targets .*num_signals={num_signals}"
        ):
            model.fit(data.dataset(), verbose=0)


# === Stages without dopamine ===


@pytest.mark.parametrize("case", ["model", "sessions", "weights"])
@pytest.mark.parametrize("joint_steps", [0, 2])
def test_stages_without_dopamine_are_left_out_with_one_line(sessions, case, joint_steps, caplog):
    model = make_model(num_signals=0 if case == "model" else 1)
    if case == "sessions":
        sessions = Sessions.from_trials(choice=[[0, 1, 1]], reward=[[1, 0, 1]])
    elif case == "weights":
        nothing = np.zeros_like(sessions.dopamine_weight)
        sessions = dataclasses.replace(sessions, dopamine_weight=nothing)
    with caplog.at_level(logging.WARNING, logger="keras_disrnn"):
        history = keras_disrnn.train(
            model, sessions, sessions, warmup_steps=2, stage1_steps=2, joint_steps=joint_steps,
            verbose=0,
        )  # fmt: skip
    assert history["stage"].tolist() == ["warmup", "stage1"]
    (line,) = [r.getMessage() for r in caplog.records if r.name == "keras_disrnn.training.fit"]
    stages = "stage2 and joint" if joint_steps else "stage2"
    reason = {
        "model": "the model has no dopamine readout (num_signals=0)",
        "sessions": "the sessions have no dopamine target with weight",
        "weights": "the sessions have no dopamine target with weight",
    }[case]
    assert line == f"train leaves out {stages}: {reason}"
    assert has_moved(model)


# === Files ===


# Written by version 0.1.0, commit 09e94bc of this repository, with this program:
#
#     import keras_disrnn, numpy as np
#     from keras_disrnn import bandit
#     from keras_disrnn.data import Columns, sessions_from_table
#
#     table = bandit.simulate(
#         bandit.QLearning(), bandit.DriftingBandit(), sessions=4, trials=8, seed=3
#     ).to_table()
#     sessions = sessions_from_table(table, Columns(dopamine="dopamine"))
#     model = keras_disrnn.DisRNNModel(
#         latents=2, update_units=2, update_layers=1, choice_units=2, choice_layers=1,
#         dopamine_units=2, dopamine_layers=1, dopamine_latents="post", latent_penalty=0.01, seed=0,
#     )
#     keras_disrnn.compile_stage(model, "joint")
#     model.fit(sessions.dataset(steps=5), shuffle=False, verbose=0)
#     model.save("model_0_1_0.keras")
#     outputs = {name: np.asarray(value) for name, value in model(sessions.features).items()}
#     np.savez_compressed("model_0_1_0.npz", features=sessions.features, **outputs)
def test_a_model_of_version_0_1_0_is_read(tmp_path):
    model = keras.models.load_model(DATA / "model_0_1_0.keras")
    expected = np.load(DATA / "model_0_1_0.npz")
    for _ in range(2):
        assert (model.num_latents, model.num_update_layers) == (2, 1)
        assert (model.dopamine_timing, model.latent_penalty) == ("post", 0.01)
        for name, output in model(expected["features"]).items():
            np.testing.assert_allclose(output, expected[name], atol=1e-6, err_msg=name)
        assert model.optimizer.iterations.numpy() == 5
        assert stage_of(model) == "joint"
        model.save(tmp_path / "again.keras")
        model = keras.models.load_model(tmp_path / "again.keras")


def test_a_baseline_of_version_0_1_0_is_refused_by_name(tmp_path):
    path = tmp_path / "gru.keras"
    keras_file.save_model(baselines.GRU(units=2), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    for name in ("observations", "arms", "signals"):
        config["config"][name] = config["config"].pop(f"num_{name}")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)
    with pytest.raises(
        ValueError, match="expected a GRU of this version, got one of version 0.1.0"
    ):
        keras_disrnn.load_model(path, kind=None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, sessions):
    folder = tmp_path_factory.mktemp("saved")
    model = make_model()
    compile_stage(model, "stage2", learning_rate=DECAY)
    model.fit(sessions.dataset(steps=1), verbose=0, shuffle=False)
    model.save(folder / "DisRNNModel.keras")
    baseline = baselines.QLearning()
    baseline.build()
    baseline.save(folder / "QLearning.keras")
    return folder


LOAD = """
import sys
import {first}
if {first!r} == "keras_disrnn":
    assert not {{"tensorflow", "keras"}} & set(sys.modules)
import {second}
assert "keras_disrnn.models" not in sys.modules
model = keras.models.load_model(sys.argv[1])
assert type(model).__module__.startswith("keras_disrnn."), type(model)
print(type(model).__name__)
import keras_disrnn.models.baselines
assert keras.saving.get_registered_object("keras_disrnn>" + type(model).__name__) is type(model)
"""


@pytest.mark.parametrize("name", ["DisRNNModel", "QLearning"])
@pytest.mark.parametrize("order", [("keras", "keras_disrnn"), ("keras_disrnn", "keras")])
def test_keras_finds_the_classes_after_import_keras_disrnn_alone(saved, name, order):
    program = LOAD.format(first=order[0], second=order[1])
    done = subprocess.run(
        [sys.executable, "-c", program, str(saved / f"{name}.keras")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name]


def test_every_registered_class_has_a_placeholder():
    program = """
import importlib, pkgutil, keras, keras_disrnn
for module in pkgutil.walk_packages(keras_disrnn.__path__, "keras_disrnn."):
    if not (module.name.startswith("keras_disrnn.datasets") or "._" in module.name):
        importlib.import_module(module.name)
for name, kind in keras.saving.get_custom_objects().items():
    if name.startswith("keras_disrnn>"):
        print(name.removeprefix("keras_disrnn>"), isinstance(kind, type))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines() if line)
    assert sorted(found) == sorted(name for names in CLASSES.values() for name in names)
    assert set(found.values()) == {"True"}
