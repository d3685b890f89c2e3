"""What the node program sends again, and what not, when the relay fails half-way."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpc_agent.node import forwarding
from hpc_agent.node.relay_address import HTTP, RelayUnreachable, dial
from hpc_agent.node.relay_client import RelayClient, Request
from hpc_agent.relay.certificate import load_or_create
from hpc_agent.tls import server_context

QUERY = b'{"query": "query q { runs { hasRun } }"}'
MUTATION = b'{"query": "mutation m { runs { addRunTags } }"}'


@dataclass
class Breaking:
    """A TLS server that drops its first connections after reading a request, then answers."""

    breaks: int
    relay_file: Path
    requests: list[bytes] = field(default_factory=list)

    def serve(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = context.wrap_socket(listener.accept()[0], server_side=True)
                with connection:
                    self.requests.append(connection.recv(65536))
                    if len(self.requests) > self.breaks:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                        connection.recv(1)


@pytest.fixture
def breaking(tmp_path: Path) -> Iterator[Breaking]:
    """Serve, breaking once."""
    certificate = load_or_create(tmp_path, ["127.0.0.1"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = Breaking(breaks=1, relay_file=tmp_path / "relay.json")
    announce(server.relay_file, listener.getsockname()[1], certificate.pem)
    thread = threading.Thread(
        target=server.serve,
        args=(listener, server_context(certificate.certificate_file, certificate.key_file, [HTTP])),
        daemon=True,
    )
    thread.start()
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def announce(path: Path, port: int, certificate: str) -> None:
    addresses = [f"127.0.0.1:{port}"]
    path.write_text(json.dumps({"version": 1, "addresses": addresses, "certificate": certificate}))


def request(body: bytes, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/graphql", named, body)


@pytest.mark.parametrize("sent", [request(QUERY), request(MUTATION, Idempotency_Key="k")])
def test_what_is_safe_is_sent_again(breaking: Breaking, sent: Request) -> None:
    """Queries, and mutations with a key, survive a connection that breaks."""
    client = RelayClient(str(breaking.relay_file))
    with contextlib.closing(client):
        exchange = forwarding.send(client, sent)
        assert exchange.read(100) == b"{}"
    assert len(breaking.requests) == 2


def test_a_mutation_without_a_key_is_not(breaking: Breaking) -> None:
    """It may have been executed: 502 says that nobody knows."""
    client = RelayClient(str(breaking.relay_file))
    with contextlib.closing(client), pytest.raises(forwarding.Unavailable) as unavailable:
        forwarding.send(client, request(MUTATION))
    assert unavailable.value.status == 502
    assert len(breaking.requests) == 1


def test_a_streamed_body_is_not(breaking: Breaking) -> None:
    """Its bytes are gone."""
    client = RelayClient(str(breaking.relay_file))
    streamed = Request("PUT", "/_hpc/upload/x", {}, iter([b"x"]), 1)
    with contextlib.closing(client), pytest.raises(forwarding.Unavailable) as unavailable:
        forwarding.send(client, streamed)
    assert unavailable.value.status == 502


@pytest.mark.parametrize("content", [None, "{", '{"version": 2}', "[]"])
def test_no_relay_is_503_in_the_end(tmp_path: Path, content: str | None) -> None:
    """No or a broken relay.json is waited out, then the child is told when to come back."""
    relay_file = tmp_path / "relay.json"
    if content is not None:
        relay_file.write_text(content)
    with pytest.raises(forwarding.Unavailable, match=r"relay\.json") as unavailable:
        forwarding.send(RelayClient(str(relay_file)), request(QUERY), patience=0.2)
    assert unavailable.value.status == 503
    assert unavailable.value.retry_after


def test_another_certificate_is_not_trusted(tmp_path: Path, breaking: Breaking) -> None:
    """Whoever took the relay's port over gets no token."""
    (tmp_path / "other").mkdir()
    other = load_or_create(tmp_path / "other", ["127.0.0.1"])
    content = json.loads(breaking.relay_file.read_text())
    announce(breaking.relay_file, int(content["addresses"][0].split(":")[1]), other.pem)
    with pytest.raises(RelayUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
        dial(str(breaking.relay_file), HTTP)
    assert breaking.requests == []
