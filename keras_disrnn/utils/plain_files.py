"""Read YAML and JSON from files that nobody has checked, without spending time on hostile ones."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import yaml

MOST_BYTES = 2**26
"""The largest file that is parsed, in bytes."""

MOST_LEVELS = 200
"""The deepest nesting of brackets. The time of the parser grows with its square."""

MOST_VALUES = 1_000_000
"""The largest number of values in a YAML file, after its aliases are replaced."""


def parse_yaml(text: str | bytes, path: str | os.PathLike[str]) -> Any:
    """Parse YAML, unless its aliases multiply it, or its nesting is too deep.

    Args:
        text: The YAML, as text or as the bytes of a file in UTF-8.
        path: The file, for the error message.

    Returns:
        The values, in plain types.

    Raises:
        ValueError: If the text is not YAML, is too large, or is nested too deeply.

    Example:

    >>> from keras_disrnn.utils.plain_files import parse_yaml
    >>> parse_yaml("{seed: 1}", "config.yaml")
    {'seed': 1}
    """
    text = _decode(text, path, "YAML")
    _check_bytes(text, path)
    _check_levels(text, path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _count(node, {}) > MOST_VALUES:
            raise ValueError(
                f"{path}: expected at most {MOST_VALUES} values, got aliases that make more; write "
                "the values out"
            )
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: expected YAML, got {_reason(error)}") from error


def parse_json(text: str | bytes, path: str | os.PathLike[str]) -> Any:
    """Parse JSON, unless it is too large or nested too deeply.

    Args:
        text: The JSON, as text or as the bytes of a file in UTF-8.
        path: The file, for the error message.

    Returns:
        The values, in plain types.

    Raises:
        ValueError: If the text is not JSON, is too large, or is nested too deeply.
    """
    text = _decode(text, path, "JSON")
    _check_bytes(text, path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got {_reason(error)}") from error


def _decode(text: str | bytes, path: str | os.PathLike[str], kind: str) -> str:
    try:
        return text if isinstance(text, str) else text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected {kind} in UTF-8, got {error.reason}") from error


def _check_bytes(text: str, path: str | os.PathLike[str]) -> None:
    if len(text) > MOST_BYTES:
        raise ValueError(f"{path}: expected at most {MOST_BYTES} characters, got {len(text)}")


def _check_levels(text: str, path: str | os.PathLike[str]) -> None:
    levels = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        levels = levels + 1 if bracket in "[{" else max(levels - 1, 0)
        if levels > MOST_LEVELS:
            raise ValueError(f"{path}: expected YAML, got {_reason(RecursionError())}")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "a file whose values are nested too deeply"
    return f"a file that is not ({' '.join(str(error).split())})"


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values below a node, with those of each alias again."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        # A node that contains itself has no end.
        known[id(node)] = MOST_VALUES + 1
        children = [
            child for item in node.value for child in (item if isinstance(item, tuple) else (item,))
        ]
        known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]
