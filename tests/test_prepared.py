"""A prepared data set of TensorFlow Datasets, fitted by the command line."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds
import yaml

from keras_disrnn import bandit
from keras_disrnn.cli import main
from keras_disrnn.data import sessions_from_tfds
from keras_disrnn.datasets import Builder, SimulatedConfig
from keras_disrnn.experiments.data import load_data, load_run_data
from keras_disrnn.experiments.prepared_settings import RecordedData, TfdsData

NAME = "bandit_dopamine/three_mice"
THREE_MICE = {f"m{i}": bandit.QLearning(alpha=0.1 + 0.3 * i) for i in range(3)}
QUICK = [
    "--training.warmup_steps=2",
    "--training.stage1_steps=4",
    "--training.stage2_steps=2",
    "--training.steps_per_epoch=2",
    "--model.num_latents=2",
]


def small(name, **settings):
    sizes = {
        "num_train_sessions": 12,
        "num_validation_sessions": 3,
        "num_test_sessions": 6,
        "num_trials": 20,
    }
    return SimulatedConfig(name=name, **sizes, **settings)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Builder(config=small("three_mice", agent=THREE_MICE), data_dir=folder).download_and_prepare()
    return folder


def fit(data_dir, out, *flags, name=NAME):
    words = ["fit", f"--data.tfds={name}", f"--data.data_dir={data_dir}", f"--out={out}"]
    return main([*words, *QUICK, *flags])


@pytest.fixture(scope="module")
def run_folder(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "fit"
    assert fit(data_dir, out, "--model.subject_units=1") == 0
    return out


def test_the_sessions_are_those_of_the_splits(data_dir):
    data = load_data(TfdsData(NAME, str(data_dir)), 0)
    builder = tfds.builder_from_directory(data_dir / NAME / "3.0.0")
    for part, split in ((data.train, "train"), (data.held_out, "test")):
        expected = sessions_from_tfds(builder.as_dataset(split=split))
        assert part.ids == expected.ids and part.subjects == expected.subjects
        for name in ("features", "choice", "choice_weight", "dopamine", "dopamine_weight"):
            np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))


def test_a_part_of_a_split_and_some_subjects_are_read(data_dir):
    settings = {"train_split": "train[:50%]", "held_out_split": "validation+train[50%:]"}
    data = load_data(TfdsData(NAME, str(data_dir), **settings), 0)
    assert (len(data.train), len(data.held_out)) == (6, 9)
    data = load_data(TfdsData(NAME, str(data_dir), subjects=["m1"]), 0)
    assert set(data.train.subjects) == set(data.held_out.subjects) == {"m1"}


def test_a_data_set_is_fitted_and_its_settings_are_recorded(run_folder, data_dir):
    data = yaml.safe_load((run_folder / "config.yaml").read_text())["data"]
    assert data == {
        "tfds": NAME,
        "data_dir": str(data_dir),
        "train_split": "train",
        "held_out_split": "test",
        "num_arms": None,
        "reward_kind": "binary",
        "subjects": [],
    }
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["held_out"]["dopamine"] and metrics["held_out"]["choice"]
    table = pd.read_csv(run_folder / "sessions.csv")
    assert table["part"].value_counts().to_dict() == {"train": 12, "held_out": 6}
    assert load_run_data(run_folder)[1].train.num_sessions == 12


def test_later_commands_read_the_data_set_again(run_folder, tmp_path, capsys):
    scores = tmp_path / "scores.json"
    assert main(["evaluate", f"--run={run_folder}", f"--out={scores}"]) == 0
    known = json.loads((run_folder / "metrics.json").read_text())["held_out"]["choice"]
    assert json.loads(scores.read_text())["held_out"]["choice"] == pytest.approx(known)
    assert main(["subjects", f"--run={run_folder}", f"--out={tmp_path / 'subjects'}"]) == 0
    figures = tmp_path / "figures"
    assert main(["plot", f"--run={run_folder}", f"--out={figures}", "--formats=[png]"]) == 0
    assert list(figures.glob("*.png"))
    capsys.readouterr()


def test_a_table_is_scored_by_the_model_of_a_data_set(run_folder, tmp_path):
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=2, num_trials=20, seed=5
    )
    table, out = tmp_path / "trials.csv", tmp_path / "scores.json"
    played.to_table().assign(subject="m1").to_csv(table, index=False)
    words = ["evaluate", f"--run={run_folder}", f"--table={table}", f"--out={out}"]
    assert main(words) == 0
    assert {"choice", "dopamine"} <= set(json.loads(out.read_text()))


def test_the_settings_of_a_run_are_those_of_the_command(run_folder, tmp_path, capsys):
    settings = run_folder / "config.yaml"
    words = ["fit", f"--config={settings}", f"--out={tmp_path / 'again'}"]
    assert main([*words, "--data.held_out_split=tests"]) == 1
    assert f"expected a split of {NAME}/3.0.0" in capsys.readouterr().err
    data = yaml.safe_load(settings.read_text())["data"]
    assert RecordedData(**data).chosen() == TfdsData(**data)


def test_a_run_notices_another_data_set_of_the_name(run_folder, data_dir, tmp_path, capsys):
    config = small("three_mice", agent=THREE_MICE, seed=1)
    Builder(config=config, data_dir=tmp_path).download_and_prepare()
    (data_dir / NAME).rename(tmp_path / "old")
    try:
        (data_dir / NAME).symlink_to(tmp_path / NAME)
        assert main(["evaluate", f"--run={run_folder}"]) == 1
    finally:
        (data_dir / NAME).unlink()
        (tmp_path / "old").rename(data_dir / NAME)
    error = capsys.readouterr().err
    assert "expected the data that the run was fitted to" in error
    assert f"got data in {data_dir / NAME / '3.0.0'} that have changed" in error


def test_the_card_names_the_data_set(run_folder):
    card = (run_folder / "saved_model" / "README.md").read_text()
    assert "The data are the data set `bandit_dopamine/three_mice` of TensorFlow Datasets" in card
    assert "simulated agent" not in card and "Cite the source of the data" in card


def test_new_subjects_of_a_data_set_are_adapted_to(run_folder, tmp_path, capsys):
    config = small("others", agent={"n1": bandit.QLearning(), "n2": bandit.QLearning(alpha=0.8)})
    Builder(config=config, data_dir=tmp_path).download_and_prepare()
    data = ["--data.tfds=bandit_dopamine/others", f"--data.data_dir={tmp_path}"]
    out = tmp_path / "adapted"
    assert main(["adapt", f"--run={run_folder}", *data, f"--out={out}"]) == 0
    assert set(pd.read_csv(out / "subjects.csv")["subject"]) == {"n1", "n2"}
    assert main(["summary", *data]) == 0
    assert "n2" in capsys.readouterr().out


def test_the_latest_version_is_read_unless_one_is_named(data_dir, tmp_path):
    for version in ("2.0.0", "3.0.0", "10.0.0"):
        folder = tmp_path / NAME / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").touch()
    (tmp_path / NAME / "11.0.0.incomplete").mkdir()
    (tmp_path / NAME / "12.0.0").mkdir()  # An interrupted preparation has no information.
    assert TfdsData(NAME, str(tmp_path)).find() == str(tmp_path / NAME / "10.0.0")
    assert TfdsData(f"{NAME}:3.0.0", str(tmp_path)).find() == str(tmp_path / NAME / "3.0.0")
    with pytest.raises(FileNotFoundError, match=r"prepared: .*three_mice:2.0.0.*:10.0.0\)"):
        TfdsData(f"{NAME}:4.0.0", str(tmp_path)).find()


def test_the_folder_of_the_variable_is_the_default(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert TfdsData(NAME).data_dir == str(data_dir)
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert TfdsData(NAME).data_dir.endswith("/tensorflow_datasets")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "data: expected either data.table or data.tfds, got neither"),
        (
            ["--data.tfds=a/b", "--data.table=x.csv"],
            "data: expected either data.table or data.tfds, got both",
        ),
        (
            ["--data.tfds=a/b", "--data.held_out_every=4"],
            "data.held_out_every: expected a setting of data.tfds, got one of data.table",
        ),
        (
            ["--data.table=x.csv", "--data.train_split=all"],
            "data.train_split: expected a setting of data.table, got one of data.tfds",
        ),
        (["--data.tfds=a b"], "tfds: expected the name of a data set"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(flags, message, tmp_path, capsys):
    assert main(["fit", f"--out={tmp_path / 'out'}", *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_data_set_that_is_not_prepared_is_refused_without_tensorflow(data_dir, tmp_path):
    """The refusal names the command that prepares it, and that command works."""
    code = (
        "import sys; from keras_disrnn.cli import main; status = main(sys.argv[1:]);"
        "print(status, [m for m in ('tensorflow', 'tensorflow_datasets') if m in sys.modules])"
    )
    words = ["fit", f"--data.tfds={NAME[:-1]}", f"--data.data_dir={data_dir}", "--out=out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split("\n")[-2] == "1 []", done.stderr
    assert f"did you mean '{NAME}'?" in done.stderr
    command = done.stderr.split('python -c "')[1].split('"')[0]
    assert NAME[:-1] in command and repr(str(data_dir)) in command
    assert not (tmp_path / "out").exists()
    ready = command.replace(f"{NAME[:-1]!r}", repr(NAME)).split("; ")[0]
    exec(ready, {})


@pytest.mark.parametrize("name", ["train_split", "held_out_split"])
@pytest.mark.parametrize("split", ["tests", "train[", "test[:0]"])
def test_a_split_that_is_not_there_is_named(name, split, data_dir, tmp_path, capsys):
    assert fit(data_dir, tmp_path / "out", f"--data.{name}={split}") == 1
    error = capsys.readouterr().err
    assert f"{name}: expected a split" in error and repr(split) in error
    assert not (tmp_path / "out").exists()


def test_a_session_in_both_splits_is_refused(data_dir, tmp_path, capsys):
    assert fit(data_dir, tmp_path / "out", "--data.held_out_split=train[:2]") == 1
    assert "held_out_split: expected sessions that are not in train" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
