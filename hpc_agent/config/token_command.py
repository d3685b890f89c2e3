"""What a command prints that is asked for a secret: with a deadline, a bound, and nothing told."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from hpc_agent.descriptors import as_given
from hpc_agent.errors import ConfigError, ControlPlaneAuthError

COMMAND_SECONDS = 30.0
MOST_BYTES = 16 << 10


def printed_by(
    argv: Sequence[str], environ: Mapping[str, str], *, seconds: float = COMMAND_SECONDS
) -> str:
    """Run a command and return its standard output. Blocks.

    Raises ConfigError when it is no program, and ControlPlaneAuthError when it fails, hangs or
    prints without end. What it has printed is in no error: it may be a token.
    """
    where = f"control_plane.token_command: {argv[0]}"
    # Asked here: as_given runs a shell, which would say it with an exit code.
    if shutil.which(argv[0], path=environ.get("PATH")) is None:
        raise ConfigError(f"{where}: no program of this name can be run")
    try:
        process = subprocess.Popen(
            as_given(argv),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    deadline = time.monotonic() + seconds
    with process:
        try:
            output, errors = _read(process, deadline)
            code = process.wait(max(deadline - time.monotonic(), 0.0))
        except (TimeoutError, subprocess.TimeoutExpired, OverflowError) as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            fault = (
                f"printed more than {MOST_BYTES} bytes"
                if isinstance(error, OverflowError)
                else f"gave no answer in {seconds:g} s"
            )
            raise ControlPlaneAuthError(f"{where} {fault}") from None
    if code != 0:
        words = " ".join(errors.decode(errors="replace").split())
        raise ControlPlaneAuthError(f"{where} failed (exit code {code}): {words or 'no message'}")
    return output.decode(errors="replace")


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Read both streams to their ends. Raises TimeoutError, and OverflowError for too much."""
    assert process.stdout is not None and process.stderr is not None  # noqa: S101  # both are pipes
    output, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as streams:
        streams.register(process.stdout, selectors.EVENT_READ, output)
        streams.register(process.stderr, selectors.EVENT_READ, errors)
        while streams.get_map():
            ready = streams.select(max(deadline - time.monotonic(), 0.0))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                chunk = os.read(key.fd, MOST_BYTES)
                key.data.extend(chunk)
                if not chunk:
                    streams.unregister(key.fileobj)
                if len(key.data) > MOST_BYTES:
                    raise OverflowError
    return bytes(output), bytes(errors)
