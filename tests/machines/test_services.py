"""Agent and control plane under a systemd that has booted: units of a user, and of the machine.

Each is installed as a person does it, by the commands that are printed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.machines.conftest import CHECKOUTS
from tests.machines.machine import Machine, quoted, wait_until
from tests.machines.root import USER

pytestmark = [pytest.mark.machines, pytest.mark.timeout(1200)]

PLANE = "hpc-agent-control-plane.service"
AGENT = "hpc-agent.service"
ACCOUNT = "dagster"
# As docs/installing.md has it.
MOST_EXPOSED = {AGENT: 1.8, PLANE: 1.6}
SERVED_SECONDS = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Who keeps both running on a machine, as whom, and where their files are."""

    machine: Machine
    who: str
    owner: str
    programs: Path
    plane: Path
    config: Path
    work: Path
    systemctl: str

    def run(self, *words: object, seconds: float = 120) -> str:
        """Run a command of the checkout, where Slurm's are on PATH; return what it prints."""
        path = f'export PATH="{self.programs}:$PATH"; . /etc/slurm-here; '
        return self.machine.run(path + quoted(*words), user=self.who, seconds=seconds)

    def state(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        show = f"{self.systemctl} show --value --property={name} {unit}"
        return self.machine.run(show, user=self.who).strip()

    def follow(self, said: str) -> None:
        """Do what an installation has printed as next."""
        for line in said.splitlines():
            if line.startswith(("  systemctl", "  install")):
                told = "{ journalctl --no-pager --lines 40; exit 1; }"
                self.machine.run(f"{line} || {told}", user=self.who, seconds=400)

    def plane_says(self) -> dict[str, Any]:
        """Return what the control plane knows."""
        command = [self.programs / "hpc-agent", "control-plane", "status", "--json", "--home"]
        said = self.machine.run(quoted(*command, self.plane), user=self.owner)
        found: dict[str, Any] = json.loads(said)
        return found


@pytest.fixture(scope="module")
def cluster(machine: Machine) -> Iterator[Machine]:
    """A Slurm on the machine; /etc/slurm-here says to a shell where it is."""
    tool = CHECKOUTS["root"] / "slurm" / "cluster"
    machine.run(f"{tool} up --nodes 2 --dir /var/lib/hpc-slurm > /etc/slurm-here", seconds=400)
    yield machine
    machine.run(f"{tool} down --dir /var/lib/hpc-slurm")


@pytest.fixture
def own(cluster: Machine) -> Site:
    """The ordinary user's: all of it below the home directory."""
    home = Path(f"/home/{USER}")
    cluster.run(f"cd {CHECKOUTS[USER]} && make setup", user=USER, seconds=900)
    return Site(
        machine=cluster,
        who=USER,
        owner=USER,
        programs=CHECKOUTS[USER] / ".venv/bin",
        plane=home / "dagster",
        config=home / ".config/hpc-agent/agent.yaml",
        work=home / "work",
        systemctl="systemctl --user",
    )


@pytest.fixture
def administrators(cluster: Machine) -> Site:
    """The administrator's: a user of their own, programs in /opt, state below /srv."""
    cluster.run(f"cd {CHECKOUTS['root']} && make setup", seconds=900)
    cluster.run(f"useradd --create-home --home-dir /srv/{ACCOUNT} --shell /bin/bash {ACCOUNT}")
    return Site(
        machine=cluster,
        who="root",
        owner=ACCOUNT,
        programs=CHECKOUTS["root"] / ".venv/bin",
        plane=Path(f"/srv/{ACCOUNT}/control-plane"),
        config=Path("/etc/hpc-agent/agent.yaml"),
        work=Path(f"/srv/{ACCOUNT}/work"),
        systemctl="systemctl",
    )


def test_own_units_outlive_logout_and_boot(own: Site) -> None:
    """With lingering; a killed agent comes back, and so do both when the machine does."""
    made = set_up(own)
    service = ["hpc-agent", "service", "install"]
    said = own.run(*service, "--control-plane", own.plane)
    assert f"loginctl enable-linger {USER}" in said
    own.machine.run(f"loginctl enable-linger {USER}")
    own.follow(said)
    configure(own, made)
    said = own.run(*service)
    assert "lingering is on" in said
    own.follow(said)
    serves(own)

    main = own.state(AGENT, "MainPID")
    own.machine.run(f"kill -KILL {main}")
    wait_until(lambda: own.state(AGENT, "MainPID") not in {"0", main}, what="another agent")
    serves(own)
    assert own.state(AGENT, "NRestarts") == "1"

    own.machine.reboot()
    tool = CHECKOUTS["root"] / "slurm" / "cluster"
    own.machine.run(f"{tool} up --nodes 2 --dir /var/lib/hpc-slurm", seconds=400)
    serves(own)
    assert own.state(AGENT, "NRestarts") == "0"
    goes_away(own)


def test_system_units_serve_in_their_sandbox(administrators: Site) -> None:
    """Clean and little exposed by systemd-analyze, and jobs get out of them."""
    site = administrators
    made = set_up(site)
    service = ["hpc-agent", "service", "install", "--system", "--as", ACCOUNT]
    site.follow(site.run(*service, "--control-plane", site.plane))
    configure(site, made)
    site.follow(site.run(*service, "--config", site.config))
    serves(site)

    for unit, most in MOST_EXPOSED.items():
        assert site.machine.run(f"systemd-analyze verify --man=no /etc/systemd/system/{unit}") == ""
        said = site.machine.run(f"systemd-analyze security --no-pager {unit}")
        exposed = re.search(r"exposure level for .*: ([0-9.]+)", said)
        assert exposed is not None, said
        print(f"{unit}: {exposed[1]}")
        assert float(exposed[1]) <= most, said
    goes_away(site)


def set_up(site: Site) -> dict[str, Any]:
    """Make the home of the control plane, with the example deployed; return what it tells."""
    command = [site.programs / "hpc-agent", "control-plane", "init", "--home", site.plane]
    options = ["--name", "127.0.0.1", "--host", "127.0.0.1", "--non-interactive", "--json"]
    said = site.machine.run(quoted(*command, *options), user=site.owner)
    made: dict[str, Any] = json.loads(said)
    example = site.programs.parents[1] / "hpc_agent/demo/location"
    source = "{module_name: example_location.definitions}"
    one = f"{{location_name: example, code_source: {source}, working_directory: {example}}}"
    file = site.plane / "dagster_cloud.yaml"
    deploy = [*command[:2], "deploy", "--home", site.plane, file]
    script = f"echo {quoted(f'locations: [{one}]')} > {file}; {quoted(*deploy)}"
    site.machine.run(script, user=site.owner)
    return made


def configure(site: Site, made: dict[str, Any]) -> None:
    """Write agent.yaml with its token and CA, as `hpc-agent init` does for a person."""
    directory = site.config.parent
    site.machine.run(f"mkdir -p {directory} {site.work}")
    for name, text in (("token", made["agent_token"]), ("ca.pem", made["ca"])):
        site.machine.run(f"printf %s {quoted(text)} > {directory / name}")
    site.machine.run(
        f"chmod 0600 {directory}/token; chown -R {site.owner}: {directory} {site.work}"
    )
    options = ["--url", made["api"], "--ca-bundle", directory / "ca.pem", "--token-file"]
    places = ["--work-dir", site.work, "--home", site.work.parent / "agent-state"]
    python = ["--python", site.programs / "python", "--config", site.config]
    command = [
        site.programs / "hpc-agent", "init", "--non-interactive", "--no-probe", *options,
        directory / "token", *places, *python,
    ]  # fmt: skip
    # Doctor warns of what a toy lacks; what matters is that the agent serves.
    script = f". /etc/slurm-here; {quoted(*command)} || test -s {site.config}"
    site.machine.run(script, user=site.owner)


def serves(site: Site) -> None:
    """Both run, systemd shows what the agent does, and a location has its code server in a job."""
    for unit in (PLANE, AGENT):
        wait_until(partial(is_active, site, unit), what=unit)
    shown = site.machine.run(f"{site.systemctl} status --no-pager {AGENT}", user=site.who)
    assert "Status: " in shown
    wait_until(partial(is_served, site), what="a code server", seconds=SERVED_SECONDS)


def is_active(site: Site, unit: str) -> bool:
    return site.state(unit, "ActiveState") == "active"


def is_served(site: Site) -> bool:
    said = site.plane_says()
    running = site.run("squeue", "--noheader", "--states", "R", "--user", site.owner)
    # By this agent, not by the one before it: its clock (CLOCK_MONOTONIC) is that of the tests.
    age = time.monotonic() - int(site.state(AGENT, "ActiveEnterTimestampMonotonic")) / 1e6
    is_heard = any(agent["seconds_since_heartbeat"] < age for agent in said["agents"])
    return is_heard and "loaded" in json.dumps(said["locations"]) and running.strip() != ""


def goes_away(site: Site) -> None:
    """Stopped in good order and uninstalled, they leave what `uninstall` says, and no more."""
    command = ["hpc-agent", "service", "uninstall"]
    is_system = ["--system"] if site.who == "root" else []
    plane = ["--control-plane", site.plane]
    for unit, options in ((AGENT, ["--config", site.config]), (PLANE, plane)):
        site.machine.run(f"{site.systemctl} stop {unit}", user=site.who)
        assert site.state(unit, "Result") == "success"
        said = site.run(*command, *options, *is_system)
        (left,) = re.findall(r"^Left as it is: (.*)$", said, re.M)
        for path in left.split(", "):
            site.machine.run(f"test -e {quoted(path)}")
        site.follow(said)
        assert site.state(unit, "LoadState") == "not-found"
