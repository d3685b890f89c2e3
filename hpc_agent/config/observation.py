"""What operators see of the agent: its log, its metrics, its traces."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from hpc_agent.config.section import Section, WrittenFile
from hpc_agent.journal.configuration import JournalOptions
from hpc_agent.journal.files import Rotation
from hpc_agent.metrics.address import LocalAddress


class Logging(Section):
    """The agent's own log; without ``file`` it goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    file: WrittenFile | None = None
    max_bytes: Annotated[int, Field(ge=1 << 16)] = 16 << 20
    keep: Annotated[int, Field(ge=1, le=1000)] = 4

    @property
    def journal(self) -> JournalOptions:
        """The same in the words of the journal."""
        rotation = Rotation(max_bytes=self.max_bytes, keep=self.keep)
        return JournalOptions(
            level=self.level, format=self.format, file=self.file, rotation=rotation
        )


class Metrics(Section):
    """Where Prometheus reads metrics; without ``listen`` there are none."""

    listen: str | None = None

    @field_validator("listen")
    @classmethod
    def _is_local(cls, listen: str | None) -> str | None:
        if listen is not None:
            LocalAddress.parse(listen)
        return listen

    @property
    def address(self) -> LocalAddress | None:
        """The address in its parts."""
        return None if self.listen is None else LocalAddress.parse(self.listen)


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an address that starts with http:// or https://")
    return text


WebAddress = Annotated[str, AfterValidator(_web_address)]


class Traces(Section):
    """Which collector spans go to; without ``endpoint`` OpenTelemetry's own variables say so."""

    endpoint: WebAddress | None = None
