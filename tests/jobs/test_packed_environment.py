"""Packed environments: unpacked on a node by the first job that comes, as bash runs its script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.config import Environment
from tests.jobs.scripts import done, program, running, script_of, shown


@dataclass(frozen=True, slots=True)
class Node:
    """A node's own disk, and a shared one with an environment and its archive."""

    root: Path

    @property
    def prefix(self) -> Path:
        return self.root / "shared" / "dagster"

    @property
    def archive(self) -> Path:
        return self.root / "shared" / "dagster.tar"

    @property
    def mine(self) -> Path:
        """Where this user's environments are unpacked."""
        return self.root / "disk" / f"hpc-agent-environments-{os.getuid()}"

    def pack(self, *top: str) -> None:
        """Make the archive of ``top`` below the environment's parent, as `tar -C` does."""
        subprocess.run(
            ["tar", "-C", self.prefix.parent, "-cf", self.archive, *(top or ("dagster",))],
            check=True,
        )

    def environment(self, **variables: str) -> dict[str, Any]:
        """Return what agent.yaml says, in a job of Slurm unless ``variables`` say otherwise."""
        return {
            "venv": str(self.prefix),
            "packed": str(self.archive),
            "unpack_directory": str(self.root / "disk"),
            "variables": {"SLURM_JOB_ID": "1", **variables},
        }

    def first_on_the_path(self, **variables: str) -> Path:
        """Run a job, and return where its Python comes from."""
        path, prefix = shown(self.environment(**variables), self.root, "PATH", "VIRTUAL_ENV")
        first = Path(path.split(":")[0])
        assert str(first.parent) == prefix
        return first


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    (tmp_path / "disk").mkdir()
    (made.prefix / "bin").mkdir(parents=True)
    python = made.prefix / "bin" / "python"
    python.write_text('#!/bin/sh\nexec /bin/sh "$@"\n')
    python.chmod(0o755)
    made.pack()
    return made


def test_environment_is_unpacked_once_on_a_node(node: Node) -> None:
    """By the first job, whatever one before it has left half done."""
    first = node.first_on_the_path()
    (left,) = (path for path in node.mine.iterdir() if path.is_dir())
    assert first == left / "dagster" / "bin"
    (left / ".complete").unlink()
    (left / "half").touch()

    assert node.first_on_the_path() == first
    made = first.stat().st_ctime_ns

    assert not (left / "half").exists()
    assert node.first_on_the_path() == first
    assert first.stat().st_ctime_ns == made
    assert node.mine.stat().st_mode & 0o777 == 0o700


def test_environment_of_a_uv_project_is_found(node: Node) -> None:
    """Its directory has a hidden name."""
    node.prefix.rename(node.prefix.parent / ".venv")
    node.pack(".venv")
    assert node.first_on_the_path().match("*/.venv/bin")


def test_jobs_that_start_together_unpack_once(node: Node) -> None:
    """The others wait for the first."""
    counter = node.root / "count"
    unpack = node.prefix / "bin" / "conda-unpack"
    unpack.write_text(f"sleep 0.3; echo once >> {counter}\n")
    node.pack("-C", "dagster", "bin")
    printer = program(node.root, "#!/bin/sh\necho $PATH\n")
    script = script_of(Environment.model_validate(node.environment()), printer, node.root)
    jobs = [subprocess.Popen(["bash", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    paths = {job.communicate(timeout=60)[0].split(":")[0] for job in jobs}

    (path,) = paths
    assert Path(path).parent.parent == node.mine
    assert counter.read_text() == "once\n"


def test_job_shares_the_environment_of_one_that_goes_on(node: Node) -> None:
    """It waits for nobody."""
    waiting = program(node.root, "#!/bin/sh\necho ready\nexec sleep 60\n")
    script = script_of(Environment.model_validate(node.environment()), waiting, node.root)
    with running(script), running(script):
        (path,) = (path for path in node.mine.iterdir() if path.is_dir())
    assert node.first_on_the_path().is_relative_to(path)


def test_newer_archive_replaces_what_no_job_holds(node: Node) -> None:
    """A job that goes on keeps its own."""
    first = node.first_on_the_path()
    node.archive.unlink()
    node.pack()
    waiting = program(node.root, "#!/bin/sh\necho ready\nexec sleep 60\n")
    script = script_of(Environment.model_validate(node.environment()), waiting, node.root)
    with running(script):
        second = {path for path in node.mine.iterdir() if path.is_dir()}
        assert not first.exists()
        node.archive.unlink()
        (node.prefix / "newer").touch()
        node.pack()
        assert node.first_on_the_path().parent.parent not in second
        assert all(path.exists() for path in second)
    node.archive.unlink()
    (node.prefix / "newest").touch()
    node.pack()
    node.first_on_the_path()
    assert not any(path.exists() for path in second)


@pytest.mark.parametrize(
    "variables", [{"SLURM_JOB_ID": ""}, {"SLURM_JOB_ID": "local-1"}, {"SLURM_JOB_NUM_NODES": "2"}]
)
def test_shared_environment_serves_where_only_one_node_would_have_it(
    node: Node, variables: dict[str, str]
) -> None:
    """And on a login node, whose disk is everybody's."""
    assert node.first_on_the_path(**variables) == node.prefix / "bin"
    assert not node.mine.exists()


def test_shared_environment_serves_where_nothing_can_be_unpacked(node: Node) -> None:
    """It is said why."""
    node.archive.write_bytes(b"not tar")
    job = done(node.environment(), node.root)
    assert job.returncode == 0
    assert f"{node.archive} is not used on" in job.stderr
    assert node.first_on_the_path() == node.prefix / "bin"
    (node.prefix / "bin" / "python").chmod(0o644)
    node.pack()
    assert "has no bin/python that can be executed" in done(node.environment(), node.root).stderr


def test_job_that_could_not_unpack_keeps_no_other_waiting(node: Node) -> None:
    """It goes on with the shared environment, and holds no lock."""
    node.archive.write_bytes(b"not tar")
    waiting = program(node.root, "#!/bin/sh\necho ready\nexec sleep 60\n")
    script = script_of(Environment.model_validate(node.environment()), waiting, node.root)
    with running(script), running(script):
        assert list(node.mine.glob("*.lock"))


def test_directory_of_somebody_else_is_not_unpacked_into(node: Node) -> None:
    """A link of ours is none either."""
    (node.root / "elsewhere").mkdir()
    node.mine.symlink_to(node.root / "elsewhere")
    assert node.first_on_the_path() == node.prefix / "bin"
    assert not list((node.root / "elsewhere").iterdir())


def test_unpacked_environment_is_one(node: Node) -> None:
    """A real one, whose Python knows where it is."""
    shutil.rmtree(node.prefix)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", node.prefix], check=True)
    node.pack()
    printer = program(node.root, "#!/bin/sh\nexec python -c 'import sys; print(sys.prefix)'\n")
    script = script_of(Environment.model_validate(node.environment()), printer, node.root)
    told = subprocess.run(["bash", script], capture_output=True, text=True, check=True).stdout
    assert Path(told.strip()).parent.parent == node.mine
