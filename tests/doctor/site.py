"""A site as agent.yaml has it, and the real doctor run on it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from hpc_agent.config import load_config
from hpc_agent.doctor.examination import Wish, examine
from hpc_agent.doctor.finding import Finding
from tests.cluster import SlurmCluster


class Site:
    """A configuration and the doctor's findings for it."""

    def __init__(self, directory: Path, cluster: SlurmCluster | None = None) -> None:
        self.directory = directory
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text("secret")
        self.content: dict[str, Any] = {
            "control_plane": {"url": "http://127.0.0.1:9", "token_file": str(token)},
            "work_dir": str(directory / "work"),
            "home": str(directory / "home"),
            "environment": {"python": sys.executable},
            "relay": {"bind": "127.0.0.1"},
            "scheduler": {"kind": "slurm" if cluster else "local"},
        }
        if cluster is not None and cluster.slurm_conf:
            self.content["scheduler"]["slurm_conf"] = cluster.slurm_conf
            self.content["scheduler"]["bin_dir"] = cluster.environment["PATH"].split(os.pathsep)[0]
        (directory / "work").mkdir(mode=0o700, exist_ok=True)

    def findings(
        self, *only: str, with_probe: bool = True, probe_seconds: float = 120
    ) -> dict[str, Finding]:
        """Examine the site and return the findings by the checks' names."""
        wish = Wish(only=only, with_probe=with_probe, probe_seconds=probe_seconds)
        results = asyncio.run(examine(load_config(self.write()), wish, say=print))
        return {result.check.name: result.finding for result in results}

    def command(
        self,
        *options: str,
        exit_code: int,
        before: Callable[[], None] | None = None,
        prefix: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """Run ``hpc-agent doctor --json`` and return what it prints.

        ``before`` is called in the new process, ``prefix`` is a command that starts the doctor.
        """
        doctor = [sys.executable, "-m", "hpc_agent", "doctor", "--json", *options]
        done = subprocess.run(
            [*prefix, *doctor, "--config", str(self.write())],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=before,
            env={**os.environ, "XDG_CONFIG_HOME": str(self.directory / "config")},
        )
        assert done.returncode == exit_code, done.stdout + done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def write(self) -> Path:
        """Write agent.yaml and return where it is."""
        path = self.directory / "agent.yaml"
        path.write_text(yaml.safe_dump(self.content))
        return path
