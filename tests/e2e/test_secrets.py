"""After a whole run, every secret is where it was put, and nowhere else on this machine."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from hpc_agent.demo.stack import Stack
from tests.cluster import SlurmCluster
from tests.control_plane.running import poll
from tests.e2e.conftest import choice_of, running_stack
from tests.e2e.secret_search import (
    SIGNED_ADDRESS,
    Secret,
    command_lines,
    environments,
    files_below,
    holders,
    modes_of,
    secrets_of,
    temporary_directories,
)
from tests.e2e.test_runs import nap, wait_running

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A stack that has executed a run, and has another one at work."""

    stack: Stack
    cluster: SlurmCluster
    secrets: list[Secret]
    finished: str
    running: str

    def slurm(self, *argv: str) -> bytes:
        """Return what a command of Slurm prints."""
        environment = dict(self.cluster.environment)
        return subprocess.run(argv, env=environment, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def scene(slurm_cluster_accounting: SlurmCluster) -> Iterator[Scene]:
    """With all that can be logged in the logs."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        "logging": {"level": "debug"},
    }
    with running_stack(choice_of(slurm_cluster_accounting), **settings) as stack:
        user_token = make_and_use_user_token(stack)
        tags = {"dagster/partition": "2026-01-01"}
        finished = stack.webserver.launch("example", "__ASSET_JOB", tags=tags)
        assert stack.wait_finished(finished) == "SUCCESS"
        running = nap(stack, 120)
        wait_running(stack, running)
        yield Scene(
            stack=stack,
            cluster=slurm_cluster_accounting,
            secrets=secrets_of(stack, user_token),
            finished=finished,
            running=running,
        )


def make_and_use_user_token(stack: Stack) -> str:
    home = ("--home", str(stack.directories.control_plane))
    created = stack.run_command(
        "control-plane", "token", "create", "--kind", "user", "--json", *home
    )
    token: str = json.loads(created)["token"]
    trust = ssl.create_default_context(
        cafile=str(stack.directories.control_plane / "tls" / "ca.pem")
    )
    for sent, status in ((token, 200), (f"{token}x", 401)):
        answer = httpx.post(
            f"{stack.api_url}/graphql",
            json={"query": "{ __typename }"},
            headers={"Dagster-Cloud-Api-Token": sent, "Dagster-Cloud-Deployment": "prod"},
            verify=trust,
            trust_env=False,
        )
        assert answer.status_code == status
    return token


def test_search_finds_what_stands_where_it_should_not(scene: Scene, tmp_path: Path) -> None:
    """In a log, in a row of a database too long for one page, in arguments, in an environment."""
    agent = next(secret for secret in scene.secrets if secret.name == "agent's token")
    token = agent.files[0].read_text()
    (tmp_path / "log").write_text(f"authorization: {token}\n")
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as database:
        database.execute("CREATE TABLE events (body TEXT)")
        database.execute("INSERT INTO events VALUES (?)", ["x" * 4000 + token * 200])
        database.commit()
    found = {Path(where).name for _, where in holders([agent], files_below(tmp_path))}
    assert found == {"log", "db"}
    shows = subprocess.Popen(
        [sys.executable, "-c", "input()", token], stdin=subprocess.PIPE, env={"TOKEN": token}
    )
    try:
        poll(
            lambda: shows.pid and b"input" in Path(f"/proc/{shows.pid}/cmdline").read_bytes(),
            "a process",
            10,
        )
        assert any(f"/{shows.pid}/" in where for _, where in holders([agent], command_lines()))
        jobs = scene.stack.config.work_dir / "jobs"
        assert any(f"/{shows.pid}/" in where for _, where in holders([agent], environments(jobs)))
    finally:
        shows.communicate()


def test_files_hold_no_secret_but_those_made_for_it(scene: Scene) -> None:
    """Logs, databases with all events, job directories, and all that Slurm keeps of its jobs."""
    directory = scene.cluster.directory
    roots = [
        scene.stack.directories.local,
        *temporary_directories(),
        *([directory] if directory else []),
    ]
    assert len(scene.secrets) >= 10
    assert holders(scene.secrets, files_below(*roots)) == []


def test_files_made_for_secrets_are_private(scene: Scene) -> None:
    """Each is there, and only its owner reads it."""
    made = [path for secret in scene.secrets for path in secret.files]
    assert [path for path in made if not path.exists() and path.suffix != ".db-wal"] == []
    assert modes_of(scene.secrets) == {}


def test_no_process_shows_a_secret(scene: Scene) -> None:
    """Neither in its arguments nor, but for a job's token in that job, in its environment."""
    assert holders(scene.secrets, command_lines()) == []
    assert holders(scene.secrets, environments(scene.stack.config.work_dir / "jobs")) == []


def shows(scene: Scene, argv: tuple[str, ...], key: str) -> bytes | None:
    """Return what a command prints once it tells of the job, else the secret is not looked for."""
    printed = scene.slurm(*argv)
    return printed if key.encode() in printed else None


def test_slurm_shows_no_secret(scene: Scene) -> None:
    """Of the job that runs, and of those that are over."""
    job = scene.stack.job_of(run_id=scene.running)
    shown = {
        argv[0]: poll(partial(shows, scene, argv, job["key"]), " ".join(argv), 60)
        for argv in (
            ("scontrol", "show", "job", "--details", "--details"),
            ("squeue", "--states=all", "--format=%all"),
            # Written down by slurmctld in its own time.
            ("sacct", "--allusers", "--starttime=now-1hour", "--format=ALL", "--parsable2"),
        )
    }
    shown["script"] = scene.slurm("scontrol", "write", "batch_script", job["job_id"], "-")
    assert holders(scene.secrets, shown.items()) == []


def test_events_and_logs_show_no_signed_address(scene: Scene) -> None:
    """Whoever has one may upload in a job's place as long as it is good."""
    events = [
        json.dumps(scene.stack.webserver.events(run)).encode()
        for run in (scene.finished, scene.running)
    ]
    assert (
        holders(scene.secrets, [(f"events {number}", each) for number, each in enumerate(events)])
        == []
    )
    logs = [
        *scene.stack.directories.logs.rglob("*"),
        *Path(scene.stack.config.work_dir).glob("jobs/*/slurm.out"),
    ]
    texts = [*events, *(path.read_bytes() for path in logs if path.is_file())]
    assert [SIGNED_ADDRESS.findall(text) for text in texts if SIGNED_ADDRESS.search(text)] == []
