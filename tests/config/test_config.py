"""The agent's configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from hpc_agent.config import AgentConfig, Location, load_config, parse_config
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.rendering import PACKAGED

MINIMAL = {"control_plane": {"url": "https://cp.example"}, "work_dir": "/shared/work"}


def written(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Return every key with the sections it is in: ``relay.port``."""
    keys = set()
    for name, field in model.model_fields.items():
        keys.add(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= keys_of(field.annotation, f"{prefix}{name}.")
    return keys


def documented_keys(text: str) -> set[str]:
    """Return the keys in the example, those that are commented out included."""
    keys, sections = set(), [(-1, "")]
    for line in text.splitlines():
        found = re.match(r"(\s*)(?:# )?([a-z_]+):(?: |$)", line)
        if found:
            indent, name = len(found[1]), found[2]
            while sections[-1][0] >= indent:
                sections.pop()
            keys.add(sections[-1][1] + name)
            sections.append((indent, f"{sections[-1][1]}{name}."))
    return keys


def test_example_is_valid_and_shows_the_defaults() -> None:
    """The packaged example can be used as it is, and its values are the defaults."""
    content = yaml.safe_load((PACKAGED / "agent.example.yaml").read_text())
    example = parse_config(content, source="example")
    minimal = parse_config(
        {
            "control_plane": example.control_plane.model_dump(mode="json"),
            "work_dir": str(example.work_dir),
        },
        source="minimal",
    )
    assert example == minimal


def test_example_documents_every_key() -> None:
    """No key can be added without a word about it."""
    text = (PACKAGED / "agent.example.yaml").read_text()
    assert keys_of(AgentConfig) - documented_keys(text) == set()
    assert {key for key in Location.model_fields if f"{key}:" not in text} == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheduller": {}}, "scheduller: unknown key; did you mean scheduler?"),
        ({"relay": {"port": "many"}}, "relay.port: input should be a valid integer"),
        ({"relay": {"prot": 1}}, "relay.prot: unknown key; did you mean port?"),
        ({"policy": {"max": {"time": "x"}}}, "policy.max.time: string should match"),
        ({"options": {"time": ["x"]}}, "options.time: input should be a valid string"),
        ({"work_dir": "relative/path"}, "work_dir: must be an absolute path"),
        ({"work_dir": "/a\\b"}, "work_dir: must hold no backslash"),
        (
            {"scheduler": {"transport": "pyslurm", "pyslurm": {"python": "python3"}}},
            "scheduler.pyslurm.python: must be an absolute path",
        ),
        ({"scheduler": {"pyslurm": {"conda": "x"}}}, "scheduler.pyslurm.conda: unknown key"),
        ({"control_plane": {}}, "control_plane.url: required, but missing"),
        ({"control_plane": {"url": "http://far.away"}}, "control_plane.url: must start with https"),
        ({"locations": {"a": {"environmnt": {}}}}, "locations.a.environmnt: unknown key"),
        (
            {"control_plane": {"url": "https://x", "deployments": []}},
            "control_plane: deployments may be empty only with branch_deployments: true",
        ),
        (
            {"agent_queues": {"include_default_queue": False}},
            "agent_queues: without the default queue, additional_queues must name one",
        ),
        (
            {"code_servers": {"server_ttl": {"max_server": 3}}},
            "code_servers.server_ttl.max_server: unknown key; did you mean max_servers?",
        ),
    ],
)
def test_mistake_is_named_with_file_key_and_reason(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """One message says which file, which key, and what is wrong with it."""
    path = written(tmp_path / "agent.yaml", MINIMAL | change)
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    assert f"{path}: {message}" in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Nobody mends a file one mistake at a time."""
    path = written(tmp_path / "agent.yaml", {"control_plane": {"url": "ftp://x"}, "hom": "/x"})
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    assert len(str(caught.value).splitlines()) == 3


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Any key can be set by a variable."""
    path = written(tmp_path / "agent.yaml", MINIMAL)
    config = load_config(
        path,
        environ={
            "HPC_AGENT__CONTROL_PLANE__URL": "https://other.example/",
            "HPC_AGENT__RELAY__PORT": "1234",
        },
    )
    assert config.control_plane.url == "https://other.example"
    assert config.relay.port == 1234


def test_broken_yaml_is_no_traceback(tmp_path: Path) -> None:
    """A syntax error is told with its place."""
    path = tmp_path / "agent.yaml"
    path.write_text("control_plane: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path, environ={})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:00:00", "12:00:00"),
        ("90:00", "90:00"),
        ("60", 60),
        ("1-12", "1-12"),
        ("2.5", 2.5),
        ("-100", -100),
        ("true", True),
    ],
)
def test_times_are_no_numbers_in_base_60(tmp_path: Path, text: str, value: object) -> None:
    """YAML 1.1 makes 43200 of 12:00:00, which sbatch would take for a month."""
    path = tmp_path / "agent.yaml"
    path.write_text(f"{yaml.safe_dump(MINIMAL)}\noptions: {{time: {text}}}\n")
    assert load_config(path, environ={}).options == {"time": value}


