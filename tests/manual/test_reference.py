"""Pages that are made from the code: nothing can be added without its line in one of them."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from hpc_agent.cli import app
from hpc_agent.config import AgentConfig
from hpc_agent.jobs.options_table import REFUSED
from hpc_agent.manual import blocks, commands, settings, tags
from hpc_agent.manual.library import reference
from hpc_agent.runs.tags import KNOWN_TAGS
from tests.config.test_config import keys_of
from tests.manual.pages import ROOT


def every_command() -> list[tuple[str, list[str]]]:
    """Return each command with the spellings of its options."""
    found: list[tuple[str, list[str]]] = []

    def walk(path: list[str], command: commands.Command) -> None:
        below = getattr(command, "commands", {})
        for name, each in below.items():
            walk([*path, name], each)
        if not below:
            found.append((" ".join(path), [o for each in command.params for o in each.opts]))

    walk(["hpc-agent"], get_command(app))
    return found


@pytest.mark.parametrize(("name", "options"), every_command())
def test_each_command_has_a_section_with_its_options(name: str, options: list[str]) -> None:
    """Under its own heading, on the page of its group."""
    texts = commands.pages(get_command(app))
    (section,) = [
        part
        for text in texts.values()
        for part in text.split("\n## ")
        if part.partition("\n")[0] == name
    ]
    long = [option for option in options if option.startswith("--") and option != "--help"]
    assert [option for option in long if option not in section] == []


def test_each_key_of_agent_yaml_has_a_row() -> None:
    """Those of sections that are used twice under the first of them."""
    forms = {setting.path: setting.form for setting in settings.settings()}

    def is_within_what_is_spelled_out_elsewhere(path: str) -> bool:
        return any("as `" in forms.get(each, "") for each in sections_of(path))

    missing = keys_of(AgentConfig) - forms.keys()
    assert {path for path in missing if not is_within_what_is_spelled_out_elsewhere(path)} == set()
    assert {"locations.NAME.run_options", "scheduler.rest.token_command"} <= forms.keys()


def test_sections_and_single_keys_have_a_meaning() -> None:
    """A word of what it is for, unless the key before it has said it for both."""
    silent = [each.path for each in settings.settings() if not each.about]
    assert [path for path in silent if "." not in path] == []


def test_meaning_is_that_of_the_example() -> None:
    """Also of keys that the example has commented out, and never a line of YAML."""
    about = {each.path: each.about for each in settings.settings()}
    assert about["scheduler.ssh.files"].startswith("sftp: work_dir is a directory over there.")
    assert about["scheduler.arrays"].startswith("Whether runs that are alike")
    assert about["policy.force"] == "Options that win over all others."
    assert about["artifacts.keep_days"].endswith("Without it: none is.")


def test_default_is_told() -> None:
    """By the model; what the model reckons, as the example shows it."""
    default = {each.path: each.default for each in settings.settings()}
    assert default["scheduler.poll_seconds"] == "`15`"
    assert default["home"] == "`~/.local/state/hpc-agent`"
    assert default["work_dir"] == "required"


def test_page_of_tags_has_every_tag_that_means_something() -> None:
    """All but those of options that cannot be set."""
    (text,) = tags.pages().values()
    refused = {f"dagster-hpc/{name}" for name in REFUSED}
    assert {tag for tag in KNOWN_TAGS - refused if f"| `{tag}` |" not in text} == set()


def test_blocks_are_those_that_the_page_on_options_explains() -> None:
    """In the order of a script."""
    page = (ROOT / "docs" / "options.md").read_text()
    table = page.partition("| block | holds |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.M)) == sorted(blocks.blocks())


def test_inner_blocks_are_within_their_outer_one() -> None:
    """`run` goes on after the end of `teardown`."""
    found = blocks.blocks()
    assert found["run"].count("{% block") == found["run"].count("{% endblock") == 1
    assert found["run"].rstrip().endswith("{% endif %}")


def test_pages_have_names_of_their_own() -> None:
    """None hides another one."""
    made = reference(get_command(app))
    parts = [commands.pages(get_command(app)), settings.pages(), tags.pages(), blocks.pages()]
    assert len(made) == sum(map(len, parts))


def sections_of(path: str) -> list[str]:
    """Return the sections that a key is in."""
    names = path.split(".")
    return [".".join(names[:number]) for number in range(1, len(names))]
