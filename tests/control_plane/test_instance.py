"""A dagster.yaml that Dagster refuses is said in one sentence: file, key, fault."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpc_agent.control_plane.home import Home
from hpc_agent.control_plane.instance import open_instance
from hpc_agent.errors import ConfigError
from tests.control_plane.running import CLI

QUEUED = "module: dagster.core.run_coordinator, class: QueuedRunCoordinator"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("run_coordinatr: {}", "run_coordinatr: there is no such key"),
        ("a: 1\nb: 2", "a/b: there is no such key"),
        (
            "run_monitoring: {enabled: maybe}",
            'run_monitoring.enabled: invalid scalar. Value "maybe"',
        ),
        ("run_coordinator: {module: x}", "run_coordinator.class: missing required config entry"),
        ("run_coordinator: {module: no.such, class: X}", "run_coordinator: Couldn't import module"),
        (
            f"run_coordinator: {{{QUEUED}, config: {{nope: 1}}}}",
            "run_coordinator.config.nope: there is no such key",
        ),
        (
            "compute_logs: {module: dagster.core.storage.local_compute_log_manager, class: Nope}",
            "compute_logs: Couldn't find class Nope",
        ),
        (
            "run_queue: {tag_concurrency_limits: [{key: a}]}",
            "run_queue.tag_concurrency_limits.limit:",
        ),
        ("telemetry: 5", "telemetry: value must be dict"),
        ("just text", "Expected YAML from file"),
    ],
)
def test_fault_is_said_with_file_and_key(tmp_path: Path, text: str, fault: str) -> None:
    """Also of what Dagster would load minutes later, and without its whole schema behind it."""
    home = Home(tmp_path)
    home.dagster_yaml.write_text(text)
    with pytest.raises(ConfigError) as caught:
        open_instance(home)
    assert str(caught.value).startswith(f"{home.dagster_yaml}: {fault}")
    assert len(str(caught.value)) < 300
    assert "<class" not in str(caught.value)


def test_start_ends_in_that_sentence(tmp_path: Path) -> None:
    """With the exit code of a wrong setting, and no traceback."""
    (tmp_path / "dagster.yaml").write_text("run_coordinatr: {}")
    argv = [*CLI, "start", "--home", str(tmp_path), "--port", "0", "--no-webserver", "--no-daemon"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/dagster.yaml: run_coordinatr: there is no such key"
    ]
