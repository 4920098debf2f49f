"""The command line from end to end, and its messages for bad input."""

import dataclasses
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile

import docstring_parser
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml

import keras_disrnn
from keras_disrnn import bandit
from keras_disrnn.cli import main
from keras_disrnn.experiments.ablation import _Copy
from keras_disrnn.experiments.prepared_settings import RecordedData, TfdsData
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import (
    ModelSettings,
    SyntheticData,
    TableData,
    TrainingSettings,
)
from keras_disrnn.experiments.study import StudySettings
from keras_disrnn.io.keras_file import load_model
from keras_disrnn.models.penalties import PENALTIES

QUICK = [
    "--training.warmup_steps=4", "--training.stage1_steps=4", "--training.stage2_steps=4",
    "--training.steps_per_epoch=2", "--model.num_latents=3", "--model.update_units=4",
    "--model.num_update_layers=1",
]  # fmt: skip
SMALL_DATA_OF_COMPARE = [
    "--synthetic.num_sessions=6", "--synthetic.num_held_out_sessions=3", "--synthetic.num_trials=9",
]  # fmt: skip
SMALL_DATA = ["--data.num_sessions=12", "--data.num_held_out_sessions=6", "--data.num_trials=15"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "demo"
    assert main(["demo", f"--out={folder}", *SMALL_DATA, *QUICK]) == 0
    return folder


@pytest.fixture(scope="module")
def trials():
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=9, num_trials=12, seed=1
    )
    table = played.to_table().rename(columns={"choice": "went_right", "session": "day"})
    table["forced"] = np.arange(len(table)) % 7 == 3
    return table[["subject", "day", "trial", "went_right", "reward", "dopamine", "forced"]]


COLUMNS = ["--data.columns.session=day", "--data.columns.choice=went_right"]


def run_fit(table_file, out, *arguments):
    return main(["fit", f"--data.table={table_file}", f"--out={out}", *COLUMNS, *QUICK, *arguments])


def test_demo_writes_all_results_to_its_folder(demo):
    metrics = json.loads((demo / "metrics.json").read_text())
    for part in ("train", "held_out"):
        assert 0 < metrics[part]["choice"]["normalized_likelihood"] < 1
        assert metrics[part]["dopamine"]["mse"] > 0
        assert metrics[part]["dopamine"]["r2"] < 1
        truth = metrics[part]["true_agent"]
        np.testing.assert_allclose(
            truth["difference"],
            metrics[part]["choice"]["normalized_likelihood"]
            - truth["choice"]["normalized_likelihood"],
            atol=1e-12,
        )
    assert set(metrics["open_latents"]) <= {"z1", "z2", "z3"}
    history = pd.read_csv(demo / "history.csv")
    assert list(history["stage"]) == ["warmup"] * 2 + ["stage1"] * 2 + ["stage2"] * 2
    versions = json.loads((demo / "environment.json").read_text())["versions"]
    assert versions["keras-disrnn"] == keras_disrnn.__version__
    assert versions["tensorflow"] == tf.__version__
    figures = {path.name for path in (demo / "figures").iterdir()}
    names = (
        "bottlenecks", "choice_rule", "dopamine_rule", "update_rules", "session", "dopamine",
        "learning_curves",
    )  # fmt: skip
    paper = ("paper_model", "paper_structure")
    assert figures == {f"{name}.{end}" for name in names + paper for end in ("png", "pdf")}
    report = (demo / "report.html").read_text()
    assert report.count("data:image/png;base64,") == len(names)
    likelihood = metrics["held_out"]["choice"]["normalized_likelihood"]
    assert f"{likelihood:.4f}" in report
    assert not re.findall(r'(?:src|href)="(?!data:)', report), "the report must stand alone"
    keras_model = keras.models.load_model(demo / "model.keras")
    exported = tf.saved_model.load(str(demo / "saved_model"))
    features = np.zeros((2, 4, 2), "float32")
    np.testing.assert_allclose(
        exported.serve(features)["choice"], keras_model(features)["choice"], atol=1e-6
    )


