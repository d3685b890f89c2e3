"""``hpc-agent doctor`` on real parts: a cluster, its nodes, an agent's state, a control plane."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hpc_agent.doctor import checks
from hpc_agent.doctor.checks import CHECKS, GROUPS
from hpc_agent.doctor.finding import Status
from hpc_agent.errors import ConfigError
from hpc_agent.store.database import FILE_NAME
from tests.cluster import SlurmCluster
from tests.doctor.site import Site

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"


@pytest.fixture
def site(tmp_path: Path, slurm_cluster: SlurmCluster) -> Site:
    return Site(tmp_path, slurm_cluster)


NODE = [check.name for check in CHECKS if "probe" in GROUPS[check.needs]]


@pytest.mark.slurm
def test_probe_job_looks_at_a_node(site: Site) -> None:
    """A real job of the site's templates reaches the relay and finds dagster."""
    found = site.findings(*NODE)
    # Here jobs run on the agent's own machine, and can read what it can read.
    trouble = {name for name, finding in found.items() if finding.status is not Status.OK}
    assert trouble == {"node-secrets"}
    assert "reaches the relay at 127.0.0.1:" in found["relay"].fact
    assert ": dagster 1." in found["user-python"].fact
    assert not list((site.directory / "work" / "probes").iterdir())


@pytest.mark.slurm
def test_relay_that_nodes_cannot_reach_is_a_problem(site: Site) -> None:
    """The advertised address leads nowhere."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        site.content["environment"] = {}
        site.content["relay"]["advertise"] = [address]
        found = site.findings("relay")
    assert found["relay"].status is Status.PROBLEM
    assert f"{address}: " in found["relay"].fact
    assert "relay.advertise" in found["relay"].advice


@pytest.mark.slurm
def test_python_without_dagster_is_a_problem(site: Site) -> None:
    """It is the node's Python that counts."""
    site.content["environment"]["python"] = "/usr/bin/python3"
    found = site.findings("user-python")
    assert "dagster" in found["user-python"].fact


@pytest.mark.slurm
def test_each_partition_in_use_is_probed(site: Site) -> None:
    """Two jobs, side by side; the rows say which partition they are of."""
    site.content |= {"environment": {}, "runs": {"options": {"partition": "batch"}}}
    only = ("--only=probe", "--only=node-files", "--only=arrays")
    found = site.command(*only, exit_code=0)
    rows = [(item["check"], item["partition"]) for item in found]
    assert rows == [("arrays", None)] + [
        (check, partition) for check in ("probe", "node-files") for partition in ("batch", "")
    ]


@pytest.mark.slurm
def test_job_that_waits_is_told_instead_of_an_answer(site: Site) -> None:
    """The reason is Slurm's; the job does not stay."""
    site.content["options"] = {"begin": "now+1hour"}
    found = site.findings("probe", "relay", probe_seconds=2)
    assert "PENDING (BeginTime)" in found["probe"].fact
    assert found["relay"].status is Status.SKIPPED


@pytest.mark.slurm
def test_cluster_is_described_and_judged(site: Site) -> None:
    """The test cluster has no control groups; its scripts are accepted."""
    found = site.findings(with_probe=False)
    assert found["submission"].status is Status.OK
    assert found["partitions"].status is Status.OK
    assert found["slurm"].fact.startswith("slurm ")
    assert found["cgroups"].status is Status.WARNING
    assert "a file system of this machine alone" in found["work-dir"].fact
    assert found["control-plane"].status is Status.PROBLEM
    assert found["relay"].status is Status.SKIPPED
    assert found["agent"].status is Status.WARNING


@pytest.mark.slurm
def test_options_that_slurm_refuses_are_a_problem(site: Site) -> None:
    """Both by our own look at the partitions and by Slurm's word on the script."""
    site.content["options"] = {"partition": "nowhere"}
    found = site.findings("partitions", "submission")
    assert "no partition nowhere" in found["partitions"].fact
    assert "partition" in found["submission"].fact.lower()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_directory_of_another_user_is_a_problem(tmp_path: Path) -> None:
    """Its owner could replace what is in it."""
    site = Site(tmp_path)
    os.chown(tmp_path / "work", 65534, 65534)
    found = site.findings("work-dir")
    assert found["work-dir"].status is Status.PROBLEM
    assert "belongs to another user" in found["work-dir"].fact


@contextmanager
def wrong_clock(seconds: float) -> Iterator[str]:
    """Serve an agent API with one deployment, at a time that is off by so many seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"data": {"deployments": [{"deploymentName": "prod"}]}}).encode()
            self.send_response_only(200)
            self.send_header("Date", formatdate(time.time() + seconds, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_clock_of_the_control_plane_is_compared(tmp_path: Path) -> None:
    """By the Date of its answers."""
    site = Site(tmp_path)
    with wrong_clock(-120) as site.content["control_plane"]["url"]:
        found = site.findings("clock", "deployments")
    assert found["deployments"].status is Status.OK
    assert found["clock"].status is Status.WARNING
    assert "behind this machine's" in found["clock"].fact


def test_damaged_database_is_a_problem(tmp_path: Path) -> None:
    """SQLite's own words."""
    site = Site(tmp_path)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / FILE_NAME).write_bytes(b"this is no database, though it is long enough to be read" * 9)
    found = site.findings("database", with_probe=False)
    assert "not a database" in found["database"].fact


def test_directory_that_others_can_write_is_a_problem(tmp_path: Path) -> None:
    """Tokens of jobs are below it."""
    site = Site(tmp_path)
    (tmp_path / "work").chmod(0o777)
    found = site.findings("modes", "token")
    assert "chmod 700" in found["modes"].advice
    assert found["token"].status is Status.OK


def test_template_that_is_no_shell_is_a_problem(tmp_path: Path) -> None:
    """A block of the site's own, with a quote that is never closed."""
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "run_worker.sbatch.j2").write_text(
        '{% extends "job.sbatch.j2" %}\n{% block setup %}\necho "open\n{% endblock %}\n'
    )
    site = Site(tmp_path)
    site.content["templates_dir"] = str(templates)
    found = site.findings("templates")
    assert found["templates"].status is Status.PROBLEM
    assert found["templates"].fact.startswith("run_worker.sbatch.j2: ")


def test_unknown_check_is_one_message(tmp_path: Path) -> None:
    """With the names that there are."""
    with pytest.raises(ConfigError, match="no check is called nothing; there are: control-plane,"):
        Site(tmp_path).findings("nothing")


def test_page_is_made_of_the_checks() -> None:
    """docs/doctor.md is what ``hpc-agent doctor --markdown`` prints."""
    _, mark, rest = PAGE.read_text().partition("<!-- hpc-agent doctor --markdown -->\n")
    assert mark
    assert rest == f"{checks.markdown()}\n<!-- end -->\n"
