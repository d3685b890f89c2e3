"""What the documents name is there, and what they say of the core is what the code says."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import operator
import re
from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

from hpc_agent.agent.bells import Bells
from hpc_agent.agent.loop import Bell
from hpc_agent.cli import app
from hpc_agent.manual.library import REFERENCE, reference
from hpc_agent.runs.last_word import RunEnd, last_word
from hpc_agent.store.news import Topic
from hpc_agent.store.phases import FINAL, TRANSITIONS, Phase
from hpc_agent.store.workers import WorkerKind
from tests.manual.pages import ROOT, WRITTEN
from tests.workers import a_worker

ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [*WRITTEN, ROOT / "CONTRIBUTING.md"]
OURS = re.compile(r"`((?:hpc_agent|tests|templates|slurm|docker|docs|examples)/[\w./-]+)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
# A module and what it is named for: `hpc_agent/…/….py`: `Name` or `Name.method`.
PLACE = re.compile(r"`(hpc_agent/[\w/]+)\.py`: `([\w.]+)`")
ANSWERS = {True: "failure, in Slurm's words", False: "success"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    """A page that points to what was renamed or removed is mended with it."""
    text = page.read_text()
    missing = [name for name in OURS.findall(text) if not (ROOT / name).exists()]
    missing += [link for link in LINK.findall(text) if not leads_somewhere(page, link)]
    assert missing == []


def test_pictures_are_small_and_shown() -> None:
    """A clone brings them along, and one that no page shows is forgotten."""
    pictures = [*(ROOT / "docs" / "images").glob("*.png")]
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []
    shown = "".join(page.read_text() for page in PAGES)
    assert [path.name for path in pictures if f"images/{path.name})" not in shown] == []


def test_way_of_a_launch_names_what_is_there() -> None:
    """At most seven steps, each with the function that a newcomer reads next."""
    rows = rows_of("How LAUNCH_RUN becomes a last word")
    assert [row[0] for row in rows] == [str(number + 1) for number in range(len(rows))]
    assert len(rows) <= 7
    for row in rows:
        places = PLACE.findall(" ".join(row))
        assert places, row
        for path, name in places:
            module = importlib.import_module(path.replace("/", "."))
            operator.attrgetter(name)(module)


def test_page_has_the_transitions_of_the_code() -> None:
    """All of them and no others, in the order of a worker's life."""
    assert rows_of("Phases", table=0) == [
        [before.name, ", ".join(each.name for each in Phase if each in after) or "nothing: final"]
        for before, after in sorted(
            TRANSITIONS.items(), key=lambda item: list(Phase).index(item[0])
        )
    ]


def test_page_has_the_last_words_of_the_code() -> None:
    """For each final phase, whatever became of its request and whoever wanted its end."""
    said = {}
    for phase, is_open, is_asked in itertools.product(FINAL, (True, False), (True, False)):
        worker = a_worker(
            key="k",
            kind=WorkerKind.RUN_WORKER,
            phase=phase,
            deployment="prod",
            location=None,
            created_at=0.0,
            terminate_at=1.0 if is_asked else None,
        )
        word = last_word(worker, is_request_open=is_open, run_status="STARTED")
        answer = ANSWERS[word.failure is not None] if is_open else "given before"
        told = "nothing" if word.run_end is RunEnd.NOTHING else word.run_end.name
        said[phase.name, is_open, is_asked] = answer, told
    written = {
        (phase, is_open, is_asked): (answer if is_open else "given before", told)
        for phase, request, asked, answer, told in rows_of("Phases", table=1)
        for is_open in read_as(request, "open", "answered")
        for is_asked in read_as(asked, "yes", "no")
    }
    # Only one that was asked to end is withdrawn.
    assert written == {key: value for key, value in said.items() if key[0] != "WITHDRAWN" or key[2]}


async def test_page_has_the_bells_of_the_code() -> None:
    """Each kind of change with the loops that it wakes."""
    rung = await asyncio.gather(*map(rung_by, Topic))
    assert rows_of("Bells") == [
        [topic.name, topic.value, ", ".join(names)]
        for topic, names in zip(Topic, rung, strict=True)
    ]


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link has a file at its end, or a page that is made from the code."""
    target = (page.parent / link).resolve()
    if target.parent == ROOT / "docs" / REFERENCE:
        return target.stem in reference(get_command(app))
    return target.exists()


def test_each_behaviour_of_user_code_is_tested() -> None:
    """The last column of the page names a test that is there."""
    there = "".join(path.read_text() for path in (ROOT / "tests/e2e").glob("test_user_code*.py"))
    rows = rows_of("Tried", page=ROOT / "docs" / "user-code.md")
    assert len(rows) > 15
    for user_code, outcome, *_, test in rows:
        assert outcome.split()[0] in {"works", "does", "with"}, user_code
        assert f"\ndef {test.strip('`')}(" in there, user_code


def rows_of(heading: str, *, table: int = 0, page: Path = ARCHITECTURE) -> list[list[str]]:
    """Return the rows of a table in a section of a page, without its head."""
    _, _, rest = page.read_text().partition(f"\n## {heading}\n")
    section = rest.partition("\n## ")[0]
    found = re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE)[table]
    lines = found.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def read_as(cell: str, yes: str, no: str) -> list[bool]:
    """Return what a cell holds for; an empty one for both."""
    assert cell in {"", yes, no}
    return [value for value, word in ((True, yes), (False, no)) if cell in {"", word}]


async def rung_by(topic: Topic) -> list[str]:
    """Return the names of the bells that a change rings."""
    bells = Bells()
    bells.ring_for([topic])

    async def has_rung(bell: Bell) -> bool:
        try:
            async with asyncio.timeout(1):
                await bell.wait(10)
        except TimeoutError:
            return False
        return True

    names = [each.name for each in fields(bells)]
    rung = await asyncio.gather(*(has_rung(getattr(bells, name)) for name in names))
    return [name for name, is_rung in zip(names, rung, strict=True) if is_rung]
