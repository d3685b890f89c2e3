"""One archive with what somebody needs who helps from afar: redacted, limited, and listed."""

from __future__ import annotations

import io
import json
import platform
import sys
import tarfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from hpc_agent import __version__
from hpc_agent.cluster.cluster import files_of
from hpc_agent.config import AgentConfig, read_token
from hpc_agent.doctor.examination import Result
from hpc_agent.doctor.report import rows
from hpc_agent.errors import HpcAgentError
from hpc_agent.inspection.explanation import read_explanation
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.inspection.outgoing import read_outgoing
from hpc_agent.inspection.outputs import STREAMS, last_of
from hpc_agent.inspection.requests import read_requests
from hpc_agent.inspection.status import read_status
from hpc_agent.redaction import redacted, redacted_text
from hpc_agent.store.selection import Selection

# Of each file the last part, and of all of them together.
MOST_OF_A_FILE = 1 << 20
MOST_OF_ALL = 20 << 20
_JOBS = 300
_PACKAGES = ("dagster", "dagster-cloud", "grpcio", "httpx", "pydantic", "sqlite-utils", "uvicorn")
_MODE = 0o600


def write_bundle(
    config: AgentConfig,
    path: Path,
    *,
    runs: Sequence[str],
    results: Sequence[Result],
    most_bytes: int = MOST_OF_ALL,
) -> list[str]:
    """Write the archive and return the names of the files in it.

    ``runs`` are those whose output is wanted too, by any name; else no output of user code is in
    it. Raises HpcAgentError for one that is not known, OSError when the file cannot be written.
    """
    secrets = _secrets(config)
    contents: dict[str, str] = {}
    for name, read in _parts(config, runs, results).items():
        text = _as_text(name, redacted(_read(read), secrets))
        contents[name] = redacted_text(text[-MOST_OF_A_FILE:], secrets)
    for run in runs:
        contents |= {
            name: redacted_text(text, secrets) for name, text in _outputs(config, run).items()
        }
    return _archive(path, contents, most_bytes)


def _parts(
    config: AgentConfig, runs: Sequence[str], results: Sequence[Result]
) -> dict[str, Callable[[], Any]]:
    return {
        "versions.json": _versions,
        "agent.yaml": lambda: config.model_dump(mode="json", exclude_unset=True),
        "doctor.json": lambda: rows(results),
        "status.json": lambda: asdict(read_status(config)),
        "jobs.json": lambda: read_jobs(config, Selection(with_concluded=True, limit=_JOBS)),
        "requests.json": lambda: read_requests(config, limit=_JOBS, everything=True),
        "outgoing.json": lambda: read_outgoing(config.home, _JOBS),
        **{
            f"runs/{run}.json": lambda run=run: asdict(read_explanation(config, run))  # type: ignore[misc]
            for run in runs
        },
    }


def _read(read: Callable[[], Any]) -> Any:
    """A part that cannot be read is told in its place: the others are wanted all the more."""
    try:
        return read()
    except HpcAgentError as error:
        return {"error": str(error)}


def _versions() -> dict[str, Any]:
    packages = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {
        "hpc-agent": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "packages": packages,
        "at": time.time(),
    }


def _secrets(config: AgentConfig) -> Collection[str]:
    with suppress(HpcAgentError):
        return [read_token(config)]
    return []


def _as_text(name: str, value: Any) -> str:
    if name.endswith(".yaml"):
        return yaml.safe_dump(value, sort_keys=False)
    return json.dumps(value, indent=1, default=str)


def _outputs(config: AgentConfig, run: str) -> dict[str, str]:
    found = {}
    with files_of(config) as files:
        for stream in STREAMS:
            data = last_of(config, files, run, stream, MOST_OF_A_FILE)
            found[f"runs/{run}/{stream}.txt"] = data.decode(errors="replace")
    return found


def _archive(path: Path, contents: dict[str, str], most_bytes: int) -> list[str]:
    """What is over the limit is left out and listed as such, the largest first."""
    sizes = {name: len(text.encode()) for name, text in contents.items()}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if sum(sizes.values()) <= most_bytes:
            break
        contents[name] = f"left out: {sizes[name]} bytes"
        sizes[name] = len(contents[name])
    with path.open("xb") as file:
        path.chmod(_MODE)
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in contents.items():
                data = text.encode()
                entry = tarfile.TarInfo(f"hpc-agent-support/{name}")
                entry.size, entry.mode, entry.mtime = len(data), _MODE, int(time.time())
                archive.addfile(entry, io.BytesIO(data))
    return list(contents)
