"""Exports: the contract of the endpoints with TensorFlow alone, and the refusals."""

import concurrent.futures
import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from hypothesis import strategies as st

import keras_disrnn
from keras_disrnn import bandit
from keras_disrnn.analysis import Predictions, compute_evaluation
from keras_disrnn.data import sessions_from_table
from keras_disrnn.experiments.settings import SYNTHETIC_COLUMNS
from keras_disrnn.io import saved_model as export
from keras_disrnn.models import baselines

EXPORTS = Path(__file__).parents[1] / "exports"
OTHER_PYTHON = "OTHER_TENSORFLOW_PYTHON"

MODELS = {
    "default": lambda: keras_disrnn.DisRNNModel(num_latents=3, seed=1),
    "post": lambda: keras_disrnn.DisRNNModel(
        num_latents=2, dopamine_timing="post", num_signals=2, num_observations=3, num_arms=3, seed=1
    ),
    "choice alone": lambda: keras_disrnn.DisRNNModel(
        num_latents=3, num_signals=0, seed=1, dtype="float64"
    ),
    "gru": lambda: baselines.GRU(units=4, seed=1),
    "q-learning": lambda: baselines.QLearning(alpha=0.3, kappa_1=2.0, kappa_2=0.5),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Name to (model, its export)."""
    folder = tmp_path_factory.mktemp("exports")
    found = {}
    for name, make in MODELS.items():
        model = make()
        model.build((None, None, model.num_observations))
        export.export(model, folder / name)
        found[name] = (model, folder / name)
    return found


@pytest.fixture(scope="module")
def model(exported):
    return exported["default"][0]


@pytest.fixture(scope="module")
def folder(exported):
    return exported["default"][1]


@pytest.fixture(scope="module")
def loaded(folder):
    return export.load(folder)


def steps(loaded, features):
    """Step through sessions, and stack the outputs of all time steps."""
    latents = loaded.initial_state(len(features))["latents"]
    rows = []
    for row in range(features.shape[1]):
        rows.append(loaded.step(features[:, row], latents))
        latents = rows[-1]["latents"]
    return {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}


# === The numbers, with TensorFlow alone ===

READER = """
import json, sys
import numpy as np
import tensorflow as tf

results = {}
for name, folder in json.load(open("folders.json")).items():
    model = tf.saved_model.load(folder)
    features = np.load(name + ".npy")
    for key, value in model.serve(features).items():
        results[f"{name}|serve|{key}"] = value
    results[f"{name}|latents|latents"] = model.latents(features)["latents"]
    signature = model.signatures["step"]
    latents = model.initial_state(len(features))["latents"]
    rows = []
    for row in range(features.shape[1]):
        rows.append(model.sample_step(features[:, row], latents, (7, row)))
        again = signature(features=tf.constant(features[:, row]), latents=latents)
        for key, value in again.items():
            assert np.array_equal(value, rows[-1][key], equal_nan=True)
        latents = rows[-1]["latents"]
    for key in rows[0]:
        results[f"{name}|step|{key}"] = np.stack([row[key] for row in rows], 1)
    layer = __import__("keras").layers.TFSMLayer(folder, call_endpoint="serve")
    results[f"{name}|layer|choice"] = layer(features)["choice"]
    contract = model.contract()
    assert int(contract["version"]) == 1
    assert json.loads(contract["json"].numpy())["endpoints"]
assert "keras_disrnn" not in sys.modules
np.savez("results.npz", **results)
print(tf.__version__)
"""


@pytest.fixture(scope="module")
def sessions(exported, tmp_path_factory):
    """A folder with the features of each model, with shorter sessions and skipped time steps."""
    folder = tmp_path_factory.mktemp("sessions")
    rng = np.random.default_rng(5)
    for name, (model, _) in exported.items():
        features = rng.integers(0, 2, (5, 7, model.num_observations)).astype("float32")
        features[:, 0] = 0
        features[1, 4:] = np.nan
        features[0, 2] = np.nan
        np.save(folder / f"{name}.npy", features)
    paths = {name: str(path) for name, (_, path) in exported.items()}
    (folder / "folders.json").write_text(json.dumps(paths))
    return folder


def read_elsewhere(python, sessions):
    done = subprocess.run(
        [python, "-c", READER], cwd=sessions, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(sessions / "results.npz") as results:
        return dict(results), done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def elsewhere(sessions):
    return read_elsewhere(sys.executable, sessions)[0]


def check_numbers(exported, sessions, results):
    for name, (model, _) in exported.items():
        features = np.load(sessions / f"{name}.npy")
        outputs = model(features)
        expected = {**outputs, "latents": model.compute_latents(features)}
        ours = {key for key in results if key.startswith(f"{name}|")}
        endpoints = {f"{name}|{way}|{key}" for way in ("serve", "step") for key in expected}
        assert ours == endpoints | {
            f"{name}|step|next_choice", f"{name}|latents|latents", f"{name}|layer|choice"
        }  # fmt: skip
        for key in ours - {f"{name}|step|next_choice"}:
            value = results[key]
            np.testing.assert_allclose(value, expected[key.split("|")[2]], atol=2e-6, err_msg=key)
            assert value.dtype == "float32", key


def test_same_numbers_with_tensorflow_alone(exported, sessions, elsewhere):
    check_numbers(exported, sessions, elsewhere)


@pytest.mark.slow
def test_same_numbers_and_draws_in_another_tensorflow(exported, sessions, elsewhere):
    python = os.environ.get(OTHER_PYTHON)
    if not python:
        pytest.skip(f"{OTHER_PYTHON} names no Python with another version of TensorFlow")
    results, version = read_elsewhere(python, sessions)
    assert version != tf.__version__
    print(f"\nwritten and read in {tf.__version__}, read in {version}: ", end="")
    check_numbers(exported, sessions, results)
    differences = [
        np.nanmax(np.abs(results[key] - elsewhere[key]), initial=0.0)
        for key in results
        if not key.endswith("next_choice")
    ]
    for key in results:
        if key.endswith("next_choice"):
            np.testing.assert_array_equal(results[key], elsewhere[key])
    print(f"largest difference {max(differences):.2g}, draws the same")


def test_keras_own_export_runs_with_tensorflow_alone(make_features, tmp_path):
    features = make_features(sessions=2, rows=5)
    model = keras_disrnn.DisRNNModel(num_latents=2, seed=1)
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


# === The contract ===


def test_the_contract_agrees_with_the_signatures(exported):
    for model, path in exported.values():
        manifest = export.check(path)
        assert manifest["version"] == export.VERSION == 1
        loaded = tf.saved_model.load(str(path))
        names = {"serve", "step", "sample_step", "initial_state", "latents", "contract"}
        assert set(manifest["endpoints"]) == names
        assert set(loaded.signatures) == names | {"serving_default"}
        stated = json.loads(loaded.contract()["json"].numpy())
        card = (path / "README.md").read_text()
        for name, declared in manifest["endpoints"].items():
            signature = loaded.signatures[name]
            specs = {
                "inputs": signature.structured_input_signature[1],
                "outputs": signature.structured_outputs,
            }
            for side, found in specs.items():
                assert set(found) == set(declared[side])
                for key, spec in found.items():
                    tensor = declared[side][key]
                    shape = [None if isinstance(n, str) else n for n in tensor["shape"]]
                    assert spec.shape.as_list() == shape, (name, key)
                    assert spec.dtype == tensor["dtype"], (name, key)
                    assert tensor["unit"]
                    operation, _ = tensor.pop("tensor").split(":")
                    direction = side.removesuffix("puts")
                    assert f"| `{name}` | {direction} | `{key}` |" in card
                    assert operation in card
                    assert stated["endpoints"][name][side][key] == tensor
        assert model.num_arms == manifest["endpoints"]["step"]["outputs"]["choice"]["shape"][-1]


def test_nothing_in_the_graph_reads_or_writes(exported):
    """An export contains arithmetic only: no variables, no files, no Python.

    TensorFlow adds two functions to every SavedModel, which save and restore variables.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    for name, (_, path) in exported.items():
        saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        functions = saved.meta_graphs[0].graph_def.library.function
        own = [
            f
            for f in functions
            if not re.match("__inference__traced_(save|restore)_", f.signature.name)
        ]
        assert len(own) == len(functions) - 2
        kinds = {node.op for function in own for node in function.node_def}
        assert "MatMul" in kinds or name == "q-learning"
        forbidden = r"Var|File|PyFunc|Dataset|Save|Restore|Print|Lookup"
        assert not [kind for kind in kinds if re.search(forbidden, kind)], name


def test_draws_follow_the_seed_and_the_probabilities(loaded):
    count = 20_000
    features = np.zeros((count, 2), "float32")
    latents = loaded.initial_state(count)["latents"].numpy()
    outputs = loaded.sample_step(features, latents, (3, 4))
    again = loaded.sample_step(features, latents, (3, 4))["next_choice"]
    other = loaded.sample_step(features, latents, (3, 5))["next_choice"].numpy()
    drawn = outputs["next_choice"].numpy()
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != other).mean() > 0.1
    few = loaded.sample_step(features[:10], latents[:10], (3, 4))["next_choice"]
    np.testing.assert_array_equal(few, drawn[:10])
    expected = tf.nn.softmax(outputs["choice"][0])[1].numpy()
    assert 0.05 < expected < 0.95
    error = np.sqrt(expected * (1 - expected) / count)
    assert abs(drawn.mean() - expected) < 4 * error
    assert abs(other.mean() - expected) < 4 * error
    features[0, 1] = np.inf
    assert loaded.sample_step(features, latents, (3, 4))["next_choice"][0] == -1


