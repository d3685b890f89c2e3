"""The agent token in a file of its own, which nobody else can read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hpc_agent.config.token import TOKEN_VARIABLE
from hpc_agent.errors import UsageError
from hpc_agent.private_directories import private_directory
from hpc_agent.private_files import require_private, write_private
from hpc_agent.setup.interview import Person

_TOKEN = re.compile(r"[\x21-\x7e]+")


class TokenFile:
    """One that is given, is there already, or is made from what is typed or in the environment."""

    def __init__(self, directory: Path, given: Path | None, person: Person | None) -> None:
        """Take where a new one is made; ``person`` None: nobody types anything."""
        self.path = (given or directory / "token").expanduser().absolute()
        self._given = given
        self._person = person
        self._is_typed = False

    def settle(self, environ: Mapping[str, str]) -> None:
        """See that there is a token. Raises UsageError when nobody gives one, UnsafePathError."""
        if self._is_usable():
            return
        if self._given is not None:
            raise UsageError(f"--token-file: {self.path} is not there, or holds nothing")
        if inherited := environ.get(TOKEN_VARIABLE, "").strip():
            self._keep(inherited)
        elif self._person is not None:
            self._type(self._person)
        else:
            raise UsageError(f"a token is needed: --token-file, or ${TOKEN_VARIABLE}")

    def is_typed_again(self) -> bool:
        """Ask for another token than the one that was typed, and tell whether there is one."""
        if self._person is None or not self._is_typed:
            return False
        if not self._person.agrees("Type another token?"):
            return False
        self._type(self._person)
        return True

    def _is_usable(self) -> bool:
        if not self.path.is_file():
            return False
        require_private(self.path)
        return bool(self.path.read_text(errors="replace").strip())

    def _type(self, person: Person) -> None:
        self._keep(person.secret("Agent token (it is not shown)"))
        self._is_typed = True

    def _keep(self, token: str) -> None:
        if not _TOKEN.fullmatch(token.strip()):
            raise UsageError("this is no token: it is empty, or has blanks or other characters")
        private_directory(self.path.parent)
        write_private(self.path, token.strip() + "\n", durable=True)
