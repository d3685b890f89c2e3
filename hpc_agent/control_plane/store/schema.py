"""The tables as queries see them; migrations.py makes them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from hpc_agent.control_plane.store.postgresql import notify

metadata = sa.MetaData()


def _table(table_name: str, /, **columns: type[sa.types.TypeEngine[Any]]) -> sa.Table:
    return sa.Table(table_name, metadata, *(sa.Column(key, kind) for key, kind in columns.items()))


tokens = _table(
    "tokens",
    token_id=sa.Text, name=sa.Text, kind=sa.Text, digest=sa.Text,
    created_at=sa.Double, revoked_at=sa.Double, role=sa.Text,
)  # fmt: skip
ui_sessions = _table(
    "ui_sessions", digest=sa.Text, token_id=sa.Text, created_at=sa.Double, expires_at=sa.Double
)
deployments = _table(
    "deployments",
    name=sa.Text, created_at=sa.Double, deployment_id=sa.Integer, is_branch=sa.Integer,
    repository=sa.Text, branch=sa.Text, commit_hash=sa.Text,
)  # fmt: skip
locations = _table(
    "locations",
    deployment=sa.Text, name=sa.Text, agent_queue=sa.Text, deploy_data=sa.Text,
    updated_at=sa.Double, uploaded_for=sa.Double, manifest=sa.Text, error=sa.Text,
)  # fmt: skip
agents = _table(
    "agents",
    deployment=sa.Text, agent_id=sa.Text, token_id=sa.Text, label=sa.Text, agent_type=sa.Text,
    heartbeat_at=sa.Double, heartbeat=sa.Text, errors=sa.Text,
)  # fmt: skip
code_servers = _table(
    "code_servers",
    deployment=sa.Text, location=sa.Text, agent_id=sa.Text, status=sa.Text, message=sa.Text,
    heartbeat_at=sa.Double, version=sa.Double,
)  # fmt: skip
requests = _table(
    "requests",
    request_id=sa.Text, deployment=sa.Text, api=sa.Text, body=sa.Text, agent_queue=sa.Text,
    run_id=sa.Text, state=sa.Text, created_at=sa.Double, expires_at=sa.Double,
    lease_owner=sa.Text, leased_at=sa.Double, hand_outs=sa.Integer, answered_at=sa.Double,
    response=sa.Text, awaited_until=sa.Double, is_branch=sa.Integer,
    wait_told_at=sa.Double,
)  # fmt: skip
idempotency_keys = _table(
    "idempotency_keys",
    idempotency_key=sa.Text, done=sa.Integer, created_at=sa.Double, answer=sa.Text,
)  # fmt: skip
versions = _table("versions", name=sa.Text, value=sa.Integer)
sightings = _table("sightings", owner=sa.Text, seen_at=sa.Double)
settings = _table("settings", name=sa.Text, value=sa.Text)
definition_snapshots = _table("definition_snapshots", sha1=sa.Text, content=sa.LargeBinary)
artifacts = _table(
    "artifacts", deployment=sa.Text, key=sa.Text, content=sa.LargeBinary, created_at=sa.Double
)


def keep_others_out(connection: sa.Connection, name: str) -> None:
    """Let no other transaction change what this version counts, until this one ends.

    In SQLite a write transaction does that by itself.
    """
    connection.execute(sa.select(versions.c.value).where(versions.c.name == name).with_for_update())


def bump(connection: sa.Connection, name: str) -> None:
    """Count a change, so that other processes notice it by reading one row, and tell them."""
    connection.execute(
        sa.update(versions).where(versions.c.name == name).values(value=versions.c.value + 1)
    )
    notify(connection, name)
