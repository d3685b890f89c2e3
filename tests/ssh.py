"""A real sshd on the loopback address, with keys and settings of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc_agent.slurm.ssh_connection import SshTarget

_START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Login:
    """What logging in means over there: a shell, and start-up files in a home of their own."""

    shell: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sshd:
    """A running sshd, and what a client needs."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def target(self) -> SshTarget:
        """Where it is, with the key that it takes and the host key that it has."""
        return SshTarget(
            host="127.0.0.1",
            port=self.port,
            user=getpass.getuser(),
            key_file=self.directory / "key",
            known_hosts=self.directory / "known_hosts",
            config_file=self.directory / "no-config",
        )

    def sessions(self) -> int:
        """How many connections there are."""
        return len(self._children())

    def end_sessions(self) -> None:
        """Cut every connection, as a network does; the listener goes on."""
        for pid in self._children():
            os.kill(int(pid), signal.SIGKILL)

    def _children(self) -> list[str]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return children.read_text().split()


@contextmanager
def running_sshd(
    directory: Path,
    environment: Mapping[str, str],
    *,
    more: Sequence[str] = ("Subsystem sftp internal-sftp",),
    login: Login | None = None,
) -> Iterator[Sshd]:
    """Start an sshd whose commands get these variables; ``more``: lines of its configuration.

    Skips the test where there is none, or not the shell of the ``login``.
    """
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd here: install openssh-server")
    directory.mkdir(mode=0o700, exist_ok=True)
    for name in ("key", "host_key"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(argv, check=True)
    shutil.copy(directory / "key.pub", directory / "authorized_keys")
    port = _free_port()
    host_key = (directory / "host_key.pub").read_text().split()[:2]
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(host_key)}\n")
    settings = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {directory}/host_key",
        f"AuthorizedKeysFile {directory}/authorized_keys",
        f"PidFile {directory}/pid",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "StrictModes no",
        "UsePAM no",
        *more,
        # A line of its own would replace the one before.
        "SetEnv " + " ".join(f'{name}="{value}"' for name, value in environment.items()),
    ]
    (directory / "config").write_text("\n".join(settings) + "\n")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (directory / "log").open("wb") as log:
        argv = [program, "-D", "-e", "-f", str(directory / "config")]
        where = [] if login is None else _own_passwd(directory, login)
        process = subprocess.Popen([*where, *argv], stdout=log, stderr=log)
    try:
        _wait_for(port, process, directory / "log")
        yield Sshd(directory=directory, port=port, process=process)
    finally:
        process.terminate()
        process.wait(20)


def _own_passwd(directory: Path, login: Login) -> list[str]:
    """Return what starts a program for which this user has another shell and home."""
    shell = shutil.which(login.shell)
    if shell is None or os.geteuid() != 0:
        pytest.skip(f"needs root and {login.shell}: apt-get install {login.shell}")
    home = directory / "home"
    for name, content in login.files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    me = getpass.getuser()
    lines = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    changed = [[*line[:5], str(home), shell] if line[0] == me else line for line in lines]
    passwd = directory / "passwd"
    passwd.write_text("".join(":".join(line) + "\n" for line in changed))
    bind = 'mount --bind "$0" /etc/passwd && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", bind, str(passwd)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"sshd ended: {log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"sshd does not listen: {log.read_text()}")
