"""Prepare a command: names that look like numbers, paths with `~`, tables, and TensorFlow."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from keras_disrnn.experiments.prepared_settings import RecordedData, TfdsData
from keras_disrnn.experiments.settings import TableData
from keras_disrnn.utils.files import check_exists, expand_home, naming_disk_errors
from keras_disrnn.utils.plain_files import parse_yaml
from keras_disrnn.utils.quiet import import_tensorflow, plain_warnings

NAMES = ("held_out_sessions", "held_out_subjects", "subjects")
"""Settings whose values are names. They are taken as they are written."""

INPUTS = ("configuration", "events", "known", "model", "params", "run", "table")
"""Arguments of commands that are files or folders to read."""


def prepared(command: Callable[..., None], *, computes: bool = True) -> Callable[..., None]:
    """Return a command that checks its files before it begins, and then begins quietly.

    It replaces `~` in all paths, and refuses tables that are not there. TensorFlow then starts,
    without its messages, and with threads that leave the processors to the native library. The
    variable `TF_CPP_MIN_LOG_LEVEL` brings the messages back.

    Args:
        command: A function whose arguments are the flags.
        computes: Whether the command needs TensorFlow.

    Example:

    >>> from keras_disrnn.experiments.flags import prepared
    >>> prepared(lambda out: print("~" in out))(out="~/runs/first")
    False
    """

    @functools.wraps(command)
    def begin(**settings: Any) -> None:
        settings = expand_home(settings)
        _check_tables(settings)
        if computes:
            import_tensorflow()
            from keras_disrnn import native

            native.yield_processors()
        with plain_warnings(), naming_disk_errors(settings.get("out", ".")):
            command(**settings)

    return begin


def choose_commands(
    commands: Sequence[Callable[..., None]],
    words: Sequence[str],
    *,
    quick: Collection[Callable[..., None]] = (),
) -> dict[str, Any]:
    """Prepare the commands, without the flags of those that the user does not call.

    The parser would take longer to make the flags of all commands than for everything else.

    Args:
        commands: Functions whose arguments are the flags.
        words: The words after the name of the program.
        quick: The commands that do not need TensorFlow.

    Returns:
        Name to command. All are in it, because the help text lists them.

    Example:

    >>> from keras_disrnn.experiments.flags import choose_commands
    >>> def fit(out: str) -> None: ...
    >>> def plot(run: str) -> None: ...
    >>> import inspect
    >>> inspect.signature(choose_commands([fit, plot], ["fit", "--out=x"])["plot"]).parameters
    mappingproxy(OrderedDict())
    """
    first = next(iter(words), "")
    # After other words, such as --config, any command may follow.
    all_flags = not first or (first.startswith("-") and first not in ("-h", "--help", "--version"))
    by_name = {command.__name__.rstrip("_"): command for command in commands}
    return {
        name: prepared(command, computes=command not in quick)
        if all_flags or name == first
        else _without_flags(command)
        for name, command in by_name.items()
    }


def _without_flags(command: Callable[..., None]) -> Callable[..., None]:
    def described() -> None:
        raise AssertionError(f"{command.__name__}: the parser does not run what no word names")

    described.__doc__ = command.__doc__
    return described


def _check_tables(settings: Mapping[str, Any], inside: str = "") -> None:
    """Raise an error if a table, a data set or another input of a command is not there."""
    for name, value in settings.items():
        if isinstance(value, dict):
            _check_tables(value, f"{name}.")
            continue
        if isinstance(value, RecordedData):
            value = value.chosen()
        if isinstance(value, TfdsData):
            value.find()
        path = value.table if isinstance(value, TableData) else None
        if name in INPUTS and isinstance(value, str) and not inside:
            path = value
        if not path:
            continue
        try:
            check_exists(path, "file" if Path(path).suffix else "folder")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{inside}{name}: {error}" if inside else error) from error


def check_config(path: str) -> None:
    """Refuse a file of settings that would take much time, or whose names would change.

    Args:
        path: The file of `--config`. The parser names one that does not exist.

    Raises:
        ValueError: If it has too many values or is nested too deeply. Also if a session or a
            subject has no quotes, and YAML reads another name, such as 7 for 007.
    """
    file = Path(path).expanduser()
    if file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
        parse_yaml(text, file)
        node = yaml.compose(text)
        if node is not None:
            _check_names(node, False, file)


def _check_names(node: yaml.Node, inside: bool, file: Path) -> None:
    """Raise ValueError if YAML reads a name as a value with another text."""
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            if child.tag != "tag:yaml.org,2002:null":
                _check_names(child, inside or key.value in NAMES, file)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_names(child, inside, file)
    elif inside and str(yaml.safe_load(yaml.serialize(node))) != node.value:
        raise ValueError(
            f"{file}: expected the names of sessions and subjects in quotes, got {node.value}, "
            f"which YAML reads as another value; write '{node.value}'"
        )


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
