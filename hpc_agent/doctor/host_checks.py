"""Judgements about the login node: directories, limits on long-lived processes, systemd."""

from __future__ import annotations

from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import DirectoryFacts, HostFacts, TemplateFacts
from hpc_agent.doctor.finding import Finding, ok, problem, skipped, warning
from hpc_agent.store.filesystem import NETWORK_TYPES

_GIB = 1 << 30
_HOME_BYTES = 1 * _GIB
_WORK_BYTES = 5 * _GIB
_FILES = 10_000
_OPEN_FILES = 1024
_PROCESSES = 128
_MEMORY_BYTES = 512 << 20
_CPUS = 0.5


def judge_home(config: AgentConfig, host: HostFacts) -> Finding:
    """SQLite needs a local disk."""
    home = host.home
    if home.filesystem in NETWORK_TYPES:
        return problem(
            f"home: {home.path} is on {home.filesystem}, where SQLite databases get corrupted",
            "Set `home` to a directory on a local disk, for example under /var/tmp.",
        )
    if not home.is_own:
        return problem(f"home: {home.path} belongs to another user", "Name one of your own.")
    return ok(f"{home.path} is on {home.filesystem}")


def judge_work_dir(config: AgentConfig, host: HostFacts) -> Finding:
    """Compute nodes must see it; only a probe job knows."""
    work = host.work_dir
    if work is None:
        return skipped(f"work_dir: {config.work_dir} is reached by SFTP; a probe job looks at it")
    if not work.is_own:
        return problem(f"work_dir: {work.path} belongs to another user", "Name one of your own.")
    if not work.is_shared and config.scheduler.kind == "slurm":
        return warning(
            f"work_dir: {work.path} is on {work.filesystem}, a file system of this machine alone",
            "Set `work_dir` to a directory that compute nodes see, unless this machine is alone.",
        )
    return ok(f"{work.path} is on {work.filesystem}")


def judge_free_space(config: AgentConfig, host: HostFacts) -> Finding:
    """Events that wait for the control plane, and the output of jobs, need room."""
    for name, directory in _directories(host):
        needed = _HOME_BYTES if name == "home" else _WORK_BYTES
        if directory.free_bytes < needed:
            return warning(
                f"{name}: {_gib(directory)} free on {directory.path}",
                f"Have {needed // _GIB} GiB free, or name another directory.",
            )
        if directory.free_files is not None and directory.free_files < _FILES:
            return warning(
                f"{name}: {directory.path} has room for {directory.free_files} more files",
                f"Have room for {_FILES}, or name another directory: each job has about ten.",
            )
    return ok(", ".join(f"{name} {_gib(each)}" for name, each in _directories(host)) + " free")


def judge_modes(config: AgentConfig, host: HostFacts) -> Finding:
    """Job directories hold tokens; each is private, and so should be what they are in."""
    for name, directory in _directories(host):
        if directory.mode & 0o022:
            return problem(
                f"{name}: others can write to {directory.path} ({directory.mode:o})",
                f"Look whose files are in it, then run `chmod 700 {directory.path}`.",
            )
        if directory.mode & 0o055:
            return warning(
                f"{name}: others can look into {directory.path} ({directory.mode:o})",
                f"Run `chmod 700 {directory.path}`; the agent does so at its start.",
            )
    for name, directory in _directories(host):
        if directory.weakness is not None:
            return warning(
                f"{name}: {directory.path}: {directory.weakness}",
                "Trust them as yourself, or name a directory below your own home.",
            )
    names = " and ".join(name for name, _ in _directories(host))
    return ok(f"{names} are this user's alone")


def _directories(host: HostFacts) -> list[tuple[str, DirectoryFacts]]:
    """Return those of this machine, by their names in agent.yaml."""
    both = (("home", host.home), ("work_dir", host.work_dir))
    return [(name, directory) for name, directory in both if directory is not None]


def judge_token(config: AgentConfig, host: HostFacts) -> Finding:
    """A token that others can read is no secret."""
    if host.token_error is not None:
        return problem(
            host.token_error,
            "Make a token file with mode 0600, or see token_command in `hpc-agent config example`.",
        )
    return ok("there is an agent token, and others cannot read it")


