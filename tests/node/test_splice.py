"""Splicing of two sockets."""

from __future__ import annotations

import os
import socket
import threading

from hpc_agent.node.splice import splice


def test_bytes_pass_both_ways_until_one_side_ends() -> None:
    """A slow reader gets everything that was sent before the end, in order."""
    left, left_inner = socket.socketpair()
    right, right_inner = socket.socketpair()
    thread = threading.Thread(target=_splice_and_close, args=(left_inner, right_inner))
    thread.start()
    payload = os.urandom(8 << 20)
    sender = threading.Thread(target=_send_and_close, args=(left, payload))
    with right:
        right.sendall(b"back")
        assert left.recv(4, socket.MSG_WAITALL) == b"back"
        sender.start()
        received = bytearray()
        while data := right.recv(4096):
            received += data
    sender.join()
    thread.join(30)
    assert not thread.is_alive()
    assert bytes(received) == payload


def _splice_and_close(first: socket.socket, second: socket.socket) -> None:
    with first, second:
        splice(first, second)


def _send_and_close(sock: socket.socket, payload: bytes) -> None:
    with sock:
        sock.sendall(payload)
