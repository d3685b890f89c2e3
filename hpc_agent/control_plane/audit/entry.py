"""One line of the audit log."""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

MAX_LINE_BYTES = 8192


class Action(StrEnum):
    """What kind of thing was done."""

    LOGIN = "login"
    LOGOUT = "logout"
    LAUNCH = "launch"
    TERMINATE = "terminate"
    MUTATION = "mutation"
    DEPLOY = "deploy"
    TOKEN = "token"  # noqa: S105 a word
    MAINTENANCE = "maintenance"


class Outcome(StrEnum):
    """How it ended; UNKNOWN when nobody has seen that."""

    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something, and from where; ``way`` says how that is known."""

    name: str
    role: str | None
    way: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was done; ``about`` holds the names of what it was done to, and no values of users."""

    action: Action
    actor: Actor
    what: str
    outcome: Outcome
    about: Mapping[str, Sequence[str]] = field(default_factory=dict)
    at: float = field(default_factory=time.time)

    def line(self) -> bytes:
        """Return the entry as one line of ASCII; one that is too long says less."""
        about: Mapping[str, object] = {name: list(values) for name, values in self.about.items()}
        line = self._line(about)
        return line if len(line) <= MAX_LINE_BYTES else self._line({"left_out": len(line)})

    def _line(self, about: Mapping[str, object]) -> bytes:
        content = {
            "time": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds"),
            "action": self.action,
            "outcome": self.outcome,
            "who": self.actor.name[:200],
            "role": self.actor.role,
            "way": self.actor.way,
            "from": self.actor.peer[:200],
            "what": self.what[:200],
            "about": about,
        }
        return json.dumps(content).encode("ascii") + b"\n"


def command_line() -> Actor:
    """Return who runs this command: an account of this machine."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return Actor(name=name, role=None, way="command", peer="")
