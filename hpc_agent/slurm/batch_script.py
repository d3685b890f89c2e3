"""A batch script as sbatch reads it: its interpreter, and the words of its ``#SBATCH`` lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

_FOREIGN = re.compile(r"#(PBS|BSUB|SLURM)\b")


def interpreter_of(text: str) -> tuple[str, ...]:
    """Return the interpreter and its argument. Raises ValueError, in the words of sbatch."""
    first = text.partition("\n")[0]
    if not text.strip():
        raise ValueError("Batch script is empty!")
    if not first.startswith("#!"):
        raise ValueError("This does not look like a batch script: its first line must be #!/bin/sh")
    return tuple(first[2:].strip().split(None, 1))


def directives(text: str) -> list[str]:
    """Return the ``#SBATCH`` lines before the first command."""
    return [line for line in _head(text) if line.startswith("#SBATCH")]


def directive_words(text: str) -> Iterator[list[str]]:
    """Yield the words of each ``#SBATCH`` line before the first command.

    Raises ValueError for a quote that is not closed.
    """
    for line in directives(text):
        yield shlex.split(line.removeprefix("#SBATCH"), comments=True)


def foreign_directives(text: str) -> list[str]:
    """Return the lines in other words, of other batch systems too, which sbatch reads as well."""
    return [line for line in _head(text) if _FOREIGN.match(line)]


def _head(text: str) -> Iterator[str]:
    for line in text.split("\n")[1:]:
        if line.strip() and not line.lstrip().startswith("#"):
            return
        yield line
