"""Facts about the machine that the agent runs on."""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpc_agent.agent.rendered import check_templates
from hpc_agent.config import AgentConfig
from hpc_agent.config.token import read_token
from hpc_agent.doctor.facts import DirectoryFacts, HostFacts
from hpc_agent.errors import HpcAgentError
from hpc_agent.service import UNIT_NAME, unit_directory
from hpc_agent.store.filesystem import NETWORK_TYPES, filesystem_type_of

_CGROUPS = Path("/sys/fs/cgroup")
_LOGIND = Path("/etc/systemd/logind.conf")
# A commented line of the packaged file says what was chosen when systemd was built.
_KILL = re.compile(r"^\s*(#?)\s*KillUserProcesses\s*=\s*(\w+)", re.MULTILINE)


def gather_host(config: AgentConfig) -> HostFacts:
    """Look at directories, limits and systemd. Blocking calls: for a thread."""
    has_systemd = Path("/run/systemd/system").is_dir()
    user = pwd.getpwuid(os.getuid()).pw_name
    groups = list(_control_groups(Path("/proc/self/cgroup").read_text(), _CGROUPS))
    return HostFacts(
        home=_directory(config.home),
        work_dir=_directory(config.work_dir),
        has_systemd=has_systemd,
        lingers=(Path("/var/lib/systemd/linger") / user).exists() if has_systemd else None,
        kill_user_processes=kills_user_processes(_logind_texts()) if has_systemd else None,
        is_installed=(unit_directory() / UNIT_NAME).exists(),
        cpu_seconds=_limit(resource.RLIMIT_CPU),
        processes=_limit(resource.RLIMIT_NPROC),
        open_files=_limit(resource.RLIMIT_NOFILE),
        cgroup_memory=lowest_memory(groups),
        cgroup_cpus=lowest_cpus(groups),
        token_error=_token_error(config),
        template_errors=_template_errors(config),
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


def lowest_memory(groups: Iterable[Path]) -> int | None:
    """Return the lowest memory.max of control groups (cgroup v2), in bytes."""
    limits = [_words(group / "memory.max")[:1] for group in groups]
    return min((int(words[0]) for words in limits if words and words[0].isdigit()), default=None)


def lowest_cpus(groups: Iterable[Path]) -> float | None:
    """Return the lowest cpu.max of control groups (cgroup v2), in CPUs."""
    limits = [_words(group / "cpu.max") for group in groups]
    numbers = [words for words in limits if len(words) == 2 and words[0].isdigit()]
    return min((int(quota) / int(period) for quota, period in numbers), default=None)


def _control_groups(text: str, root: Path) -> Iterator[Path]:
    """Return the control groups of a process, from /proc/self/cgroup (cgroups(7)), inmost first."""
    name = next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)
    if name is None:
        return
    group = root / name.lstrip("/")
    yield group
    yield from (parent for parent in group.parents if parent.is_relative_to(root))


def _directory(path: Path) -> DirectoryFacts:
    """Look at a directory, or at where it would be made."""
    there = next(place for place in (path, *path.parents) if place.exists())
    status = there.stat()
    exists = there == path
    filesystem = filesystem_type_of(there)
    return DirectoryFacts(
        path=str(path),
        filesystem=filesystem,
        is_shared=filesystem in NETWORK_TYPES,
        free_bytes=shutil.disk_usage(there).free,
        mode=status.st_mode & 0o777 if exists else 0o700,
        is_own=not exists or status.st_uid == os.getuid(),
    )


def _logind_texts() -> list[str]:
    files = [_LOGIND, *sorted(Path("/etc/systemd/logind.conf.d").glob("*.conf"))]
    return [file.read_text() for file in files if os.access(file, os.R_OK)]


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _token_error(config: AgentConfig) -> str | None:
    try:
        read_token(config)
    except HpcAgentError as error:
        return str(error)
    return None


def _template_errors(config: AgentConfig) -> list[str]:
    return [
        f"{finding.template}: {finding.check}: {finding.message}"
        for finding in check_templates(config)
        # What sbatch says depends on the options too, and has a check of its own.
        if finding.outcome == "failed" and not finding.check.startswith("sbatch")
    ]
