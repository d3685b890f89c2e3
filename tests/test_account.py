"""The user of jobs, as this machine knows it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.users import STRANGER, as_user, environment_for_all

TOKEN = "DAGSTER_CLOUD_AGENT_TOKEN=agent:me:secret"


def test_user_without_a_name_is_told_what_to_mount() -> None:
    """As in a container that runs as somebody of the cluster; every command that needs a name."""
    if os.geteuid() != 0:
        pytest.skip("to run commands as another user needs root")
    with tempfile.TemporaryDirectory(prefix="hpc-account-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o755)
        command = environment_for_all(Path(path) / "venv") / "bin" / "hpc-agent"
        (Path(path) / "agent.yaml").write_text(
            f"control_plane: {{url: 'https://127.0.0.1:1'}}\n"
            f"work_dir: {path}/own/work\nhome: {path}/own/state\nscheduler: {{kind: local}}\n"
        )
        (Path(path) / "own").mkdir()
        os.chown(Path(path) / "own", STRANGER, STRANGER)
        start = ["start", "--config", f"{path}/agent.yaml"]
        init = ["control-plane", "init", "--home", f"{path}/own/plane", "--non-interactive"]
        for words in (start, init):
            done = as_user(STRANGER, "env", TOKEN, str(command), *words)
            assert f"user {STRANGER} has no password entry here" in done.stderr
            assert "Traceback" not in done.stderr
            assert done.returncode == 2
