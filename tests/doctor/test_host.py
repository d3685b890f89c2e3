"""What is found on the login node: real files, real limits of processes, real mounts."""

from __future__ import annotations

import getpass
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc_agent.config import AgentConfig
from hpc_agent.doctor.checks import CHECKS
from hpc_agent.doctor.control_groups import lowest_cpus, lowest_memory
from hpc_agent.doctor.finding import Finding, Status
from hpc_agent.doctor.host import gather_host
from tests.doctor.site import Site
from tests.doctor.sites import config_of

MIB = 1 << 20


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return config_of({"work_dir": str(tmp_path / "work"), "home": str(tmp_path / "home")})


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine that runs systemd and has nothing else yet."""
    root = tmp_path / "machine"
    (root / "run/systemd/system").mkdir(parents=True)
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def finding(name: str, config: AgentConfig, root: Path) -> Finding:
    """Return what a check says of a machine."""
    check = next(check for check in CHECKS if check.name == name)
    return check.judge(config, gather_host(config, root))


def test_lingering_is_a_file_of_logind(config: AgentConfig, machine: Path) -> None:
    """loginctl enable-linger makes it."""
    assert finding("linger", config, machine).status is Status.WARNING
    write(machine / "var/lib/systemd/linger" / getpass.getuser(), "")
    assert finding("linger", config, machine).status is Status.OK


def test_machine_without_systemd_is_told(config: AgentConfig, tmp_path: Path) -> None:
    """A container, or a system with another init."""
    assert "no systemd" in finding("linger", config, tmp_path / "nothing").fact


def test_logind_kills_by_its_own_file(config: AgentConfig, machine: Path) -> None:
    """The comment of the packaged file is the default that was built in."""
    write(machine / "etc/systemd/logind.conf", "[Login]\n#KillUserProcesses=no\n")
    assert finding("kill-user-processes", config, machine).status is Status.OK
    write(machine / "etc/systemd/logind.conf", "[Login]\n#KillUserProcesses=yes\n")
    assert finding("kill-user-processes", config, machine).status is Status.WARNING


def test_drop_in_of_logind_wins_over_the_file(config: AgentConfig, machine: Path) -> None:
    """In the order of names, wherever they are."""
    write(machine / "usr/lib/systemd/logind.conf", "[Login]\nKillUserProcesses=no\n")
    write(machine / "run/systemd/logind.conf.d/20-a.conf", "[Login]\nKillUserProcesses=yes\n")
    write(machine / "etc/systemd/logind.conf.d/10-b.conf", "[Login]\nKillUserProcesses=no\n")
    assert finding("kill-user-processes", config, machine).status is Status.WARNING


def test_administrators_drop_in_replaces_one_of_the_same_name(
    config: AgentConfig, machine: Path
) -> None:
    """A file in /etc masks that of the package."""
    write(machine / "usr/lib/systemd/logind.conf.d/a.conf", "[Login]\nKillUserProcesses=yes\n")
    write(machine / "etc/systemd/logind.conf.d/a.conf", "[Login]\nKillUserProcesses=no\n")
    assert finding("kill-user-processes", config, machine).status is Status.OK


def test_slice_of_the_user_limits_memory_and_cpus(config: AgentConfig, machine: Path) -> None:
    """Version 2: the lowest limit on the way up counts."""
    write(machine / "proc/self/cgroup", "0::/user.slice/user-1000.slice/session-3.scope\n")
    groups = machine / "sys/fs/cgroup"
    write(groups / "user.slice/user-1000.slice/session-3.scope/memory.max", "max\n")
    write(groups / "user.slice/user-1000.slice/memory.max", f"{256 * MIB}\n")
    write(groups / "user.slice/memory.max", f"{900 * MIB}\n")
    write(groups / "user.slice/cpu.max", "25000 100000\n")
    assert "256 MiB" in finding("memory-limit", config, machine).fact
    assert "0.25 of a CPU" in finding("cpu-quota", config, machine).fact


def test_control_groups_of_version_1_limit_too(config: AgentConfig, machine: Path) -> None:
    """As on Enterprise Linux 8."""
    write(machine / "proc/self/cgroup", "4:memory:/user.slice\n1:cpu,cpuacct:/user.slice\n0::/\n")
    groups = machine / "sys/fs/cgroup"
    write(groups / "memory/memory.limit_in_bytes", f"{(1 << 63) - 4096}\n")
    write(groups / "memory/user.slice/memory.limit_in_bytes", f"{128 * MIB}\n")
    write(groups / "cpu/user.slice/cpu.cfs_quota_us", "40000\n")
    write(groups / "cpu/user.slice/cpu.cfs_period_us", "100000\n")
    assert "128 MiB" in finding("memory-limit", config, machine).fact
    assert "0.4 of a CPU" in finding("cpu-quota", config, machine).fact


def test_no_limit_is_none(machine: Path) -> None:
    """Neither a word nor a huge number is a limit."""
    assert (lowest_memory(machine), lowest_cpus(machine)) == (None, None)
    write(machine / "proc/self/cgroup", "4:memory:/\n1:cpu:/\n0::/\n")
    groups = machine / "sys/fs/cgroup"
    write(groups / "memory/memory.limit_in_bytes", f"{(1 << 63) - 4096}\n")
    write(groups / "cpu/cpu.cfs_quota_us", "-1\n")
    write(groups / "cpu/cpu.cfs_period_us", "100000\n")
    write(groups / "cpu.max", "max 100000\n")
    assert (lowest_memory(machine), lowest_cpus(machine)) == (None, None)


def limited(which: int, value: int) -> Callable[[], None]:
    """Return what sets a limit in a child before it becomes the doctor."""
    return lambda: resource.setrlimit(which, (value, value))


def test_limits_of_the_shell_are_told(tmp_path: Path) -> None:
    """ulimit -t and ulimit -n as a site's profile sets them."""

    def limit() -> None:
        limited(resource.RLIMIT_CPU, 900)()
        limited(resource.RLIMIT_NOFILE, 256)()

    options = ("--only=cpu-limit", "--only=process-limits")
    cpu, files = Site(tmp_path).command(*options, before=limit, exit_code=0)
    assert (cpu["status"], files["status"]) == ("warning", "warning")
    assert "900 s of CPU" in cpu["fact"]
    assert "256 open files" in files["fact"]


