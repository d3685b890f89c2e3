"""The unit file: what systemd reads is what was meant."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.errors import ConfigError
from hpc_agent.service.program import Kind, Program, agent_program, control_plane_program
from hpc_agent.service.quoting import quote_argument, quote_word
from hpc_agent.service.unit import (
    Unit,
    install_unit,
    render_unit,
    uninstall_unit,
    unit_directory,
)
from tests.users import umask

UNIT_NAME = Kind.AGENT.unit_name
TRUE = Path("/usr/bin/true")
HOSTILE_NAMES = [
    "plain",
    "with space",
    'double "quotes"',
    "single 'quotes'",
    "100%",
    "%h",
    "$HOME ${HOME}",
    "back\\slash",
    "semi ; colon",
    "new\nline\n[Service]\nExecStart=echo",
    "tab\tand\x7f",
    "Grüße",
    "#comment",
]


def make_unit(tmp_path: Path, **changes: Any) -> Unit:
    """Return a unit whose program and configuration exist, with the given fields changed."""
    executable = changes.pop("executable", None) or make_executable(tmp_path / "bin")
    config = changes.pop("config", tmp_path / "agent.yaml")
    program = Program(
        kind=changes.pop("kind", Kind.AGENT),
        executable=executable,
        arguments=("start", "--config", str(config)),
        environment=changes.pop("environment", {}),
        writes=changes.pop("writes", ()),
    )
    return Unit(program=program, **changes)


def make_executable(directory: Path) -> Path:
    directory.mkdir()
    executable = directory / "hpc-agent"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    return executable


def verify(text: str, tmp_path: Path, manager: str = "--user") -> None:
    """Let systemd itself read the unit; fail with its words."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / UNIT_NAME
    path.write_text(text)
    # A short path: units of the machine's own have sockets in it.
    with tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as runtime:
        environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": runtime, "HOME": "/root"}
        result = subprocess.run(
            [analyze, manager, "verify", "--man=no", str(path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.stderr == ""
    assert result.returncode == 0


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_systemd_accepts_any_configuration_path(name: str, tmp_path: Path) -> None:
    """systemd-analyze has nothing to remark, whatever arguments and environment hold."""
    config = tmp_path / name / "agent.yaml"
    unit = make_unit(tmp_path, config=config, host="login1", environment={"PATH": f"/opt/{name}"})
    verify(render_unit(unit), tmp_path)


@pytest.mark.parametrize("name", ["with space", "100%", "%h", "$HOME ${HOME}", "a ; b", "Grüße"])
def test_systemd_finds_the_program_under_its_real_name(name: str, tmp_path: Path) -> None:
    """systemd-analyze looks for the program, so a path that came out differently would fail."""
    executable = make_executable(tmp_path / name)
    verify(render_unit(make_unit(tmp_path, executable=executable)), tmp_path)


def test_systemd_notices_a_program_that_is_not_there(tmp_path: Path) -> None:
    """The check above would notice a path that came out differently."""
    unit = make_unit(tmp_path)
    unit.program.executable.unlink()
    with pytest.raises(AssertionError, match="is not executable"):
        verify(render_unit(unit), tmp_path)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_adds_no_line(name: str, tmp_path: Path) -> None:
    """Whatever a path holds, the unit has the same lines, and one ExecStart."""
    unit = make_unit(tmp_path, environment={"PATH": "/bin"})
    arguments = ("start", "--config", f"/etc/{name}")
    changed = replace(unit.program, arguments=arguments, environment={"PATH": name})
    ordinary = render_unit(unit).splitlines()
    hostile = render_unit(replace(unit, program=changed)).splitlines()
    keys = [line.partition("=")[0] for line in hostile]
    assert keys == [line.partition("=")[0] for line in ordinary]
    assert keys.count("ExecStart") == 1


def test_quoting_follows_systemd() -> None:
    """Specifiers are doubled everywhere, variables only in arguments."""
    assert quote_word('a "b" %h $X\\\n') == r'"a \"b\" %%h $X\\\x0a"'
    assert quote_argument("$X") == '"$$X"'


def test_stopping_the_agent_spares_the_jobs(tmp_path: Path) -> None:
    """The settings on which users' jobs and admins' sleep depend are there."""
    lines = render_unit(make_unit(tmp_path)).splitlines()
    for line in ("Type=notify", "NotifyAccess=main", "KillMode=process", "Restart=on-failure"):
        assert line in lines
    assert "RestartPreventExitStatus=2" in lines


@pytest.mark.parametrize(("limited", "expected"), [(True, True), (False, False)])
def test_limits_can_be_left_out(limited: bool, expected: bool, tmp_path: Path) -> None:
    """The local scheduler's jobs run in the agent's control group and need the room."""
    text = render_unit(make_unit(tmp_path, limited=limited))
    assert ("MemoryMax=" in text) is expected
    verify(text, tmp_path)


@pytest.mark.parametrize(
    "name", ["token", "with space", 'a "b"', "100% %h", "$HOME", "a:b", "Grüße"]
)
def test_systemd_takes_the_token_from_any_file(name: str, tmp_path: Path) -> None:
    """Without quotes, which it would take for a part of the path."""
    text = render_unit(make_unit(tmp_path, token_credential=tmp_path / name))
    assert f"LoadCredential=hpc-agent-token:{tmp_path}/{name.replace('%', '%%')}\n" in text
    verify(text, tmp_path)


@pytest.mark.parametrize("name", ["a\nExecStart=b", "a\\", "a ", "a\x7f"])
def test_path_that_systemd_would_misread_is_refused(name: str, tmp_path: Path) -> None:
    """It knows no escapes there."""
    with pytest.raises(ConfigError, match="systemd takes no credential"):
        render_unit(make_unit(tmp_path, token_credential=tmp_path / name))


def test_a_unit_without_host_has_no_condition(tmp_path: Path) -> None:
    """--any-host leaves the condition out, and systemd still likes the unit."""
    text = render_unit(make_unit(tmp_path, host=None))
    assert "ConditionHost" not in text
    verify(text, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"executable": Path("bin/hpc-agent")}, "absolute"),
        ({"executable": Path('/opt/a"b/hpc-agent')}, "make a link"),
        ({"executable": Path("/opt/a\nb/hpc-agent")}, "make a link"),
        ({"config": Path("/etc/\udcff.yaml")}, "UTF-8"),
        ({"host": "login1\nExecStart=/bin/sh"}, "host name"),
        ({"environment": {"A B": "1"}}, "not a name"),
    ],
)
def test_values_that_systemd_cannot_take_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """The error says which value and why."""
    with pytest.raises(ConfigError, match=message):
        render_unit(make_unit(tmp_path, **changes))


