"""Gauges of files that both programs have: room on the disk, and the end of a certificate."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from hpc_agent.metrics.meter import Reading
from hpc_agent.metrics.metric import Metric


def readings_of_files(
    directory: Path, certificate: Path, free: Metric, expiry: Metric
) -> Iterator[Reading]:
    """Yield what can be read; what cannot is left out, and an alert sees that it is absent."""
    with contextlib.suppress(OSError):
        yield Reading(free, _free_bytes(directory))
    with contextlib.suppress(OSError, ValueError):
        content = x509.load_pem_x509_certificate(certificate.read_bytes())
        yield Reading(expiry, content.not_valid_after_utc.timestamp())


def _free_bytes(directory: Path) -> int:
    """Return what is left to who is not root (statvfs(3), f_bavail)."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
