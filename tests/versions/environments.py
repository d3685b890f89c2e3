"""Virtual environments with a release of Dagster, made once and kept in a cache directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

_INSTALL_SECONDS = 600


class NoEnvironmentError(Exception):
    """The packages cannot be had here; the message is the installer's own."""


def python_with(release: str) -> Path:
    """Return where the Python of an environment with ``dagster==RELEASE.*`` is or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return cache / "hpc-agent-tests" / f"dagster-{release}-{python}" / "bin" / "python"


def make_environment(release: str) -> Path:
    """Make the environment unless it is there, and return its Python. Raises NoEnvironmentError."""
    python = python_with(release)
    directory = python.parent.parent
    directory.parent.mkdir(parents=True, exist_ok=True)
    ready = directory / ".ready"
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(directory, ignore_errors=True)
            for argv in _commands(directory, release):
                _run(argv)
            ready.touch()
    return python


def _commands(directory: Path, release: str) -> list[list[str]]:
    # What the user's environment needs on the other hybrid agents, and nothing of ours.
    packages = [f"dagster=={release}.*", f"dagster-cloud=={release}.*"]
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    python = str(directory / "bin" / "python")
    if uv is not None:
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(directory)],
            [uv, "pip", "install", "--quiet", "--python", python, *packages],
        ]
    return [
        [sys.executable, "-m", "venv", str(directory)],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
    ]


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise NoEnvironmentError(f"{argv}: not done after {error.timeout} s") from None
    if done.returncode != 0:
        raise NoEnvironmentError(f"{argv}: {done.stderr.strip()[-1000:]}")
