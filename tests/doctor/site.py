"""A site as agent.yaml has it, and the real doctor run on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

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
        (directory / "work").mkdir(mode=0o700, exist_ok=True)

    def findings(
        self,
        *options: str,
        exit_code: int | None = None,
        before: Callable[[], None] | None = None,
        prefix: Sequence[str] = (),
    ) -> dict[str, dict[str, str]]:
        """Run the doctor and return its findings by the checks' names.

        ``before`` is called in the new process, ``prefix`` a command that starts the doctor.
        """
        path = self.directory / "agent.yaml"
        path.write_text(yaml.safe_dump(self.content))
        done = subprocess.run(
            [
                *prefix,
                sys.executable,
                "-m",
                "hpc_agent",
                "doctor",
                "--config",
                str(path),
                "--json",
                *options,
            ],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=before,
            env={**os.environ, "XDG_CONFIG_HOME": str(self.directory / "config")},
        )
        assert done.stdout, done.stderr
        if exit_code is not None:
            assert done.returncode == exit_code, done.stdout
        return {item["check"]: item for item in json.loads(done.stdout)}
