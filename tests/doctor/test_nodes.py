"""What keeps a compute node from its agent: real jobs, on a network and file systems that fail."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc_agent.doctor.finding import Status
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.doctor.site import Site

pytestmark = pytest.mark.slurm


@pytest.fixture
def site(tmp_path: Path, slurm_cluster: SlurmCluster) -> Site:
    site = Site(tmp_path, slurm_cluster)
    # Its look at dagster would take most of the time of each probe.
    site.content["environment"] = {}
    return site


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def firewall(port: int) -> Iterator[None]:
    """Drop what is sent to a port of this machine, without a word to the sender."""
    table = ("inet", f"hpc_agent_test_{port}")
    chain = f"type filter hook input priority 0\n tcp dport {port} drop"
    rules = f"table {' '.join(table)} {{\n chain input {{\n {chain}\n }}\n}}\n"
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("nftables is not installed")
    if done.returncode != 0:
        pytest.skip(f"no firewall can be set up here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", *table], check=True)


def test_firewall_before_the_relay_is_a_problem(site: Site) -> None:
    """The relay listens, and what nodes send does not arrive."""
    port = free_port()
    site.content["relay"]["port"] = port
    with firewall(port):
        found = site.findings("relay", "probe")
    assert found["probe"].status is Status.OK
    assert found["relay"].status is Status.PROBLEM
    assert f"does not reach the relay: 127.0.0.1:{port}: timed out" in found["relay"].fact
    assert "firewall" in found["relay"].advice


def test_work_dir_that_nodes_do_not_see_is_a_problem(site: Site) -> None:
    """This machine has something mounted there, which nodes have not."""
    work = site.directory / "work"
    mounted = f'mount -t tmpfs -o mode=0700 hpc-agent-test {work} && exec "$@"'
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, "sh"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    (probe, files) = site.command("--only=probe", "--only=node-files", exit_code=1, prefix=apart)
    assert (probe["status"], files["status"]) == ("problem", "skipped")
    assert "does the node see work_dir?" in probe["fact"]
    assert "work_dir must be there under the same path" in probe["advice"]


def test_secrets_that_jobs_can_read_are_told(site: Site) -> None:
    """Here jobs run on the agent's own machine."""
    found = site.findings("node-secrets")
    assert found["node-secrets"].status is Status.WARNING
    assert f"can read {site.directory / 'token'}" in found["node-secrets"].fact


def test_secrets_of_this_machine_alone_are_in_order(site: Site) -> None:
    """Another file of the same name on the node is none of the agent's."""
    secrets = site.directory / "local"
    secrets.mkdir()
    token = secrets / "token"
    token.touch(mode=0o600)
    token.write_text("of the node")
    site.content["control_plane"]["token_file"] = str(token)
    mounted = (
        f"mount -t tmpfs hpc-agent-test {secrets} && umask 077 && echo secret > {token} "
        '&& exec "$@"'
    )
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, "sh"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    (found,) = site.command("--only=node-secrets", exit_code=0, prefix=apart)
    assert found["status"] == "ok"


def test_node_python_that_nodes_lack_is_a_problem(site: Site) -> None:
    """The job's own words are in the finding."""
    site.content["node_python"] = "/opt/no/python3"
    found = site.findings("probe")
    assert found["probe"].status is Status.PROBLEM
    assert "/opt/no/python3" in found["probe"].fact


def test_container_runtime_that_nodes_lack_is_a_problem(site: Site) -> None:
    """Nothing of Apptainer is on the PATH of these jobs."""
    container = {"runtime": "apptainer", "image": str(site.directory / "image.sif")}
    site.content["environment"]["container"] = container
    found = site.findings("containers")
    assert found["containers"].status is Status.PROBLEM
    assert found["containers"].fact.startswith("apptainer is not on c")


def put(site: Site, *lines: str) -> None:
    """Have these lines of shell in the job scripts of the site, before the program is started."""
    site.content["environment"]["setup"] = list(lines)


def test_job_with_little_memory_is_told(site: Site) -> None:
    """A control group of version 1, as Slurm makes one for each job."""
    group = Path(f"/sys/fs/cgroup/memory/hpc-agent-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(100 << 20))
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    put(site, f"echo $$ > {group}/cgroup.procs")
    try:
        found = site.findings("node-memory")
        # A group can be removed when the last process of the job is gone.
        poll(lambda: not (group / "cgroup.procs").read_text(), "the job goes on", 30)
    finally:
        group.rmdir()
    assert found["node-memory"].status is Status.WARNING
    assert "may use 100 MiB" in found["node-memory"].fact


def test_job_without_a_loopback_interface_is_a_problem(site: Site) -> None:
    """A network namespace of its own, in which nothing is up: no relay either."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    templates = site.directory / "templates"
    templates.mkdir()
    run = "exec unshare --net {{ node_python }} {{ node_program }} {{ job_directory }}"
    (templates / "run_worker.sbatch.j2").write_text(
        f'{{% extends "job.sbatch.j2" %}}\n{{% block run %}}\n{run}\n{{% endblock %}}\n'
    )
    site.content["templates_dir"] = str(templates)
    found = site.findings("loopback", "relay")
    assert {finding.status for finding in found.values()} == {Status.PROBLEM}
    assert found["loopback"].fact.startswith("127.0.0.1 cannot be used on c")


def test_bundle_without_an_oci_runtime_is_a_problem(site: Site) -> None:
    """This cluster has no oci.conf: Slurm runs the job outside, or not at all."""
    container = {"runtime": "slurm", "image": str(site.directory / "bundle")}
    site.content["environment"]["container"] = container
    found = site.findings("probe", "containers")
    refused = next(each for each in found.values() if each.status is Status.PROBLEM)
    assert "oci.conf" in refused.advice


def test_small_temporary_directory_is_told(site: Site) -> None:
    """The job's TMPDIR counts, not /tmp."""
    small = site.directory / "small"
    small.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=16m", "hpc-agent-test", str(small)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    site.content["environment"]["variables"] = {"TMPDIR": str(small)}
    try:
        found = site.findings("node-tmp")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert found["node-tmp"].status is Status.WARNING
    assert "16 MiB free" in found["node-tmp"].fact
