"""What is installed is what was locked: by hashes, from wherever an index has it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-build.lock"]
# Why these have no upper bound is said beside them in pyproject.toml, or they are types alone.
UNBOUNDED = {"cryptography", "pyslurm", "setuptools"}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages(lock: str) -> dict[str, str]:
    """Return name and version of each package of a lock."""
    text = (ROOT / lock).read_text()
    return dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==([\w.!+-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_hashes_and_no_hosts(lock: str) -> None:
    """One that names an index could be met only where that index is."""
    entries = (ROOT / lock).read_text().replace("\\\n", "").splitlines()
    assert entries
    for entry in entries:
        assert re.match(r"[\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry), entry
    assert "://" not in " ".join(entries)
    assert not any(entry.startswith("-") for entry in entries)


def test_locks_agree() -> None:
    """What is tested is what a site installs."""
    tested = packages("requirements-dev.lock").items()
    for lock in LOCKS:
        assert packages(lock).items() <= tested


def test_locks_are_of_this_project() -> None:
    """Each requirement is met by what is locked for it."""
    content = project()["project"]
    extras = content["optional-dependencies"]
    for lock, names in (
        ("requirements.lock", ["control-plane", "postgres", "ssh", "top"]),
        ("requirements-dev.lock", ["control-plane", "postgres", "ssh", "top", "dev"]),
    ):
        locked = {name.lower().replace("_", "-"): each for name, each in packages(lock).items()}
        wanted = [*content["dependencies"], *(each for name in names for each in extras[name])]
        for requirement in map(Requirement, wanted):
            version = locked[requirement.name.lower().replace("_", "-")]
            assert requirement.specifier.contains(version), (lock, str(requirement), version)


def test_requirements_shut_out_the_next_major() -> None:
    """A release that breaks us must not come to a site by itself."""
    content = project()
    extras = content["project"]["optional-dependencies"].values()
    build = [*content["build-system"]["requires"], *content["dependency-groups"]["build"]]
    everything = [*content["project"]["dependencies"], *(r for extra in extras for r in extra)]
    unbounded = {
        requirement.name
        for requirement in map(Requirement, [*everything, *build])
        if not any(each.operator in {"<", "<=", "=="} for each in requirement.specifier)
        and not requirement.name.startswith("types-")
    }
    assert unbounded == UNBOUNDED


def wheel(directory: Path, name: str) -> str:
    """Make a wheel of nothing and return its SHA-256."""
    path, info = directory / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {
        file: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        for file, text in files.items()
    }
    rows = [f"{file},sha256={digests[file]},{len(text)}" for file, text in files.items()]
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,\n"]))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("lock", ["requirements-build.lock", "requirements-dev.lock"])
@pytest.mark.parametrize(
    ("hashed", "words"),
    [(f"--hash=sha256:{'0' * 64}", "DO NOT MATCH THE HASHES"), ("", "Hashes are required")],
)
def test_setup_takes_no_package_that_was_changed(
    tmp_path: Path, lock: str, hashed: str, words: str
) -> None:
    """An index, or whoever is in between, gives other bytes under the same name and version."""
    wheels, tree = tmp_path / "wheels", tmp_path / "tree"
    wheels.mkdir()
    tree.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    for each in ("requirements-build.lock", "requirements-dev.lock"):
        name = "changed" if each == lock else "honest"
        digest = wheel(wheels, name)
        told = hashed if each == lock else f"--hash=sha256:{digest}"
        (tree / each).write_text(f"{name}==1.0 {told}\n")
    done = subprocess.run(
        ["make", "setup", f"PYTHON={sys.executable}"],
        cwd=tree,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert words in done.stderr
    assert not (tree / ".venv" / ".ready").exists()