def test_each_latent_of_a_run_is_ablated(demo, tmp_path, capsys):
    out = tmp_path / "ablation"
    arguments = ["ablate", f"--run={demo}", f"--out={out}", "--num_bootstrap_samples=50"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    names = {"effects.csv", "verdicts.csv", "ablation.md", "ablation.png", "ablation.pdf"}
    names |= {"config.yaml", "environment.json"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "ablation.md").read_text() in printed
    assert printed.count("retraining the") == 8
    effects = pd.read_csv(out / "effects.csv")
    assert effects["latent"].tolist() == ["z1", "z2", "z3"] * 2
    metrics = json.loads((demo / "metrics.json").read_text())["held_out"]
    for readout, score in (("choice", "normalized_likelihood"), ("dopamine", "r2")):
        intact = effects[effects["readout"] == readout]["intact"]
        np.testing.assert_allclose(intact, metrics[readout][score], rtol=1e-5)
    assert set(pd.read_csv(out / "verdicts.csv")["joint"]) <= {
        "shared", "choice only", "dopamine only", "neither", "redundant", "unclear",
    }  # fmt: skip
    assert main(arguments) == 1
    assert "got a finished result" in capsys.readouterr().err


def test_an_interrupted_ablation_resumes(demo, tmp_path, capsys, monkeypatch):
    command = ["ablate", f"--run={demo}", "--num_bootstrap_samples=20", "--steps=2"]
    assert main([*command, f"--out={tmp_path / 'whole'}"]) == 0
    assert capsys.readouterr().out.count("retraining the") == 8
    retrain, calls = _Copy._fit, []

    def stop_at_the_third(self, sessions):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        retrain(self, sessions)

    monkeypatch.setattr(_Copy, "_fit", stop_at_the_third)
    command.append(f"--out={tmp_path / 'out'}")
    assert main(command) == 130
    assert not (tmp_path / "out" / "ablation.md").exists()
    capsys.readouterr()
    assert main([*command, "--seed=1"]) == 1
    assert "got another seed (1, not 0)" in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr().out.count("retraining the") == 6
    for name in ("effects.csv", "verdicts.csv", "ablation.md"):
        whole, resumed = ((tmp_path / out / name).read_bytes() for out in ("whole", "out"))
        assert whole == resumed, name
    assert not (tmp_path / "out" / "parts").exists()


def test_the_card_of_an_export_has_data_scores_and_settings(demo):
    card = (demo / "saved_model" / "README.md").read_text()
    metrics = json.loads((demo / "metrics.json").read_text())
    assert "| training | 1 | 12 | 180 |" in card
    assert "| held out | 1 | 6 | 90 |" in card
    for part in ("train", "held_out"):
        for score, key in (("choice", "normalized_likelihood"), ("dopamine", "r2")):
            value, error = (metrics[part][score][name] for name in (key, f"{key}_se"))
            low, high = value - 1.96 * error, value + 1.96 * error
            assert f"{value:.4g} ({low:.4g} to {high:.4g})" in card
    config, environment = (
        yaml.safe_load(block) for block in re.findall("```yaml\n(.*?)```", card, re.S)
    )
    assert config == yaml.safe_load((demo / "config.yaml").read_text())
    assert environment["versions"]["tensorflow"] == tf.__version__
    figures = re.findall(r"\]\((figures/.*?)\)", card)
    assert len(figures) == 7
    for figure in figures:
        assert (demo / "saved_model" / figure).read_bytes() == (demo / figure).read_bytes()
    assert f"Open latents: {', '.join(metrics['open_latents'])}." in card
    assert keras_disrnn.export.check(demo / "saved_model")["model"] == "DisRNNModel"


def test_the_score_of_the_true_agent_comes_from_its_probabilities(demo):
    metrics = json.loads((demo / "metrics.json").read_text())
    played = bandit.simulate(
        bandit.QLearning(),
        bandit.DriftingBandit(),
        num_sessions=6,
        num_trials=15,
        seed=0,
        first_session=12,
    )
    expected = np.exp(np.log(played.chosen_probability).mean())
    truth = metrics["held_out"]["true_agent"]["choice"]["normalized_likelihood"]
    np.testing.assert_allclose(truth, expected, rtol=1e-6)


def test_a_finished_run_is_never_overwritten(demo, capsys):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert main(["demo", f"--out={demo}", *SMALL_DATA, *QUICK]) == 1
    assert "got a finished result" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_a_foreign_folder_is_not_changed(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert main(["demo", f"--out={tmp_path}", *SMALL_DATA, *QUICK]) == 1
    assert "got other files (thesis.tex)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_killed_run_resumes_and_ends_with_the_same_weights(demo, tmp_path, capsys):
    folder = tmp_path / "killed"
    command = [
        sys.executable, "-m", "keras_disrnn", "demo", f"--out={folder}", *SMALL_DATA, *QUICK
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    for line in process.stdout:
        if line.startswith("stage1 2/4"):
            process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "report.html").exists()
    other = [*QUICK[:-1], "--model.num_update_layers=2"]
    assert main(["demo", f"--out={folder}", *SMALL_DATA, *other]) == 1
    assert "got another model.num_update_layers (2, not 1)" in capsys.readouterr().err
    assert main(["demo", f"--out={folder}", *SMALL_DATA, *QUICK]) == 0
    assert "Resuming in" in capsys.readouterr().out
    whole, resumed = (keras.models.load_model(f / "model.keras") for f in (demo, folder))
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_flags_override_a_config_file(demo, tmp_path):
    config = yaml.safe_load((demo / "config.yaml").read_text())
    assert config["model"]["num_latents"] == 3
    out = tmp_path / "again"
    arguments = ["--seed=5", "--training.stage2_steps=0"]
    assert main(["demo", f"--config={demo / 'config.yaml'}", f"--out={out}", *arguments]) == 0
    again = yaml.safe_load((out / "config.yaml").read_text())
    assert again["seed"] == 5
    assert again["training"] == {**config["training"], "stage2_steps": 0}
    assert again["model"] == config["model"]


def test_fit_evaluate_export_and_plot_a_table(trials, tmp_path, capsys):
    trials.to_csv(tmp_path / "trials.csv", index=False)
    out = tmp_path / "fit"
    assert run_fit(
        tmp_path / "trials.csv", out, "--data.columns.dopamine=dopamine",
        "--data.columns.forced=forced", "--data.columns.trial=trial",
    ) == 0  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    held_out = trials[trials["day"].isin(trials["day"].unique()[2::3])]
    assert metrics["held_out"]["choice"]["n"] == int((~held_out["forced"]).sum())
    assert metrics["held_out"]["dopamine"]["n"] == len(held_out)
    assert "true_agent" not in metrics["held_out"]

    assert main(["evaluate", f"--run={out}", f"--out={tmp_path / 'scores.json'}"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["held_out"] == metrics["held_out"]
    held_out.to_csv(tmp_path / "held_out.csv", index=False)
    capsys.readouterr()
    assert main(["evaluate", f"--run={out}", f"--table={tmp_path / 'held_out.csv'}"]) == 0
    printed = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(
        printed["choice"]["normalized_likelihood"],
        metrics["held_out"]["choice"]["normalized_likelihood"],
        rtol=1e-6,
    )

    assert main(["export", f"--run={out}", f"--out={tmp_path / 'exported'}"]) == 0
    assert keras_disrnn.export.load(tmp_path / "exported").signatures["step"]
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "The data are the table `trials.csv`" in card
    assert str(tmp_path) not in card
    assert "every n-th session of each subject, with n = 3. The first one is number 2" in card
    assert main(["export", f"--run={out}", f"--out={tmp_path / 'exported'}"]) == 1
    figures = tmp_path / "figures"
    assert main(["plot", f"--run={out}", f"--out={figures}", "--formats=[svg]"]) == 0
    assert {path.suffix for path in figures.iterdir()} == {".svg"}
    assert len(list(figures.iterdir())) == 9


@pytest.fixture(scope="module")
def run_of_three_arms(trials, tmp_path_factory):
    """A run with dopamine whose table has three arms, fitted with relative paths."""
    folder = tmp_path_factory.mktemp("three")
    arms = trials["went_right"].where(np.arange(len(trials)) % 5 > 0, 2)
    table = trials.assign(went_right=arms, day=20240101 + pd.factorize(trials["day"])[0])
    table.to_csv(folder / "trials.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ("--data.columns.dopamine=dopamine", "--data.held_out_sessions", "[20240101]")
        assert run_fit("trials.csv", "fit", *words) == 0
    return folder / "fit"


@pytest.mark.parametrize("flag", ["--data.held_out_sessions=[7, 007]", "[7, 007]"])
def test_numbers_in_flags_are_names_as_they_are_written(flag, trials, tmp_path, capsys):
    trials.to_csv(tmp_path / "trials.csv", index=False)
    words = [flag] if flag.startswith("--") else ["--data.held_out_sessions", flag]
    assert run_fit(tmp_path / "trials.csv", tmp_path / "fit", *words) == 1
    assert "'7'" in (error := capsys.readouterr().err) or "'007'" in error
    table = {"table": str(tmp_path / "trials.csv"), "subjects": ["007"]}
    table["columns"] = {"session": "day", "choice": "went_right"}
    text = str(table).replace("'007'", "007")
    assert main(["study", f"--out={tmp_path / 'study'}", f"--data={{mice: {text}}}"]) == 1
    assert "'007'" in capsys.readouterr().err


def test_held_out_sessions_can_be_numbers(run_of_three_arms):
    config = yaml.safe_load((run_of_three_arms / "config.yaml").read_text())
    assert config["data"]["held_out_sessions"] == ["20240101"]


def test_a_run_finds_its_table_from_another_folder(
    run_of_three_arms, trials, tmp_path, capsys, monkeypatch
):
    trials.to_csv(tmp_path / "trials.csv", index=False)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["evaluate", f"--run={run_of_three_arms}"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["held_out"] == json.loads((run_of_three_arms / "metrics.json").read_text())[
        "held_out"
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["train", "held_out"])
@pytest.mark.parametrize("command", ["evaluate", "plot", "ablate", "subjects"])
def test_data_that_changed_since_the_run_are_refused(
    command, part, run_of_three_arms, tmp_path, capsys
):
    file = run_of_three_arms.parent / "trials.csv"
    text = file.read_text()
    table = pd.read_csv(file)
    rows = (table["day"] == 20240101) == (part == "held_out")
    table.loc[rows, "reward"] = 1 - table.loc[rows, "reward"]
    table.to_csv(file, index=False)
    try:
        out = [] if command == "evaluate" else [f"--out={tmp_path / 'out'}"]
        assert main([command, f"--run={run_of_three_arms}", *out]) == 1
    finally:
        file.write_text(text)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "expected the data that the run was fitted to" in error
    assert str(file) in error
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_digest_of_its_data_is_evaluated_with_a_warning(
    run_of_three_arms, tmp_path, capsys, caplog
):
    old = tmp_path / "old"
    shutil.copytree(run_of_three_arms, old)
    environment = json.loads((old / "environment.json").read_text())
    digest = environment.pop("data")
    for new in ("sha256", "settings"):
        del environment[new]
    (old / "SHA256SUMS").unlink()
    (old / "environment.json").write_text(json.dumps(environment))
    assert main(["evaluate", f"--run={old}"]) == 0
    assert "has no digest of its data" in caplog.text
    # Older folders have a digest of the training sessions alone.
    (old / "environment.json").write_text(json.dumps({**environment, "data": digest[:16]}))
    caplog.clear()
    assert main(["evaluate", f"--run={old}"]) == 0
    assert "digest" not in caplog.text


@pytest.mark.parametrize("change", ["an arm", "dopamine", "the column of dopamine"])
def test_a_table_without_an_arm_or_dopamine_is_scored(
    change, run_of_three_arms, tmp_path, capsys, caplog
):
    table = pd.read_csv(run_of_three_arms.parent / "trials.csv")
    if change == "an arm":
        table["went_right"] %= 2
    elif change == "dopamine":
        table["dopamine"] = np.nan
    else:
        table = table.drop(columns="dopamine")
    table.to_csv(tmp_path / "other.csv", index=False)
    capsys.readouterr()
    words = ["evaluate", f"--run={run_of_three_arms}", f"--table={tmp_path / 'other.csv'}"]
    assert main(words) == 0
    scores = json.loads(capsys.readouterr().out)
    assert 0 < scores["choice"]["normalized_likelihood"] < 1
    assert ("dopamine" in scores) == (change == "an arm")
    assert ("has no values of dopamine" in caplog.text) == (change != "an arm")


def test_a_home_directory_in_a_flag_is_found(trials, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    trials.to_csv(tmp_path / "trials.csv", index=False)
    assert run_fit("~/trials.csv", "~/runs/fit", "--training.tensorboard=~/boards") == 0
    assert (tmp_path / "runs" / "fit" / "report.html").exists()
    assert (tmp_path / "boards").is_dir()
    assert not (tmp_path.parent / "~").exists()
    config = yaml.safe_load((tmp_path / "runs" / "fit" / "config.yaml").read_text())
    assert config["data"]["table"] == str(tmp_path / "trials.csv")
    assert main(["evaluate", "--run=~/runs/fit", "--out=~/scores.json"]) == 0
    assert (tmp_path / "scores.json").exists()
    assert main(["export", "--run=~/runs/fit/model.keras", "--out=~/exported"]) == 0
    assert (tmp_path / "exported").is_dir()


def test_fit_a_table_without_dopamine(trials, tmp_path):
    trials.drop(columns="dopamine").to_csv(tmp_path / "trials.csv", index=False)
    assert run_fit(tmp_path / "trials.csv", tmp_path / "fit") == 0
    metrics = json.loads((tmp_path / "fit" / "metrics.json").read_text())
    assert "dopamine" not in metrics["held_out"]
    history = pd.read_csv(tmp_path / "fit" / "history.csv")
    assert set(history["stage"]) == {"warmup", "stage1"}


def test_real_recordings_run_through_the_same_command(shared, tmp_path):
    out = tmp_path / "dlight"
    assert main([
        "fit", f"--data.table={shared / 'data' / 'dlight_bandit' / 'trials.csv.gz'}",
        f"--out={out}", "--data.columns.session=session_id", "--data.columns.choice=choice_right",
        "--data.columns.dopamine=dlight_response", "--data.columns.forced=forced_choice",
        "--data.columns.trial=trial", *QUICK,
    ]) == 0  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    table = pd.read_csv(shared / "data" / "dlight_bandit" / "trials.csv.gz")
    parts = [metrics["train"], metrics["held_out"]]
    assert [part["choice"]["sessions"] for part in parts] == [18, 9]
    assert sum(part["choice"]["n"] for part in parts) == (~table["forced_choice"]).sum()
    assert sum(part["dopamine"]["n"] for part in parts) == len(table)


def spoil(**columns):
    return lambda table: table.assign(**columns)


BAD_TABLES = {
    "a misnamed column": (lambda t: t.rename(columns={"reward": "rewrad"}), "rewrad"),
    "a choice outside the arms": (spoil(went_right=[7, *[0] * 107]), "from 0 to"),
    "a reward that is not finite": (spoil(reward=[np.inf, *[0] * 107]), "reward"),
    "a reward that is not binary": (spoil(reward=[0.5, *[0] * 107]), "reward"),
    "dopamine all missing": (spoil(dopamine=np.nan), "dopamine"),
    "no valid target": (spoil(forced=True), "choice"),
    "rows out of order": (lambda t: t.iloc[::-1], "trial"),
    "interleaved sessions": (lambda t: t.sort_values("trial", kind="stable"), "session"),
    "a session of two subjects": (spoil(subject=["a"] * 6 + ["b"] * 102), "subject"),
    "an empty table": (lambda t: t.iloc[:0], "trials.csv"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_refused_before_anything_is_written(trials, tmp_path, capsys, name):
    break_it, message = BAD_TABLES[name]
    break_it(trials).to_csv(tmp_path / "trials.csv", index=False)
    assert run_fit(
        tmp_path / "trials.csv", tmp_path / "fit", "--data.columns.dopamine=dopamine",
        "--data.columns.forced=forced", "--data.columns.trial=trial", "--data.num_arms=2",
    ) == 1  # fmt: skip
    error = capsys.readouterr().err
    assert error.startswith("keras-disrnn: error: ")
    assert message in error
    assert len(error.strip().splitlines()) <= 3, error
    assert not (tmp_path / "fit").exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    assert run_fit(tmp_path / "nowhere.csv", tmp_path / "fit") == 1
    assert "nowhere.csv" in capsys.readouterr().err
    (tmp_path / "cut.csv.gz").write_bytes(b"\x1f\x8b\x08\x00 cut")
    assert run_fit(tmp_path / "cut.csv.gz", tmp_path / "fit") == 1
    assert "cut.csv.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        *(ModelSettings, TrainingSettings, SelectionSettings, StudySettings, SyntheticData),
        *(TableData, TfdsData, RecordedData),
    ],
)
def test_every_setting_has_a_help_text(settings):
    described = {
        parameter.arg_name: parameter.description
        for parameter in docstring_parser.parse(settings.__doc__).params
    }
    assert list(described) == [field.name for field in dataclasses.fields(settings)]
    assert all(described.values())


def test_the_flags_of_the_model_are_its_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    arguments = inspect.signature(keras_disrnn.DisRNNModel.__init__).parameters
    for name in ("num_latents", "choice_units", "activation", *PENALTIES):
        assert f"--model.{name} " in text
        assert f"default: {arguments[name].default})" in text
    assert "--model.num_arms" not in text and "--model.seed" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.latent_penalty=-2"], "did you write 1-3 for 1e-3?"),
        (["--model.num_latents=many"], "model.num_latents"),
        (["--model.latent_penalti=1"], "latent_penalti"),
        (["--training.steps_per_epoch=0"], "steps_per_epoch"),
        (["--training.warmup_steps=3"], "warmup_steps"),
    ],
)
def test_a_bad_setting_is_named_before_anything_is_written(tmp_path, capsys, arguments, message):
    out = tmp_path / "run"
    try:
        status = main(["demo", f"--out={out}", *SMALL_DATA, *QUICK, *arguments])
    except SystemExit as stopped:  # the parser ends in this way
        status = stopped.code
    assert status != 0
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_truncated_model_is_refused(demo, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "report.html", "history.csv", "metrics.json"):
        (run / name).write_bytes((demo / name).read_bytes())
    assert main(["evaluate", f"--run={run}"]) == 1
    assert "got no model.keras in it" in capsys.readouterr().err
    (run / "model.keras").write_bytes((demo / "model.keras").read_bytes()[:500])
    assert main(["evaluate", f"--run={run}"]) == 1
    assert "model.keras: expected a model" in capsys.readouterr().err


def rewrite_config(path, out, change):
    """Copy a .keras file and change its configuration."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            new.writestr(name, data)


def test_a_foreign_model_is_refused_before_its_code_is_imported(demo, tmp_path, capsys):
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)]).save(
        tmp_path / "lambda.keras"
    )
    with pytest.raises(ValueError, match="expected a DisRNNModel, got a Sequential"):
        load_model(tmp_path / "lambda.keras")
    (tmp_path / "evil_module.py").write_text("raise SystemExit('it ran')")
    evil = {"module": "evil_module", "class_name": "Evil", "config": {}, "registered_name": None}
    for change in (
        lambda config: config["config"].update(activation=evil),
        lambda config: config.update(compile_config={"optimizer": evil}),
    ):
        rewrite_config(demo / "model.keras", tmp_path / "evil.keras", change)
        with pytest.raises(ValueError, match="got 'evil_module'"):
            load_model(tmp_path / "evil.keras")
        assert main(["simulate", f"--model={tmp_path}/evil.keras", f"--out={tmp_path}/a.csv"]) == 1
        assert "got 'evil_module'" in capsys.readouterr().err
    rewrite_config(demo / "model.keras", tmp_path / "same.keras", lambda config: None)
    assert load_model(tmp_path / "same.keras").core.cell.num_latents == 3
    for content in (b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"):
        (tmp_path / "no.keras").write_bytes(content)
        with pytest.raises(ValueError, match="expected a model saved as a .keras file"):
            load_model(tmp_path / "no.keras")


def test_the_exported_model_plays_a_file_of_trials(demo, trials, tmp_path):
    session = trials[trials["day"] == trials["day"].iloc[0]]
    session.rename(columns={"went_right": "choice"}).to_csv(tmp_path / "one.csv", index=False)
    script = os.path.join(os.path.dirname(__file__), "..", "exports", "play.py")
    printed = subprocess.run(
        [sys.executable, script, str(demo / "saved_model"), str(tmp_path / "one.csv")],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    lines = [line.split(",") for line in printed.strip().splitlines()]
    assert lines[0] == ["trial", "probability_of_choice", "predicted_dopamine"]
    got = np.array(lines[1:], float)
    features = np.zeros((1, len(session) + 1, 2), "float32")
    features[0, 1:] = session[["went_right", "reward"]]
    outputs = keras.models.load_model(demo / "model.keras")(features)
    probability = tf.nn.softmax(outputs["choice"])[0, :-1].numpy()
    chosen = probability[np.arange(len(session)), session["went_right"]]
    np.testing.assert_allclose(got[:, 1], chosen, atol=1e-4)
    np.testing.assert_allclose(got[:, 2], outputs["dopamine"][0, 1:, 0], atol=1e-4)


WRONG_SETTINGS = {
    "batch_size": "--training.batch_size=0",
    "buckets": "--training.buckets=0",
    "choice_weight": "--training.choice_weight=2",
    "optimizer": "--training.optimizer=no_such_optimizer",
    "training: expected steps": "--training.stage1_steps=0",
}


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_a_wrong_setting_is_found_before_the_first_file(name, tmp_path, capsys):
    zero = ["--training.warmup_steps=0", "--training.stage2_steps=0"]
    words = [*SMALL_DATA, *QUICK, *(zero if "steps" in name else []), WRONG_SETTINGS[name]]
    assert main(["demo", f"--out={tmp_path / 'out'}", *words]) == 1
    assert f"error: {name}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_logs_without_tensorboard_are_refused_before_the_first_file(tmp_path):
    """In a child process, whose finder of modules does not know tensorboard."""
    code = (
        "import importlib.util as util, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: name != 'tensorboard' and find(name, *rest) or None\n"
        "from keras_disrnn.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["demo", "--out=out", "--training.tensorboard=logs", *SMALL_DATA, *QUICK]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "tensorboard: expected the package tensorboard" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recover", "--num_seeds=0"], "num_seeds: expected"),
        (["recover", "--workers=0"], "workers: expected"),
        (["recover", "--data.num_sessions=1"], "folds: expected at most"),
        (["recover", "--sizes=[9, 1]"], "folds: expected at most"),
        (["recover", "--model.num_latents=0"], "num_latents: expected"),
        (["compare", "--settings.gru_steps=0"], "gru_steps: expected"),
        (["compare", "--training.buckets=0", *SMALL_DATA_OF_COMPARE], "buckets: expected"),
    ],
)
def test_all_commands_check_before_the_first_file(words, message, tmp_path, capsys):
    assert main([*words, f"--out={tmp_path / 'out'}"]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_figures_of_an_unknown_format_are_refused(demo, tmp_path, capsys):
    words = ["plot", f"--run={demo}", f"--out={tmp_path / 'out'}", "--formats=[png, bmx]"]
    assert main(words) == 1
    assert "formats: expected file name extensions such as png" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_diverged_run_does_not_block_the_corrected_command(tmp_path, capsys, caplog):
    words = ["demo", f"--out={tmp_path / 'out'}", *SMALL_DATA, *QUICK]
    steps = ["--training.stage1_steps=40", "--training.steps_per_epoch=10"]
    assert main([*words, *steps, "--training.learning_rate=1e30"]) == 1
    assert (tmp_path / "out" / "diverged.txt").exists()
    assert main([*words, "--training.stage2_steps=0"]) == 0
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "diverged.txt").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (command, name)
        for command in ("evaluate", "plot", "export", "ablate")
        for name in ("config.yaml", "environment.json", "metrics.json", "model.keras")
        # These two commands do not read the scores.
        if not (command in ("evaluate", "ablate") and name == "metrics.json")
    ],
)
def test_a_damaged_file_of_a_run_is_named(command, name, demo, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(demo, run)
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2])
    words = [command, f"--run={run}"]
    if command != "evaluate":
        words.append(f"--out={tmp_path / 'new'}")
    assert main(words) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("keras-disrnn: error: ") and str(run / name) in error
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
