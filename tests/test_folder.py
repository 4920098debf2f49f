"""The folder of a result: what it accepts, what it refuses, and how it resumes."""

import errno
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml

from keras_disrnn.data import Sessions
from keras_disrnn.experiments.comparison import ComparisonSettings
from keras_disrnn.experiments.data import RunData
from keras_disrnn.experiments.folder import ResultFolder, compute_step, read_config
from keras_disrnn.experiments.settings import TableData
from keras_disrnn.training.fit import fingerprint
from keras_disrnn.utils.checksums import check_checksums, write_checksums
from keras_disrnn.utils.files import (
    check_new,
    expand_home,
    new_folder,
    read_json,
    remove_partial,
    write_atomically,
    write_json,
)
from keras_disrnn.utils.locks import FileLock
from keras_disrnn.utils.state import load_state, save_state

CONFIG = {"model": {"num_latents": 3}, "seed": 1}


def make(path, config=CONFIG, command="fit", last="report.html", **options):
    return ResultFolder(path, config, command=command, last=last, **options)


def begun(path, work=True, data=None, **options):
    """Begin a folder, with a file as if something was computed in it, and leave it."""
    folder = make(path, **options)
    with folder.begin(data=data):
        if work:
            (folder.path / "history.csv").touch()
    return folder


def test_a_state_is_read_as_it_was_written(tmp_path):
    state = {
        "weights": [[np.arange(3.0), np.zeros((2, 0))], []],
        "history": [{"loss": float("inf"), "stage": "warmup"}],
        "epoch": np.int64(3),
        "nothing": None,
        "text": np.array(["ü"]),
    }
    save_state(tmp_path / "a.npz", state)
    found = load_state(tmp_path / "a.npz")
    assert found["history"] == state["history"]
    assert (found["epoch"], found["nothing"], found["weights"][1]) == (3, None, [])
    np.testing.assert_array_equal(found["weights"][0][0], np.arange(3.0))
    assert found["weights"][0][1].shape == (2, 0)
    assert found["text"].tolist() == ["ü"]
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["weights/0/0"], np.arange(3.0))


@pytest.mark.parametrize("damage", [lambda data: data[:60], lambda data: b"", lambda data: b"text"])
def test_a_damaged_state_has_one_error(tmp_path, damage):
    path = tmp_path / "a.npz"
    save_state(path, {"weights": np.arange(9)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        ValueError, match=r"a\.npz: expected a path, got a file that cannot be read"
    ):
        load_state(path, "a path")
    np.savez(path, weights=np.arange(3))
    with pytest.raises(ValueError, match=r"a\.npz: expected a saved state"):
        load_state(path)


def test_nothing_is_written_before_the_folder_begins(tmp_path):
    folder = make(tmp_path / "out")
    assert not folder.resumes and not folder.path.exists()
    with folder.begin():
        assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == CONFIG
    assert make(tmp_path / "out").resumes


def test_a_folder_stopped_before_its_settings_were_written_begins_again(tmp_path):
    begun(tmp_path, work=False)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / ".environment.json.12345678.partial").touch()
    (tmp_path / ".lock").touch()
    assert not make(tmp_path).resumes
    begun(tmp_path)
    assert make(tmp_path).resumes
    assert not (tmp_path / ".environment.json.12345678.partial").exists()


def test_a_resumed_folder_computes_no_part_twice(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"sum": np.arange(2), "losses": (1.0, 2.0)}

    for _ in range(2):
        folder = make(tmp_path)
        with folder.begin():
            assert folder.step("first", compute)["losses"] == [1.0, 2.0]
    assert len(calls) == 1
    (tmp_path / "parts" / "first.npz").write_bytes(b"broken")
    with (
        pytest.raises(ValueError, match=r"first\.npz: expected a finished part .* remove it"),
        make(tmp_path).begin(),
    ):
        pass
    folder.discard_steps()
    folder.step("first", compute)
    compute_step("first", compute)
    assert len(calls) == 3


def test_an_interrupted_part_leaves_nothing(tmp_path):
    folder = begun(tmp_path)

    def stop():
        raise KeyboardInterrupt

    def write(value, place):
        (place / "half").write_text(value)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.step("part", stop)
    with pytest.raises(KeyboardInterrupt):
        folder.step_folder("part", lambda: "a", write, str)
    marks = {"config.yaml", "environment.json", "history.csv"}
    assert {path.name for path in tmp_path.iterdir()} == marks

    def write_whole(value, place):
        (place / "whole").write_text(value)

    for value in ("a", "b"):
        found = folder.step_folder(
            "part",
            lambda value=value: value,
            write_whole,
            lambda place: (place / "whole").read_text(),
        )
        assert found == "a"
        check_checksums(tmp_path / "part")
    assert {path.name for path in (tmp_path / "part").iterdir()} == {"whole", "SHA256SUMS"}


