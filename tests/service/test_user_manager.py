"""The unit does what it promises under a real user service manager."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.control_plane.home import Home, prepare_home
from hpc_agent.service.program import Kind, Program, agent_program, control_plane_program
from hpc_agent.service.unit import Unit, install_unit, unit_directory

from .user_manager import UserManager, wait_until, why_not

UNIT_NAME = Kind.AGENT.unit_name
pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

# Stands in for `hpc-agent start`: the real notifier, a child like a job of the local scheduler, and
# an exit status from outside.
AGENT = """\
#!{python}
import pathlib, subprocess, sys, time
sys.path.insert(0, {source!r})
from hpc_agent.service.notify import Notifier
from hpc_agent.config import parse_config, read_token

content = {{"control_plane": {{"url": "https://x"}}, "work_dir": "/w"}}
config = parse_config(content, source="test")
directory = pathlib.Path({directory!r})
(directory / "argv").write_text("\\n".join(sys.argv[1:]))
(directory / "got").write_text(read_token(config))
code = directory / "exit-code"
if code.exists():
    sys.exit(int(code.read_text()))
job = subprocess.Popen(["sleep", "300"])
(directory / "job.pid").write_text(str(job.pid))
notifier = Notifier.from_environment()
notifier.status(f"interval {{notifier.watchdog_interval}}")
notifier.ready()
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def manager() -> Iterator[UserManager]:
    # Not below /tmp: a unit with a /tmp of its own would not find the manager's socket there.
    with tempfile.TemporaryDirectory(dir="/srv", prefix="hpc-agent-user-") as directory:
        running = UserManager(Path(directory))
        try:
            wait_until(running.is_running, what="a user manager")
            yield running
        finally:
            running.close()


@pytest.fixture
def agent(tmp_path: Path, manager: UserManager) -> Path:
    """Install the unit, with names that need quoting; return the stand-in's directory."""
    directory = tmp_path / "100% of the agent"
    directory.mkdir()
    executable = directory / "hpc-agent"
    source = str(Path(__file__).parents[2])
    executable.write_text(
        AGENT.format(python=sys.executable, source=source, directory=str(directory))
    )
    executable.chmod(0o755)
    token = directory / 'a %h "token"'
    token.write_text("agent:me:secret\n")
    program = Program(
        kind=Kind.AGENT,
        executable=executable,
        arguments=("start", "--config", str(directory / 'a $HOME %h "b".yaml')),
        environment={"PATH": os.environ["PATH"]},
    )
    unit = Unit(program=program, host=os.uname().nodename, token_credential=token)
    install_unit(unit, unit_directory(manager.environment))
    manager.systemctl("daemon-reload")
    return directory


def start(manager: UserManager) -> int:
    """Start the service, which returns when it has said READY=1; return its main process."""
    output = manager.systemctl("start", UNIT_NAME)
    assert manager.show(UNIT_NAME, "ActiveState") == "active", output + manager.log
    return int(manager.show(UNIT_NAME, "MainPID"))


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_agent_gets_its_arguments_and_watchdog(manager: UserManager, agent: Path) -> None:
    """Quoting survives systemd, and the watchdog's interval is half of WatchdogSec."""
    start(manager)
    arguments = (agent / "argv").read_text().split("\n")
    assert arguments == ["start", "--config", str(agent / 'a $HOME %h "b".yaml')]
    assert manager.show(UNIT_NAME, "StatusText") == "interval 60.0"
    assert manager.show(UNIT_NAME, "NoNewPrivileges") == "yes"


def test_the_agent_gets_its_token_from_systemd(manager: UserManager, agent: Path) -> None:
    """As a credential: from a file that agent.yaml does not name."""
    start(manager)
    assert (agent / "got").read_text() == "agent:me:secret"


def test_stopping_the_agent_leaves_jobs_running(manager: UserManager, agent: Path) -> None:
    """Only the main process ends."""
    main = start(manager)
    job = int((agent / "job.pid").read_text())
    manager.systemctl("stop", UNIT_NAME)
    assert not is_alive(main)
    assert is_alive(job)


def test_a_killed_agent_is_started_again(manager: UserManager, agent: Path) -> None:
    """After a crash systemd schedules a restart, and the jobs live on."""
    main = start(manager)
    job = int((agent / "job.pid").read_text())
    os.kill(main, signal.SIGKILL)
    wait_until(
        lambda: manager.show(UNIT_NAME, "SubState") == "auto-restart", what="a scheduled restart"
    )
    assert is_alive(job)


def test_a_wrong_configuration_is_not_tried_again(manager: UserManager, agent: Path) -> None:
    """Exit status 2 leaves the unit failed."""
    (agent / "exit-code").write_text("2")
    manager.systemctl("start", UNIT_NAME)
    assert manager.show(UNIT_NAME, "ActiveState") == "failed"
    assert manager.show(UNIT_NAME, "NRestarts") == "0"


def test_agent_runs_in_the_sandbox_of_its_system_unit(manager: UserManager) -> None:
    """The whole agent, with its relay's sockets; nobody listens where its control plane should."""
    with tempfile.TemporaryDirectory(dir="/srv", prefix="hpc-agent-test-") as directory:
        place = Path(directory)
        config, token = place / "agent.yaml", place / "token"
        token.touch(mode=0o600)
        token.write_text("agent:me:secret\n")
        config.write_text(
            f"control_plane: {{url: 'https://127.0.0.1:1', token_file: {token}}}\n"
            f"work_dir: {place}/work\nhome: {place}/state\nscheduler: {{kind: local}}\n"
        )
        filled = (place / "work", place / "state")
        for each in filled:
            each.mkdir(mode=0o700)
        unit = Unit(program=agent_program(config, writes=filled), account="root")
        install_unit(unit, unit_directory(manager.environment))
        manager.systemctl("daemon-reload")

        start(manager)

        assert "serving" in manager.show(UNIT_NAME, "StatusText")
        manager.systemctl("stop", UNIT_NAME)
        assert manager.show(UNIT_NAME, "Result") == "success", manager.log


def test_control_plane_runs_in_the_sandbox_of_its_system_unit(manager: UserManager) -> None:
    """With all its parts, and systemd learns when they answer."""
    # The manager is root's, and so it can make the sandbox, with a /tmp of its own.
    with tempfile.TemporaryDirectory(dir="/srv", prefix="hpc-agent-test-") as directory:
        home = Home(Path(directory) / "home")
        prepare_home(home)
        # Ports of its own: others may run on this machine.
        home.listen_yaml.write_text("port: 0\nwebserver_port: 0\n")
        unit = Unit(program=control_plane_program(home.root), account="root")
        path = unit_directory(manager.environment) / Kind.CONTROL_PLANE.unit_name
        install_unit(unit, path.parent)
        if Path(__file__).is_relative_to("/tmp"):  # its own /tmp would hide this checkout
            (path.parent / f"{path.name}.d").mkdir()
            (path.parent / f"{path.name}.d/own.conf").write_text("[Service]\nPrivateTmp=no\n")
        manager.systemctl("daemon-reload")

        said = manager.systemctl("start", path.name)

        assert manager.show(path.name, "ActiveState") == "active", said + manager.log
        assert home.running_json.exists()
        pid = manager.show(path.name, "MainPID")
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        assert any(line.split()[4] == "/" and "ro," in line.split()[5] + "," for line in mounts)
        manager.systemctl("stop", path.name)
        assert manager.show(path.name, "Result") == "success"
        assert not home.running_json.exists()
