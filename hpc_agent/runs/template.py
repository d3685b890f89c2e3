"""What warms a pool for the runs of a code location: the template of their processes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from sqlite_utils import Database

from hpc_agent.config import AgentConfig
from hpc_agent.jobs.directory import Template
from hpc_agent.runs.surroundings import Surroundings, without_container_context
from hpc_agent.store import pools
from hpc_agent.store.workers import Worker

_ID_DIGITS = 24


def template_of(
    config: AgentConfig, surroundings: Surroundings, *, location: str | None, version: str
) -> Template | None:
    """Return the template of runs in these surroundings, None where nothing is to be warmed.

    ``version`` is the code location's: what was deployed anew is imported anew.
    """
    own = config.locations.get(location or "")
    if own is None or own.warm == "off":
        return None
    template = Template(
        id="",
        start=own.warm,
        python=surroundings.python,
        argv_prefix=[surroundings.python, "-m", "dagster", "api"],
        # The origin of a run names its job as well: all jobs of a repository have one template.
        code_origin=without_container_context(surroundings.code_origin)["repository_origin"],
        environment=surroundings.variables,
        working_directory=surroundings.working_directory,
        dagster_yaml=surroundings.dagster_yaml,
    )
    content = json.dumps([version, template.to_json()], sort_keys=True)
    return replace(template, id=hashlib.sha256(content.encode()).hexdigest()[:_ID_DIGITS])


def keep_template(db: Database, worker: Worker, template: Template | None, *, now: float) -> None:
    """Keep what warms a worker's pool: its next allocation has it before the first run comes."""
    if worker.pool is None or template is None:
        return
    pools.keep_template(
        db,
        worker.pool,
        deployment=worker.deployment,
        location=worker.location or "",
        content=template.to_json(),
        now=now,
    )
