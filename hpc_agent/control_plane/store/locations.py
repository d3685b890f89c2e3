"""The code locations of deployments: what shall run, and what the agent uploaded of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.schema import (
    bump,
    code_servers,
    deployments,
    keep_others_out,
    locations,
    versions,
)
from hpc_agent.errors import ConfigError

DEFAULT_DEPLOYMENT = "prod"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A code location; what is serialized is Dagster's own JSON.

    ``manifest`` is the last good upload (DagsterCloudCodeLocationManifest), ``error`` the load
    error of the newest one, ``uploaded_for`` the ``updated_at`` that the newest one was made for.
    """

    deployment: str
    is_branch: bool = False
    name: str
    agent_queue: str | None
    deploy_data: str
    updated_at: float
    uploaded_for: float | None
    manifest: str | None
    error: str | None

    @property
    def face_name(self) -> str:
        """The name in webserver and daemon, where the locations of all deployments are (ADR 5)."""
        if self.deployment == DEFAULT_DEPLOYMENT:
            return self.name
        return f"{self.name}@{self.deployment}"

    @property
    def is_outdated(self) -> bool:
        return self.uploaded_for is None or self.uploaded_for < self.updated_at


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLocation:
    """A location in a deploy; ``deploy_data`` is a serialized CodeLocationDeployData."""

    name: str
    agent_queue: str | None
    deploy_data: str


class Locations:
    """The code locations of all deployments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, deployment: str | None = None) -> list[Location]:
        query = (
            sa.select(locations, deployments.c.is_branch)
            .join_from(locations, deployments, locations.c.deployment == deployments.c.name)
            .order_by(locations.c.deployment, locations.c.name)
        )
        if deployment is not None:
            query = query.where(locations.c.deployment == deployment)
        with self._database.read() as connection:
            return [_location(row) for row in connection.execute(query).mappings()]

    def get(self, deployment: str, name: str) -> Location | None:
        return next((found for found in self.all(deployment) if found.name == name), None)

    def deploy(self, deployment: str, new: Sequence[NewLocation], *, prune: bool = False) -> None:
        """Add or redeploy locations; with ``prune``, remove those that are not among them.

        A location keeps its last good snapshot until the agent uploads the new one. Raises
        ConfigError when there is no such deployment, or a name that cannot be shown.
        """
        now = time.time()
        _check_names(new)
        with self._database.write() as connection:
            keep_others_out(connection, "workspace")
            _check_deployment(connection, deployment)
            known = set(
                connection.scalars(
                    sa.select(locations.c.name).where(locations.c.deployment == deployment)
                )
            )
            for location in new:
                _upsert(connection, deployment, location, now, exists=location.name in known)
            if prune:
                _remove(connection, deployment, known - {location.name for location in new})
            bump(connection, "workspace")

    def redeploy(self, deployment: str, name: str) -> None:
        """Ask for a fresh code server and a fresh snapshot of a location."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(locations).where(_is(deployment, name)).values(updated_at=time.time())
            )
            bump(connection, "workspace")

    def remove(self, deployment: str, name: str) -> bool:
        """Remove a location and tell whether there was one."""
        with self._database.write() as connection:
            removed = _remove(connection, deployment, {name})
            bump(connection, "workspace")
        return removed > 0

    def record_upload(
        self, deployment: str, name: str, *, manifest: str | None, error: str | None,
        uploaded_for: float,
    ) -> None:  # fmt: skip
        """Store what the agent uploaded; a load error leaves the last good manifest in place."""
        values: Mapping[str, object] = {"error": error, "uploaded_for": uploaded_for}
        if manifest is not None:
            values = {**values, "manifest": manifest}
        with self._database.write() as connection:
            connection.execute(sa.update(locations).where(_is(deployment, name)).values(**values))
            bump(connection, "workspace")

    def version(self) -> int:
        """Return a counter that grows with every change that a face must show."""
        return read_version(self._database, "workspace")


def _location(row: sa.RowMapping) -> Location:
    return Location(**{**row, "is_branch": bool(row["is_branch"])})


def read_version(database: Database, name: str) -> int:
    with database.read() as connection:
        query = sa.select(versions.c.value).where(versions.c.name == name)
        return int(connection.scalar(query) or 0)


def _is(deployment: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(locations.c.deployment == deployment, locations.c.name == name)


def _upsert(
    connection: sa.Connection, deployment: str, new: NewLocation, now: float, *, exists: bool
) -> None:
    values = {"agent_queue": new.agent_queue, "deploy_data": new.deploy_data, "updated_at": now}
    if exists:
        connection.execute(sa.update(locations).where(_is(deployment, new.name)).values(**values))
    else:
        connection.execute(
            sa.insert(locations).values(deployment=deployment, name=new.name, **values)
        )


def _remove(connection: sa.Connection, deployment: str, names: set[str]) -> int:
    connection.execute(
        sa.delete(code_servers).where(
            code_servers.c.deployment == deployment, code_servers.c.location.in_(names)
        )
    )
    return connection.execute(
        sa.delete(locations).where(
            locations.c.deployment == deployment, locations.c.name.in_(names)
        )
    ).rowcount


def _check_deployment(connection: sa.Connection, name: str) -> None:
    query = sa.select(deployments.c.name).where(deployments.c.name == name)
    if connection.scalar(query) is None:
        raise ConfigError(
            f"there is no deployment {name!r}: make it with "
            f"`hpc-agent control-plane deployment create {name}`"
        )


def _check_names(new: Sequence[NewLocation]) -> None:
    for location in new:
        if "@" in location.name:
            raise ConfigError(
                f"location {location.name!r}: a name must not contain @, which stands between "
                "location and deployment in the UI"
            )
