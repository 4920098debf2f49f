"""Adam on one vector takes the same steps as Keras' Adam."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training import make_model, make_sessions

from keras_disrnn.objectives.optimizer import FlatAdam
from keras_disrnn.training.checkpoint import Progress
from keras_disrnn.training.stages import compile_stage

SHAPES = ((3, 4), (), (5,), (0, 2), (2, 2, 2))


def make_variables(rng, dtype="float64"):
    return [keras.Variable(rng.normal(size=shape), dtype=dtype) for shape in SHAPES]


def copies(variables):
    return [keras.Variable(variable.numpy(), dtype=variable.dtype) for variable in variables]


def run(optimizer, variables, gradients):
    @tf.function
    def step(*some):
        optimizer.apply(some, variables)

    optimizer.build(variables)
    for some in gradients:
        step(*some)
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_steps_equal_those_of_keras_adam(rng, dtype, tolerance, clip):
    """Compare with clipping, a schedule, and gradients from 1e-4 to 1e4."""
    rate = keras.optimizers.schedules.ExponentialDecay(0.03, 7, 0.5)
    theirs = make_variables(rng, dtype)
    ours = copies(theirs)
    gradients = [
        [tf.constant(10.0 ** rng.uniform(-4, 4) * rng.normal(size=s), dtype) for s in SHAPES]
        for _ in range(40)
    ]
    want = run(keras.optimizers.Adam(rate, global_clipnorm=clip), theirs, gradients)
    got = run(FlatAdam(rate, global_clipnorm=clip), ours, gradients)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_a_weight_without_a_gradient_does_not_move(rng):
    theirs = make_variables(rng)
    ours = copies(theirs)
    gradients = [tf.constant(rng.normal(size=shape), "float64") for shape in SHAPES]
    gradients[2] = None
    before = ours[2].numpy()
    for optimizer, variables in (
        (keras.optimizers.Adam(0.1, global_clipnorm=1.0), theirs),
        (FlatAdam(0.1, global_clipnorm=1.0), ours),
    ):
        for _ in range(5):
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                optimizer.apply(gradients, variables)
    np.testing.assert_array_equal(ours[2].numpy(), before)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "stage, dtype",
    [
        ("stage1", "float64"),
        ("joint", "float64"),
        pytest.param("joint", "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_a_model_trains_as_with_keras_adam(stage, dtype, monkeypatch):
    sessions = make_sessions()
    weights = []
    for kind in (FlatAdam, keras.optimizers.Adam):
        monkeypatch.setattr("keras_disrnn.objectives.optimizer.FlatAdam", kind)
        model = make_model(dtype=dtype)
        compile_stage(model, stage, learning_rate=1e-2, clip_norm=0.1, steps_per_execution=5)
        model.fit(sessions.dataset(steps=20), epochs=1, verbose=0, shuffle=False)
        weights.append(model.get_weights())
        moved = model.optimizer
    assert type(moved) is not FlatAdam
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_the_state_is_saved_and_loaded(rng, tmp_path):
    sessions = make_sessions()
    model = make_model()
    compile_stage(model, "stage1", learning_rate=3e-3, clip_norm=0.5)
    model.fit(sessions.dataset(steps=4), epochs=1, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is FlatAdam
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert again.optimizer.global_clipnorm == 0.5
    assert len(again.optimizer.variables) == 4
    for ours, theirs in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert np.abs(again.optimizer.variables[2].numpy()).max() > 0


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path):
    path = tmp_path / "progress.npz"
    model = make_model()
    settings = {"model": model.get_config(), "steps": {"stage1": 4}, "steps_per_epoch": 2}
    settings |= {"settle_steps": 0, "decay_steps": 0}
    compile_stage(model, "stage1")
    progress = Progress(path, settings=settings)
    progress.start("stage1", model)
    progress.set_model(model)
    progress.set_params({"epochs": 2})
    progress.on_epoch_begin(0)
    progress.on_epoch_end(0)
    model.compile(keras.optimizers.Adam(1e-3))
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"progress\.npz: .*optimizer"):
        Progress(path, settings=settings).start("stage1", model)
