"""Files and arguments that would take much time or memory are refused at once."""

import json
import time
import zipfile

import numpy as np
import pytest

import keras_disrnn
from keras_disrnn import baselines
from keras_disrnn.cli import main
from keras_disrnn.experiments.folder import read_config
from keras_disrnn.io.card import read_record
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.utils.plain_files import parse_json, parse_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
NESTED_YAML = "a: " + "[" * 50_000
NESTED_JSON = '{"format": ' + "[" * 100_000


@pytest.fixture(autouse=True)
def at_once():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 30


SIZES = {
    "num_latents": 100_000, "update_units": 10**7, "num_update_layers": 10**9,
    "choice_units": 10**9, "num_choice_layers": 10**9, "dopamine_units": 10**9,
    "num_dopamine_layers": 10**9, "num_arms": 10**12, "num_signals": 10**12,
    "num_observations": 10**12, "subjects": 10**12,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), SIZES.items())
def test_a_model_that_does_not_fit_in_memory_is_refused_by_its_largest_argument(name, value):
    with pytest.raises(
        ValueError, match=f"^{name}: expected a model whose training needs at most "
    ):
        keras_disrnn.DisRNNModel(**{name: value})


def test_the_refusal_states_the_estimate_the_rule_and_the_remedy():
    with pytest.raises(ValueError) as error:
        keras_disrnn.DisRNNModel(num_latents=100_000)
    message = str(error.value)
    assert "50% of the memory of this machine" in message
    assert "got 100000, which needs about 1.4" in message and "GiB; choose a smaller" in message


def test_the_estimate_is_near_the_true_number_of_weights(monkeypatch):
    for latents, units in ((5, 8), (40, 16)):
        model = keras_disrnn.DisRNNModel(num_latents=latents, update_units=units)
        found = []
        monkeypatch.setattr(
            "keras_disrnn.models.size.check_memory", lambda _, n, found=found: found.append(n)
        )
        keras_disrnn.DisRNNModel(num_latents=latents, update_units=units)
        fixed = 5000 * (4 + 2 + 2)
        assert 0.5 < (found[0] - fixed) / model.count_params() < 2


def test_a_gru_that_does_not_fit_in_memory_is_refused():
    with pytest.raises(ValueError, match="^units: expected a model whose training needs at most"):
        baselines.GRU(10**6)


@pytest.mark.parametrize(("name", "value"), [("num_latents", 10**9), ("subjects", 10**12)])
def test_a_file_of_a_huge_model_is_refused_before_it_is_built(name, value, tmp_path):
    path = tmp_path / "model.keras"
    keras_disrnn.DisRNNModel(num_latents=1, num_signals=0).save(path)
    with zipfile.ZipFile(path) as archive:
        files = {each: archive.read(each) for each in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"][name] = value
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in files.items():
            archive.writestr(each, content)
    with pytest.raises(ValueError, match=f"model.keras: .*{name}: expected a model whose training"):
        keras_disrnn.load_model(path)


def test_yaml_that_multiplies_itself_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="f.yaml: expected at most 1000000 values, got aliases"):
        parse_yaml(BOMB, "f.yaml")
    with pytest.raises(ValueError, match="f.yaml: expected at most 1000000 values"):
        parse_yaml("a: &a [*a]", "f.yaml")
    (tmp_path / "config.yaml").write_text(BOMB)
    with pytest.raises(ValueError, match="config.yaml: expected"):
        read_config(tmp_path)
    command = ["demo", f"--out={tmp_path / 'out'}"]
    file = str(tmp_path / "config.yaml")
    for words in ([f"--config={file}"], ["--config", file]):
        assert main([*command, *words]) == 1
        error = capsys.readouterr().err
        assert "config.yaml: expected at most 1000000 values" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_yaml_with_a_few_aliases_is_read():
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}}", "f.yaml")["b"] == [1, 2]
    assert parse_yaml("", "f.yaml") is None


def test_values_that_are_nested_too_deeply_are_refused(tmp_path, capsys):
    for parse, text in ((parse_yaml, NESTED_YAML), (parse_json, NESTED_JSON)):
        with pytest.raises(ValueError, match="f: expected .* got a file whose values are nested"):
            parse(text, "f")
    (tmp_path / "saved_model.pb").write_text("")
    (tmp_path / "manifest.json").write_text(NESTED_JSON)
    with pytest.raises(ValueError, match="manifest.json: expected JSON, got .*nested too deeply; "):
        keras_disrnn.export.check(tmp_path)
    (tmp_path / "config.yaml").write_text(NESTED_YAML)
    assert main(["demo", f"--out={tmp_path / 'out'}", f"--config={tmp_path / 'config.yaml'}"]) == 1
    assert "nested too deeply" in capsys.readouterr().err


def test_the_card_of_an_export_refuses_settings_that_multiply_themselves(tmp_path):
    for name in ("metrics.json", "environment.json", "sessions.csv"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.yaml").write_text(BOMB)
    with pytest.raises(ValueError, match="config.yaml: expected at most"):
        read_record(tmp_path)


@pytest.mark.parametrize("kind", [complex, object, str])
def test_features_that_are_no_real_numbers_are_refused(kind):
    model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    with pytest.raises(ValueError, match="features: expected real numbers, got the type"):
        predict_latents(model, np.zeros((1, 3, 2)).astype(kind))
