"""Who a job token belongs to, and what its job reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints

from hpc_agent.jobs.exit_record import Claim

TOKEN_HEADER = "Dagster-Cloud-Api-Token"  # noqa: S105  (a header's name)
DEPLOYMENT_HEADER = "Dagster-Cloud-Deployment"
SCOPE_HEADER = "Dagster-Cloud-Scope"
RESTART_HEADER = "X-Hpc-Restart"
IDEMPOTENCY_HEADER = "Idempotency-Key"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIdentity:
    """A job as the relay knows it; ``run_id`` is None for code servers.

    ``restart_count`` is that of its last start: earlier ones (X-Hpc-Restart) write nothing more.
    One that ``is_over`` reports its end, and may do nothing else.
    """

    key: str
    kind: Literal["run_worker", "code_server"]
    deployment: str
    run_id: str | None
    location: str
    restart_count: int = 0
    is_over: bool = False

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


def _claim(content: object) -> Claim | None:
    return Claim.parse(content) if isinstance(content, dict) else None


_HostName = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
_SlurmJobId = Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9_.+-]*$")]
_Count = Annotated[int, Field(ge=0, lt=1 << 31)]


class JobReport(BaseModel):
    """What a node program reports of its job; ``exit`` is the exit record (architecture.md).

    User code has the token too and can send one: ``exit`` is for ExitRecord.parse alone, and
    ``claimed_by``, which comes with "duplicate", is None where it says nothing.
    """

    model_config = ConfigDict(strict=True)

    event: Literal["started", "ready", "exited", "duplicate"]
    hostname: _HostName = ""
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
