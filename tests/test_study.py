"""Studies: many fits in a folder, interrupted and resumed, their tables and their report."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import networkx
import numpy as np
import pandas as pd
import pytest
import yaml

from keras_disrnn import bandit
from keras_disrnn.analysis import (
    compute_agreement,
    compute_comparison,
    compute_graph_clusters,
    compute_study_table,
    compute_subject_scores,
)
from keras_disrnn.analysis.evaluation import compute_evaluation, session_totals, stored_totals
from keras_disrnn.analysis.graph import cluster_graphs, graph_from_dict, graph_to_dict, make_graph
from keras_disrnn.analysis.studies import StudyFit
from keras_disrnn.cli import main
from keras_disrnn.data import Columns, Sessions, sessions_from_table
from keras_disrnn.experiments.begin import lock_folder
from keras_disrnn.experiments.data import load_data
from keras_disrnn.experiments.folder import ResultFolder
from keras_disrnn.experiments.settings import ModelSettings, TableData, TrainingSettings
from keras_disrnn.experiments.study import BaselineSettings, StudySettings, plan_study, run_study
from keras_disrnn.experiments.workers import WorkerDied, run_tasks
from keras_disrnn.io.keras_file import load_model
from keras_disrnn.models.baselines import QLearning
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.plots import plot_penalty_curves, plot_subject_scores

TINY = {"num_latents": 2, "update_units": 3, "num_update_layers": 1, "num_choice_layers": 1}
TRAINING = {"warmup_steps": 0, "stage1_steps": 4, "stage2_steps": 0, "steps_per_epoch": 2}


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """Make a table of two subjects with three sessions. The second one always chooses right."""
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=6, num_trials=15, seed=1
    )
    table = played.to_table()[["session", "choice", "reward"]]
    table.insert(0, "subject", np.repeat(["m1", "m2"], 45))
    table.loc[table["subject"] == "m2", "choice"] = 1
    path = tmp_path_factory.mktemp("data") / "trials.csv"
    table.to_csv(path, index=False)
    return path


def settings_of(trials, **changed):
    given = {
        "models": {"small": ModelSettings(**TINY)},
        "training": TrainingSettings(**TRAINING),
        "num_bootstrap_samples": 20,
        **changed,
    }
    return StudySettings(data={"mice": TableData(str(trials), num_arms=2)}, **given)


@pytest.fixture(scope="module")
def study(trials, tmp_path_factory):
    """Make a study in one process. Return its folder, its rows and the lines that it reported."""
    out = tmp_path_factory.mktemp("studies") / "study"
    lines = []
    rows = run_study(out, settings_of(trials), engine="inline", report=lines.append)
    return out, rows, lines


SAME = ["model", "subject", "scale", "seed", "state", "likelihood", "loss", "graph", "key"]


# === The fits ===


def test_each_fit_is_a_row_and_a_folder(study):
    out, rows, lines = study
    assert rows[["subject", "model", "state"]].values.tolist() == [
        ["m1", "small", "done"],
        ["m1", "naive", "done"],
        ["m2", "small", "done"],
        ["m2", "naive", "failed"],
    ]
    # A failure is kept with its error and does not stop the others.
    failed = rows.iloc[3]
    assert failed["error"].startswith("ValueError: sessions: expected free choices of at least two")
    failure = json.loads((out / "fits" / failed["key"] / "failure.json").read_text())
    assert "in fit_sessions" in failure["traceback"]
    assert "in fit_sessions" in (out / "fits" / failed["key"] / "log.txt").read_text()
    for row in rows.iloc[:3].itertuples():
        folder = out / "fits" / row.key
        metrics = json.loads((folder / "run" / "metrics.json").read_text())
        assert row.likelihood == metrics["held_out"]["choice"]["normalized_likelihood"]
        sessions = pd.read_csv(folder / "run" / "sessions.csv")
        assert set(sessions["subject"]) == {row.subject}
        assert row.mebibytes > 100
        if row.model == "small":
            assert row.loss == pd.read_csv(folder / "run" / "history.csv")["loss"].iloc[-1]
            assert row.parameters == load_model(folder / "run" / "model.keras").count_params()
            assert (folder / "run" / "report.html").exists()
    assert rows["likelihood"].iloc[1] == 0.5
    assert lines[0].startswith("0 of 4 done")
    assert re.match(
        r"1 of 4 done, about \d+ (s|min) left \| mice, m1, small x1, seed 0: ", lines[1]
    )
    assert re.match(r"3 of 4 done, 1 failed \| mice, m2, naive, seed 0: FAILED: Value", lines[-1])
    with sqlite3.connect(out / "study.sqlite") as connection:
        stored = connection.execute("SELECT count(*) FROM fits WHERE state = 'done'").fetchone()
    assert stored == (3,)


def test_only_missing_fits_are_made(study, trials, tmp_path):
    out, rows, _ = study
    before = {path: path.stat().st_mtime_ns for path in out.glob("fits/*/fit.json")}
    lines = []
    changed = settings_of(trials, scales=[1.0, 30.0])
    changed.data["mice"] = dataclasses.replace(changed.data["mice"], subjects=["m1"])
    more = run_study(out, changed, engine="inline", report=lines.append)
    assert lines[0].startswith("2 of 3 done, about")
    assert len(lines) == 2 and "mice, m1, small x30, seed 0" in lines[1]
    assert len(more.merge(rows[["key", "likelihood"]], on=["key", "likelihood"])) == 2
    new = out / "fits" / more.loc[more["scale"] == 30, "key"].item()
    config = yaml.safe_load((new / "run" / "config.yaml").read_text())
    assert config["model"]["latent_penalty"] == pytest.approx(30 * 3e-3)
    assert config["model"]["l2_scale"] == 1e-5
    after = {path: path.stat().st_mtime_ns for path in out.glob("fits/*/fit.json")}
    assert set(after) - set(before) == {new / "fit.json"}
    assert before == {path: after[path] for path in before}
    # The same table at another path is the same data. Failed fits are made again on request.
    moved = tmp_path / "moved.csv"
    moved.write_bytes(trials.read_bytes())
    again = run_study(out, settings_of(moved), workers=0, retry_failed=True, report=lines.append)
    assert again["key"].tolist() == rows["key"].tolist()
    assert again["state"].tolist() == ["done", "done", "done", "waiting"]
    # Another table is other data, and so is another split.
    moved.write_text(trials.read_text().rstrip().rsplit("\n", 1)[0] + "\n")
    other, _ = plan_study(settings_of(moved))
    assert not {fit.key for fit in other} & set(rows["key"])
    split = settings_of(trials)
    split.data["mice"] = dataclasses.replace(split.data["mice"], held_out_offset=1)
    other, _ = plan_study(split)
    assert not {fit.key for fit in other} & set(rows["key"])


def processes_below(pid):
    """Return the ids of the worker processes that a process started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.slow
