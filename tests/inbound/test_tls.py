"""What TLS is spoken, by `openssl s_client` and with both listeners' context."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.inbound.door import open_door

OLD = ["-tls1", "-tls1_1"]
WEAK = [
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-ECDSA-AES128-CCM8",
]
GOOD = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]


def shaken(port: int, *options: str) -> str:
    """Return what s_client says of a handshake; it may use whatever openssl can at all."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-brief", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", OLD)
async def test_old_versions_are_refused(tmp_path: Path, version: str) -> None:
    """TLS 1.0 and 1.1 (RFC 8996), though the client lowers its security level for them."""
    async with open_door(tmp_path) as door:
        said = await asyncio.to_thread(shaken, door.port, version, "-cipher", "ALL@SECLEVEL=0")
    assert "CONNECTION ESTABLISHED" not in said


@pytest.mark.parametrize("cipher", WEAK)
async def test_weak_ciphers_are_refused(tmp_path: Path, cipher: str) -> None:
    """CBC and SHA-1 (RFC 9325, section 4.2), also from a client that has nothing else."""
    async with open_door(tmp_path) as door:
        said = await asyncio.to_thread(
            shaken, door.port, "-tls1_2", "-cipher", f"{cipher}@SECLEVEL=0"
        )
    assert "CONNECTION ESTABLISHED" not in said


@pytest.mark.parametrize("cipher", GOOD)
async def test_good_ciphers_are_taken(tmp_path: Path, cipher: str) -> None:
    """The tests above would see a connection if there was one."""
    async with open_door(tmp_path) as door:
        said = await asyncio.to_thread(shaken, door.port, "-tls1_2", "-cipher", cipher)
    assert "CONNECTION ESTABLISHED" in said
    assert cipher in said


async def test_newest_version_is_preferred(tmp_path: Path) -> None:
    """Who can speak 1.3 does; nothing is compressed."""
    async with open_door(tmp_path) as door:
        _, writer = await door.dial()
        secured = writer.get_extra_info("ssl_object")
        assert secured.version() == "TLSv1.3"
        assert secured.compression() is None
        writer.transport.abort()


async def test_client_renegotiates_nothing(tmp_path: Path) -> None:
    """TLS 1.2 lets a client ask for one handshake after the other, each at our cost."""
    async with open_door(tmp_path) as door:
        process = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{door.port}", "-tls1_2"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(20):
            await process.stdout.readuntil(b"SSL handshake")
            await asyncio.sleep(0.3)
            process.stdin.write(b"R\n")
            await process.stdin.drain()
            said, _ = await process.communicate()
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said


def test_clients_are_as_strict() -> None:
    """The agent's own connections, and the node program's."""
    from hpc_agent import tls
    from hpc_agent.node import relay_address

    context = tls.tightened(ssl.create_default_context())
    assert all(each["aead"] for each in context.get_ciphers())
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert relay_address.CIPHERS == tls.CIPHERS
