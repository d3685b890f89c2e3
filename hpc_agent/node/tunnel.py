"""Reverse tunnels of a code server: connections parked at the relay, spliced when it says go."""

from __future__ import annotations

import binascii
import json
import os
import socket
import ssl
import threading

from .journal import log
from .relay_address import TUNNEL, RelayUnreachable, dial
from .splice import splice

FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 15.0
# The relay pings every 20 s and waits 20 s: silence for longer is a half-open connection.
SILENCE_SECONDS = 60.0


class Refused(Exception):  # noqa: N818
    """The relay did not park the connection; the message is its reason."""


class Tunnels:
    """Keeps some connections parked; each that is used is replaced at once by another."""

    def __init__(self, relay_file: str, token: str, code_server_socket: str, parked: int) -> None:
        self._relay_file = relay_file
        self._socket = code_server_socket
        self._parked = parked
        generation = binascii.hexlify(os.urandom(8)).decode("ascii")
        self._hello = json.dumps({"token": token, "generation": generation}).encode() + b"\n"
        self._stopped = threading.Event()
        self._last_failure = ""

    def start(self) -> None:
        """Park the connections, each in a thread of its own."""
        for _ in range(max(1, self._parked)):
            threading.Thread(target=self._keep_parked, name="tunnel", daemon=True).start()

    def stop(self) -> None:
        """Park no more; threads end with the process."""
        self._stopped.set()

    def _keep_parked(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopped.is_set():
            try:
                connection = self._park()
                pause = FIRST_PAUSE_SECONDS
                if self._wait_for_go(connection):
                    threading.Thread(
                        target=self._serve, args=(connection,), name="splice", daemon=True
                    ).start()
                    continue
                connection.close()
            except (RelayUnreachable, Refused, OSError) as error:
                self._note(str(error))
                pause = min(pause * 2, MAX_PAUSE_SECONDS)
            self._stopped.wait(pause)

    def _park(self) -> ssl.SSLSocket:
        connection = dial(self._relay_file, TUNNEL)
        try:
            connection.sendall(self._hello)
            _expect_parked(connection)
        except BaseException:
            connection.close()
            raise
        self._note("")
        return connection

    def _wait_for_go(self, connection: ssl.SSLSocket) -> bool:
        """Answer pings until the relay wants the connection (True) or drops it (False)."""
        connection.settimeout(SILENCE_SECONDS)
        try:
            while True:
                signal = connection.recv(1)
                if signal == b"G":
                    return True
                if signal != b"P":
                    return False
                connection.sendall(b"P")
        except OSError:
            return False

    def _serve(self, connection: ssl.SSLSocket) -> None:
        with connection, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local:
            try:
                local.connect(self._socket)
            except OSError as error:
                log("the code server does not accept connections: %s" % error)
                return
            splice(connection, local)

    def _note(self, failure: str) -> None:
        """Log changes only: an agent that is away for hours should not fill slurm.out."""
        if failure != self._last_failure:
            self._last_failure = failure
            log(failure or "tunnel parked at the relay")


def _expect_parked(connection: ssl.SSLSocket) -> None:
    answer = connection.recv(1)
    if answer != b"+":
        rest = connection.recv(500) if answer == b"-" else b"it closed the connection"
        raise Refused("tunnel refused: %s" % rest.decode("utf-8", "replace").strip())
