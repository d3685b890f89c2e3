"""Messages between processes of one node: JSON behind its length, and descriptors with it."""

from __future__ import annotations

import array
import json
import select
import socket
import struct
from typing import Any, Dict, List, Optional, Sequence, Tuple

# An argument of a command is 128 KiB at most, and all of them with the environment some MiB.
LARGEST = 16 << 20
_MOST_DESCRIPTORS = 4
_LENGTH = struct.Struct("!I")

Message = Dict[str, Any]


class Closed(Exception):  # noqa: N818
    """The other process has ended, or closed the connection."""


def send(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send a message, and copies of descriptors with it. Raises Closed."""
    body = json.dumps(message).encode()
    rights = array.array("i", descriptors)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    try:
        sock.sendmsg([_LENGTH.pack(len(body))], ancillary)
        sock.sendall(body)
    except OSError as error:
        raise Closed(str(error)) from error


def receive(sock: socket.socket) -> Tuple[Message, List[int]]:
    """Wait for a message; the descriptors are the caller's to close. Raises Closed."""
    room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
    try:
        head, ancillary, _, _ = sock.recvmsg(_LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        head += _exactly(sock, _LENGTH.size - len(head))
        (length,) = _LENGTH.unpack(head)
        if length > LARGEST:
            raise Closed("a message of %d bytes" % length)
        message = json.loads(_exactly(sock, length).decode())
    except (OSError, ValueError) as error:
        raise Closed(str(error)) from error
    if not isinstance(message, dict):
        raise Closed("a message that is no object")
    return message, list(descriptors)


def receive_now(sock: socket.socket) -> Optional[Message]:
    """Return a message that is there, None where there is none yet. Raises Closed."""
    return receive(sock)[0] if is_readable(sock, 0.0) else None


def is_readable(sock: socket.socket, seconds: float) -> bool:
    """Whether there is something to read, or the other side has closed, within that time."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _exactly(sock: socket.socket, length: int) -> bytes:
    parts = []
    while length > 0:
        part = sock.recv(length)
        if not part:
            raise Closed("the other process has closed the connection")
        length -= len(part)
        parts.append(part)
    return b"".join(parts)
