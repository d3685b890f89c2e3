"""Files that an installation writes, and removes again: told by their marker from others'."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hpc_agent.errors import ConfigError
from hpc_agent.private_directories import own_directory

MARKER = "# Written by `hpc-agent service install`."


def put(path: Path, text: str, *, mode: int = 0o644, force: bool = False) -> bool:
    """Write a file atomically, and tell whether it has changed.

    One that was not written by us is kept unless ``force``: ConfigError.
    """
    present = content_of(path)
    if present is not None and MARKER not in present and not force:
        raise ConfigError(
            f"{path} was not written by hpc-agent: move it away, or replace it with --force"
        )
    if present != text:
        _write_atomically(path, text, mode)
    return present != text


def take_away(path: Path, *links: Path) -> bool:
    """Remove a file of ours with links to it, and tell whether there was one.

    Raises ConfigError for one that is not ours, or that cannot be removed.
    """
    present = content_of(path)
    if present is not None and MARKER not in present:
        raise ConfigError(f"{path} was not written by hpc-agent: remove it by hand")
    try:
        for each in (path, *links):
            each.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be removed: {error.strerror}") from error
    return present is not None


def content_of(path: Path) -> str | None:
    """Return the text of a file, None where there is none. Raises ConfigError."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _write_atomically(path: Path, text: str, mode: int) -> None:
    try:
        own_directory(path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(temporary).chmod(mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
