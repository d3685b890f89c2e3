"""``hpc-agent support-bundle``: what is in it, what is not, and how large it may be."""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hpc_agent.cli import app
from hpc_agent.config import load_config
from hpc_agent.doctor.support_bundle import write_bundle
from hpc_agent.errors import HpcAgentError, UsageError
from hpc_agent.redaction import HIDDEN, redacted, redacted_text
from hpc_agent.slurm.state import JobState
from hpc_agent.store.database import Store
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.workers import a_worker, put

TOKEN = "tok-0123456789abcdef"
PASSWORD = "hunter2hunter2"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An agent's configuration with secrets in it, and the state of one run that failed."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    path = tmp_path / "agent.yaml"
    content = {
        "control_plane": {"url": "https://cp.example", "token_file": str(token)},
        "work_dir": str(tmp_path / "work"),
        "home": str(tmp_path / "home"),
        "environment": {
            "variables": {"API_KEY": PASSWORD, "PROXY": f"http://me:{PASSWORD}@proxy:3128"}
        },
    }
    path.write_text(yaml.safe_dump(content))
    asyncio.run(_write(tmp_path / "home"))
    directory = tmp_path / "work" / "jobs" / "run-1"
    directory.mkdir(parents=True)
    (directory / "stderr").write_text(f"Authorization: Bearer {TOKEN}\npassword={PASSWORD}\nlast\n")
    return path


async def _write(home: Path) -> None:
    store = Store(home)
    await store.open()
    run = a_worker(
        key="run-1",
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.ENDED,
        deployment="prod",
        location="here",
        run_id="0a1b2c3d",
        created_at=1.0,
        job_id="7",
        state=JobState.FAILED,
        message=f"it could not log in with token={TOKEN}",
    )
    await store.run(lambda db: put(db, run))
    await store.close()


def bundle(config: Path, *arguments: str) -> dict[str, str]:
    """Make a bundle and return what is in it."""
    path = config.parent / "bundle.tar.gz"
    given = ["support-bundle", "--config", str(config), "-o", str(path), "--no-doctor"]
    result = CliRunner().invoke(app, [*given, *arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    assert path.stat().st_mode & 0o077 == 0
    with tarfile.open(path) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("hpc-agent-support/")] = file.read().decode()
    return found


def test_bundle_holds_no_secret(config: Path) -> None:
    """Neither by its value, nor by its name, nor by the form of what stands around it."""
    found = bundle(config, "--run", "0a1b")
    for name, text in found.items():
        assert TOKEN not in text, name
        assert PASSWORD not in text, name
    assert yaml.safe_load(found["agent.yaml"])["environment"]["variables"] == {
        "API_KEY": HIDDEN,
        "PROXY": f"http://{HIDDEN}@proxy:3128",
    }
    assert found["runs/0a1b/stderr.txt"].endswith("last\n")


def test_output_of_runs_is_in_it_when_they_are_named(config: Path) -> None:
    """User code may print what is nobody's business."""
    assert not any(name.startswith("runs/") for name in bundle(config))
    with pytest.raises(UsageError, match="exists"):
        bundle(config)


def test_part_that_cannot_be_read_is_told_in_its_place(config: Path) -> None:
    """The others are wanted all the more."""
    (config.parent / "home" / "agent.db").unlink()
    found = bundle(config)
    assert "no agent has run" in json.loads(found["status.json"])["error"]
    assert json.loads(found["versions.json"])["hpc-agent"]


def test_unknown_run_is_told(config: Path) -> None:
    """Whoever asks for its output gets no bundle without it."""
    with pytest.raises(HpcAgentError, match="no job 'nobody'"):
        bundle(config, "--run", "nobody")


def test_bundle_is_limited(config: Path) -> None:
    """The largest files go first, and are listed."""
    log = config.parent / "work" / "jobs" / "run-1" / "stdout"
    log.write_bytes(b"x" * (3 << 20))
    path = config.parent / "b.tar.gz"
    settings = load_config(config)
    write_bundle(settings, path, runs=["run-1"], results=[], most_bytes=8000)
    with tarfile.open(path) as archive:
        file = archive.extractfile("hpc-agent-support/runs/run-1/stdout.txt")
        assert file is not None
        assert file.read() == b"left out: 1048576 bytes"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"token_file": "/home/me/token"}, {"token_file": "/home/me/token"}),
        ({"a": [{"db_password": "x"}]}, {"a": [{"db_password": HIDDEN}]}),
        ({"client_secret": ""}, {"client_secret": ""}),
    ],
)
def test_names_say_what_is_hidden(given: object, shown: object) -> None:
    """Where a secret is may be read, and that there is none."""
    assert redacted(given) == shown


def test_private_key_is_hidden_whole() -> None:
    """Over all its lines."""
    key = "-----BEGIN EC PRIVATE KEY-----\nabc\ndef\n-----END EC PRIVATE KEY-----"
    assert redacted_text(f"before {key} after") == f"before {HIDDEN} after"
