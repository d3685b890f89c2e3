"""Each check says what is wrong, and says nothing where all is well."""

from __future__ import annotations

import pytest

from hpc_agent.doctor.checks import CHECKS, GROUPS
from hpc_agent.doctor.finding import Status
from tests.doctor.sites import TROUBLES, WELL, Trouble, config_of

BY_NAME = {check.name: check for check in CHECKS}
# What these tell needs no action, whatever it is.
INFORMATION = {"submit-limits", "comments"}


@pytest.mark.parametrize("name", BY_NAME)
def test_all_is_well(name: str) -> None:
    """A well-kept site has no warning and no advice."""
    check = BY_NAME[name]
    finding = check.judge(config_of({}), WELL[check.needs])
    assert finding.status is Status.OK
    assert finding.advice == ""


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.check)
def test_trouble_is_named_with_advice(trouble: Trouble) -> None:
    """The fact names the trouble, the advice what to do."""
    finding = BY_NAME[trouble.check].judge(config_of(trouble.settings), trouble.facts)
    assert finding.status is trouble.status
    assert trouble.words in finding.fact
    assert bool(finding.advice) is (trouble.status is not Status.OK)


def test_every_check_can_fail() -> None:
    """A check that no trouble makes fail would be no check."""
    failing = {trouble.check for trouble in TROUBLES if trouble.status is not Status.OK}
    assert failing == BY_NAME.keys() - INFORMATION


def test_names_are_unique_and_grouped() -> None:
    """``--only`` goes by names."""
    assert len(BY_NAME) == len(CHECKS)
    assert {check.needs for check in CHECKS} == set(GROUPS)
