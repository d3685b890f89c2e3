"""Whose a work directory is: one agent's, since its jobs look there for the relay to talk to.

A second agent would replace relay.json, and the first one's healthy runs would be refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_agent.errors import ConfigError, LeaseHeldError
from hpc_agent.hostile_files import UnfitFileError
from hpc_agent.jobs.directory import RELAY_FILE, WorkDirectory
from hpc_agent.jobs.disk_trouble import told_of
from hpc_agent.relay.certificate import certificate_in

log = logging.getLogger(__name__)

OWNER_FILE = "owner.json"
TAKE_OVER = "--take-over-work-dir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The agent that has a work directory: its id is that of its home, the host may change."""

    agent_id: str
    host: str
    home: str

    @classmethod
    def parse(cls, content: object) -> Owner | None:
        """Read ``owner.json``; None for what names no agent."""
        if not isinstance(content, dict) or not isinstance(content.get("agent_id"), str):
            return None
        return cls(
            agent_id=content["agent_id"],
            host=str(content.get("host", "?")),
            home=str(content.get("home", "?")),
        )

    def to_json(self, now: float) -> str:
        """Return ``owner.json``."""
        return json.dumps({"version": 1, **asdict(self), "since": now}, indent=1) + "\n"


def claim_work_directory(
    work: WorkDirectory, agent_id: str, *, home: Path, take_over: bool = False
) -> None:
    """Note in the work directory that it is this agent's.

    Raises ConfigError when it is another's, unless this one is told to ``take_over``, and
    FilesUnavailableError. Where nothing is noted, as before there were notes, it is free unless
    ``relay.json`` leads to another agent's relay.
    """
    me = Owner(agent_id=agent_id, host=socket.gethostname(), home=str(home))
    with told_of(work.path):
        try:
            _claim(work, me, home=home, take_over=take_over)
        except UnfitFileError as error:
            raise ConfigError(f"work_dir: {error}; {_way_out(work)}") from error


def check_owner(work: WorkDirectory, agent_id: str) -> None:
    """See that the work directory is this agent's still.

    Raises LeaseHeldError when another one has taken it over, and FilesUnavailableError.
    """
    with told_of(work.path):
        owner = _owner(work)
    if owner is not None and owner.agent_id != agent_id:
        raise LeaseHeldError(
            f"work_dir: {work.path} was taken over by another agent: {owner.agent_id}, with its "
            f"home {owner.home} on {owner.host}"
        )


def _claim(work: WorkDirectory, me: Owner, *, home: Path, take_over: bool) -> None:
    files, path = work.files, work.path / OWNER_FILE
    if take_over:
        log.warning("work_dir: %s is taken over from %s", work.path, _owner(work) or "nobody")
        files.write(path, me.to_json(time.time()), durable=True)
        return
    if OWNER_FILE not in files.names(work.path):
        if not _is_relay_ours(work, home):
            raise ConfigError(
                f"work_dir: {work.path} is used by another agent: its relay.json leads to a relay "
                f"that is not the one of {home}. {_way_out(work)}"
            )
        with contextlib.suppress(FileExistsError):  # another agent starts as well
            files.create(path, me.to_json(time.time()))
    owner = _owner(work)
    if owner is None:
        raise ConfigError(f"work_dir: {path} does not say whose {work.path} is; {_way_out(work)}")
    if owner.agent_id != me.agent_id:
        raise ConfigError(
            f"work_dir: {work.path} belongs to another agent: {owner.agent_id}, with its home "
            f"{owner.home} on {owner.host}. {_way_out(work)}"
        )
    if owner != me:
        files.write(path, me.to_json(time.time()), durable=True)


def _way_out(work: WorkDirectory) -> str:
    return (
        "Two agents cannot share one, since jobs find their agent by it: give this agent a "
        "work_dir of its own. When the other agent's home is lost for good, start once with "
        f"`hpc-agent start {TAKE_OVER}`: jobs of its that still run are refused from then on"
    )


def _owner(work: WorkDirectory) -> Owner | None:
    return Owner.parse(_content(work, OWNER_FILE))


def _is_relay_ours(work: WorkDirectory, home: Path) -> bool:
    """Whether the relay that jobs are led to has our certificate; where none is told, it may be."""
    told = _content(work, RELAY_FILE)
    if not isinstance(told, dict) or "certificate" not in told:
        return True
    try:
        return bool(told["certificate"] == certificate_in(home).pem)
    except FileNotFoundError:
        return False


def _content(work: WorkDirectory, name: str) -> Any:
    try:
        return json.loads(work.files.read(work.path / name))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
