"""One whole Dagster on a real Slurm of two nodes, for all end-to-end tests."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.stack import Directories, Stack
from tests.cluster import SlurmCluster

AgentIn = Callable[[Directories], Sequence[str]]


def say(text: str) -> None:
    """Progress of what takes long, for `pytest -s`."""
    print(text, file=sys.stderr)


@contextmanager
def running_stack(
    cluster: ClusterChoice, agent_in: AgentIn | None = None, /, **settings: Any
) -> Iterator[Stack]:
    """Start control plane and agent with the example location, and take all of it down again.

    ``agent_in`` says by which command the agent is started, as env(1) starts others.
    """
    with empty_stack(cluster, agent_in, **settings) as stack:
        _deploy_example(stack)
        yield stack


@contextmanager
def empty_stack(
    cluster: ClusterChoice, agent_in: AgentIn | None = None, /, **settings: Any
) -> Iterator[Stack]:
    """Do so for a test that has locations of its own: the example's server takes seconds."""
    # Not below pytest's tmp_path: a unix socket's path may have 108 characters.
    with tempfile.TemporaryDirectory(prefix="hpc-e2e-", ignore_cleanup_errors=True) as path:
        local = Path(path)
        settings.setdefault("metrics", {"listen": f"unix:{local}/agent-metrics.sock"})
        stack = Stack(
            cluster, Directories(local=local, shared=local / "shared"), say=say, settings=settings
        )
        if agent_in is not None:
            stack.agent.argv = [*agent_in(stack.directories), *stack.agent.argv]
        with empty(stack):
            yield stack


@contextmanager
def started(stack: Stack, *options: str) -> Iterator[None]:
    """Start all of a stack with the example location, and take it down again."""
    with empty(stack, *options):
        _deploy_example(stack)
        yield


@contextmanager
def empty(stack: Stack, *options: str) -> Iterator[None]:
    """Start all of a stack, and take it down again."""
    try:
        socket = stack.directories.local / "gateway-metrics.sock"
        stack.start_control_plane("--metrics-listen", f"unix:{socket}", *options)
        stack.configure_agent()
        stack.start_agent()
        yield
    finally:
        stack.close()


def _deploy_example(stack: Stack) -> None:
    stack.deploy_example()
    stack.wait_loaded("example")


def choice_of(cluster: SlurmCluster) -> ClusterChoice:
    """Return the tests' Slurm as a stack takes it."""
    return ClusterChoice(
        kind="slurm",
        version=cluster.version,
        found=cluster.found,
        slurm_conf=Path(cluster.slurm_conf) if cluster.slurm_conf else None,
    )


@pytest.fixture(scope="session")
def on_slurm(slurm_cluster: SlurmCluster) -> ClusterChoice:
    """The tests' Slurm as the stack takes it."""
    return choice_of(slurm_cluster)


@pytest.fixture(scope="package")
def stack(on_slurm: ClusterChoice) -> Iterator[Stack]:
    """A stack on Slurm that the tests here share; each uses runs of its own."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        # Longer than the tests take: by the partition's default, servers would hand over meanwhile.
        "code_servers": {"options": {"time": "00:30:00"}},
    }
    with running_stack(on_slurm, relay={"bind": "127.0.0.1"}, **settings) as started:
        yield started
