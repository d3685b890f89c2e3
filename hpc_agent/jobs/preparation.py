"""Makes everything a job needs before sbatch is called: directory, token, spec, script."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.config import Environment
from hpc_agent.jobs.directory import NodeSpec, WorkDirectory
from hpc_agent.jobs.interpreter import is_in_bundle
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.rendering import ScriptValues, Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.private_files import write_private
from hpc_agent.store.jobs import JobKind

SCRIPT = "job.sh"
OUTPUT = "slurm.out"
TEMPLATE_OF = {
    JobKind.RUN_WORKER: "run_worker.sbatch.j2",
    JobKind.CODE_SERVER: "code_server.sbatch.j2",
    JobKind.PACK: "pack.sbatch.j2",
}
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """A job before it is one.

    ``requeue`` lets Slurm start it again by itself, under its own id, after a preemption or when a
    node fails. Without it such a job ends, and whoever planned it decides what comes next.
    """

    spec: NodeSpec
    title: str
    settings: Sequence[Setting]
    environment: Environment
    requeue: bool = False


class JobPreparation:
    """Writes job directories; ``prepare`` may be repeated for the same key."""

    def __init__(
        self,
        *,
        work: WorkDirectory,
        templates: Templates,
        tokens: JobTokens,
        program: Path,
        node_python: str,
    ) -> None:
        self.work = work
        self._templates = templates
        self._tokens = tokens
        self._program = program
        self._node_python = node_python

    def script_of(self, key: str) -> Path:
        """Return where the job's script is."""
        return self.work.of(key) / SCRIPT

    async def prepare(self, plan: JobPlan) -> Path:
        """Write the directory and the script of a job; return the script.

        Raises TemplateError, and OSError when the work directory cannot be written.
        """
        return await asyncio.to_thread(self._prepare, plan)

    def _prepare(self, plan: JobPlan) -> Path:
        key = plan.spec.key
        directory = self.work.prepare(
            plan.spec, token=self._tokens.token(key), program=self._program
        )
        values = script_values(plan, directory=directory, node_python=self._node_python)
        script = directory / SCRIPT
        write_private(script, self._templates.render(TEMPLATE_OF[plan.spec.kind], values))
        return script


def script_values(plan: JobPlan, *, directory: Path, node_python: str) -> ScriptValues:
    """Return what the template of a job is rendered with."""
    environment = plan.environment
    output = str(directory / OUTPUT).replace("%", "%%")
    return ScriptValues(
        key=plan.spec.key,
        title=plan.title,
        directives=[
            f"--output={output}",
            f"--chdir={directory}",
            "--open-mode=append",
            "--requeue" if plan.requeue else "--no-requeue",
            *(setting.directive for setting in plan.settings),
        ],
        exports=list(_exports(environment.variables).items()),
        modules=environment.modules,
        purge_modules=environment.purge_modules,
        env_file=environment.env_file,
        prefix=environment.prefix,
        is_conda=environment.conda is not None,
        setup=environment.setup,
        teardown=environment.teardown,
        umask=environment.umask or "077",
        node_python=node_python,
        node_program=str(directory / "node.pyz"),
        job_directory=str(directory),
        in_bundle=is_in_bundle(environment),
    )


def _exports(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a job: nothing of the agent's own leaks into it."""
    account = pwd.getpwuid(os.getuid())
    return {
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/sh",
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        **variables,
    }
