"""Pages that people write: the commands, keys and messages in them are those of the code."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from hpc_agent.cli import app
from hpc_agent.config import AgentConfig
from hpc_agent.config.load import parse_config
from hpc_agent.control_plane.deploy import locations_of
from hpc_agent.manual import settings
from tests.manual.pages import WRITTEN, blocks, calls, name_of, words_in_code

each_page = pytest.mark.parametrize("page", WRITTEN, ids=name_of)
MINIMAL = {"control_plane": {"url": "https://cp.example"}, "work_dir": "/shared/work"}
# Dotted words that begin as a key does, and are Python's.
PYTHONS = frozenset({"logging.config.dictConfig"})
_DOTTED = re.compile(r"[a-z_]+(\.[A-Za-z_]+)+")
_WORD = re.compile(r"[a-z][a-z-]*")


@each_page
def test_commands_that_a_page_shows_can_be_parsed(page: Path) -> None:
    """In blocks of shell: the command, its options, and as many arguments as it takes."""
    wrong = [
        f"{' '.join(call)}: {fault}"
        for block in blocks(page)
        for call in calls(block)
        if (fault := fault_of(call))
    ]
    assert wrong == []


@each_page
def test_commands_that_a_sentence_names_exist(page: Path) -> None:
    """With the options that it names."""
    wrong = [
        code
        for code in words_in_code(page)
        if code.startswith("hpc-agent ") and not is_known(code.split()[1:])
    ]
    assert wrong == []


@each_page
def test_keys_that_a_sentence_names_exist(page: Path) -> None:
    """Whatever begins with a key of agent.yaml goes on with keys below it."""
    wrong = [
        code
        for code in words_in_code(page)
        if _DOTTED.fullmatch(code)
        and code.partition(".")[0] in AgentConfig.model_fields
        and code not in PYTHONS
        and not code.endswith((".py", ".md", ".json", ".yaml", ".sqlite", ".log"))
        and not is_key(code.split("."))
    ]
    assert wrong == []


@each_page
def test_yaml_that_a_page_shows_is_valid(page: Path) -> None:
    """Every block of YAML whose first keys are those of agent.yaml, or of dagster_cloud.yaml."""
    for block in blocks(page):
        content = yaml.safe_load(block.text) if block.kind == "yaml" else None
        if not isinstance(content, dict):
            continue
        if isinstance(content.get("locations"), list):
            locations_of(content, where=block.text, base=Path("/projects"))
        elif content.keys() <= AgentConfig.model_fields.keys():
            parse_config(MINIMAL | content, source=block.text)


def fault_of(words: list[str]) -> str:
    """Return what is wrong with a call, as the command line itself would say it."""
    command = the_command()
    context = None
    rest = words
    while True:
        try:
            context = command.make_context(command.name or "hpc-agent", list(rest), parent=context)
        except SystemExit:
            return ""
        except Exception as error:  # noqa: BLE001 - click's and typer's own classes differ
            name = type(error).__name__
            is_no_fault = name in {"Exit", "NoArgsIsHelpError"} or "does not exist" in str(error)
            return "" if is_no_fault else f"{name}: {error}"
        if not hasattr(command, "commands"):
            return ""
        rest = [*context._protected_args, *context.args]
        if not rest:
            return ""
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]


def is_known(words: list[str]) -> bool:
    """Whether the words of a sentence lead to a command that has the options among them."""
    command = the_command()
    while words and hasattr(command, "commands") and _WORD.fullmatch(words[0]):
        if words[0] not in command.commands:
            return False
        command, words = command.commands[words[0]], words[1:]
    options = {each for parameter in command.params for each in spelled(parameter)}
    return all(word.partition("=")[0] in options for word in words if word.startswith("--"))


@functools.cache
def the_command() -> Any:
    """Return `hpc-agent` as the tree that parses it."""
    return get_command(app)


@functools.cache
def forms_of_keys() -> dict[str, str]:
    """Return what each key of agent.yaml takes."""
    return {each.path: each.form for each in settings.settings()}


def spelled(parameter: Any) -> Iterator[str]:
    """Yield all spellings of an option."""
    yield from parameter.opts
    yield from parameter.secondary_opts


def is_key(parts: list[str]) -> bool:
    """Whether a path leads to a key; names of the user's own are in capitals, or stand for any."""
    forms = forms_of_keys()
    path: list[str] = []
    for part in parts:
        form = forms.get(".".join(path), "")
        if "as `" in form:
            path = form.partition("`")[2].rstrip("`").split(".")
            if form.startswith("names"):
                path.append("NAME") if f"{'.'.join(path)}.NAME" in forms else None
                continue
        if form == "names with values":
            named = any(each.startswith(f"{'.'.join(path)}.NAME.") for each in forms)
            if not named:
                return True
            path.append("NAME")
            continue
        path.append(part)
        if ".".join(path) not in forms:
            return False
    return True
