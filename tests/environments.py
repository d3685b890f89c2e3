"""Environments for user code, quickly made: they have the packages of the one that tests run in."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path


def environment_with_ours(directory: Path, python: str = sys.executable) -> None:
    """Make a virtual environment with our packages; ``python`` must be of this one's version."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(directory)], check=True)
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
    version = f"python3.{sys.version_info.minor}"
    (directory / "lib" / version / "site-packages" / "ours.pth").write_text(line + "\n")