def test_a_killed_study_resumes_to_the_same_numbers(study, trials, tmp_path):
    """A worker is killed, then the study. Finished fits stay, the others are made."""
    out = tmp_path / "killed"
    config = tmp_path / "study.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "data": {"mice": {"table": str(trials), "num_arms": 2}},
                "models": {"small": TINY},
                "training": TRAINING,
                "num_bootstrap_samples": 20,
            }
        )
    )
    command = [sys.executable, "-m", "keras_disrnn", "study", f"--config={config}", f"--out={out}"]
    process = subprocess.Popen(
        [*command, "--workers=1"], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    workers = []
    for line in process.stdout:
        if re.match("1 of 4 done", line):
            workers += processes_below(process.pid)
            os.kill(workers[0], signal.SIGKILL)
        if re.match("2 of 4 done", line):
            workers += processes_below(process.pid)
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(workers) == 2 and workers[0] != workers[1]
    limit = time.monotonic() + 10
    while running(workers[1]) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not running(workers[1]), "a worker outlives the study"
    assert not (out / "report.html").exists()
    done = len(list(out.glob("fits/*/fit.json")))
    assert done == 2
    # An interruption can leave an empty folder of a fit.
    (out / "fits" / "0123456789abcdef").mkdir()
    lines = []
    rows = run_study(out, settings_of(trials), engine="inline", report=lines.append)
    assert lines[0].startswith("2 of 4 done")
    pd.testing.assert_frame_equal(rows[SAME], study[1][SAME], check_exact=True)


def test_a_second_process_is_refused(study, trials):
    out = study[0]
    lock = lock_folder(out)
    with pytest.raises(FileExistsError, match="got one in which process .* works"):
        run_study(out, settings_of(trials), workers=0)
    lock.release()


@pytest.fixture
def without_report(monkeypatch):
    monkeypatch.setattr(
        "keras_disrnn.experiments.study.write_study", lambda *arguments, **options: None
    )


def test_a_reader_of_the_table_does_not_block_the_study(study, trials, without_report):
    out = study[0]
    with contextlib.closing(sqlite3.connect(out / "study.sqlite", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM fits").fetchone()[0] >= 3
        rows = run_study(out, settings_of(trials), workers=0)
        assert len(rows) == 4


def test_a_study_interrupted_before_it_wrote_its_table_resumes(
    trials, tmp_path, monkeypatch, without_report
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("keras_disrnn.experiments.study.StudyTable", None)  # Calling it raises.
        with pytest.raises(TypeError):
            run_study(out, settings_of(trials), workers=0)
    assert len(run_study(out, settings_of(trials), workers=0)) == 4


def test_a_table_that_changes_while_the_study_runs_fails_its_remaining_fits(
    trials, tmp_path, without_report
):
    table = tmp_path / "trials.csv"
    table.write_bytes(trials.read_bytes())

    def report(line):
        if line.startswith("1 of"):
            table.write_text(trials.read_text().rstrip().rsplit("\n", 1)[0] + "\n")

    settings = settings_of(
        table, models={}, baselines=BaselineSettings(["naive", "Q, choice"], num_starts=1)
    )
    settings.data["mice"] = dataclasses.replace(settings.data["mice"], subjects=["m1"])
    rows = run_study(tmp_path / "out", settings, engine="inline", report=report)
    assert rows["state"].tolist() == ["done", "failed"]
    assert "got one that has changed since" in rows["error"].iloc[1]


def test_results_of_earlier_settings_are_removed(study, trials, tmp_path):
    out = tmp_path / "study"
    shutil.copytree(study[0], out)
    # Earlier settings had several seeds.
    (out / "agreement.csv").write_text("old")
    only = settings_of(trials, models={}, against=None)
    run_study(out, only, workers=0)
    # The naive model of m2 failed, so there is no table of models and no figure of it.
    assert not (out / "table.csv").exists() and not (out / "agreement.csv").exists()
    assert [path.name for path in sorted((out / "figures").glob("*.png"))] == ["mice_subjects.png"]
    assert (out / "report.html").read_text().count("data:image/png;base64,") == 1


def test_the_subject_of_a_pooled_fit_is_none(trials, tmp_path, without_report):
    settings = settings_of(trials, models={}, subjects="both")
    rows = run_study(tmp_path / "out", settings, workers=0)
    assert rows["subject"].tolist() == ["m1", "m2", None]


@pytest.mark.parametrize(
    "name", ["fit.json", "run/sessions.csv", "run/metrics.json", "run/SHA256SUMS"]
)
def test_a_study_goes_on_without_a_damaged_fit(name, study, trials, tmp_path):
    out = tmp_path / "study"
    shutil.copytree(study[0], out)
    key = study[1]["key"].iloc[0]
    damaged = out / "fits" / key / name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    (out / "study.sqlite").write_text("damaged")
    rows = run_study(out, settings_of(trials), workers=0)
    broken = rows["key"] == key
    assert (rows["state"][broken] == "failed").all()
    assert (rows["state"][~broken] == study[1]["state"][~broken]).all()
    error = rows["error"][broken].iloc[0]
    assert f"{key}/{name}: expected" in error
    rows = run_study(out, settings_of(trials), engine="inline", retry_failed=True)
    assert rows["state"].tolist() == study[1]["state"].tolist()


# === Penalty scales ===


def test_a_scale_multiplies_all_penalties_but_l2(trials):
    """Also the penalties of the embedding of subjects."""
    shape = ModelSettings(**TINY, subject_units=2)
    settings = settings_of(trials, models={"wide": shape}, subjects="pooled", scales=[1.0, 2.0])
    fits, _ = plan_study(settings)
    one, two = (fit.config["model"] for fit in fits if fit.model == "wide")
    assert sum(penalty.of_subjects for penalty in PENALTIES.values()) == 4
    for name in PENALTIES:
        assert one[name] == getattr(shape, name) > 0
        assert two[name] == (1 if name == "l2_scale" else 2) * one[name], name


# === What is refused before any fit ===


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scales": [3.0, 1.0]}, "scales: expected rising numbers above 0"),
        ({"seeds": [0, 0]}, "seeds: expected at least one seed, each once"),
        (
            {"baselines": BaselineSettings(["naive", "Q"])},
            "data.mice: baselines.names: expected .*'Q'",
        ),
        ({"baselines": BaselineSettings(["Q, joint"])}, "got 'Q, joint'"),
        ({"against": "small x1"}, "against: expected one of 'naive', 'small', got 'small x1'"),
        ({"models": {"naive": ModelSettings()}}, "models: expected names other than"),
        (
            {"models": {"wide": ModelSettings(subject_units=2)}},
            "data.mice: models.wide: subject_units: .*of at least 2 .*got sessions of 'm1' alone",
        ),
        (
            {"models": {"small": ModelSettings(max_latent_value=0.0)}},
            "data.mice: models.small: max_latent_value",
        ),
        (
            {"training": TrainingSettings(warmup_steps=0, stage1_steps=0)},
            "data.mice: subject 'm1', models.small: sessions: expected dopamine",
        ),
    ],
)
def test_a_bad_setting_is_named(trials, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        run_study(tmp_path / "out", settings_of(trials, **changed), report=print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (TableData("nowhere.csv"), FileNotFoundError, "data.mice: .*nowhere.csv: .*no such file"),
        (TableData("", Columns(choice="went")), ValueError, "data.mice: .*'went'"),
        (TableData("", held_out_sessions=["1"]), ValueError, "data.mice: "),
        (
            TableData("", held_out_subjects=["m2"]),
            ValueError,
            "subject 'm1': expected sessions in both parts, got no session in the held-out part",
        ),
        (TableData("", subjects=["m7"]), ValueError, "data.mice: subjects: .*got 'm7'"),
        (
            TableData("", Columns(forced="instructed")),
            ValueError,
            "data.mice: sessions: expected a free choice of subject 'm2' in the held-out part",
        ),
    ],
)
def test_bad_data_are_named(trials, tmp_path, table, error, message):
    rows = pd.read_csv(trials)
    rows["instructed"] = (rows["subject"] == "m2") & (rows["session"] == rows["session"].max())
    rows.to_csv(tmp_path / "trials.csv", index=False)
    data = {"mice": dataclasses.replace(table, table=table.table or str(tmp_path / "trials.csv"))}
    with pytest.raises(error, match=message):
        run_study(tmp_path / "out", StudySettings(data, models={"small": ModelSettings(**TINY)}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BaselineSettings(num_starts=0), "baselines.num_starts: expected a whole number"),
        (
            lambda: StudySettings(data={"a": TableData("")}, num_bootstrap_samples=0),
            "num_bootstrap_samples: expected a whole number of at least 1",
        ),
        (lambda: StudySettings(data={"a/b": TableData("")}), "data: expected names of.*'a/b'"),
        (lambda: StudySettings(data={"..": TableData("")}), "data: expected names of"),
    ],
)
def test_bad_settings_are_refused_when_they_are_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("wrong", [{"engine": "sideways"}, {"threads": 0}, {"workers": -1}])
def test_a_bad_engine_leaves_no_folder(trials, tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        run_study(tmp_path / "out", settings_of(trials), **wrong)
    assert not (tmp_path / "out").exists()


def test_a_model_of_several_subjects_can_be_fitted_to_pooled_subjects(trials):
    models = {"wide": ModelSettings(**TINY, subject_units=2)}
    fits, _ = plan_study(settings_of(trials, models=models, subjects="pooled"))
    assert [fit.label for fit in fits] == [
        "mice, all subjects, wide x1, seed 0",
        "mice, all subjects, naive, seed 0",
    ]


def test_a_foreign_folder_is_refused(trials, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    arguments = ["study", f"--data={{'mice': {{'table': '{trials}'}}}}", f"--out={tmp_path}"]
    assert main(arguments) == 1
    assert "got other files (mine.txt)" in capsys.readouterr().err


def test_the_folder_of_another_command_is_refused(trials, tmp_path):
    folder = ResultFolder(tmp_path / "out", {"seed": 0}, command="fit")
    with folder.begin():
        (folder.path / "history.csv").touch()
    with pytest.raises(FileExistsError, match="expected a result of the command 'study'"):
        run_study(tmp_path / "out", settings_of(trials))


def test_one_subject_is_split_as_in_the_whole_table(trials):
    whole = load_data(TableData(str(trials)), 0)
    one = load_data(TableData(str(trials), subjects=["m2"]), 0)
    for part in ("train", "held_out"):
        ids = [
            name
            for name, who in zip(
                getattr(whole, part).ids, getattr(whole, part).subjects, strict=True
            )
            if who == "m2"
        ]
        assert list(getattr(one, part).ids) == ids
        assert set(getattr(one, part).subjects) == {"m2"}


def test_a_subject_is_not_padded_to_the_length_of_the_others(trials, tmp_path):
    table = pd.read_csv(trials)
    short = table[(table["subject"] == "m1") | (table.groupby("session").cumcount() < 9)]
    short.to_csv(tmp_path / "short.csv", index=False)
    alone = short[short["subject"] == "m2"]
    alone.to_csv(tmp_path / "alone.csv", index=False)
    taken = load_data(TableData(str(tmp_path / "short.csv"), num_arms=2, subjects=["m2"]), 0)
    alone = load_data(TableData(str(tmp_path / "alone.csv"), num_arms=2), 0)
    for part in ("train", "held_out"):
        for name in ("features", "choice", "choice_weight", "dopamine", "dopamine_weight"):
            np.testing.assert_array_equal(
                getattr(getattr(taken, part), name), getattr(getattr(alone, part), name)
            )


# === The results ===


def test_the_table_is_that_of_the_models(study, trials):
    out, rows, _ = study
    # Another test may have resumed it with other settings.
    run_study(out, settings_of(trials), workers=0)
    table = pd.read_csv(out / "table.csv")
    assert table[["part", "model"]].values.tolist() == [["train", "small"], ["held_out", "small"]]
    table = table.iloc[[1]]
    data = load_data(TableData(str(trials), num_arms=2), 0)
    keys = rows[rows["model"] == "small"].set_index("subject")["key"]
    models = {
        subject: load_model(out / "fits" / key / "run" / "model.keras")
        for subject, key in keys.items()
    }
    expected = compute_comparison({"small": models}, {"held_out": data.held_out}, replicates=20)
    for name in ("normalized_likelihood", "normalized_likelihood_lower", "parameters", "choices"):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-5)
    assert "| small |" in (out / "table.md").read_text()
    page = (out / "report.html").read_text()
    assert "naive is left out: no fit of &#39;m2&#39; is done." in page
    assert "expected free choices of at least two arms" in page
    assert page.count("data:image/png;base64,") == 3
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "the report must stand alone"
    fits = pd.read_csv(out / "fits.csv")
    pd.testing.assert_series_equal(fits["likelihood"], rows["likelihood"])
    subjects = pd.read_csv(out / "subjects.csv").set_index(["subject", "model"])
    assert subjects["likelihood"].to_dict() == pytest.approx(
        rows.dropna(subset="likelihood").set_index(["subject", "model"])["likelihood"].to_dict()
    )


def test_stored_sums_are_those_of_the_model(rng):
    """Test several signals too, and sessions in another order than in the table."""
    choice, reward = rng.integers(0, 2, (2, 5, 12))
    sessions = Sessions.from_trials(
        choice, reward, dopamine=rng.normal(2.0, 1.0, (5, 12, 2)), signal_names=("a", "b")
    )
    model = QLearning(alpha=0.3, kappa_1=1.0, kappa_2=1.0, num_signals=2)
    per_session = compute_evaluation(model, sessions).per_session
    totals = stored_totals(per_session.sample(frac=1, random_state=0), sessions, parameter_count=3)
    for stored, fresh in zip(totals[:2], session_totals(model, sessions), strict=True):
        np.testing.assert_allclose(stored, fresh, rtol=1e-12, atol=1e-12)
    one = {"one": {"held_out": totals}}
    table = compute_comparison({**one, "model": model}, {"held_out": sessions}, replicates=10)
    assert table["r2"].iloc[0] == pytest.approx(table["r2"].iloc[1])
    assert table["parameters"].tolist() == [3, model.parameter_count]
    with pytest.raises(ValueError, match="expected a row of session"):
        stored_totals(per_session.iloc[1:], sessions)


ONE = make_graph([("choice", "z1"), ("z1", "choice readout")])
ALSO_ONE = make_graph([("choice", "z4"), ("z4", "choice readout")])
TWO = make_graph([("reward", "z1"), ("z1", "choice readout")])


def test_graphs_are_clustered_and_kept():
    silent = networkx.DiGraph()
    silent.add_node("z2", kind="latent")
    graphs = [ONE, TWO, ALSO_ONE, silent, networkx.DiGraph(), TWO]
    assert cluster_graphs(graphs) == [0, 1, 0, 2, 3, 1]
    kept = [graph_from_dict(json.loads(json.dumps(graph_to_dict(graph)))) for graph in graphs]
    assert cluster_graphs([*graphs, *kept])[6:] == cluster_graphs(graphs)


def sessions_of(counts):
    """Make sessions of ten free choices each. `counts` is the number of each subject's sessions."""
    table = pd.DataFrame(
        [
            {"subject": subject, "session": f"{subject}-{number}", "choice": trial % 2, "reward": 1}
            for subject, count in counts.items()
            for number in range(count)
            for trial in range(10)
        ]
    )
    return sessions_from_table(table)


def fit_of(sessions, likelihoods, **given):
    """Make a fit with the given likelihood of each held-out session, and 0.6 of the others."""
    rows = []
    for part in ("train", "held_out"):
        for name, subject in zip(sessions[part].ids, sessions[part].subjects, strict=True):
            if given["subject"] in (None, subject):
                likelihood = likelihoods[name] if part == "held_out" else 0.6
                rows.append((name, subject, 10, 10 * np.log(likelihood), part))
    columns = ["session", "subject", "n_choices", "log_likelihood", "part"]
    table = pd.DataFrame(rows, columns=columns)
    held_out = table[table["part"] == "held_out"]
    mean = float(np.exp(held_out["log_likelihood"].sum() / held_out["n_choices"].sum()))
    scores = {
        "loss": 1.0,
        "likelihood": mean,
        "parameters": 7,
        "edges": 2,
        **given.pop("scores", {}),
    }
    return StudyFit(
        **{"data": "d", "seed": 0, "graph": ONE, **given}, scores=scores, sessions=table
    )


@pytest.fixture(scope="module")
def made():
    """Make fits of two subjects, two penalty scales and two seeds, with known scores."""
    both = sessions_of({"a": 4, "b": 3})
    held = np.array([name in ("a-0", "a-1", "b-0") for name in both.ids])
    parts = {"train": both.subset(~held), "held_out": both.subset(held)}
    weak = {"a-0": 0.9, "a-1": 0.5, "b-0": 0.6}
    strong = {"a-0": 0.7, "a-1": 0.8, "b-0": 0.7}
    fits, one = [], (ONE, ALSO_ONE)
    for subject in ("a", "b"):
        for scale, values in ((1.0, weak), (3.0, strong)):
            for seed, loss in ((0, 0.4), (1, 0.3)):
                # The first seed predicts better, but its training loss is higher.
                shift = 0.05 if seed == 0 else 0.0
                fits.append(
                    fit_of(
                        parts, {name: value + shift for name, value in values.items()},
                        subject=subject, model="m", scale=scale, seed=seed,
                        graph=TWO if (scale, seed, subject) == (1.0, 0, "a") else one[seed],
                        scores={"loss": loss, "edges": 4 - scale},
                    )
                )  # fmt: skip
        fits.append(
            fit_of(
                parts, dict.fromkeys(weak, 0.5), subject=subject, model="base", scale=None,
                graph=None,
            )
        )  # fmt: skip
    return parts, fits, weak, strong


def test_seeds_are_chosen_by_training_loss_and_scales_by_other_sessions(made):
    parts, fits, weak, strong = made
    table, left_out = compute_study_table(fits, parts, against="base", replicates=10)
    assert not left_out
    held_out = table[table["part"] == "held_out"].set_index("model")["normalized_likelihood"]
    assert held_out["m x1"] == pytest.approx(np.prod(list(weak.values())) ** (1 / 3))
    # a-0 is scored at the scale that is best for a-1 (x3), a-1 at the one for a-0 (x1). b-0 is the
    # only one of its subject and is scored at the best scale for a-0 and a-1 (x3).
    chosen = (strong["a-0"] * weak["a-1"] * strong["b-0"]) ** (1 / 3)
    assert held_out["m, scale chosen"] == pytest.approx(chosen)
    assert table.attrs["against"] == "base"
    fewer = [fit for fit in fits if (fit.subject, fit.scale) != ("b", 3.0)]
    table, left_out = compute_study_table(fewer, parts, against="m x3", replicates=10)
    assert left_out == ["m x3 is left out: no fit of 'b' is done."]
    assert set(table["model"]) == {"m x1", "base"}
    pooled = fit_of(parts, weak, subject=None, model="m", scale=1.0)
    table, _ = compute_study_table([*fits, pooled], parts, replicates=10)
    row = table[(table["model"] == "m x1, pooled") & (table["part"] == "held_out")]
    assert row["normalized_likelihood"].item() == pytest.approx(held_out["m x1"])


def test_the_best_model_of_each_subject_is_named(made):
    parts, fits, weak, strong = made
    table = compute_subject_scores(fits, parts["held_out"]).set_index(["subject", "model"])
    assert table[table["best"]].index.tolist() == [("a", "m x3"), ("b", "m x3")]
    best = np.sqrt(strong["a-0"] * strong["a-1"])
    next_best = np.sqrt(weak["a-0"] * weak["a-1"])
    assert table.loc[("a", "m x3"), "difference"] == pytest.approx(best - next_best)
    assert table.loc[("a", "m x1"), "difference"] == pytest.approx(next_best - best)
    # With two sessions, each jackknife estimate is the score of one session.
    left = [strong["a-1"] - weak["a-1"], strong["a-0"] - weak["a-0"]]
    error = np.sqrt(0.5 * np.sum((np.array(left) - np.mean(left)) ** 2))
    assert table.loc[("a", "m x3"), "difference_se"] == pytest.approx(error)
    assert np.isnan(table.loc[("b", "m x3"), "difference_se"])
    # A session without a free choice changes nothing.
    blank = {"subject": "a", "session": "a-9", "n_choices": 0, "log_likelihood": 0.0}
    blank = pd.DataFrame([{**blank, "part": "held_out"}])
    more = [
        fit._replace(sessions=pd.concat([fit.sessions, blank])) if fit.subject == "a" else fit
        for fit in fits
    ]
    counts = sessions_of({"a": 10, "b": 1})
    own = counts.subset(np.isin(counts.ids, ["a-0", "a-1", "a-9", "b-0"]))
    again = compute_subject_scores(more, own).set_index(["subject", "model"])
    assert again.loc[("a", "m x3"), "difference_se"] == pytest.approx(error)
    figure = plot_subject_scores(table.reset_index())
    rings = [line for line in figure.axes[0].lines if line.get_markersize() == 10]
    assert sorted(x for ring in rings for x in ring.get_xdata()) == pytest.approx(
        sorted(table[table["best"]]["likelihood"])
    )
    assert [bar.get_width() for bar in figure.axes[1].patches] == [0, 2, 0]
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"m x1", "m x3", "base: 0.500"}


def test_agreement_and_clusters(made):
    _, fits, _, _ = made
    table = compute_agreement(fits).set_index(["subject", "scale"])
    assert table["same_graph"].to_dict() == {
        ("a", 1.0): 0,
        ("a", 3.0): 1,
        ("b", 1.0): 1,
        ("b", 3.0): 1,
    }
    b = fits[5:7]
    assert table.loc[("b", 1.0), "likelihood_range"] == pytest.approx(
        b[0].scores["likelihood"] - b[1].scores["likelihood"]
    )
    clusters = compute_graph_clusters(fits)
    assert clusters["fits"].tolist() == [7, 1]
    assert clusters["graph"].tolist() == [
        "choice > z4; z4 > choice readout", "reward > z1; z1 > choice readout",
    ]  # fmt: skip
    assert clusters["scales"].tolist() == ["1, 3", "1"]
    assert clusters["subjects"].tolist() == [2, 1]
    pooled = [fit._replace(subject=None) for fit in fits[:2]]
    assert compute_graph_clusters([*fits, *pooled])["subjects"].tolist() == [2, 1]
    assert compute_graph_clusters(fits[4:5]) is None
    assert compute_agreement(fits[4:5]) is None


def test_the_curves_are_means_over_seeds_and_subjects(made):
    _, fits, _, _ = made
    figure = plot_penalty_curves(fits)
    top, bottom = figure.axes
    thick = next(line for line in top.lines if line.get_linewidth() == 2)
    expected = [
        np.mean([f.scores["likelihood"] for f in fits if f.scale == scale]) for scale in (1.0, 3.0)
    ]
    np.testing.assert_allclose(thick.get_ydata(), expected)
    assert {text.get_text() for text in top.get_legend().get_texts()} == {"m", "base: 0.500"}
    np.testing.assert_allclose(bottom.lines[0].get_ydata(), [3, 1])
    assert [text.get_text() for text in bottom.texts] == ["50%", "100%"]
    # A baseline without a subject has another mean. One at chance is named, not drawn.
    lacking = [fit for fit in fits if (fit.subject, fit.model) != ("b", "base")]
    better = [
        fit._replace(model="good", scores={**fit.scores, "likelihood": 0.7})
        for fit in fits
        if fit.model == "base"
    ]
    (top, _) = plot_penalty_curves([*lacking, *better]).axes
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["m", "good"]
    (line,) = [line for line in top.lines if line.get_label() == "good"]
    assert list(line.get_ydata()) == [0.7, 0.7]
    pooled = [fit._replace(subject=None) for fit in fits if fit.subject == "a"]
    (top, _) = plot_penalty_curves(pooled).axes
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["m", "base: 0.500"]
    with pytest.raises(ValueError, match="model with penalties"):
        plot_penalty_curves(fits[4:5])


# === Workers ===


def double(number, folder):
    """A task that raises at 3, dies once at 4 and always dies at 5."""
    if number == 3:
        raise KeyError("three")
    tried = Path(folder) / f"tried-{number}"
    if number == 5 or (number == 4 and not tried.exists()):
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number, os.getpid()


@pytest.mark.parametrize("engine", ["sideways", "ray"])
def test_an_unknown_or_missing_engine_is_refused(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=f"engine: .*{engine}"):
        list(run_tasks(double, [(1, "")], engine=engine))


def check_engine_of(engine, folder):
    numbers = (1, 2, 3, 4, 5)
    outcomes = {
        outcome.task[0]: outcome
        for outcome in run_tasks(
            double, [(n, str(folder)) for n in numbers], engine=engine, workers=2, retries=1
        )
    }
    assert set(outcomes) == set(numbers)
    assert [outcomes[n].value[0] for n in (1, 2, 4)] == [2, 4, 8]
    assert repr(outcomes[3].error) == "KeyError('three')"
    assert "in double" in outcomes[3].traceback
    assert isinstance(outcomes[5].error, WorkerDied)
    assert "died 2 times" in str(outcomes[5].error)
    assert os.getpid() not in {outcomes[n].value[1] for n in (1, 2, 4)}


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(tmp_path):
    check_engine_of("local", tmp_path)


def leave(code):
    os._exit(code) if code > 0 else os.kill(os.getpid(), -code)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "hint"), [(1, "__main__"), (-9, "out of memory")])
