"""Files of the authors' package: reading, writing, refusals without execution, and round trips."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from parameters import assert_same_parameters

import keras_disrnn
from keras_disrnn.cli import main
from keras_disrnn.io import reference
from keras_disrnn.io.keras_file import load_model, save_model
from keras_disrnn.io.pickles import read_pickle
from keras_disrnn.models import baselines
from keras_disrnn.training.stages import STAGES, compile_stage

REFERENCE_PYTHON = "REFERENCE_PYTHON"


def lists(params):
    return {m: {n: v.tolist() for n, v in each.items()} for m, each in params.items()}


def subject_last(features, kind):
    """The reference's features in our order. The reference has the subject first."""
    return np.roll(features, -1, axis=-1) if kind.startswith("multisubject") else features


@pytest.mark.parametrize("name", ["disrnn_small", "neuro_small", "multisubject_small"])
def test_json_is_read_and_written_exactly(golden, tmp_path, name, capsys):
    params, config, arrays = golden(name)
    (tmp_path / "p.json").write_text(json.dumps(lists(params)))
    (tmp_path / "c.json").write_text(json.dumps(config))
    files = [f"--params={tmp_path}/p.json", f"--configuration={tmp_path}/c.json"]
    assert main(["import", *files, f"--out={tmp_path}/model.keras"]) == 0
    model = load_model(tmp_path / "model.keras")
    outputs = model(subject_last(arrays["xs"], name))["choice"]
    np.testing.assert_allclose(outputs, arrays["noiseless_outputs"][..., :2], atol=1e-5)

    command = ["export", f"--run={tmp_path}/model.keras", "--format=reference"]
    assert main([*command, f"--out={tmp_path}/back"]) == 0
    back = json.loads((tmp_path / "back" / "params.json").read_text())
    assert_same_parameters(
        {m: {n: np.asarray(v, "float32") for n, v in each.items()} for m, each in back.items()},
        params,
    )
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == config
    assert main([*command, f"--out={tmp_path}/back"]) == 1
    assert "got one that exists" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol_are_read(golden, tmp_path, protocol):
    params, config, _ = golden("neuro_small")
    params["hk_neuro_disentangled_rnn"]["latent_multipliers"] = np.asfortranarray(
        params["hk_neuro_disentangled_rnn"]["latent_multipliers"].astype(">f8")
    )
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(params, protocol))
    config = {**config, "l2_scale": np.float32(config["l2_scale"])}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(config, protocol))
    assert_same_parameters(read_pickle(tmp_path / "p.pkl"), params)
    again, _ = reference.to_haiku(reference.read_reference(tmp_path / "p.pkl", tmp_path / "c.pkl"))
    assert_same_parameters(again, params)


