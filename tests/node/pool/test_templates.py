"""Templates that cannot be forked, or not be made, say why; members start all the same."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .running import Member, RunningPool, is_alive, template, wait_until

_NUMBERS = itertools.count(1)
_PLAIN = "import dagster as dg\ndefs = dg.Definitions()\n"
_THREAD = """
import threading, time
class Ticker(threading.Thread):
    pass
Ticker(target=time.sleep, args=(300,), daemon=True).start()
"""
_FILE = "opened = open(__file__)\n"
_DIRECTORY = "import tempfile\nscratch = tempfile.TemporaryDirectory()\n"
_HANDLER = """
import atexit, functools, os, tempfile
descriptor, path = tempfile.mkstemp()
os.close(descriptor)
atexit.register(functools.partial(os.unlink, path))
"""
_CHANNEL = "import grpc\nchannel = grpc.insecure_channel('127.0.0.1:9')\n"
_VARIABLES = """
import os
for name in ("SET", "CHANGED", "OWN", "HPC_AGENT_JOB_TOKEN", "HPC_AGENT_OF_IMPORT", "DAGSTER_HOME"):
    os.environ[name] = "imported"
for name in ("GIVEN", "NOT_GIVEN"):
    os.environ.setdefault(name, "imported")
for name in ("REMOVED", "REMOVED_ELSEWHERE"):
    del os.environ[name]
"""
_SAY_VARIABLES = "import json, os\nprint(json.dumps(dict(os.environ)), flush=True)\n"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPool]:
    """A pool of one slot: a template has one spare at a time, which is the one that is told of."""
    running = RunningPool(tmp_path_factory.mktemp("pool"), slots=1)
    yield running
    running.close()


def project(directory: Path, *files: tuple[str, str]) -> Path:
    """Write files of a project; ``probe`` says whether a process has the definitions."""
    probe = "import os, sys\nprint(os.getpid(), 'definitions' in sys.modules, flush=True)\n"
    for name, text in (("probe.py", probe), *files):
        (directory / name).write_text(text)
    return directory


def probe(pool: RunningPool, made: dict[str, Any]) -> Member:
    """Start a member that says who it is, and wait for its end."""
    member = pool.member(
        next(_NUMBERS),
        [sys.executable, "-m", "probe"],
        made,
        working_directory=made["working_directory"],
    )
    assert member.exit_record()["exit_code"] == 0, member.stderr
    return member


def another_spare(pool: RunningPool, made: dict[str, Any], pid: int) -> dict[str, Any]:
    """Wait until another than that one is ready, and return what is told of it."""
    wait_until(lambda: pool.told(made)["pid"] not in (None, pid), "no other spare")
    wait_until(lambda: pool.told(made)["state"] == "spares", "it is not ready")
    return pool.told(made)


@pytest.mark.parametrize(
    ("culprit", "words"),
    [
        (_THREAD, "started 1 threads, in ticking (time.sleep)"),
        (_FILE, "opened what workers cannot share: descriptor"),
        (_CHANNEL, "gRPC channel|threads, in "),
        (_DIRECTORY, "remove files at its end: tempfile.TemporaryDirectory._cleanup("),
        (_HANDLER, "remove files at its end: posix.unlink('/"),
    ],
    ids=["thread", "file", "channel", "directory", "handler"],
)
def test_template_that_cannot_be_forked_has_spares(
    pool: RunningPool, tmp_path: Path, culprit: str, words: str
) -> None:
    """Each is used once, and replaced; the words name what forbids to fork."""
    made = template(
        project(tmp_path, ("ticking.py", culprit), ("definitions.py", f"import ticking\n{_PLAIN}"))
    )
    told = pool.warm(made, "spares", "failed")
    assert told["state"] == "spares", told
    assert any(each in told["words"] for each in words.split("|")), told["words"]
    first = probe(pool, made)
    assert first.stdout.split()[1] == "True"
    another_spare(pool, made, told["pid"])
    second = probe(pool, made)
    assert second.stdout.split()[1] == "True"
    assert first.stdout != second.stdout


def test_what_imports_remove_at_the_end_is_there_for_each_member(
    pool: RunningPool, tmp_path: Path
) -> None:
    """Each has its own; a spare that nobody has used leaves none behind."""
    made_in = tmp_path / "scratch"
    made_in.mkdir()
    make = f"import tempfile\nscratch = tempfile.TemporaryDirectory(dir={str(made_in)!r})\n"
    say = "import os, definitions\nprint(os.path.isdir(definitions.scratch.name), flush=True)\n"
    directory = project(tmp_path, ("definitions.py", make + _PLAIN), ("say.py", say))
    made = template(directory)
    told = pool.warm(made, "spares", "failed")
    assert "in definitions" in told["words"]
    argv = [sys.executable, "-m", "say"]
    for _ in range(2):
        member = pool.member(next(_NUMBERS), argv, made, working_directory=str(directory))
        assert member.exit_record()["exit_code"] == 0, member.stderr
        assert "warm start" in member.log
        assert member.stdout == "True\n"
        told = another_spare(pool, made, told["pid"])
    assert len(list(made_in.iterdir())) == 1
    pool.agent.change(templates=[])
    wait_until(lambda: not list(made_in.iterdir()), "directories are left")


def test_location_may_choose_spares(pool: RunningPool, tmp_path: Path) -> None:
    """They are none of a template that was tried first."""
    made = template(project(tmp_path, ("definitions.py", _PLAIN)), start="spare")
    assert pool.warm(made, "spares")["words"] == ""
    assert probe(pool, made).stdout.split()[1] == "True"


@pytest.mark.parametrize("start", ["fork", "spare"])
def test_variables_of_imports_are_those_of_workers(
    pool: RunningPool, tmp_path: Path, start: str
) -> None:
    """As if each had imported by itself; what its member was given otherwise is the member's."""
    given = {"CHANGED": "a", "OWN": "a", "REMOVED": "a", "REMOVED_ELSEWHERE": "a"}
    directory = project(
        tmp_path, ("definitions.py", _VARIABLES + _PLAIN), ("variables.py", _SAY_VARIABLES)
    )
    made = template(directory, start=start, environment=given)
    pool.warm(made, "ready", "spares")
    member = pool.member(
        next(_NUMBERS),
        [sys.executable, "-m", "variables"],
        made,
        working_directory=str(tmp_path),
        environment={**given, "OWN": "b", "GIVEN": "b", "REMOVED_ELSEWHERE": "b"},
    )
    variables = member.said()
    assert "warm start" in member.log
    assert variables["SET"] == "imported"
    assert variables["CHANGED"] == "imported"
    assert variables["OWN"] == "b"
    assert variables["GIVEN"] == "b"
    assert variables["NOT_GIVEN"] == "imported"
    assert "REMOVED" not in variables
    assert variables["REMOVED_ELSEWHERE"] == "b"
    assert variables["HPC_AGENT_JOB_TOKEN"] == f"{member.key}:secret"
    assert "HPC_AGENT_OF_IMPORT" not in variables
    assert "DAGSTER_HOME" not in variables
    member.exit_record()


