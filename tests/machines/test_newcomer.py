"""From a bare Debian to a run on real Slurm: the README's way, and the tutorial's."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.machines.conftest import CHECKOUTS
from tests.machines.machine import Machine
from tests.machines.root import USER
from tests.manual.pages import ROOT, blocks

pytestmark = [pytest.mark.machines, pytest.mark.timeout(1800)]

TUTORIAL = ROOT / "docs" / "tutorial.md"
TUTORIAL_SECONDS = 600


def test_readme_leads_to_a_run_on_slurm(machine: Machine) -> None:
    """A clone and `make demo`, as root: it installs a Slurm and has the run on it."""
    checkout = CHECKOUTS["root"]
    machine.run(f"cd {checkout} && make setup", seconds=900)

    said = machine.run(f"cd {checkout} && make demo ARGS='--once --json' 2> /root/demo.log")

    facts = json.loads(said)
    assert facts["succeeded"] is True
    assert facts["scheduler"] == "slurm"
    assert facts["scheduler_found"].startswith("started")
    assert machine.run("pgrep slurmctld || true") == ""


def test_tutorial_takes_an_ordinary_user_ten_minutes(machine: Machine) -> None:
    """All of its blocks in their order, with those that the page's other test leaves out."""
    began = time.monotonic()

    said = machine.run("set -eu\n" + whole_tutorial(), user=USER, seconds=TUTORIAL_SECONDS)

    assert "measured on" in said
    assert "RUN_SUCCESS" in said
    assert machine.run(f"pgrep --uid {USER} hpc-agent || true") == ""
    print(f"the tutorial took {time.monotonic() - began:.0f} s")


def whole_tutorial() -> str:
    """Return what the page has a person type, without the prompts."""
    shown = [each for each in blocks(TUTORIAL) if each.kind in {"sh", "console"}]
    return "".join(
        re.sub(r"^\$ ", "", each.text, flags=re.M) if each.kind == "console" else each.text
        for each in shown
    )
