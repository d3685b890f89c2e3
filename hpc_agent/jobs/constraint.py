"""Constraints on features of nodes, as sbatch(1) has them: ``a100&(nvlink|ib)``."""

from __future__ import annotations

import re
from collections.abc import Collection

_TOKEN = re.compile(r"[A-Za-z0-9_.:=+-]+|[&|,()\[\]]")
_COUNT = re.compile(r"\*\d+")


def allows(constraint: str, features: Collection[str]) -> bool:
    """Whether a node with these features may be one of the job's.

    Operators are applied from left to right. Of alternatives in brackets, which all nodes of a job
    must share, and of counts (``a*2&b``), a node needs to have one. Raises ValueError.
    """
    if not constraint:
        return True
    if "*" in constraint or "[" in constraint:
        names = re.findall(r"[A-Za-z0-9_.:=+-]+", _COUNT.sub("", constraint))
        return any(name in features for name in names)
    return _Reader(_TOKEN.findall(constraint), features).whole()


class _Reader:
    def __init__(self, tokens: list[str], features: Collection[str]) -> None:
        self._tokens = tokens
        self._features = features

    def whole(self) -> bool:
        found = self._series()
        if self._tokens:
            raise ValueError(f"not a constraint: {self._tokens[0]!r} is too much")
        return found

    def _series(self) -> bool:
        found = self._one()
        while self._tokens and self._tokens[0] in {"&", ",", "|"}:
            operator, other = self._tokens.pop(0), self._one()
            found = (found or other) if operator == "|" else (found and other)
        return found

    def _one(self) -> bool:
        word = self._tokens.pop(0) if self._tokens else ""
        if word == "(":
            found = self._series()
            if not self._tokens or self._tokens.pop(0) != ")":
                raise ValueError("not a constraint: a parenthesis is not closed")
            return found
        if not word or word in "&|,)":
            raise ValueError("not a constraint: a feature is missing")
        return word in self._features
