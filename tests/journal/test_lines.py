"""Every line says what it is about, for people and for machines."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_agent.errors import HpcAgentError
from hpc_agent.isolation import for_each
from hpc_agent.journal.about import about, about_nothing, note
from hpc_agent.journal.configuration import JournalOptions, configure_journal
from hpc_agent.store.database import Store
from tests.journal.lines import Lines, written_lines

RUN, REQUEST = "0f3c5a52-8f8e-4a57-9d8b-8d7a1c2e9b10", "77aa5a52-8f8e-4a57-9d8b-8d7a1c2e9b10"
log = logging.getLogger("tests.journal")


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the test logs."""
    with written_lines() as found:
        yield found


def test_ids_are_short_for_people_and_whole_for_machines(lines: Lines) -> None:
    """As Dagster's UI shows them; an id that the line has already is not said twice."""
    fields = {
        "run_id": RUN,
        "request_id": REQUEST,
        "job_id": "4711",
        "key": "run-1",
        "location": "",
    }
    with about(fields):
        log.info("submitted")
        log.info("job 4711 waits")
    log.info("idle")

    text = lines.text.getvalue().splitlines()
    assert text[0].endswith("submitted [request 77aa5a52, run 0f3c5a52, job 4711]")
    assert text[1].endswith("job 4711 waits [request 77aa5a52, run 0f3c5a52]")
    assert text[2].endswith("idle")
    known = {name: value for name, value in fields.items() if value}
    assert lines.entries[0].items() >= known.items()
    assert "location" not in lines.entries[0]
    assert "run_id" not in lines.entries[2]


def test_traceback_follows_the_line_in_text_and_is_a_field_in_json(lines: Lines) -> None:
    """The ids are on the line that says what went wrong."""
    with about({"job_id": "4711"}):
        try:
            int("x")
        except ValueError:
            log.exception("failed")

    assert "failed [job 4711]\nTraceback" in lines.text.getvalue()
    (entry,) = lines.entries
    assert entry["exception"].startswith("Traceback")


def test_id_from_elsewhere_makes_no_line_of_its_own(lines: Lines) -> None:
    """Nor a colour on somebody's terminal."""
    with about({"location": "a\n2026-01-01 ERROR forged\x1b[31m", "run_id": "x" * 500}):
        log.info("here")

    (line,) = lines.text.getvalue().splitlines()
    assert "\x1b" not in line
    assert len(line) < 200
    assert len(lines.entries) == 1


async def test_fields_go_with_the_work(lines: Lines, tmp_path: Path) -> None:
    """Into tasks, threads and the store; not into what begins by itself."""
    store = Store(tmp_path / "home")
    await store.open()

    async def beside() -> None:
        with about_nothing():
            note({"run_id": "other"})
            log.info("beside")

    with about({"run_id": RUN}):
        await store.run(lambda _: log.info("in the store"))
        await asyncio.to_thread(log.info, "in a thread")
        await asyncio.create_task(beside())
        log.info("after")
    await store.close()

    assert [(entry["message"], entry["run_id"]) for entry in lines.entries] == [
        ("in the store", RUN),
        ("in a thread", RUN),
        ("beside", "other"),
        ("after", RUN),
    ]


async def test_each_item_of_many_has_its_own(lines: Lines) -> None:
    """What is logged of one does not carry the ids of another."""

    async def work(item: str) -> None:
        log.info("at work")
        if item == "b":
            raise HpcAgentError("b fails")

    await for_each("x", ["a", "b"], work, name=str, fields=lambda item: {"job_id": item})

    at_work = [entry["job_id"] for entry in lines.entries if entry["message"] == "at work"]
    assert at_work == ["a", "b"]
    assert "job_id" not in lines.entries[-1]


def test_log_goes_where_it_is_sent(tmp_path: Path) -> None:
    """A file of JSON lines, in a directory that is not there yet, and nothing below the level."""
    root, path = logging.getLogger(), tmp_path / "home" / "agent.log"
    before, level = root.handlers[:], root.level
    try:
        configure_journal(JournalOptions(level="warning", format="json", file=path))
        log.info("not this")
        log.warning("this")
        (line,) = path.read_text().splitlines()
        assert json.loads(line)["message"] == "this"
        root.handlers[0].close()
    finally:
        root.handlers[:], root.level = before, level
