"""`config check` looks at what agent.yaml names."""

from __future__ import annotations

import stat
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from hpc_agent.cli.config import app
from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.config.places import place_of
from hpc_agent.errors import ConfigError
from hpc_agent.inspection.configuration import faults
from hpc_agent.relay.certificate import load_or_create


@pytest.fixture
def right(tmp_path: Path) -> dict[str, Any]:
    """Return a configuration whose files are all there."""
    token, python = tmp_path / "token", tmp_path / "python"
    token.write_text("agent:test")
    token.chmod(0o600)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    (tmp_path / "tls").mkdir(mode=0o700)
    certificate = load_or_create(tmp_path / "tls", ["127.0.0.1"])
    return {
        "control_plane": {
            "url": "https://cp.example",
            "token_file": str(token),
            "ca_bundle": str(certificate.certificate_file),
        },
        "work_dir": str(tmp_path / "work" / "below"),
        "home": str(tmp_path / "home"),
        "environment": {"python": str(python)},
        "scheduler": {"kind": "local"},
    }


def changed(right: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a configuration with another value of a dotted key."""
    first, _, rest = key.partition(".")
    below = right.get(first, {})
    return right | {first: changed(below, rest, value) if rest else value}


def told(content: dict[str, Any]) -> list[str]:
    return faults(parse_config(content, source="agent.yaml"))


def test_right_configuration_has_no_faults_and_leaves_no_trace(
    right: dict[str, Any], tmp_path: Path
) -> None:
    """Looking makes nothing."""
    before = sorted(tmp_path.rglob("*"))
    assert told(right) == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("control_plane.ca_bundle", "/no/ca.pem", "there is no such file"),
        ("control_plane.ca_bundle", "/etc", "is a directory"),
        ("control_plane.ca_bundle", "/etc/passwd", "holds no certificates in PEM"),
        ("control_plane.token_file", "/no/token", "there is no such file"),
        ("work_dir", "/proc/self/work", "cannot be made"),
        ("work_dir", "/etc/passwd", "is no directory"),
        ("work_dir", "/etc/passwd/work", "cannot be made: /etc/passwd is no directory"),
        ("home", "/sys/home", "cannot be made"),
        ("artifacts.directory", "/proc/artifacts", "cannot be made"),
        ("logging.file", "/proc/logs/agent.log", "/proc/logs cannot be made"),
        ("logging.file", "/etc", "is a directory"),
        ("templates_dir", "/no/templates", "there is no such directory"),
        ("scheduler.bin_dir", "/etc/passwd", "is no directory"),
        ("scheduler.slurm_conf", "/no/slurm.conf", "there is no such file"),
        ("environment.python", "/no/python", "is not on this machine"),
        ("environment.python", "/etc/passwd", "is not on this machine, or no program"),
        ("options.partitoin", "x", "partitoin"),
    ],
)
def test_fault_is_told_with_its_key(
    right: dict[str, Any], key: str, value: str, fault: str
) -> None:
    """Once, whoever else would have noticed."""
    found = told(changed(right, key, value))
    assert len(found) == 1, found
    assert found[0].startswith(key.split(".", maxsplit=1)[0])
    assert fault in found[0]


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({"venv": "/no/venv"}, "environment.venv: /no/venv/bin/python"),
        ({"uv": "/no/project"}, "environment.uv: /no/project/.venv/bin/python"),
        ({"conda": {"root": "/no", "name": "e"}}, "environment.conda: /no/envs/e/bin/python"),
        ({"venv": "/no/venv", "packed": "/etc/passwd"}, "environment.venv: /no/venv/bin/python"),
        ({"venv": sys.prefix, "packed": "/no/env.tar"}, "environment.packed: /no/env.tar"),
    ],
)
def test_interpreter_is_found_by_whichever_key(
    right: dict[str, Any], environment: dict[str, Any], key: str
) -> None:
    """The general one, and that of a single location."""
    assert told(right | {"environment": environment})[0].startswith(key)
    own = right | {"locations": {"mine": {"environment": environment}}}
    assert told(own)[0].startswith(f"locations.mine.{key}")


def test_what_is_elsewhere_is_not_looked_for(right: dict[str, Any]) -> None:
    """In a container, or on the machine that is reached by SSH."""
    inside = {"python": "/no/python", "container": {"image": "/x.sif"}}
    assert told(right | {"environment": inside}) == []
    elsewhere = right | {
        "scheduler": {"transport": "ssh", "ssh": {"host": "h"}, "bin_dir": "/no/bin"},
        "work_dir": "/proc/no",
        "environment": {"python": "/no/python"},
    }
    assert told(elsewhere) == []


def test_each_path_says_what_has_to_be_there() -> None:
    """A new key cannot be forgotten by the check."""
    without = [key for key, place in paths_of(AgentConfig) if place is None]
    assert without == []


def test_command_says_right_or_what_is_wrong(right: dict[str, Any], tmp_path: Path) -> None:
    """By the same name as the file has the key."""
    file = tmp_path / "agent.yaml"
    file.write_text(yaml.safe_dump(right))
    done = CliRunner().invoke(app, ["check", "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert "agent.yaml is right" in done.output
    file.write_text(yaml.safe_dump(changed(right, "control_plane.ca_bundle", "/no/ca.pem")))
    done = CliRunner().invoke(app, ["check", "--config", str(file)])
    assert isinstance(done.exception, ConfigError)
    assert "control_plane.ca_bundle: /no/ca.pem" in str(done.exception)
    assert "right" not in done.output


@pytest.mark.parametrize("value", [5, ["a"], True])
def test_value_that_is_no_path_is_said_without_python(value: Any) -> None:
    """Users need not know pathlib."""
    content = {"control_plane": {"url": "https://x"}, "work_dir": value}
    with pytest.raises(ConfigError, match="work_dir: must be a path") as caught:
        parse_config(content, source="agent.yaml")
    assert "<class" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"must be an absolute path \(got 'here'\)"):
        parse_config(content | {"work_dir": "here"}, source="agent.yaml")


def test_directory_on_a_read_only_file_system_is_told(
    right: dict[str, Any], tmp_path: Path
) -> None:
    """Mode bits say nothing of that, to root least of all."""
    mount = tmp_path / "read-only"
    mount.mkdir()
    script = (
        f"mount -t tmpfs -o ro none {mount} && exec {sys.executable} -m hpc_agent config check "
        f"--config {tmp_path / 'agent.yaml'}"
    )
    content = changed(right, "work_dir", str(mount / "work"))
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr or "mount failed" in done.stderr:
        pytest.skip(done.stderr)
    assert "Read-only file system" in done.stderr
    assert stat.S_ISDIR(mount.stat().st_mode)


def paths_of(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key that holds a path, with the place that its type names."""
    for name, field in model.model_fields.items():
        key = f"{above}{name}"
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from paths_of(part, f"{key}.")
        if "Path" in repr(field.annotation):
            yield key, place_of(field.annotation, tuple(field.metadata))
