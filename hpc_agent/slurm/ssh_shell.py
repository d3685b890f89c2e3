"""Commands through the login shell of the other side, whichever it is and whatever it prints.

sshd hands a command line to the user's login shell, which reads its start-up files first. tcsh and
fish quote otherwise than sh(1), and start-up files print, or end the shell. So the line is always
the same, which all shells read alike, and starts sh. What sh shall do goes to its standard input:
it marks where the command's own output begins, on both streams, and becomes the command.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko

_LINE = "exec /bin/sh"
_MOST_NOISE = 64 << 10
_SHOWN_CHARACTERS = 300


class NotBegunError(OSError):
    """The login shell ended, or went on printing, and never came to the command."""


def begin(
    channel: paramiko.Channel,
    argv: Sequence[str],
    *,
    path: str | None = None,
    has_input: bool = True,
) -> str:
    """Start a command and return the mark that both of its streams begin with.

    ``path`` is put before the PATH over there; ``has_input``: what is sent next is for the command.
    Raises paramiko.SSHException and OSError.
    """
    mark = secrets.token_hex(16)
    channel.exec_command(_LINE)
    # A shell that has ended already takes nothing; what it leaves behind says why.
    with contextlib.suppress(OSError):
        channel.sendall(_script(argv, mark, path=path, has_input=has_input).encode())
        if not has_input:
            channel.shutdown_write()
    return mark


def _script(argv: Sequence[str], mark: str, *, path: str | None, has_input: bool) -> str:
    """Return one line: sh reads it to its end before it does any of it, and no further."""
    half = len(mark) // 2
    # In halves, so that what only echoes the line shows no mark.
    show = f"printf %s%s {mark[:half]} {mark[half:]}"
    words = shlex.join(argv)
    steps = [
        show,
        f"{show} >&2",
        # `exec` has taken one off, and bash would take itself for the login shell (bash(1), rshd).
        "SHLVL=1",
        "export SHLVL",
        *([f'PATH={shlex.quote(path)}:"$PATH"', "export PATH"] if path else []),
        *(["n=$(printf '\\nx')", "n=${n%x}"] if "\n" in words else []),
        "exec " + words.replace("\n", "'\"$n\"'") + ("" if has_input else " </dev/null"),
    ]
    return "; ".join(steps) + "\n"


def after_mark(printed: bytes, mark: str) -> bytes | None:
    """Return what the command itself has printed; None: it has not begun."""
    _, found, own = printed.partition(mark.encode())
    return own if found else None


def await_mark(channel: paramiko.Channel, mark: str) -> None:
    """Read standard output up to the mark, and no further. Raises NotBegunError."""
    noise = bytearray()
    while not noise.endswith(mark.encode()):
        try:
            byte = channel.recv(1)
        except TimeoutError:
            byte = b""
        noise += byte
        if not byte or len(noise) > _MOST_NOISE:
            raise NotBegunError(not_begun(bytes(noise)))


def not_begun(printed: bytes, errors: bytes = b"") -> str:
    """Say that the login shell is in the way, with what it printed."""
    text = b" ".join((errors + b"\n" + printed).split())[:_SHOWN_CHARACTERS]
    words = text.decode(errors="replace") or "nothing"
    return (
        "the login shell over there did not come to the command; its start-up files (~/.bashrc, "
        "~/.cshrc, ~/.config/fish/config.fish, …) must neither end it nor start another program "
        f"where there is no terminal. It printed: {words}"
    )
