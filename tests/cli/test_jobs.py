"""``hpc-agent jobs | runs | requests | history | logs``: what is listed, and how it is shown."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest
from sqlite_utils import Database
from typer.testing import CliRunner

from hpc_agent.cli import app
from hpc_agent.errors import HpcAgentError, UsageError
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from hpc_agent.store.workers import WorkerKind
from tests.cli.conftest import NOW, RUN, written
from tests.workers import a_worker, put


def said(config: Path, *arguments: str) -> str:
    """Return what a command prints into a pipe."""
    command, *rest = arguments
    result = CliRunner().invoke(app, [command, "--config", str(config), *rest])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def keys(config: Path, *arguments: str) -> list[str]:
    """Return which jobs are listed, in their order."""
    return [row["key"] for row in json.loads(said(config, *arguments, "--json"))]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), ["run-1-again", "run-1", "run-2", "run-3", "server"]),
        (("--location", "alpha"), ["run-1-again", "run-1", "run-2"]),
        (("--state", "pending"), ["run-1"]),
        (("--state", "running", "--state", "INTENT"), ["run-1-again", "run-2", "server"]),
        (("--run", f"{RUN}1"), ["run-1-again", "run-1"]),
        (("--run", RUN[:8], "--partition", "batch"), ["run-1", "run-3"]),
        (("--since", "3h"), ["run-1-again", "run-1"]),
        (("--since", "2h", "--all"), ["run-1-again"]),
        (("--deployment", "staging"), []),
        (("--limit", "1"), ["run-1-again"]),
        (("--sort", "location", "--reverse", "--limit", "2"), ["server", "run-1-again"]),
        (("--sort", "elapsed", "--state", "ended"), ["run-3"]),
    ],
)
def test_jobs_are_selected(config: Path, options: tuple[str, ...], found: list[str]) -> None:
    """By each filter, by several at once, in the order that is asked for."""
    assert keys(config, "jobs", *options) == found


def test_runs_are_shown_as_their_newest_attempts_stand(config: Path) -> None:
    """One line a run, and no code servers."""
    rows = json.loads(said(config, "runs", "--json"))
    assert [(row["key"], row["attempts"]) for row in rows] == [
        ("run-1-again", 2),
        ("run-2", 1),
        ("run-3", 1),
    ]
    assert rows[1]["elapsed_seconds"] == pytest.approx(time.time() - (NOW - 1200), abs=60)


@pytest.mark.parametrize("command", ["jobs", "runs"])
def test_row_is_one_line_whatever_a_job_has_said(config: Path, command: str) -> None:
    """With whole ids in a pipe, and without codes that colour a terminal."""
    lines = said(config, command, "--all").splitlines()
    assert len(lines) == 1 + len(json.loads(said(config, command, "--all", "--json")))
    (line,) = [line for line in lines if f"{RUN}3" in line]
    assert line.rstrip().endswith("job 103, FAILED (exit code unknown) …")
    assert "\x1b" not in "".join(lines)


def test_what_looks_like_markup_is_shown_as_it_is(config: Path) -> None:
    """Names come from users."""
    assert "[red] [31mgamma" in said(config, "jobs")


@pytest.mark.parametrize(
    "name", ["0A1B2C3D-0000-4000-8000-000000000002", f"{RUN}2", "102", "run-2"]
)
def test_history_is_found_by_each_name(config: Path, name: str) -> None:
    """A run id is known by its beginning too, as Dagster's UI shows it."""
    if name.startswith("0A"):
        with pytest.raises(HpcAgentError, match="no job '0A"):
            said(config, "history", name)
        return
    assert "intent" in said(config, "history", name)


def test_beginning_of_several_run_ids_names_them(config: Path) -> None:
    """Nobody guesses which is meant."""
    with pytest.raises(HpcAgentError, match=f"beginning of several run ids: .*{RUN}1.*{RUN}3"):
        said(config, "history", RUN[:8])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--state", "pendign"), "--state: there is no 'pendign'; did you mean PENDING"),
        (("--sort", "elapsd"), "--sort: there is no 'elapsd'; did you mean elapsed"),
    ],
)
def test_word_that_means_nothing_is_refused(
    config: Path, options: tuple[str, ...], message: str
) -> None:
    """With what may have been meant, and what there is."""
    with pytest.raises(UsageError, match=message):
        said(config, "jobs", *options)


def test_time_that_is_none_is_refused(config: Path) -> None:
    """With the forms that it may have."""
    with pytest.raises(UsageError, match="'yesterday' is no time; give one like 90m, 12h or 2d"):
        said(config, "jobs", "--since", "yesterday")


