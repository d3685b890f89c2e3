"""A whole Dagster whose control plane, login node and compute nodes are hosts of their own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.demo.story import LOCATION, PARTITION
from tests.cluster import own_cluster
from tests.e2e.conftest import choice_of, say
from tests.egress.network import Host, Way, network

API_PORT, RELAY_PORT, PROXY_PORT = 8443, 46231, 3128
HOSTS = ("plane", "proxy", "login", "c1", "c2")
API, RELAY, TO_CONTROLLER, TO_NODE, TO_PROXY = "api", "relay", "to_slurmctld", "to_slurmd", "proxy"
"""The counters of what may be dialled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The hosts, what runs on them, and the ports of Slurm's daemons."""

    hosts: Mapping[str, Host]
    stack: Stack
    controller_port: int
    node_ports: Mapping[str, int]

    def slurm_ways(self) -> list[Way]:
        """Return what Slurm's daemons dial of each other: the price of a cluster, not of ours."""
        login = self.hosts["login"]
        return [
            way
            for node, port in self.node_ports.items()
            for way in (
                _way(TO_CONTROLLER, self.hosts[node], login, self.controller_port),
                _way(TO_NODE, login, self.hosts[node], port),
            )
        ]

    def relay_ways(self) -> list[Way]:
        """Return what compute nodes dial: the login node's relay, and nothing else."""
        login = self.hosts["login"]
        return [_way(RELAY, self.hosts[node], login, RELAY_PORT) for node in self.node_ports]

    def straight_out(self) -> list[Way]:
        """Return what the login node dials where nothing stands between: the agent API."""
        return [_way(API, self.hosts["login"], self.hosts["plane"], API_PORT)]

    def through_the_proxy(self) -> list[Way]:
        """Return the same where the login node reaches an HTTP proxy alone."""
        proxy = self.hosts["proxy"]
        return [
            _way(TO_PROXY, self.hosts["login"], proxy, PROXY_PORT),
            _way(API, proxy, self.hosts["plane"], API_PORT),
        ]

    def allow(self, *ways: Way) -> None:
        """Let all hosts dial on these ways alone, and count from zero."""
        for host in self.hosts.values():
            host.guard(ways)

    def counted(self) -> dict[str, dict[str, int]]:
        """Return each host's counters."""
        return {name: host.counted() for name, host in self.hosts.items()}

    def launch_demo(self) -> str:
        """Launch the demo's run, as its user does beside the control plane."""
        with self.hosts["plane"].entered():
            tags = {"dagster/partition": PARTITION}
            return self.stack.webserver.launch(LOCATION, "__ASSET_JOB", tags=tags)

    def ending(self, run_id: str) -> str:
        """Wait for a run's end and return its status."""
        with self.hosts["plane"].entered():
            return self.stack.wait_finished(run_id, seconds=90)

    def status(self, run_id: str) -> str:
        """Return a run's status."""
        with self.hosts["plane"].entered():
            return self.stack.webserver.status(run_id)

    def compute_logs(self, run_id: str) -> str:
        """Return what a run's processes printed, which goes by uploads of its own."""

        with self.hosts["plane"].entered():
            logs = self.stack.printed(run_id)
        return "".join(text for streams in logs for text in streams.values())

    def restart_agent(self, **settings: Any) -> None:
        """Start the agent anew, with other settings of its ``control_plane``."""
        self.stack.agent.stop()
        path = self.stack.directories.agent_yaml
        content = yaml.safe_load(path.read_text())
        content["control_plane"] |= settings
        path.write_text(yaml.safe_dump(content))
        with self.hosts["login"].entered():
            self.stack.start_agent()


@contextmanager
def running_site() -> Iterator[Site]:
    """Start hosts, Slurm, control plane and agent; take down all of it."""
    with ExitStack() as opened:
        hosts = opened.enter_context(network(*HOSTS))
        nodes = [hosts[name] for name in ("c1", "c2")]
        cluster = opened.enter_context(
            own_cluster(
                controller_in=_place(hosts["login"]), nodes_in=[_place(node) for node in nodes]
            )
        )
        assert cluster.directory is not None
        ports = json.loads((cluster.directory / "cluster.json").read_text())
        local = Path(
            opened.enter_context(
                tempfile.TemporaryDirectory(prefix="hpc-egress-", ignore_cleanup_errors=True)
            )
        )
        stack = Stack(
            choice_of(cluster),
            Directories(local=local, shared=local / "shared"),
            say=say,
            settings={
                "relay": {"port": RELAY_PORT, "advertise": [hosts["login"].address]},
                "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
            },
        )
        site = Site(
            hosts=hosts,
            stack=stack,
            controller_port=ports["controller_port"],
            node_ports=dict(zip(("c1", "c2"), ports["node_ports"], strict=True)),
        )
        opened.callback(_close, site)
        _start(site)
        yield site


def _start(site: Site) -> None:
    """Start everything behind closed doors: nothing has been dialled before they were."""
    site.allow(*site.slurm_ways(), *site.relay_ways(), *site.straight_out())
    plane, stack = site.hosts["plane"], site.stack
    with plane.entered():
        stack.start_control_plane(api_host=plane.address, api_port=API_PORT)
        stack.configure_agent()
    with site.hosts["login"].entered():
        stack.start_agent()
    with plane.entered():
        stack.deploy_example()
        stack.wait_loaded(LOCATION)


def _close(site: Site) -> None:
    with site.hosts["login"].entered():
        site.stack.close()


@contextmanager
def running_proxy(host: Host, directory: Path) -> Iterator[str]:
    """Run tinyproxy, which tunnels to the agent API's port alone, and return its URL."""
    program = shutil.which("tinyproxy")
    if program is None:
        pytest.skip("tinyproxy is not installed")
    configuration = directory / "tinyproxy.conf"
    configuration.write_text(
        f"Port {PROXY_PORT}\nListen {host.address}\nTimeout 600\nMaxClients 100\n"
        f"Allow 10.0.0.0/8\nConnectPort {API_PORT}\nLogLevel Connect\n"
    )
    log = directory / "tinyproxy.log"
    with host.entered(), log.open("wb") as output:
        process = subprocess.Popen([program, "-d", "-c", str(configuration)], stdout=output)
    try:
        wait_for("tinyproxy does not listen", lambda: _answers(host, PROXY_PORT), seconds=10)
        yield f"http://{host.address}:{PROXY_PORT}"
    finally:
        process.terminate()
        process.wait(10)


def _answers(host: Host, port: int) -> bool:
    return dial(host, host, port)


def dial(source: Host, target: Host, port: int, *, seconds: float = 0.3) -> bool:
    """Dial a port and return whether the connection came about."""
    with source.entered(), socket.socket() as caller:
        caller.settimeout(seconds)
        return caller.connect_ex((target.address, port)) == 0


def refused(counted: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> dict[str, int]:
    """Return which forbidden dials were made, by host and counter."""
    return {
        f"{host}: {name}": counters[name]
        for host, counters in counted.items()
        for name in names
        if counters[name]
    }


def _way(name: str, source: Host, target: Host, port: int) -> Way:
    return Way(name=name, source=source, target=target, port=port)


def _place(host: Host) -> str:
    return f"{host.namespace}={host.address}"
