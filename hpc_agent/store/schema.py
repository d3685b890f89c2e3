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


@MIGRATIONS()
def workers_and_jobs(db: Database) -> None:
    """Part what the agent wants running from what the scheduler has: one table became two.

    SQLite before 3.35 drops no columns (RHEL 9 has 3.34), so the tables are made anew. Children go
    before their parent: dropping ``jobs`` first would delete their rows as well. The job of a
    worker that has told its end may be in the queue still, until the worker is concluded.
    """
    for statement in (
        """CREATE TABLE workers (
            key TEXT PRIMARY KEY, kind TEXT NOT NULL, phase TEXT NOT NULL,
            deployment TEXT NOT NULL, location TEXT, run_id TEXT, job_name TEXT,
            request_id TEXT, created_at REAL NOT NULL,
            submitting_since REAL, not_before REAL NOT NULL DEFAULT 0,
            waits_for TEXT NOT NULL DEFAULT '',
            placement TEXT NOT NULL DEFAULT 'job', pack_key TEXT,
            pack_options TEXT NOT NULL DEFAULT '', attempt INTEGER NOT NULL DEFAULT 1,
            overrides TEXT NOT NULL DEFAULT '', settings TEXT NOT NULL DEFAULT '',
            likeness TEXT, array_key TEXT, array_index INTEGER,
            current_job INTEGER, is_claimed INTEGER NOT NULL DEFAULT 0,
            started_at REAL, ended_at REAL, outcome TEXT, exit_code INTEGER, signal INTEGER,
            message TEXT NOT NULL DEFAULT '', cpu_seconds REAL, max_rss_kb INTEGER,
            terminate_at REAL, concluded_at REAL, measured_at REAL)""",
        """INSERT INTO workers (
            key, kind, phase, deployment, location, run_id, job_name, request_id, created_at,
            submitting_since, not_before, waits_for, placement, pack_key, pack_options, attempt,
            overrides, settings, likeness, array_key, array_index, is_claimed, started_at, ended_at,
            outcome, exit_code, signal, message, cpu_seconds, max_rss_kb, terminate_at,
            concluded_at, measured_at)
          SELECT key, kind, phase, deployment, location, run_id, job_name, request_id, created_at,
            submitting_since, not_before,
            CASE WHEN phase IN ('intent', 'submitting') OR job_id IS NULL THEN reason ELSE '' END,
            placement, pack_key, pack_options, attempt, overrides, settings, likeness, array_key,
            array_index, phase = 'running', started_at, ended_at,
            CASE WHEN phase = 'ended' THEN state END, exit_code, signal, message, cpu_seconds,
            max_rss_kb, terminate_at, concluded_at, measured_at
          FROM jobs ORDER BY rowid""",
        """CREATE TABLE scheduler_jobs (
            id INTEGER PRIMARY KEY,
            worker_key TEXT NOT NULL REFERENCES workers (key) ON DELETE CASCADE,
            job_id TEXT NOT NULL, submitted_at REAL NOT NULL, submit_time REAL,
            name TEXT NOT NULL DEFAULT '', state TEXT NOT NULL DEFAULT 'UNKNOWN',
            reason TEXT NOT NULL DEFAULT '', partition TEXT NOT NULL DEFAULT '',
            nodes TEXT NOT NULL DEFAULT '', started_at REAL, ended_at REAL, deadline_at REAL,
            expected_start REAL, restart_count INTEGER NOT NULL DEFAULT 0, exit_code INTEGER,
            signal INTEGER, absent_seconds REAL NOT NULL DEFAULT 0, cancelled_at REAL,
            is_over INTEGER NOT NULL DEFAULT 0, position INTEGER, position_among INTEGER,
            position_partition TEXT NOT NULL DEFAULT '')""",
        """INSERT INTO scheduler_jobs (
            worker_key, job_id, submitted_at, state, reason, partition, nodes, started_at, ended_at,
            deadline_at, expected_start, restart_count, exit_code, signal, cancelled_at, is_over,
            position, position_among, position_partition)
          SELECT key, job_id, coalesce(submitted_at, created_at), state, reason, partition, nodes,
            started_at, ended_at, deadline_at, expected_start, restart_count, exit_code, signal,
            cancelled_at, concluded_at IS NOT NULL OR phase NOT IN ('queued', 'running', 'ended'),
            position, position_among, position_partition
          FROM jobs WHERE job_id IS NOT NULL AND pack_key IS NULL ORDER BY rowid""",
        """CREATE TABLE worker_history (
            id INTEGER PRIMARY KEY, key TEXT NOT NULL REFERENCES workers (key) ON DELETE CASCADE,
            at REAL NOT NULL, phase TEXT NOT NULL, state TEXT NOT NULL,
            reason TEXT NOT NULL, source TEXT NOT NULL)""",
        "INSERT INTO worker_history SELECT id, key, at, phase, state, reason, source "
        "FROM job_states",
        """CREATE TABLE servers (
            key TEXT PRIMARY KEY REFERENCES workers (key) ON DELETE CASCADE,
            deployment TEXT NOT NULL, location TEXT NOT NULL, version TEXT NOT NULL,
            deploy_data TEXT NOT NULL, status TEXT NOT NULL, error TEXT,
            created_at REAL NOT NULL, ready_at REAL)""",
        "INSERT INTO servers SELECT key, deployment, location, version, deploy_data, status, "
        "error, created_at, ready_at FROM code_servers",
        "DROP TABLE job_states",
        "DROP TABLE code_servers",
        "DROP TABLE jobs",
        "ALTER TABLE servers RENAME TO code_servers",
        "ALTER TABLE scheduler_jobs RENAME TO jobs",
        "CREATE INDEX jobs_worker ON jobs (worker_key)",
        """UPDATE workers SET current_job = (
            SELECT id FROM jobs WHERE worker_key = coalesce(workers.pack_key, workers.key))""",
        # What a loop asks again and again is found by an index over live rows alone.
        "CREATE INDEX workers_open_phase ON workers (phase) WHERE concluded_at IS NULL",
        "CREATE INDEX workers_open_kind ON workers (kind, phase) WHERE concluded_at IS NULL",
        "CREATE INDEX workers_open_run ON workers (run_id) WHERE concluded_at IS NULL",
        "CREATE INDEX workers_intents ON workers (likeness, created_at, not_before, pack_key) "
        "WHERE phase = 'intent'",
        "CREATE INDEX workers_due ON workers (not_before) WHERE phase = 'intent'",
        "CREATE INDEX workers_unsure ON workers (submitting_since) WHERE phase = 'submitting'",
        "CREATE INDEX workers_ending ON workers (terminate_at) "
        "WHERE terminate_at IS NOT NULL AND concluded_at IS NULL",
        "CREATE INDEX workers_to_measure ON workers (ended_at) WHERE measured_at IS NULL",
        "CREATE INDEX workers_concluded ON workers (concluded_at) WHERE concluded_at IS NOT NULL",
        "CREATE INDEX workers_run ON workers (run_id)",
        "CREATE INDEX workers_location ON workers (location, created_at)",
        "CREATE INDEX workers_created ON workers (created_at)",
        "CREATE INDEX workers_request ON workers (request_id) WHERE request_id IS NOT NULL",
        "CREATE INDEX workers_pack ON workers (pack_key, phase) "
        "WHERE pack_key IS NOT NULL AND concluded_at IS NULL",
        "CREATE INDEX workers_array ON workers (array_key) WHERE array_key IS NOT NULL",
        "CREATE INDEX jobs_id ON jobs (job_id)",
        "CREATE INDEX jobs_live ON jobs (worker_key) WHERE NOT is_over",
        "CREATE INDEX worker_history_key ON worker_history (key)",
        "CREATE INDEX code_servers_location ON code_servers (deployment, location, created_at)",
        "CREATE INDEX code_servers_live ON code_servers (created_at) WHERE status != 'retired'",
        "ALTER TABLE inbox ADD COLUMN worker_key TEXT",
        "UPDATE inbox SET worker_key = (SELECT key FROM workers "
        "WHERE workers.request_id = inbox.request_id AND workers.concluded_at IS NULL) "
        "WHERE answered_at IS NULL",
        "DROP INDEX inbox_open",
        "CREATE INDEX inbox_open ON inbox (received_at) "
        "WHERE answered_at IS NULL AND worker_key IS NULL",
        "CREATE INDEX inbox_answered ON inbox (answered_at) WHERE answered_at IS NOT NULL",
    ):
        db.execute(statement)


