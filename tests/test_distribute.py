"""Training under tf.distribute strategies equals training in a single process."""

import itertools
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from distributed import (
    difference,
    fit_stage,
    make_model,
    make_sessions,
    run_folder,
    train_all,
)

import keras_disrnn
from keras_disrnn.training.stages import compile_stage

SCRIPT = Path(__file__).with_name("distributed.py")
TOLERANCES = {"float32": 3e-5, "float64": 1e-13}
"""The tolerance for weights. Metrics are always float32."""


def start(strategy, cases, compare):
    settings = {"strategy": strategy, "cases": cases, "compare": compare}
    return subprocess.Popen(
        [sys.executable, SCRIPT, json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results_of(process):
    out, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors[-3000:]
    marked = [line for line in out.splitlines() if line.startswith("RESULT ")]
    return [json.loads(line.removeprefix("RESULT ")) for line in marked]


def run_mirrored(cases, replicas=2):
    process = start({"kind": "mirrored", "replicas": replicas}, cases, compare=True)
    got = results_of(process)
    assert len(got) == len(cases)
    return got


def run_workers(cases):
    """Return the results of both workers of a MultiWorkerMirroredStrategy, in pairs."""
    with socket.socket() as one, socket.socket() as other:
        for sock, port in ((one, 0), (other, 0)):
            sock.bind(("127.0.0.1", port))
        ports = [sock.getsockname()[1] for sock in (one, other)]
    workers = [
        start({"kind": "multi_worker", "worker": worker, "ports": ports}, cases, compare=False)
        for worker in range(2)
    ]
    try:
        return list(zip(*(results_of(worker) for worker in workers), strict=True))
    finally:
        for worker in workers:
            worker.kill()


def check(got, dtype):
    """Check that a single process and the replicas have the same weights and history."""
    assert got["weights"] <= TOLERANCES[dtype], got
    assert got["history"] <= 1e-5, got


# === By default ===


def test_two_replicas_train_as_one_process():
    # Batches of 2, 2 and 1 sessions of unequal length: in the last, one replica has no session.
    case = {"stage": "joint", "batch_size": 2, "implementation": "native", "dtype": "float64"}
    train, noise, refusals = run_mirrored(
        [
            ["fit_stage", {**case, "validate": False}],
            ["draw", {}],
            ["refusals", {}],
        ]
    )
    check(train, "float64")
    assert noise["history"] == 0.0
    for refused, pattern in zip(
        refusals["messages"],
        (
            r"x: expected a tf\.data\.Dataset .* under MirroredStrategy, got ndarray",
            r"validation_data: expected .* under MirroredStrategy, got DistributedDataset",
            r"steps_per_execution: expected 1 under MirroredStrategy of 2 replicas, got 5",
            r"model: expected one made in the scope of this MirroredStrategy, got one made outside",
        ),
        strict=True,
    ):
        assert re.search(pattern, refused), refused


def test_unsupported_strategies_are_refused():
    strategy = tf.distribute.experimental.CentralStorageStrategy()
    model = make_model(strategy)
    message = "model: expected one made under Mirrored.*, got one made under CentralStorageStrategy"
    with pytest.raises(ValueError, match=message):
        compile_stage(model, "stage1")
    with pytest.raises(ValueError, match=message):
        keras_disrnn.train(model, make_sessions())


# === Slow ===


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("implementation", ["native", "keras"])
def test_every_stage_equals_that_of_a_single_process(implementation, dtype):
    stages, batches = ("warmup", "stage1", "stage2", "joint"), (None, 2)
    cases = [
        {"stage": s, "batch_size": b, "implementation": implementation, "dtype": dtype}
        for s, b in itertools.product(stages, batches)
    ]
    for case, got in zip(cases, run_mirrored([["fit_stage", case] for case in cases]), strict=True):
        print(case, got)
        check(got, dtype)


@pytest.mark.slow
def test_one_device_equals_one_process():
    case = {"stage": "joint", "batch_size": 2, "dtype": "float64"}
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    check(difference(fit_stage(None, **case), fit_stage(strategy, **case)), "float64")


@pytest.mark.slow
def test_three_replicas_and_several_subjects():
    case = {"batch_size": 4, "dtype": "float64", "implementation": "keras", "subjects": 2}
    cases = [["fit_stage", {"stage": "joint", **case}]]
    cases.append(["fit_stage", {"stage": "joint", **case, "implementation": "native"}])
    for got in run_mirrored(cases, replicas=3):
        # Unused dimensions have gradients of rounding size, which Adam divides by 1e-7.
        assert got["weights"] <= 1e-8, got
        assert got["history"] <= 1e-5, got


@pytest.mark.slow
def test_a_run_resumes_under_another_strategy_and_its_model_is_saved(tmp_path):
    checkpoint = str(tmp_path / "checkpoint.npz")
    settings = {"batch_size": 2, "dtype": "float64"}
    stopped = {**settings, "checkpoint": checkpoint, "stop_after": 5}
    whole = train_all(None, **settings)
    assert train_all(None, **stopped) is None
    process = start(
        {"kind": "mirrored"},
        [
            ["train_all", {**settings, "checkpoint": checkpoint}],
            ["train_and_save", {**settings, "folder": str(tmp_path)}],
        ],
        compare=False,
    )
    resumed, saved = results_of(process)
    check(difference(whole, resumed), "float64")
    check(difference(whole, saved), "float64")
    # A model trained under a strategy loads without one.
    model = keras.models.load_model(tmp_path / "model.keras")
    features = make_sessions().features
    again = tf.saved_model.load(tmp_path / "saved_model")
    served = again.serve(tf.constant(features))
    for name, expected in saved["outputs"].items():
        np.testing.assert_allclose(model(features)[name], expected, atol=1e-12)
        np.testing.assert_allclose(served[name], expected, atol=1e-6)
    assert model.optimizer.get_config()["global_clipnorm"] == 1.0


@pytest.mark.slow
def test_two_workers_train_as_one_process(tmp_path):
    checkpoint = str(tmp_path / "checkpoint.npz")
    fit = {"stage": "joint", "batch_size": 2, "implementation": "keras", "dtype": "float64"}
    settings = {"batch_size": 2, "dtype": "float64"}
    stopped = {**settings, "checkpoint": checkpoint, "stop_after": 5}
    standard = {**settings, "course": "standard"}
    fitted, none, resumed, decayed = run_workers(
        [
            ["fit_stage", fit],
            ["train_all", stopped],
            ["train_all", {**settings, "checkpoint": checkpoint}],
            ["train_all", standard],
        ]
    )
    assert none == (None, None)
    single = fit_stage(None, **fit), train_all(None, **settings), train_all(None, **standard)
    for (chief, worker), expected in zip((fitted, resumed, decayed), single, strict=True):
        assert chief == worker
        check(difference(expected, chief), "float64")


@pytest.mark.slow
def test_a_run_folder_records_the_strategy(tmp_path):
    process = start(
        {"kind": "mirrored"},
        [["run_folder", {"out": str(tmp_path / "mirrored"), "mirrored": True}]],
        compare=False,
    )
    plain = run_folder(None, str(tmp_path / "plain"), False)
    (mirrored,) = results_of(process)
    assert mirrored.pop("replicas") == 2
    assert "replicas" not in plain
    configs = [
        yaml.safe_load((tmp_path / name / "config.yaml").read_text(encoding="utf-8"))
        for name in ("mirrored", "plain")
    ]
    assert configs[0]["training"].pop("strategy") == "mirrored"
    assert configs[0] == configs[1]
    for part in ("train", "held_out"):
        for target, score in (("choice", "normalized_likelihood"), ("dopamine", "mse")):
            np.testing.assert_allclose(
                mirrored[part][target][score], plain[part][target][score], rtol=1e-4
            )
