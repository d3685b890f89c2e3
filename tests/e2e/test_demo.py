"""``hpc-agent demo`` as a process: what it prints, and that Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def processes_in(directory: Path) -> list[psutil.Process]:
    """Return the processes whose command line names a directory."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(directory) in argument for argument in process.info["cmdline"] or [])
    ]


def test_demo_shows_a_run_and_ctrl_c_takes_everything_down(tmp_path: Path) -> None:
    """JSON alone on standard output, progress on standard error, nothing left afterwards."""
    # A short path of our own for the demo's scratch directory: unix sockets need that.
    scratch = Path("/tmp") / f"demo-test-{os.getpid()}"
    scratch.mkdir()
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        demo = subprocess.Popen(
            [sys.executable, "-m", "hpc_agent", "demo", "--json", "--scheduler", "local"],
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        deadline = time.monotonic() + 300
        try:
            while "Everything stays up" not in err.read_text():
                assert demo.poll() is None, err.read_text()
                assert time.monotonic() < deadline, err.read_text()
                time.sleep(0.2)
            assert processes_in(scratch)
        finally:  # a demo that is too slow leaves nothing behind either
            demo.send_signal(signal.SIGINT)
            ended = demo.wait(90)
        assert ended == 0, err.read_text()
    facts = json.loads(out.read_text())
    assert facts["succeeded"] is True
    assert facts["run_status"] == "SUCCESS"
    assert facts["timeline"]["submitted"] <= facts["timeline"]["finished"]
    assert facts["step"]["job_id"] != facts["run_worker"]["job_id"]
    assert set(facts["assets"]) == {"raw_readings", "clean_readings", "summary", "daily_extremes"}
    assert processes_in(scratch) == []
    assert list(scratch.iterdir()) == []
    scratch.rmdir()
