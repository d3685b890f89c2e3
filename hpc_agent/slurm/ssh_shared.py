"""One SSH connection that commands, files and the relay's port share; blocking, for threads.

It is made at the first use and again when it is lost, after growing waits while that fails.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from hpc_agent.errors import ConfigError
from hpc_agent.slurm.ssh_connection import CONNECT_SECONDS, Connection, SshTarget, connect

if TYPE_CHECKING:
    import paramiko

_WAITS = (1.0, 2.0, 5.0, 15.0, 30.0)


class SharedConnection:
    """Opens channels on one connection, whoever asks."""

    def __init__(self, target: SshTarget) -> None:
        self.target = target
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._problem = ""
        self._is_closed = False

    def open_session(self) -> paramiko.Channel:
        """Return a new channel. Raises paramiko.SSHException or OSError: then nothing was sent."""
        import paramiko

        transport = self.transport()
        try:
            return transport.open_session(timeout=CONNECT_SECONDS)
        except paramiko.ChannelException:
            raise  # the other side refuses one more; the channels that are open go on
        except (paramiko.SSHException, OSError):
            self.drop(transport)
            raise

    def transport(self) -> paramiko.Transport:
        """Return what channels are opened on, of a new connection when the old one is dead.

        Raises OSError.
        """
        with self._lock:
            if self._is_closed:
                raise OSError(f"the connection to {self.target.host} was closed")
            if self._connection is not None and not self._connection.lives:
                self._connection.close()
                self._connection = None
            self._connection = self._connection or self._connect()
            return self._connection.transport

    def drop(self, transport: paramiko.Transport | None = None) -> None:
        """Close the connection, unless it is no longer that of this transport."""
        with self._lock:
            connection = self._connection
            if connection is None:
                return
            if transport is not None and connection.client.get_transport() is not transport:
                return
            self._connection = None
        connection.close()

    def close(self) -> None:
        """Close the connection for good."""
        with self._lock:
            self._is_closed = True
        self.drop()

    def words(self, error: Exception) -> str:
        """Return an error as a sentence that names the host."""
        words = str(error) or type(error).__name__
        prefix = f"Unable to connect to {self.target.host} by ssh: "
        return words if words.startswith(prefix) else f"{prefix}{words}"

    def _connect(self) -> Connection:
        """Connect, but not at once again after a failure: the next waiter gets the same words."""
        import paramiko

        if time.monotonic() < self._not_before:
            raise OSError(self._problem)
        try:
            connection = connect(self.target)
        except (paramiko.SSHException, OSError, ConfigError) as error:
            wait = _WAITS[min(self._failures, len(_WAITS) - 1)]
            self._failures += 1
            self._not_before = time.monotonic() + wait
            self._problem = self.words(error)
            raise OSError(self._problem) from error
        self._failures = 0
        return connection
