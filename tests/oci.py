"""An OCI bundle of this machine's own programs, for tests of Slurm's ``--container``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hpc_agent

HOSTNAME = "in-a-bundle"
MARK = "/only-in-the-bundle"
_SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr")
_RUNC_SECONDS = 60


class NoOciError(Exception):
    """No container can be made here: the message says why."""


def make_bundle(directory: Path, *, writable: Iterable[Path]) -> Path:
    """Make a bundle that sees this machine's programs and what is ``writable``, and nothing else.

    Raises NoOciError where runc cannot run it. Namespaces of its own are those that ``runc spec``
    has, except for the network: Slurm's containers are on that of the host.
    """
    if shutil.which("runc", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin") is None:
        raise NoOciError("runc is not installed")
    rootfs = directory / "rootfs"
    for place in ("dev", "proc", "root", "sys", "tmp"):
        (rootfs / place).mkdir(parents=True)
    (rootfs / MARK.lstrip("/")).write_text("a file of the rootfs\n")
    subprocess.run(["runc", "spec", "--bundle", str(directory)], check=True)
    config = directory / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(_ours(content, writable), indent=1))
    _try(directory)
    return directory


def _ours(content: dict[str, Any], writable: Iterable[Path]) -> dict[str, Any]:
    """Change what ``runc spec`` writes; Slurm replaces command and environment itself."""
    content["hostname"] = HOSTNAME
    content["process"] |= {"terminal": False, "args": ["cat", MARK]}
    content["root"]["readonly"] = False
    kinds = content["linux"]["namespaces"]
    content["linux"]["namespaces"] = [each for each in kinds if each["type"] != "network"]
    programs = {sys.prefix, sys.base_prefix, str(Path(hpc_agent.__file__).parents[1])}
    readable = [*(name for name in _SYSTEM if Path(name).exists()), *sorted(programs)]
    content["mounts"] = [
        *(each for each in content["mounts"] if each["type"] != "cgroup"),
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
        *(_bind(name, "ro") for name in readable),
        *(_bind(str(path), "rw") for path in writable),
    ]
    return content


def _bind(path: str, access: str) -> dict[str, Any]:
    return {"destination": path, "type": "none", "source": path, "options": ["rbind", access]}


def _try(bundle: Path) -> None:
    """Run it once without Slurm."""
    call = ["runc", "--root", str(bundle / "state")]
    done = subprocess.run(
        [*call, "run", "--bundle", str(bundle), f"try-{bundle.parent.name}"],
        capture_output=True,
        text=True,
        timeout=_RUNC_SECONDS,
        check=False,
    )
    if done.returncode != 0 or done.stdout != "a file of the rootfs\n":
        raise NoOciError(f"runc makes no container here: {done.stderr.strip()[-500:]}")
