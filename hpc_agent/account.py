"""The user that jobs run as, as its password entry has it (passwd(5))."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import Self

from hpc_agent.errors import ConfigError

_FIELDS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Name, home and shell of a user, on the machines where its jobs run."""

    name: str
    home: str
    shell: str

    @classmethod
    def here(cls) -> Self:
        """Return that of this process. Raises ConfigError where its user is not known by a name."""
        try:
            entry = pwd.getpwuid(os.getuid())
        except KeyError:
            raise ConfigError(
                f"user {os.getuid()} has no password entry here; "
                "in a container, mount the /etc/passwd of a machine that knows it"
            ) from None
        return cls(name=entry.pw_name, home=entry.pw_dir, shell=entry.pw_shell)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return that of a line of ``getent passwd``, whatever else a login shell has printed.

        Raises ConfigError.
        """
        for line in reversed(text.strip().split("\n")):
            fields = line.strip().split(":")
            if len(fields) == _FIELDS and fields[0] and fields[5].startswith("/"):
                return cls(name=fields[0], home=fields[5], shell=fields[6])
        raise ConfigError(f"getent passwd has no entry with a home for this user: {text[:500]!r}")
