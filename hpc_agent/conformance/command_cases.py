"""The stock ``dagster-cloud`` command against our gateway, as a process with a user's token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.conformance.plane import DEPLOYMENT, Plane

TIMEOUT_SECONDS = 120.0
WITHOUT_WAITING = ("--location-load-timeout", "0", "--agent-heartbeat-timeout", "0")
SYNCED = "locations: [{location_name: two, code_source: {module_name: two}, image: 'image:2'}]\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCase:
    """A command line and what its output must hold; cases of one list run in order.

    ``{file}`` in an argument is a path in the directory of the run.
    """

    argv: Sequence[str]
    shows: str
    scoped: bool = True

    def __str__(self) -> str:
        return " ".join(self.argv[:2])


COMMAND_CASES = [
    CommandCase(
        argv=("workspace", "add-location", "one", "--module-name", "one", *WITHOUT_WAITING),
        shows="Added or updated location one",
    ),
    CommandCase(
        argv=("workspace", "update-location", "one", "--package-name", "pack", *WITHOUT_WAITING),
        shows="Added or updated location one",
    ),
    CommandCase(argv=("workspace", "list"), shows="one\tPackage: pack"),
    CommandCase(argv=("workspace", "pull"), shows="package_name: pack"),
    CommandCase(
        argv=("workspace", "sync", "--workspace", "{file}/locations.yaml", *WITHOUT_WAITING),
        shows="Synced locations: two",
    ),
    CommandCase(argv=("workspace", "pull"), shows="image: image:2"),
    CommandCase(argv=("workspace", "delete-location", "two"), shows="Deleted location two"),
    CommandCase(argv=("deployment", "settings", "get"), shows="run_monitoring"),
    CommandCase(
        argv=("deployment", "upload-artifact", "notes", "{file}/locations.yaml"),
        shows="", scoped=False,
    ),
    CommandCase(
        argv=("deployment", "download-artifact", "notes", "{file}/copy.yaml"),
        shows="", scoped=False,
    ),
]  # fmt: skip


def problem(case: CommandCase, plane: Plane, directory: Path) -> str | None:
    """Run a command and say what is wrong with what it did; None when nothing is."""
    (directory / "locations.yaml").write_text(SYNCED)
    scope = ["--deployment", DEPLOYMENT] if case.scoped else []
    argv = [
        str(Path(sys.executable).parent / "dagster-cloud"),
        *(argument.replace("{file}", str(directory)) for argument in case.argv),
        "--url", plane.api, "--api-token", plane.user_token, *scope,
    ]  # fmt: skip
    done = subprocess.run(
        argv, env={**os.environ, **plane.environment}, capture_output=True, text=True,
        timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}"
    if case.shows not in done.stdout:
        return f"{case.shows!r} is not in {done.stdout!r}"
    if "download-artifact" in case.argv and (directory / "copy.yaml").read_text() != SYNCED:
        return "what came back is not what was sent"
    return None
