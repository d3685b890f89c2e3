"""Each version of Slurm that we name can be had, and runs jobs of this machine's programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hpc_agent.slurm.cli import slurm_on_this_host
from hpc_agent.slurm.state import JobState
from tests.cluster import NoClusterError, SlurmCluster, cluster_tool, own_cluster
from tests.slurm.conftest import WriteScript
from tests.slurm.matrix import VERSIONS
from tests.slurm.waiting import until_final, until_text

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(params=VERSIONS)
def cluster(request: pytest.FixtureRequest) -> Iterator[SlurmCluster]:
    """A cluster of each version, in turn."""
    with own_cluster(version=request.param) as started:
        yield started


async def test_a_job_of_each_version_runs_this_machines_python(
    cluster: SlurmCluster, write_script: WriteScript, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Client, controller and step daemon are of that version, what jobs see is this machine."""
    wanted = request.node.callspec.params["cluster"]
    slurm = slurm_on_this_host(cluster.environment, burst=1000)
    assert (await slurm.version()).startswith(f"slurm {wanted}.")
    assert cluster.version.startswith(f"{wanted}.")
    script = write_script(f"{sys.executable} -c 'import sys; print(sys.executable)'")
    job_id = await slurm.submit(script, name="n", comment="c")
    record = await until_final(slurm, job_id)
    assert (record.state, record.exit_code) == (JobState.COMPLETED, 0)
    assert await until_text(tmp_path / f"{job_id}.out") == f"{sys.executable}\n"


@pytest.mark.parametrize(
    ("version", "api"), [("22.05", "v0.0.38"), ("24.11", "v0.0.42"), ("26.05", "v0.0.45")]
)
def test_slurmrestd_answers_to_a_token_and_lines_reach_slurm_conf(version: str, api: str) -> None:
    """With the cluster's own token only; the last of the two equal keys holds."""
    directory = Path(tempfile.mkdtemp(prefix="hpc-slurm-"))
    options = ("--version", version, "--restd", "--conf-line", "PriorityType=priority/multifactor")
    try:
        status = cluster_tool("up", "--nodes", "1", *options, directory=directory)
        environment = {"SLURM_CONF": status["slurm_conf"]}
        scontrol = f"{status['bin_dir']}/scontrol"
        config = _output(scontrol, "show", "config", environment=environment)
        assert "priority/multifactor" in config
        token = _output(scontrol, "token", environment=environment).strip()
        headers = {
            "X-SLURM-USER-TOKEN": token.removeprefix("SLURM_JWT="),
            "X-SLURM-USER-NAME": "root",
        }
        ping = f"{status['restd']}/slurm/{api}/ping"
        (controller,) = httpx.get(ping, headers=headers, follow_redirects=True).json()["pings"]
        # v0.0.38 has only the one word, v0.0.45 only the other.
        assert controller.get("ping") == "UP" or controller.get("responding") is True
        assert httpx.get(ping, follow_redirects=True).status_code == 401
    except NoClusterError as reason:
        pytest.skip(str(reason))
    finally:
        if (directory / "cluster.json").exists():
            cluster_tool("down", directory=directory)
        shutil.rmtree(directory, ignore_errors=True)


def test_version_that_cannot_be_had_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a way to the packages; nothing half-made stays behind."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("packages are unpacked by root with apt-get")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(
        NoClusterError, match=r"cluster up: Slurm 26\.05 cannot be had here: apt-get"
    ):
        cluster_tool("up", "--version", "26.05", directory=tmp_path / "cluster")
    assert not (tmp_path / "hpc-agent-slurm" / "26.05").exists()


def _output(*argv: str, environment: dict[str, str]) -> str:
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout
