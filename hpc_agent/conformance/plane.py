"""A control plane of its own for the cases: a fresh home, a free port, its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.control_plane.database_url import storage_yaml
from hpc_agent.control_plane.door.config import UiConfig
from hpc_agent.control_plane.door.door import open_door
from hpc_agent.control_plane.home import Home, prepare_home
from hpc_agent.control_plane.process import STORAGE_THREADS, Addresses, ControlPlane, StartOptions
from hpc_agent.control_plane.server import bind
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.tokens import TokenKind, Tokens
from hpc_agent.control_plane.tls import generated_certificate

READY_SECONDS = 120.0
GOODBYE_SECONDS = 0.25
"""For TLS connections to be closed by both ends before their event loop goes away."""

DEPLOYMENT = "prod"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A running control plane and tokens for it."""

    home: Home
    api: str
    ui: str | None
    ca: str
    agent_token: str
    user_token: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the stock client trusts our certificate."""
        return {"REQUESTS_CA_BUNDLE": self.ca, "DAGSTER_CLOUD_URL": self.api}


@contextlib.contextmanager
def running_plane(
    root: Path, *, webserver: bool = False, database_url: str | None = None
) -> Iterator[Plane]:
    """Run a control plane in a thread until the block ends; its daemon stays off.

    With ``database_url`` everything it keeps is in that PostgreSQL, else in SQLite.

    Meanwhile REQUESTS_CA_BUNDLE of this process names its certificate authority: the stock client
    has no other setting for that.
    """
    home = Home(root, database_url)
    prepare_home(home, storage=storage_yaml(database_url, {}))
    tls = generated_certificate(home.tls, "127.0.0.1")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(bind("127.0.0.1", 0)))
        door = open_door(UiConfig(), "127.0.0.1", 0, tls) if webserver else None
        if door is not None:
            stack.enter_context(contextlib.closing(door.listener))
        options = StartOptions(home=home, webserver=webserver, daemon=False)
        running = _Running(ControlPlane(options, listener, tls, door))
        with running, _tokens(home) as (agent_token, user_token):
            plane = Plane(
                home=home, api=running.addresses.api, ui=running.addresses.ui, ca=str(tls.ca),
                agent_token=agent_token, user_token=user_token,
            )  # fmt: skip
            with environment({"REQUESTS_CA_BUNDLE": plane.ca}):
                yield plane


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables of this process for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _tokens(home: Home) -> Iterator[tuple[str, str]]:
    with contextlib.closing(Database(home.database_url)) as database:
        tokens = Tokens(database)
        _, agent_token = tokens.create("conformance", TokenKind.AGENT)
        _, user_token = tokens.create("conformance", TokenKind.USER)
    yield agent_token, user_token


class _Running:
    """A ControlPlane on an event loop of its own."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        self._ready: Future[Addresses] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="control-plane")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def addresses(self) -> Addresses:
        return self._ready.result(0)

    def __enter__(self) -> None:
        self._thread.start()
        try:
            self._ready.result(READY_SECONDS)
        except BaseException:
            self._end()
            raise

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """Stop it. Raises what ended it before that."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._ended.result(0)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 told to the thread that waits
            self._ended.set_exception(error)
            if not self._ready.done():
                self._ready.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_default_executor(
            ThreadPoolExecutor(STORAGE_THREADS, thread_name_prefix="storage")
        )
        await self._control_plane.run(self._stop, self._ready.set_result)
        await asyncio.sleep(GOODBYE_SECONDS)