def test_install_writes_a_readable_file_and_nothing_else(tmp_path: Path) -> None:
    """A second install of the same unit changes nothing."""
    unit, directory = make_unit(tmp_path), tmp_path / "systemd" / "user"
    first = install_unit(unit, directory)
    second = install_unit(unit, directory)
    assert (first.changed, second.changed) == (True, False)
    assert [path.name for path in directory.iterdir()] == [UNIT_NAME]
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o644
    assert first.next_steps


def test_what_the_sandbox_forbids_to_make_is_made_before(tmp_path: Path) -> None:
    """A directory that the program fills, and that is not there: one line of shell for each."""
    there, missing = tmp_path / "there", tmp_path / "a b"
    there.mkdir()
    writes = (there, missing, missing / "below")
    unit = make_unit(tmp_path, writes=writes, account=getpass.getuser())
    made, *others = install_unit(unit, tmp_path).next_steps
    assert all(each.startswith("systemctl") for each in others)
    subprocess.run(["sh", "-c", made], check=True)
    assert stat.S_IMODE(missing.stat().st_mode) == 0o700
    assert not any(each.startswith("install") for each in install_unit(unit, tmp_path).next_steps)


def test_install_keeps_a_unit_of_somebody_else(tmp_path: Path) -> None:
    """Only --force replaces what hpc-agent did not write."""
    unit, path = make_unit(tmp_path), tmp_path / UNIT_NAME
    path.write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(ConfigError, match="--force"):
        install_unit(unit, tmp_path)
    with pytest.raises(ConfigError, match="by hand"):
        uninstall_unit(tmp_path)
    assert install_unit(unit, tmp_path, force=True).changed


def test_install_says_where_it_cannot_write(tmp_path: Path) -> None:
    """A file in the directory's place gives one clear error."""
    unit, blocked = make_unit(tmp_path), tmp_path / "user"
    blocked.touch()
    with pytest.raises(ConfigError, match=str(blocked)):
        install_unit(unit, blocked)


def test_uninstall_removes_the_unit_and_its_link(tmp_path: Path) -> None:
    """A second uninstall finds nothing and is not an error."""
    outcome = install_unit(make_unit(tmp_path), tmp_path)
    wants = tmp_path / "default.target.wants"
    wants.mkdir()
    (wants / UNIT_NAME).symlink_to(outcome.path)
    assert uninstall_unit(tmp_path).changed
    assert not outcome.path.exists()
    assert not list(wants.iterdir())
    assert not uninstall_unit(tmp_path).changed


