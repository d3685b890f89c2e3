"""From the moment that a line is printed to the moment that the web UI has it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from hpc_agent.errors import HpcAgentError
from tests.bench.peers.rows import Row, row_of
from tests.bench.peers.runners.runner import RUN_SECONDS, Place, Served

PART = "compute logs"
_PAGE = """
query ($key: [String!]!, $cursor: String) {
  capturedLogs(logKey: $key, cursor: $cursor) { stdout cursor }
}
"""
_PRINTED = re.compile(r"^(line|all) (\d+\.\d+)$", re.MULTILINE)
_LOOK_SECONDS = 0.05


def compute_logs(runner: Served, place: Place) -> list[Row]:
    """Follow what a run prints, as the UI does: with a cursor, again and again."""
    extent = place.extent
    config = {"seconds": extent.log_seconds, "megabytes": extent.log_megabytes}
    run_id = runner.launch("printing", {"ops": {"print_lines": {"config": config}}})
    seen = _follow(runner, run_id)
    runner.wait([run_id])
    lags = [lag for name, lag in seen.values() if name == "line"]
    whole = [lag for name, lag in seen.values() if name == "all"]
    megabytes = f"{extent.log_megabytes} MB printed, then all of it shown"
    return [
        row_of(PART, "a line printed, then shown", runner.name, "s", lags),
        row_of(PART, megabytes, runner.name, "s", whole),
    ]


def _follow(runner: Served, run_id: str) -> Mapping[str, tuple[str, float]]:
    """Return, for each time that was printed, of what it was and how much later it was seen."""
    seen: dict[str, tuple[str, float]] = {}
    deadline = time.monotonic() + RUN_SECONDS
    key, cursor, rest = "", None, ""
    while time.monotonic() < deadline:
        key = key or _key_of(runner, run_id)
        if not key:
            time.sleep(_LOOK_SECONDS)
            continue
        page = runner.webserver.query(
            _PAGE, {"key": [run_id, "compute_logs", key], "cursor": cursor}
        )["capturedLogs"]
        now, cursor = time.time(), page["cursor"]
        text = rest + (page["stdout"] or "")
        rest = text[text.rfind("\n") + 1 :]
        for name, printed in _PRINTED.findall(text):
            seen.setdefault(printed, (name, now - float(printed)))
        if any(name == "all" for name, _ in seen.values()):
            return seen
        if not page["stdout"]:
            time.sleep(_LOOK_SECONDS)
    raise HpcAgentError(f"{runner.name}: the end of what run {run_id} prints is not shown")


def _key_of(runner: Served, run_id: str) -> str:
    keys = [event["fileKey"] for event in runner.webserver.events(run_id) if event.get("fileKey")]
    return str(keys[0]) if keys else ""
