"""The child's way out: an HTTP server on the loopback that passes requests on to the relay."""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, Optional, Tuple, Union

from . import forwarding
from .bodies import CHUNK_BYTES, BodyBroken, BodyTooLarge, read_body, stream_body
from .guests import Guests, Head
from .journal import log
from .relay_client import Exchange, RelayClient, Request
from .tokens import (
    LOOPBACK_HEADER,
    RESTART_HEADER,
    TOKEN_HEADER,
    UPLOAD_PREFIX,
    same_token,
    upload_is_signed,
)

# What one hop says to the next stays between them (RFC 9110, section 7.6.1).
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "expect",
    )
)
_SHORTAGE_SECONDS = 0.2
# What the stock client repeats, with pauses that double without bound unless it is told how long to
# wait (RETRY_STATUS_CODES in dagster_cloud_cli/core/graphql_client.py).
_COME_BACK = (409, 429, 502, 503, 504)
_REPLACED = _HOP_BY_HOP | {name.lower() for name in (TOKEN_HEADER, LOOPBACK_HEADER, RESTART_HEADER)}


class LoopbackProxy(ThreadingHTTPServer):
    """Listens on 127.0.0.1 and a free port; answers nobody who does not know the job's token."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        client: RelayClient,
        token: str,
        restart_count: int = 0,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """``is_over`` says whether nothing is taken of the child any more."""
        self.client = client
        self.is_over = is_over
        self.restart_count = restart_count
        self.token = token
        self.guests = Guests()
        self._forwarding = 0
        self._forwarded = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = "127.0.0.1:%d" % self.server_address[1]

    def server_bind(self) -> None:
        # HTTPServer.server_bind asks DNS for the name of 127.0.0.1, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, name="loopback", daemon=True).start()

    def finish(self, seconds: float) -> None:
        """Wait for the requests of a child that has ended: after its end nothing is taken of it."""
        with self._forwarded:
            self._forwarded.wait_for(lambda: not self._forwarding, seconds)

    def forward(self, request: Request) -> Exchange:
        """Send a request to the relay. Raises forwarding.Unavailable."""
        if self.is_over():
            raise forwarding.Unavailable(503, "this job is being ended, and another goes on")
        with self._forwarded:
            self._forwarding += 1
        try:
            return forwarding.send(self.client, request)
        finally:
            with self._forwarded:
                self._forwarding -= 1
                self._forwarded.notify_all()

    def get_request(self) -> Tuple[socket.socket, Any]:
        """Accept a connection; without descriptors the selector would call again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_SHORTAGE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, once there is room for it."""
        self.guests.admit(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.guests.leave(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Look after the connections, twice a second."""
        self.guests.drop_late()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a child that closes its connections at exit is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "hpc-agent"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = CHUNK_BYTES
    timeout = 120  # an idle connection of the child
    server: LoopbackProxy

    def setup(self) -> None:
        super().setup()
        self._body = self.rfile
        self._head = Head(self._body)
        self.rfile = self._head  # type: ignore[assignment]  # has what is used of it

    def handle_one_request(self) -> None:
        self._head.begin()
        super().handle_one_request()

    def do_GET(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def do_PUT(self) -> None:
        self._forward()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing per request: slurm.out is for events, and paths can be secrets."""

    def _forward(self) -> None:
        if not self._authorized():
            self._refuse(401, "this address belongs to a Slurm job: its job token is required")
            return
        self.server.guests.vouch(self.connection)
        try:
            request = self._request()
        except BodyTooLarge:
            self._refuse(413, "the request body is larger than 16 MiB")
            return
        except BodyBroken as error:
            self._refuse(400, str(error))
            return
        try:
            exchange = self.server.forward(request)
        except forwarding.Unavailable as error:
            log("%s: %s" % (request.path.split("/_hpc/")[0] or "upload", error))
            self._refuse(error.status, str(error), error.retry_after)
            return
        try:
            self._answer(exchange)
        finally:
            exchange.close()

    def _authorized(self) -> bool:
        if self.headers.get("Host") != self.server.address:
            return False  # a web page may have its name lead here
        if self.path.startswith(UPLOAD_PREFIX):
            return upload_is_signed(self.path, self.server.token)
        return same_token(self.headers.get(TOKEN_HEADER, ""), self.server.token)

    def _request(self) -> Request:
        headers: Dict[str, str] = {}
        for name, value in self.headers.items():
            if name.lower() not in _REPLACED:
                headers[name] = value
        headers[TOKEN_HEADER] = self.server.token
        headers[LOOPBACK_HEADER] = self.server.address
        headers[RESTART_HEADER] = str(self.server.restart_count)
        if self.path.startswith(UPLOAD_PREFIX):
            body = stream_body(self.headers, self._body)
            return Request(self.command, self.path, headers, body.chunks, body.length)
        return Request(self.command, self.path, headers, read_body(self.headers, self._body))

    def _answer(self, exchange: Exchange) -> None:
        response = exchange.response
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if response.status in _COME_BACK and response.getheader("Retry-After") is None:
            self.send_header("Retry-After", str(forwarding.RETRY_AFTER_SECONDS))
        length = response.length
        if length is not None:
            self.send_header("Content-Length", str(length))
        elif self.command != "HEAD":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self._copy(response, chunked=length is None)
        except (OSError, http.client.HTTPException):
            # Part of the answer is out already: only a closed connection says that it broke off.
            self.close_connection = True

    def _copy(self, response: http.client.HTTPResponse, chunked: bool) -> None:
        while True:
            data = response.read(CHUNK_BYTES) if not chunked else response.read1(CHUNK_BYTES)
            if not data:
                break
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            if chunked:
                self.wfile.flush()
        if response.length:
            self.close_connection = True  # it broke off: the promised length is not kept
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _refuse(self, status: int, message: str, retry_after: Optional[int] = None) -> None:
        # The stock client retries 502 and 503 only when the answer has no "errors" key.
        document: Dict[str, Union[str, list]] = {"error": message}  # type: ignore[type-arg]
        if status < 500:
            document = {"errors": [{"message": message}]}
        body = json.dumps(document).encode("utf-8")
        self.close_connection = True
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if retry_after is None and status in _COME_BACK:
            retry_after = forwarding.RETRY_AFTER_SECONDS
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
