"""Kills, full disks, damaged files and second processes: a command resumes, or says what to do.

`FAULTS_TABLE=faults.csv` adds the results to a table. `FAULTS_KILLS=1000` kills every command at
each of its operations, instead of at some of them.
"""

import io
import json
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from fault_injection import Warm, state_of

from keras_disrnn import bandit
from keras_disrnn.experiments.stored_run import load_results, load_run
from keras_disrnn.io.card import read_record
from keras_disrnn.io.saved_model import check

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("FAULTS_KILLS", "6"))
"""At how many operations of each command the child is killed."""

FULL = int(os.environ.get("FAULTS_FULL", "6"))
"""At how many operations of each command the disk becomes full."""

MODEL = ["--model.num_latents=2", "--model.update_units=3", "--model.num_update_layers=1"]
TRAINING = [
    "--training.warmup_steps=2", "--training.stage1_steps=4", "--training.stage2_steps=2",
    "--training.steps_per_epoch=2",
]  # fmt: skip
SELECTION = [
    "--selection.scales=[1, 2]", "--selection.dopamine_scales=[1, 2]", "--selection.steps=2",
    "--selection.warmup_steps=2", "--selection.dopamine_steps=2", "--selection.settle_steps=0",
    "--selection.separation_steps=0", "--selection.batch_size=4",
]  # fmt: skip
SYNTHETIC = ["--data.num_sessions=6", "--data.num_held_out_sessions=3", "--data.num_trials=8"]
TABLE = [
    "--data.table=trials.csv",
    "--data.columns.dopamine=dopamine",
    "--data.columns.trial=trial",
]
STUDY = {
    "data": {"mice": {"columns": {"dopamine": "dopamine"}}},
    "subjects": "pooled",
    "models": {"small": {"num_latents": 2, "update_units": 3, "num_update_layers": 1}},
    "training": {"warmup_steps": 2, "stage1_steps": 4, "stage2_steps": 0, "steps_per_epoch": 2},
    "num_bootstrap_samples": 20,
}
COMMANDS = {
    "demo": ["demo", "--out=out", *SYNTHETIC, *TRAINING, *MODEL],
    "recover": ["recover", "--out=out", "--num_seeds=1", *SYNTHETIC, *MODEL, *SELECTION],
    "compare": [
        "compare", "--out=out", *TABLE, *TRAINING, *MODEL, "--settings.cognitive=[FQ]",
        "--settings.gru_units=0", "--settings.num_starts=1", "--settings.num_bootstrap_samples=20",
    ],
    "study": ["study", "--out=out", "--engine=inline"],
    "select": ["select", "--out=out", *TABLE, *MODEL, *SELECTION],
}  # fmt: skip

ROW = ["command", "fault", "operations", "tries", "resumed", "refused"]
"""The columns of the table of results."""

TIMES = ("seconds", "mebibytes", "sha256", "began")


@pytest.fixture(scope="module")
def warm():
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="module")
def note():
    """A function that adds a row to the table of results."""

    def add(command, fault, **row):
        if file := os.environ.get("FAULTS_TABLE"):
            row = pd.DataFrame([{"command": command, "fault": fault, **row}], columns=ROW)
            row.to_csv(file, mode="a", index=False, header=not os.path.exists(file))

    return add


def make_words(name, parent):
    """Return the words of a command, and write the table and the settings that it reads."""
    played = bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=6, num_trials=8, seed=1
    )
    table = played.to_table()[["subject", "session", "trial", "choice", "reward", "dopamine"]]
    table.to_csv(parent / "trials.csv", index=False)
    settings = {**STUDY, "data": {"mice": {**STUDY["data"]["mice"]}}}
    settings["data"]["mice"]["table"] = str(parent / "trials.csv")
    (parent / "study.yaml").write_text(yaml.safe_dump(settings))
    words = list(COMMANDS[name])
    if name == "study":
        words.append(f"--config={parent / 'study.yaml'}")
    if name in ("compare", "select"):
        words.append(f"--data.table={parent / 'trials.csv'}")
    return words


class Reference:
    """A command that ran without a fault, and each state on the disk that a kill can leave."""

    def __init__(self, name, parent, warm):
        self.name, self.words, self.warm = name, make_words(name, parent), warm
        self.root = parent / "root"
        self.root.mkdir()
        log = f"{self.root}.log"
        status, text = warm.run(self.words, self.root, fault="states", log=log)
        assert status == 0, text
        self.operations = Path(log).read_text().splitlines()
        self.states = {path.name: path for path in Path(f"{self.root}.states").iterdir()}
        self.states[state_of(self.root)] = self.root
        self.results = results_of(self.root / "out")

    def sample(self, count):
        """Choose operations, counted from 1, evenly from the first to the last."""
        number = len(self.operations)
        return sorted({*np.linspace(1, number, min(count, number)).round().astype(int).tolist()})

    def fresh(self, tmp_path, state=None):
        """Copy a state, or an empty working directory."""
        root = tmp_path / "root"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(state or self.root, root)
        if state is None:
            shutil.rmtree(root / "out")
        return root

    def check_resumes(self, root, *words):
        """Run the command again, and compare its results with those without a fault."""
        status, text = self.warm.run([*self.words, *words], root)
        finished = status == 1 and "got a finished result" in text
        if finished:
            assert_one_line(text)
        else:
            assert status == 0, text
        assert_equal(results_of(root / "out"), self.results)
        left = [path.name for path in root.rglob("*") if ".partial" in path.name]
        # A finished result is not touched. The lock of a killed process in it locks nothing.
        assert not left and (finished or not list(root.rglob(".lock")))


