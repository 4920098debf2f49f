"""Prepare the words of the command line: paths with `~`, and names that look like numbers."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from keras_disrnn.utils.files import expand_home, naming_disk_errors

NAMES = ("held_out_sessions", "held_out_subjects", "subjects")
"""Settings whose values are names. They are taken as they are written."""


def with_home(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that replaces `~` in its paths, and names the place when a disk is full.

    Args:
        command: A function whose arguments are the flags.

    Example:

    >>> from keras_disrnn.experiments.flags import with_home
    >>> with_home(lambda out: print("~" in out))(out="~/runs/first")
    False
    """

    @functools.wraps(command)
    def expanded(**settings: Any) -> None:
        settings = expand_home(settings)
        with naming_disk_errors(settings.get("out", ".")):
            command(**settings)

    return expanded


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
    for word in words:
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
