"""A server that may answer anything at all: bytes on a real socket, with or without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpc_agent.relay.certificate import load_or_create

# Takes a connection and the head of the request that came on it.
Reply = Callable[[socket.socket, str], None]


@dataclass(slots=True)
class HostileServer:
    """Where it listens; ``heads`` are those of the requests that came."""

    url: str
    heads: list[str] = field(default_factory=list)


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def always(content: bytes) -> Reply:
    """Give the same answer to all."""
    return lambda connection, _: connection.sendall(content)


@contextmanager
def hostile_server(reply: Reply, *, tls: Path | None = None) -> Iterator[HostileServer]:
    """Listen as long as the block lasts; ``tls`` is a directory for key and certificate."""
    listener = socket.create_server(("127.0.0.1", 0))
    scheme, context = "http", None
    if tls is not None:
        made = load_or_create(tls, ["127.0.0.1"])
        scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate_file, made.key_file)
    server = HostileServer(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            plain.settimeout(30)
            with context.wrap_socket(plain, server_side=True) if context else plain as connection:
                head = _request(connection)
                server.heads.append(head)
                reply(connection, head)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _request(connection: socket.socket) -> str:
    """Read a request with its body; return its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(1 << 16)
        if not part:
            raise OSError("gone")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    length = next(
        (
            int(line[15:])
            for line in text.lower().split("\r\n")
            if line.startswith("content-length:")
        ),
        0,
    )
    left = length - len(body)
    while left > 0 and (part := connection.recv(1 << 16)):
        left -= len(part)
    return text
