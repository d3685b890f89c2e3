"""One job, from claim to exit record."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from typing import Any, Dict, Optional, Tuple

from . import records, signals
from .child import Child, cpu_seconds, max_rss_kb, supervise
from .claim import ClaimRefused, claim
from .journal import log
from .memory import MemoryLimit
from .proxy import LoopbackProxy
from .records import Ending, exit_record, start_record, write_json
from .relay_client import RelayClient
from .reports import Reporter, ReportFailed
from .spec import CODE_SERVER, Spec, read_token
from .tunnel import Tunnels

EXIT_REPORT_SECONDS = 30.0
TERMINATED_REPORT_SECONDS = 5.0
READY_REPORT_SECONDS = 24 * 3600.0
EX_TEMPFAIL = 75  # sysexits.h: the agent could not be reached, the run was not started
EX_CANNOT_START = 127
_SOCKET_NAME_MAX = 107  # sun_path, unix(7)


class NodeProgram:
    """Supervises the job of one job directory."""

    def __init__(self, job_dir: str, spec: Spec) -> None:
        """Read the job's token. Raises SpecError."""
        self._job_dir = job_dir
        self._spec = spec
        self._token = read_token(self._job_dir)
        self._context = records.current_context(self._spec.key)
        self._relay_file = self._path("relay.json")
        self._client = RelayClient(self._relay_file)
        self._reporter = Reporter(self._client, self._token, self._context)
        self._reached = False
        self._resumes = False

    def run(self) -> int:
        """Run the job and return the exit code for Slurm: the child's, or 128 + its signal."""
        signals.block()
        try:
            claim(self._job_dir, self._context)
        except ClaimRefused as refused:
            return self._refuse_duplicate(refused)
        log(
            "job %s on %s, Slurm job %s"
            % (self._spec.key, self._context.hostname, self._context.slurm_job_id or "-")
        )
        tmp = _node_local_directory()
        try:
            code, ending = self._claimed(tmp)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
        self._finish(ending)
        return code

    def _claimed(self, tmp: str) -> Tuple[int, Ending]:
        refusal = self._ask_to_start()
        if refusal is not None:
            return refusal
        proxy = LoopbackProxy(self._client, self._token, self._context.restart_count)
        server_socket = os.path.join(tmp, "grpc.sock")
        environment = self._environment(proxy.address, server_socket, tmp)
        words = self._spec.resume_argv if self._resumes else self._spec.argv
        argv = [_fill(word, server_socket, tmp) for word in words]
        write_json(self._path("start.json"), start_record(self._context))
        try:
            child = Child(
                argv, environment, self._spec.working_directory, self._job_dir, self._spec.nice
            )
        except (OSError, ValueError) as error:
            reason = "cannot start %s: %s" % (argv[0], error)
            log(reason)
            return EX_CANNOT_START, Ending(records.EXITED, reason=reason, exit_code=EX_CANNOT_START)
        log("started %s as process %d" % (os.path.basename(argv[0]), child.pid))
        proxy.start()
        tunnels = self._serve_code(server_socket) if self._spec.kind == CODE_SERVER else None
        limit = self._spec.memory_limit_mb
        memory = None if limit is None else MemoryLimit(limit, child.pid)
        asked = supervise(child, self._spec.grace_seconds, memory, self._spec.leave_open_on)
        if tunnels is not None:
            tunnels.stop()
        return self._ended(child.poll() or 0, asked, memory.verdict if memory else None)

    def _ask_to_start(self) -> Optional[Tuple[int, Ending]]:
        """Report the start; return how it ends when it must not go on."""
        interruption = _Interruption()
        try:
            answer = self._reporter.report(
                "started", self._spec.relay_timeout_seconds, interruption.pause
            )
        except ReportFailed as error:
            log("not started: %s" % error)
            if interruption.happened:
                return 128 + signal.SIGTERM, Ending(
                    records.NOT_STARTED, reason="ended by a signal before the agent was reached"
                )
            reason = (
                "the agent could not be reached from %s: %s. Check that hpc-agent is running and "
                "that compute nodes may connect to the addresses in %s"
                % (self._context.hostname, error, self._relay_file)
            )
            return EX_TEMPFAIL, Ending(records.NOT_STARTED, reason=reason)
        self._reached = True
        if answer.proceed:
            self._resumes = answer.resume
            return self._cannot_resume() if answer.resume else None
        log("not started: %s" % answer.reason)
        return 0, Ending(records.NOT_STARTED, reason=answer.reason)

    def _cannot_resume(self) -> Optional[Tuple[int, Ending]]:
        if self._spec.resume_argv:
            log("going on with the run that an earlier attempt had started")
            return None
        reason = "%s says no command (resume_argv) that goes on with a started run" % (
            self._path("spec.json")
        )
        return EX_CANNOT_START, Ending(
            records.NOT_STARTED, reason=reason, exit_code=EX_CANNOT_START
        )

    def _environment(self, address: str, server_socket: str, tmp: str) -> Dict[str, str]:
        environment = dict(os.environ)
        for name, value in self._spec.environment.items():
            environment[name] = _fill(value, server_socket, tmp)
        environment["HPC_AGENT_API_URL"] = "http://" + address
        environment["HPC_AGENT_JOB_TOKEN"] = self._token
        environment["HPC_AGENT_TMP"] = tmp
        # The child must reach its loopback address whatever proxy the site sets.
        for name in ("no_proxy", "NO_PROXY"):
            others = environment.get(name)
            environment[name] = "127.0.0.1," + others if others else "127.0.0.1"
        return environment

    def _serve_code(self, server_socket: str) -> Tunnels:
        tunnels = Tunnels(
            self._relay_file, self._token, server_socket, self._spec.parked_connections
        )

        def announce() -> None:
            while not _accepts(server_socket):
                time.sleep(0.1)
            log("the code server accepts connections")
            tunnels.start()
            try:
                self._reporter.report("ready", READY_REPORT_SECONDS, _sleep)
            except ReportFailed as error:
                log("could not report ready: %s" % error)

        threading.Thread(target=announce, name="ready", daemon=True).start()
        return tunnels

    def _ended(
        self, status: int, asked: Optional[int], too_much: Optional[str]
    ) -> Tuple[int, Ending]:
        number = -status if status < 0 else None
        outcome = records.EXITED if asked is None else records.TERMINATED
        if too_much is not None:
            outcome, reason = records.OUT_OF_MEMORY, too_much
        elif asked is not None:
            reason = "ended on %s" % signal.Signals(asked).name
        elif number is not None:
            reason = "killed by signal %d (%s)" % (number, signal.strsignal(number) or "unknown")
        else:
            reason = "exited with code %d" % status
        log(reason)
        ending = Ending(
            outcome,
            reason=reason,
            exit_code=status if number is None else None,
            signal=number,
            max_rss_kb=max_rss_kb(),
            cpu_seconds=cpu_seconds(),
            ended_on=signal.Signals(asked).name if asked is not None else None,
            stderr_tail=records.tail(self._path("stderr")),
        )
        return (128 + number if number is not None else status), ending

    def _refuse_duplicate(self, refused: ClaimRefused) -> int:
        """Exit harmlessly; exit.json belongs to the claimant."""
        log("duplicate: %s" % refused)
        record = exit_record(self._context, Ending(records.DUPLICATE, reason=str(refused)))
        name = "duplicate-%s.json" % (self._context.slurm_job_id or os.getpid())
        write_json(self._path(name), record)
        return 0

    def _finish(self, ending: Ending) -> None:
        record = exit_record(self._context, ending)
        write_json(self._path("exit.json"), record)
        self._report_exit(record)
        self._client.close()

    def _report_exit(self, record: Dict[str, Any]) -> None:
        # An agent that was never reached gets one more try; the exit record says the same.
        patience = EXIT_REPORT_SECONDS if self._reached else 0.0
        if record["outcome"] == records.TERMINATED:
            # Whoever ended the job waits for it to go, and will kill it if it does not.
            patience = min(patience, TERMINATED_REPORT_SECONDS)
        try:
            self._reporter.report("exited", patience, _Interruption().pause, exit=record)
        except ReportFailed as error:
            log("could not report the end, the exit record says it: %s" % error)

    def _path(self, name: str) -> str:
        return os.path.join(self._job_dir, name)


class _Interruption:
    """Pauses of the main thread that a terminating signal cuts short."""

    def __init__(self) -> None:
        self.happened = False

    def pause(self, seconds: float) -> bool:
        """Wait; return whether a terminating signal has come, now or before."""
        deadline = time.monotonic() + seconds
        while not self.happened and time.monotonic() < deadline:
            received = signals.wait(deadline - time.monotonic())
            self.happened = received in signals.TERMINATING
        return self.happened


def _fill(text: str, server_socket: str, tmp: str) -> str:
    return text.replace("{socket}", server_socket).replace("{tmp}", tmp)


def _node_local_directory() -> str:
    """Make a private directory whose sockets have a short enough path."""
    directory = tempfile.mkdtemp(prefix="hpc-agent-")
    if len(os.path.join(directory, "grpc.sock")) > _SOCKET_NAME_MAX:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="hpc-agent-", dir="/tmp")
    return directory


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
