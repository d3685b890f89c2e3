"""The files that a script has promised: whether it has written them, and how large they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

# Times of NFS and of local file systems are that coarse.
_SLACK_SECONDS = 2.0
_SHOWN = 20


@dataclass(frozen=True)
class _File:
    path: Path
    size: int


def metadata_of(outputs: Mapping[str, Path], *, since: float) -> dict[str, Any]:
    """Return path and size of each output, a pattern's of all its files.

    Raises Failure that names all outputs that are missing, empty or older than ``since``.
    """
    found: dict[str, list[_File]] = {}
    wrong: list[str] = []
    for label, pattern in outputs.items():
        files = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
        wrong += [f"{label}: {words}" for words in _wrong(pattern, files, since)]
        found[label] = [_File(each, each.stat().st_size) for each in files]
    if wrong:
        raise dg.Failure(
            "the script has succeeded without writing what it was to write:\n" + "\n".join(wrong)
        )
    return {key: value for label, files in found.items() for key, value in _metadata(label, files)}


def _wrong(pattern: Path, files: list[Path], since: float) -> Iterator[str]:
    if not files:
        yield f"there is no {pattern}"
    for path in files:
        status = path.stat()
        if path.is_dir():
            continue
        if status.st_size == 0:
            yield f"{path} is empty"
        elif status.st_mtime < since - _SLACK_SECONDS:
            yield f"{path} is older than the job"


def _metadata(label: str, files: list[_File]) -> Iterator[tuple[str, Any]]:
    if len(files) == 1:
        yield label, dg.MetadataValue.path(files[0].path)
    else:
        shown = "\n".join(f"* `{each.path}`" for each in files[:_SHOWN])
        more = f"\n* … {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        yield label, dg.MetadataValue.md(shown + more)
        yield f"{label} files", len(files)
    yield f"{label} bytes", sum(each.size for each in files)
