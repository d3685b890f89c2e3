"""DAGSTER_HOME of the control plane: which file lies where, and what a fresh one looks like."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.control_plane.database_url import chosen_url, storage_yaml, url_in
from hpc_agent.errors import ConfigError
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import write_private

SOCKET_PATH_LIMIT = 100
"""Bytes of a unix socket's path; the kernel refuses more than 107 (unix(7))."""

TEN_YEARS_SECONDS = 10 * 365 * 24 * 3600

# A run may wait in the Slurm queue for days. Dagster's run monitoring would fail it after
# start_timeout_seconds, and 0 does not switch that off: the monitor then raises "Unexpected run
# status" for each starting run (dagster/_daemon/monitoring/run_monitoring.py). Monitoring stays on
# for the sake of run timeouts, of cancellations whose agent is gone, and of the slots of pools that
# a run worker held when it died: only it frees them (dagster/_daemon/monitoring/concurrency.py).
# Without run_retries, dagster/max_retries would be a tag like any other.
DAGSTER_YAML = f"""\
telemetry:
  enabled: false

nux:
  enabled: false

# The queue is Slurm's, and its limits are the site's: by Dagster's default the eleventh run would
# wait here while ten wait there. A launch waits for the agent's answer, up to a second, so launches
# must not wait for each other. While the gateway does not answer, runs go back into the queue:
# without retries the daemon marks them as failed. The coordinator is the stock one, which tells the
# daemon of a run: it would look each second alone.
run_coordinator:
  module: hpc_agent.control_plane.run_coordinator
  class: RingingRunCoordinator
  config:
    dequeue_interval_seconds: 1
    dequeue_use_threads: true
    dequeue_num_workers: 32
    max_concurrent_runs: -1
    max_user_code_failure_retries: 100000
    user_code_failure_retry_delay: 10

# The stock launcher, without the tenth of a second of computing that it takes for each run.
run_launcher:
  module: hpc_agent.control_plane.run_launcher
  class: FaceRunLauncher

run_monitoring:
  enabled: true
  start_timeout_seconds: {TEN_YEARS_SECONDS}
  cancel_timeout_seconds: 900
  free_slots_after_run_end_seconds: 60

run_retries:
  enabled: true
  max_retries: 0

# Each run that a tick asks for takes a question to its code server, one after the other without
# submit workers.
schedules:
  use_threads: true
  num_workers: 8
  num_submit_workers: 8

sensors:
  use_threads: true
  num_workers: 8
  num_submit_workers: 8
"""


WORKSPACE_HEADER = (
    "# Written by hpc-agent control-plane: deploy locations with "
    "`hpc-agent control-plane deploy`.\n"
)


@dataclass(frozen=True, slots=True)
class Home:
    """Paths inside one control plane's directory, and where its tables are.

    ``chosen_database`` is a PostgreSQL URL that goes before what dagster.yaml says.
    """

    root: Path
    chosen_database: str | None = None

    @property
    def dagster_yaml(self) -> Path:
        return self.root / "dagster.yaml"

    @property
    def workspace_yaml(self) -> Path:
        return self.root / "workspace.yaml"

    @property
    def updates_json(self) -> Path:
        """Which locations have a newer version on its way, for the webserver; see updates.py."""
        return self.root / "updates.json"

    @property
    def database_url(self) -> str:
        """The gateway's tables are where Dagster's are. Raises ConfigError."""
        chosen = self.chosen_database or url_in(self.dagster_yaml)
        return chosen or f"sqlite:///{self.root / 'gateway.db'}"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def logs(self) -> Path:
        """Not ``logs``: dagster-webserver empties that for its telemetry."""
        return self.root / "log"

    @property
    def audit_log(self) -> Path:
        """Who did what, see audit/."""
        return self.root / "audit.log"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def running_json(self) -> Path:
        """Addresses of the running control plane; absent while it is down."""
        return self.root / "control-plane.json"

    @property
    def ui_yaml(self) -> Path:
        """Who is let into the UI, see door/config.py; may be absent."""
        return self.root / "ui.yaml"

    @property
    def listen_yaml(self) -> Path:
        """Where it listens, see listening.py; may be absent."""
        return self.root / "listen.yaml"

    @property
    def webserver_socket(self) -> Path:
        """Where the stock webserver listens: for the door and the gateway."""
        return self._socket("webserver.sock")

    def socket(self, location_name: str) -> Path:
        """Return where the face of a location listens: stable, and short enough for bind(2)."""
        return self._socket(hashlib.sha256(location_name.encode()).hexdigest()[:16] + ".sock")

    def _socket(self, name: str) -> Path:
        path = self.root / "s" / name
        if len(os.fsencode(path)) < SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"hpc-agent-{os.getuid()}-{digest}" / name


def resolve_home(option: Path | None, database_url: str | None = None) -> Home:
    """Return the directory named by --home or DAGSTER_HOME. Raises ConfigError when neither is.

    A directory without dagster.yaml gets one, with the storage that ``database_url`` or the
    environment names.
    """
    chosen = option or (Path(value) if (value := os.environ.get("DAGSTER_HOME")) else None)
    if chosen is None:
        raise ConfigError(
            "no directory for the control plane: give --home DIR or set DAGSTER_HOME; "
            "it holds the configuration, the databases and the logs"
        )
    home = Home(chosen.expanduser().absolute(), chosen_url(database_url, os.environ))
    prepare_home(home, storage=storage_yaml(database_url, os.environ))
    return home


def prepare_home(home: Home, *, storage: str = "") -> None:
    """Make the directory and its dagster.yaml where they do not exist yet, for this user alone.

    Raises ConfigError, UnsafePathError when others may have put something there.
    """
    try:
        private_directory(home.root)
        for directory in (home.snapshots, home.logs, home.tls):
            private_directory(directory)
    except OSError as error:
        raise ConfigError(f"cannot make {error.filename}: {error.strerror}") from error
    _refuse_foreign(home.workspace_yaml)
    if not home.dagster_yaml.exists():
        write_private(home.dagster_yaml, DAGSTER_YAML + storage, durable=True)
    _shut(home.dagster_yaml)


def _refuse_foreign(workspace_yaml: Path) -> None:
    """A workspace that somebody else has written would be lost: it is that of another Dagster."""
    if not workspace_yaml.exists():
        return
    with workspace_yaml.open(errors="replace") as file:
        if not file.readline().startswith(WORKSPACE_HEADER[:37]):
            raise ConfigError(
                f"{workspace_yaml} was not written by hpc-agent: this is the home of another "
                "Dagster, whose workspace would be overwritten. Give --home a directory of its own"
            )


def _shut(path: Path) -> None:
    """Let nobody else read a file of ours that may hold the database's password.

    One that root put there, or a link to it, is root's business.
    """
    status = path.stat()
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        path.chmod(0o600)


def prepare_socket(path: Path) -> None:
    """Make the directory of a socket; it must belong to us and admit nobody else.

    Raises UnsafePathError: a shorter --home needs none outside of it.
    """
    private_directory(path.parent)
    path.unlink(missing_ok=True)
