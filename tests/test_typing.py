"""A type checker accepts a correct script and reports the mistakes of a wrong one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "tests" / "typing"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The errors of both scripts as (file, line, code)."""
    pytest.importorskip("mypy")
    scripts = [str(path.relative_to(ROOT)) for path in sorted(SCRIPTS.glob("*_script.py"))]
    cache = tmp_path_factory.mktemp("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", f"--cache-dir={cache}", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = re.findall(r"^(\S+?):(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.M)
    return {(Path(file).name, int(line), code) for file, line, code in errors}


def test_a_correct_script_passes(found):
    assert [error for error in found if error[0] == "user_script.py"] == []


def test_every_mistake_is_reported(found):
    expected = {
        ("wrong_script.py", number, code[1])
        for number, line in enumerate((SCRIPTS / "wrong_script.py").read_text().splitlines(), 1)
        if (code := re.search(r"# error: ([a-z-]+)$", line))
    }
    assert len(expected) == 5
    assert {error for error in found if error[0] == "wrong_script.py"} == expected
