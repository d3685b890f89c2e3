"""An environment of Python with the peers in it, and nothing of ours: kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.bench.peers.rows import last_line

_REQUIREMENTS = Path(__file__).parent / "requirements.txt"
_INSTALL_SECONDS = 300


class PeerMissingError(Exception):
    """A peer cannot be had here; the message says why."""


class Peers:
    """Makes the environment once for each version of the requirements."""

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        said = f"{sys.version}{_REQUIREMENTS.read_text()}".encode()
        self._root = cache / "hpc-agent-bench" / hashlib.sha256(said).hexdigest()[:16]

    @property
    def python(self) -> Path:
        """The environment's Python."""
        return self._root / "bin" / "python"

    def prepare(self, name: str) -> None:
        """Install a peer, by the first word of its line. Raises PeerMissingError."""
        line = next(words for words in requirements() if words[0].startswith(f"{name}=="))
        if (self._root / f"{name}.installed").exists():
            return
        if not self.python.exists():
            _run([sys.executable, "-m", "venv", str(self._root)])
        _run([str(self.python), "-m", "pip", "install", "--quiet", "--no-input", *line])
        (self._root / f"{name}.installed").touch()


def requirements() -> list[list[str]]:
    """Return the lines of the requirements, each as words: a peer and what it needs beside it."""
    lines = _REQUIREMENTS.read_text().splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def versions() -> dict[str, str]:
    """Return the pinned version of each peer."""
    pinned = (words[0].partition("==") for words in requirements())
    return {name: version for name, _, version in pinned}


def _run(argv: list[str]) -> None:
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        raise PeerMissingError(f"it does not install: {last_line(error.stderr)}") from error
    except subprocess.TimeoutExpired:
        raise PeerMissingError(f"it does not install within {_INSTALL_SECONDS} s") from None