# === Any input ===

REFUSED = (TypeError, ValueError, tf.errors.InvalidArgumentError)
NUMBERS = st.sampled_from([0.0, 1.0, 0.5, -3.0, 1e30, np.nan, np.inf, -np.inf])


def batches(*sizes):
    """Draw arrays of about these sizes and of any type, from NumPy or TensorFlow."""
    shapes = st.tuples(*(st.sampled_from([size, size, size, size + 1, 0, 1]) for size in sizes))
    shapes = shapes | st.lists(st.integers(0, 3), max_size=4).map(tuple)
    return st.builds(
        lambda shape, dtype, numbers, as_tensor: (tf.constant if as_tensor else np.array)(
            np.resize(np.array(numbers, "float64"), shape).astype(dtype)
        ),
        shapes,
        st.sampled_from(["float32"] * 4 + ["float64", "int32", "bool", "complex64", "str"]),
        st.lists(NUMBERS, min_size=1, max_size=12),
        st.booleans(),
    )


def fits(array, *shape):
    """Whether the contract accepts the array. It converts other real NumPy types to float32."""
    sized = len(array.shape) == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True)
    )
    kind = tf.as_dtype(array.dtype)
    if tf.is_tensor(array):
        return sized and kind == tf.float32
    return sized and (kind.is_floating or kind.is_integer or kind == tf.bool)


