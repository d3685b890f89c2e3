"""Our agent: each run a job of its own, or on the warm workers of a pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from hpc_agent.config import AgentConfig
from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.errors import HpcAgentError
from tests.bench.peers.runners.behind_webserver import BehindWebserver
from tests.bench.peers.runners.runner import CODE, LOCATION, Place, Served
from tests.cluster import SlurmCluster

JOBS, POOL = "our jobs", "our pool"
_ACCEPTED = "Run worker submitted as"
_ASSIGNED = "pool"
_POOL = "warm"
# Runs go to the agent at once instead of waiting for the daemon's next look at its queue.
AT_ONCE = """
telemetry: {enabled: false}
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
"""
_SETTINGS: Mapping[str, Any] = {
    # As fast as Slurm goes: the bound on its commands is not what is measured.
    "scheduler": {"commands_burst": 1000, "commands_per_second": 100},
    "relay": {"bind": "127.0.0.1"},
    "runs": {"options": {"mem": "500M", "time": "00:10:00"}},
    "code_servers": {"options": {"mem": "800M", "time": "00:30:00"}},
}
_POOLS: Mapping[str, Any] = {
    "pools": {_POOL: {"options": {"cpus_per_task": 4, "mem": "3G", "time": "00:30:00"}, "min": 1}},
    "locations": {LOCATION: {"pool": _POOL}},
}


@contextlib.contextmanager
def control_plane(place: Place, settings: Mapping[str, Any]) -> Iterator[Stack]:
    """Start a control plane that hands runs out at once, and take down what is added to it."""
    stack = Stack(
        choice_of(place.cluster),
        Directories(local=place.directory, shared=place.directory / "shared"),
        say=place.say,
        settings=settings,
    )
    stack.directories.control_plane.mkdir(mode=0o700, parents=True)
    (stack.directories.control_plane / "dagster.yaml").write_text(AT_ONCE)
    try:
        stack.start_control_plane()
        yield stack
    finally:
        stack.close()


def deploy(stack: Stack) -> None:
    """Deploy the contestants' code location, and wait until it is loaded."""
    stack.deploy({LOCATION: {"code_source": {"python_file": str(CODE)}}})
    stack.wait_loaded(LOCATION)


def face(stack: Stack) -> Path:
    """Return the gateway's socket that stands for the code server."""
    workspace = yaml.safe_load((stack.directories.control_plane / "workspace.yaml").read_text())
    servers = [entry["grpc_server"] for entry in workspace["load_from"]]
    return next(Path(each["socket"]) for each in servers if each["location_name"] == LOCATION)


@contextlib.contextmanager
def _ours(
    place: Place, *, name: str, accepted: str, settings: Mapping[str, Any]
) -> Iterator[Served]:
    with control_plane(place, {**_SETTINGS, **settings}) as stack:
        stack.configure_agent()
        stack.start_agent()
        deploy(stack)
        yield BehindWebserver(
            name,
            stack.webserver,
            code_server=face(stack),
            accepted=accepted,
            agent_pid=stack.agent.pid,
        )


jobs = partial(_ours, name=JOBS, accepted=_ACCEPTED, settings={})


@contextlib.contextmanager
def pool(place: Place) -> Iterator[Served]:
    """Start our agent with a pool of one node. Raises HpcAgentError where it knows none."""
    if "pools" not in AgentConfig.model_fields:
        raise HpcAgentError("this release has no pools")
    with _ours(place, name=POOL, accepted=_ASSIGNED, settings=_POOLS) as runner:
        yield runner


def choice_of(cluster: SlurmCluster) -> ClusterChoice:
    """Return the shared cluster as a stack takes it."""
    return ClusterChoice(
        kind="slurm",
        version=cluster.version,
        found=cluster.found,
        slurm_conf=Path(cluster.slurm_conf) if cluster.slurm_conf else None,
    )