@MIGRATIONS()
def node_faults(db: Database) -> None:
    """Nodes on which jobs failed one after the other, without the job's own fault."""
    db.execute(
        "CREATE TABLE node_faults (node TEXT PRIMARY KEY, count INTEGER NOT NULL, "
        "last_at REAL NOT NULL, reason TEXT NOT NULL)"
    )


@MIGRATIONS()
def outgoing(db: Database) -> None:
    """Since when a message is set aside, for how long it was answered with errors; streams."""
    for statement in (
        "ALTER TABLE outbox ADD COLUMN refused_at REAL",
        "ALTER TABLE outbox ADD COLUMN doubted REAL NOT NULL DEFAULT 0",
        "ALTER TABLE outbox ADD COLUMN trouble TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX outbox_streams ON outbox (order_key, id) WHERE refused IS NULL",
        "CREATE INDEX outbox_refused ON outbox (refused_at) WHERE refused IS NOT NULL",
        "UPDATE outbox SET refused_at = created_at WHERE refused IS NOT NULL",
    ):
        db.execute(statement)


@MIGRATIONS()
def looks(db: Database) -> None:
    """What a look asks of all live jobs is in an index: it reads no row of them."""
    for statement in (
        "CREATE INDEX jobs_tracked ON jobs (job_id, submitted_at, state, started_at) "
        "WHERE NOT is_over",
        "DROP INDEX inbox_open",
        "CREATE INDEX inbox_open ON inbox (received_at, api, request_id) "
        "WHERE answered_at IS NULL AND worker_key IS NULL",
    ):
        db.execute(statement)