def invalid_steps(features):
    return ~np.isfinite(features).all(-1) & ~np.isnan(features).all(-1)


FUZZ = hypothesis.settings(max_examples=150, deadline=None, derandomize=True)


@FUZZ
@hypothesis.given(features=batches(2, 3, 2))
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_serve_answers_or_refuses_any_input(loaded, features):
    try:
        outputs = {name: value.numpy() for name, value in loaded.serve(features).items()}
    except REFUSED as error:
        assert not fits(features, None, None, 2), error
        assert str(error)
        return
    features = np.asarray(features, "float32")
    assert features.ndim == 3 and features.shape[-1] == 2
    invalid = np.logical_or.accumulate(invalid_steps(features), axis=1)
    for name, value in outputs.items():
        assert value.shape[:2] == features.shape[:2]
        assert np.isnan(value[invalid]).all(), name
        assert np.isfinite(value[~invalid]).all() or np.abs(features).max(initial=0) > 1e20, name


@FUZZ
@hypothesis.given(features=batches(2, 2), latents=batches(2, 3))
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_step_answers_or_refuses_any_input(loaded, features, latents):
    good = fits(features, None, 2) and fits(latents, None, 3)
    try:
        outputs = {name: value.numpy() for name, value in loaded.step(features, latents).items()}
    except REFUSED as error:
        assert not good or features.shape[0] != latents.shape[0], error
        assert str(error)
        return
    features, latents = np.asarray(features, "float32"), np.asarray(latents, "float32")
    assert features.shape == (len(latents), 2) and latents.shape[1:] == (3,)
    invalid = invalid_steps(features) | ~np.isfinite(latents).all(-1)
    padding = np.isnan(features).all(-1) & ~invalid
    np.testing.assert_array_equal(outputs["latents"][padding], latents[padding])
    for name, value in outputs.items():
        assert np.isnan(value[invalid]).all(), name


