"""The start of the command line: answers without TensorFlow, which then begins quietly."""

import dataclasses
import inspect
import json
import os
import py_compile
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Literal

import pytest

import keras_disrnn
from keras_disrnn import cli
from keras_disrnn.experiments.flags import choose_commands
from keras_disrnn.experiments.settings import ModelSettings, TrainingSettings
from keras_disrnn.utils.signatures import Unknown, read_function, resolve_annotation

HEAVY = ("tensorflow", "keras", "pandas", "numpy", "scipy", "matplotlib", "h5py")

PROGRAM = f"""
import json, sys
from keras_disrnn.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as stopped:
    status = stopped.code
print(json.dumps([status, [name for name in {HEAVY} if name in sys.modules]]))
"""


def run(*arguments, program=PROGRAM, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--help"], 0, None),
        (["--version"], 0, None),
        (["fit", "--help"], 0, None),
        (["study", "--help"], 0, None),
        (["behaviour", "--help"], 0, None),
        (["fti"], 2, "invalid choice: 'fti'"),
        (["demo", "--oot=x"], 2, "--oot=x"),
        (["demo"], 2, "demo.out"),
        (["demo", "--out=x", "--training.stage1_steps=abc"], 2, "training.stage1_steps"),
        (
            ["demo", "--out=x", "--training.stage1_steps=175"],
            1,
            "stage1_steps: expected a multiple",
        ),
        (["demo", "--out=x", "--data.num_sessions=-3"], 1, "num_sessions: expected a whole number"),
        (["demo", "--out=x", "--data.drift=-1"], 1, "drift: expected a finite number"),
        (["demo", "--out=x", "--model.num_latents=0"], 1, "num_latents: expected a whole number"),
        (["demo", "--out=x", "--model.num_update_layers=-1"], 1, "num_update_layers: expected"),
        (["demo", "--out=x", "--training.batch_size=0"], 1, "batch_size: expected a whole number"),
        (["demo", "--out=x", "--training.choice_weight=2"], 1, "choice_weight: expected a number"),
        (["fit", "--data.table=trails.csv", "--out=x"], 1, "trails.csv: expected a file"),
        (["fit", "--data.tfds=a/b", "--data.data_dir=none", "--out=x"], 1, "tfds: expected a data"),
        (["fit", "--out=x"], 1, "data: expected either data.table or data.tfds, got neither"),
        (["evaluate", "--run=nobody"], 1, "nobody: expected a folder"),
        (["study", "--out=x", "--data={mice: {table: trails.csv}}"], 1, "data.mice: "),
    ],
)
def test_help_and_refusals_come_without_tensorflow(tmp_path, arguments, status, message):
    done = run(*arguments)
    *shown, last = done.stdout.splitlines()
    assert json.loads(last) == [status, []], done.stderr
    if message is None:
        assert shown and done.stderr == ""
    else:
        assert message in done.stderr
        assert not any(word in done.stderr for word in ("absl", "oneDNN", "cuda", "AVX"))
    assert not Path("x").exists()


def test_version_is_that_of_the_package():
    assert run("--version").stdout.splitlines()[0].split() == [
        "keras-disrnn",
        keras_disrnn.__version__,
    ]


@pytest.mark.parametrize(
    ("words", "flagged"),
    [
        (["--version"], []),
        (["--help"], []),
        (["fti"], []),
        (["plot", "--run=fit", "--out=x"], ["plot"]),
        (["import", "--params=x"], ["import"]),
        ([], "all"),
        (["--config", "settings.yaml", "plot"], "all"),
        (["--print_shtab=bash"], "all"),
    ],
)
def test_flags_are_made_for_the_command_that_is_called(words, flagged):
    found = choose_commands(cli.COMMANDS, words)
    names = [command.__name__.rstrip("_") for command in cli.COMMANDS]
    assert list(found) == names
    assert [found[name].__doc__ for name in names] == [each.__doc__ for each in cli.COMMANDS]
    with_flags = [name for name in names if inspect.signature(found[name]).parameters]
    assert with_flags == (names if flagged == "all" else flagged)


