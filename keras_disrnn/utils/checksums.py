"""Find damaged files: SHA-256 sums of a folder, and the sums inside ZIP files."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from keras_disrnn.utils.files import write_text

CHECKSUMS = "SHA256SUMS"
"""The file of sums. `sha256sum -c SHA256SUMS` checks it too."""


def write_checksums(folder: str | os.PathLike[str], names: Iterable[str] | None = None) -> None:
    """Write the SHA-256 sums of files in a folder.

    Args:
        folder: The folder.
        names: Names of the files; `None` for all files in the folder that are not hidden.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_disrnn.utils.checksums import check_checksums, write_checksums
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = pathlib.Path(name)
    ...     _ = (folder / "scores.csv").write_text("r2")
    ...     write_checksums(folder)
    ...     check_checksums(folder)
    """
    folder = Path(folder)
    if names is None:
        names = [
            path.name
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith(".") and path.name != CHECKSUMS
        ]
    lines = [
        f"{_sum(folder / name)}  {name}\n" for name in sorted(names) if (folder / name).exists()
    ]
    write_text(folder / CHECKSUMS, "".join(lines))


def check_checksums(
    folder: str | os.PathLike[str],
    names: Iterable[str] | None = None,
    *,
    remedy: str = "restore it from a copy",
) -> None:
    """Check files against the sums of their folder. A folder without sums passes.

    Args:
        folder: The folder.
        names: Names of the files that are going to be read. Those that do not exist are skipped.
            `None` for all files with a sum.
        remedy: What the user can do about a damaged file, for the message.

    Raises:
        ValueError: If a file or the file of sums is damaged. The message names it.
    """
    folder = Path(folder)
    if not (folder / CHECKSUMS).exists():
        return
    sums: dict[str, str] = {}
    text = (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines(keepends=True):
        # The last line of a shortened file has no end.
        found = re.fullmatch(r"([0-9a-f]{64})  (.+)\n", line)
        if found is None:
            raise ValueError(
                f"{folder / CHECKSUMS}: expected lines of a SHA-256 and a name, got "
                f"{line.strip()[:80]!r}; "
                "restore it, or remove it to read the folder without this check"
            )
        sums[found[2]] = found[1]
    wanted = sums if names is None else [name for name in names if (folder / name).exists()]
    for name in wanted:
        if name not in sums:
            raise ValueError(
                f"{folder / CHECKSUMS}: expected the SHA-256 of {name}, got none; restore the file "
                "of sums, or remove it to read the folder without this check"
            )
        if not (folder / name).exists():
            raise ValueError(
                f"{folder / name}: expected a file, as {CHECKSUMS} lists it, got none; {remedy}"
            )
        if _sum(folder / name) != sums[name]:
            raise ValueError(
                f"{folder / name}: expected the SHA-256 in {CHECKSUMS}, got a file that has "
                f"changed since or is damaged; {remedy}"
            )


def check_zip(path: str | os.PathLike[str], kind: str, *, remedy: str) -> None:
    """Check the sums inside a ZIP file, as `.npz` and `.keras` files are.

    Args:
        path: The file.
        kind: What the file should hold, for the message.
        remedy: What the user can do about a damaged file, for the message.

    Raises:
        ValueError: If the file is damaged. The message names it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"its part {damaged} does not match its sum")
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{Path(path)}: expected {kind}, got a file that cannot be read ({error}); {remedy}"
        ) from error


def _sum(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