def test_requests_are_listed_with_what_they_are_about(config: Path) -> None:
    """Open ones, or all of the last day; one that cannot be read is listed all the same."""
    (row,) = json.loads(said(config, "requests", "--json"))
    assert (row["api"], row["run_id"], row["location"]) == ("LAUNCH_RUN", f"{RUN}1", "alpha")
    assert row["state"] == "being served"
    rows = json.loads(said(config, "requests", "--all", "--json"))
    assert [each["state"] for each in rows] == ["answered", "being served"]
    assert json.loads(said(config, "requests", "--all", "--location", "beta", "--json")) == []


def test_logs_have_both_streams(config: Path, tmp_path: Path) -> None:
    """With titles; one stream alone is as it was printed; a job without output is told so."""
    directory = tmp_path / "work" / "jobs" / "run-2"
    directory.mkdir(parents=True)
    (directory / "stdout").write_text("out")
    (directory / "stderr").write_text("err\n")
    assert said(config, "logs", f"{RUN}2") == "==> stdout <==\nout\n==> stderr <==\nerr\n"
    assert said(config, "logs", f"{RUN}2", "--stream", "stdout") == "out"
    with pytest.raises(HpcAgentError, match="does not exist yet: job 101"):
        said(config, "logs", "101")
    with pytest.raises(HpcAgentError, match="'both' is none of stdout, stderr, job"):
        said(config, "logs", "101", "--stream", "both")


def test_followed_logs_end_with_the_job(config: Path, tmp_path: Path) -> None:
    """Nothing will be printed any more."""
    directory = tmp_path / "work" / "jobs" / "run-3"
    directory.mkdir(parents=True)
    (directory / "stderr").write_text("last words\n")
    assert said(config, "logs", f"{RUN}3", "-f", "--stream", "stderr") == "last words\n"


def test_output_that_is_a_link_is_not_printed(config: Path, tmp_path: Path) -> None:
    """It is made by user code, and leads to what is not the job's."""
    (tmp_path / "secret").write_text("secret")
    directory = tmp_path / "work" / "jobs" / "run-2"
    directory.mkdir(parents=True)
    (directory / "stderr").symlink_to(tmp_path / "secret")
    with pytest.raises(HpcAgentError, match="is not a regular file"):
        said(config, "logs", f"{RUN}2", "--stream", "stderr")


def test_run_is_explained_in_one_place(config: Path) -> None:
    """Where it is, its attempts, and what happened to it."""
    text = said(config, "explain", f"{RUN}1")
    assert text.startswith(
        f"Run {RUN}1: alpha, deployment prod, attempt 2\nwaiting to be submitted"
    )
    assert "node c1 failed" in text
    assert [line.split()[:2] for line in text.splitlines() if line.startswith(("1 ", "2 "))] == [
        ["1", "101"],
        ["2", "-"],
    ]
    found = json.loads(said(config, "explain", "103", "--json"))
    assert found["job"]["description"].count("\n") == 101
    assert [entry["phase"] for entry in found["history"]] == ["intent"]


@pytest.mark.parametrize(("name", "why"), [("103", "FAILED"), ("101", "PENDING")])
def test_job_that_does_not_run_is_not_looked_into(config: Path, name: str, why: str) -> None:
    """Nothing of it is on a node."""
    with pytest.raises(HpcAgentError, match=f"{name} does not run: job {name}, {why}"):
        said(config, "debug", name)


def test_run_that_was_launched_just_now_is_waited_for(config: Path, tmp_path: Path) -> None:
    """It is in Dagster's queue, or on its way; a beginning of an id is not waited for."""
    run_id = "7b9ea701-a952-4ac0-8b00-51eeff513804"
    directory = tmp_path / "work" / "jobs" / "late"
    directory.mkdir(parents=True)
    (directory / "stdout").write_text("here\n")
    late = a_worker(
        key="late",
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.ENDED,
        deployment="prod",
        location="alpha",
        run_id=run_id,
        created_at=NOW,
        job_id="9",
        state=JobState.COMPLETED,
    )

    def arrive(db: Database) -> None:
        put(db, late)

    arrives = threading.Timer(1.0, lambda: asyncio.run(written(config, arrive)))
    arrives.start()
    assert "here" in said(config, "logs", "-f", run_id)
    arrives.join()
    with pytest.raises(HpcAgentError, match="no job '99999999'"):
        said(config, "logs", "-f", "99999999")


def test_what_a_job_has_said_does_nothing_to_the_terminal(config: Path) -> None:
    """Its last words are shown line by line, without what a terminal obeys."""
    late = a_worker(
        key="loud",
        kind=WorkerKind.RUN_WORKER,
        phase=Phase.ENDED,
        deployment="prod",
        location="alpha",
        run_id="loud",
        created_at=NOW,
        job_id="9",
        state=JobState.FAILED,
        message="red \x1b[31m\nnext\tcolumn \x9b2J \u202e",
    )

    def loud(db: Database) -> None:
        put(db, late)

    asyncio.run(written(config, loud))
    text = said(config, "explain", "loud")
    assert "\nnext    column" in text
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)