def test_failing_import_means_cold_starts(pool: RunningPool, tmp_path: Path) -> None:
    """The member says why, and so does the template."""
    failing = "raise ImportError('no_such_module \\udc80' + 'x' * 5000)\n"
    made = template(project(tmp_path, ("definitions.py", failing)))
    told = pool.warm(made, "failed")
    assert "no_such_module ?x" in told["words"]
    assert len(told["words"]) <= 2000
    member = probe(pool, made)
    assert member.stdout.split()[1] == "False"
    assert "cold start: template" in member.log
    assert "no_such_module" in member.log


def test_import_that_ends_the_process_is_a_failure(pool: RunningPool, tmp_path: Path) -> None:
    """Once it has done so again: what was killed by others comes again at once."""
    made = template(project(tmp_path, ("definitions.py", "import os\nos._exit(1)\n")))
    assert pool.warm(made, "failed")["words"] == "its process has ended"


def test_python_that_is_not_there_is_a_failure(pool: RunningPool, tmp_path: Path) -> None:
    """Of the template alone."""
    made = template(project(tmp_path, ("definitions.py", _PLAIN)), python="/no/such/python")
    assert "/no/such/python" in pool.warm(made, "failed")["words"]


def test_member_does_not_wait_for_imports(pool: RunningPool, tmp_path: Path) -> None:
    """A template that is warming, which the member itself has brought, comes for the next one."""
    go = str(tmp_path / "go")
    slow = f"import os, time\nwhile not os.path.exists({go!r}): time.sleep(0.1)\n"
    made = template(project(tmp_path, ("definitions.py", slow + _PLAIN)))
    cold = probe(pool, made)
    assert cold.stdout.split()[1] == "False"
    assert "no worker in 1 s" in cold.log
    (tmp_path / "go").touch()
    wait_until(lambda: pool.told(made)["state"] == "ready", "it is not ready")
    assert probe(pool, made).stdout.split()[1] == "True"


def test_command_that_is_not_the_templates_starts_cold(pool: RunningPool, tmp_path: Path) -> None:
    """A template runs modules of its own Python only."""
    made = template(project(tmp_path, ("definitions.py", _PLAIN)))
    pool.warm(made)
    member = pool.member(next(_NUMBERS), ["/bin/echo", "cold"], made)
    assert member.exit_record()["exit_code"] == 0
    assert member.stdout == "cold\n"
    assert "another command than the template's" in member.log


def test_spare_that_was_killed_is_replaced(pool: RunningPool, tmp_path: Path) -> None:
    """What has imported everything is a process of its own, and may be the one."""
    made = template(project(tmp_path, ("definitions.py", _PLAIN)), start="spare")
    pid = pool.warm(made, "spares")["pid"]
    (imported,) = psutil.Process(pid).children()
    imported.kill()
    another_spare(pool, made, pid)
    assert probe(pool, made).stdout.split()[1] == "True"


def test_spares_end_when_they_are_drained(pool: RunningPool, tmp_path: Path) -> None:
    """As a template does."""
    made = template(project(tmp_path, ("definitions.py", _PLAIN)), start="spare")
    pid = pool.warm(made, "spares")["pid"]
    pool.agent.change(templates=[])
    wait_until(lambda: not is_alive(pid), "it lives")