def test_location_settings_win_over_general_ones() -> None:
    """A location's own environment is laid over the general one."""
    config = parse_config(
        MINIMAL
        | {
            "environment": {"python": "/general", "variables": {"A": "1", "B": "1"}},
            "locations": {"special": {"environment": {"variables": {"B": "2"}}}},
        },
        source="test",
    )
    special = config.environment_of("special")
    assert (special.python, special.variables) == ("/general", {"A": "1", "B": "2"})
    assert config.environment_of("other") == config.environment


def test_queues_are_those_of_the_agent_api() -> None:
    """None is the default queue, and it comes last as with the stock agent."""
    assert parse_config(MINIMAL, source="test").agent_queues.names == [None]
    content = MINIMAL | {"agent_queues": {"additional_queues": ["gpu", "big"]}}
    assert parse_config(content, source="test").agent_queues.names == ["gpu", "big", None]


@pytest.mark.parametrize(
    ("settings", "place", "is_branch", "allowed"),
    [
        ({}, ("prod", "a"), False, True),
        ({"allowed_full_deployment_locations": {"prod": ["a"]}}, ("prod", "a"), False, True),
        ({"allowed_full_deployment_locations": {"prod": ["a"]}}, ("prod", "b"), False, False),
        ({"allowed_full_deployment_locations": {"prod": ["a"]}}, ("test", "b"), False, True),
        ({"allowed_full_deployment_locations": {"prod": []}}, ("prod", "a"), False, False),
        ({"allowed_full_deployment_locations": {"prod": ["a"]}}, ("branch", "b"), True, True),
        ({"allowed_branch_deployment_locations": ["a"]}, ("branch", "b"), True, False),
        ({"allowed_branch_deployment_locations": []}, ("branch", "a"), True, False),
        ({"allowed_branch_deployment_locations": ["a"]}, ("prod", "b"), False, True),
    ],
)
def test_allowed_locations_are_as_with_the_stock_agent(
    settings: dict[str, Any], place: tuple[str, str], is_branch: bool, allowed: bool
) -> None:
    """``is_location_allowed`` of DagsterCloudAgentInstance."""
    config = parse_config(MINIMAL | settings, source="test")
    assert config.allows(*place, is_branch=is_branch) is allowed


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (None, "transport rest needs a section rest with a url"),
        ({"url": "http://r:6820"}, "set token_file or token_command; only a unix socket may do"),
        ({"url": "http://r", "token_file": "t", "token_command": ["c"]}, "not both"),
        ({"url": "r:6820", "token_file": "t"}, "scheduler.rest.url"),
        ({"url": "http://me@r", "token_file": "t"}, "scheduler.rest.url"),
        ({"url": "http://r", "token_file": "t", "ca_file": "c"}, "begins with https://"),
    ],
)
def test_mistake_about_slurmrestd_is_told(rest: dict[str, Any] | None, words: str) -> None:
    """Before anything is asked."""
    scheduler = {"transport": "rest", "rest": rest}
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, "scheduler": scheduler}, source="agent.yaml")
    assert words in str(caught.value)


def test_unix_socket_needs_no_token() -> None:
    """slurmrestd knows who is at the other end."""
    scheduler = {"transport": "rest", "rest": {"url": "unix:///run/slurmrestd/socket"}}
    config = parse_config({**MINIMAL, "scheduler": scheduler}, source="agent.yaml")
    assert config.scheduler.rest is not None


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("scheduler", "partitions_seconds"),
        ("code_servers", "unresponsive_timeout_seconds"),
        ("pools", "fallback_seconds"),
    ],
)
def test_null_means_never_where_the_page_says_so(section: str, key: str) -> None:
    """And not what holds without the key; a section with nothing in it is as if it were none."""
    content = {key: None, "options": None} if section != "scheduler" else {key: None}
    given = {section: {"short": content} if section == "pools" else content}
    config = parse_config({**MINIMAL, **given}, source="agent.yaml")
    parsed: Any = getattr(config, section)
    parsed = parsed["short"] if section == "pools" else parsed
    assert getattr(parsed, key) is None
    assert getattr(parsed, "options", {}) == {}
