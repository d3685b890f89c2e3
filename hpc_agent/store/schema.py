"""The schema, as migrations that are only ever appended to."""

from __future__ import annotations

from sqlite_utils import Database, Migrations

MIGRATIONS = Migrations("hpc-agent")


@MIGRATIONS()
def first_tables(db: Database) -> None:
    """Requests that came in, jobs and their history, code servers, what is still to be told."""
    for statement in (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """CREATE TABLE lease (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            owner TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
            heartbeat_at REAL NOT NULL)""",
        """CREATE TABLE inbox (
            request_id TEXT PRIMARY KEY, api TEXT NOT NULL, body TEXT NOT NULL,
            deployment TEXT NOT NULL, is_branch_deployment INTEGER NOT NULL,
            received_at REAL NOT NULL, answered_at REAL)""",
        "CREATE INDEX inbox_open ON inbox (received_at) WHERE answered_at IS NULL",
        """CREATE TABLE jobs (
            key TEXT PRIMARY KEY, kind TEXT NOT NULL, phase TEXT NOT NULL,
            deployment TEXT NOT NULL, location TEXT, run_id TEXT, job_name TEXT,
            request_id TEXT, created_at REAL NOT NULL,
            submitting_since REAL, not_before REAL NOT NULL DEFAULT 0,
            job_id TEXT, state TEXT NOT NULL DEFAULT 'UNKNOWN', reason TEXT NOT NULL DEFAULT '',
            partition TEXT NOT NULL DEFAULT '', nodes TEXT NOT NULL DEFAULT '',
            submitted_at REAL, started_at REAL, ended_at REAL, expected_start REAL,
            absent_since REAL, exit_code INTEGER, signal INTEGER,
            message TEXT NOT NULL DEFAULT '', terminate_at REAL, cancelled_at REAL,
            concluded_at REAL)""",
        "CREATE INDEX jobs_phase ON jobs (phase)",
        "CREATE INDEX jobs_run ON jobs (run_id)",
        "CREATE INDEX jobs_open ON jobs (created_at) WHERE concluded_at IS NULL",
        """CREATE TABLE job_states (
            id INTEGER PRIMARY KEY, key TEXT NOT NULL REFERENCES jobs (key) ON DELETE CASCADE,
            at REAL NOT NULL, phase TEXT NOT NULL, state TEXT NOT NULL,
            reason TEXT NOT NULL, source TEXT NOT NULL)""",
        "CREATE INDEX job_states_key ON job_states (key)",
        """CREATE TABLE code_servers (
            key TEXT PRIMARY KEY REFERENCES jobs (key) ON DELETE CASCADE,
            deployment TEXT NOT NULL, location TEXT NOT NULL, version TEXT NOT NULL,
            deploy_data TEXT NOT NULL, status TEXT NOT NULL, error TEXT,
            created_at REAL NOT NULL, ready_at REAL)""",
        "CREATE INDEX code_servers_location ON code_servers (deployment, location)",
        """CREATE TABLE outbox (
            id INTEGER PRIMARY KEY, kind TEXT NOT NULL, deployment TEXT NOT NULL,
            order_key TEXT NOT NULL, idempotency_key TEXT NOT NULL UNIQUE, payload TEXT NOT NULL,
            created_at REAL NOT NULL, refused TEXT)""",
        "CREATE INDEX outbox_open ON outbox (id) WHERE refused IS NULL",
    ):
        db.execute(statement)


@MIGRATIONS()
def time_limits(db: Database) -> None:
    """Until when a job may run, as the scheduler says."""
    db.execute("ALTER TABLE jobs ADD COLUMN deadline_at REAL")


@MIGRATIONS()
def attempts(db: Database) -> None:
    """Later attempts of a run, the launches they repeat, and what jobs have used."""
    for statement in (
        "ALTER TABLE jobs ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE jobs ADD COLUMN restart_count INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN overrides TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE jobs ADD COLUMN cpu_seconds REAL",
        "ALTER TABLE jobs ADD COLUMN max_rss_kb INTEGER",
        "ALTER TABLE jobs ADD COLUMN measured_at REAL",
        "CREATE INDEX jobs_to_measure ON jobs (ended_at) WHERE measured_at IS NULL",
        """CREATE TABLE launches (
            run_id TEXT PRIMARY KEY, deployment TEXT NOT NULL, arguments TEXT NOT NULL)""",
    ):
        db.execute(statement)


@MIGRATIONS()
def placements(db: Database) -> None:
    """Where a job's processes live: in a job of their own, on the login node, or in a pack."""
    for statement in (
        "ALTER TABLE jobs ADD COLUMN placement TEXT NOT NULL DEFAULT 'job'",
        "ALTER TABLE jobs ADD COLUMN pack_key TEXT",
        "ALTER TABLE jobs ADD COLUMN pack_options TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX jobs_pack ON jobs (pack_key) WHERE pack_key IS NOT NULL",
    ):
        db.execute(statement)


@MIGRATIONS()
def arrays(db: Database) -> None:
    """Which jobs are alike, and which task of which job array a job is."""
    for statement in (
        "ALTER TABLE jobs ADD COLUMN likeness TEXT",
        "ALTER TABLE jobs ADD COLUMN array_key TEXT",
        "ALTER TABLE jobs ADD COLUMN array_index INTEGER",
        "CREATE INDEX jobs_array ON jobs (array_key) WHERE array_key IS NOT NULL",
    ):
        db.execute(statement)


@MIGRATIONS()
def settings(db: Database) -> None:
    """With which Slurm options a job was submitted, and which source set each."""
    db.execute("ALTER TABLE jobs ADD COLUMN settings TEXT NOT NULL DEFAULT ''")


@MIGRATIONS()
def positions(db: Database) -> None:
    """Where in the queue of which partition a waiting job is."""
    for statement in (
        "ALTER TABLE jobs ADD COLUMN position INTEGER",
        "ALTER TABLE jobs ADD COLUMN position_among INTEGER",
        "ALTER TABLE jobs ADD COLUMN position_partition TEXT NOT NULL DEFAULT ''",
    ):
        db.execute(statement)
