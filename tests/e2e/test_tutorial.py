"""docs/tutorial.md as an ordinary user types it, on a real Slurm."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import SlurmCluster
from tests.manual.pages import ROOT, blocks
from tests.users import NOBODY, environment_for_all

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300)]

LIMIT_SECONDS = 240
WAITS_FOR_TAIL = 'DAGSTER_COMPUTE_LOG_TAIL_WAIT_AFTER_FINISH: "2"'
# Whatever happens, nothing is left: processes of the page, and jobs of its agent.
LEAVE_NOTHING = """
set -euo pipefail
trap 'status=$?; kill $(jobs -p) 2>/dev/null || true
      squeue --me --noheader --format "%i %j" | awk "/hpc-agent:/ {print \\$1}" | xargs -r scancel
      [ $status -eq 0 ] || tail -n 20 control-plane.log agent.log >&2' EXIT
"""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who is not root: how to become one, with which home, and where programs are."""

    prefix: Sequence[str]
    home: Path
    programs: Path


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """The user nobody, or whoever runs the tests when that is not root."""
    if os.geteuid() != 0:
        yield User((), tmp_path, Path(sys.executable).parent)
        return
    # Not below pytest's tmp_path, which is root's alone.
    with tempfile.TemporaryDirectory(prefix="hpc-tut-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        programs = environment_for_all(Path(directory) / "venv") / "bin"
        home = Path(directory) / "home"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        who = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all"]
        yield User(("setpriv", *who, "--"), home, programs)


def test_tutorial_ends_with_a_run_that_was_a_job(slurm_cluster: SlurmCluster, user: User) -> None:
    """Every block marked `sh`, one after the other in one shell, with ports that are free."""
    text = "".join(each.text for each in blocks(ROOT / "docs/tutorial.md") if each.kind == "sh")
    for port, free in zip(("8443", "3000"), two_free_ports(), strict=True):
        assert port in text
        text = text.replace(port, free)
    # On a busy machine Dagster's `tail` may else end before it has come to what a step has printed.
    assert "environment:\n" in text
    text = text.replace("environment:\n", f"environment:\n  variables: {{{WAITS_FOR_TAIL}}}\n")
    path = f"{user.programs}{os.pathsep}{slurm_cluster.environment['PATH']}"
    output = shown(
        [*user.prefix, "bash", "-c", LEAVE_NOTHING + text],
        environment={**slurm_cluster.environment, "PATH": path, "HOME": str(user.home)},
        directory=user.home,
    )
    assert "measured on" in output
    assert "RUN_SUCCESS" in output
    assert "500M" in output


def shown(argv: list[str], *, environment: dict[str, str], directory: Path) -> str:
    """Run a script and return what it has printed; it must end well, and in time."""
    with subprocess.Popen(
        argv,
        env=environment,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as script:
        try:
            output, _ = script.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(script.pid, signal.SIGTERM)
            output, _ = script.communicate(timeout=60)
    print(output)
    assert script.returncode == 0
    return output


def two_free_ports() -> tuple[str, str]:
    """Return ports that nothing listens on now."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        one, other = (str(listener.getsockname()[1]) for listener in listeners)
    return one, other
