"""Who did what: written by the door, the gateway and the command line, and read back."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster_graphql.schema import create_schema
from graphql import GraphQLObjectType, GraphQLUnionType, get_named_type
from typer.testing import CliRunner

from hpc_agent.cli.control_plane import app
from hpc_agent.control_plane.audit.entry import MAX_LINE_BYTES, Action, Actor, Entry, Outcome
from hpc_agent.control_plane.audit.log import OLD_FILES, AuditLog
from hpc_agent.control_plane.audit.mutations import FAILURES, entries_of
from hpc_agent.control_plane.audit.reader import line_of, moment, read_entries
from hpc_agent.control_plane.documents import mutations_of
from hpc_agent.control_plane.door.attempts import FAILURES as ATTEMPTS
from hpc_agent.control_plane.roles import Role
from hpc_agent.errors import ConfigError
from tests.control_plane.door.conftest import Setting

ACTOR = Actor(name="anna", role="admin", way="session", peer="192.0.2.1")
LAUNCH = """mutation L($p: ExecutionParams!) { launched: launchRun(executionParams: $p) {
  __typename ... on LaunchRunSuccess { run { runId } } } }"""
VARIABLES = {
    "p": {
        "selector": {"repositoryLocationName": "weather", "jobName": "daily"},
        "runConfigData": {"ops": {"password": "hunter2", "path": {"deep": "hunter2"}}},
    }
}


def entry(what: str = "x", **changes: Any) -> Entry:
    values = {"action": Action.MUTATION, "actor": ACTOR, "outcome": Outcome.OK, **changes}
    return Entry(what=what, **values)


async def test_login_launch_and_logout_leave_a_line_each(setting: Setting) -> None:
    """With who, as what, by which way, from where, and what came of it."""
    setting.webserver.answer = {
        "data": {"launched": {"__typename": "LaunchRunSuccess", "run": {"runId": "r1"}}}
    }
    async with setting.browser(Role.OPERATOR) as browser:
        await browser.post("/graphql", json={"query": LAUNCH, "variables": VARIABLES})
        await browser.post("/graphql", json={"query": "{ version }"})
        await browser.post("/logout")

    login, launch, logout = setting.audited()

    assert (login["action"], logout["action"]) == ("login", "logout")
    assert {name: launch[name] for name in launch if name != "time"} == {
        "action": "launch", "outcome": "ok", "who": "someone", "role": "operator",
        "way": "session", "from": "127.0.0.1", "what": "launchRun",
        "about": {"repositoryLocationName": ["weather"], "jobName": ["daily"], "runId": ["r1"]},
    }  # fmt: skip
    assert "hunter2" not in setting.audit_log.read_text()
    assert setting.audit_log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("way", ["login", "header"])
async def test_failed_logins_are_noted_as_often_as_they_are_tried(
    setting: Setting, way: str
) -> None:
    """And no more often: a stranger cannot wash older lines out of the log."""
    async with setting.client() as client:
        for _ in range(ATTEMPTS + 5):
            if way == "header":
                await client.get("/", headers={"Authorization": "Bearer guessed-secret"})
            else:
                await client.post(
                    "/login", data={"token": "guessed-secret"}, headers={"Origin": setting.url}
                )
    found = setting.audited()
    assert [(each["action"], each["outcome"]) for each in found] == [("login", "failed")] * ATTEMPTS
    assert "guessed" not in setting.audit_log.read_text()


async def test_what_a_role_forbids_is_noted(setting: Setting) -> None:
    """Documents and reports, as refused."""
    async with setting.script(Role.VIEWER) as script:
        await script.post("/graphql", json={"query": "mutation { wipeAssets { a } }"})
        await script.post("/report_asset_materialization/a", json={})
    found = [(each["what"], each["outcome"]) for each in setting.audited()]
    assert found == [("wipeAssets", "refused"), ("/report_asset_materialization/a", "refused")]


async def test_launch_that_reaches_nobody_has_failed(setting: Setting) -> None:
    """The webserver is not there: nothing was done."""
    setting.webserver.socket.unlink()
    async with setting.script() as script:
        await script.post("/graphql", json={"query": LAUNCH, "variables": VARIABLES})
    (found,) = setting.audited()
    assert (found["action"], found["outcome"]) == ("launch", "failed")


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ({"__typename": "LaunchRunSuccess"}, Outcome.OK),
        ({"__typename": "RunConfigValidationInvalid"}, Outcome.FAILED),
        ({"__typename": "PythonError"}, Outcome.FAILED),
        (None, Outcome.FAILED),
        (True, Outcome.OK),
        ({}, Outcome.OK),
    ],
)
def test_outcome_is_what_the_webserver_says(result: object, outcome: Outcome) -> None:
    """Under the name that the document gives to the field."""
    (found,) = entries_of(
        ACTOR, mutations_of(LAUNCH), VARIABLES, answer={"data": {"launched": result}}
    )
    assert found.outcome is outcome


def test_failures_are_those_of_the_webserver_s_schema() -> None:
    """Every result type that is an error is known by its name, and no other one is."""
    schema = create_schema().graphql_schema
    assert schema.mutation_type is not None
    kinds: set[GraphQLObjectType] = set()
    for field in schema.mutation_type.fields.values():
        named = get_named_type(field.type)
        if isinstance(named, GraphQLUnionType):
            kinds.update(named.types)
    for kind in kinds:
        fields = {"message"} & set(kind.fields)
        is_error = any(each.name == "Error" for each in kind.interfaces)
        known = kind.name.endswith(FAILURES)
        assert known or not is_error, kind.name
        assert not (known and kind.name.endswith(("Success", "Result"))), fields


async def test_arguments_written_into_the_document_are_found(setting: Setting) -> None:
    async with setting.script() as script:
        await script.post(
            "/graphql", json={"query": 'mutation { terminateRun(runId: "r7") { __typename } }'}
        )
    (found,) = setting.audited()
    assert (found["action"], found["about"]) == ("terminate", {"runId": ["r7"]})


def test_names_cannot_break_a_line_or_a_terminal(tmp_path: Path) -> None:
    """Whatever a token is called, and whatever a path holds."""
    hostile = 'a\n{"time": "x"}\x1b[2J\u202e'
    log = AuditLog(tmp_path / "audit.log")
    actor = Actor(name=hostile, role=None, way="proxy", peer=hostile)

    log.append(entry(hostile, actor=actor, about={"runId": [hostile, "x" * 9000]}))

    (line,) = log_lines(tmp_path)
    assert len(line) <= MAX_LINE_BYTES
    (found,) = read_entries(tmp_path / "audit.log")
    assert found["who"] == hostile
    shown = line_of(found)
    assert shown.isascii()
    assert shown.isprintable()


def log_lines(directory: Path) -> list[bytes]:
    return (directory / "audit.log").read_bytes().splitlines()


WRITER = """
import sys
from pathlib import Path
from tests.control_plane.door.test_audit import AuditLog, entry
log = AuditLog(Path(sys.argv[1]), max_bytes=10_000)
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    log.append(entry(f"{sys.argv[2]}-{number}"))
"""


def test_processes_write_at_once_and_rotate(tmp_path: Path) -> None:
    """No line is lost or torn, in whichever file it is."""
    path = tmp_path / "audit.log"
    writers = {
        name: subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in "abcd"
    }  # fmt: skip
    for writer in writers.values():
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers.values():
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers.values():
        writer.communicate(timeout=60)
        assert writer.returncode == 0

    written = [found["what"] for found in read_entries(path)]

    for name in writers:
        mine = [what for what in written if what[0] == name]
        assert mine == [f"{name}-{number}" for number in range(100)]
    files = sorted(tmp_path.glob("audit.log*"))
    assert 2 <= len(files) <= OLD_FILES + 1
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert all(file.stat().st_size <= 10_000 for file in files)


def test_full_disk_tears_no_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What could not be written is said elsewhere, and the next line is whole again."""
    log = AuditLog(tmp_path / "audit.log")
    log.append(entry("first"))
    size = (tmp_path / "audit.log").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        log.append(entry("second"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    log.append(entry("third"))

    assert [found["what"] for found in read_entries(tmp_path / "audit.log")] == ["first", "third"]
    assert len(log_lines(tmp_path)) == 2
    assert '"second"' in caplog.text


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_log_is_written_into_no_other_file(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    path = tmp_path / "audit.log"
    if kind == "link":
        path.symlink_to(target)
    else:
        os.mkfifo(path)
    AuditLog(path).append(entry("second"))
    assert target.read_text() == "precious"
    assert '"second"' in caplog.text


def test_reader_passes_over_what_is_no_entry(tmp_path: Path) -> None:
    """And begins where it is asked to."""
    path = tmp_path / "audit.log"
    now = datetime.now(UTC)
    log = AuditLog(path)
    log.append(entry("old", at=(now - timedelta(hours=2)).timestamp()))
    with path.open("ab") as file:
        file.write(b'half a li\n{"time": 1}\n[]\n\xff\n{"time": "2026-01-01"}\n')
    log.append(entry("new"))

    assert [found["what"] for found in read_entries(path)] == ["old", "new"]
    assert [found["what"] for found in read_entries(path, moment("90m", now))] == ["new"]


def test_since_is_a_time_or_how_long_ago() -> None:
    now = datetime(2026, 3, 2, 12, tzinfo=UTC)
    assert moment("1d", now) == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert moment("2026-03-01", now) == datetime(2026, 3, 1, tzinfo=UTC)
    with pytest.raises(ConfigError, match="is no time"):
        moment("yesterday", now)


def test_commands_are_noted(tmp_path: Path) -> None:
    """Tokens, deploys and maintenance, also those that failed; no secret among them."""
    home = ("--home", str(tmp_path / "home"))

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, [*arguments, *home]).stdout

    secret = run("token", "create", "--name", "ci", "--kind", "user", "--role", "viewer").strip()
    run("token", "revoke", "nothing")
    run("maintenance", "on")
    run("maintenance", "off")
    run("deployment", "create", "staging")
    (tmp_path / "f.yaml").write_text(
        "locations: [{location_name: a, code_source: {module_name: m}}]"
    )
    run("deploy", str(tmp_path / "f.yaml"))

    found = [json.loads(line) for line in run("audit", "--json").splitlines()]

    assert [(each["action"], each["what"], each["outcome"]) for each in found] == [
        ("token", "create", "ok"), ("token", "revoke", "failed"), ("maintenance", "on", "ok"),
        ("maintenance", "off", "ok"), ("deploy", "create", "ok"), ("deploy", "deploy", "ok"),
    ]  # fmt: skip
    assert found[0]["about"] == {"name": ["ci"], "kind": ["user"], "role": ["viewer"]}
    assert {each["way"] for each in found} == {"command"}
    text = (tmp_path / "home" / "audit.log").read_text()
    assert secret not in text
    assert len(run("audit", "--since", "1h").splitlines()) == 6
    assert stat.S_IMODE((tmp_path / "home" / "audit.log").stat().st_mode) == 0o600
