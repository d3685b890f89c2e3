"""What of a text must not leave the site: secrets, by their names and by their forms."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

HIDDEN = "[hidden]"
_SECRET_NAME = re.compile(
    r"token|secret|passw|credential|api_?key|access_?key|private_?key|authorization|cookie", re.I
)
# Names that only sound like it: they say where a secret is, and a reader needs them.
_PLACE_NAME = re.compile(r"_(file|command|path|ttl|seconds)$", re.I)
_ASSIGNED = r"(?:token|secret|passw\w*|api_?key)[\"']?\s*[=:]\s*[\"']?"
_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----"
_FORMS = (
    re.compile(r"(://)[^/\s:@]*:[^/\s@]+(?=@)"),
    re.compile(r"((?:authorization:\s*|bearer\s+)(?:bearer\s+)?)[\w.~+/=:-]+", re.I),
    re.compile(rf"({_ASSIGNED})[^\s\"',]+", re.I),
    re.compile(rf"(){_KEY}", re.S),
    # Tokens of the control plane, and those of jobs.
    re.compile(r"(\b(?:agent|user):[\w.-]+:)[0-9a-f]{64}"),
    re.compile(r"(\b[\w.-]+:)[\w-]{43}(?![\w-])"),
)


def redacted_text(text: str, secrets: Collection[str] = ()) -> str:
    """Return a text without these secrets, and without what looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 8:
            text = text.replace(secret, HIDDEN)
    for form in _FORMS:
        text = form.sub(rf"\1{HIDDEN}", text)
    return text


def redacted(value: Any, secrets: Collection[str] = ()) -> Any:
    """Return the same mappings and lists without secrets, whatever key they stand under."""
    if isinstance(value, Mapping):
        return {name: redacted_setting(str(name), each, secrets) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(each, secrets) for each in value]
    return redacted_text(value, secrets) if isinstance(value, str) else value


def redacted_setting(name: str, value: Any, secrets: Collection[str] = ()) -> Any:
    """Return what may be seen of a value under this name; a command's arguments are hidden."""
    if _is_secret(name) and value:
        return HIDDEN
    if name.endswith("_command") and isinstance(value, list | tuple):
        return [*value[:1], *([HIDDEN] if len(value) > 1 else [])]
    return redacted(value, secrets)


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _PLACE_NAME.search(name)
