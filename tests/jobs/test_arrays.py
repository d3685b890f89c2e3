"""Which jobs are alike, and the script of their array."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from hpc_agent.config import Environment
from hpc_agent.jobs.array_script import likeness_of, prepare_array
from hpc_agent.jobs.directory import NodeSpec, WorkDirectory
from hpc_agent.jobs.node_program import build_node_program
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import JobPlan, JobPreparation, JobScript
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.store.workers import WorkerKind


class Site:
    """A work directory, its path as hostile as can be, and perhaps a site's own templates."""

    def __init__(self, path: Path) -> None:
        self.templates = path / "templates"
        self.templates.mkdir()
        self.work = WorkDirectory(path / "work $(x) 'q' %j")
        self.work.make()

    async def script(self, key: str, partition: str = "debug", variable: str = "") -> JobScript:
        """Prepare a job and return its script."""
        preparation = JobPreparation(
            work=self.work,
            templates=Templates(self.templates),
            tokens=JobTokens(b"secret"),
            program=build_node_program(self.work.lib),
            node_python="python3",
        )
        spec = NodeSpec(
            key=key,
            kind=WorkerKind.RUN_WORKER,
            argv=["true"],
            environment={},
            working_directory=None,
            grace_seconds=1,
        )
        return await preparation.prepare(
            JobPlan(
                spec=spec,
                title=f"Dagster run of {key}",
                settings=[Setting("partition", partition, "a test")],
                environment=Environment(variables={"V": variable}),
            )
        )

    async def likeness(self, key: str, partition: str = "debug", variable: str = "") -> str | None:
        """Return a job's likeness."""
        return likeness_of(await self.script(key, partition, variable), key)


def ended(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        argv,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_jobs_with_the_same_options_are_alike(site: Site) -> None:
    """Their keys, titles and environments are their own."""
    assert await site.likeness("run-1") == await site.likeness("run-2", variable="x") is not None


async def test_jobs_with_other_options_are_not_alike(site: Site) -> None:
    """One array has one partition."""
    assert await site.likeness("run-1") != await site.likeness("run-2", partition="batch")


@pytest.mark.parametrize(
    "directive",
    [
        "#SBATCH --error={{ job_directory|verbatim }}/err",
        "#SBATCH --wckey={{ key|verbatim }}",
        "#SBATCH --output=/site/%j.out",
        "#SBATCH -o /site/%j.out",
        "#SBATCH --array=1-3",
        "#SBATCH --dependency=singleton",
        "#SBATCH hetjob",
        "#PBS -l walltime=1",
    ],
)
async def test_job_whose_options_name_itself_goes_alone(site: Site, directive: str) -> None:
    """A site's template may ask for what an array cannot give."""
    (site.templates / "run_worker.sbatch.j2").write_text(
        '{% extends "job.sbatch.j2" %}\n{% block directives %}\n' + directive + "\n{% endblock %}\n"
    )
    assert await site.likeness("run-1") is None


async def test_each_task_runs_the_script_of_its_own_job(site: Site, tmp_path: Path) -> None:
    """In the job's directory, by the interpreter that the script names."""
    (site.templates / "run_worker.sbatch.j2").write_text(
        '#!/bin/sh -e\n#SBATCH --output=o\n#SBATCH --chdir=d\npwd > "$OUT"\nfalse\ntrue\n'
    )
    keys = ["run-a", "run-b"]
    for key in keys:
        await site.script(key)
    script = prepare_array(site.work, "arr-1", keys)
    for index, key in enumerate(keys):
        out = tmp_path / f"out-{index}"
        done = ended("/bin/sh", str(script), SLURM_ARRAY_TASK_ID=str(index), OUT=str(out))
        assert (done.returncode, done.stderr) == (1, "")
        assert out.read_text().strip() == str(site.work.of(key))


async def test_script_of_an_array_has_the_tasks_options(site: Site) -> None:
    """With an output file for each task, and it is as private as theirs."""
    await site.script("run-a", partition="batch")
    script = prepare_array(site.work, "arr-1", ["run-a", "run-a"])
    lines = script.read_text().splitlines()
    assert "#SBATCH --partition=batch" in lines
    assert "#SBATCH --no-requeue" in lines
    (output,) = [line for line in lines if "--output" in line]
    assert output.endswith('%%j/jobs/arr-1/%a/slurm.out"')
    assert stat.S_IMODE(script.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(script.parent.stat().st_mode) == 0o700


async def test_script_of_an_array_pleases_shellcheck(site: Site) -> None:
    """Also with hostile paths."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    await site.script("run-a")
    script = prepare_array(site.work, "arr-1", ["run-a"])
    assert ended("shellcheck", "--severity=warning", str(script)).stdout == ""