def test_other_settings_are_refused_by_the_first_that_differs(tmp_path):
    begun(tmp_path)
    other = {**CONFIG, "model": {"num_latents": 4}}
    with pytest.raises(FileExistsError, match=r"got another model.num_latents \(4, not 3\)"):
        make(tmp_path, other)
    folder = make(tmp_path, other, may_change=True)
    assert folder.resumes
    with folder.begin():
        pass
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == other
    with pytest.raises(FileExistsError, match="expected a result of the command 'select', got one"):
        make(tmp_path, command="select")


def test_finished_and_foreign_folders_are_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match=r"got other files \(thesis.tex\)"):
        make(tmp_path)
    with pytest.raises(FileExistsError, match="expected a folder, got a file"):
        make(tmp_path / "thesis.tex")
    out = begun(tmp_path / "out").path
    (out / "report.html").touch()
    with pytest.raises(FileExistsError, match="got a finished result"):
        make(out)
    assert make(out, last=None).resumes


def test_other_data_are_refused(tmp_path):
    for _ in range(2):
        begun(tmp_path, data="a")
    with pytest.raises(ValueError, match="got data that have changed since"):
        begun(tmp_path, data="b")


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    first, second = make(tmp_path / "out"), make(tmp_path / "out")
    with first.begin():
        for late in (second, make(tmp_path / "out")):
            with (
                pytest.raises(FileExistsError, match=rf"got one in which process {os.getpid()} on"),
                late.begin(),
            ):
                pass
    assert not (tmp_path / "out" / ".lock").exists()
    begun(tmp_path / "out")


@pytest.mark.parametrize(
    "written",
    [
        {"model": {"latents": 3}, "data": {"table": "a.csv"}},
        {"model": {}, "data": {"table": "a.csv", "arms": 2}},
        {"model": {}, "data": {"sessions": 9, "trials": 5}},
    ],
)
def test_results_of_the_first_version_are_read_but_not_resumed(tmp_path, written):
    begun(tmp_path, config=written)
    with pytest.raises(FileExistsError, match=r"got one that keras-disrnn 0\.1\.0 began"):
        make(tmp_path)
    found = read_config(tmp_path)
    assert "latents" not in found["model"] and "arms" not in found["data"]
    assert found["data"].get("num_sessions") == written["data"].get("sessions")
    assert found["model"].get("num_latents") == written["model"].get("latents")


def test_a_recovery_of_the_first_version_is_not_resumed(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(FileExistsError, match=r"keras-disrnn 0\.1\.0"):
        make(tmp_path)


def test_a_relative_path_of_a_table_in_an_older_folder_is_the_same_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun("run", config={"data": {"table": "trials.csv"}})
    assert make("run", config={"data": {"table": str(tmp_path / "trials.csv")}}).resumes
    with pytest.raises(FileExistsError, match=r"another data\.table"):
        make("run", config={"data": {"table": str(tmp_path / "other.csv")}})


def test_a_folder_resumes_with_the_same_data_of_both_parts(tmp_path):
    train, held_out = (
        Sessions.from_trials(choice=[[arm, 1]], reward=[[1, 0]], num_arms=2) for arm in (0, 1)
    )
    data = RunData(train, held_out)
    for _ in range(2):
        begun(tmp_path / "run", data=data.digest)
    with pytest.raises(ValueError, match="expected the data that it was begun with"):
        begun(tmp_path / "run", data=RunData(train, train).digest)
    # Older folders have a digest of the training sessions alone.
    begun(tmp_path / "old", data=fingerprint(train))
    begun(tmp_path / "old", data=data.digest)
    with pytest.raises(ValueError, match="expected the data that it was begun with"):
        begun(tmp_path / "old", data=RunData(held_out, held_out).digest)


def test_paths_with_a_home_directory_are_found_in_all_settings(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    settings = ComparisonSettings(models={"old": "~/runs/old", "new": "new~"})
    assert expand_home([settings, 3, {"out": "~"}]) == [
        ComparisonSettings(models={"old": "/home/me/runs/old", "new": "new~"}),
        3,
        {"out": "/home/me"},
    ]
    assert TableData("~/trials.csv").table == "/home/me/trials.csv"
    assert TableData("https://host/trials.csv").table == "https://host/trials.csv"


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import sys, time\n"
        "from keras_disrnn.utils.locks import FileLock\n"
        "lock = FileLock(sys.argv[1])\n"
        "print(lock.acquire(), flush=True)\n"
        "time.sleep(600)"
    )
    path = tmp_path / ".lock"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "True\n"
        lock = FileLock(path)
        assert not lock.acquire()
        assert lock.holder() == f"process {child.pid} on {socket.gethostname()}"
    finally:
        child.kill()
        child.communicate()
    assert path.exists() and lock.acquire()
    path.write_text("damaged")
    assert not FileLock(path).acquire() and FileLock(path).holder() == "another process"
    lock.release()
    assert not path.exists()


def test_a_folder_without_work_is_begun_again_with_other_settings(tmp_path):
    other = {**CONFIG, "seed": 2}
    out = begun(tmp_path / "out", work=False, data="a").path
    (out / "parts").mkdir()
    (out / "paths").mkdir()
    (out / "paths" / "config.yaml").touch()
    folder = make(out, other, command="select")
    assert not folder.resumes
    with folder.begin(data="b"):
        assert yaml.safe_load((out / "config.yaml").read_text()) == other
        assert json.loads((out / "environment.json").read_text())["command"] == "select"
        assert {path.name for path in out.iterdir()} == {"config.yaml", "environment.json", ".lock"}
    (out / "config.yaml").write_text("seed: [")
    begun(out, data="b")
    with pytest.raises(FileExistsError, match="got another seed"):
        make(out, other)


def test_a_folder_with_files_of_the_user_is_not_begun_again(tmp_path):
    (tmp_path / "config.yaml").write_text("theirs: 1")
    with pytest.raises(FileNotFoundError, match=r"environment\.json: expected the record"):
        make(tmp_path)
    (tmp_path / "environment.json").write_text('{"name": "theirs"}')
    with pytest.raises(ValueError, match=r"environment\.json: expected the record of a command"):
        make(tmp_path)


def test_a_diverged_folder_is_kept_and_begun_again_with_other_settings(tmp_path, caplog):
    out = tmp_path / "out"
    folder = make(out)
    with pytest.raises(FloatingPointError), folder.begin():
        (out / "checkpoint.npz").write_text("trained")
        raise FloatingPointError("loss: expected a finite number")
    assert make(out).resumes
    again = make(out, {**CONFIG, "seed": 2})
    assert not again.resumes
    with again.begin():
        assert not (out / "checkpoint.npz").exists()
    kept = tmp_path / "out-diverged-1"
    assert (kept / "checkpoint.npz").read_text() == "trained"
    assert "out-diverged-1" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out-diverged-1"}
    begun(kept.with_name("good"))
    with pytest.raises(FileExistsError, match="got another seed"):
        make(tmp_path / "good", {**CONFIG, "seed": 2})


@pytest.mark.parametrize("name", ["config.yaml", "environment.json"])
def test_every_damage_of_a_folder_that_began_is_named(name, tmp_path):
    path = begun(tmp_path, data="abc").path / name
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]
        for damaged in (whole[:place], flipped):
            path.write_bytes(damaged)
            try:
                begun(tmp_path, data="abc")
            except (ValueError, OSError) as error:
                assert name in str(error)
            else:  # The last line may lack its end, and a key of a digest may have changed.
                assert damaged == whole[:-1] or name == "environment.json"
    path.write_bytes(whole)
    begun(tmp_path, data="abc")


