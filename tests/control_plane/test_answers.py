"""Answers under an idempotency key: given once, and the same to every repetition."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.idempotency import IdempotencyKeys
from hpc_agent.errors import ControlPlaneRefusedError
from tests.control_plane.conftest import on_both_databases


class UnsentError(Exception):
    """Nothing was done."""


class Launcher:
    """Counts what it is made to do; ``fail`` is raised by the next attempts."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.fail = fail
        self.launched = 0

    def __call__(self) -> str:
        if self.fail is not None:
            raise self.fail
        self.launched += 1
        return f"run {self.launched}"


def ask(database: Database, launch: Callable[[], str], key: str = "k") -> str:
    return IdempotencyKeys(database).answer_once(key, launch, undone=UnsentError)


@on_both_databases
def test_repetition_gets_the_first_answer(database: Database) -> None:
    """Nothing is done a second time, and another key is another thing to do."""
    launch = Launcher()

    assert [ask(database, launch), ask(database, launch)] == ["run 1", "run 1"]
    assert ask(database, launch, key="other") == "run 2"


@on_both_databases
def test_what_was_not_done_is_tried_again(database: Database) -> None:
    """A webserver that could not be reached has launched nothing."""
    launch = Launcher(UnsentError())
    with pytest.raises(UnsentError):
        ask(database, launch)

    launch.fail = None

    assert ask(database, launch) == "run 1"


@on_both_databases
def test_unknown_outcome_is_not_tried_again(database: Database) -> None:
    """It may have been done: who asks again is told to look."""
    launch = Launcher(TimeoutError())
    with pytest.raises(TimeoutError):
        ask(database, launch)

    launch.fail = None

    with pytest.raises(ControlPlaneRefusedError, match="its outcome is not known: look whether"):
        ask(database, launch)
    assert launch.launched == 0


def test_repetition_at_another_gateway_waits_for_the_first(shared_url: str) -> None:
    """Two gateways share what they have answered, and what they are about to answer."""
    launch, begun, may_go_on = Launcher(), threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert may_go_on.wait(30)
        return launch()

    with (
        contextlib.closing(Database(shared_url)) as one,
        contextlib.closing(Database(shared_url)) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(ask, one, slow)
        assert begun.wait(30)
        second = pool.submit(ask, two, launch)
        may_go_on.set()

        assert [first.result(30), second.result(30)] == ["run 1", "run 1"]
    assert launch.launched == 1
