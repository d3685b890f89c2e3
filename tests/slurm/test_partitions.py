"""What partitions take, as Slurm's commands and slurmrestd have said it, and of a real one."""

from __future__ import annotations

import json

import pytest

from hpc_agent.errors import SchedulerUnreadableError
from hpc_agent.slurm import hostlist, sacctmgr, scontrol_partition
from hpc_agent.slurm.cli import SlurmCli, slurm_on_this_host
from hpc_agent.slurm.partition_facts import Association, Names, PartitionLimits
from hpc_agent.slurm.rest_partitions import association
from hpc_agent.slurm.rest_versions import DIALECTS
from tests.cluster import SlurmCluster
from tests.slurm.recording import read

VERSIONS = {"22.05": "v0.0.38", "24.11": "v0.0.41", "26.05": "v0.0.45"}
WEIGHTED = PartitionLimits(
    name="weighted",
    state="UP",
    max_nodes=1,
    max_cpus_per_node=2,
    max_memory_per_node=2048,
    accounts=Names(allowed=frozenset({"root", "physics"})),
    qos=Names(allowed=frozenset({"normal"})),
    groups=Names(allowed=frozenset({"root"})),
    billing_weights="CPU=2.0,Mem=1.0G",
)


@pytest.mark.parametrize("version", VERSIONS)
def test_limits_are_read_alike_from_commands_and_from_slurmrestd(version: str) -> None:
    """Of the same cluster: all that decides."""
    shown = scontrol_partition.parse(read("scontrol-partition.txt", version))
    read_limits = DIALECTS[VERSIONS[version]].limits
    sent = [read_limits(each) for each in json.loads(read("rest-partitions.json", version))]
    found = {each.name: each for each in shown}
    assert found == {each.name: each for each in sent}
    assert found["debug"] == PartitionLimits(name="debug", state="UP", max_time_seconds=1800)
    assert found["batch"].max_time_seconds == 7 * 86400
    assert found["weighted"] == WEIGHTED


@pytest.mark.parametrize("version", VERSIONS)
def test_associations_of_slurmrestd_are_read(version: str) -> None:
    """The default account is marked, and the only QOS is there."""
    (own,) = map(association, json.loads(read("rest-associations.json", version)))
    assert own == Association(account="root", qos=("normal",), is_default=True)


def test_associations_of_this_cluster_alone_count() -> None:
    """One slurmdbd may serve several; what a login shell prints is none."""
    stdout = (
        "Welcome | to | the cluster\n"
        "physics|here|physics||normal,long|normal\n"
        "physics|here|chem|gpu|normal|\n"
        "physics|there|other||normal|\n"
    )
    assert sacctmgr.parse(stdout, cluster="here") == [
        Association(
            account="physics", qos=("normal", "long"), default_qos="normal", is_default=True
        ),
        Association(account="chem", partition="gpu", qos=("normal",)),
    ]


@pytest.mark.parametrize("cut", ["", "PartitionName=debug State=UP", "no partition\n"])
def test_torn_answer_is_no_cluster_without_partitions(cut: str) -> None:
    with pytest.raises(SchedulerUnreadableError):
        scontrol_partition.parse(cut)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", {"n1"}),
        ("n[01-03,7],login", {"n01", "n02", "n03", "n7", "login"}),
        ("r[1-2]n[1-2]x", {"r1n1x", "r1n2x", "r2n1x", "r2n2x"}),
        ("", set()),
    ],
)
def test_lists_of_hosts_are_expanded(text: str, names: set[str]) -> None:
    assert hostlist.expand(text) == names


@pytest.mark.parametrize("text", ["n[a-b]", "n[0-99999999]", "n[0-999]m[0-999]"])
def test_list_of_hosts_that_is_none_or_endless_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hosts"):
        hostlist.expand(text)


@pytest.mark.slurm
async def test_real_slurm_tells_all_that_decides(slurm_cluster_accounting: SlurmCluster) -> None:
    """By six commands, of which four are Slurm's."""
    scheduler: SlurmCli = slurm_on_this_host(slurm_cluster_accounting.environment, burst=100)
    facts = await scheduler.partition_facts()
    assert facts.user == "root"
    assert facts.groups is not None
    assert "root" in facts.groups
    assert {"debug", "batch"} <= {each.name for each in facts.partitions}
    assert [(node.name, node.gres, node.features) for node in facts.nodes] == [
        ("c1", "gpu:2", ()),
        ("c2", "gpu:2", ()),
    ]
    assert [(each.account, each.is_default) for each in facts.associations] == [("root", True)]
    assert not facts.enforces_associations
