"""Install Slurm from Debian's packages where it is missing, without starting any service."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster_process import ClusterError

_POLICY = Path("/usr/sbin/policy-rc.d")
_SLURM = {
    "munged": "munge",
    "munge": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
}
_ACCOUNTING = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "sacctmgr": "slurm-client"}
_REST = {"slurmrestd": "slurmrestd"}
# No package that needs it depends on it; where there is none of that name, another has the plugin.
_REST_PLUGIN, _REST_PLUGIN_PACKAGE = "auth_jwt.so", "slurm-wlm-jwt-plugin"
_DEBIAN_PLUGINS = "lib/*-linux-gnu/slurm-wlm"
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find_program(name: str) -> str | None:
    """Return the path of a program, also from the sbin directories."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")


def missing_packages(*, accounting: bool, restd: bool = False, oci_runtime: str = "") -> list[str]:
    """Return the packages whose programs are not installed."""
    programs = {
        **_SLURM,
        **(_ACCOUNTING if accounting else {}),
        **(_REST if restd else {}),
        # Packages of runtimes are named like their programs.
        **({oci_runtime: oci_runtime} if oci_runtime else {}),
    }
    missing = {package for name, package in programs.items() if not find_program(name)}
    if restd and _lacks_rest_plugin():
        missing.add(_REST_PLUGIN_PACKAGE)
    return sorted(missing)


def _lacks_rest_plugin() -> bool:
    """Whether Debian's Slurm, which is here or is to be installed, cannot read tokens."""
    directories = list(Path("/usr").glob(_DEBIAN_PLUGINS))
    if any((directory / _REST_PLUGIN).exists() for directory in directories):
        return False
    return bool(directories) or not find_program("slurmctld")


def install(packages: list[str], *, say: Callable[[str], None]) -> None:
    """Install packages by apt-get; raises ClusterError on other systems and when apt fails."""
    if not shutil.which("apt-get"):
        raise ClusterError(
            f"{', '.join(packages)}: not installed, and there is no apt-get here."
            " Install Slurm and munge by your system's means and run this again."
        )
    say(f"installing {', '.join(packages)}")
    with _no_services():
        _apt("update")
        known = [name for name in packages if name != _REST_PLUGIN_PACKAGE or is_known(name)]
        _apt("install", "-y", "--no-install-recommends", *known)


def is_known(package: str, *options: str) -> bool:
    """Whether apt, which has these options, has a package of that name to install."""
    asked = ["apt-cache", *options, "show", package]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _apt(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["apt-get", "-q", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        ending = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ClusterError(f"apt-get {' '.join(arguments)} failed:\n{ending}")


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Forbid package scripts to start services (Debian policy-rc.d(8): exit code 101)."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
