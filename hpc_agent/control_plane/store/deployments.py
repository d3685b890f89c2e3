"""Deployments: full ones, which an admin makes, and branch deployments, which come and go."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.locations import DEFAULT_DEPLOYMENT
from hpc_agent.control_plane.store.requests import RequestState
from hpc_agent.control_plane.store.schema import (
    agents,
    bump,
    code_servers,
    deployments,
    keep_others_out,
    locations,
    requests,
)
from hpc_agent.errors import ConfigError

MAX_NAME_CHARACTERS = 64

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SLUG_CHARACTERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment; ``repository``, ``branch`` and ``commit_hash`` are those of a branch."""

    name: str
    deployment_id: int
    is_branch: bool
    created_at: float
    repository: str | None = None
    branch: str | None = None
    commit_hash: str | None = None


class Deployments:
    """All deployments of this control plane; there is always ``prod``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Deployment]:
        query = sa.select(deployments).order_by("is_branch", "name")
        with self._database.read() as connection:
            return [_deployment(row) for row in connection.execute(query).mappings()]

    def get(self, name: str) -> Deployment | None:
        return next((found for found in self.all() if found.name == name), None)

    def create(self, name: str, *, branch: bool = False) -> Deployment:
        """Make an empty deployment. Raises ConfigError when the name is taken or unusable."""
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARACTERS:
            raise ConfigError(
                f"{name!r} cannot name a deployment: use letters, digits, - and _, "
                f"at most {MAX_NAME_CHARACTERS}"
            )
        fresh = _fresh(name, is_branch=branch)
        with self._database.write() as connection:
            keep_others_out(connection, "workspace")
            if _exists(connection, name):
                raise ConfigError(f"deployment {name!r} exists already")
            _insert(connection, fresh)
            bump(connection, "workspace")
        return fresh

    def create_or_update_branch(self, repository: str, branch: str, commit_hash: str) -> Deployment:
        """Make or renew the deployment of a git branch."""
        name = branch_deployment_name(repository, branch)
        with self._database.write() as connection:
            keep_others_out(connection, "workspace")
            if not _exists(connection, name):
                _insert(connection, _fresh(name, is_branch=True))
            changes = {"repository": repository, "branch": branch, "commit_hash": commit_hash}
            connection.execute(
                sa.update(deployments).where(deployments.c.name == name).values(**changes)
            )
            row = connection.execute(
                sa.select(deployments).where(deployments.c.name == name)
            ).mappings()
            found = _deployment(row.one())
            bump(connection, "workspace")
        return found

    def delete(self, name: str) -> None:
        """Remove a deployment and its locations; the history of its runs stays.

        Raises ConfigError when there is none, or when it is ``prod``.
        """
        if name == DEFAULT_DEPLOYMENT:
            raise ConfigError(
                f"deployment {name!r} cannot be deleted: remove its locations instead"
            )
        with self._database.write() as connection:
            keep_others_out(connection, "workspace")
            if not _exists(connection, name):
                raise ConfigError(f"there is no deployment {name!r}: see `deployment list`")
            for table in (locations, code_servers, agents):
                connection.execute(sa.delete(table).where(table.c.deployment == name))
            connection.execute(
                sa.update(requests)
                .where(
                    requests.c.deployment == name,
                    requests.c.state.in_([RequestState.QUEUED, RequestState.LEASED]),
                )
                .values(state=RequestState.WITHDRAWN, answered_at=time.time())
            )
            connection.execute(sa.delete(deployments).where(deployments.c.name == name))
            bump(connection, "workspace")


def branch_deployment_name(repository: str, branch: str) -> str:
    """Name the deployment of a git branch: readable, and the same each time.

    Dagster+ takes a hash; here the name is what tells its locations apart in the UI.
    """
    slug = re.sub(r"[^A-Za-z0-9]+", "-", branch)[:_SLUG_CHARACTERS].strip("-").lower()
    digest = hashlib.sha256(f"{repository}\0{branch}".encode()).hexdigest()[:8]
    return f"{slug}-{digest}" if slug else digest


def _fresh(name: str, *, is_branch: bool) -> Deployment:
    # GraphQL's Int has 32 bits; never used twice, so that nobody deletes a namesake by its id.
    number = 1 + secrets.randbelow(2**31 - 1)
    return Deployment(name=name, deployment_id=number, is_branch=is_branch, created_at=time.time())


def _insert(connection: sa.Connection, fresh: Deployment) -> None:
    values = {**asdict(fresh), "is_branch": int(fresh.is_branch)}
    connection.execute(sa.insert(deployments).values(values))


def _exists(connection: sa.Connection, name: str) -> bool:
    query = sa.select(deployments.c.name).where(deployments.c.name == name)
    return connection.scalar(query) is not None


def _deployment(row: sa.RowMapping) -> Deployment:
    return Deployment(**{**row, "is_branch": bool(row["is_branch"])})
