"""The relay's port on the login node, where the agent is not: opened through SSH, kept open, told.

Jobs read ``relay.json`` anew at each connection, so another port is no more than a wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from hpc_agent.config import AgentConfig
from hpc_agent.jobs.directory import RELAY_FILE, WorkDirectory
from hpc_agent.private_files import write_private
from hpc_agent.relay.server import Relay
from hpc_agent.slurm.ssh_forward import Listening, RemotePort
from hpc_agent.slurm.ssh_shared import SharedConnection

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0


class RelayPortLoop:
    """Opens the port again whenever it is lost."""

    def __init__(
        self,
        config: AgentConfig,
        relay: Relay,
        *,
        login_node: SharedConnection,
        work: WorkDirectory,
        program: Path,
        state_dir: Path,
    ) -> None:
        """Take what is needed: ``program`` is the node program, ``work`` where jobs are told.

        ``state_dir`` is on local disk and has the last port.
        """
        self._config = config
        self._relay = relay
        self._work = work
        self._argv = [config.node_python, str(program), "--forward"]
        self._port = RemotePort(login_node, local_port=relay.port)
        self._memory = state_dir / "relay-port-there"

    async def step(self) -> float:
        """Open the port unless it is. Raises SchedulerUnavailableError."""
        if not self._port.is_open:
            await asyncio.to_thread(self._open)
        return _LOOK_SECONDS

    async def close(self) -> None:
        """Close the port; jobs wait for the next agent."""
        await asyncio.to_thread(self._port.close)

    def _open(self) -> None:
        """Open it where it was last, since a firewall may know that port, or elsewhere."""
        settings = self._config.relay
        wanted = settings.port or self._last()
        listening = self._port.open(
            self._argv,
            {
                "bind": settings.bind,
                "port": wanted,
                "allow": [str(network) for network in settings.allow],
                "must": bool(settings.port),
            },
        )
        write_private(self._memory, f"{listening.port}\n")
        self._tell(listening)

    def _tell(self, listening: Listening) -> None:
        hosts = self._config.relay.advertise or [listening.host]
        told = self._relay.announcement(hosts, listening.port)
        self._work.files.write(self._work.path / RELAY_FILE, told, durable=True)
        log.info("jobs reach the relay at %s, port %d", ", ".join(hosts), listening.port)

    def _last(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._memory.read_text())
        return 0
