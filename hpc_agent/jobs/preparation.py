"""Makes everything a job needs before sbatch is called: directory, token, spec, script."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.account import Account
from hpc_agent.config import Environment
from hpc_agent.jobs.directory import NodeSpec, WorkDirectory
from hpc_agent.jobs.interpreter import is_in_bundle
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.rendering import ScriptValues, Templates
from hpc_agent.jobs.tokens import JobTokens
from hpc_agent.store.workers import Placement, WorkerKind

OUTPUT = "slurm.out"
TEMPLATE_OF = {
    WorkerKind.RUN_WORKER: "run_worker.sbatch.j2",
    WorkerKind.CODE_SERVER: "code_server.sbatch.j2",
    WorkerKind.PACK: "pack.sbatch.j2",
    WorkerKind.STEP: "step.sbatch.j2",
    WorkerKind.POOL: "pool.sbatch.j2",
}
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """A job before it is one.

    ``requeue`` lets Slurm start it again by itself, under its own id, after a preemption or when a
    node fails. Without it such a job ends, and whoever planned it decides what comes next. ``pool``
    is the pool in which it is to live instead, as long as there is room for it.
    """

    spec: NodeSpec
    title: str
    settings: Sequence[Setting]
    environment: Environment
    requeue: bool = False
    pool: str | None = None

    @property
    def placement(self) -> Placement:
        """Where its processes are to live."""
        return Placement.JOB if self.pool is None else Placement.POOL


@dataclass(frozen=True, slots=True)
class JobScript:
    """The script of a job, and where it is."""

    path: Path
    text: str


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
        account: Account | None = None,
    ) -> None:
        self.work = work
        self._templates = templates
        self._tokens = tokens
        self._program = program
        self._node_python = node_python
        self._account = account

    async def prepare(self, plan: JobPlan) -> JobScript:
        """Write the directory and the script of a job; return the script.

        Raises TemplateError, and what WorkDirectory raises.
        """
        return await asyncio.to_thread(self._prepare, plan)

    def renew_token(self, key: str) -> None:
        """Write the token of a job whose directory is there: it may be of an earlier secret."""
        self.work.write_token(key, self._tokens.token(key))

    def _prepare(self, plan: JobPlan) -> JobScript:
        key = plan.spec.key
        directory = self.work.prepare(
            plan.spec, token=self._tokens.token(key), program=self._program
        )
        values = script_values(
            plan, directory=directory, node_python=self._node_python, account=self._account
        )
        text = self._templates.render(TEMPLATE_OF[plan.spec.kind], values)
        return JobScript(self.work.write_script(key, text), text)


def script_values(
    plan: JobPlan, *, directory: Path, node_python: str, account: Account | None = None
) -> ScriptValues:
    """Return what the template of a job is rendered with; ``account`` None is this process's."""
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
        exports=list(_exports(account or Account.here(), environment.variables).items()),
        modules=environment.modules,
        purge_modules=environment.purge_modules,
        omp_num_threads=environment.omp_num_threads,
        env_file=environment.env_file,
        prefix=environment.prefix,
        is_conda=environment.conda is not None,
        packed=environment.packed,
        unpack_directory=environment.unpack_directory,
        setup=environment.setup,
        teardown=environment.teardown,
        umask=environment.umask or "077",
        node_python=node_python,
        node_program=str(directory / "node.pyz"),
        job_directory=str(directory),
        in_bundle=is_in_bundle(environment),
    )


def _exports(account: Account, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a job: nothing of the agent's own leaks into it."""
    return {
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell or "/bin/sh",
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        **variables,
    }
