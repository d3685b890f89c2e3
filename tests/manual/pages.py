"""What is read out of pages: blocks of code, lines that call us, words in code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRITTEN = sorted(
    [
        ROOT / "README.md",
        ROOT / "docker" / "README.md",
        *(
            path
            for path in (ROOT / "docs").rglob("*.md")
            if path.relative_to(ROOT / "docs").parts[0] not in {"reference", "_build"}
        ),
    ]
)
_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[\w-]*)\n(?P<text>.*?)^ *```$", re.M | re.S)
_CODE = re.compile(r"`([^`\n]+)`")
_CONTINUED = re.compile(r"\\\n\s*")
# What a shell takes for itself: the rest is not ours.
_ENDS = frozenset({"|", "&", ";", "&&", "||", ">", ">>", "<", "(", ")"})
_ASSIGNMENT = re.compile(r"\w+=")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: what kind it says it is, and its lines."""

    kind: str
    text: str


def name_of(path: Path) -> str:
    """Name a page for the list of tests."""
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a page, without the indentation of the list they are in."""
    found = []
    for match in _FENCE.finditer(path.read_text()):
        indent = len(match["indent"])
        lines = [line[indent:] for line in match["text"].splitlines()]
        found.append(Block(match["kind"], "\n".join(lines) + "\n"))
    return found


def calls(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of each call of `hpc-agent` in a block of shell."""
    if block.kind not in {"sh", "console"}:
        return
    for line in _CONTINUED.sub(" ", block.text).splitlines():
        if block.kind == "console" and not line.startswith(("$ ", "# ")):
            continue
        text = line[2:] if block.kind == "console" else line
        words = shlex.shlex(text, posix=True, punctuation_chars="|&;<>()")
        words.whitespace_split = True
        try:
            yield from _of_us(list(words))
        except ValueError:  # a quotation that goes on in the next line holds no call of ours
            continue


def _of_us(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in _ENDS:
            command.append(word)
            continue
        while command and (_ASSIGNMENT.match(command[0]) or command[0] in {"sudo", "exec"}):
            command.pop(0)
        if command and command[0].rpartition("/")[2] == "hpc-agent":
            yield command[1:]
        command = []


def words_in_code(path: Path) -> list[str]:
    """Return what a page has in backticks, outside of fenced blocks."""
    return _CODE.findall(_FENCE.sub("", path.read_text()))
