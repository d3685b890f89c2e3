"""What Slurm gave a job, read from the job's environment."""

from __future__ import annotations

import socket

import pytest

from hpc_agent.node.records import allocation, node_name


@pytest.mark.parametrize(
    ("environment", "given"),
    [
        (
            {
                "SLURM_JOB_CPUS_PER_NODE": "4(x2),2",
                "SLURM_JOB_NUM_NODES": "3",
                "SLURM_MEM_PER_NODE": "1024",
            },
            {"cpus": 10, "nodes": 3, "memory_mb": 3072, "gpus": None},
        ),
        (
            {
                "SLURM_JOB_CPUS_PER_NODE": "8",
                "SLURM_JOB_NUM_NODES": "1",
                "SLURM_MEM_PER_CPU": "256",
                "SLURM_GPUS_ON_NODE": "2",
            },
            {"cpus": 8, "nodes": 1, "memory_mb": 2048, "gpus": 2},
        ),
        ({}, {"cpus": None, "nodes": None, "memory_mb": None, "gpus": None}),
        (
            {"SLURM_JOB_CPUS_PER_NODE": "many"},
            {"cpus": None, "nodes": None, "memory_mb": None, "gpus": None},
        ),
    ],
)
def test_allocation(environment: dict[str, str], given: dict[str, int | None]) -> None:
    """Unknown is None: without Slurm, or when it says something new."""
    assert allocation(environment) == given


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"SLURMD_NODENAME": "c2", "SLURM_JOB_NODELIST": "c[1-2]"}, "c2"),
        ({"SLURM_JOB_NODELIST": "c1"}, "c1"),
        ({"SLURM_JOB_NODELIST": "c[1-2]"}, socket.gethostname()),
        ({"SLURM_JOB_NODELIST": "a,b"}, socket.gethostname()),
        ({}, socket.gethostname()),
    ],
)
def test_node_has_the_name_that_slurm_gives_it(environment: dict[str, str], name: str) -> None:
    """In an OCI bundle of 22.05 it is only in the list of the job's nodes."""
    assert node_name(environment) == name
