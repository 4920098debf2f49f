"""The parts of the benchmarks that can be wrong: what they count, and what a failure leaves."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_disrnn

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark():
    """Return a function that imports a benchmark, as it imports its neighbours."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "benchmarks"))


# === Time to a right model ===


def make_check(cpu, *, graph=True, difference=0.0, stage="stage1"):
    return {
        "stage": stage,
        "wall": 2.0 * cpu,
        "cpu": cpu,
        "choice_graph": graph,
        "graph": graph and stage == "stage2",
        "difference": difference,
        "found": "choice, reward > z1; z1 > choice readout",
    }


def test_the_time_counts_to_the_first_right_check(benchmark):
    time_to = benchmark("time_to_model").time_to
    checks = [
        make_check(1.0, stage="warmup"),
        make_check(2.0, graph=False),
        make_check(3.0, difference=-0.002),
        make_check(4.0, difference=-0.0004),
        make_check(5.0, graph=False),
        make_check(6.0, stage="stage2"),
    ]
    assert time_to({"checks": checks}, 0.0005) == (8.0, 4.0)
    assert time_to({"checks": checks}, 0.0005, "graph") == (12.0, 6.0)


@pytest.mark.parametrize("last", [{"graph": False}, {"difference": -0.0006}])
def test_a_fit_that_is_wrong_at_its_end_has_failed(benchmark, last):
    checks = [make_check(1.0), make_check(2.0, **last)]
    assert benchmark("time_to_model").time_to({"checks": checks}, 0.0005) is None


def test_failures_are_named_and_counted(benchmark, tmp_path, capsys):
    module = benchmark("time_to_model")
    right = {"ended": "finished", "wall": 4.0, "cpu": 2.0, "checks": [make_check(1.0)]}
    wrong = {
        "ended": "limit of 9 processor seconds",
        "wall": 20.0,
        "cpu": 9.0,
        "checks": [make_check(9.0, graph=False)],
    }
    slow = {**right, "checks": [make_check(30.0)]}
    files = {"ours-next": {7: right, 8: right}, "best": {7: slow, 8: wrong}}
    for kind, fits in files.items():
        for seed, fit in fits.items():
            (tmp_path / f"q_learning-100x100-{kind}-{seed}.json").write_text(json.dumps(fit))
    module.print_case("q_learning-100x100", tmp_path, [7, 8])
    printed = capsys.readouterr().out
    assert "| best, choice | 1 of 2 |" in printed
    assert "seed 8 | not reached in 9 s of the processor (limit of 9 processor seconds)" in printed
    assert "best / ours-next: wall 30.0 (30.0 to 30.0)" in printed
    # It had used 9 seconds where ours took 1.
    assert "above 9.0 (processor) where only the reference failed; 1 of 2 seeds failed" in printed
    # Ours without a right fit gives no ratio and no bound.
    (tmp_path / "q_learning-100x100-ours-next-8.json").write_text(json.dumps(wrong))
    (tmp_path / "q_learning-100x100-best-7.json").unlink()
    module.print_case("q_learning-100x100", tmp_path, [7, 8])
    assert "best / ours-next: no ratio; 1 of 1 seeds failed" in capsys.readouterr().out


def test_the_clock_stands_still_in_a_check(benchmark):
    clock = benchmark("reference_course").Clock()
    before = clock.seconds()
    clock.leave_out(lambda: np.linalg.eigvals(np.random.default_rng(0).random((300, 300))))
    left_out, between = clock._left_out, clock.seconds() - before
    assert (left_out > 0).all()
    assert (between < left_out).all()


def test_each_fit_leaves_a_file_with_its_checks(benchmark, tmp_path):
    module = benchmark("time_to_model")
    case = module.Case("q_learning", 4, 5, 0.5)
    files = [tmp_path / "first.json", tmp_path / "next.json"]
    module.fit_here(case, 3000, files, limit=0.0)
    first, following = (json.loads(file.read_text()) for file in files)
    assert first["ended"] == "limit of 0 processor seconds"
    (row,) = first["checks"]
    assert (row["stage"], row["step"]) == ("warmup", 50)
    assert np.isfinite(row["difference"])
    assert "choice readout" in row["found"]
    # The same seed gives the same fit.
    assert following["checks"][0]["difference"] == row["difference"]
    assert first["cpu"] > 0


def test_a_closed_latent_does_not_count_before_dopamine_is_trained(benchmark):
    module = benchmark("time_to_model")
    case = module.Case("reward_seeking", 2, 5, 0.5)
    parts = module.make_data(case, 0)
    model = keras_disrnn.DisRNNModel(num_latents=2, seed=0)
    cell = model.core.cell
    cell.update_obs_bottleneck.raw_sigma.assign([[0.0, 0.0], [0.0, 1.0]])
    cell.update_latent_bottleneck.raw_sigma.assign([[1.0, 1.0], [0.0, 1.0]])
    model.choice_readout.bottleneck.raw_sigma.assign([0.0, 1.0])
    model.dopamine_readout.bottleneck.raw_sigma.assign([0.0] * 4)
    found = {}
    for name, second in (("closed", 1.0), ("open", 0.0)):
        cell.latent_bottleneck.raw_sigma.assign([0.0, second])
        found[name] = module.score(model, case, parts)
    assert found["closed"]["found"] == found["open"]["found"]
    assert "choice, z1 > z2" in found["open"]["found"]
    assert found["closed"]["choice_graph"]
    assert not found["open"]["choice_graph"]
    assert not found["closed"]["graph"]


