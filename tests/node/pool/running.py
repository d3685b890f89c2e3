"""A supervisor that runs, and members for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_agent.jobs.node_program import build_node_program

from .agent import StandIn

LIMIT_SECONDS = 90.0


def wait_until(condition: Callable[[], object], what: str = "nothing happened") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@dataclass(slots=True)
class Member:
    """A member's key and directory."""

    key: str
    directory: Path

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    @property
    def log(self) -> str:
        return self._text("slurm.out")

    @property
    def has_ended(self) -> bool:
        return (self.directory / "exit.json").exists()

    def exit_record(self) -> dict[str, Any]:
        """Wait for the end and return its record."""
        wait_until(lambda: self.has_ended, f"{self.key} does not end")
        record: dict[str, Any] = json.loads((self.directory / "exit.json").read_text())
        return record

    def said(self) -> dict[str, Any]:
        """Wait for a line of JSON on its standard output, and return it."""
        wait_until(lambda: "\n" in self.stdout or self.has_ended, f"{self.key} says nothing")
        said: dict[str, Any] = json.loads(self.stdout.splitlines()[0])
        return said

    def _text(self, name: str) -> str:
        path = self.directory / name
        return path.read_text() if path.exists() else ""


class RunningPool:
    """A supervisor of one node, its stand-in of an agent, and the directories around it."""

    def __init__(
        self,
        root: Path,
        *,
        idle_seconds: float = 0,
        slots: int = 4,
        memory_mb: int | None = None,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.agent = StandIn(root)
        self.program = build_node_program(root / "lib")
        (root / "relay.json").write_text(json.dumps(self.agent.relay))
        spec = {"idle_seconds": idle_seconds, "slot": {"cpus": 1, "memory_mb": memory_mb}}
        self.directory = self._directory("pol-1", {"kind": "pool", "argv": [], **spec})
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        self.log = (root / "log").open("wb")
        self.process = subprocess.Popen(
            [python, str(self.program), str(self.directory)],
            stdout=self.log,
            stderr=self.log,
            env={
                **inherited,
                "SLURM_JOB_ID": "17",
                "SLURM_CPUS_ON_NODE": str(slots),
                **(environment or {}),
            },
        )

    def member(
        self, number: int, argv: list[str], template: dict[str, Any] | None = None, **spec: Any
    ) -> Member:
        """Make a member and have it started."""
        key = f"run-{number}"
        more = {"template": template} if template else {}
        content = {"kind": "run_worker", "argv": argv, "environment": {}, **more, **spec}
        member = Member(key, self._directory(key, content))
        self.agent.change(start=[*self.agent.orders.start, key])
        return member

    def warm(self, template: dict[str, Any], *states: str) -> dict[str, Any]:
        """Have a template, wait until it has one of the states, and return what is told of it."""
        orders = self.agent.orders
        others = [each for each in orders.templates if each["id"] != template["id"]]
        self.agent.change(templates=[*others, template])
        wait_until(
            lambda: self.told(template).get("state") in (states or ("ready",)),
            f"{self.told(template)}",
        )
        return self.told(template)

    def told(self, template: dict[str, Any]) -> dict[str, Any]:
        """Return what was told of a template last."""
        told: dict[str, Any] = self.agent.orders.said.get("templates", {}).get(template["id"], {})
        return told

    def events(self, member: Member) -> list[str]:
        """Return which reports of a member came with its token."""
        token = f"{member.key}:secret"
        return [each.body["event"] for each in self.agent.orders.reports if each.token == token]

    def close(self) -> None:
        """End what still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self.agent.close()
        self.log.close()

    def _directory(self, key: str, spec: Mapping[str, Any]) -> Path:
        directory = self.root / "jobs" / key
        directory.mkdir(parents=True, exist_ok=True)
        common = {"version": 2, "key": key, "grace_seconds": 10, "relay_timeout_seconds": 20}
        (directory / "spec.json").write_text(json.dumps({**common, **spec}))
        (directory / "token").write_text(f"{key}:secret")
        (directory / "relay.json").symlink_to(self.root / "relay.json")
        return directory


def template(
    directory: Path,
    file: str = "definitions.py",
    *,
    start: str = "fork",
    prefix: tuple[str, ...] = ("-m",),
    **more: Any,
) -> dict[str, Any]:
    """Return a template of a file with definitions."""
    pointer = {
        "__class__": "FileCodePointer",
        "python_file": str(directory / file),
        "fn_name": "defs",
        "working_directory": str(directory),
    }
    origin = {
        "__class__": "RepositoryPythonOrigin",
        "executable_path": sys.executable,
        "code_pointer": pointer,
        "container_image": None,
        "entry_point": ["dagster"],
        "container_context": None,
    }
    return {
        "id": os.urandom(12).hex(),
        "start": start,
        "python": sys.executable,
        "argv_prefix": [sys.executable, *prefix],
        "code_origin": origin,
        "environment": {},
        "working_directory": str(directory),
        **more,
    }
