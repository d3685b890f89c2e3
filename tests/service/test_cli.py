"""The commands of `hpc-agent service`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hpc_agent.cli.service import app
from hpc_agent.errors import ConfigError, UsageError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration file; units go below ``tmp_path`` too, and there is no crontab."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "agent.yaml"
    content = {
        "control_plane": {"url": "https://cp.example"},
        "work_dir": str(tmp_path / "work"),
        "home": str(tmp_path / "home"),
    }
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_install_and_uninstall(config: Path) -> None:
    """The unit is written as printed, with what to do next, and removed again."""
    path = config.parent / "systemd" / "user" / "hpc-agent.service"
    shown = run("install", "--print", "--config", str(config))
    assert not path.exists()
    output = run("install", "--config", str(config))
    assert path.read_text() == shown
    assert str(path) in output
    assert "Next:" in output
    removed = run("uninstall", "--config", str(config))
    assert f"{path}: removed" in removed
    assert not path.exists()
    assert "nothing is installed" in run("uninstall", "--config", str(config))


def test_uninstall_says_what_it_leaves(config: Path) -> None:
    """State and job directories are no part of a service."""
    run("install", "--config", str(config))
    left = run("uninstall", "--config", str(config)).splitlines()[-1]
    for path in (config, config.parent / "home", config.parent / "work"):
        assert str(path) in left


def test_system_unit_is_written_below_a_root(config: Path, tmp_path: Path) -> None:
    """An image can be built so; it may write to what agent.yaml names, and to no more."""
    system = ["--system", "--root", str(tmp_path / "image"), "--config", str(config)]
    run("install", *system, "--as", "daemon", "--write", "/scratch/more")
    path = tmp_path / "image/etc/systemd/system/hpc-agent.service"
    text = path.read_text()
    for directory in (tmp_path / "home", tmp_path / "work", Path("/scratch/more")):
        assert f'ReadWritePaths="-{directory}"\n' in text
    assert str(path) in run("uninstall", *system)
    assert not path.exists()


def test_control_plane_has_a_unit_of_its_own(config: Path, tmp_path: Path) -> None:
    """Beside the agent's, by the same command."""
    home = tmp_path / "plane"
    with pytest.raises(ConfigError, match="control-plane init"):
        run("install", "--control-plane", str(home))
    home.mkdir()
    (home / "dagster.yaml").touch()
    run("install", "--control-plane", str(home))
    run("install", "--config", str(config))
    units = config.parent / "systemd" / "user"
    text = (units / "hpc-agent-control-plane.service").read_text()
    assert f'"control-plane" "start" "--home" "{home}"\n' in text
    assert "KillMode=mixed" in text
    assert str(home) in run("uninstall", "--control-plane", str(home)).splitlines()[-1]
    assert [path.name for path in units.iterdir()] == ["hpc-agent.service"]


def test_slurm_job_takes_options_of_sbatch(config: Path) -> None:
    """One line for each, and nothing that would begin another."""
    job = ["--slurm-job", "--config", str(config)]
    text = run("install", "--print", *job, "-o", "partition=long", "-o", "time=7-00:00:00")
    assert "#SBATCH --partition=long\n#SBATCH --time=7-00:00:00\n" in text
    with pytest.raises(ConfigError, match="--mem"):
        run("install", *job, "-o", "mem=1G\n#SBATCH --wrap=x")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--system", "--crontab"], "exclude each other"),
        (["--system"], "--as"),
        (["--slurm-job", "-o", "partition"], "NAME=VALUE"),
        (["--slurm-job", "--control-plane", "{home}"], "is for the agent"),
    ],
)
def test_contradictions_are_refused(config: Path, arguments: list[str], fault: str) -> None:
    """Before anything is written."""
    (config.parent / "dagster.yaml").touch()
    argv = [each.format(home=config.parent) for each in arguments]
    with pytest.raises(UsageError, match=fault):
        run("install", "--config", str(config), *argv)
    assert not (config.parent / "systemd").exists()


def test_errors_are_of_our_tree(tmp_path: Path) -> None:
    """The command's caller prints them and chooses the exit code."""
    with pytest.raises(ConfigError):
        run("install", "--config", str(tmp_path / "missing.yaml"))
