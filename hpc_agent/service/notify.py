"""Tell systemd how a service is doing (sd_notify), without libsystemd."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """Send state changes to the service manager; do nothing when there is none.

    ``address`` is the manager's datagram socket, a path or ``@name`` (abstract).
    ``watchdog_interval`` is how often `watchdog` must be called, in seconds; None when no watchdog
    runs. Source: sd_notify(3), sd_watchdog_enabled(3).
    """

    address: str | None = None
    watchdog_interval: float | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID as systemd sets them."""
        variables = os.environ if environment is None else environment
        address = variables.get("NOTIFY_SOCKET", "")
        # systemd also knows "vsock:…", which only the manager of a virtual machine hands out.
        if not address.startswith(("/", "@")):
            return cls()
        return cls(address=address, watchdog_interval=_watchdog_interval(variables))

    def ready(self) -> None:
        """Say that start-up, or a reload, has finished."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show one line of text in ``systemctl status``."""
        # A newline would start another assignment.
        self._send("STATUS=" + " ".join(text.split()))

    def watchdog(self) -> None:
        """Say that the service is alive."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the shutdown has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self.address is None:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                # Never wait for a manager that does not read: the event loop calls this.
                channel.setblocking(False)
                channel.sendto(message.encode(), address)
        except OSError as error:
            # The service must survive a restart of its manager.
            log.warning("systemd was not told %r at %s: %s", message, self.address, error)


def _watchdog_interval(variables: Mapping[str, str]) -> float | None:
    """Return half of the watchdog's limit in seconds, as sd_watchdog_enabled(3) recommends."""
    microseconds = variables.get("WATCHDOG_USEC", "")
    pid = variables.get("WATCHDOG_PID", str(os.getpid()))
    # A child that inherited the variables is not the process that the watchdog watches.
    if not microseconds.isdecimal() or int(microseconds) == 0 or pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
