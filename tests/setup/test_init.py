"""`hpc-agent control-plane init` and `hpc-agent init`, from nothing to an agent that is ready."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

from tests.cluster import SlurmCluster
from tests.control_plane.running import run_cli, running_control_plane

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

COMMAND = Path(sys.executable).with_name("hpc-agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A control plane that runs, and what its set-up has said."""

    made: Mapping[str, Any]
    again: Mapping[str, Any]


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    """One that was set up twice, and listens where its home says."""
    with tempfile.TemporaryDirectory(prefix="init-") as directory:
        home = Path(directory) / "home"
        options = ["--home", str(home), "--name", "localhost", "--port", str(free_port()), "--json"]
        made = json.loads(run_cli("init", *options, "--webserver-port", "0").stdout)
        again = json.loads(run_cli("init", "--home", str(home), "--json").stdout)
        # Its port is in the home: the options of the test's own helper would go before.
        with running_control_plane(home, "--no-webserver", "--no-daemon", "--port", port_of(made)):
            yield Plane(made=made, again=again)


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Return the home directory of somebody who starts from nothing."""
    home = tmp_path / "me"
    home.mkdir(mode=0o700)
    return home


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def port_of(made: Mapping[str, Any]) -> str:
    return str(made["api"]).rpartition(":")[2]


def environment(user: Path, **variables: str) -> dict[str, str]:
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    return {"HOME": str(user), "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8"} | variables


def init(
    user: Path, plane: Plane, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run it without anybody to ask; jobs are processes of this machine."""
    argv = [
        COMMAND, "init", "--non-interactive", "--local", "--url", plane.made["api"],
        "--ca-bundle", authority(user, plane), *options,
    ]  # fmt: skip
    return subprocess.run(
        argv, env=environment(user, **variables), cwd=user, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


def authority(user: Path, plane: Plane) -> str:
    file = user / "ca.pem"
    file.write_text(plane.made["ca"])
    return str(file)


def modes(directory: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir() if path.is_file()}


def test_second_set_up_of_a_control_plane_changes_nothing(plane: Plane) -> None:
    """It says where all is, and has no token to show: those that there are stay valid."""
    assert plane.again["changes"] == []
    assert plane.again["user_token"] is plane.again["agent_token"] is None
    assert plane.again["api"] == plane.made["api"]
    assert plane.again["ca"] == plane.made["ca"]
    home = Path(plane.made["home"])
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in ("listen.yaml", "dagster.yaml", "gateway.db", "audit.log"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_agent_is_ready_without_a_question(plane: Plane, user: Path) -> None:
    """By defaults, with the token from the environment, which ends up in a file of its own."""
    token = plane.made["agent_token"]
    done = init(user, plane, "--json", DAGSTER_CLOUD_AGENT_TOKEN=token)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["ready"]
    found = {each["check"]: each["status"] for each in said["doctor"]}
    assert found["control-plane"] == found["deployments"] == found["token"] == "ok"
    directory = user / ".config/hpc-agent"
    assert (directory / "token").read_text().strip() == token
    assert modes(directory) == {0o600}
    assert token not in done.stdout + done.stderr
    content = yaml.safe_load((directory / "agent.yaml").read_text())
    assert content["scheduler"] == {"kind": "local"}
    assert content["home"] == str(user / ".local/state/hpc-agent")
    checked = subprocess.run(
        [COMMAND, "config", "check"],
        env=environment(user), cwd=user, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "agent.yaml is right" in checked.stdout, checked.stderr


def test_file_that_is_there_is_kept(plane: Plane, user: Path) -> None:
    """It is replaced with --force alone, and the old one stays beside it."""
    file = user / ".config/hpc-agent/agent.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("mine: yes\n")
    token = {"DAGSTER_CLOUD_AGENT_TOKEN": plane.made["agent_token"]}
    done = init(user, plane, **token)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert file.read_text() == "mine: yes\n"
    assert init(user, plane, "--force", "--no-probe", **token).returncode == 0
    assert file.with_name("agent.yaml.bak").read_text() == "mine: yes\n"


def test_token_that_the_control_plane_refuses_is_not_ready(plane: Plane, user: Path) -> None:
    """The exit code is doctor's."""
    done = init(user, plane, "--no-probe", DAGSTER_CLOUD_AGENT_TOKEN="agent:self-hosted:wrong")
    assert done.returncode == 1
    assert "Not ready" in done.stdout
    assert "problem  control-plane" in done.stdout


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--url", "http://far.away"], "--url: must start with https"),
        (["--ca-bundle", "/no/ca.pem"], "--ca-bundle: /no/ca.pem: there is no such file"),
        (["--work-dir", "/proc/x"], "--work-dir: /proc/x cannot be made"),
        (["--python", "/no/python"], "--python: /no/python: there is no such file"),
        (["--token-file", "/no/token"], "--token-file: /no/token is not there"),
        ([], "a token is needed"),
    ],
)
def test_what_is_no_good_is_told_by_its_option(
    plane: Plane, user: Path, options: list[str], fault: str
) -> None:
    """Before anything is written."""
    done = init(user, plane, *options)
    assert done.returncode == 2
    assert fault in done.stderr
    assert not (user / ".config/hpc-agent/agent.yaml").exists()


@pytest.mark.slurm
def test_pasted_lines_and_answers_lead_to_an_agent_that_is_ready(
    plane: Plane, user: Path, slurm_cluster: SlurmCluster
) -> None:
    """At a terminal, on a login node of a real Slurm: what is wrong is asked again."""
    shell = pexpect.spawn(
        "/bin/bash", ["--norc", "--noprofile"], cwd=str(user), encoding="utf-8", timeout=90,
        env=environment(user) | dict(slurm_cluster.environment) | {
            "HOME": str(user),
            "PS1": "",
            "PATH": f"{COMMAND.parent}:{slurm_cluster.environment['PATH']}",
        },
        dimensions=(24, 80),
    )  # fmt: skip

    for line in plane.made["paste"].splitlines():
        shell.sendline(line)
    shell.expect("Deployment that it serves")

    assert (user / ".config/hpc-agent/token").read_text().strip() == plane.made["agent_token"]
    assert modes(user / ".config/hpc-agent") == {0o600}
    shell.sendline("")
    shell.expect("Directory for jobs")
    shell.sendline("relative")
    shell.expect("must be an absolute path")
    shell.expect("Directory for jobs")
    shell.sendline(str(user / "jobs"))
    shell.expect("Directory for the agent's state")
    shell.sendline("")
    shell.expect("Python with dagster")
    shell.sendline("")
    shell.expect("Partition")
    shell.sendline("no-such-partition")
    shell.expect("there is no partition no-such-partition")
    shell.sendline("1")
    shell.expect("What keeps the agent running")
    shell.sendline("none")
    shell.expect("Ready to take work from https://localhost")
    shell.sendline("exit $?")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0
    content = yaml.safe_load((user / ".config/hpc-agent/agent.yaml").read_text())
    assert content["work_dir"] == str(user / "jobs")
    assert content["options"]["partition"]


@pytest.mark.parametrize("answer", ["wrong", "right"])
def test_token_is_typed_unseen_and_may_be_typed_again(
    plane: Plane, user: Path, answer: str
) -> None:
    """One that the control plane refuses is no reason to begin anew."""
    token = plane.made["agent_token"]
    guided = pexpect.spawn(
        str(COMMAND),
        ["init", "--local", "--no-probe", "--service", "none", "--url", plane.made["api"],
         "--ca-bundle", authority(user, plane), "--deployment", "prod",
         "--work-dir", str(user / "jobs"), "--home", str(user / "state"),
         "--python", sys.executable],
        cwd=str(user), env=environment(user), encoding="utf-8", timeout=60,
    )  # fmt: skip
    guided.expect("Agent token")
    if answer == "wrong":
        guided.sendline("agent:self-hosted:wrong")
        guided.expect("Type another token")
        guided.sendline("y")
        guided.expect("Agent token")
    guided.sendline(token)
    guided.expect("written")
    said = [guided.before]
    guided.expect(pexpect.EOF)
    guided.close()
    assert guided.exitstatus == 0
    assert not any(token in str(text) for text in (*said, guided.before))
    assert (user / ".config/hpc-agent/token").read_text().strip() == token
