"""The relay's self-signed certificate: made once, pinned by the jobs through ``relay.json``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.errors import ConfigError
from hpc_agent.private_files import require_private


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Certificate and key files (PEM)."""

    certificate_file: Path
    key_file: Path

    @property
    def pem(self) -> str:
        """The certificate, without its key."""
        return self.certificate_file.read_text()


def certificate_in(state_dir: Path) -> Certificate:
    """Return where a state directory has its certificate."""
    return Certificate(
        certificate_file=state_dir / "relay-certificate.pem", key_file=state_dir / "relay-key.pem"
    )


def load_or_create(state_dir: Path, names: Sequence[str]) -> Certificate:
    """Return the persisted certificate, making one for ``names`` (hosts, addresses) first.

    Raises ConfigError when it cannot be made, or somebody else has made it.
    """
    certificate = certificate_in(state_dir)
    if not (certificate.certificate_file.exists() and certificate.key_file.exists()):
        argv = [sys.executable, "-m", "hpc_agent.relay.new_certificate", str(state_dir), *names]
        made = subprocess.run(argv, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise ConfigError(f"home: {state_dir}: no certificate could be made: {made.stderr}")
    for file in (certificate.certificate_file, certificate.key_file):
        require_private(file)
    return certificate