def test_an_invalid_time_step_makes_its_own_session_nan_and_no_other(loaded, model, make_features):
    features = make_features(sessions=4, rows=6)
    clean = {**model(features), "latents": model.compute_latents(features)}
    features[1, 3, 1] = np.inf
    features[2, 4, 0] = np.nan
    for outputs in (loaded.serve(features), steps(loaded, features)):
        for name, value in outputs.items():
            value = np.asarray(value)
            assert np.isnan(value[1, 3:]).all() and np.isnan(value[2, 4:]).all()
            for part in ((0,), (3,), (1, slice(3)), (2, slice(4))):
                np.testing.assert_allclose(value[part], clean[name][part], atol=2e-6)


def test_exported_baselines_check_their_inputs_too(exported):
    loaded = tf.saved_model.load(str(exported["q-learning"][1]))
    latents = loaded.initial_state(2)["latents"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Shape of tensor features"):
        loaded.step(tf.zeros((2, 3)), latents)
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many sessions in both"):
        loaded.step(tf.zeros((1, 2)), latents)
    outputs = loaded.step(np.array([[0, np.inf], [0, 1]], "float32"), latents)
    for value in outputs.values():
        assert np.isnan(value[0]).all() and np.isfinite(value[1]).all()


# === Writing ===


def test_nothing_is_overwritten(tmp_path):
    with pytest.raises(ValueError, match="QLearning: expected fitted parameters, got none"):
        export.export(baselines.QLearning(), tmp_path / "model")
    with pytest.raises(ValueError, match="expected a DisRNNModel or a baseline, got a Sequential"):
        export.export(keras.Sequential(), tmp_path / "model")
    model = keras_disrnn.DisRNNModel(num_latents=2)
    with pytest.raises(FileNotFoundError, match=r"expected a run folder with config\.yaml"):
        export.export(model, tmp_path / "model", run=tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError, match="expected a new folder, got one that exists"):
        export.export(model, tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


@pytest.mark.parametrize("call", ["os.rename", "keras_disrnn.io.saved_model.write_text"])
def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch, call):
    model = keras_disrnn.DisRNNModel(num_latents=2)
    monkeypatch.setattr(call, lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export.export(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_card_of_a_model_without_a_run_says_what_is_unknown(folder, model):
    card = (folder / "README.md").read_text()
    assert "These are not known here" in card
    assert "What this model does not show" in card
    for latent in ("z1", "z2", "z3"):
        assert f"| latent | {latent} | {latent} | " in card
    settings = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card, re.S)[1])
    assert settings["num_latents"] == 3 and settings["latent_penalty"] == model.latent_penalty
    citation = yaml.safe_load((EXPORTS.parent / "CITATION.cff").read_text())
    for work in citation["references"]:
        assert work["title"] in card
        assert all(author["family-names"] in card for author in work["authors"])


# === Reading ===


def damage(name, change):
    def apply(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


def rewrite(**changes):
    def apply(folder):
        manifest = json.loads((folder / export.MANIFEST).read_text())
        (folder / export.MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return apply


def flip(data):
    return data[:-1] + bytes([data[-1] ^ 1])


REFUSALS = {
    "truncated": (damage("saved_model.pb", lambda d: d[: len(d) // 2]), "bytes in saved_model.pb"),
    "one bit": (damage("saved_model.pb", flip), "expected saved_model.pb as it was exported"),
    "tampered card": (
        damage("README.md", lambda d: d.replace(b"4", b"5")),
        "expected README.md as",
    ),
    "no weights file": (
        lambda f: (f / "variables/variables.index").unlink(),
        "got a folder without it; copy",
    ),
    "an older export": (lambda f: (f / export.MANIFEST).unlink(), "before version 1 have none"),
    "an older version": (rewrite(version=0), "got 0; export the model again"),
    "a newer version": (rewrite(version=2), "got 2; update keras-disrnn"),
    "another program's": (rewrite(format="mlflow"), "expected the manifest of an export"),
    "no files listed": (rewrite(files={}), "got an incomplete list"),
    "files of no size": (rewrite(files={"saved_model.pb": 7}), "got an incomplete list"),
    "half a manifest": (damage(export.MANIFEST, lambda d: d[:99]), "expected JSON"),
    "no text": (damage(export.MANIFEST, lambda d: b"\xff" + d), "expected JSON"),
    "a list": (damage(export.MANIFEST, lambda d: b"[]"), "expected the manifest of an export"),
    "a file more": (lambda f: (f / "saved_model.cpb").write_text("x"), "got saved_model.cpb too"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_damaged_and_foreign_folders_are_refused_unread(folder, tmp_path, monkeypatch, name):
    break_it, message = REFUSALS[name]
    shutil.copytree(folder, tmp_path / "model")
    break_it(tmp_path / "model")
    monkeypatch.setattr(tf.saved_model, "load", lambda *_: pytest.fail("TensorFlow read it"))
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        export.load(tmp_path / "model")
    assert str(tmp_path / "model") in str(refused.value)


def test_a_digest_accepts_one_export_only(folder, tmp_path):
    model = keras_disrnn.DisRNNModel(num_latents=2, seed=0)
    digest = export.export(model, tmp_path / "model")
    export.load(tmp_path / "model", digest)
    with pytest.raises(ValueError, match="this is another export"):
        export.load(folder, digest)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        export.load(tmp_path / "nowhere", digest)


# === Twice, in threads, in workers ===


def serve_ones(folder):
    return export.load(folder).serve(np.ones((2, 4, 2), "float32"))["choice"].numpy()


def test_loads_twice_and_in_threads(folder, model, make_features):
    many = [make_features(sessions=2, rows=5) for _ in range(8)]
    first, second = export.load(folder), export.load(folder)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(first.serve, many))
        stepped = list(pool.map(lambda features: steps(second, features), many))
        own = list(pool.map(serve_ones, [folder] * 4))
    for features, whole, rows in zip(many, shared, stepped, strict=True):
        expected = model(features)
        np.testing.assert_allclose(whole["choice"], expected["choice"], atol=2e-6)
        np.testing.assert_allclose(rows["choice"], expected["choice"], atol=2e-6)
    for choice in own:
        np.testing.assert_array_equal(choice, own[0])


def test_loads_in_spawned_workers(folder):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map_async(serve_ones, [folder] * 2).get(timeout=120)
    for choice in results:
        np.testing.assert_allclose(choice, serve_ones(folder), atol=2e-6)


FORKED = """
import multiprocessing, sys
import numpy as np, tensorflow as tf

def choose(folder):
    model = tf.saved_model.load(folder)
    return model.serve(np.ones((2, 4, 2), "float32"))["choice"].numpy()

with multiprocessing.get_context("fork").Pool(2) as pool:
    np.save(sys.argv[2], pool.map_async(choose, [sys.argv[1]] * 2).get(timeout=120))
"""


def test_loads_in_workers_forked_before_tensorflow_ran(folder, tmp_path):
    arguments = [str(folder), str(tmp_path / "choice.npy")]
    subprocess.run([sys.executable, "-c", FORKED, *arguments], check=True, timeout=180)
    for choice in np.load(tmp_path / "choice.npy"):
        np.testing.assert_allclose(choice, serve_ones(folder), atol=2e-6)


# === Other languages and machines ===


def write_trials(file, trials=40):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (trials, 2))
    np.savetxt(file, rows, "%d", ",", header="choice,reward", comments="")
    return rows


def test_steps_from_c(folder, tmp_path):
    compiler = shutil.which("gcc")
    if not compiler:
        pytest.skip("no gcc to compile exports/step.c with")
    rows = write_trials(tmp_path / "trials.csv")
    home = Path(tf.__file__).parent
    subprocess.run(
        [
            compiler, "-O2", "-Wall", "-Werror", "-o", tmp_path / "step", EXPORTS / "step.c", "-lm",
            f"-I{home / 'include'}", f"-L{home}", f"-Wl,-rpath,{home}",
            "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2",
        ],
        check=True,
    )  # fmt: skip

    def step(*arguments):
        return subprocess.run(
            [tmp_path / "step", *arguments], capture_output=True, text=True, check=False
        )

    done = step(folder, tmp_path / "trials.csv")
    assert done.returncode == 0, done.stderr
    assert "40 steps: median" in done.stderr
    got = np.array([line.split(",") for line in done.stdout.splitlines()[1:]], float)
    features = np.concatenate([[[0, 0]], rows])[None].astype("float32")
    outputs = export.load(folder).serve(features)
    chosen = tf.nn.softmax(outputs["choice"])[0].numpy()[np.arange(len(rows)), rows[:, 0]]
    np.testing.assert_allclose(got[:, 1], chosen, atol=1e-4)
    np.testing.assert_allclose(got[:, 2], outputs["dopamine"][0, 1:, 0], atol=1e-4)
    nowhere = step(tmp_path / "nowhere", tmp_path / "trials.csv")
    assert nowhere.returncode == 1 and "nowhere" in nowhere.stderr


# The wheel of ai_edge_litert is optional, so TensorFlow's own interpreter runs here too.
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_step_runs_in_litert(exported, tmp_path, make_features):
    spec = importlib.util.spec_from_file_location("to_litert", EXPORTS / "to_litert.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    model, folder = exported["default"]
    program.main(str(folder), str(tmp_path / "step.tflite"))
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter
    runner = Interpreter(model_path=str(tmp_path / "step.tflite")).get_signature_runner("step")
    for sessions in (1, 4, 2):
        features = make_features(sessions=sessions, rows=6)
        features[0, 3] = np.nan
        expected = model(features)
        latents = np.tile(model.initial_latents, (sessions, 1)).astype("float32")
        for row in range(features.shape[1]):
            outputs = runner(features=features[:, row], latents=latents)
            latents = outputs["latents"]
            for name in ("choice", "dopamine"):
                np.testing.assert_allclose(outputs[name], expected[name][:, row], atol=1e-5)


# === The model in exports/ ===


def test_the_trained_model_of_this_repository_predicts_new_sessions():
    """The model predicts as well as the true agent, on sessions that it was not fitted to."""
    loaded = export.load(EXPORTS / "q_learner")
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=200, num_trials=200, seed=987654
    )
    sessions = sessions_from_table(played.to_table(), SYNTHETIC_COLUMNS)

    outputs = loaded.serve(sessions.features)
    predictions = Predictions(outputs["choice"].numpy(), outputs["dopamine"].numpy())
    scores = compute_evaluation(predictions, sessions, reference=played.chosen_probability).summary
    choice = scores["choice"]
    assert choice["n"] == 200 * 200
    assert -0.003 < choice["difference"] < 3 * choice["difference_se"], choice
    assert scores["dopamine"]["r2"] > 0.99
    size = sum(file.stat().st_size for file in (EXPORTS / "q_learner").rglob("*"))
    assert size < 1_000_000
