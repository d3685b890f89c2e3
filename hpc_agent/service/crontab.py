"""Agent or control plane by cron: at boot, and again within five minutes of any end."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.errors import ConfigError
from hpc_agent.service.outcome import Outcome
from hpc_agent.service.owned_file import MARKER, put, take_away
from hpc_agent.service.program import Kind, Program
from hpc_agent.service.quoting import quote_in_crontab
from hpc_agent.service.rendering import render

_DEADLINE_SECONDS = 30.0
_LOG_BYTES = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CronJob:
    """A program that cron keeps running; ``directory`` holds its script, its log and its lock."""

    program: Program
    directory: Path
    host: str | None = None

    @property
    def script(self) -> Path:
        """What the lines of the crontab run."""
        return script_of(self.directory, self.program.kind)


def script_of(directory: Path, kind: Kind) -> Path:
    """Return where the script of a program is."""
    return directory / f"keep-{kind.value}-running"


def render_script(job: CronJob) -> str:
    """Return the script that the lines run. Raises TemplateError."""
    name = job.program.kind.value
    return render(
        "keep_running.sh.j2",
        marker=MARKER,
        host=job.host,
        environment=job.program.environment,
        log=job.directory / f"{name}.log",
        lock=job.directory / f"{name}.lock",
        log_bytes=_LOG_BYTES,
        argv=job.program.argv,
    )


def lines_of(job: CronJob) -> list[str]:
    """Return the lines of the crontab, between marks. Raises ConfigError."""
    if re.search(r"[\x00-\x1f\x7f]", str(job.script)):
        raise ConfigError(f"{str(job.script)!r}: a crontab takes no control characters")
    begin, end = _marks(job.program.kind)
    command = quote_in_crontab(job.script)
    return [begin, f"@reboot {command}", f"*/5 * * * * {command}", end]


def install_crontab(job: CronJob, *, force: bool = False) -> Outcome:
    """Write the script, and its lines into the user's crontab. Raises ConfigError."""
    lines, present = lines_of(job), _read()
    changed = put(job.script, render_script(job), mode=0o755, force=force)
    wanted = [*_without(present, job.program.kind), *lines]
    if wanted != present:
        _write(wanted)
        changed = True
    steps = (
        f"{job.script}   # starts it now; cron would within five minutes",
        f"Its log is {job.directory / job.program.kind.value}.log",
    )
    return Outcome(path=job.script, changed=changed, next_steps=steps)


def uninstall_crontab(directory: Path, kind: Kind) -> Outcome:
    """Take the lines out of the crontab, and remove the script; what runs is left alone."""
    script = script_of(directory, kind)
    changed = False
    if shutil.which("crontab") is not None:
        present = _read()
        if (kept := _without(present, kind)) != present:
            _write(kept)
            changed = True
    changed = take_away(script) or changed
    names_it = "status" if kind is Kind.AGENT else "control-plane status"
    steps = (f"kill PID   # ends the one that runs: `hpc-agent {names_it}` says where it is",)
    return Outcome(path=script, changed=changed, next_steps=steps if changed else ())


def _marks(kind: Kind) -> tuple[str, str]:
    return f"# >>> {kind.value} {MARKER.removeprefix('# ')}", f"# <<< {kind.value}"


def _without(lines: list[str], kind: Kind) -> list[str]:
    """Return a crontab less our own lines."""
    begin, end = _marks(kind)
    if begin not in lines or end not in lines[lines.index(begin) :]:
        return lines
    first = lines.index(begin)
    return lines[:first] + lines[lines.index(end, first) + 1 :]


def _read() -> list[str]:
    done = _crontab("-l")
    # crontab(1) answers so where the user has none.
    if done.returncode != 0 and "no crontab" not in done.stderr:
        raise ConfigError(f"crontab -l: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.splitlines() if done.returncode == 0 else []


def _write(lines: list[str]) -> None:
    done = _crontab("-", text="".join(f"{line}\n" for line in lines))
    if done.returncode != 0:
        raise ConfigError(f"crontab: {done.stderr.strip() or f'exit code {done.returncode}'}")


def _crontab(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["crontab", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=_DEADLINE_SECONDS,
        )
    except FileNotFoundError:
        raise ConfigError(
            "there is no crontab(1) here: take a systemd unit, or --slurm-job"
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"crontab gave no answer in {_DEADLINE_SECONDS:g} s") from None
