"""Kept running by cron: the lines in a crontab, and the script that they run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.errors import ConfigError
from hpc_agent.service.crontab import (
    CronJob,
    install_crontab,
    lines_of,
    render_script,
    uninstall_crontab,
)
from hpc_agent.service.program import Kind, Program

from .test_unit import HOSTILE_NAMES
from .user_manager import wait_until

# crontab(1) as cron's own: the file of one user, and its words where there is none.
CRONTAB = """\
#!/bin/sh
case "$1" in
-l) cat "{file}" 2>/dev/null || {{ echo "no crontab for me" >&2; exit 1; }} ;;
-) cat >"{file}" ;;
esac
"""
OTHERS = "MAILTO=me\n0 3 * * * /usr/bin/backup --name=100\\%\n"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the crontab of a user."""
    file = tmp_path / "crontab-of-me"
    command = tmp_path / "bin" / "crontab"
    command.parent.mkdir()
    command.write_text(CRONTAB.format(file=file))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return file


def a_job(directory: Path, kind: Kind = Kind.AGENT, **changes: Any) -> CronJob:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    program = Program(
        kind=kind,
        executable=changes.pop("executable", Path("/opt/hpc-agent")),
        arguments=changes.pop("arguments", ("start", "--config", "/a.yaml")),
        environment=changes.pop("environment", {}),
    )
    return CronJob(program=program, directory=directory, **changes)


def test_lines_of_others_stay(table: Path, tmp_path: Path) -> None:
    """Installed twice, for both programs, and taken out again one by one."""
    table.write_text(OTHERS)
    agent, plane = a_job(tmp_path / "a"), a_job(tmp_path / "p", Kind.CONTROL_PLANE)
    assert install_crontab(agent).changed
    assert not install_crontab(agent).changed
    install_crontab(plane)
    assert table.read_text() == OTHERS + "".join(
        f"{line}\n" for line in (*lines_of(agent), *lines_of(plane))
    )
    assert uninstall_crontab(agent.directory, Kind.AGENT).changed
    assert table.read_text() == OTHERS + "".join(f"{line}\n" for line in lines_of(plane))
    assert not agent.script.exists()
    assert uninstall_crontab(plane.directory, Kind.CONTROL_PLANE).changed
    assert table.read_text() == OTHERS
    assert not uninstall_crontab(plane.directory, Kind.CONTROL_PLANE).changed


def test_first_crontab_of_a_user_is_made(table: Path, tmp_path: Path) -> None:
    """crontab -l fails where there is none: that is no error."""
    install_crontab(a_job(tmp_path / "a"))
    assert "@reboot" in table.read_text()


def test_crontab_that_cannot_be_read_is_left_alone(table: Path, tmp_path: Path) -> None:
    """To take it for empty would take away the lines of others."""
    command = tmp_path / "bin" / "crontab"
    command.write_text("#!/bin/sh\necho 'You (me) are not allowed to use this program' >&2; exit 1")
    with pytest.raises(ConfigError, match="not allowed"):
        install_crontab(a_job(tmp_path / "a"))
    assert not table.exists()


@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES if name.isprintable()])
def test_line_runs_the_script_under_its_real_name(name: str, tmp_path: Path) -> None:
    """As cron does: ``\\%`` is a percent sign, and a shell reads the rest."""
    job = a_job(tmp_path / name)
    job.script.write_text('#!/bin/sh\necho "ran $0"\n')
    job.script.chmod(0o755)
    command = lines_of(job)[1].removeprefix("@reboot ").replace("\\%", "%")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == f"ran {job.script}\n"


@pytest.mark.parametrize("name", ["a\nb", "a\x7f"])
def test_name_that_would_end_the_line_is_refused(name: str, tmp_path: Path) -> None:
    """A crontab has no escapes for it."""
    with pytest.raises(ConfigError, match="control characters"):
        lines_of(a_job(tmp_path / name))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_script_is_shell_whatever_names_hold(name: str, tmp_path: Path) -> None:
    """shellcheck has nothing to remark."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    job = a_job(tmp_path, arguments=("start", "--config", name), environment={"PATH": name})
    done = subprocess.run(
        ["shellcheck", "--severity=warning", "-"],
        input=render_script(job),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_one_runs_and_comes_back_when_it_has_ended(tmp_path: Path) -> None:
    """A second call ends at once; after the program's death the next call starts it again."""
    program = tmp_path / "hpc agent"
    program.write_text('#!/bin/sh\necho "$$ $*" >>"$STARTS"\nsleep 300 &\nexec sleep 300\n')
    program.chmod(0o755)
    starts = tmp_path / "starts"
    environment = {"PATH": os.environ["PATH"], "STARTS": str(starts)}
    job = a_job(tmp_path / "d", executable=program, environment=environment)
    job.script.write_text(render_script(job))
    job.script.chmod(0o755)

    def started() -> list[int]:
        text = starts.read_text() if starts.exists() else ""
        return [int(line.split()[0]) for line in text.splitlines()]

    running = []
    try:
        for number in (1, 2):
            running.append(subprocess.Popen([job.script], env={}, start_new_session=True))
            wait_until(lambda number=number: len(started()) == number, what="a start")  # type: ignore[misc]
            again = subprocess.run([job.script], env={}, check=False, timeout=30)
            assert again.returncode == 1  # flock(1): somebody else holds the lock
            assert len(started()) == number
            os.kill(started()[-1], signal.SIGKILL)  # not what it has left behind
            running[-1].wait(30)
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)


def test_log_is_emptied_where_it_stands(tmp_path: Path) -> None:
    """Whoever has it open goes on writing into it."""
    job = a_job(tmp_path / "d", executable=Path("/bin/true"), environment={})
    job.script.write_text(render_script(job).replace("20000000", "1000"))
    job.script.chmod(0o755)
    log = job.directory / "hpc-agent.log"
    with log.open("a") as writer:
        writer.write("x" * 2000)
        writer.flush()
        subprocess.run([job.script], check=True)
        writer.write("more")
        writer.flush()
        assert log.read_text() == "more"
    assert (job.directory / "hpc-agent.log.1").stat().st_size == 2000


def test_other_machine_of_the_same_home_starts_nothing(tmp_path: Path) -> None:
    """Its crontab may be the same file."""
    job = a_job(tmp_path / "d", executable=Path("/bin/false"), host="another-login-node")
    job.script.write_text(render_script(job))
    job.script.chmod(0o755)
    assert subprocess.run([job.script], check=False).returncode == 0
    assert not (job.directory / "hpc-agent.log").exists()
