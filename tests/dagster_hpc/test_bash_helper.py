"""The helper of bash by itself: without Dagster, and while signals come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import dagster_hpc
from tests.dagster_hpc.programs import bash

HELPER = Path(dagster_hpc.__file__).parent / "commands" / "languages" / "dagster_pipes.sh"
REPORTS = 300
UNDER_SIGNALS = f"""
trap ':' TERM
echo ready
for ((number = 0; number < {REPORTS}; number++)); do
    dagster_materialize -v "$number" rows:int=$number note=$'a "b"\\n'
done
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "DAGSTER_HPC_PIPES_SH": str(HELPER), **more}


def test_bash_helper_is_quiet_without_dagster(tmp_path: Path) -> None:
    """A script that reports runs by hand as well."""
    command = bash("dagster_log info x; dagster_materialize; dagster_context partition_key none")
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("none\n", "")


def test_signals_lose_no_report(tmp_path: Path) -> None:
    """A job that is ended is signalled more than once, while its trap says what it has done."""
    script = subprocess.Popen(
        bash(UNDER_SIGNALS),
        env=environment(DAGSTER_HPC_EXCHANGE=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "ready\n"
    while script.poll() is None:
        os.killpg(script.pid, signal.SIGTERM)
        time.sleep(0.002)
    _, said = script.communicate()
    assert (script.returncode, said) == (0, "")
    messages = [json.loads(line) for line in (tmp_path / "messages.jsonl").read_text().splitlines()]
    rows = [each["params"].get("metadata", {}).get("rows") for each in messages[1:]]
    assert rows == [{"raw_value": number, "type": "int"} for number in range(REPORTS)]
