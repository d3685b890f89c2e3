"""Job scripts as the agent would write them now, with the values of a run or of a code location."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hpc_agent.cluster.transports import slurm_environment
from hpc_agent.code_servers.server_plan import new_server_key, plan_server
from hpc_agent.config import AgentConfig
from hpc_agent.errors import HpcAgentError, TemplateError
from hpc_agent.inspection.names import worker_named
from hpc_agent.jobs import template_check
from hpc_agent.jobs.directory import WorkDirectory
from hpc_agent.jobs.preparation import JobPlan, script_values
from hpc_agent.jobs.rendering import Templates
from hpc_agent.jobs.template_check import SBATCH, Finding
from hpc_agent.runs.planning import overrides_of, plan_from
from hpc_agent.slurm import scontrol
from hpc_agent.store import launches
from hpc_agent.store.database import read_only

_PING_SECONDS = 30.0


def template_files(config: AgentConfig) -> dict[str, Path]:
    """Return the job templates, and the file that each comes from."""
    return Templates(config.templates_dir).files()


def template_file(config: AgentConfig, name: str) -> Path:
    """Return a template's file. Raises TemplateError when there is none."""
    files = template_files(config)
    if name not in files:
        raise TemplateError(f"there is no template {name!r}; there are: {', '.join(files)}")
    return files[name]


def render_for(
    config: AgentConfig, name: str, *, location: str | None = None, run_id: str | None = None
) -> str:
    """Return a template rendered for a location's code server, for a run, or for an example."""
    template_file(config, name)
    templates = Templates(config.templates_dir)
    if location is None and run_id is None:
        return templates.render(name, template_check.FULL)
    plan = _plan_of_run(config, run_id) if run_id else _plan_of_location(config, location or "")
    directory = WorkDirectory(config.work_dir).of(plan.spec.key)
    values = script_values(plan, directory=directory, node_python=config.node_python)
    return templates.render(name, values)


def check_templates(config: AgentConfig, name: str | None = None) -> list[Finding]:
    """Check one template or all; by sbatch too where jobs go to Slurm and its commands are here.

    A Slurm that does not answer is one finding, and no fault of any template.
    """
    names = [name] if name else list(template_files(config))
    if name is not None:
        template_file(config, name)
    scheduler, environment = config.scheduler, slurm_environment(config)
    is_here = scheduler.kind == "slurm" and scheduler.transport != "ssh"
    sbatch = shutil.which("sbatch", path=environment.get("PATH")) if is_here else None
    silence = _silence(environment) if sbatch else None
    findings = template_check.check(
        Templates(config.templates_dir),
        names,
        sbatch=None if silence else sbatch,
        environment=environment,
    )
    if silence is None:
        return findings
    others = [each for each in findings if each.check != SBATCH]
    return [*others, Finding("all", SBATCH, "skipped", f"Slurm does not answer: {silence}")]


def _silence(environment: Mapping[str, str]) -> str | None:
    """Say in one line why no controller answers; None when one does."""
    try:
        done = subprocess.run(
            scontrol.ping_arguments(),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PING_SECONDS,
        )
    except FileNotFoundError:
        return None  # sbatch is here without scontrol: it may say more itself
    except subprocess.TimeoutExpired:
        return f"scontrol ping gave no answer in {_PING_SECONDS:g} s"
    if done.returncode == 0 or " is UP" in done.stdout:  # one of several controllers may be down
        return None
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return said[-1] if said else f"scontrol ping: exit code {done.returncode}"


def _plan_of_run(config: AgentConfig, run_id: str) -> JobPlan:
    """Plan a run again from what its launch said. Raises HpcAgentError when it is not known."""
    db = read_only(config.home)
    job = worker_named(db, run_id)
    run = launches.find(db, job.run_id) if job is not None and job.run_id else None
    if run is None or job is None:
        raise HpcAgentError(
            f"run {run_id}: this agent knows no launch of it; `hpc-agent jobs --all` lists its runs"
        )
    return plan_from(
        db,
        config,
        run,
        deployment=job.deployment,
        attempt=job.attempt,
        overrides=overrides_of(job),
    )


def _plan_of_location(config: AgentConfig, location: str) -> JobPlan:
    """Plan one more code server of a location. Raises HpcAgentError when it is not known."""
    db = read_only(config.home)
    row = db.execute(
        "SELECT deployment, deploy_data FROM code_servers WHERE location = ? "
        "ORDER BY created_at DESC LIMIT 1",
        [location],
    ).fetchone()
    if row is None:
        raise HpcAgentError(
            f"code location {location}: this agent has not served it yet; `hpc-agent status` lists "
            "those that it knows"
        )
    return plan_server(
        config, key=new_server_key(), deployment=row[0], location=location, deploy_data=row[1]
    )
