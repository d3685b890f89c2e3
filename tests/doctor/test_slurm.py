"""What is found of a Slurm: real clusters, configured as sites do that need advice."""

from __future__ import annotations

import getpass
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.doctor.finding import Status
from tests.cluster import SlurmCluster, own_cluster
from tests.doctor.site import Site
from tests.preemption import slurm
from tests.slurm.stand_in import StandIn, why_no_pyslurm
from tests.ssh import Sshd, running_sshd

pytestmark = pytest.mark.slurm

UNUSUAL = (
    "MaxArraySize=0",
    "MinJobAge=30",
    "KillWait=10",
    "SlurmctldParameters=rl_enable,rl_bucket_size=10",
    "PartitionName=closed Nodes=ALL MaxTime=60 State=DOWN",
)


@pytest.fixture(scope="module")
def unusual_cluster() -> Iterator[SlurmCluster]:
    """A cluster with settings that the doctor has something to say about."""
    with own_cluster(conf_lines=UNUSUAL) as cluster:
        yield cluster


def test_settings_are_those_of_the_controller(
    tmp_path: Path, unusual_cluster: SlurmCluster
) -> None:
    """Each by its name, with what to set here or there."""
    site = Site(tmp_path, unusual_cluster)
    site.content["options"] = {"partition": "closed"}
    words = {
        "arrays": "does not allow job arrays",
        "min-job-age": "forgotten 30 s after their end",
        "kill-wait": "kills 10 s after",
        "rate-limit": "10 times at once and 2 times a second",
        "memory-figures": "does not measure",
        "partitions": "partition closed is down",
        "accounting": "no accounting",
    }
    found = site.findings(*words)
    assert {name: finding.status for name, finding in found.items()} == dict.fromkeys(
        words, Status.WARNING
    )
    assert [name for name in words if words[name] not in found[name].fact] == []
    assert "scheduler.commands_burst to 10" in found["rate-limit"].advice


def test_wrapper_that_prints_is_named_with_what_it_prints(
    tmp_path: Path, slurm_cluster: SlurmCluster
) -> None:
    """Lines that can be told apart are a warning, output that is no output a problem."""
    site = Site(tmp_path, slurm_cluster)
    wrappers = tmp_path / "wrappers"
    wrappers.mkdir()
    site.content["scheduler"]["bin_dir"] = str(wrappers)
    commands = ("squeue", "sacct", "sinfo", "scontrol", "sbatch", "scancel")
    for command in commands:
        real = shutil.which(command, path=slurm_cluster.environment["PATH"])
        (wrappers / command).write_text(
            f'#!/bin/sh\necho "Welcome to {command}"\nexec {real} "$@"\n'
        )
        (wrappers / command).chmod(0o755)
    found = site.findings("output", "slurm", "partitions", "submission")
    assert found["output"].status is Status.WARNING
    assert "squeue: Welcome to squeue" in found["output"].fact
    assert "sbatch: Welcome to sbatch" in found["output"].fact
    assert "scheduler.bin_dir" in found["output"].advice
    assert {found[name].status for name in ("slurm", "partitions", "submission")} == {Status.OK}
    (wrappers / "squeue").write_text("#!/bin/sh\necho Nonsense\n")
    found = site.findings("output")
    assert found["output"].status is Status.PROBLEM
    assert "squeue: " in found["output"].fact


@pytest.fixture
def limited_user(slurm_cluster_accounting: SlurmCluster) -> Iterator[SlurmCluster]:
    """This user may submit 77 jobs; accounting has a second cluster."""
    cluster, name = slurm_cluster_accounting, "hpcdoctor"
    if cluster.found == "existing":
        pytest.skip("the accounting of a cluster that was here before is not changed")
    user = getpass.getuser()
    slurm(cluster, "sacctmgr", "-i", "add", "account", name)
    slurm(cluster, "sacctmgr", "-i", "add", "user", user, f"account={name}", "MaxSubmitJobs=77")
    slurm(cluster, "sacctmgr", "-i", "add", "cluster", name)
    yield cluster
    slurm(cluster, "sacctmgr", "-i", "delete", "cluster", name)
    slurm(cluster, "sacctmgr", "-i", "delete", "user", user, f"account={name}")
    slurm(cluster, "sacctmgr", "-i", "delete", "account", name)


def test_accounting_tells_limits_and_other_clusters(
    tmp_path: Path, limited_user: SlurmCluster
) -> None:
    """A limit is no failure; a second cluster is for another agent."""
    names = ("accounting", "submit-limits", "comments", "memory-figures", "clusters")
    found = Site(tmp_path, limited_user).findings(*names)
    assert found["accounting"].fact == "sacct answers"
    assert "MaxSubmitJobs of hpcdoctor 77" in found["submit-limits"].fact
    assert found["comments"].fact == "comments of jobs are stored"
    assert found["memory-figures"].status is Status.OK
    assert found["clusters"].status is Status.WARNING
    assert "hpcdoctor" in found["clusters"].fact


