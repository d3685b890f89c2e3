"""Facts about the machine that the agent runs on."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterable
from pathlib import Path

from hpc_agent.account import Account
from hpc_agent.config import AgentConfig
from hpc_agent.config.token import read_token
from hpc_agent.doctor.control_groups import lowest_cpus, lowest_memory
from hpc_agent.doctor.facts import DirectoryFacts, HostFacts, TemplateFacts
from hpc_agent.errors import HpcAgentError
from hpc_agent.inspection.scripts import check_templates
from hpc_agent.private_directories import weakness
from hpc_agent.service.ways import installed
from hpc_agent.store.filesystem import NETWORK_TYPES, filesystem_type_of

_SCRIPTS = Path("~/.config/hpc-agent")  # where `service install` puts those of cron and Slurm
# logind.conf(5), the most important first: of files of the same name only the first counts.
_LOGIND_PLACES = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd")
# A commented line of the packaged file says what was chosen when systemd was built.
_KILL = re.compile(r"^\s*(#?)\s*KillUserProcesses\s*=\s*(\w+)", re.MULTILINE)


def gather_host(config: AgentConfig, root: Path = Path("/")) -> HostFacts:
    """Look at directories, limits and systemd. Blocking calls: for a thread.

    ``root`` is where the machine's own files are: those of systemd and of control groups.
    """
    has_systemd = (root / "run/systemd/system").is_dir()
    user = Account.here().name
    return HostFacts(
        home=_directory(config.home),
        work_dir=None if config.has_files_elsewhere else _directory(config.work_dir),
        has_systemd=has_systemd,
        lingers=(root / "var/lib/systemd/linger" / user).exists() if has_systemd else None,
        kill_user_processes=kills_user_processes(_logind_texts(root)) if has_systemd else None,
        services=[way.value for way in installed(_SCRIPTS.expanduser(), root=root)],
        cpu_seconds=_limit(resource.RLIMIT_CPU),
        processes=_limit(resource.RLIMIT_NPROC),
        open_files=_limit(resource.RLIMIT_NOFILE, is_raised=True),
        cgroup_memory=lowest_memory(root),
        cgroup_cpus=lowest_cpus(root),
        token_error=_token_error(config),
    )


def gather_templates(config: AgentConfig) -> TemplateFacts:
    """Check the templates of jobs. Blocking calls: for a thread."""
    return TemplateFacts(
        errors=[
            f"{finding.template}: {finding.check}: {finding.message}"
            for finding in check_templates(config)
            # What sbatch says depends on the options too, and has a check of its own.
            if finding.outcome == "failed" and not finding.check.startswith("sbatch")
        ]
    )


def kills_user_processes(texts: Iterable[str]) -> bool | None:
    """Read logind.conf(5) and its drop-ins, later ones win; None when nothing is said."""
    default: bool | None = None
    chosen: bool | None = None
    for text in texts:
        for comment, value in _KILL.findall(text):
            yes = value.lower() in {"yes", "true", "1", "on"}
            default, chosen = (yes, chosen) if comment else (default, yes)
    return default if chosen is None else chosen


def _directory(path: Path) -> DirectoryFacts:
    """Look at a directory, or at where it would be made."""
    there = next(place for place in (path, *path.parents) if place.exists())
    status = there.stat()
    exists = there == path
    filesystem = filesystem_type_of(there)
    room = os.statvfs(there)
    return DirectoryFacts(
        path=str(path),
        filesystem=filesystem,
        is_shared=filesystem in NETWORK_TYPES,
        free_bytes=room.f_bavail * room.f_frsize,
        free_files=room.f_favail if room.f_files else None,
        mode=status.st_mode & 0o777 if exists else 0o700,
        is_own=not exists or status.st_uid == os.geteuid(),
        weakness=weakness(path),
    )


def _logind_texts(root: Path) -> list[str]:
    """Return logind.conf and its drop-ins in the order in which they are read."""
    places = [root / place for place in _LOGIND_PLACES]
    main = [place / "logind.conf" for place in places]
    drop_ins: dict[str, Path] = {}
    for place in reversed(places):
        drop_ins |= {file.name: file for file in (place / "logind.conf.d").glob("*.conf")}
    files = [
        *[file for file in main if file.exists()][:1],
        *[drop_ins[name] for name in sorted(drop_ins)],
    ]
    return [file.read_text() for file in files if os.access(file, os.R_OK)]


def _limit(which: int, *, is_raised: bool = False) -> int | None:
    """Return a limit of the agent, which may raise it to the hard one; None for none."""
    soft, hard = resource.getrlimit(which)
    limit = hard if is_raised else soft
    return None if limit == resource.RLIM_INFINITY else limit


def _token_error(config: AgentConfig) -> str | None:
    try:
        read_token(config)
    except HpcAgentError as error:
        return str(error)
    return None
