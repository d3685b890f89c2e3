"""Updates: which code locations have a newer version on its way, and how it stands.

The gateway tells the webserver beside it by a file: a stock workspace knows only what a code server
serves, and shows a location whose next version waits in a queue as if nothing were to come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from dagster._core.workspace.workspace import (
    CodeLocationEntry,
    CodeLocationLoadStatus,
    CurrentWorkspace,
)
from dagster_shared.record import copy

from hpc_agent.private_files import write_private

KEY = "newer version"
"""Under which the page of a code location shows it, among its metadata."""


def write_updates(path: Path, texts: Mapping[str, str]) -> None:
    """Write the file unless it says the same; by the names that the webserver knows."""
    content = json.dumps(texts, sort_keys=True).encode()
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content, durable=False)


class UpdatesShown:
    """Puts updates into a workspace; keeps what it made until either changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._texts: Mapping[str, str] = {}
        self._made: tuple[CurrentWorkspace, Mapping[str, str], CurrentWorkspace] | None = None

    def within(self, workspace: CurrentWorkspace) -> CurrentWorkspace:
        """Return the workspace with the locations that are being updated marked as that."""
        texts = self._read()
        if not texts.keys() & workspace.code_location_entries.keys():
            return workspace
        made = self._made
        if made is None or made[0] is not workspace or made[1] is not texts:
            # Kept, because a workspace holds the graph of all assets once that was asked for.
            made = self._made = workspace, texts, _with_updates(workspace, texts)
        return made[2]

    def _read(self) -> Mapping[str, str]:
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_ino
            if seen != self._seen:
                self._texts = json.loads(self._path.read_bytes())
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._texts = None, {}
        return self._texts


def _with_updates(workspace: CurrentWorkspace, texts: Mapping[str, str]) -> CurrentWorkspace:
    return CurrentWorkspace(
        {
            name: _updating(entry, texts[name]) if name in texts else entry
            for name, entry in workspace.code_location_entries.items()
        }
    )


def _updating(entry: CodeLocationEntry, text: str) -> CodeLocationEntry:
    """The UI fetches what has a new version key, and shows no error of what is loading."""
    status = entry.load_status if entry.load_error else CodeLocationLoadStatus.LOADING
    return copy(
        entry,
        load_status=status,
        display_metadata={**entry.display_metadata, KEY: text},
        version_key=json.dumps([entry.version_key, text]),
    )
