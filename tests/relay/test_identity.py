"""A report is strict: user code has its job's token, and can send one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from hpc_agent.relay.identity import JobReport

REPORT = {
    "event": "started",
    "hostname": "c1",
    "slurm_job_id": "17_3",
    "restart_count": 1,
    "pid": 5,
}


def read(**changes: Any) -> JobReport:
    return JobReport.model_validate_json(json.dumps(REPORT | changes))


def test_duplicate_says_who_it_is_and_who_has_the_claim() -> None:
    """Both by job and start."""
    claim = {"slurm_job_id": "16", "restart_count": 2, "hostname": "c2", "started_at": 1.0}
    report = read(event="duplicate", claimed_by=claim)
    assert (report.slurm_job_id, report.restart_count) == ("17_3", 1)
    assert report.claimed_by is not None
    assert (report.claimed_by.slurm_job_id, report.claimed_by.restart_count) == ("16", 2)


@pytest.mark.parametrize("claim", [None, {}, [], "17", {"slurm_job_id": 17}])
def test_claim_that_says_nothing_is_nobodys(claim: object) -> None:
    """The report of the duplicate is good all the same."""
    assert read(event="duplicate", claimed_by=claim).claimed_by is None


@pytest.mark.parametrize(
    "changes",
    [
        {"event": "vanished"},
        {"event": None},
        {"hostname": "c1\x00"},
        {"hostname": "\ud800"},
        {"hostname": "x" * 256},
        {"hostname": 5},
        {"slurm_job_id": 17},
        {"slurm_job_id": "17; scancel"},
        {"slurm_job_id": "1" * 101},
        {"restart_count": -1},
        {"restart_count": 1 << 31},
        {"restart_count": True},
        {"restart_count": "1"},
        {"pid": 1.5},
        {"exit": "exited"},
    ],
)
def test_what_is_no_report_is_refused(changes: dict[str, Any]) -> None:
    """Nothing of it reaches the agent."""
    with pytest.raises(ValidationError):
        read(**changes)


@pytest.mark.parametrize("text", ['{"event": "exited", "exit": ' + "[" * 100_000, "", "null"])
def test_what_is_no_json_is_refused(text: str) -> None:
    """However deep it is."""
    with pytest.raises(ValidationError):
        JobReport.model_validate_json(text)
