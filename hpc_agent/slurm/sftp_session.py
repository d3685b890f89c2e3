"""The way to SFTP: by sshd's subsystem, or past a login shell that prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.slurm import ssh_shell
from hpc_agent.slurm.ssh_shared import SharedConnection

if TYPE_CHECKING:
    import paramiko

_ANSWER_SECONDS = 30.0
_SERVER = "sftp-server"
# Where Debian, Red Hat, SUSE and the BSDs have it.
_SERVER_PATH = "/usr/lib/openssh:/usr/libexec/openssh:/usr/lib/ssh:/usr/libexec"


def open_sftp(shared: SharedConnection) -> paramiko.SFTPClient:
    """Return a client on a channel of its own. Raises SchedulerUnavailableError."""
    import paramiko

    try:
        return _by_subsystem(shared)
    except (paramiko.SFTPError, EOFError):
        # sshd starts a server that is not its own by the login shell, which has printed or ended.
        return _by_command(shared)


def _by_subsystem(shared: SharedConnection) -> paramiko.SFTPClient:
    """Raises SFTPError or EOFError when something else is heard than SFTP."""
    import paramiko

    channel = _channel(shared)
    try:
        channel.invoke_subsystem("sftp")
        return paramiko.SFTPClient(channel)
    except (paramiko.SFTPError, EOFError):
        channel.close()
        raise
    except (paramiko.SSHException, OSError) as error:
        channel.close()
        raise SchedulerUnavailableError(_no_access(shared, error)) from error


def _by_command(shared: SharedConnection) -> paramiko.SFTPClient:
    import paramiko

    channel = _channel(shared)
    try:
        ssh_shell.await_mark(channel, ssh_shell.begin(channel, [_SERVER], path=_SERVER_PATH))
        return paramiko.SFTPClient(channel)
    except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError) as error:
        channel.close()
        raise SchedulerUnavailableError(_no_access(shared, error)) from error


def _channel(shared: SharedConnection) -> paramiko.Channel:
    import paramiko

    try:
        channel = shared.open_session()
    except (paramiko.SSHException, OSError) as error:
        raise SchedulerUnavailableError(shared.words(error)) from error
    channel.settimeout(_ANSWER_SECONDS)
    return channel


def _no_access(shared: SharedConnection, error: Exception) -> str:
    return (
        f"{shared.target.host} gives no access to files by SFTP ({error}): its sshd needs "
        "`Subsystem sftp`, or mount work_dir here with scheduler.ssh.files: mounted"
    )
