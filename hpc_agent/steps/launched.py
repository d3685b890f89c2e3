"""What a run has asked for as a step, as it was kept."""

from __future__ import annotations

from pydantic import ConfigDict, ValidationError
from sqlite_utils import Database

from hpc_agent.errors import ConfigError
from hpc_agent.relay.step_requests import AskedJob, AskedStep
from hpc_agent.steps.planning import Step
from hpc_agent.store import launches, steps
from hpc_agent.store.workers import Worker


class _KeptStep(AskedStep):
    """A step as an agent of any version has kept it."""

    model_config = ConfigDict(extra="ignore")


class _KeptJob(AskedJob):
    """A job as an agent of any version has kept it: what only a newer one knows is not read."""

    model_config = ConfigDict(extra="ignore")

    steps: list[_KeptStep]  # type: ignore[assignment]  # nobody adds to it


def asked_step(db: Database, worker: Worker) -> Step | None:
    """Return what a run has asked for, None when that is not known any more.

    Raises ConfigError when it is kept in a way that this version cannot read.
    """
    run, content = launches.find(db, str(worker.run_id)), steps.request(db, worker.key)
    if run is None or content is None:
        return None
    try:
        asked = _KeptJob.model_validate_json(content)
    except ValidationError:
        raise ConfigError(
            f"what its run has asked for as {worker.step} was kept by an agent of another version, "
            "and this one cannot read it"
        ) from None
    return Step(run=run, asked=asked, deployment=worker.deployment)
