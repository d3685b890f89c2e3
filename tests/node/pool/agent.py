"""What stands in for the agent: a TLS server that takes reports and hands out work."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hpc_agent.relay.certificate import load_or_create


@dataclass(slots=True)
class Report:
    """A report of a member, and the token that came with it."""

    token: str
    body: dict[str, Any]


@dataclass(slots=True)
class Orders:
    """What the agent wants of the allocation, and what it was told; guarded by ``changed``."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    number: int = 1
    start: list[str] = field(default_factory=list)
    end: list[tuple[str, str]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    is_leaving: bool = False
    refuses: bool = False
    said: dict[str, Any] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def answer(self, call: dict[str, Any]) -> dict[str, Any]:
        """Wait as the call asks for, and say everything."""
        with self.changed:
            self.said = call
            self.calls.append(call)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.number != call["seen"], call["wait"])
            return {
                "number": self.number,
                "start": [key for key in self.start if key not in self.said["held"]],
                "end": self.end,
                "templates": self.templates,
                "is_leaving": self.is_leaving,
            }


class StandIn:
    """The server, at a port of its own; ``relay.json`` leads to it."""

    def __init__(self, directory: Path) -> None:
        self.orders = Orders()
        made = load_or_create(directory, ["127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate_file, made.key_file)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.orders))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.relay = {
            "version": 1,
            "addresses": [f"127.0.0.1:{self._server.server_port}"],
            "certificate": made.certificate_file.read_text(),
        }
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def change(self, **changes: Any) -> None:
        """Change what is wanted; the call that waits is answered."""
        with self.orders.changed:
            for name, value in changes.items():
                setattr(self.orders, name, value)
            self.orders.number += 1
            self.orders.changed.notify_all()

    def close(self) -> None:
        self.change()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(orders: Orders) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            token = self.headers["Dagster-Cloud-Api-Token"]
            if self.path == "/_hpc/report":
                with orders.changed:
                    orders.reports.append(Report(token, body))
                self._answer(200, {"proceed": True})
            elif orders.refuses or not token.startswith("pol-"):
                self._answer(403, {})
            else:
                self._answer(200, orders.answer(body))

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            with contextlib.suppress(OSError):  # who asked has ended
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
