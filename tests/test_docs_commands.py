"""Checks the commands on the pages: they parse with today's flags. Nothing runs."""

import importlib
import re
import shlex
from pathlib import Path

import jsonargparse
import pytest

from keras_disrnn import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "exports" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.]*")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OPERATORS = {"&&", ";", "|"}


def blocks(text):
    """Return the lines of the indented and the shell blocks, with continued lines joined."""
    fenced = [code for name, code in re.findall(FENCE, text) if name in ("bash", "sh")]
    indented = re.findall(
        r"^ {4}(?=\S)(.*)$", re.sub(FENCE, "", text).replace("\\\n", "\\\v"), re.MULTILINE
    )
    return re.sub(r"\\[\n\v]\s*", " ", "\n".join(fenced + indented)).split("\n")


def words_of(line, variables):
    """Return the words of each command of `keras-disrnn` on a line, without its name."""
    found = []
    name = re.match(r"(\w+)=(['\"])(.*)\2$", line)
    if name:
        variables[name[1]] = name[3]
    for variable, value in variables.items():
        line = line.replace(f"${variable}", value)
    words = iter(shlex.split(line, comments=True) if "keras-disrnn" in line else [])
    for word in words:
        if word.endswith("keras-disrnn"):
            command = []
            for following in words:
                if following in OPERATORS:
                    break
                command.append(following)
            found.append([word for word in command if word != "..."])
    return found


def commands_in_blocks():
    for page in PAGES:
        variables = {}
        for line in blocks(page.read_text("utf-8")):
            for words in words_of(line, variables):
                yield pytest.param(words, "..." in line, id=f"{page.name}: {' '.join(words)[:60]}")


def commands_in_text():
    """Yield (page, command, its flags) for the commands inside sentences and tables."""
    for page in PAGES:
        for span in re.findall(r"`keras-disrnn ([^`\n]+)`", page.read_text("utf-8")):
            yield pytest.param(span.split()[0], FLAG.findall(span), id=f"{page.name}: {span[:60]}")


@pytest.fixture(scope="module")
def parser():
    return jsonargparse.capture_parser(lambda: cli.main([]))


def flags_of(parser, command):
    actions = parser._subcommands_action._name_parser_map[command]._actions
    return {flag for action in actions for flag in action.option_strings}


def fill_in(words, parser):
    """Add the required settings that a shortened command (`...`) leaves out."""
    for setting in ("out", "data.table"):
        if f"--{setting}" in flags_of(parser, words[0]) and f"--{setting}" not in words:
            words = [*words, f"--{setting}", "there"]
    return words


@pytest.mark.parametrize(("words", "shortened"), [*commands_in_blocks()])
def test_a_command_in_a_block_parses(words, shortened, parser, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "--config" in words:  # the page of studies shows the file
        code = (ROOT / "docs" / "studies.md").read_text("utf-8")
        (tmp_path / "study.yaml").write_text(re.search(r"```yaml\n(.*?)```", code, re.DOTALL)[1])
    try:
        parsed = parser.parse_args(fill_in(words, parser) if shortened else words)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    assert parsed.subcommand == words[0]


@pytest.mark.parametrize(("command", "flags"), [*commands_in_text()])
def test_a_command_in_a_sentence_has_its_flags(command, flags, parser):
    assert set(flags) <= flags_of(parser, command) | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_flag_with_a_group_belongs_to_a_command(page, parser):
    names = parser._subcommands_action._name_parser_map
    known = set().union(*(flags_of(parser, name) for name in names))
    mentioned = {flag for flag in FLAG.findall(page.read_text("utf-8")) if "." in flag}
    assert {flag.rstrip(".") for flag in mentioned} <= known


def test_a_command_with_an_old_flag_does_not_parse(parser):
    with pytest.raises(SystemExit):
        parser.parse_args(
            ["simulate", "--model", "runs/mice", "--out", "played.csv", "--sessions", "300"]
        )


def options_of_benchmarks():
    programs = "".join(path.read_text("utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    return set(re.findall(r"\"(--[a-z-]+)\"", programs))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_flag_alone_belongs_to_a_command_or_a_benchmark(page, parser):
    names = parser._subcommands_action._name_parser_map
    known = set().union(options_of_benchmarks(), *(flags_of(parser, name) for name in names))
    text = re.sub(FENCE, "", page.read_text("utf-8"))
    alone = {flag for flag in re.findall(r"`(--[a-z][\w.-]*)[^`*]*`", text)}
    assert alone <= known


def resolve(name):
    """Import the longest part of a dotted name that is a module, and look up the rest."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for end, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:end]))
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_names_of_the_package_exist(page):
    text = page.read_text("utf-8")
    for name in set(re.findall(r"\bkeras_disrnn(?:\.[A-Za-z_]\w*)+", text)):
        resolve(name)
    for module, names in re.findall(r"from (keras_disrnn[\w.]*) import (\([^)]*\)|[^\n]*)", text):
        found = importlib.import_module(module)
        for name in re.findall(r"\w+", re.sub("#.*", "", names)):
            assert hasattr(found, name), f"from {module} import {name}"
