"""The commands of `hpc-agent service`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpc_agent.cli.service import app
from hpc_agent.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration file; units go below ``tmp_path`` too."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "agent.yaml"
    path.touch()
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_install_show_uninstall(config: Path) -> None:
    """The unit is written as shown, with what to do next, and removed again."""
    path = config.parent / "systemd" / "user" / "hpc-agent.service"
    shown = run("show", "--config", str(config))
    output = run("install", "--config", str(config))
    assert path.read_text() == shown
    assert str(path) in output
    assert "Next:" in output
    assert "removed" in run("uninstall")
    assert not path.exists()
    assert "not installed" in run("uninstall")


def test_a_dry_run_writes_nothing(config: Path) -> None:
    """--dry-run prints the unit only."""
    output = run("install", "--dry-run", "--config", str(config))
    assert "ExecStart=" in output
    assert not (config.parent / "systemd").exists()


def test_errors_are_of_our_tree(tmp_path: Path) -> None:
    """The command's caller prints them and chooses the exit code."""
    with pytest.raises(ConfigError):
        run("install", "--config", str(tmp_path / "missing.yaml"))
