"""The supervisor's side of one process that imports a user's code: a template's, or a spare."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any, Dict, Optional

from .. import signals
from ..child import before_exec
from ..spec import TemplateSpec
from .messages import Message, receive_now

_BACKLOG = 512


class WarmProcess:
    """One process that has imported the user's code, or is about to."""

    def __init__(
        self,
        spec: TemplateSpec,
        start: str,
        address: str,
        listener: socket.socket,
        environment: Dict[str, str],
    ) -> None:
        """Start it. Raises OSError."""
        self._link, its = socket.socketpair()
        self.is_ready = False
        self.since = time.monotonic()
        # Read and removed by the process: each has descriptors of its own.
        settings = "%s.%s.json" % (address, os.urandom(4).hex())
        try:
            with its:
                _write(settings, _settings(spec, start, its.fileno(), listener.fileno()))
                process = subprocess.Popen(
                    [spec.python, sys.argv[0], "--template", settings],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(its.fileno(), listener.fileno()),
                    preexec_fn=before_exec(),  # noqa: PLW1509  (one thread)
                )
        except OSError:
            self._link.close()
            raise
        self.pid = process.pid
        # The supervisor waits for all its processes itself; Popen would warn of this one.
        process.returncode = 0
        signals.watch(self._link.fileno())

    def told(self) -> Optional[Message]:
        """Return what it has said since. Raises Closed."""
        return receive_now(self._link)

    def close(self) -> None:
        """Let it end: it does when it is not wanted any more."""
        self._link.close()


def _settings(spec: TemplateSpec, start: str, link: int, listener: int) -> Dict[str, Any]:
    return {
        "start": start,
        "link": link,
        "listener": listener,
        "code_origin": spec.code_origin,
        "working_directory": spec.working_directory,
        "dagster_yaml": spec.dagster_yaml,
    }


def _write(path: str, document: Dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file)


def listener_at(address: str) -> socket.socket:
    """Return a socket at which processes of one template accept connections. Raises OSError."""
    with contextlib.suppress(OSError):
        os.unlink(address)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
