"""All faces: one gRPC server on one unix socket per location, kept in step with the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from dagster._grpc.__generated__.dagster_api_pb2_grpc import add_DagsterApiServicer_to_server
from dagster._grpc.utils import max_rx_bytes, max_send_bytes

from hpc_agent.control_plane.faces.servicer import Face
from hpc_agent.control_plane.faces.view import LocationView
from hpc_agent.control_plane.home import prepare_socket

STOP_GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Hanging:
    face: Face
    server: grpc.aio.Server
    socket: Path


class Gallery:
    """Opens a face for each location, shows it new views, and closes it when the location goes."""

    def __init__(
        self, new_face: Callable[[LocationView], Face], socket_of: Callable[[str], Path]
    ) -> None:
        self._new_face = new_face
        self._socket_of = socket_of
        self._faces: dict[str, _Hanging] = {}

    async def show(self, views: list[LocationView]) -> None:
        """Make the open faces be those of these views."""
        wanted = {view.face_name: view for view in views}
        for name in set(self._faces) - set(wanted):
            await self._close(name)
        for name, view in wanted.items():
            if name in self._faces:
                self._faces[name].face.view = view
            else:
                self._faces[name] = await self._open(view)

    def sockets(self) -> dict[str, Path]:
        """Return where each location's face listens."""
        return {name: hanging.socket for name, hanging in sorted(self._faces.items())}

    def view(self, name: str) -> LocationView:
        return self._faces[name].face.view

    async def close(self) -> None:
        await asyncio.gather(*(self._close(name) for name in list(self._faces)))

    async def _open(self, view: LocationView) -> _Hanging:
        socket = self._socket_of(view.face_name)
        prepare_socket(socket)
        server = grpc.aio.server(
            options=[
                ("grpc.max_send_message_length", max_send_bytes()),
                ("grpc.max_receive_message_length", max_rx_bytes()),
            ]
        )
        face = self._new_face(view)
        add_DagsterApiServicer_to_server(face, server)  # type: ignore[no-untyped-call]
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        return _Hanging(face, server, socket)

    async def _close(self, name: str) -> None:
        hanging = self._faces.pop(name)
        await hanging.server.stop(STOP_GRACE_SECONDS)
        hanging.socket.unlink(missing_ok=True)
