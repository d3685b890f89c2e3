"""What `make audit` says of what pip-audit found, a program that a stand-in takes the place of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VULNERABLE = '{"id": "PYSEC-1", "fix_versions": ["2.0"]}'
KNOWN = '{{"name": "a", "version": "1", "vulns": [{}]}}'
UNKNOWN = '{"name": "a", "skip_reason": "not found"}'


def audit(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run the audit of a lock of one package; ``$report`` is where pip-audit is to write."""
    program = directory / "pip-audit"
    # Of each call: what is to be looked up, and where the report is to go.
    find = (
        'while [ "$1" != --requirement ]; do shift; done\n'
        'cp "$2" "$0.asked"; cat "$2" >> "$0.log"\n'
        'while [ "$1" != --output ]; do shift; done; report=$2'
    )
    program.write_text(f"#!/bin/sh\n{find}\n{script}\n")
    program.chmod(0o755)
    lock = directory / "requirements.lock"
    lock.write_text("a==1 \\\n    --hash=sha256:00\nb==2 \\\n    --hash=sha256:01\n")
    return subprocess.run(
        [sys.executable, "-m", "tests.supply_chain.audit", str(lock)],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def reports(package: str) -> str:
    return f"""echo '{{"dependencies": [{package}]}}' > "$report" """


def test_vulnerability_fails_the_check(tmp_path: Path) -> None:
    """With its id, and the release that mends it."""
    done = audit(tmp_path, reports(KNOWN.format(VULNERABLE)) + "; exit 1")
    assert done.returncode == 1
    assert "a 1: PYSEC-1, mended in 2.0" in done.stdout


def test_one_package_is_looked_up_before_all(tmp_path: Path) -> None:
    """A mirror without the list is asked once, and not for each package."""
    audit(tmp_path, reports(UNKNOWN))
    assert (tmp_path / "pip-audit.log").read_text() == "a==1     --hash=sha256:00\n"


def test_audit_that_breaks_off_fails_the_check(tmp_path: Path) -> None:
    """The list is there: what keeps us from it is no reason to go on without."""
    done = audit(tmp_path, f'grep -q b==2 "$0.asked" && exit 1; {reports(KNOWN.format(""))}')
    assert done.returncode == 1
    assert done.stderr == "audit: pip-audit ended with 1\n"


def test_nothing_known_is_in_order(tmp_path: Path) -> None:
    """As long as somebody knew the packages."""
    done = audit(tmp_path, reports(KNOWN.format("")))
    assert done.returncode == 0
    assert "1 packages looked up, 0 vulnerabilities known" in done.stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (reports(UNKNOWN), "the package index here has no list of vulnerabilities"),
        ("echo 'ERROR: connection refused' >&2; exit 1", "ERROR: connection refused"),
        ("exit 1", "pip-audit ended with 1"),
    ],
)
def test_audit_of_nothing_is_no_audit(tmp_path: Path, script: str, words: str) -> None:
    """Of packages that a mirror knows nothing of, pip-audit says that all is well."""
    done = audit(tmp_path, script)
    assert done.returncode == 0
    assert done.stdout == f"SKIPPED audit: {words}\n"
