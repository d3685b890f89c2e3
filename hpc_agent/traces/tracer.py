"""How the parts of a program tell what they have done; by default nobody listens."""

from __future__ import annotations

import logging
import os
from typing import Protocol

from hpc_agent.errors import ConfigError
from hpc_agent.traces.span import Span

log = logging.getLogger(__name__)

# https://opentelemetry.io/docs/specs/otel/protocol/exporter/
VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_MISSING = "traces need OpenTelemetry: pip install 'dagster-hpc-agent[otel]'"


class Tracer(Protocol):
    """Takes in spans; cheap, and safe from any thread."""

    def add(self, span: Span) -> None:
        """Take in a span."""
        ...

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        ...


class Silent:
    """A tracer that forgets everything: traces are off."""

    def add(self, span: Span) -> None:
        """Forget."""

    def close(self) -> None:
        """Do nothing."""


SILENT = Silent()


def tracer_for(endpoint: str | None, *, service: str, instance: str) -> Tracer:
    """Return what sends spans to ``endpoint``, or to where the environment says; else nothing does.

    Raises ConfigError where ``endpoint`` is given and OpenTelemetry is not installed.
    """
    if endpoint is None and not any(os.environ.get(name) for name in VARIABLES):
        return SILENT
    try:
        from hpc_agent.traces.otlp import OtlpTracer
    except ImportError as error:
        if endpoint is not None:
            raise ConfigError(_MISSING) from error
        log.warning("%s is set, but %s", " or ".join(VARIABLES), _MISSING)
        return SILENT
    return OtlpTracer(endpoint, service=service, instance=instance)