@pytest.fixture(scope="module", params=list(COMMANDS))
def reference(request, tmp_path_factory, warm):
    return Reference(request.param, tmp_path_factory.mktemp(request.param), warm)


def results_of(out):
    """Read the weights, scores and tables of a result, without times."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if "paths/" in name or "unfinished" in name or "saved_model" in name:
            continue
        if path.suffix == ".keras":
            found[name] = _weights(path)
        elif path.suffix == ".csv":
            table = pd.read_csv(path)
            found[name] = table.drop(columns=[c for c in TIMES if c in table]).to_dict("list")
        elif path.name in ("metrics.json", "result.json", "fit.json"):
            found[name] = _without_times(json.loads(path.read_text()))
        elif path.name in ("report.html", "table.md"):
            found[name] = True
    return found


def _weights(path):
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    arrays = {}
    with h5py.File(content) as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    # A resumed model may not have the state of the optimizer.
    return {name: array for name, array in arrays.items() if not name.startswith("optimizer")}


def _without_times(value):
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    return value


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_equal(found[name], expected[name], err_msg=name)


def assert_one_line(text, *names):
    """Check that a command ended with one line that names the file and the remedy."""
    line = text.strip().splitlines()[-1]
    assert line.startswith("keras-disrnn: error: "), text
    assert "; " in line and "Traceback" not in text, text
    if names:
        assert any(name in line for name in names), line


# === Kills ===


def test_every_state_that_a_kill_leaves_resumes_to_the_same_results(reference, tmp_path, note):
    for state in reference.states.values():
        reference.check_resumes(reference.fresh(tmp_path, state))
    note(
        reference.name,
        "kill: each state that an operation leaves",
        tries=len(reference.states),
        operations=len(reference.operations),
        resumed=len(reference.states),
        refused=0,
    )


def test_a_killed_command_leaves_a_state_that_resumes(reference, tmp_path, note):
    tried = reference.sample(KILLS)
    for at in tried:
        root = reference.fresh(tmp_path)
        status, text = reference.warm.run(reference.words, root, fault="kill", at=at)
        assert status == -9, text
        assert state_of(root) in reference.states, reference.operations[at - 1]
        reference.check_resumes(root)
    note(
        reference.name,
        "kill: SIGKILL at an operation",
        tries=len(tried),
        operations=len(reference.operations),
        resumed=len(tried),
        refused=0,
    )


# === Full disks ===


def test_a_full_disk_is_one_line_and_the_command_resumes(reference, tmp_path, note):
    tried = reference.sample(FULL)
    for at in tried:
        root = reference.fresh(tmp_path)
        status, text = reference.warm.run(reference.words, root, fault="full", at=at)
        if status == 0:  # The last operations remove files, which needs no space.
            reference.check_resumes(root)
            continue
        assert status == 1, text
        again = []
        if reference.name == "study" and "FAILED" in text:
            # A study goes on without the fit, and makes it again if it is asked to.
            assert "No space left" in text
            again = ["--retry_failed=true"]
        else:
            assert_one_line(text, "No space left")
            assert state_of(root) in reference.states, reference.operations[at - 1]
        reference.check_resumes(root, *again)
    note(
        reference.name,
        "full disk from an operation on",
        tries=len(tried),
        operations=len(reference.operations),
        resumed=len(tried),
        refused=0,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory, warm):
    return Reference("demo", tmp_path_factory.mktemp("whole"), warm)


@pytest.mark.parametrize("limit", [3_000, 20_000, 60_000])
def test_files_that_cannot_grow_are_named(limit, demo, tmp_path, note):
    """The limit of the system also holds for TensorFlow's own writing, and for the output."""
    root = demo.fresh(tmp_path)
    status, text = demo.warm.run(demo.words, root, fault="limit", at=limit)
    assert status == 1, text
    assert_one_line(text, str(Path("out")))
    demo.check_resumes(root)
    note("demo", f"no file above {limit} bytes", tries=1, resumed=1, refused=0)