@contextmanager
def file_system(directory: Path, options: str) -> Iterator[Path]:
    """Mount a file system of its own on a new directory."""
    directory.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "hpc-agent-test", str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_small_disk_is_told(tmp_path: Path) -> None:
    """A real file system that is too small, first for home, then for work_dir."""
    usual = {"home": str(tmp_path / "home"), "work_dir": str(tmp_path / "work")}
    with file_system(tmp_path / "small", "size=16m") as small:
        for name in usual:
            config = config_of({**usual, name: str(small / "agent")})
            words = finding("free-space", config, Path("/"))
            assert words.fact == f"{name}: 0.0 GiB free on {small}/agent"
            assert words.status is Status.WARNING


def test_disk_that_takes_no_more_files_is_told(tmp_path: Path) -> None:
    """There is room enough; a quota on files looks the same on some file systems."""
    # Sparse: nothing of it is used.
    with file_system(tmp_path / "few", "size=8g,nr_inodes=100") as few:
        config = config_of({"home": str(few / "home"), "work_dir": str(few / "work")})
        words = finding("free-space", config, Path("/"))
    assert words.fact.startswith(f"home: {few}/home has room for 9")
    assert words.status is Status.WARNING


def test_directory_that_somebody_else_can_replace_is_told(tmp_path: Path, machine: Path) -> None:
    """As in a project directory that a group shares: that may be meant so."""
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(0o770)
    work = tmp_path / "group" / "work"
    config = config_of({"work_dir": str(work), "home": str(tmp_path / "home")})
    found = finding("modes", config, machine)
    assert found.status is Status.WARNING
    assert "mode 0770" in found.fact
