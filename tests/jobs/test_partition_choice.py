"""Which partition a job gets that names none: a table of jobs and of what they are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hpc_agent.errors import NoPartitionError
from hpc_agent.jobs import options
from hpc_agent.jobs.constraint import allows
from hpc_agent.jobs.options import Setting, Source
from hpc_agent.jobs.partition_choice import with_partition
from hpc_agent.jobs.partition_need import gres
from hpc_agent.slurm import scontrol_partition
from hpc_agent.slurm.partition_facts import (
    Association,
    Names,
    PartitionFacts,
    PartitionLimits,
)
from hpc_agent.slurm.scheduler import NodeInfo
from tests.slurm.recording import read


def node(name: str, partition: str, **changes: Any) -> NodeInfo:
    values: dict[str, Any] = {
        "name": name,
        "state": "idle",
        "cpus": 16,
        "memory_mb": 64 << 10,
        "partitions": (partition,),
    }
    return NodeInfo(**(values | changes))


def limits(name: str, **changes: Any) -> PartitionLimits:
    values: dict[str, Any] = {"name": name, "state": "UP", "max_time_seconds": 86400}
    return PartitionLimits(**(values | changes))


SITE = PartitionFacts(
    user="jane",
    groups=frozenset({"users"}),
    associations=[
        Association(account="physics", qos=("normal",), is_default=True),
        Association(account="chem", partition="cpu", qos=("normal", "long")),
    ],
    partitions=[
        limits("short", max_time_seconds=1800, max_nodes=1),
        limits("cpu"),
        limits("big", max_time_seconds=7 * 86400),
        limits("gpu", billing_weights="CPU=1.0,Mem=0.25G,GRES/gpu=10"),
        limits("a100", billing_weights="CPU=1.0,Mem=0.25G,GRES/gpu=40"),
        limits("closed", state="DRAIN"),
        limits("ours", groups=Names(allowed=frozenset({"owners"}))),
        limits("scavenger", priority_tier=0, is_preemptible=True, billing_weights="CPU=0.1"),
    ],
    nodes=[
        *(node(f"s{number}", "short") for number in (1, 2)),
        *(node(f"n{number}", "cpu", features=("ib",)) for number in (1, 2, 3, 4)),
        *(node(f"b{number}", "big", cpus=64, memory_mb=1024 << 10) for number in (1, 2)),
        *(node(f"g{number}", "gpu", gres="gpu:v100:2(S:0-1)") for number in (1, 2)),
        node("g9", "a100", gres="gpu:a100:8", features=("nvlink",), cpus=64),
        node("x1", "closed"),
        node("o1", "ours"),
        node("n1", "scavenger"),
    ],
)


def settings(**asked: object) -> tuple[Setting, ...]:
    values = {name.replace("_", "-"): value for name, value in asked.items()}
    return options.merge([Source("run tags", values)])


def chosen(facts: PartitionFacts, /, **asked: object) -> str:
    found = with_partition(settings(**asked), facts, allowed=None)
    return next(each.value for each in found if each.option == "partition")


@pytest.mark.parametrize(
    ("asked", "partition"),
    [
        # Equal in all: Slurm starts it where it can first. Without a time, one alone.
        ({"time": "20"}, "cpu,short"),
        ({}, "cpu"),
        ({"time": "1:00:00"}, "cpu"),
        ({"time": "2-0"}, "big"),
        ({"mem": "100G"}, "big"),
        ({"cpus_per_task": 32}, "big"),
        ({"mem_per_cpu": "8G", "cpus_per_task": 16}, "big"),
        ({"nodes": 2}, "cpu"),
        ({"nodes": "2-4", "ntasks": 40}, "cpu"),
        ({"ntasks": 100}, "big"),
        ({"constraint": "ib"}, "cpu"),
        ({"nodelist": "b[1-2]"}, "big"),
        ({"exclude": "s[1-2]"}, "cpu"),
        # With a GPU: the cheaper kind, unless it is too small or another is wanted.
        ({"gpus": 1}, "gpu"),
        ({"gres": "gpu:2"}, "gpu"),
        ({"gpus": 4}, "gpu"),
        ({"gpus": 4, "nodes": 1}, "a100"),
        ({"gpus": "a100:1"}, "a100"),
        ({"gpus_per_node": 4}, "a100"),
        ({"gpus_per_task": 1, "ntasks": 4}, "gpu"),
        ({"gpus": 2, "cpus_per_gpu": 16}, "gpu"),
        ({"gpus_per_node": 2, "cpus_per_gpu": 16}, "a100"),
        ({"gpus": 1, "constraint": "nvlink&(ib|nvlink)"}, "a100"),
        # What may be used in the name of an account.
        ({"account": "chem"}, "cpu"),
    ],
)
def test_cheapest_partition_that_takes_it_is_chosen(asked: dict[str, Any], partition: str) -> None:
    """By what it is billed, then by the size of the nodes."""
    assert chosen(SITE, **asked) == partition


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"time": "30-0"}, "big: MaxTime is 10080 minutes, the job asks for 43200"),
        ({"time": "unlimited"}, "cpu: MaxTime is 1440 minutes, the job asks for no limit"),
        ({"mem": "2T"}, "cpu: none of its nodes has 2048G of memory (at most 64G)"),
        ({"cpus_per_task": 65}, "big: none of its nodes has 65 CPUs (at most 64)"),
        ({"cpus_per_task": 65}, "gpu: its nodes have GPUs, and the job asks for none"),
        ({"nodes": 5}, "short: MaxNodes is 1, the job asks for 5"),
        ({"nodes": 5}, "cpu: the job can use 4 of its nodes and asks for 5"),
        (
            {"nodes": 3, "ntasks": 1000},
            "cpu: room for 48 tasks on 3 of its nodes, the job asks for 1000",
        ),
        ({"gpus": 9}, "a100: 8 GPUs that the job can use on 1 of its nodes, the job asks for 9"),
        ({"gpus": "h100:1"}, "gpu: none of its nodes has gpu:h100:1"),
        ({"gres": "nvme:1"}, "cpu: none of its nodes has nvme:1"),
        ({"constraint": "ib&nvlink"}, "cpu: none of its nodes has the features ib&nvlink"),
        ({"nodelist": "elsewhere"}, "cpu: none of its nodes has a name of those"),
        ({"cpus_per_task": 65}, "closed: it is DRAIN"),
        ({"cpus_per_task": 65}, "ours: jane is in none of its groups (owners)"),
        ({"cpus_per_task": 65}, "scavenger: its jobs give way to those of short, cpu"),
        (
            {"cpus_per_task": 65, "account": "chem"},
            "big: jane may not use it for account chem",
        ),
        ({"gpus_per_socket": 1}, "no partition can be chosen for this job: gpus-per-socket"),
    ],
)
def test_job_that_fits_nowhere_is_told_why_of_each_partition(
    asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(NoPartitionError) as error:
        chosen(SITE, **asked)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("partition", "words"),
    [
        (limits("cpu", accounts=Names(denied=frozenset({"physics"}))), "account physics may not"),
        (limits("cpu", qos=Names(allowed=frozenset({"long"}))), "QOS normal may not use it"),
        (limits("cpu", is_hidden=True), "it is hidden"),
        (limits("cpu", is_for_root=True), "it is for root alone"),
        (limits("cpu", needs_reservation=True), "it takes jobs with a reservation alone"),
        (limits("cpu", min_nodes=2), "MinNodes is 2, the job asks for 1"),
        (limits("cpu", max_cpus_per_node=2), "4 CPUs (at most 2)"),
        (limits("cpu", max_memory_per_node=1024), "MaxMemPerNode is 1G, the job asks for 2G"),
    ],
)
def test_limits_of_a_partition_keep_a_job_out(partition: PartitionLimits, words: str) -> None:
    site = replace(SITE, partitions=[partition])
    with pytest.raises(NoPartitionError) as error:
        chosen(site, cpus_per_task=4, mem="2G")
    assert words in str(error.value)


def test_root_passes_groups_and_slurmrestd_does_not_know_them() -> None:
    """What may be refused is not chosen."""
    ours = [each for each in SITE.partitions if each.name == "ours"]
    site = replace(SITE, partitions=ours)
    assert chosen(replace(site, user="root")) == "ours"
    with pytest.raises(NoPartitionError, match="which slurmrestd does not tell"):
        chosen(replace(site, groups=None))


def test_policy_closes_partitions() -> None:
    """The list of the administrator holds for what is chosen, too."""
    found = with_partition(settings(time="20"), SITE, allowed=["big"])
    assert found[-1].value == "big"
    assert any("policy.partitions" in words for words in found[-1].why)


@pytest.mark.parametrize("named", ["gpu", "cpu,big"])
def test_partition_that_is_named_stays(named: str) -> None:
    """A GPU partition for a job without GPUs as well, and a list of several."""
    asked = settings(partition=named, time="90-0")
    assert with_partition(asked, SITE, allowed=None) == asked


def test_choice_says_what_else_there_was() -> None:
    """Each partition once: taken, dearer, or why not."""
    why = with_partition(settings(time="1:00:00"), SITE, allowed=None)[-1].why
    assert why[0] == "cpu: taken (billing 1, nodes of 16 CPUs and 65536 MB)"
    assert "big: dearer (billing 1, nodes of 64 CPUs and 1048576 MB)" in why
    assert any(words.startswith("short: MaxTime is 30 minutes") for words in why)
    assert len(why) == len(SITE.partitions)


@pytest.mark.parametrize("version", ["22.05", "24.11", "26.05"])
def test_recorded_cluster_of_gpus_takes_no_job_without_them(version: str) -> None:
    """All of its partitions are for GPUs; one has a price, and is dearer."""
    names = ("debug", "batch", "weighted")
    facts = PartitionFacts(
        user="root",
        partitions=scontrol_partition.parse(read("scontrol-partition.txt", version)),
        nodes=[node(name, "", partitions=names, gres="gpu:2") for name in ("c1", "c2")],
        associations=[Association(account="root", qos=("normal",), is_default=True)],
    )
    with pytest.raises(NoPartitionError) as error:
        chosen(facts)
    assert str(error.value).count("its nodes have GPUs") == 3
    assert chosen(facts, gpus=1, time="5") == "batch,debug"
    assert chosen(facts, gpus=1, time="31") == "batch"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu:a100:4(S:0-1,3)", {"gpu:a100": 4}),
        ("gpu:1g.5gb:7,nvme:2K", {"gpu:1g.5gb": 7, "nvme": 2048}),
        ("gpu", {"gpu": 1}),
        ("gpu:a100", {"gpu:a100": 1}),
        ("gres/gpu=2", {"gpu": 2}),
        ("gpu:0", {}),
        ("", {}),
    ],
)
def test_gres_is_read(text: str, found: dict[str, int]) -> None:
    assert gres(text) == found


@pytest.mark.parametrize(
    ("constraint", "is_allowed"),
    [
        ("", True),
        ("a", True),
        ("c", False),
        ("a&b", True),
        ("a&c", False),
        ("a,b", True),
        ("c|b", True),
        ("a&(c|b)", True),
        ("[c|b]", True),
        ("c*2&a*4", True),
        ("[c*2&d*4]", False),
    ],
)
def test_constraints_are_applied(constraint: str, is_allowed: bool) -> None:
    assert allows(constraint, {"a", "b"}) is is_allowed


@pytest.mark.parametrize("constraint", ["a&", "(a", "a)b", "&a"])
def test_constraint_that_is_none_is_an_error(constraint: str) -> None:
    with pytest.raises(ValueError, match="constraint"):
        allows(constraint, {"a"})
