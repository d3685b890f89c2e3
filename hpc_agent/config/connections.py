"""Where work comes from and how the agent is reached: control plane, queues, relay."""

from __future__ import annotations

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, IPvAnyNetwork, field_validator, model_validator

from hpc_agent.config.section import Certificates, ExistingFile, Seconds, Section

# docs.dagster.io, "Dagster+ IP addresses": its snapshots and logs are in buckets of S3, whose
# addresses have the bucket before the service and, in all but the oldest ones, its region behind.
STORAGE_OF_DAGSTER_PLUS = ["*.s3.amazonaws.com", "*.s3.*.amazonaws.com"]
_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})
_LABEL = r"[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?"
_HOST = re.compile(rf"{_LABEL}([.]{_LABEL})*(:[0-9]{{1,5}})?")


class ControlPlane(Section):
    """Where the control plane is and how to reach it.

    ``storage_hosts`` is where uploads may go beside the control plane itself: hosts or host:port,
    ``*.`` at the beginning for any labels, ``*`` elsewhere for a part of one.
    """

    url: str
    deployments: list[str] = ["prod"]
    branch_deployments: bool = False
    token_file: ExistingFile | None = None
    token_command: tuple[str, ...] = ()
    ca_bundle: Certificates | None = None
    proxy: str | None = None
    storage_hosts: list[str] = STORAGE_OF_DAGSTER_PLUS
    timeout_seconds: Seconds = 60
    long_poll_seconds: Annotated[float, Field(ge=0, le=300)] = 30
    set_aside_after_seconds: Seconds = 3600

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        is_here = parts.scheme == "http" and parts.hostname in _THIS_MACHINE
        if not parts.hostname or not (parts.scheme == "https" or is_here):
            raise ValueError("must start with https:// (http:// only to this machine)")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must be an address alone, without user, query or fragment")
        return url.rstrip("/")

    @field_validator("storage_hosts")
    @classmethod
    def _are_hosts(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not _HOST.fullmatch(host.lower()):
                raise ValueError(f"{host!r} is no host: write storage.example.org, or with :PORT")
        return hosts

    @model_validator(mode="after")
    def _has_one_source_of_tokens(self) -> Self:
        if self.token_file is not None and self.token_command:
            raise ValueError("set token_file or token_command, not both")
        return self

    @model_validator(mode="after")
    def _serves_something(self) -> Self:
        if not self.deployments and not self.branch_deployments:
            raise ValueError("deployments may be empty only with branch_deployments: true")
        return self


class AgentQueues(Section):
    """Which agent queues this agent takes work from."""

    include_default_queue: bool = True
    additional_queues: list[str] = []

    @property
    def names(self) -> list[str | None]:
        """The queues as the agent API has them: None stands for the default queue."""
        return [*self.additional_queues, *([None] if self.include_default_queue else [])]

    @model_validator(mode="after")
    def _is_a_queue(self) -> Self:
        if not self.names:
            raise ValueError("without the default queue, additional_queues must name one")
        return self


class AgentMetrics(Section):
    """Whether heartbeats carry the agent's own use of CPU, memory and requests."""

    enabled: bool = False


class Relay(Section):
    """The listener that jobs on compute nodes dial."""

    bind: str = "0.0.0.0"  # noqa: S104 - compute nodes must reach it; every request needs a job token
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    advertise: list[str] = []
    allow: list[IPvAnyNetwork] = []
    spool_max_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30
