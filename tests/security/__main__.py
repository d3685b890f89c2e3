"""``make defences``: switch each defence off, and see its test fail.

The sources are copied to a directory of their own, changed there, and put before the others; the
tests stay as they are. Nothing in the checkout is touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.security.defences import ROOT, Defence, defences

LIMIT_SECONDS = 300
_LEFT_OUT = shutil.ignore_patterns(".venv", "__pycache__", ".*_cache", ".hypothesis")
TESTS_FAILED = 1  # pytest's exit code; anything else says nothing of the defence


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all or some defences; 1 when one can be switched off without a test that fails."""
    parser = argparse.ArgumentParser(prog="make defences", description=__doc__)
    parser.add_argument("name", nargs="*", help="only these")
    chosen = set(parser.parse_args(arguments).name)
    found = [each for each in defences() if not chosen or each.name in chosen]
    idle = [each.name for each in found if not _is_missed(each)]
    print(f"{len(found) - len(idle)} of {len(found)} defences are missed by their tests")
    return 1 if idle or not found else 0


def _is_missed(defence: Defence) -> bool:
    with tempfile.TemporaryDirectory(prefix="defences-") as directory:
        root = Path(directory)
        shutil.copytree(ROOT, root, symlinks=True, dirs_exist_ok=True, ignore=_LEFT_OUT)
        (root / ".venv").symlink_to(ROOT / ".venv")
        changed = root / defence.file
        source = changed.read_text()
        if source.count(defence.old) != 1:
            raise SystemExit(f"{defence.name}: its text does not stand once in {defence.file}")
        changed.write_text(source.replace(defence.old, defence.new))
        code, said = _test(defence.test, root)
    is_missed = code == TESTS_FAILED
    print(f"{'ok ' if is_missed else 'BAD'} {defence.name}: {defence.test}", flush=True)
    if not is_missed:
        print(said[-2000:])
    return is_missed


def _test(test: str, root: Path) -> tuple[int, str]:
    argv = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        argv, cwd=root, env=environment, capture_output=True, text=True, check=False,
        timeout=LIMIT_SECONDS,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
