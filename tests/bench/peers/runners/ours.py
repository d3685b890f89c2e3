"""Our agent: each run a job of its own, or in a warm pool, or a run whose tasks are jobs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.inspection.pools import read_pool
from tests.bench import at_once
from tests.bench.peers.measures.reading import traced_python
from tests.bench.peers.runners.behind_webserver import BehindWebserver
from tests.bench.peers.runners.runner import CODE, LOCATION, Place, Served
from tests.cluster import SlurmCluster

JOBS, POOL, STEPS = "our jobs", "our pool", "our steps"
_ACCEPTED = ("Run worker submitted as", " runs on ")
_POOL = "warm"
_WARM_SECONDS = 120.0
_ASKING = Path(__file__).parents[2] / "asking.py"
_SETTINGS: Mapping[str, Any] = {
    # As fast as Slurm goes: the bound on its commands is not what is measured.
    "scheduler": {"commands_burst": 1000, "commands_per_second": 100},
    "relay": {"bind": "127.0.0.1"},
    "runs": {"options": {"mem": "500M", "time": "00:10:00"}},
    "code_servers": {"options": {"mem": "800M", "time": "00:30:00"}},
}
_POOLS: Mapping[str, Any] = {
    "pools": {
        _POOL: {
            "options": {"cpus-per-task": 4, "mem": "3G", "time": "00:30:00"},
            "min": 1,
            # What is measured are its slots: nothing goes to a job because all of them are taken.
            "fallback_seconds": None,
        }
    },
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
    at_once.write_dagster_yaml(stack.directories.control_plane)
    try:
        stack.start_control_plane()
        yield stack
    finally:
        stack.close()


def deploy(stack: Stack, code: Path = CODE) -> None:
    """Deploy the contestants' code location, and wait until it is loaded."""
    stack.deploy({LOCATION: {"code_source": {"python_file": str(code)}}})
    stack.wait_loaded(LOCATION)


def face(stack: Stack) -> Path:
    """Return the gateway's socket that stands for the code server."""
    workspace = yaml.safe_load((stack.directories.control_plane / "workspace.yaml").read_text())
    servers = [entry["grpc_server"] for entry in workspace["load_from"]]
    return next(Path(each["socket"]) for each in servers if each["location_name"] == LOCATION)


@contextlib.contextmanager
def jobs(place: Place, *, name: str = JOBS, code: Path = CODE, **more: Any) -> Iterator[Served]:
    """Start our agent, with ``more`` settings."""
    with control_plane(place, {**_SETTINGS, **more}) as stack:
        stack.configure_agent()
        stack.start_agent()
        deploy(stack, code)
        if "pools" in more:
            _wait_warm(stack)
        yield BehindWebserver(
            name,
            stack.webserver,
            code_server=face(stack),
            accepted=_ACCEPTED,
            agent_pid=stack.agent.pid,
        )


@contextlib.contextmanager
def pool(place: Place) -> Iterator[Served]:
    """Start our agent with a pool of one node."""
    with jobs(place, name=POOL, **_POOLS) as runner:
        yield runner


@contextlib.contextmanager
def steps(place: Place) -> Iterator[Served]:
    """Start our agent with the location whose runs ask for jobs."""
    with jobs(place, name=STEPS, code=_ASKING) as runner:
        yield runner


@contextlib.contextmanager
def traced_jobs(place: Place) -> Iterator[Served]:
    """Start our agent with a Python that traces the calls of run workers."""
    python = traced_python(place, sys.executable)
    with jobs(place, environment={"python": str(python)}) as runner:
        yield runner


@contextlib.contextmanager
def traced_pool(place: Place) -> Iterator[Served]:
    """Start our agent with a pool whose workers' calls are traced."""
    python = traced_python(place, sys.executable)
    with jobs(place, name=POOL, environment={"python": str(python)}, **_POOLS) as runner:
        yield runner


def _wait_warm(stack: Stack) -> None:
    """Wait until runs are forked: the first ones of a pool tell it what to import."""

    def look() -> bool:
        allocations = read_pool(stack.config, _POOL, decisions=1)["allocations"]
        supervisors = [each for one in allocations for each in one["supervisors"]]
        states = [t["state"] for each in supervisors for t in each["templates"].values()]
        return any(state in {"ready", "spares"} for state in states)

    stack.wait_finished(stack.webserver.launch(LOCATION, "no_op"))
    wait_for("the pool does not get warm", look, seconds=_WARM_SECONDS, alive=[stack.agent])


def choice_of(cluster: SlurmCluster) -> ClusterChoice:
    """Return the shared cluster as a stack takes it."""
    return ClusterChoice(
        kind="slurm",
        version=cluster.version,
        found=cluster.found,
        slurm_conf=Path(cluster.slurm_conf) if cluster.slurm_conf else None,
    )
