"""The one error tree.

    HpcAgentError                     everything we raise on purpose
    ├── ConfigError                   agent.yaml, environment, command line: exit code 2
    │   ├── NoPartitionError            no partition takes a job that names none
    │   ├── UnknownDeploymentError      the control plane has no such deployment
    │   └── UnsafePathError             what must be ours alone is not: a directory, a file
    ├── TemplateError                 an sbatch template cannot be rendered
    ├── StoreError                    the state database
    │   ├── LeaseHeldError            another agent runs with this home directory
    │   └── UnreadableMessageError    a message that waits to go out cannot be read
    ├── FilesUnavailableError         the work directory cannot be used now             (retry)
    ├── SchedulerError                a Slurm command or the local scheduler
    │   ├── SchedulerUnavailableError   controller away or too busy: nothing is known   (retry)
    │   │   └── SchedulerUnreadableError    it answered, and its answer cannot be read
    │   ├── SchedulerLimitError         a submit limit is reached: back-pressure        (retry)
    │   ├── SubmitAmbiguousError        sbatch may or may not have made a job: search first
    │   ├── SubmitRefusedError          sbatch said no, in Slurm's own words
    │   └── JobNotFoundError            the controller does not know this job (any more)
    ├── ControlPlaneError             the agent API
    │   ├── ControlPlaneUnavailableError  network, 5xx, 429, GraphQL errors, maintenance  (retry)
    │   │   └── WebserverUnreachableError     nothing was sent to the self-hosted webserver
    │   ├── ControlPlaneAuthError         token refused: keep trying, start no work     (retry)
    │   └── ControlPlaneRefusedError      the request itself is wrong
    │       ├── ControlPlaneStatusError       … said by an HTTP status
    │       └── NoDirectUploadsError          the control plane takes no direct uploads
    └── CodeServerError               a code server
        ├── CodeServerUnavailableError    not up (yet), or its tunnel is down           (retry)
        └── CodeLocationLoadError         user code does not load; carries its traceback

Errors of third parties are translated at one boundary each: ``slurm/``, ``dagster_plus/client.py``,
``grpc/client.py``, ``store/``, ``jobs/disk_trouble.py``. ``retryable`` says whether the same call
may succeed later.
"""

from __future__ import annotations

from typing import ClassVar


class HpcAgentError(Exception):
    """Base of every error that hpc-agent raises on purpose."""

    retryable: ClassVar[bool] = False


class UsageError(HpcAgentError):
    """An argument of a command means nothing."""


class ConfigError(HpcAgentError):
    """A setting is wrong: the message says what, where and what to do."""


class NoPartitionError(ConfigError):
    """No partition takes a job that names none: the message says why, of each."""


class UnsafePathError(ConfigError):
    """What must be ours alone is not, a directory or a file: the message says what to do."""


class TemplateError(HpcAgentError):
    """A template cannot be rendered with the values of this job."""


class StoreError(HpcAgentError):
    """The state database cannot be used."""


class LeaseHeldError(StoreError):
    """Another live agent holds the lease on this home directory."""


class FilesUnavailableError(HpcAgentError):
    """The work directory is full, read-only, stale or away: nothing in it was done or learned."""

    retryable = True


class UnreadableMessageError(StoreError):
    """A message that waits to go out is no message: it will never be sent."""


class SchedulerError(HpcAgentError):
    """A call to the scheduler failed."""


class SchedulerUnavailableError(SchedulerError):
    """The controller did not answer; no job's state may be concluded from it."""

    retryable = True


class SchedulerUnreadableError(SchedulerUnavailableError):
    """The answer cannot be read: as good as none, the message holds its text."""


class SchedulerLimitError(SchedulerError):
    """A submit limit (association, QOS, MaxJobCount) is reached; wait and submit again."""

    retryable = True


class SubmitAmbiguousError(SchedulerError):
    """sbatch ended without telling whether it made a job.

    ``unknown_words``: it did answer, in words that nobody knows. They are a refusal when a search
    that had time finds no job.
    """

    def __init__(self, message: str, *, unknown_words: bool = False) -> None:
        super().__init__(message)
        self.unknown_words = unknown_words


class SubmitRefusedError(SchedulerError):
    """sbatch refused the job; the message holds Slurm's own words."""


class JobNotFoundError(SchedulerError):
    """The controller does not know the job: it never existed or was purged."""


class ControlPlaneError(HpcAgentError):
    """A call to the agent API failed."""


class ControlPlaneUnavailableError(ControlPlaneError):
    """The control plane cannot be reached or asks to come back later."""

    retryable = True


class ControlPlaneAuthError(ControlPlaneError):
    """The control plane refused the agent token."""

    retryable = True


class ControlPlaneRefusedError(ControlPlaneError):
    """The control plane understood the request and refused it."""


class CodeServerError(HpcAgentError):
    """A code server could not do what was asked."""


class CodeServerUnavailableError(CodeServerError):
    """The code server is not up, or its tunnel is down."""

    retryable = True


class CodeServerTimeoutError(CodeServerUnavailableError):
    """A call was not answered within its time limit; it may go on there."""

    retryable = False


class CodeServerDiedError(CodeServerError):
    """The code server ended by itself with a call in its hands; the message says how."""


class CodeLocationLoadError(CodeServerError):
    """User code does not load; ``serialized_error`` is Dagster's own error JSON."""

    def __init__(self, message: str, serialized_error: str) -> None:
        super().__init__(message)
        self.serialized_error = serialized_error
