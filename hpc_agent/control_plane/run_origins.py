"""Which code location a run comes from: agents and jobs know plain names only.

In the instance a location of another deployment than ``prod`` is called ``LOCATION@DEPLOYMENT``
(docs/adr/0005-deployments-in-one-instance.md).
"""

from __future__ import annotations

from dagster import DagsterRun
from dagster._core.remote_origin import RegisteredCodeLocationOrigin
from dagster_shared.record import copy


def named(run: DagsterRun, location: str) -> DagsterRun:
    """Return the run as one of the code location ``location``."""
    if run.remote_job_origin is None:
        return run
    origin = RegisteredCodeLocationOrigin(location)
    repository = copy(run.remote_job_origin.repository_origin, code_location_origin=origin)
    return run._replace(remote_job_origin=copy(run.remote_job_origin, repository_origin=repository))


def plain(run: DagsterRun) -> DagsterRun:
    """Return the run with its code location's own name. No such name has an ``@`` in it."""
    origin = run.remote_job_origin
    name = origin.location_name if origin is not None else ""
    return named(run, name.partition("@")[0]) if "@" in name else run