def test_a_command_begins_without_messages_unless_the_user_asks(tmp_path):
    arguments = ("demo", f"--out={tmp_path}/run", "--model.activation=nonsense")
    done, asked = run(*arguments), run(*arguments, TF_CPP_MIN_LOG_LEVEL="0")
    message = "keras-disrnn: error: "
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1, done.stderr
    assert "oneDNN" in asked.stderr and asked.stderr.splitlines()[-1].startswith(message)


def test_errors_while_tensorflow_is_imported_are_shown(tmp_path):
    (tmp_path / "keras.py").write_text(
        "import os\nos.write(2, b'I0000 00:00:1.2 3 port.cc:1] noise\\n')\n"
        "os.write(2, b'a warning of another kind\\n')\nraise ImportError('no such library')\n"
    )
    program = "from keras_disrnn.utils.quiet import import_tensorflow as go; go()"
    root = Path(keras_disrnn.__file__).parents[1]
    done = run(program=program, PYTHONPATH=f"{tmp_path}{os.pathsep}{root}")
    assert done.returncode == 1
    assert done.stderr.startswith("a warning of another kind\nTraceback")
    assert "ImportError: no such library" in done.stderr
    assert "noise" not in done.stderr.partition("Traceback")[0]


# === Signatures without imports ===


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("keras_disrnn.models.disrnn_model", keras_disrnn.DisRNNModel),
        ("keras_disrnn.training.fit", keras_disrnn.train),
    ],
)
def test_a_function_is_read_as_it_is_imported(module, target):
    read = read_function(module, target.__name__)
    function = target.__init__ if inspect.isclass(target) else target
    assert inspect.signature(read) == inspect.signature(function)
    assert read.__doc__ == target.__doc__


def test_settings_have_the_types_of_arguments():
    types = {field.name: field.type for field in dataclasses.fields(TrainingSettings)}
    assert types["learning_rate"] == float | None
    assert types["optimizer"] == str | None
    assert types["batch_size"] == int | Literal["all"] | None
    assert "checkpoint" not in types and "callbacks" not in types
    assert ModelSettings().num_latents == 5


def test_a_package_in_a_zip_file_or_without_source_is_read(tmp_path):
    module = "import math\nimport no_such_package\n\ndef f(a: int = 3, *, b: float | no.T = 0.5):\n"
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as file:
        file.writestr("zipped.py", f"from __future__ import annotations\n{module}    'It says.'\n")
    (tmp_path / "bare.py").write_text("def f(a: 'int' = 3):\n    'It says.'\n")
    py_compile.compile(tmp_path / "bare.py", cfile=tmp_path / "bare.pyc")
    (tmp_path / "bare.py").unlink()
    sys.path[:0] = [str(tmp_path / "wheel.zip"), str(tmp_path)]
    try:
        zipped, bare = read_function("zipped", "f"), read_function("bare", "f")
    finally:
        del sys.path[:2]
    assert zipped.__doc__ == bare.__doc__ == "It says."
    assert inspect.signature(zipped).parameters["b"].default == 0.5
    assert inspect.signature(bare).parameters["a"].default == 3
    assert resolve_annotation("float | no.T", zipped) == float | Unknown
    with pytest.raises(AttributeError, match="no function or constructor 'g'"):
        read_function("keras_disrnn.training.fit", "g")


def test_a_warning_is_one_line_of_the_command(tmp_path):
    table = tmp_path / "trials.csv"
    table.write_text("subject,session,choice,reward\n" + "m,1,0,1\nm,1,1,0\nm,1,2,1\n")
    done = run("summary", f"--data.table={table}")
    assert json.loads(done.stdout.splitlines()[-1])[0] == 0, done.stderr
    assert [line.split(":")[:2] for line in done.stderr.splitlines()] == [
        ["keras-disrnn", " warning"]
    ]
    assert "arm" in done.stderr and "UserWarning" not in done.stderr
