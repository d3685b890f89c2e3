"""The secrets of one whole Dagster, and everything on this machine in which one could stand."""

from __future__ import annotations

import base64
import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from hpc_agent.demo.stack import Stack

# Addresses that carry their own permission, as long as they are good: /uploads/PAYLOAD.SIGNATURE.
SIGNED_ADDRESS = re.compile(rb"/(?:uploads|artifacts|_hpc/upload)/[\w=-]{20,}\.[\w=-]{20,}")

_TOKEN_KEY = "SELECT value FROM meta WHERE name = 'token_secret'"
_URL_KEY = "SELECT value FROM settings WHERE name = 'url_key'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret in all spellings, and the files that are made for it."""

    name: str
    spellings: Sequence[bytes]
    files: Sequence[Path] = ()

    def is_in(self, content: bytes) -> bool:
        """Return whether one of the spellings stands there."""
        return any(spelling in content for spelling in self.spellings)


def secrets_of(stack: Stack, user_token: str) -> list[Secret]:
    """Return all secrets of a stack, each with the only places where it may be."""
    agent, plane = stack.config.home, stack.directories.control_plane
    token_file = stack.config.control_plane.token_file
    assert token_file is not None
    keys = {
        "relay's key": agent / "relay-key.pem",
        "control plane's key": plane / "tls" / "server.key",
        "authority's key": plane / "tls" / "ca.key",
    }
    relay = agent / "relay-secret"
    return [
        Secret(name="user's token", spellings=_text(user_token)),
        Secret(name="agent's token", spellings=_text(token_file.read_text()), files=[token_file]),
        *(
            Secret(
                name=f"token of {path.parent.name}", spellings=_text(path.read_text()), files=[path]
            )
            for path in stack.config.work_dir.glob("jobs/*/token")
        ),
        _kept_in(agent / "agent.db", _TOKEN_KEY, "key of the jobs' tokens"),
        _kept_in(plane / "gateway.db", _URL_KEY, "key of upload addresses"),
        Secret(name="relay's secret", spellings=_bytes(relay.read_bytes()), files=[relay]),
        *(
            Secret(name=name, spellings=[path.read_bytes().splitlines()[1]], files=[path])
            for name, path in keys.items()
        ),
    ]


def holders(
    secrets: Iterable[Secret], contents: Iterable[tuple[str, bytes]]
) -> list[tuple[str, str]]:
    """Return which secret stands where, less where it may."""
    known = list(secrets)
    return [
        (secret.name, where)
        for where, content in contents
        for secret in known
        if secret.is_in(content) and Path(where) not in secret.files
    ]


def files_below(*roots: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file, and of each database also what its rows hold."""
    for root in roots:
        for path in root.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            with contextlib.suppress(FileNotFoundError):  # what is temporary goes
                content = path.read_bytes()
                yield str(path), content
                if content.startswith(b"SQLite format 3"):
                    yield str(path), _rows(path)


def command_lines() -> Iterator[tuple[str, bytes]]:
    """Yield the command line of each process of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield str(path), path.read_bytes()


def environments(jobs: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the environment of each process, less the job's own token in those of the job."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            directory = _job_of(process, jobs)
            if directory is not None and _job_of(process.parent(), jobs) is not None:
                token = (directory / "token").read_bytes().strip()
                environment = environment.replace(b"HPC_AGENT_JOB_TOKEN=" + token, b"")
            yield f"/proc/{process.pid}/environ of {process.cmdline()[:4]}", environment


def temporary_directories() -> set[Path]:
    """Return the directories that running jobs have on their nodes."""
    pattern = re.compile(rb"(?:^|\0)HPC_AGENT_TMP=([^\0]+)")
    return {
        Path(found[1].decode())
        for path in Path("/proc").glob("[0-9]*/environ")
        if (found := pattern.search(_content(path)))
    }


def _job_of(process: psutil.Process | None, jobs: Path) -> Path | None:
    """Return the job directory that a process, or one above it, is for."""
    for each in [process, *process.parents()] if process is not None else []:
        for argument in each.cmdline():
            if argument.startswith(f"{jobs}/"):
                return jobs / Path(argument).relative_to(jobs).parts[0]
    return None


def _kept_in(database: Path, query: str, name: str) -> Secret:
    """Return a secret that is a row of a database, in hexadecimal."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        (value,) = opened.execute(query).fetchone()
    log = database.with_name(f"{database.name}-wal")
    return Secret(name=name, spellings=_bytes(bytes.fromhex(value)), files=[database, log])


def _rows(database: Path) -> bytes:
    """Return all text of a database: in its file a long value lies in pieces."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        opened.text_factory = bytes
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
        tables = [name.decode() for (name,) in opened.execute(query)]
        rows = (row for table in tables for row in opened.execute(f'SELECT * FROM "{table}"'))  # noqa: S608
        return b"\n".join(cell for row in rows for cell in row if isinstance(cell, bytes))


def _text(token: str) -> list[bytes]:
    """Return a token as it is, and the part of it that is secret in the usual disguises."""
    secret = token.strip().rpartition(":")[2].encode()
    return [secret, base64.b64encode(token.strip().encode()).rstrip(b"=")[:-1]]


def _bytes(secret: bytes) -> list[bytes]:
    encoded = (base64.b64encode(secret), base64.urlsafe_b64encode(secret))
    return [secret, secret.hex().encode(), *(each.rstrip(b"=") for each in encoded)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def modes_of(secrets: Iterable[Secret]) -> Mapping[str, str]:
    """Return the files made for secrets that others may read, with their modes."""
    return {
        str(path): f"{path.stat().st_mode & 0o777:o}"
        for secret in secrets
        for path in secret.files
        if path.exists() and path.stat().st_mode & 0o077
    }
