"""The agent's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from hpc_agent.config import AgentConfig, Location, load_config, parse_config, read_token
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.rendering import PACKAGED

MINIMAL = {"control_plane": {"url": "https://cp.example"}, "work_dir": "/shared/work"}


def written(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def keys_of(model: type[BaseModel]) -> set[str]:
    names = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= keys_of(field.annotation)
    return names


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
    undocumented = {
        key for key in keys_of(AgentConfig) | set(Location.model_fields) if f"{key}:" not in text
    }
    assert undocumented == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheduller": {}}, "scheduller: unknown key; did you mean scheduler?"),
        ({"relay": {"port": "many"}}, "relay.port: input should be a valid integer"),
        ({"relay": {"prot": 1}}, "relay.prot: unknown key; did you mean port?"),
        ({"work_dir": "relative/path"}, "work_dir: must be an absolute path"),
        ({"control_plane": {}}, "control_plane.url: required, but missing"),
        ({"control_plane": {"url": "http://far.away"}}, "control_plane.url: must start with https"),
        ({"locations": {"a": {"environmnt": {}}}}, "locations.a.environmnt: unknown key"),
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


def test_token_comes_from_a_private_file(tmp_path: Path) -> None:
    """A token that others can read is refused with the command that mends it."""
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o644)
    content = MINIMAL | {"control_plane": {"url": "https://x", "token_file": str(path)}}
    config = parse_config(content, source="test")
    with pytest.raises(ConfigError, match="chmod 600"):
        read_token(config, {})
    path.chmod(0o600)
    assert read_token(config, {}) == "secret"


def test_missing_token_is_told() -> None:
    """Without a token nothing can work, and the message says where it is looked for."""
    config = parse_config(MINIMAL, source="test")
    with pytest.raises(ConfigError, match=r"control_plane\.token_file"):
        read_token(config, {})


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
