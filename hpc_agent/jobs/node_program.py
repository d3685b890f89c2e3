"""Build the zipapp of ``hpc_agent/node`` that every job directory links to."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from hpc_agent.files import Files, LocalFiles

_PACKAGE = "hpc_agent_node"
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Parses under every Python 3, so that an old one gets a sentence instead of a SyntaxError.
_MAIN = """\
import sys
if sys.version_info < (3, 8):
    sys.exit("hpc-agent node: needs Python 3.8 or newer, this is " + sys.version.split()[0])
from hpc_agent_node.__main__ import main
sys.exit(main())
"""


def build_node_program(lib_dir: Path, files: Files | None = None) -> Path:
    """Write ``node-DIGEST.pyz`` into ``lib_dir`` unless it is there, and return its path.

    The digest is over the contents, so agents of one version share a file and another version
    gets its own; jobs that run keep the one they were started with.
    """
    files = files or LocalFiles()
    contents = _contents()
    digest = hashlib.sha256()
    for name, data in contents:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    target = lib_dir / f"node-{digest.hexdigest()[:16]}.pyz"
    files.make_directory(lib_dir)
    if target.name not in files.names(lib_dir):
        files.write(target, _zipped(contents))
    return target


def _zipped(contents: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _contents() -> list[tuple[str, bytes]]:
    modules = _modules(resources.files("hpc_agent.node"), _PACKAGE)
    return sorted([("__main__.py", _MAIN.encode()), *modules])


def _modules(package: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in package.iterdir():
        if entry.name.endswith(".py"):
            yield f"{name}/{entry.name}", entry.read_bytes()
        elif entry.joinpath("__init__.py").is_file():
            yield from _modules(entry, f"{name}/{entry.name}")
