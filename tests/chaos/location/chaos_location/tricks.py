"""What hostile user code puts where the agent reads: its own exit record, before its true one."""

import json
import os
from collections.abc import Callable
from pathlib import Path

_HUGE_BYTES = 100_000_000


def play(trick: str) -> None:
    """Play a trick in this run's job directory."""
    path = _job_directory() / "exit.json"
    TRICKS[trick](path)


def _surrogate(path: Path) -> None:
    # As an escape, which JSON allows: what is read cannot be encoded again.
    path.write_text(_record(reason="half a pair: ").replace("pair: ", "pair: \\ud83d"))


def _types(path: Path) -> None:
    path.write_text(json.dumps({"version": [], "exit_code": {"a": 1}, "ended_at": "never"}))


def _numbers(path: Path) -> None:
    path.write_text(_record(exit_code=10**30, ended_at=1e308, max_rss_kb=-1))


def _deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(_HUGE_BYTES)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    (path / "in").mkdir(parents=True)


def _lie(path: Path) -> None:
    path.write_text(_record(outcome="exited", exit_code=1))


def _record(**changed: object) -> str:
    record: dict[str, object] = {
        "version": 1,
        "key": path_key(),
        "exit_code": 0,
        "signal": None,
        "outcome": "exited",
        "reason": "",
        "started_at": 1.0,
        "ended_at": 2.0,
        "hostname": "nowhere",
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
        "restart_count": 0,
        "stderr_tail": "",
    }
    return json.dumps({**record, **changed})


def path_key() -> str:
    """Return the job's key, the last part of its directory."""
    return _job_directory().name


def _job_directory() -> Path:
    """The parent is the node program, whose last argument it is."""
    return Path(Path(f"/proc/{os.getppid()}/cmdline").read_text().rstrip("\0").split("\0")[-1])


TRICKS: dict[str, Callable[[Path], None]] = {
    "surrogate": _surrogate,
    "types": _types,
    "numbers": _numbers,
    "deep": _deep,
    "huge": _huge,
    "pipe": _pipe,
    "link": _link,
    "directory": _directory,
    "lie": _lie,
}
