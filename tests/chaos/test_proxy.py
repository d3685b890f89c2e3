"""The proxy's rules see each call that is on its way, also one that was there before them."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import httpx
import pytest

from hpc_agent.control_plane.tls import generated_certificate
from tests.chaos.http import Call, Kind, Reply
from tests.chaos.proxy import Proxy, Rule

POPPED = b'{"data": {"api": "LAUNCH_RUN"}}'
POLL = b'{"query": "query { popUserCloudAgentRequests }"}'


class Noting(Rule):
    """Notes at which points it saw a call."""

    def __init__(self) -> None:
        self.points: list[str] = []

    async def before(self, call: Call) -> Reply | None:
        self.points.append(f"before {call.kind.value}")
        return None

    async def after(self, call: Call, reply: Reply) -> Reply:
        self.points.append(f"after {call.kind.value}")
        return reply

    async def sent(self, call: Call, reply: Reply) -> None:
        self.points.append(f"sent {call.kind.value}" + " with launch" * reply.has_launch)


class LongPoll:
    """A control plane that keeps its only caller waiting until it is told to answer."""

    def __init__(self, tls: Path) -> None:
        self.has_call = threading.Event()
        self.may_answer = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(tls / "server.pem", tls / "server.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        plain, _ = self._listener.accept()
        with self._context.wrap_socket(plain, server_side=True) as connection:
            connection.settimeout(30)
            data = b""
            while POLL not in data:
                data += connection.recv(1 << 16)
            self.has_call.set()
            self.may_answer.wait(30)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(POPPED))
            connection.sendall(POPPED)

    def close(self) -> None:
        """Answer, and end."""
        self.may_answer.set()
        self._listener.close()
        self._thread.join(30)


def test_rule_sees_answer_of_poll_that_waits_since_before_it(tmp_path: Path) -> None:
    tls = generated_certificate(tmp_path, "127.0.0.1")
    assert tls.ca is not None
    upstream, proxy, rule = LongPoll(tmp_path), Proxy(tmp_path), Noting()
    answers: list[bytes] = []
    try:
        proxy.start(upstream.url)
        context = ssl.create_default_context(cafile=str(tls.ca))

        def ask() -> None:
            answer = httpx.post(f"{proxy.url}/graphql", content=POLL, verify=context, timeout=30)
            answers.append(answer.content)

        asking = threading.Thread(target=ask)
        asking.start()
        assert upstream.has_call.wait(30)
        with proxy.ruled(rule):
            upstream.may_answer.set()
            asking.join(30)
            proxy.close()
    finally:
        upstream.close()

    assert answers == [POPPED]
    assert rule.points == ["after poll", "sent poll with launch"]


@pytest.mark.parametrize(("body", "kind"), [(POLL, Kind.POLL), (b"{}", Kind.OTHER)])
def test_call_is_told_by_what_it_asks(body: bytes, kind: Kind) -> None:
    assert Call(method="POST", target="/graphql", headers=(), body=body).kind is kind
