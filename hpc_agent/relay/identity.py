"""Who a job token belongs to, and what its job reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints

from hpc_agent.config.access import Operation
from hpc_agent.jobs.exit_record import Claim
from hpc_agent.journal.about import Fields

TOKEN_HEADER = "Dagster-Cloud-Api-Token"  # noqa: S105  (a header's name)
DEPLOYMENT_HEADER = "Dagster-Cloud-Deployment"
SCOPE_HEADER = "Dagster-Cloud-Scope"
RESTART_HEADER = "X-Hpc-Restart"
IDEMPOTENCY_HEADER = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a job may do beyond its own affairs; ``reads_all``: read its whole deployment."""

    reads_all: bool = False
    operations: frozenset[Operation] = frozenset()

    def allows(self, operation: Operation) -> bool:
        """Whether an administrator has opened an operation to it."""
        return operation in self.operations


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIdentity:
    """A job as the relay knows it; ``run_id`` is None for code servers and pools.

    The job of a step is a run worker: it does some of what the run does, and may no more.
    ``restart_count`` is that of its last start: earlier ones (X-Hpc-Restart) write nothing more.
    ``started_from`` are the runs that its run is a re-execution of.
    One that ``is_over`` reports its end, and may do nothing else. A pool's job asks for the pool's
    work, and may do nothing else: what lives in it has tokens of its own.
    """

    key: str
    kind: Literal["run_worker", "code_server", "pool"]
    deployment: str
    run_id: str | None
    location: str
    restart_count: int = 0
    is_over: bool = False
    access: Permissions = Permissions()
    started_from: frozenset[str] = frozenset()
    backfill_id: str | None = None

    @property
    def related_runs(self) -> frozenset[str]:
        """The runs whose data are also its own."""
        return self.started_from | ({self.run_id} if self.run_id is not None else set())

    @property
    def log_fields(self) -> Fields:
        """What lines of the log about it carry."""
        return {
            "run_id": self.run_id,
            "key": self.key,
            "location": self.location,
            "deployment": self.deployment,
        }

    @property
    def stream(self) -> str:
        """Name the sequence of event writes whose order must be kept."""
        return self.run_id or self.key


class JobDirectory(Protocol):
    """Knows the agent's jobs by their tokens."""

    async def identify(self, token: str) -> JobIdentity | None:
        """Return the job of a token, None for a token that is not (or no longer) valid.

        Raises HpcAgentError when that cannot be said now; the node is then told to retry.
        """

    async def location_of_run(self, run_id: str) -> str | None:
        """Return the location of a run that the agent has launched. Raises HpcAgentError."""

    async def state_owner(self, identity: JobIdentity, key: str) -> str:
        """Return the location whose definitions' state a key holds.

        The key of no location yet becomes the asking job's. Raises HpcAgentError.
        """


def _claim(content: object) -> Claim | None:
    return Claim.parse(content) if isinstance(content, dict) else None


HostName = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
_SlurmJobId = Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9_.+-]*$")]
_Count = Annotated[int, Field(ge=0, lt=1 << 31)]


class JobReport(BaseModel):
    """What a node program reports of its job; ``exit`` is the exit record (architecture.md).

    User code has the token too and can send one: ``exit`` is for ExitRecord.parse alone, and
    ``claimed_by``, which comes with "duplicate", is None where it says nothing.
    """

    model_config = ConfigDict(strict=True)

    event: Literal["started", "ready", "exited", "duplicate"]
    hostname: HostName = ""
    slurm_job_id: _SlurmJobId = ""
    restart_count: _Count = 0
    pid: _Count | None = None
    exit: dict[str, Any] | None = None
    claimed_by: Annotated[Claim | None, PlainValidator(_claim)] = None


class ReportAnswer(BaseModel):
    """The answer; ``proceed`` False stops a ``started`` job before it runs anything.

    ``resume``: an earlier attempt has started the run, so that this one goes on with it.
    """

    proceed: bool = True
    resume: bool = False
    reason: str = ""


OnReport = Callable[[JobIdentity, JobReport], Awaitable[ReportAnswer]]
