"""The folder of a result: what it accepts, what it refuses, and how it resumes."""

import numpy as np
import pytest
import yaml

from keras_disrnn.data import Sessions
from keras_disrnn.experiments.comparison import ComparisonSettings
from keras_disrnn.experiments.data import RunData
from keras_disrnn.experiments.folder import ResultFolder, compute_step, read_config
from keras_disrnn.experiments.settings import TableData
from keras_disrnn.training.fit import fingerprint
from keras_disrnn.utils.files import expand_home
from keras_disrnn.utils.state import load_state, save_state

CONFIG = {"model": {"num_latents": 3}, "seed": 1}


def make(path, config=CONFIG, command="fit", last="report.html", **options):
    return ResultFolder(path, config, command=command, last=last, **options)


def begun(path, **options):
    folder = make(path, **options)
    folder.begin()
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
    folder.begin()
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == CONFIG
    assert make(tmp_path / "out").resumes


def test_a_folder_stopped_before_its_settings_were_written_begins_again(tmp_path):
    folder = begun(tmp_path)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / ".environment.json.x").touch()
    with folder.lock():
        pass
    assert not make(tmp_path).resumes


def test_a_resumed_folder_computes_no_part_twice(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"sum": np.arange(2), "losses": (1.0, 2.0)}

    for _ in range(2):
        part = begun(tmp_path).step("first", compute)
        assert part["losses"] == [1.0, 2.0]
    assert len(calls) == 1
    (tmp_path / "parts" / "first.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"first\.npz: expected a finished part .* remove it"):
        begun(tmp_path).step("first", compute)
    folder = begun(tmp_path)
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
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "environment.json"}

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


def test_other_settings_are_refused_by_the_first_that_differs(tmp_path):
    begun(tmp_path)
    other = {**CONFIG, "model": {"num_latents": 4}}
    with pytest.raises(FileExistsError, match=r"got another model.num_latents \(4, not 3\)"):
        make(tmp_path, other)
    folder = make(tmp_path, other, may_change=True)
    assert folder.resumes
    folder.begin()
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
    folder = make(tmp_path)
    folder.begin(data="a")
    make(tmp_path).begin(data="a")
    with pytest.raises(ValueError, match="got data that have changed since"):
        make(tmp_path).begin(data="b")


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    first, second = make(tmp_path / "out"), make(tmp_path / "out")
    with (
        first.lock(),
        pytest.raises(FileExistsError, match="got one in which another process runs"),
        second.lock(),
    ):
        pass
    with make(tmp_path / "out").lock():
        pass


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
    make(tmp_path / "run").begin(data=data.digest)
    make(tmp_path / "run").begin(data=data.digest)
    with pytest.raises(ValueError, match="expected the data that it was begun with"):
        make(tmp_path / "run").begin(data=RunData(train, train).digest)
    # Older folders have a digest of the training sessions alone.
    make(tmp_path / "old").begin(data=fingerprint(train))
    make(tmp_path / "old").begin(data=data.digest)
    with pytest.raises(ValueError, match="expected the data that it was begun with"):
        make(tmp_path / "old").begin(data=RunData(held_out, held_out).digest)


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
