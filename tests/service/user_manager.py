"""A real `systemd --user` for tests, on machines that were not booted with systemd too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")

# The manager takes over every process of the control group it finds itself in. So it gets a group
# of its own, and sees nothing else: a cgroup namespace and a fresh mount of the unified hierarchy.
# It also refuses to start where /run/systemd/system is missing. Mounts are shared within, as on a
# machine that systemd has booted: credentials are mounted by a child of the manager. What a sandbox
# puts before hidden paths (/run/systemd/inaccessible) is made by the machine's own manager at boot.
ENTER = """
echo $$ > "$1/cgroup.procs" &&
exec unshare --mount --cgroup sh -ec '
    mount --make-rshared /
    mount -t cgroup2 none /sys/fs/cgroup
    mount -t tmpfs none /run
    mkdir -p /run/systemd/system /run/systemd/inaccessible/dir
    (cd /run/systemd/inaccessible && touch reg && mkfifo fifo sock && mknod chr c 0 0 &&
        mknod blk b 0 0 && chmod 0 ./*)
    exec "$0" --user --log-target=console --log-level=info
' "$2"
"""


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = 30) -> None:
    """Poll a condition; fail with ``what`` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def why_not() -> str | None:
    """Return why no user manager can run here, or None."""
    if os.geteuid() != 0:
        return "needs root, to give the manager a control group and namespaces of its own"
    for program in (str(SYSTEMD), "systemctl", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if unified_hierarchy() is None:
        return "no cgroup2 file system is mounted"
    return None


def unified_hierarchy() -> Path | None:
    """Return the directory of this process's own group in the unified hierarchy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, *_ = line.split()
        if kind == "cgroup2":
            groups = Path("/proc/self/cgroup").read_text().splitlines()
            own = next(line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
            return Path(mount_point) / own
    return None


class UserManager:
    """One manager with a home directory below ``directory``."""

    def __init__(self, directory: Path) -> None:
        hierarchy = unified_hierarchy()
        assert hierarchy is not None
        self._group = hierarchy / f"hpc-agent-test-{os.getpid()}"
        self._log = directory / "log"
        runtime = directory / "runtime"
        self.config_home = directory / "config"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_HOME": str(self.config_home),
        }
        runtime.mkdir(mode=0o700)
        self._group.mkdir()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", ENTER, "sh", str(self._group), str(SYSTEMD)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def systemctl(self, *arguments: str) -> str:
        """Run ``systemctl --user`` and return what it printed, whatever its exit status."""
        result = subprocess.run(
            ["systemctl", "--user", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return (result.stdout + result.stderr).strip()

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def is_running(self) -> bool:
        assert self._process.poll() is None, self.log
        # `is-system-running` says "offline" where the machine itself was not booted with systemd.
        return self.systemctl("show", "--value", "--property=SystemState") == "running"

    def close(self) -> None:
        """End the manager and what its units left behind."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=30)
        wait_until(lambda: not self._kill_leftovers(), what="an empty control group")
        for directory in sorted(self._group.rglob("*/"), reverse=True):
            directory.rmdir()
        self._group.rmdir()

    def _kill_leftovers(self) -> list[int]:
        left = [
            int(pid)
            for file in self._group.rglob("cgroup.procs")
            for pid in file.read_text().split()
        ]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left