def test_options_of_packs_are_submitted_with_packs(
    tmp_path: Path, slurm_cluster: SlurmCluster
) -> None:
    """A packed code server is no job; what it asks for is asked for its pack."""
    site = Site(tmp_path, slurm_cluster)
    site.content["environment"] = {}
    packed = {"options": {"partition": "nowhere"}}
    site.content["code_servers"] = {"placement": "packed", "packed": packed}
    found = site.findings("submission", "probe")
    assert found["submission"].fact.startswith(
        "sbatch --test-only refuses a pack for a code server: "
    )
    assert found["probe"].fact.startswith("partition nowhere: ")


def test_servers_of_the_login_node_are_not_submitted(
    tmp_path: Path, slurm_cluster: SlurmCluster
) -> None:
    """Runs alone are Slurm's."""
    site = Site(tmp_path, slurm_cluster)
    site.content["code_servers"] = {"placement": "login", "options": {"partition": "nowhere"}}
    found = site.findings("submission")
    assert found["submission"].fact == "sbatch --test-only accepts: run worker"
    assert list((site.directory / "work").glob("*/*")) == []


@pytest.fixture
def sshd(tmp_path: Path, slurm_cluster: SlurmCluster) -> Iterator[Sshd]:
    """An sshd on the cluster: its commands find that cluster."""
    variables = {name: slurm_cluster.environment[name] for name in ("SLURM_CONF", "PATH")}
    with running_sshd(tmp_path / "sshd", variables) as running:
        yield running


def beside_the_cluster(directory: Path, sshd: Sshd) -> Site:
    """Return a site whose machine has no Slurm of its own."""
    site = Site(directory)
    site.content["scheduler"] = {
        "transport": "ssh",
        "ssh": {
            "host": sshd.target.host,
            "port": sshd.port,
            "user": sshd.target.user,
            "key_file": str(sshd.target.key_file),
            "known_hosts": str(sshd.target.known_hosts),
        },
    }
    return site


def test_slurm_is_asked_over_ssh(tmp_path: Path, sshd: Sshd) -> None:
    """All of it: settings, scripts that sbatch reads, and the probe."""
    site = beside_the_cluster(tmp_path, sshd)
    site.content["environment"] = {}
    found = site.findings(
        *("slurm", "partitions", "submission", "kill-wait", "probe", "relay", "work-dir")
    )
    assert "reached by SFTP" in found.pop("work-dir").fact
    assert found.pop("kill-wait").fact.startswith("Slurm kills 5 s")
    assert {finding.status for finding in found.values()} == {Status.OK}


def test_pyslurm_is_looked_at_where_it_is_the_transport(
    tmp_path: Path, slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its absence is a problem; one that was built for this Slurm is fine."""
    site = Site(tmp_path, slurm_cluster)
    assert site.findings("pyslurm")["pyslurm"].status is Status.SKIPPED
    site.content["scheduler"]["transport"] = "pyslurm"
    if why_no_pyslurm(slurm_cluster.version) is not None:
        found = site.findings("pyslurm")["pyslurm"]
        assert found.status is Status.PROBLEM
        assert "install pyslurm" in found.fact
    path = StandIn(tmp_path, slurm_cluster).environment["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", path)
    assert site.findings("pyslurm")["pyslurm"].status is Status.OK


def test_slurmrestd_is_asked_for_what_it_has(
    tmp_path: Path, slurm_cluster_rest: SlurmCluster
) -> None:
    """Version and probe job; what needs Slurm's commands is skipped, and says so."""
    command = tmp_path / "slurm-token"
    variables = [
        f"{name}={slurm_cluster_rest.environment[name]}" for name in ("SLURM_CONF", "PATH")
    ]
    line = shlex.join(["env", *variables, "scontrol", "token", "lifespan=600"])
    command.write_text(f"#!/bin/sh\nexec {line}\n")
    command.chmod(0o755)
    site = Site(tmp_path)
    site.content["environment"] = {}
    site.content["scheduler"] = {
        "transport": "rest",
        "rest": {"url": slurm_cluster_rest.restd, "token_command": [str(command)]},
    }
    found = site.findings("slurm", "submission", "probe")
    assert found["slurm"].status is Status.OK, found["slurm"]
    assert found["probe"].status is Status.OK, found["probe"]
    assert found["submission"].status is Status.SKIPPED
    assert "transport rest" in found["submission"].fact


def test_machine_that_lets_nobody_in_is_a_problem(tmp_path: Path, sshd: Sshd) -> None:
    """In the words of the connection; what depends on it is skipped."""
    site = beside_the_cluster(tmp_path, sshd)
    (sshd.directory / "authorized_keys").write_text("")
    found = site.findings("slurm", "submission", "probe")
    assert found["slurm"].status is Status.PROBLEM
    assert "may not log in" in found["slurm"].fact
    assert {found[name].status for name in ("submission", "probe")} == {Status.SKIPPED}


def test_controller_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    """A slurm.conf that leads to no controller."""
    site = Site(tmp_path)
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=none\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=9\n")
    site.content["scheduler"] = {"kind": "slurm", "slurm_conf": str(conf)}
    if shutil.which("sinfo") is None:
        pytest.skip("Slurm's commands are not on PATH")
    found = site.findings("slurm", "submission")
    assert found["slurm"].status is Status.PROBLEM
    assert found["submission"].status is Status.SKIPPED
