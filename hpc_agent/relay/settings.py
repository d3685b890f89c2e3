"""The relay's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hpc_agent.inbound.limits import Limits
from hpc_agent.inbound.listener import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Where the relay listens and keeps its files.

    ``port`` 0 keeps the port of the last start when it is free. ``advertise`` are the hosts (or
    ``host:port``) that compute nodes should try, in order; empty means the bind address, or this
    host's name (its address, where the name has none). ``allow`` empty admits every network.
    ``state_dir`` is on local disk, ``work_dir`` on the shared file system; None tells nobody of the
    relay, see ``Relay.announcement``. ``socket_dir`` None makes a temporary directory.
    ``limits.idle_seconds`` is longer than the node program keeps idle connections: it is the node
    that closes them.
    """

    state_dir: Path
    work_dir: Path | None
    bind: str = "0.0.0.0"  # noqa: S104  (compute nodes must reach it; every request needs a token)
    port: int = 0
    advertise: tuple[str, ...] = ()
    allow: tuple[Network, ...] = ()
    socket_dir: Path | None = None
    spool_max_bytes: int = 4 << 30
    # For how long an event write is tried again that the control plane answers with an error of its
    # own; see control_plane.set_aside_after_seconds.
    set_aside_after_seconds: float = 3600.0
    # How long reads wait here for a control plane that is away: the stock client comes back six
    # times only, so each time should count. It gives up after 60 s, an attempt's time among them.
    patience_seconds: float = 30.0
    stop_seconds: float = 3.0
    limits: Limits = field(default_factory=Limits)
