"""`make dist`: whoever builds a commit gets the same bytes, and a list of what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(300)


def build(directory: Path, *, umask: int, **environment: str) -> dict[str, str]:
    """Build a clone of the last commit and return the digests of what came out."""
    tree = directory / "tree"
    clone = ["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", str(tree)]
    subprocess.run(clone, check=True, umask=umask)
    environment_directory = Path(sys.executable).parent.parent
    options = [f"VENV={environment_directory}", f"DIST={directory / 'dist'}"]
    subprocess.run(
        ["make", "-f", ROOT / "Makefile", "-o", environment_directory / ".ready", "dist", *options],
        cwd=tree,
        check=True,
        umask=umask,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (directory / "dist").iterdir()
    }


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    """Of another user, in another place, time zone and order of dictionaries."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone of the repository")
    for name in ("one", "another place"):
        (tmp_path / name).mkdir()
    first = build(tmp_path / "one", umask=0o022, TZ="UTC", PYTHONHASHSEED="1")
    second = build(tmp_path / "another place", umask=0o077, TZ="Asia/Tokyo", PYTHONHASHSEED="2")
    assert first == second
    listed = (tmp_path / "one" / "dist" / "SHA256SUMS").read_text().splitlines()
    assert {line.split()[1]: line.split()[0] for line in listed} == {
        name: digest for name, digest in first.items() if name != "SHA256SUMS"
    }
    assert len(listed) == 5
    look_into(tmp_path / "one" / "dist")


def look_into(dist: Path) -> None:
    """Templates and pages are in the wheel, no traces of a machine in the sdist."""
    (wheel,) = dist.glob("dagster_hpc_agent-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"hpc_agent/templates/job.sbatch.j2", "hpc_agent/manual/pages/options.md"} <= {*names}
    assert "hpc_agent/manual/pages/conf.py" not in names
    assert not [name for name in names if not name.startswith(("hpc_agent/", "dagster_hpc_agent-"))]
    (library,) = dist.glob("dagster_hpc-*.whl")
    names = zipfile.ZipFile(library).namelist()
    assert {"dagster_hpc/py.typed", "dagster_hpc/commands/languages/dagster_pipes.sh"} <= {*names}
    assert not [name for name in names if not name.startswith(("dagster_hpc/", "dagster_hpc-"))]
    assert [name for name in names if name.endswith("/licenses/LICENSE")]
    sdists = [*dist.glob("*.tar.gz")]
    assert len(sdists) == 2
    for sdist in sdists:
        with tarfile.open(sdist) as archive:
            members = archive.getmembers()
        assert {(member.uid, member.uname) for member in members} == {(0, "")}
        assert [member.name for member in members if member.name.endswith("/LICENSE")]
    (bill,) = dist.glob("*.cdx.json")
    content = json.loads(bill.read_text())
    assert content["bomFormat"] == "CycloneDX"
    components = {component["name"]: component for component in content["components"]}
    assert {"httpx", "cryptography", "dagster-webserver"} <= components.keys()
    assert "pytest" not in components
    assert all(component["externalReferences"] for component in components.values())
    assert str(Path.home()) not in bill.read_text()