def test_the_folders_of_killed_processes_are_removed(tmp_path):
    left = tmp_path / ".out.a1b2c3d4.partial"
    left.mkdir()
    (left / "config.yaml").touch()
    other = tmp_path / ".other.a1b2c3d4.partial"
    other.mkdir()
    begun(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", other.name}
    with new_folder(tmp_path / "other") as working:
        with new_folder(tmp_path / "other2"):
            remove_partial(working)
        assert working.exists() and not other.exists()


def test_places_that_cannot_be_written_are_refused_before_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="got one in the file"):
        make(tmp_path / "file" / "a" / "out")
    with pytest.raises(NotADirectoryError, match="got one in the file"):
        check_new(tmp_path / "file" / "scores.json")


def test_an_error_of_the_disk_names_the_file(tmp_path):
    def fail(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"a\.txt: expected to write .* No space left .* free some"):
        write_atomically(tmp_path / "a.txt", fail)
    with (
        pytest.raises(OSError, match=r"a\.txt: expected to write"),
        new_folder(tmp_path / "folder") as folder,
    ):
        write_atomically(folder / "a.txt", fail)
    assert not list(tmp_path.iterdir())


def test_every_damage_of_checked_files_is_found(tmp_path):
    save_state(tmp_path / "a.npz", {"weights": np.arange(5.0), "epoch": 3})
    (tmp_path / "b.csv").write_text("r2\n0.5\n")
    write_checksums(tmp_path, ["b.csv"])
    write_json(tmp_path / "c.json", {"r2": 0.5}, checked=True)
    readers = {
        "a.npz": lambda: load_state(tmp_path / "a.npz"),
        "b.csv": lambda: check_checksums(tmp_path),
        "c.json": lambda: read_json(tmp_path / "c.json", "scores"),
        "SHA256SUMS": lambda: check_checksums(tmp_path, ["b.csv"]),
    }
    for name, read in readers.items():
        whole = (tmp_path / name).read_bytes()
        expected = read()
        for place in range(len(whole)):
            (tmp_path / name).write_bytes(whole[:place])
            with pytest.raises(ValueError, match=name):
                read()
            flipped = bytes([whole[place] ^ 1])
            (tmp_path / name).write_bytes(whole[:place] + flipped + whole[place + 1 :])
            try:
                found = read()
            except ValueError as error:
                # A sum and its file disagree, and either may be the damaged one.
                assert name in str(error) or "SHA256SUMS" in str(error)
            else:
                if name != "c.json":  # Its key may have changed, which is then one more entry.
                    np.testing.assert_equal(found, expected)
        (tmp_path / name).write_bytes(whole)
