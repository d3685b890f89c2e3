"""One booted machine for all tests of a run: to make it costs more than most of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.machine import Machine, booted_machine
from tests.machines.root import USER, NoMachineError
from tests.manual.pages import ROOT

CHECKOUTS = {"root": Path("/usr/local/src/hpc-agent"), USER: Path(f"/home/{USER}/hpc-agent")}
"""Whose clone of this repository is where."""


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A machine with nothing of ours but clones of what is committed."""
    try:
        with booted_machine() as booted:
            for user, place in CHECKOUTS.items():
                clone = booted.root / place.relative_to("/")
                subprocess.run(["git", "clone", "-q", "--no-local", ROOT, clone], check=True)
                booted.run(f"chown -R {user}: {place}")
            yield booted
    except NoMachineError as reason:
        pytest.skip(str(reason))
