"""A look into a running job: the stacks of its processes, or a shell beside them."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_agent.cluster.transports import open_runner, slurm_environment
from hpc_agent.config import AgentConfig
from hpc_agent.errors import HpcAgentError
from hpc_agent.inspection.names import find_worker
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.wording import describe
from hpc_agent.slurm.commands import NOT_FOUND
from hpc_agent.store.database import read_only
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import Placement, Worker

# The step waits for its place in the allocation, and py-spy for each process.
_STACKS_SECONDS = 180.0


async def stacks(config: AgentConfig, name: str) -> str:
    """Return what each process of a running job is doing. Raises HpcAgentError."""
    worker = _running(config, name)
    key = worker.pack_key or worker.key
    program = WorkDirectory(config.work_dir).of(key) / "node.pyz"
    argv = [config.node_python, str(program), "--stacks", worker.key]
    async with open_runner(config) as runner:
        result = await runner.run(
            [*_beside(config, worker), *argv],
            environment=_environment(config),
            timeout_seconds=_STACKS_SECONDS,
        )
    if result.returncode == NOT_FOUND:
        raise HpcAgentError(f"{result.argv[0]} is not found: a look into a job needs it here")
    if not result.succeeded:
        raise HpcAgentError(result.describe())
    return result.stdout


def shell_command(config: AgentConfig, name: str) -> list[str]:
    """Return the command that opens a shell where a job runs. Raises HpcAgentError."""
    worker = _running(config, name)
    step = [*_beside(config, worker, terminal=True), "bash"]
    ssh = config.scheduler.ssh
    if config.scheduler.transport != "ssh" or ssh is None:
        return step
    key = ["-i", str(ssh.key_file)] if ssh.key_file else []
    where = f"{ssh.user}@{ssh.host}" if ssh.user else ssh.host
    port = ["-p", str(ssh.port)] if ssh.port else []
    return ["ssh", "-t", *port, *key, where, *step]


def _running(config: AgentConfig, name: str) -> Worker:
    worker = find_worker(read_only(config.home), name)
    if worker.phase is not Phase.RUNNING:
        raise HpcAgentError(f"{name} does not run: {describe(worker)}")
    return worker


def _beside(config: AgentConfig, worker: Worker, *, terminal: bool = False) -> Sequence[str]:
    """Return what runs a command in a job's allocation, on its first node, beside what runs there.

    Nothing for processes of this machine. ``--overlap``: https://slurm.schedmd.com/srun.html
    """
    if config.scheduler.kind == "local" or worker.placement is Placement.LOGIN:
        return []
    pty = ["--pty"] if terminal else []
    return ["srun", f"--jobid={worker.job_id}", "--overlap", "-N1", "-n1", "-r0", *pty]


def _environment(config: AgentConfig) -> dict[str, str]:
    if config.scheduler.transport == "ssh":
        return {}
    wanted = {"PATH", "SLURM_CONF"}
    return {name: each for name, each in slurm_environment(config).items() if name in wanted}
