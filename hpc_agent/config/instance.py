"""The Dagster instance of user code: what its jobs print, where they store, how they log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, field_validator

from hpc_agent.config.section import OwnDirectory, Section


class ComputeLogs(Section):
    """Upload of what steps print to the control plane; ``max_mb`` of each stream (MiB)."""

    enabled: bool = True
    upload_interval_seconds: Annotated[int, Field(ge=1)] = 3
    max_mb: Annotated[int, Field(ge=1, le=4095)] = 1024


class Artifacts(Section):
    """What ops and assets hand on by Dagster's default IO manager: files that all nodes see."""

    directory: OwnDirectory | None = None
    keep_days: Annotated[int, Field(ge=1)] | None = None

    @field_validator("directory")
    @classmethod
    def _is_absolute(cls, directory: Path | None) -> Path | None:
        if directory is not None and not directory.is_absolute():
            raise ValueError("must be an absolute path on the file system that the nodes share")
        return directory


class PythonLogs(Section):
    """``python_logs`` of dagster.yaml, by the same names; they reach code servers and runs."""

    managed_python_loggers: list[str] = []
    python_log_level: Literal["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"] | None = None
    dagster_handler_config: dict[Literal["handlers", "formatters", "filters"], Any] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What is set, as dagster.yaml has it."""
        return self.model_dump(exclude_defaults=True)


def directory_name(name: str) -> str:
    """Return the name of a deployment or code location as that of a directory, one for each."""
    quoted = quote(name, safe=" ")
    return quoted.replace(".", "%2E") if quoted.strip(".") == "" else quoted
