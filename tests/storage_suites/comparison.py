"""What the outcomes on two sides say about the gateway between them."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tests.storage_suites.outcomes import Outcome, Result
from tests.storage_suites.reasons import REASONS, Reason
from tests.storage_suites.side import Database


class Verdict(enum.StrEnum):
    """Whose a test is."""

    EQUAL = "passes through the gateway"
    SKIPPED = "skipped by the suite itself"
    PLAIN = "fails on plain storage too"
    CLIENT = "impossible for the stock client"
    OURS = "FAILS BECAUSE OF US"
    NEEDLESS = "HAS A REASON AND PASSES"


BAD = frozenset({Verdict.OURS, Verdict.NEEDLESS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One test on one database."""

    database: Database
    test: str
    verdict: Verdict
    plain: Outcome | None
    gateway: Outcome

    @property
    def reason(self) -> Reason | None:
        """What stands in the way, in the words of the list."""
        return REASONS.get(self.test)


def compare(
    database: Database, plain: Mapping[str, Outcome], gateway: Mapping[str, Outcome]
) -> list[Compared]:
    """Judge every test that ran through the gateway."""
    return [
        Compared(
            database=database, test=test, plain=plain.get(test), gateway=outcome,
            verdict=judge(plain.get(test), outcome, has_reason=test in REASONS),
        )
        for test, outcome in gateway.items()
    ]  # fmt: skip


def judge(plain: Outcome | None, gateway: Outcome, *, has_reason: bool) -> Verdict:
    """Say whose a test is.

    What a plain storage skips, since it does not claim to do it, the client may claim: then it is
    for us to do.
    """
    if gateway.result is Result.SKIPPED:
        return Verdict.SKIPPED
    if gateway.result is Result.PASSED:
        return Verdict.NEEDLESS if has_reason else Verdict.EQUAL
    if plain is not None and plain.result is Result.FAILED:
        return Verdict.PLAIN
    return Verdict.CLIENT if has_reason else Verdict.OURS


def table(found: list[Compared]) -> list[str]:
    """Count verdicts per database, and name every test that is not equal."""
    databases = list(dict.fromkeys(each.database for each in found))
    counts = Counter((each.verdict, each.database) for each in found)
    lines = [f"{'':32}" + "".join(f"{each:>12}" for each in databases)]
    for verdict in Verdict:
        row = "".join(f"{counts[verdict, each]:12}" for each in databases)
        lines.append(f"{verdict:32}{row}")
    for verdict in (Verdict.SKIPPED, Verdict.PLAIN, Verdict.CLIENT, Verdict.NEEDLESS, Verdict.OURS):
        named = [each for each in found if each.verdict is verdict]
        if named:
            lines += ["", f"{verdict}:", *(f"  {_line(each)}" for each in named)]
    return lines


def _line(each: Compared) -> str:
    head = f"{each.test} ({each.database})"
    match each.verdict:
        case Verdict.CLIENT if each.reason is not None:
            return f"{head}: {each.reason}"
        case Verdict.OURS | Verdict.PLAIN:
            said = [line for line in each.gateway.why.splitlines() if line.startswith("E ")]
            return f"{head}: {said[0][2:].strip()[:160] if said else each.gateway.why[-160:]}"
        case _:
            return f"{head}: {each.gateway.why}" if each.gateway.why else head
