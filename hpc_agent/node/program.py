"""One job, from claim to exit record."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import traceback
from typing import Any, Dict, Optional, Tuple

from . import records, signals
from .child import Child, ExecChild, StartChild, supervise
from .claim import ClaimRefused, claim
from .compute_logs import ComputeLogs
from .disk import DiskTrouble, Interrupted, patiently
from .job_files import write_json
from .journal import log
from .limits import Limits
from .log_upload import LogUpload
from .output import Output
from .proxy import LoopbackProxy
from .records import STDERR_TAIL_BYTES, Ending, exit_record, start_record
from .relay_client import RelayClient
from .reports import Reporter, ReportFailed
from .spec import CODE_SERVER, DISK_SECONDS, SOCKET, TMP, Spec, read_token, with_paths
from .tunnel import Tunnels

EXIT_REPORT_SECONDS = 30.0
TERMINATED_REPORT_SECONDS = 5.0
DUPLICATE_REPORT_SECONDS = 5.0
LAST_REQUESTS_SECONDS = 5.0
# Of an upload of what the steps have printed, without any progress.
LAST_LOGS_SECONDS = 60.0
TERMINATED_LOGS_SECONDS = 5.0
READY_REPORT_SECONDS = 24 * 3600.0
EX_TEMPFAIL = 75  # sysexits.h: the agent could not be reached, the run was not started
EX_CANNOT_START = 127
EX_SOFTWARE = 70  # sysexits.h
_HOME = "dagster-home"
_SOCKET_NAME_MAX = 107  # sun_path, unix(7)


class NodeProgram:
    """Supervises the job of one job directory."""

    def __init__(
        self,
        job_dir: str,
        spec: Spec,
        start_child: StartChild = ExecChild,
        limits: Optional[Limits] = None,
    ) -> None:
        """Read the job's token. ``limits`` stand in for the specification's. Raises SpecError."""
        self._job_dir = job_dir
        self._spec = spec
        self._start_child = start_child
        self._limits = limits or Limits(spec.memory_limit_mb)
        self._token = read_token(self._job_dir)
        self._context = records.current_context(self._spec.key)
        self._relay_file = self._path("relay.json")
        self._client = RelayClient(self._relay_file)
        self._reporter = Reporter(self._client, self._token, self._context)
        self._interruption = _Interruption()
        self._child: Optional[Child] = None
        self._reached = False
        self._resumes = False

    def run(self) -> int:
        """Run the job and return the exit code for Slurm: the child's, or 128 + its signal."""
        signals.block()
        try:
            patiently(
                "cannot claim the job",
                lambda: claim(self._job_dir, self._context),
                self._spec.relay_timeout_seconds,
                self._interruption.pause,
            )
        except ClaimRefused as refused:
            return self._refuse_duplicate(refused)
        except (DiskTrouble, Interrupted) as error:
            return self._not_claimed(error)
        log(
            "job %s on %s, Slurm job %s"
            % (self._spec.key, self._context.hostname, self._context.slurm_job_id or "-")
        )
        try:
            code, ending = self._run_in_tmp()
        except Exception as error:  # noqa: BLE001  (whatever it is, the agent is told of an end)
            code, ending = self._broken(error)
        self._finish(ending)
        return code

    def _run_in_tmp(self) -> Tuple[int, Ending]:
        try:
            tmp = _node_local_directory(self._spec.dagster_yaml)
        except OSError as error:
            reason = "no directory for temporary files on %s: %s" % (self._context.hostname, error)
            log(reason)
            return EX_TEMPFAIL, Ending(records.NOT_STARTED, reason=reason)
        try:
            return self._claimed(tmp)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)

    def _claimed(self, tmp: str) -> Tuple[int, Ending]:
        refusal = self._ask_to_start()
        if refusal is not None:
            return refusal
        try:
            output = patiently(
                "cannot write the job directory",
                self._note_start,
                self._spec.relay_timeout_seconds,
                self._interruption.pause,
            )
        except (DiskTrouble, Interrupted) as error:
            return self._not_started(error)
        try:
            return self._run_child(tmp, output)
        finally:
            output.close()

    def _note_start(self) -> Output:
        write_json(self._path("start.json"), start_record(self._context))
        return Output(self._job_dir, STDERR_TAIL_BYTES)

    def _run_child(self, tmp: str, output: Output) -> Tuple[int, Ending]:
        proxy = LoopbackProxy(
            self._client, self._token, self._context.restart_count, self._is_left_open
        )
        server_socket = os.path.join(tmp, "grpc.sock")
        environment = self._environment(proxy.address, tmp)
        words = self._spec.resume_argv if self._resumes else self._spec.argv
        argv = with_paths(words, {SOCKET: server_socket, TMP: tmp})
        try:
            directory = self._spec.working_directory
            child = self._start_child(argv, environment, directory, output.sinks, self._spec.nice)
        except (OSError, ValueError) as error:
            reason = self._cannot_start(argv[0], error)
            log(reason)
            return EX_CANNOT_START, Ending(records.EXITED, reason=reason, exit_code=EX_CANNOT_START)
        self._child = child
        log("started %s as process %d" % (os.path.basename(argv[0]), child.pid))
        output.start()
        proxy.start()
        logs = self._carry_logs(tmp)
        tunnels = self._serve_code(server_socket) if self._spec.kind == CODE_SERVER else None
        asked = supervise(
            child,
            self._spec.grace_seconds,
            self._limits,
            self._spec.leave_open_on,
            self._spec.warning_seconds,
        )
        if tunnels is not None:
            tunnels.stop()
        proxy.finish(LAST_REQUESTS_SECONDS)
        output.close()
        if logs is not None:
            logs.finish(LAST_LOGS_SECONDS if asked is None else TERMINATED_LOGS_SECONDS)
        return self._ended(child, asked, output.stderr_tail())

    def _is_left_open(self) -> bool:
        """Whether another attempt goes on: what this one says of its end is not meant for anybody.

        Slurm signals the child too, which may fail of it before it can be killed.
        """
        return signals.first_terminating() in self._spec.leave_open_on

    def _cannot_start(self, program: str, error: Exception) -> str:
        directory, host = self._spec.working_directory, self._context.hostname
        if directory and not os.path.isdir(directory):
            why = "its working directory %s is not there on %s" % (directory, host)
        elif isinstance(error, FileNotFoundError):
            why = "it is not there on %s" % host
        else:
            why = str(error)
        return "cannot start %s: %s" % (program, why)

    def _not_started(self, error: Exception) -> Tuple[int, Ending]:
        log("not started: %s" % error)
        if isinstance(error, Interrupted):
            reason = "ended by a signal before it started (%s)" % error
            return 128 + signal.SIGTERM, Ending(records.NOT_STARTED, reason=reason)
        reason = "the job directory cannot be used from %s: %s" % (self._context.hostname, error)
        return EX_TEMPFAIL, Ending(records.NOT_STARTED, reason=reason)

    def _not_claimed(self, error: Exception) -> int:
        """Tell the agent alone: exit.json is for whoever has the claim, and that is not known."""
        code, ending = self._not_started(error)
        self._reached = True
        self._report_exit(exit_record(self._context, ending))
        self._client.close()
        return code

    def _broken(self, error: Exception) -> Tuple[int, Ending]:
        """End the job, since nobody would look after it any more."""
        for line in traceback.format_exception(type(error), error, error.__traceback__):
            log(line.rstrip())
        if self._child is not None:
            self._child.end_all()
        outcome = records.NOT_STARTED if self._child is None else records.EXITED
        reason = "the node program failed: %r" % error
        return EX_SOFTWARE, Ending(outcome, reason=reason, exit_code=EX_SOFTWARE)

    def _ask_to_start(self) -> Optional[Tuple[int, Ending]]:
        """Report the start; return how it ends when it must not go on."""
        interruption = self._interruption
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

    def _environment(self, address: str, tmp: str) -> Dict[str, str]:
        environment = {**os.environ, **self._spec.environment}
        environment["HPC_AGENT_API_URL"] = "http://" + address
        environment["HPC_AGENT_JOB_TOKEN"] = self._token
        environment["HPC_AGENT_TMP"] = tmp
        environment["HPC_AGENT_COMPUTE_LOGS"] = _captured_in(tmp)
        environment["HPC_AGENT_ARTIFACTS"] = self._spec.artifacts_directory or tmp
        if self._spec.dagster_yaml is not None:
            environment.setdefault("DAGSTER_HOME", os.path.join(tmp, _HOME))
        # The child must reach its loopback address whatever proxy the site sets.
        for name in ("no_proxy", "NO_PROXY"):
            others = environment.get(name)
            environment[name] = "127.0.0.1," + others if others else "127.0.0.1"
        return environment

    def _carry_logs(self, tmp: str) -> Optional[ComputeLogs]:
        settings = self._spec.compute_logs
        if settings is None:
            return None
        logs = ComputeLogs(
            _captured_in(tmp),
            LogUpload(self._client, self._token, self._context.restart_count),
            settings,
            waits_for_end=self._spec.kind != CODE_SERVER,
            rest_is_in=self._path("stdout"),
        )
        logs.start()
        return logs

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

    def _ended(self, child: Child, asked: Optional[int], stderr_tail: str) -> Tuple[int, Ending]:
        status = child.poll() or 0
        number = -status if status < 0 else None
        outcome = records.EXITED if asked is None else records.TERMINATED
        if self._limits.verdict is not None:
            reason = self._limits.verdict
            if self._limits.out_of_memory:
                outcome = records.OUT_OF_MEMORY
            else:
                # Of what has failed it is the last lines that its run is told.
                stderr_tail = "\n".join(filter(None, [stderr_tail, reason]))
        elif asked is not None:
            reason = "ended on %s" % signal.Signals(asked).name
        elif number is not None:
            reason = "killed by signal %d (%s)" % (number, signal.strsignal(number) or "unknown")
        else:
            reason = "exited with code %d" % status
        log(reason)
        usage = child.usage()
        ending = Ending(
            outcome,
            reason=reason,
            exit_code=status if number is None else None,
            signal=number,
            max_rss_kb=usage.max_rss_kb,
            cpu_seconds=usage.cpu_seconds,
            ended_on=signal.Signals(asked).name if asked is not None else None,
            stderr_tail=stderr_tail,
        )
        return (128 + number if number is not None else status), ending

    def _refuse_duplicate(self, refused: ClaimRefused) -> int:
        """Tell who this is, and exit harmlessly; exit.json belongs to the claimant."""
        log("duplicate: %s" % refused)
        record = exit_record(self._context, Ending(records.DUPLICATE, reason=str(refused)))
        record["claimed_by"] = refused.claimed_by
        name = "duplicate-%s.json" % (self._context.slurm_job_id or os.getpid())
        self._write(name, record)
        # In a thread: a relay that takes the report and never answers must not keep the node.
        telling = threading.Thread(
            target=self._report_duplicate, args=(refused,), name="duplicate", daemon=True
        )
        telling.start()
        telling.join(2 * DUPLICATE_REPORT_SECONDS)
        return 0

    def _report_duplicate(self, refused: ClaimRefused) -> None:
        try:
            self._reporter.report(
                "duplicate", DUPLICATE_REPORT_SECONDS, _sleep, claimed_by=refused.claimed_by
            )
        except ReportFailed as error:
            log("could not report the duplicate: %s" % error)

    def _finish(self, ending: Ending) -> None:
        """Leave the exit record and report it; the one is enough where the other cannot be."""
        record = exit_record(self._context, ending)
        is_written = self._write("exit.json", record)
        is_told = self._report_exit(record)
        if not is_written:
            patience = 0.0 if is_told else DISK_SECONDS
            self._write("exit.json", record, patience)
        self._client.close()

    def _write(self, name: str, record: Dict[str, Any], give_up_after: float = 0.0) -> bool:
        try:
            patiently(
                "cannot write %s" % name,
                lambda: write_json(self._path(name), record),
                give_up_after,
                _Interruption().pause,
            )
        except (DiskTrouble, Interrupted) as error:
            log(str(error))
            return False
        return True

    def _report_exit(self, record: Dict[str, Any]) -> bool:
        # An agent that was never reached gets one more try; the exit record says the same.
        patience = EXIT_REPORT_SECONDS if self._reached else 0.0
        if record["outcome"] == records.TERMINATED:
            # Whoever ended the job waits for it to go, and will kill it if it does not.
            patience = min(patience, TERMINATED_REPORT_SECONDS)
        try:
            self._reporter.report("exited", patience, _Interruption().pause, exit=record)
        except ReportFailed as error:
            log("could not report the end: %s" % error)
            return False
        return True

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


def _node_local_directory(dagster_yaml: Optional[str]) -> str:
    """Make a private directory for short paths of sockets, with a DAGSTER_HOME in it."""
    directory = tempfile.mkdtemp(prefix="hpc-agent-")
    if len(os.path.join(directory, "grpc.sock")) > _SOCKET_NAME_MAX:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="hpc-agent-", dir="/tmp")
    if dagster_yaml is not None:
        try:
            _make_home(os.path.join(directory, _HOME), dagster_yaml)
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
    return directory


def _make_home(home: str, dagster_yaml: str) -> None:
    os.mkdir(home)
    with open(os.path.join(home, "dagster.yaml"), "w", encoding="utf-8") as file:
        file.write(dagster_yaml)


def _captured_in(tmp: str) -> str:
    return os.path.join(tmp, "compute-logs")


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