def test_the_unit_takes_over_where_slurm_is(tmp_path: Path) -> None:
    """A user's service manager has neither the site's PATH nor its SLURM_CONF."""
    config = tmp_path / "agent.yaml"
    config.touch()
    environ = {"PATH": "/opt/slurm/bin", "SLURM_CONF": "/opt/slurm.conf", "SECRET_TOKEN": "x"}
    program = agent_program(config, environ=environ)
    assert dict(program.environment) == {"PATH": "/opt/slurm/bin", "SLURM_CONF": "/opt/slurm.conf"}
    assert program.executable.name == "hpc-agent"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_a_password_stays_out_of_the_unit(name: str, tmp_path: Path) -> None:
    """The error names the variable and the place for it, and not the password."""
    config = tmp_path / "agent.yaml"
    config.touch()
    environ = {name: "http://user:geheim@proxy:3128"}
    with pytest.raises(ConfigError, match=name) as caught:
        agent_program(config, environ=environ)
    assert "geheim" not in str(caught.value)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    """The agent would only fail later, in the journal."""
    with pytest.raises(ConfigError, match="--config"):
        agent_program(tmp_path / "no.yaml", environ={})
    with pytest.raises(ConfigError, match="control-plane init"):
        control_plane_program(tmp_path, environ={})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CONFIG_HOME": "/cfg"}, "/cfg/systemd/user"),
        ({"XDG_CONFIG_HOME": ""}, "~/.config/systemd/user"),
        ({}, "~/.config/systemd/user"),
    ],
)
def test_units_live_in_the_user_s_configuration(environ: dict[str, str], expected: str) -> None:
    """XDG_CONFIG_HOME counts, as for systemd."""
    assert unit_directory(environ) == Path(expected).expanduser()


def test_nobody_else_can_put_a_unit_beside_ours(tmp_path: Path) -> None:
    """The user's service manager starts whatever is in that directory."""
    unit = make_unit(tmp_path)
    with umask(0):
        install_unit(unit, tmp_path / "systemd" / "user")
    for directory in (tmp_path / "systemd", tmp_path / "systemd" / "user"):
        assert stat.S_IMODE(directory.stat().st_mode) & 0o022 == 0
    (tmp_path / "systemd" / "user").chmod(0o777)
    with pytest.raises(ConfigError, match="chmod o-w"):
        install_unit(replace(unit, host="other"), tmp_path / "systemd" / "user")


SYSTEM = [
    (Kind.AGENT, ["/srv/agent", "/scratch/work dir", "/home/me/100% work"]),
    (Kind.CONTROL_PLANE, ["/srv/dagster"]),
]


@pytest.mark.parametrize(("kind", "writes"), SYSTEM)
def test_systemd_accepts_a_system_unit(kind: Kind, writes: list[str], tmp_path: Path) -> None:
    """Whatever it fills, and without a remark."""
    unit = make_unit(tmp_path, kind=kind, writes=tuple(map(Path, writes)), account="daemon")
    text = render_unit(unit)
    assert "User=daemon\n" in text
    assert "WantedBy=multi-user.target" in text
    verify(text, tmp_path, "--system")


@pytest.mark.parametrize(("kind", "most"), [(Kind.AGENT, 2.0), (Kind.CONTROL_PLANE, 1.8)])
def test_system_unit_is_hardened(kind: Kind, most: float, tmp_path: Path) -> None:
    """systemd's own score: 0 is shut, 10 is open; docs/installing.md says it."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = make_unit(
        tmp_path, kind=kind, writes=(Path("/srv/x"),), account="daemon", executable=TRUE
    )
    path = tmp_path / kind.unit_name
    path.write_text(render_unit(unit))
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"exposure level for .*: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= most, done.stdout


def test_homes_are_hidden_from_what_needs_none(tmp_path: Path) -> None:
    """A program, a configuration or a directory in one makes them visible, and no more."""
    need_none = {"executable": TRUE, "config": "/etc/a.yaml", "account": "daemon"}
    assert "ProtectHome=yes\n" in render_unit(make_unit(tmp_path, **need_none))
    unit = make_unit(tmp_path, **need_none)
    linked = replace(unit, program=replace(unit.program, python=Path("/root/.pyenv/bin/python")))
    assert "ProtectHome=read-only\n" in render_unit(linked)
    for change in ({"writes": (Path("/home/me/work"),)}, {"config": "/root/agent.yaml"}):
        text = render_unit(make_unit(tmp_path, **need_none | change))
        assert "ProtectHome=read-only\n" in text


def test_name_of_an_account_adds_no_line(tmp_path: Path) -> None:
    """systemd knows no quotes there."""
    with pytest.raises(ConfigError, match="no name of a user"):
        render_unit(make_unit(tmp_path, account="me\nExecStartPre=/bin/sh"))