def judge_templates(config: AgentConfig, templates: TemplateFacts) -> Finding:
    """A site's templates must render and be shell."""
    if templates.errors:
        return problem(templates.errors[0], "Mend it; `hpc-agent template check` says more.")
    source = config.templates_dir or "the package's own"
    return ok(f"templates are in order ({source})")


def judge_linger(config: AgentConfig, host: HostFacts) -> Finding:
    """Without lingering a user's service manager ends with the last login."""
    if not host.has_systemd:
        return warning(
            "no systemd here: nothing starts the agent again after a reboot",
            "Start it from whatever supervises processes at your site.",
        )
    if not host.lingers:
        return warning(
            "user services end when you log out",
            "Run `loginctl enable-linger` (some sites reserve that to administrators).",
        )
    return ok("user services go on after logout")


def judge_kill_user_processes(config: AgentConfig, host: HostFacts) -> Finding:
    """logind.conf(5): KillUserProcesses ends nohup, tmux and the like at logout."""
    if host.kill_user_processes:
        return warning(
            "processes are killed at logout (KillUserProcesses=yes in logind.conf)",
            "Run the agent as a service: `hpc-agent service install`, with lingering.",
        )
    return ok("processes may stay after logout")


def judge_service(config: AgentConfig, host: HostFacts) -> Finding:
    """A service comes back by itself."""
    if host.services:
        return ok(f"the agent is kept running by: {', '.join(host.services)}")
    return warning(
        "the agent is not installed as a service",
        "Run `hpc-agent service install` to have it back after a reboot.",
    )


def judge_cpu_limit(config: AgentConfig, host: HostFacts) -> Finding:
    """Many login nodes kill what has used some minutes of CPU (ulimit -t)."""
    if host.cpu_seconds is None:
        return ok("CPU time is not limited")
    # Measured: an idle agent takes 0.2 % of a core, which is 3 minutes a day.
    days = host.cpu_seconds / 180
    return warning(
        f"a process may use {host.cpu_seconds} s of CPU (ulimit -t): an idle agent lives about "
        f"{days:.0f} days",
        "Ask for an exemption, run it where there is no limit, or let a service restart it.",
    )


def judge_process_limits(config: AgentConfig, host: HostFacts) -> Finding:
    """Connections of jobs and code servers are open files."""
    if host.open_files is not None and host.open_files < _OPEN_FILES:
        return warning(
            f"{host.open_files} open files are allowed (ulimit -n)",
            f"Have {_OPEN_FILES} or more: each running job holds a connection.",
        )
    if host.processes is not None and host.processes < _PROCESSES:
        return warning(
            f"{host.processes} processes are allowed (ulimit -u)",
            f"Have {_PROCESSES} or more: Slurm's commands are processes.",
        )
    return ok(f"open files {_limit(host.open_files)}, processes {_limit(host.processes)}")


def judge_memory_limit(config: AgentConfig, host: HostFacts) -> Finding:
    """Sites bound each user's slice on login nodes."""
    limit = host.cgroup_memory
    if limit is not None and limit < _MEMORY_BYTES:
        return warning(
            f"all your processes here may use {limit >> 20} MiB together (control group)",
            "The agent needs about 150 MiB; code servers with placement `login` come on top.",
        )
    return ok(f"memory limit of this session: {f'{limit >> 20} MiB' if limit else 'none'}")


def judge_cpu_quota(config: AgentConfig, host: HostFacts) -> Finding:
    """cpu.max of the user's slice; all processes of the user share it."""
    cpus = host.cgroup_cpus
    if cpus is not None and cpus < _CPUS:
        return warning(
            f"all your processes here may use {cpus:g} of a CPU together (control group)",
            "The agent will be slow with many runs; ask for one CPU.",
        )
    return ok(f"CPUs for this session: {'all' if cpus is None else f'{cpus:g}'}")


def _gib(directory: DirectoryFacts) -> str:
    return f"{directory.free_bytes / _GIB:.1f} GiB"


def _limit(value: int | None) -> str:
    return "unlimited" if value is None else str(value)
