"""What somebody may have meant by a word that means nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALIKE = 0.6
_LONGEST = 100


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1, prefix: str = "") -> str:
    """Return ``; did you mean …?`` with the closest known words, nothing where none is close."""
    names = {each.lower(): each for each in sorted(known)}
    close = difflib.get_close_matches(word[:_LONGEST].lower(), names, n=most, cutoff=_ALIKE)
    likely = " or ".join(prefix + names[each] for each in close)
    return f"; did you mean {likely}?" if close else ""