@hypothesis.given(
    array=st.sampled_from(["<f4", ">f8", "<i8", "|u1", "|b1", "<f2"]),
    shape=st.lists(st.integers(0, 4), max_size=3),
    by_columns=st.booleans(),
    protocol=st.integers(2, 5),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_arrays_of_any_type_are_read(tmp_path_factory, array, shape, by_columns, protocol):
    value = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(array)
    value = np.asfortranarray(value) if by_columns else value
    path = tmp_path_factory.mktemp("pickles") / "a.pkl"
    values = {"whole": value, "part": value.reshape(-1)[1::2]}
    path.write_bytes(pickle.dumps(values, protocol))
    for name, found in read_pickle(path).items():
        np.testing.assert_array_equal(found, values[name])
        assert found.dtype == values[name].dtype


class _Call:
    """Pickles as a call of a function. A reader that trusts the file would execute it."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    "call",
    [
        lambda path: _Call(os.system, f"touch {path}"),
        lambda path: _Call(eval, f"open({str(path)!r}, 'w')"),
        lambda path: _Call(Path.touch, path),
        lambda path: _Call(np.save, str(path), np.ones(2)),
        lambda path: _Call(getattr, path, "touch"),
    ],
    ids=["system", "eval", "path", "numpy", "getattr"],
)
def test_nothing_in_a_pickle_is_executed(tmp_path, call, protocol):
    touched = tmp_path / "touched"
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"a": {"b": call(touched)}}, protocol))
    with pytest.raises(
        ValueError, match=r"p\.pkl: expected arrays and plain values, got a call of"
    ):
        read_pickle(tmp_path / "p.pkl")
    assert not touched.exists()


def test_an_array_of_objects_is_refused(tmp_path):
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"a": np.array([{}, []], object)}))
    with pytest.raises(ValueError, match="expected arrays of numbers"):
        read_pickle(tmp_path / "p.pkl")


@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=300, deadline=None)
def test_a_damaged_pickle_raises_one_error(tmp_path_factory, data):
    whole = pickle.dumps({"m": {"n": np.arange(6, dtype="float32").reshape(2, 3)}})
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("pickles") / "p.pkl"
    path.write_bytes(bytes(damaged))
    try:
        read_pickle(path)
    except ValueError as error:
        assert str(path) in str(error)


def test_errors_name_the_bad_file(golden, tmp_path):
    params, config, _ = golden("disrnn_small")
    good, plain = tmp_path / "p.json", tmp_path / "c.json"
    good.write_text(json.dumps(lists(params)))
    plain.write_text(json.dumps(config))

    def refuses(pattern, params=good, config=plain):
        with pytest.raises(ValueError, match=pattern):
            reference.read_reference(params, config)

    def file(value, name="bad.json"):
        text = value if isinstance(value, str) else json.dumps(value)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    refuses("expected a configuration with the parameters, got none", config=None)
    refuses("expected JSON", params=file('{"a": '))
    refuses("expected JSON", params=file("[" * 100_000))
    refuses("params: expected {module", params=file([1, 2]))
    refuses("expected an array of numbers", params=file({"m": {"n": [[1], [1, 2]]}}))
    refuses("expected finite numbers, got NaN", params=file({"m": {"n": [float("nan")]}}))
    refuses(
        "latent_size: expected .*, got 1000000000", config=file({**config, "latent_size": 10**9})
    )
    refuses(
        "choice_net_n_layers: expected .*, got 7", config=file({**config, "choice_net_n_layers": 7})
    )
    refuses("expected the configuration", config=file([1]))
    refuses("config: x: expected a number", config=file({**config, "x": float("inf")}))
    refuses("expected one of|activation", config=file({**config, "activation": "no_such"}))
    both = file({"params": lists(params), "config": config}, "both.json")
    refuses("expected no second configuration", params=both)
    assert reference.read_reference(both).core.cell.num_latents == config["latent_size"]
    with pytest.raises(FileNotFoundError):
        reference.read_reference(tmp_path / "none.json", plain)


def test_a_model_without_counterpart_is_not_exported(tmp_path, capsys):
    model = keras_disrnn.DisRNNModel(num_latents=2)
    save_model(model, tmp_path / "model.keras")
    command = ["export", f"--run={tmp_path}/model.keras", f"--out={tmp_path}/out"]
    assert main([*command, "--format=reference"]) == 1
    assert "'post'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected a DisRNNModel, got a QLearning"):
        reference.write_reference(baselines.QLearning(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


THERE = Path(__file__).with_name("reference_steps.py")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "neural", "multisubject"])
@pytest.mark.parametrize("ending", ["json", "pkl", "jax.pkl"])
def test_training_continues_here_and_there(tmp_path, kind, ending):
    """Train a few steps in the authors' package and a few here, then score the result there."""
    python = os.environ.get(REFERENCE_PYTHON)
    if python is None:
        pytest.skip(f"{REFERENCE_PYTHON} names no interpreter with disentangled-rnns")

    def there(*arguments):
        command = [python, str(THERE), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=sys.stderr, timeout=600)

    there("train", kind, tmp_path)
    config = tmp_path / ("config.json" if ending == "json" else "config.pkl")
    model = reference.read_reference(tmp_path / f"params.{ending}", config)
    data = np.load(tmp_path / "data.npz")
    features = subject_last(data["features"], kind)
    outputs = model(features)
    np.testing.assert_allclose(outputs["choice"], data["choice_logits"], atol=1e-5)
    if kind == "neural":
        np.testing.assert_allclose(outputs["dopamine"][..., 0], data["dopamine"], atol=1e-5)

    choices = data["choices"]
    targets, weights = {"choice": np.maximum(choices, 0)}, {"choice": (choices >= 0) * 1.0}
    if kind == "neural":
        targets["dopamine"] = data["responses"]
        weights["dopamine"] = weights["choice"][..., None]
    stage = STAGES["joint" if kind == "neural" else "stage1"]
    compile_stage(model, dataclasses.replace(stage, noise=False, penalised=False))
    losses = model.fit(
        features, targets, sample_weight=weights, epochs=30, batch_size=1000, verbose=0
    ).history["loss"]
    assert losses[-1] < losses[0]

    reference.write_reference(model, tmp_path / "back")
    there("score", kind, tmp_path)
    back = np.load(tmp_path / "scored.npz")
    outputs = model(features)
    np.testing.assert_allclose(outputs["choice"], back["choice_logits"], atol=1e-5)
    assert np.abs(back["choice_logits"] - data["choice_logits"]).max() > 1e-3
