"""Prepare the words of the command line: paths with `~`, and names that look like numbers."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from keras_disrnn.utils.files import expand_home
from keras_disrnn.utils.plain_files import parse_yaml

NAMES = ("held_out_sessions", "held_out_subjects", "subjects")
"""Settings whose values are names. They are taken as they are written."""


def with_home(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that replaces `~` in all of its paths before it begins.

    Args:
        command: A function whose arguments are the flags.

    Example:

    >>> from keras_disrnn.experiments.flags import with_home
    >>> with_home(lambda out: print("~" in out))(out="~/runs/first")
    False
    """

    @functools.wraps(command)
    def expanded(**settings: Any) -> None:
        command(**expand_home(settings))

    return expanded


def check_config(path: str) -> None:
    """Refuse a file of settings that would take the parser much time or memory.

    Args:
        path: The file of `--config`. The parser names one that does not exist.

    Raises:
        ValueError: If it has too many values or is nested too deeply.
    """
    file = Path(path).expanduser()
    if file.is_file():
        parse_yaml(file.read_text(encoding="utf-8", errors="replace"), file)


def quote_names(words: Sequence[str]) -> list[str]:
    """Quote sessions and subjects in the lists of flags, so that 007 is not the number 7.

    Args:
        words: The words after the name of the program.

    Returns:
        The words for the parser.

    Example:

    >>> from keras_disrnn.experiments.flags import quote_names
    >>> quote_names(["--data.subjects=[007, m1]", "--sizes=[10]"])
    ["--data.subjects=['007', 'm1']", '--sizes=[10]']
    """
    quoted: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        path = word if before == "--config" else word.removeprefix("--config=")
        if path != word or before == "--config":
            check_config(path)
        is_flag = word.startswith("--")
        flag, equals, value = word.partition("=") if is_flag else ("", "", word)
        if value.startswith(("[", "{")):
            name = (flag or (quoted[-1] if quoted else "")).rpartition(".")[2].strip("-+")
            try:
                node = yaml.compose(value)
            except yaml.YAMLError:
                pass  # The parser names the flag.
            else:
                _mark_names(node, name in NAMES)
                value = yaml.serialize(node, width=sys.maxsize, allow_unicode=True).strip()
        quoted.append(f"{flag}{equals}{value}")
    return quoted


def _mark_names(node: yaml.Node, inside: bool) -> None:
    """Mark the values in settings of names as text, instead of as numbers, dates or booleans."""
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            _mark_names(child, inside or key.value in NAMES)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _mark_names(child, inside)
    elif inside:
        node.tag, node.style = "tag:yaml.org,2002:str", "'"
