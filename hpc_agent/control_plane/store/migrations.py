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

# Several gateways over one database, and branch deployments.
_V2: Final = (
    "CREATE TABLE sightings (owner TEXT PRIMARY KEY, seen_at DOUBLE PRECISION NOT NULL)",
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE definition_snapshots (sha1 TEXT PRIMARY KEY, content {bytes} NOT NULL)",
    "ALTER TABLE requests ADD COLUMN awaited_until DOUBLE PRECISION",
    "ALTER TABLE requests ADD COLUMN is_branch INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE deployments ADD COLUMN deployment_id INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE deployments ADD COLUMN is_branch INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE deployments ADD COLUMN repository TEXT",
    "ALTER TABLE deployments ADD COLUMN branch TEXT",
    "ALTER TABLE deployments ADD COLUMN commit_hash TEXT",
    """UPDATE deployments SET deployment_id =
        (SELECT count(*) FROM deployments d WHERE d.name <= deployments.name)""",
    "CREATE UNIQUE INDEX deployments_by_id ON deployments (deployment_id)",
)

_V3: Final = (
    """CREATE TABLE artifacts (
        deployment TEXT NOT NULL, key TEXT NOT NULL, content {bytes} NOT NULL,
        created_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (deployment, key))""",
)

_V4: Final = ("ALTER TABLE idempotency_keys ADD COLUMN answer TEXT",)

# The UI's door. Users could do everything before there were roles.
_V5: Final = (
    "ALTER TABLE tokens ADD COLUMN role TEXT",
    "UPDATE tokens SET role = 'admin' WHERE kind = 'user'",
    """CREATE TABLE ui_sessions (
        digest TEXT PRIMARY KEY, token_id TEXT NOT NULL, created_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL)""",
)

# What a code server was started for, and which launches were told that they wait.
_V6: Final = (
    "ALTER TABLE code_servers ADD COLUMN version DOUBLE PRECISION",
    "ALTER TABLE requests ADD COLUMN wait_told_at DOUBLE PRECISION",
)

MIGRATIONS: Final = (_V1, _V2, _V3, _V4, _V5, _V6)


def migrate(connection: sa.Connection) -> None:
    """Bring the schema up to date inside the caller's transaction."""
    connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS migrations (version INTEGER NOT NULL)")
    newest = connection.scalar(sa.text("SELECT max(version) FROM migrations")) or 0
    for version, statements in enumerate(MIGRATIONS, start=1):
        if version <= newest:
            continue
        for statement in statements:
            connection.exec_driver_sql(statement.replace("{bytes}", _bytes_type(connection)))
        connection.execute(
            sa.text("INSERT INTO migrations VALUES (:version)"), {"version": version}
        )


def _bytes_type(connection: sa.Connection) -> str:
    return "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
