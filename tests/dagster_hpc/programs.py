"""What the tests have commands do."""

from __future__ import annotations

import sys

REPORTS = [
    sys.executable,
    "-c",
    """
from dagster_pipes import open_dagster_pipes
import sys
with open_dagster_pipes() as pipes:
    pipes.log.info(f"extra {pipes.extras['size']} of attempt {pipes.retry_number}")
    pipes.report_custom_message({"seen": pipes.run_id})
    pipes.report_asset_materialization(metadata={"rows": 120, "note": "fine"}, data_version="7")
    pipes.report_asset_check("is_whole", passed=True, metadata={"gaps": 0})
    print("to the log")
    print("to the other", file=sys.stderr)
""",
]
"""A program with the stock package: a log line, a materialization, a check, and output."""


def bash(text: str) -> list[str]:
    """Return a command that sources the helper and goes on with ``text``."""
    return ["bash", "-euc", f'. "$DAGSTER_HPC_PIPES_SH"\n{text}']
