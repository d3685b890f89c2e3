"""A real PostgreSQL for tests: the one HPC_AGENT_TEST_POSTGRES_URL names, else one of our own.

Our own comes from Debian's packages and is gone with the tests: it listens on a free port of
127.0.0.1, keeps its data in a temporary directory, and dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

VARIABLE = "HPC_AGENT_TEST_POSTGRES_URL"
USER = "hpc_agent"
START_SECONDS = 60.0

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
}
"""Tests throw the data away, and open many connections."""


class NoPostgresError(Exception):
    """There is no PostgreSQL here; the message says why."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server; its user may create databases."""

    url: str

    def create_database(self, template: str | None = None) -> str:
        """Make a database, empty or a copy of the one at a URL, and return its URL."""
        name = f"hpc_agent_test_{secrets.token_hex(6)}"
        source = f' TEMPLATE "{sa.make_url(template).database}"' if template else ""
        self._execute(f'CREATE DATABASE "{name}"{source}')
        return sa.make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{sa.make_url(url).database}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(
            self.url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole test run."""
    pytest.importorskip("psycopg2", reason="the extra `postgres` is not installed")
    if url := os.environ.get(VARIABLE):
        yield PostgresServer(url)
        return
    try:
        binaries = find_binaries()
    except NoPostgresError as reason:
        pytest.skip(str(reason))
    # Not below pytest's tmp_path, whose parents admit only us: the server is another user's.
    directory = Path(tempfile.mkdtemp(prefix="hpc-pg-"))
    try:
        with running_server(binaries, directory) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def find_binaries() -> Path:
    """Return the directory of initdb and postgres, installed if root can."""
    if found := _newest():
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoPostgresError(
            f"no PostgreSQL here: set {VARIABLE}, or install Debian's package postgresql"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    argv = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "postgresql"]
    result = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    found = _newest()
    if found is None:
        raise NoPostgresError(f"apt-get cannot install postgresql: {result.stderr[-300:]}")
    # The package makes a cluster and may start it; nobody asked for that one.
    drop = ["pg_dropcluster", "--stop", found.parent.name, "main"]
    subprocess.run(drop, capture_output=True, check=False)
    return found


def _newest() -> Path | None:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    return found[-1].parent if found else None


@contextlib.contextmanager
def running_server(binaries: Path, directory: Path) -> Iterator[PostgresServer]:
    """Run a fresh server in a directory, as the user ``postgres`` where we are root."""
    data, password = directory / "data", secrets.token_hex(16)
    (directory / "password").write_text(password)
    if os.geteuid() == 0:
        for path in (directory, directory / "password"):
            shutil.chown(path, "postgres", "postgres")
    initdb = [
        str(binaries / "initdb"), "--pgdata", str(data), "--username", USER, "--no-sync",
        "--auth", "scram-sha-256", "--pwfile", str(directory / "password"), "--locale", "C.UTF-8",
    ]  # fmt: skip
    subprocess.run([*_as_postgres(), *initdb], check=True, capture_output=True, cwd=directory)
    port = _free_port()
    settings = {**SETTINGS, "port": str(port), "unix_socket_directories": str(directory)}
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    with (directory / "postgres.log").open("wb") as log:
        process = subprocess.Popen(
            [*_as_postgres(), str(binaries / "postgres"), "-D", str(data), *options],
            stdout=log, stderr=log, cwd=directory, start_new_session=True,
        )  # fmt: skip
    try:
        server = PostgresServer(f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres")
        _wait_until_it_answers(server, process, directory / "postgres.log")
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # "fast shutdown" in postgres(1)
        process.wait(timeout=60)


def _as_postgres() -> list[str]:
    """Return what a command line starts with: PostgreSQL refuses to run as root."""
    deadly = ["setpriv", "--pdeathsig", "QUIT"]
    if os.geteuid() != 0:
        return deadly
    return [*deadly, "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]


def _wait_until_it_answers(
    server: PostgresServer, process: subprocess.Popen[bytes], log: Path
) -> None:
    engine = sa.create_engine(server.url, poolclass=sa.pool.NullPool)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            engine.connect().close()
        except sa.exc.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL does not start: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