def test_the_message_says_why_a_worker_died(code, hint):
    (outcome,) = run_tasks(leave, [(int(code),)], engine="local", workers=1, retries=0)
    assert f"died once in this task (the last time: exit code {code})" in str(outcome.error)
    assert hint in str(outcome.error)


@pytest.mark.slow
def test_a_worker_is_replaced_after_many_tasks(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_disrnn.experiments.workers.MAX_TASKS_PER_WORKER", 2)
    tasks = [(number, str(tmp_path)) for number in (1, 2, 6, 7)]
    outcomes = list(run_tasks(double, tasks, engine="local", workers=1))
    assert [outcome.value[0] for outcome in outcomes] == [2, 4, 12, 14]
    pids = [outcome.value[1] for outcome in outcomes]
    assert pids[0] == pids[1] != pids[2] == pids[3]


@pytest.fixture
def cluster():
    """Start a Ray of two processors on this machine, and use it like any other cluster."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'keras-disrnn[ray]'")
    tests = str(Path(__file__).parent)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": tests}},
    )
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray_replaces_a_worker_that_dies(cluster, tmp_path):
    check_engine_of("ray", tmp_path)


@pytest.mark.slow
def test_a_cluster_loses_a_worker_and_gives_the_same_numbers(cluster, study, trials, tmp_path):
    lines, killed = [], []

    def report(line):
        lines.append(line)
        if len(lines) == 3:  # Two fits are done, and others run.
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    title = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                if title.startswith(b"ray::") and b"_attempt_in_ray" in title and not killed:
                    killed.append(int(process.name))
                    os.kill(killed[0], signal.SIGKILL)

    out = tmp_path / "ray"
    rows = run_study(out, settings_of(trials), engine="ray", workers=2, report=report)
    assert killed and not Path(f"/proc/{killed[0]}").exists()
    pd.testing.assert_frame_equal(rows[SAME], study[1][SAME], check_exact=True)