@pytest.mark.parametrize("size", ["16k", "200k", "1200k"])
def test_a_small_disk_is_named(size, demo, tmp_path, note):
    """A real file system without space, where the test may mount one."""
    root = demo.fresh(tmp_path)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(root)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system needs the rights of the administrator")
    try:
        status, text = demo.warm.run(demo.words, root)
        assert status == 1, text
        assert_one_line(text, str(Path("out")))
        subprocess.run(["mount", "-o", "remount,size=100m", str(root)], check=True)
        demo.check_resumes(root)
    finally:
        subprocess.run(["umount", str(root)], check=True)
    note("demo", f"a disk of {size}", tries=1, resumed=1, refused=0)


# === Damaged files ===


def damages(whole):
    yield "truncated", whole[: len(whole) // 2]
    yield "emptied", b""
    for part in (1, 3, 5, 7):
        place = len(whole) * part // 8
        yield (
            f"a bit flipped at {part}/8",
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        )


def read_everything(run):
    """Read a finished run as the commands do that read one again."""
    model, data, seed = load_run(run)
    record = read_record(run)
    results = load_results(run)
    check(run / "saved_model")
    return {
        "weights": model.get_weights(),
        "data": data,
        "seed": seed,
        "metrics": results["metrics"],
        "history": results["history"].to_dict("list"),
        "sessions": record.sessions.to_dict("list"),
        "environment": record.environment["command"],
    }


def test_every_damaged_file_of_a_finished_run_is_named(demo, tmp_path, note):
    run = demo.fresh(tmp_path, demo.root) / "out"
    expected = read_everything(run)
    tries = refused = 0
    for path in sorted(run.rglob("*")):
        if path.is_dir():
            continue
        whole = path.read_bytes()
        for damage, content in damages(whole):
            if content == whole:
                continue
            path.write_bytes(content)
            tries += 1
            try:
                found = read_everything(run)
            except (ValueError, OSError) as error:
                refused += 1
                # A sum and its file disagree, and either may be the damaged one.
                named = path.name in str(error) or "SHA256SUMS" in str(error)
                named = named or (path.name == "manifest.json" and "saved_model" in str(error))
                assert named and "; " in str(error), (path, damage, error)
            else:
                np.testing.assert_equal(found, expected, err_msg=f"{path}, {damage}")
        path.write_bytes(whole)
    note("demo", "a damaged file of a finished run", tries=tries, resumed=tries - refused,
         refused=refused)  # fmt: skip


READ_AGAIN = ("config.yaml", "environment.json", ".npz", "fit.json", "result.json", "SHA256SUMS")


def test_every_damaged_file_of_a_half_done_result_is_named(reference, tmp_path, note):
    """Files that a resumed command writes anew are damaged all at once."""
    half = max(
        (state for state in reference.states.values() if state != reference.root),
        key=lambda state: len(list((state / "out").rglob("*"))) if (state / "out").exists() else 0,
    )
    root = reference.fresh(tmp_path, half)
    tries = refused = 0
    again = []
    for path in sorted((root / "out").rglob("*")):
        if path.is_dir() or ".partial" in str(path) or path.name == ".lock":
            continue
        # A fit of a study is finished, and its files are not written again.
        part = path.relative_to(root / "out").parts[0]
        kept = "models" in path.parts or (
            part.startswith(("fits", "seed-")) and path.suffix in (".csv", ".json", ".keras")
        )
        if not path.name.endswith(READ_AGAIN) and not kept:
            again.append(path)
            continue
        for damage, content in list(damages(path.read_bytes()))[:3]:
            shutil.rmtree(root)
            root = reference.fresh(tmp_path, half)
            path.write_bytes(content)
            tries += 1
            status, text = reference.warm.run(reference.words, root)
            if status == 1:
                refused += 1
                folder = path.parent.name
                assert_one_line(text, path.name, folder, "finished result")
            elif "failed" in text and reference.name == "study":
                refused += 1
                assert path.name in text, (path, damage, text)
            else:
                assert status == 0, text
                assert_equal(results_of(root / "out"), reference.results)
    root = reference.fresh(tmp_path, half)
    for path in again:
        path.write_bytes(b"damaged")
    reference.check_resumes(root)
    tries += len(again)
    note(reference.name, "a damaged file of a half-done result", tries=tries,
         resumed=tries - refused, refused=refused)  # fmt: skip


# === Two processes ===


def test_a_second_process_is_refused_by_one_line(reference, tmp_path, note):
    root = reference.fresh(tmp_path)
    second = Warm()
    reference.warm.begin(reference.words, root)
    try:
        ends = time.monotonic() + 200
        while not (root / "out" / ".lock").exists() and time.monotonic() < ends:
            time.sleep(0.02)
        other = tmp_path / "other"
        other.mkdir()
        words = [word.replace("--out=out", f"--out={root}/out") for word in reference.words]
        status, text = second.run(words, other)
        assert status == 1, text
        assert_one_line(text, "got one in which process")
    finally:
        status, text = reference.warm.end()
        second.close()
    assert status == 0, text
    assert_equal(results_of(root / "out"), reference.results)
    note(reference.name, "a second process", tries=1, resumed=0, refused=1)
