"""A Debian that has nothing of ours: made by debootstrap once, copied for each use."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

USER = "newcomer"
"""An ordinary user of it, who may call sudo."""

# Its systemd boots on control groups of version 1 as well, which later ones refuse.
_SUITE = "bookworm"
# What the README asks for, what a person on a login node has, and what boots.
_PACKAGES = (
    "ca-certificates", "dbus", "dbus-user-session", "git", "iproute2", "libpam-systemd", "make",
    "procps", "python3", "python3-venv", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
_MIRROR = "http://deb.debian.org/debian"
_SECONDS = 900
# By what this machine reaches package indexes.
_VARIABLES = re.compile(
    r"PIP_(CERT|DEFAULT_TIMEOUT|(EXTRA_)?INDEX_URL|TRUSTED_HOST)|SSL_CERT_(FILE|DIR)"
    r"|(REQUESTS|CURL)_CA_BUNDLE|(HTTPS?|NO)_PROXY|(https?|no)_proxy"
)


class NoMachineError(Exception):
    """No machine can be made here: the message says why."""


def make_root(directory: Path) -> None:
    """Make the root of a machine. Raises NoMachineError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "hpc-agent-tests"
    cache.mkdir(parents=True, exist_ok=True)
    base = cache / f"debian-{_SUITE}"
    with Path(f"{base}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            _bootstrap(base)
    subprocess.run(["cp", "--archive", "--reflink=auto", f"{base}/.", directory], check=True)
    reach_indexes(directory, os.environ)
    # A login that a failed test has left does not hold the shutdown up.
    patient = directory / "etc/systemd/system.conf.d/patience.conf"
    patient.parent.mkdir()
    patient.write_text("[Manager]\nDefaultTimeoutStopSec=10s\n")


def reach_indexes(root: Path, environ: Mapping[str, str]) -> None:
    """Let a machine reach package indexes as this one does: its CAs, pip's settings, variables."""
    certificates = root / "etc/ssl/certs"
    shutil.rmtree(certificates)
    shutil.copytree("/etc/ssl/certs", certificates, ignore_dangling_symlinks=True)
    if Path("/etc/pip.conf").exists():
        shutil.copy("/etc/pip.conf", root / "etc/pip.conf")
    lines = [f'{name}="{text}"\n' for name, text in environ.items() if _VARIABLES.fullmatch(name)]
    (root / "etc/environment").write_text("".join(lines))


def _bootstrap(base: Path) -> None:
    unfinished = Path(f"{base}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    include = f"--include={','.join(_PACKAGES)}"
    mirror = next(_mirrors(), _MIRROR)
    try:
        subprocess.run(
            ["debootstrap", "--variant=minbase", include, _SUITE, str(unfinished), mirror],
            check=True, capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout).strip().splitlines()[-1:]
        raise NoMachineError(f"debootstrap of {mirror} failed: {' '.join(last)}") from error
    root = ["chroot", str(unfinished)]
    subprocess.run([*root, "useradd", "-m", "-s", "/bin/bash", USER], check=True)
    (unfinished / "etc/sudoers.d/user").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    shutil.rmtree(unfinished / "var/cache/apt/archives")
    unfinished.rename(base)


def _mirrors() -> Iterator[str]:
    """Yield where this machine has its own packages from, when it is a Debian."""
    directory = Path("/etc/apt")
    for file in (directory / "sources.list", *sorted(directory.glob("sources.list.d/*"))):
        if file.is_file():
            yield from re.findall(r"^(?:deb|URIs:) (\S+/debian)/?(?:\s|$)", file.read_text(), re.M)
