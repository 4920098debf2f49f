"""The layout: floors that no import climbs, a root of packages, short files."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_disrnn"
MOST_LINES = 450
"""The largest number of lines of a file."""


def test_no_import_goes_up_a_floor():
    pytest.importorskip("importlinter")
    program = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_the_root_holds_packages_and_four_modules():
    modules = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert modules == {"__init__.py", "__main__.py", "cli.py", "version.py", "py.typed"}
    for folder in PACKAGE.iterdir():
        if folder.is_dir() and not folder.name.startswith((".", "__")):
            assert (folder / "__init__.py").is_file(), folder


def test_every_package_is_installed():
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    listed = {line.strip() for line in setup.splitlines()}
    for file in PACKAGE.rglob("__init__.py"):
        name = ".".join(file.parent.relative_to(ROOT).parts)
        assert name in listed, f"setup.cfg does not list {name}"


def test_no_file_is_too_long():
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines())
        for file in PACKAGE.rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}
