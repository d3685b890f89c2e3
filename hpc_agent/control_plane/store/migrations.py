"""The schema's history. Append only: a published migration never changes."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

# Plain SQL that SQLite and PostgreSQL both take, without generated keys: dialects differ there.
_V1: Final = (
    """CREATE TABLE tokens (
        token_id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL,
        digest TEXT NOT NULL UNIQUE, created_at DOUBLE PRECISION NOT NULL,
        revoked_at DOUBLE PRECISION)""",
    "CREATE TABLE deployments (name TEXT PRIMARY KEY, created_at DOUBLE PRECISION NOT NULL)",
    """CREATE TABLE locations (
        deployment TEXT NOT NULL, name TEXT NOT NULL, agent_queue TEXT,
        deploy_data TEXT NOT NULL, updated_at DOUBLE PRECISION NOT NULL,
        uploaded_for DOUBLE PRECISION, manifest TEXT, error TEXT,
        PRIMARY KEY (deployment, name))""",
    """CREATE TABLE agents (
        deployment TEXT NOT NULL, agent_id TEXT NOT NULL, token_id TEXT NOT NULL,
        label TEXT, agent_type TEXT, heartbeat_at DOUBLE PRECISION NOT NULL,
        heartbeat TEXT NOT NULL, errors TEXT NOT NULL,
        PRIMARY KEY (deployment, agent_id))""",
    """CREATE TABLE code_servers (
        deployment TEXT NOT NULL, location TEXT NOT NULL, agent_id TEXT NOT NULL,
        status TEXT NOT NULL, message TEXT NOT NULL, heartbeat_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (deployment, location, agent_id))""",
    """CREATE TABLE requests (
        request_id TEXT PRIMARY KEY, deployment TEXT NOT NULL, api TEXT NOT NULL,
        body TEXT NOT NULL, agent_queue TEXT, run_id TEXT, state TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL, expires_at DOUBLE PRECISION,
        lease_owner TEXT, leased_at DOUBLE PRECISION, hand_outs INTEGER NOT NULL,
        answered_at DOUBLE PRECISION, response TEXT)""",
    "CREATE INDEX requests_by_state ON requests (state, created_at)",
    "CREATE INDEX requests_by_run ON requests (run_id)",
    """CREATE TABLE idempotency_keys (
        idempotency_key TEXT PRIMARY KEY, done INTEGER NOT NULL,
        created_at DOUBLE PRECISION NOT NULL)""",
    "CREATE TABLE versions (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "INSERT INTO deployments VALUES ('prod', 0)",
    "INSERT INTO versions VALUES ('workspace', 0)",
    "INSERT INTO versions VALUES ('requests', 0)",
)

MIGRATIONS: Final = (_V1,)


def migrate(connection: sa.Connection) -> None:
    """Bring the schema up to date inside the caller's transaction."""
    connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS migrations (version INTEGER NOT NULL)")
    newest = connection.scalar(sa.text("SELECT max(version) FROM migrations")) or 0
    for version, statements in enumerate(MIGRATIONS, start=1):
        if version <= newest:
            continue
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.execute(
            sa.text("INSERT INTO migrations VALUES (:version)"), {"version": version}
        )
