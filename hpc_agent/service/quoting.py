"""Quoting for unit files, which know no shell, and for crontabs.

Sources: systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers"; crontab(5).
"""

from __future__ import annotations

import re
import shlex


def quote_word(text: object) -> str:
    """Quote one word the systemd way: C escapes, and ``%%`` so that no specifier is expanded."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", escaped) + '"'


def quote_argument(text: object) -> str:
    """Quote an argument of ExecStart, where ``$`` would start a variable (systemd.service(5)).

    The program's own path is a plain word instead: systemd expands no variable there, and ``$$``
    would stay.
    """
    return quote_word(text).replace("$", "$$")


def escape_rest_of_line(text: object) -> str:
    """Double ``%``, so that no specifier is expanded; systemd knows no quotes in such a place.

    Source: config_parse_load_credential in systemd's load-fragment.c.
    """
    return str(text).replace("%", "%%")


def quote_in_crontab(text: object) -> str:
    """Quote a word for the shell that cron starts; ``%`` would end the command there."""
    return shlex.quote(str(text)).replace("%", "\\%")
