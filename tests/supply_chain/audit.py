"""``make audit``: pip-audit over a lock, where the list of vulnerabilities can be had.

    python -m tests.supply_chain.audit requirements.lock

A mirror may serve packages without what is known of them. Then pip-audit finds nothing in nothing
and is content, so it is asked for one package first, and what it could not look up is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# What is accepted, by its id, and why.
ACCEPTED: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What pip-audit found: vulnerabilities, and packages that it could not look up."""

    vulnerable: list[str]
    unknown: list[str]
    looked_up: int


class NoReportError(Exception):
    """Pip-audit found out nothing: the message says why."""


def main() -> int:
    """Print what is known of the packages of a lock; 1 when one of them is vulnerable."""
    lock = Path(sys.argv[1]).read_text()
    first, *_ = lock.replace("\\\n", "").splitlines()
    try:
        if not audited(first).looked_up:
            print("SKIPPED audit: the package index here has no list of vulnerabilities")
            return 0
    except NoReportError as reason:
        print(f"SKIPPED audit: {reason}")
        return 0
    try:
        report = audited(lock)
    except NoReportError as reason:
        print(f"audit: {reason}", file=sys.stderr)
        return 1
    print("\n".join(report.vulnerable), end="\n" if report.vulnerable else "")
    if report.unknown:
        print(f"not looked up: {', '.join(report.unknown)}")
    print(f"{report.looked_up} packages looked up, {len(report.vulnerable)} vulnerabilities known")
    return 1 if report.vulnerable else 0


def audited(requirements: str) -> Report:
    """Have pip-audit look up requirements. Raises NoReportError."""
    accepted = [word for each in ACCEPTED for word in ("--ignore-vuln", each)]
    with tempfile.TemporaryDirectory() as directory:
        lock, output = Path(directory, "requirements.txt"), Path(directory, "report.json")
        lock.write_text(f"{requirements}\n")
        argv = ["pip-audit", "--progress-spinner=off", "--require-hashes", "--disable-pip"]
        argv += ["--requirement", str(lock), "--format=json", "--output", str(output), *accepted]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoReportError(f"pip-audit: {error}") from None
        if not output.exists() or not output.read_text().strip():
            words = done.stderr.strip().splitlines()
            raise NoReportError(words[-1] if words else f"pip-audit ended with {done.returncode}")
        packages = json.loads(output.read_text())["dependencies"]
    return Report(
        vulnerable=[
            f"{package['name']} {package['version']}: {found['id']}, mended in "
            f"{', '.join(found['fix_versions']) or 'no release'}"
            for package in packages
            for found in package.get("vulns", ())
        ],
        unknown=[package["name"] for package in packages if "skip_reason" in package],
        looked_up=sum("skip_reason" not in package for package in packages),
    )


if __name__ == "__main__":
    sys.exit(main())
