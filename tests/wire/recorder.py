"""A gateway in front of the gateway: it passes on what agents send, keeps it, and adds requests."""

from __future__ import annotations

import json
import ssl
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

# Not passed on: the connection's own, and the long poll, which would hold back added requests.
_OWN_HEADERS = frozenset(
    {"connection", "content-length", "transfer-encoding", "accept-encoding", "prefer"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One call of an agent or of a run worker, with its answer; header names in lower case."""

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Any:
        """The body, where it is JSON."""
        return json.loads(self.body)

    @property
    def inflated(self) -> str:
        """The one zlib-compressed file of a multipart body, as text."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + self.body)
        (part,) = message.iter_parts()
        content: Any = part.get_payload(decode=True)
        return zlib.decompress(content).decode()


@dataclass(slots=True)
class Recorder:
    """Listens with the control plane's own certificate, so that upload addresses lead here too."""

    upstream: str
    tls: Path
    exchanges: list[Exchange] = field(default_factory=list)
    answers: dict[str, Exchange] = field(default_factory=dict)
    port: int = 0
    _waiting: list[dict[str, Any]] = field(default_factory=list)
    _added: set[str] = field(default_factory=set)
    _server: ThreadingHTTPServer | None = None
    _client: httpx.Client | None = None

    @property
    def url(self) -> str:
        """Where agents find it."""
        return f"https://127.0.0.1:{self.port}"

    def add(self, requests: Sequence[dict[str, Any]]) -> None:
        """Hand out requests with the next poll; their answers are kept and not passed on."""
        self._added |= {request["requestId"] for request in requests}
        self._waiting += requests

    def start(self) -> None:
        """Listen."""
        self._client = client = httpx.Client(
            base_url=self.upstream,
            verify=ssl.create_default_context(cafile=str(self.tls / "ca.pem")),
            timeout=120,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls / "server.pem", self.tls / "server.key")
        server = _Server(("127.0.0.1", 0), _handler(self, client))
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = int(server.server_address[1])
        self._server = server
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._client is not None:
            self._client.close()

    def take(self, exchange: Exchange, content: bytes) -> bytes:
        """Keep an exchange and return the answer that is sent, added requests included."""
        self.exchanges.append(exchange)
        if exchange.path == "/graphql" and b"popUserCloudAgentRequests" in exchange.body:
            answer = json.loads(content)
            if self._waiting and answer.get("data"):
                answer["data"]["userCloudAgent"]["popUserCloudAgentRequests"] += self._waiting
                self._waiting = []
                return json.dumps(answer).encode()
        return content

    def swallows(self, exchange: Exchange) -> bool:
        """Whether this is the answer to an added request; then it is kept."""
        if exchange.path != "/upload_api_response":
            return False
        request_id = json.loads(exchange.inflated)["request_id"]
        if request_id not in self._added:
            return False
        self.answers[request_id] = exchange
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go away."""


def _handler(recorder: Recorder, client: httpx.Client) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            parts = urlsplit(self.path)
            exchange = Exchange(
                method=self.command,
                path=parts.path,
                query=parse_qsl(parts.query),
                headers=headers,
                body=body,
                status=200,
            )
            if recorder.swallows(exchange):
                self._answer(200, "application/json", b'{"ok": true}')
                return
            passed = {name: value for name, value in headers.items() if name not in _OWN_HEADERS}
            reply = client.request(self.command, self.path, headers=passed, content=body)
            content = recorder.take(exchange, reply.content)
            self._answer(reply.status_code, reply.headers.get("content-type", ""), content)

        do_GET = do_PUT = do_POST = _pass_on  # noqa: N815 - names of http.server

        def _answer(self, status: int, content_type: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Stay silent."""

    return Handler