@MIGRATIONS()
def defs_state_owners(db: Database) -> None:
    """Which location the state of state-backed definitions belongs to."""
    db.execute(
        "CREATE TABLE defs_state_owners (deployment TEXT NOT NULL, key TEXT NOT NULL, "
        "location TEXT NOT NULL, PRIMARY KEY (deployment, key))"
    )


@MIGRATIONS()
def commands(db: Database) -> None:
    """What operators ask a running agent to do, and the code locations whose runs wait for them."""
    for statement in (
        "CREATE TABLE commands (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, "
        "made_at REAL NOT NULL, begun_at REAL, outcome TEXT, failed INTEGER NOT NULL DEFAULT 0)",
        "CREATE INDEX commands_open ON commands (id) WHERE begun_at IS NULL",
        "CREATE TABLE pauses (location TEXT NOT NULL, deployment TEXT NOT NULL, "
        "since REAL NOT NULL, PRIMARY KEY (location, deployment))",
    ):
        db.execute(statement)


@MIGRATIONS()
def job_usage(db: Database) -> None:
    """What jobs have used, for reports."""
    db.execute(
        "CREATE TABLE job_usage (key TEXT PRIMARY KEY REFERENCES workers (key) ON DELETE CASCADE, "
        "figures TEXT NOT NULL, assets TEXT NOT NULL)"
    )


@MIGRATIONS()
def steps(db: Database) -> None:
    """Jobs that runs ask for themselves: the name of each within its run, and what was asked."""
    for statement in (
        "ALTER TABLE workers ADD COLUMN step TEXT",
        "ALTER TABLE workers ADD COLUMN step_attempt INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX workers_step ON workers (run_id, step, step_attempt, attempt) "
        "WHERE step IS NOT NULL",
        # Who follows the steps of a run asks for what came after a number: none may come again,
        # also when the newest rows were removed.
        """CREATE TABLE numbered_history (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            key TEXT NOT NULL REFERENCES workers (key) ON DELETE CASCADE,
            at REAL NOT NULL, phase TEXT NOT NULL, state TEXT NOT NULL,
            reason TEXT NOT NULL, source TEXT NOT NULL)""",
        "INSERT INTO numbered_history SELECT id, key, at, phase, state, reason, source "
        "FROM worker_history",
        "DROP TABLE worker_history",
        "ALTER TABLE numbered_history RENAME TO worker_history",
        "CREATE INDEX worker_history_key ON worker_history (key)",
        "CREATE TABLE step_requests (key TEXT PRIMARY KEY REFERENCES workers (key) "
        "ON DELETE CASCADE, content TEXT NOT NULL)",
    ):
        db.execute(statement)


@MIGRATIONS()
def pools(db: Database) -> None:
    """Runs and steps that live in allocations of pools, what warms these, why they came."""
    for statement in (
        "ALTER TABLE workers ADD COLUMN pool TEXT",
        "ALTER TABLE workers ADD COLUMN pool_node INTEGER",
        "ALTER TABLE workers ADD COLUMN is_leaving INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX workers_pool ON workers (pool, kind, created_at) WHERE pool IS NOT NULL",
        "CREATE INDEX workers_pool_waiting ON workers (pool, created_at) "
        "WHERE phase = 'intent' AND placement = 'pool'",
        "CREATE TABLE pool_templates (pool TEXT NOT NULL, deployment TEXT NOT NULL, "
        "location TEXT NOT NULL, content TEXT NOT NULL, used_at REAL NOT NULL, "
        "PRIMARY KEY (pool, deployment, location))",
        "CREATE TABLE pool_decisions (id INTEGER PRIMARY KEY, pool TEXT NOT NULL, "
        "at REAL NOT NULL, words TEXT NOT NULL)",
        "CREATE INDEX pool_decisions_pool ON pool_decisions (pool, id)",
        "CREATE TABLE pool_supervisors (key TEXT NOT NULL REFERENCES workers (key) "
        "ON DELETE CASCADE, node INTEGER NOT NULL, hostname TEXT NOT NULL, slots INTEGER NOT NULL, "
        "templates TEXT NOT NULL, PRIMARY KEY (key, node))",
        "CREATE TABLE pool_stops (pool TEXT PRIMARY KEY, since REAL NOT NULL, reason TEXT)",
    ):
        db.execute(statement)


@MIGRATIONS()
def allocations_made_of(db: Database) -> None:
    """What an allocation of a pool was started with: it goes when that is no more so."""
    db.execute("ALTER TABLE workers ADD COLUMN made_of TEXT NOT NULL DEFAULT ''")


@MIGRATIONS()
def asked_by(db: Database) -> None:
    """Which job has asked for another one: nobody waits for that any more once it is over."""
    for statement in (
        "ALTER TABLE step_requests ADD COLUMN asked_by TEXT",
        "CREATE INDEX step_requests_asked_by ON step_requests (asked_by)",
    ):
        db.execute(statement)