def test_a_fit_is_repeated_if_its_course_changed_or_its_limit_grew(benchmark, tmp_path):
    is_done = benchmark("time_to_model").is_done
    file = tmp_path / "fit.json"
    assert not is_done(file, {"steps": 100}, 60.0)
    stored = {"course": {"steps": 100}, "limit": 60.0, "ended": "finished"}
    file.write_text(json.dumps(stored))
    assert is_done(file, {"steps": 100}, 90.0)
    assert not is_done(file, {"steps": 200}, 60.0)
    file.write_text(json.dumps({**stored, "ended": "limit of 60 processor seconds"}))
    assert is_done(file, {"steps": 100}, 60.0)
    assert not is_done(file, {"steps": 100}, 90.0)


# === Whole commands ===


def test_a_command_is_measured_with_its_lines(benchmark):
    taken = benchmark("commands").measure(["--version"], every=0.01)
    assert taken.cpu > 0
    assert 0 < taken.lines[0][0] <= taken.wall
    assert keras_disrnn.__version__ in taken.lines[0][1]
    if sys.platform == "linux":
        assert taken.mebibytes > 1


def test_a_command_that_fails_shows_its_last_lines(benchmark):
    with pytest.raises(SystemExit, match=r"(?s)fti: ended with 2.*invalid choice"):
        benchmark("commands").measure(["fti"])


def test_phases_of_a_selection_come_from_the_times_of_its_lines(benchmark, tmp_path):
    module = benchmark("commands")
    seconds = {"data": 1.0, "selection": 10.0, "export": 2.0}
    (tmp_path / "metrics.json").write_text(json.dumps({"seconds": seconds}))
    lines = [
        (3.0, "Writing to runs/mice"),
        (6.0, "choice, fold 1/2, penalty scale 0.3: likelihood 0.6, choice > z1"),
        (8.0, "choice, fold 1/2, penalty scale 1: likelihood 0.6, choice > z1"),
        (9.0, "choice: chosen penalty scale 1, choice > z1"),
        (9.5, "dopamine, fold 1/2, penalty scale 1: R^2 0.6, choice > z1"),
    ]
    phases = module.phases_of_selection(tmp_path, module.Taken(15.0, 20.0, None, lines))
    assert phases == {
        **seconds,
        "start, report": 2.0,
        "of the selection: to the first scale": 6.5,
        "of the selection: choice, fold 1/2": 2.0,
        "of the selection: choice, last steps": 1.0,
        "of the selection: dopamine, fold 1/2": 0.5,
    }


@pytest.mark.slow
def test_the_commands_run_in_their_small_form(tmp_path):
    program = ROOT / "benchmarks" / "commands.py"
    command = [sys.executable, program, "demo", "--small", f"--out={tmp_path}"]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = json.loads((tmp_path / "demo.json").read_text())
    assert {"data", "warmup", "stage1", "stage2", "export"} < set(found["phases"])
    assert sum(found["phases"].values()) == pytest.approx(found["wall"])


# === On a GPU ===


def test_a_part_that_runs_out_of_time_leaves_an_error(benchmark, tmp_path):
    module = benchmark("gpu")
    given = argparse.Namespace(quick=True, reference_python=sys.executable)
    found = module.run_part(given, "device", "", 0.2, tmp_path)
    assert found["error"].startswith("ended with time limit")


def test_a_kernel_gains_what_the_larger_bound_leaves(benchmark):
    module = benchmark("gpu")
    parts = {
        "device": {"float32_gflops": 50_000.0},
        "step A": {"ours, XLA": 0.02, "ours": 0.1},
        "step C": {"error": "ended with 1"},
    }
    (row,) = module.promise(parts, quick=False).values()
    # The arithmetic of shape A is the one that `benchmarks/growth.py` prints, 0.79 Gflop.
    assert row["arithmetic"] == pytest.approx(0.79 / 50_000, rel=0.01)
    assert row["chain"] == pytest.approx(3 * 201 * 6 * 50e-9)
    assert row["gain at most"] == pytest.approx(0.02 / row["chain"])


def test_an_interpreter_without_the_reference_is_named(benchmark):
    assert benchmark("gpu").platform_of_reference(sys.executable).startswith("no reference: ")


@pytest.mark.slow
def test_the_gpu_program_runs_in_its_quick_form(tmp_path):
    out = tmp_path / "gpu.json"
    program = ROOT / "benchmarks" / "gpu.py"
    command = [sys.executable, program, "--quick", f"--out={out}", "--budget=3000"]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = json.loads(out.read_text())
    failed = {label: part["error"] for label, part in found.items() if "error" in part}
    assert failed == {}
    for variant in ("GPU", "GPU, XLA", "Keras, CPU"):
        numbers = found[f"numbers {variant}"]
        assert max(numbers[name] for name in ("choice", "dopamine", "gradient")) < 1e-4
        assert numbers["losses"] < 1e-4
    assert found["fit GPU"]["ended"]
    assert found["step A"]["ours, XLA"] > 0
    assert set(found["promise"]) == {"A", "E", "C"}
