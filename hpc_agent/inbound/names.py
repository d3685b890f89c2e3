"""Names that become part of a path."""

from __future__ import annotations

from urllib.parse import unquote


def is_file_name(text: str, *, longest: int) -> bool:
    """Whether a text of at most so many bytes can be the name of a file, and of nothing else.

    Whoever undoes percent encoding once more must find no way up either.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    meant = unquote(text)
    return (
        0 < size <= longest
        and text.isprintable()
        and meant.isprintable()
        and not {text, meant} & {".", ".."}
        and not any(sign in meant for sign in "/\\")
    )
