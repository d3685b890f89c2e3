"""`make storage-suites` in short, and how it judges."""

from __future__ import annotations

import pytest

from tests.storage_suites.__main__ import main
from tests.storage_suites.comparison import Verdict, judge
from tests.storage_suites.outcomes import Outcome, Result
from tests.storage_suites.reasons import REASONS, Reason
from tests.storage_suites.sdist import NoSdistError, fetched, locked

ONCE_WRONG = (
    "run_group or get_asset_records or last_observation or summary_records or failure_cache_added "
    "or failed_materializations or materialization_failures or status_monitor or long_key"
)
QUICK = "(TestRuns and fetch_by and not timestamp) or (TestSchedules and tick) or TestDefsStates"

LOCK = """\
dagster==1.2.3 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
dagster-cloud==1.2.3 \\
    --hash=sha256:cc
"""


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_gateway_passes_what_plain_storage_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """What was wrong once, and what is quick."""
    try:
        fetched()
    except NoSdistError as reason:
        pytest.skip(f"Dagster's sdist: {reason}")

    code = main(["--database", "SQLite", "--only", f"{ONCE_WRONG} or {QUICK}"])

    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("plain", "gateway", "has_reason", "verdict"),
    [
        (Result.PASSED, Result.PASSED, False, Verdict.EQUAL),
        (Result.PASSED, Result.SKIPPED, False, Verdict.SKIPPED),
        (Result.PASSED, Result.FAILED, False, Verdict.OURS),
        (Result.SKIPPED, Result.FAILED, False, Verdict.OURS),
        (None, Result.FAILED, False, Verdict.OURS),
        (Result.FAILED, Result.FAILED, False, Verdict.PLAIN),
        (Result.PASSED, Result.FAILED, True, Verdict.CLIENT),
        (Result.PASSED, Result.PASSED, True, Verdict.NEEDLESS),
    ],
)
def test_verdict(plain: Result | None, gateway: Result, has_reason: bool, verdict: Verdict) -> None:
    """A test is ours unless plain storage fails it too, or the client has a line against it."""
    before = None if plain is None else Outcome(plain, "")

    assert judge(before, Outcome(gateway, ""), has_reason=has_reason) is verdict


@pytest.mark.parametrize("reason", dict.fromkeys(REASONS.values()), ids=lambda reason: reason.code)
def test_reasons_stand_in_the_client(reason: Reason) -> None:
    """A line that is gone stands in nobody's way."""
    assert reason.line > 0


def test_reason_that_has_gone_is_told() -> None:
    gone = Reason("dagster_cloud/storage/runs/storage.py", "def make_tea(", "refuses")

    with pytest.raises(LookupError, match="make_tea"):
        str(gone)


def test_sdist_is_the_locked_one() -> None:
    """With its hashes, and not those of another package whose name begins like it."""
    assert locked(LOCK, "1.2.3").split(" \\\n    ") == [
        "dagster==1.2.3",
        "--hash=sha256:aa",
        "--hash=sha256:bb",
    ]


def test_release_that_is_not_locked_has_no_sdist() -> None:
    with pytest.raises(NoSdistError, match=r"dagster 1\.2\.4 is installed"):
        locked(LOCK, "1.2.4")
