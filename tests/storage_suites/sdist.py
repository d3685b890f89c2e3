"""The sources of the installed Dagster: only they contain its storage suites."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".storage-suites"
LOCK = ROOT / "requirements-dev.lock"
SUITES = "dagster_tests/storage_tests/utils/event_log_storage.py"
FETCH_SECONDS = 300.0


class NoSdistError(Exception):
    """The sources cannot be had; the message says why."""


def fetched() -> Path:
    """Return the unpacked sdist of the installed release, from the cache or the package index.

    Nothing comes in whose hash is not in the lock. Raises NoSdistError.
    """
    version = importlib.metadata.version("dagster")
    unpacked = CACHE / f"dagster-{version}"
    if not unpacked.exists():
        requirement = locked(LOCK.read_text(), version)
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            _unpack(_download(requirement, Path(directory)), unpacked)
    if not (unpacked / SUITES).exists():
        raise NoSdistError(f"the sdist of dagster {version} has no {SUITES}")
    return unpacked


def locked(lock: str, version: str) -> str:
    """Return a lock's entry for this release of Dagster, with its hashes. Raises NoSdistError."""
    entry = re.search(rf"^dagster=={re.escape(version)} (?:\\\n|.)*", lock, re.MULTILINE)
    if entry is None:
        raise NoSdistError(f"dagster {version} is installed, and not the one of {LOCK.name}")
    return entry.group()


def _download(requirement: str, directory: Path) -> Path:
    wanted = directory / "requirements.txt"
    wanted.write_text(f"{requirement}\n")
    # Without isolation: what reads the metadata of the sdist is in the lock too, and installed.
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    argv += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    argv += ["--dest", str(directory), "--requirement", str(wanted)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise NoSdistError(f"the package index is silent for {FETCH_SECONDS:.0f} s") from None
    found = list(directory.glob("dagster-*.tar.gz"))
    if done.returncode or not found:
        words = done.stderr.strip().splitlines()
        raise NoSdistError(words[-1] if words else f"pip ended with {done.returncode}")
    return found[0]


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the tests alone, and all or nothing."""
    with tarfile.open(archive) as tar:
        tests = [each for each in tar if "/dagster_tests/storage_tests/" in each.name
                 or each.name.endswith("/dagster_tests/__init__.py")]  # fmt: skip
        tar.extractall(archive.parent, tests, filter="data")
    try:
        os.rename(archive.parent / target.name, target)  # noqa: PTH104 fails where another came first
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(archive.parent / target.name)
