"""SavedModels: the same numbers in a process that has TensorFlow alone."""

import subprocess
import sys

import numpy as np
import pytest

import keras_disrnn
from keras_disrnn.export import export

READER = """
import sys
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
model = tf.saved_model.load(folder + "/model")
features = np.load(folder + "/features.npy")
whole = model.serve(features)
state = model.initial_state(len(features))
stepped = {name: [] for name in whole}
for row in range(features.shape[1]):
    outputs = model.step(features[:, row], state)
    state = outputs["latents"]
    for name, values in stepped.items():
        values.append(outputs[name].numpy())
results = {f"serve_{name}": value.numpy() for name, value in whole.items()}
results |= {f"step_{name}": np.stack(value, 1) for name, value in stepped.items()}
assert "keras_disrnn" not in sys.modules
signature = model.signatures["serve"]
assert signature(features=features)["choice"].shape == whole["choice"].shape
np.savez(folder + "/results.npz", **results)
"""


@pytest.mark.parametrize(
    "arguments", [{}, {"dopamine_latents": "post", "signals": 2}, {"signals": 0}]
)
def test_same_numbers_with_tensorflow_alone(make_features, tmp_path, arguments):
    features = make_features(sessions=4, rows=7, lengths=(7, 4, 6, 7))
    features[0, 2] = np.nan
    model = keras_disrnn.DisRNNModel(**{"latents": 3, "seed": 1, **arguments})
    expected = {**model(features), "latents": model.latents(features)}
    export(model, tmp_path / "model")
    np.save(tmp_path / "features.npy", features)
    subprocess.run([sys.executable, "-c", READER, str(tmp_path)], check=True, cwd=tmp_path)
    results = np.load(tmp_path / "results.npz")
    assert set(results.files) == {f"{way}_{name}" for way in ("serve", "step") for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(results[f"serve_{name}"], value, atol=1e-6)
        np.testing.assert_allclose(results[f"step_{name}"], value, atol=1e-6)


def test_keras_own_export_runs_with_tensorflow_alone(make_features, tmp_path):
    features = make_features(sessions=2, rows=5)
    model = keras_disrnn.DisRNNModel(latents=2, seed=1)
    expected = model(features)
    model.export(tmp_path / "model", verbose=False)
    np.save(tmp_path / "features.npy", features)
    program = (
        "import numpy, tensorflow as tf\n"
        "model = tf.saved_model.load('model')\n"
        "outputs = model.serve(numpy.load('features.npy'))\n"
        "numpy.save('choice.npy', outputs['choice'])"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "choice.npy"), expected["choice"], atol=1e-6)


def test_nothing_is_overwritten(tmp_path):
    model = keras_disrnn.DisRNNModel(latents=2)
    with pytest.raises(ValueError, match="no weights yet"):
        export(model, tmp_path / "model")
    model.build((None, None, 2))
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError, match="never overwrite"):
        export(model, tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    model = keras_disrnn.DisRNNModel(latents=2)
    model.build((None, None, 2))
    monkeypatch.setattr("os.rename", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
