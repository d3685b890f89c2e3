"""The table of states, row by row."""

from __future__ import annotations

import pytest

from hpc_agent.runs.last_word import RunEnd, failure_message, last_word
from hpc_agent.runs.recovery import Cause, cause_of
from hpc_agent.slurm.state import JobState
from hpc_agent.store.phases import Phase
from tests.slurm.state_page import PAGE, observed, render, rows_of

S = JobState
WAITS, RUNS, ENDED = Phase.QUEUED, Phase.RUNNING, Phase.ENDED

# State, its short form, what the job is then, the policy that says what follows, and words of the
# message with which a run fails that was left open.
TABLE = [
    (S.PENDING, "PD", WAITS, None, ""),
    (S.REQUEUED, "RQ", WAITS, None, ""),
    (S.REQUEUE_HOLD, "RH", WAITS, None, ""),
    (S.REQUEUE_FED, "RF", WAITS, None, ""),
    (S.SPECIAL_EXIT, "SE", WAITS, None, ""),
    (S.RESV_DEL_HOLD, "RD", WAITS, None, ""),
    (S.CONFIGURING, "CF", RUNS, None, ""),
    (S.RUNNING, "R", RUNS, None, ""),
    (S.COMPLETING, "CG", RUNS, None, ""),
    (S.SUSPENDED, "S", RUNS, None, ""),
    (S.STOPPED, "ST", RUNS, None, ""),
    (S.SIGNALING, "SI", RUNS, None, ""),
    (S.STAGE_OUT, "SO", RUNS, None, ""),
    (S.RESIZING, "RS", RUNS, None, ""),
    (S.POWER_UP_NODE, "POWER_UP_NODE", RUNS, None, ""),
    (S.UPDATE_DB, "UPDATE_DB", RUNS, None, ""),
    (S.EXPEDITING, "EXPEDITING", RUNS, None, ""),
    (S.COMPLETED, "CD", ENDED, None, "ended without finishing the run"),
    (S.FAILED, "F", ENDED, None, "FAILED (exit code 1)"),
    (S.CANCELLED, "CA", ENDED, None, "cancelled in Slurm (scancel)"),
    (S.TIMEOUT, "TO", ENDED, Cause.TIMEOUT, "ran into its time limit"),
    (S.OUT_OF_MEMORY, "OOM", ENDED, Cause.OUT_OF_MEMORY, "more memory than it asked for"),
    (S.NODE_FAIL, "NF", ENDED, Cause.NODE_FAIL, "its node failed"),
    (S.BOOT_FAIL, "BF", ENDED, Cause.BOOT_FAIL, "its node did not start"),
    (S.DEADLINE, "DL", ENDED, None, "its deadline passed"),
    (S.PREEMPTED, "PR", ENDED, Cause.PREEMPT, "a job of higher priority took its place"),
    (S.LAUNCH_FAILED, "LF", ENDED, Cause.BOOT_FAIL, "could not start it"),
    (S.RECONFIG_FAIL, "RECONFIG_FAIL", ENDED, Cause.BOOT_FAIL, "RECONFIG_FAIL"),
    (S.REVOKED, "RV", ENDED, None, "REVOKED"),
]


def test_table_has_every_state() -> None:
    """A new one wants a row."""
    assert {row[0] for row in TABLE} | {S.UNKNOWN} == set(S)


@pytest.mark.parametrize(("state", "short", "phase", "cause", "words"), TABLE)
def test_row(state: S, short: str, phase: Phase, cause: Cause | None, words: str) -> None:
    """Spelling, phase, what becomes of the run, and what its user reads."""
    assert {S.parse(text) for text in (state.value, short, f"{state.value} by 1000")} == {state}
    assert (state.is_waiting, state.is_final) == (phase is WAITS, phase is ENDED)
    job = observed(state)
    assert job.phase is phase
    assert cause_of(job) is cause
    if phase is ENDED:
        word = last_word(job, is_request_open=False, run_status="STARTED")
        assert word.run_end is RunEnd.FAILED
        assert words in failure_message(job)


def test_unknown_state_changes_nothing() -> None:
    """A state from the future is no end."""
    assert observed(S.UNKNOWN).phase is Phase.RUNNING


def test_page_has_every_row_as_it_is_now() -> None:
    """Also where no Slurm can be started: all but what was seen on a real one."""
    seen = {state for state in S if f"| `{state.value}` |" in PAGE.read_text()}
    assert seen == set(S) - {S.UNKNOWN}
    page = PAGE.read_text()
    real = {state for state in seen if f"`{state.value}` |" in page and _is_real(page, state)}
    assert rows_of(render(real)) == rows_of(page)


def _is_real(page: str, state: S) -> bool:
    row = next(line for line in page.splitlines() if line.startswith(f"| `{state.value}` |"))
    return row.endswith("| real |")
