"""What the code can say: its string literals, with `…` for whatever is put into them."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import hpc_agent

PACKAGE = Path(hpc_agent.__file__).parent
GAP = "…"


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Return every module of the package as a tree, the demo's links left out."""
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def said() -> tuple[str, ...]:
    """Return the literals of the code: parts that stand side by side are one."""
    return tuple(
        text for tree in trees().values() for node in ast.walk(tree) if (text := text_of(node))
    )


def text_of(node: ast.AST) -> str:
    """Return a literal's text, empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or GAP for part in node.values)
    return ""


def can_be_said(message: str) -> bool:
    """Whether some literal has all fixed parts of a message, in their order."""
    pattern = re.compile(".*".join(map(re.escape, message.split(GAP))), re.DOTALL)
    return any(pattern.search(text) for text in said())


def arguments_of(function: str) -> Iterator[str]:
    """Yield the literals with which a function is called anywhere."""
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) == function:
                yield from filter(None, map(text_of, node.args))


def variables() -> Iterator[str]:
    """Yield environment variables that are read by name, and all names of our own."""
    for tree in trees().values():
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="get" | "setdefault", value=of), args=[name, *_]
                ):
                    yield from _if_environment(of, name)
                case ast.Subscript(value=of, slice=name):
                    yield from _if_environment(of, name)
                case ast.Constant(value=str(text)) if re.fullmatch(
                    r"HPC_AGENT_[A-Z]+(_[A-Z]+)*", text
                ):
                    yield text


def _if_environment(of: ast.AST, name: ast.AST) -> Iterator[str]:
    if _name(of) == "environ" and (text := text_of(name)):
        yield text


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))
