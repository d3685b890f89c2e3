"""When descriptors run out, and whose limit is whose."""

from __future__ import annotations

import ast
import json
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

import hpc_agent
from hpc_agent.relay.certificate import load_or_create
from tests.inbound.door import GOOD

PACKAGE = Path(hpc_agent.__file__).parent
STARTS = {
    "Popen",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "check_call",
    "check_output",
}
DESCRIPTORS = 120
RAISE = """
import resource, subprocess, sys
from hpc_agent.descriptors import as_given, raise_descriptor_limit
raise_descriptor_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
subprocess.run(as_given(["sh", "-c", "ulimit -Sn; ulimit -Hn; echo $0 $1", "a b", "'"]), check=True)
"""


@contextmanager
def door(directory: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A listener in a process that may have few descriptors."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [
                *("prlimit", f"--nofile={DESCRIPTORS}", sys.executable, "-m", "tests.inbound.door"),
                *(str(directory), json.dumps({})),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def test_listener_without_descriptors_waits_quietly(tmp_path: Path) -> None:
    """asyncio's own logs a line for each of 2,048 connections that wait, each second."""
    certificate = load_or_create(tmp_path, ["127.0.0.1"]).certificate_file
    trust = ssl.create_default_context(cafile=certificate)
    log = tmp_path / "log"
    with door(tmp_path, log) as (process, port):
        assert _told(process) > 0
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        used = _cpu(process.pid)
        time.sleep(2.5)
        assert _cpu(process.pid) - used < 0.5
        assert len(log.read_text().splitlines()) < 10
        assert _told(process) == 0
        for each in waiting:
            each.close()
        client = httpx.Client(verify=trust, base_url=f"https://127.0.0.1:{port}", timeout=20)
        with client:
            assert client.get("/", headers=GOOD).status_code == 200


def test_children_have_the_limit_that_was_given() -> None:
    """sbatch hands its soft limits on to the job."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = subprocess.run(
        ["prlimit", f"--nofile=300:{min(hard, 4096)}", sys.executable, "-c", RAISE],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["4096", "4096", "300", "4096", "a", "b", "'"]


def test_whatever_agent_and_control_plane_start_gets_the_limit_back() -> None:
    """A new call of these says as_given, or why not here."""
    short_lived = {"relay/certificate.py", "jobs/template_check.py"}
    not_raised = {"slurm/local_worker.py"}
    # Commands of people raise nothing, and the node program is its own.
    elsewhere = {"cli", "conformance", "demo", "doctor", "node", "service.py"}
    paths = [
        path
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in elsewhere
    ]
    wrong = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}"
        for path in paths
        if str(path.relative_to(PACKAGE)) not in short_lived | not_raised
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in STARTS
        and "as_given(" not in ast.unparse(call)
    ]
    assert wrong == []


def test_limits_are_made_when_they_are_needed() -> None:
    """A default, or a constant of a module, would count the descriptors of before."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        early: list[ast.AST] = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef):
                early += [
                    each for each in node.body if isinstance(each, ast.Assign | ast.AnnAssign)
                ]
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                early += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        wrong += [
            f"{path.relative_to(PACKAGE)}:{call.lineno}"
            for node in early
            for call in ast.walk(node)
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Limits"
        ]
    assert wrong == []


def _told(process: subprocess.Popen[str]) -> int:
    """Let it take all descriptors, or give them back; return how many it took."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
