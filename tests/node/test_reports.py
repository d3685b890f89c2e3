"""A report is repeated until the agent itself has answered it, whatever else answers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpc_agent.node.records import JobContext
from hpc_agent.node.relay_address import HTTP
from hpc_agent.node.relay_client import RelayClient
from hpc_agent.node.reports import Answer, Reporter, ReportFailed
from hpc_agent.relay.certificate import load_or_create
from hpc_agent.tls import server_context
from tests.node.test_forwarding import announce

CONTEXT = JobContext(key="run-1", hostname="c1", slurm_job_id="17", restart_count=0, started_at=0.0)
PROCEED = b'{"proceed": true, "resume": false, "reason": ""}'


@dataclass
class Relay:
    """A TLS server that sends one answer after the other, then the last one again."""

    relay_file: Path
    answers: Sequence[bytes] = ()
    served: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        while not self.done.is_set():
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(listener.accept()[0], server_side=True) as connection,
            ):
                while not connection.recv(65536).endswith(b"}"):
                    pass  # what is not read resets the connection, and with it the answer
                answer = self.answers[min(self.served, len(self.answers) - 1)]
                self.served += 1
                connection.sendall(answer)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    certificate = load_or_create(tmp_path, ["127.0.0.1"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = Relay(tmp_path / "relay.json")
    announce(server.relay_file, listener.getsockname()[1], certificate.pem)
    thread = threading.Thread(
        target=server.serve,
        args=(listener, server_context(certificate.certificate_file, certificate.key_file, [HTTP])),
        daemon=True,
    )
    thread.start()
    yield server
    server.done.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def http(body: bytes, status: str = "200 OK", head: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + (head or length) + b"\r\n" + body


GARBAGE = [
    http(b"<html>bad gateway</html>", "502 Bad Gateway"),
    http(b"<html>welcome to the captive portal</html>"),
    http(b"{}"),
    http(b"[]"),
    http(b"null"),
    http(b'{"proceed": "yes"}'),
    http(b'{"proceed": true, "resume": "no"}'),
    http(b"[" * 60_000),
    http(b"\xff\xfe"),
    http(PROCEED + b" " * (64 << 10)),
    http(PROCEED, head=b"Content-Length: 5000\r\n"),
    http(b"zz\r\nx", head=b"Transfer-Encoding: chunked\r\n"),
    http(PROCEED, "302 Found"),
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    b"no HTTP at all\r\n\r\n",
    b"HTTP/1.1 9999999999999999999999 OK\r\n\r\n",
    b"",
]


def report(relay: Relay, seconds: float) -> Answer:
    client = RelayClient(str(relay.relay_file))
    with contextlib.closing(client):
        return Reporter(client, "token", CONTEXT).report("started", seconds, lambda _: False)


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_answer_and_the_report_is_sent_again(relay: Relay, garbage: bytes) -> None:
    """Something between us and the agent said it, or the agent while it starts."""
    relay.answers = [garbage, http(PROCEED)]
    assert report(relay, 20).proceed
    assert relay.served == 2


def test_garbage_without_end_is_given_up_in_time(relay: Relay) -> None:
    """With words, not with a traceback."""
    relay.answers = [http(b"<html>" + b"x" * 100_000 + b"</html>")]
    with pytest.raises(ReportFailed, match="larger than 65536 bytes"):
        report(relay, 0.0)
    relay.answers = [http(b"<html>x</html>")]
    with pytest.raises(ReportFailed, match="this is no answer of the agent: <html>x"):
        report(relay, 0.0)


def test_a_reason_is_bounded(relay: Relay) -> None:
    """It goes into the exit record."""
    relay.answers = [http(b'{"proceed": false, "reason": "' + b"x" * 50_000 + b'"}')]
    answer = report(relay, 0.0)
    assert (answer.proceed, len(answer.reason)) == (False, 2000)
