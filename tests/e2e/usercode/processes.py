"""Ops that start processes and threads, and ops that end their own in their own way."""

import concurrent.futures
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg


def squared(number: int) -> int:
    """Work for a pool of processes."""
    return number * number


def of_a_forked_child() -> int:
    """Return what a child, made by fork(2) alone, has for an exit code."""
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@dg.op
def starts_processes(context: dg.OpExecutionContext) -> None:
    """By each way that Python has."""
    context.log.info(f"fork {of_a_forked_child()}")
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            context.log.info(f"{method} {sum(pool.map(squared, range(4)))}")
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        context.log.info(f"futures {sum(executor.map(squared, range(4)))}")


@dg.job(executor_def=dg.multiprocess_executor)
def pools() -> None:
    """Processes of a step."""
    starts_processes()


class Daemon(dg.Config):
    """The file that the daemon writes its process id to."""

    pid_file: str


@dg.op
def starts_a_daemon(config: Daemon) -> None:
    """Fork twice, in a session of its own, as servers and cluster frameworks do."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    Path(config.pid_file).write_text(str(os.getpid()))
    signal.pause()
    os._exit(0)


@dg.job(executor_def=dg.multiprocess_executor)
def daemonizing() -> None:
    """Leaves a process behind."""
    starts_a_daemon()


@dg.op
def closes_descriptors(context: dg.OpExecutionContext) -> None:
    """All but the standard ones, as code that daemonizes does."""
    os.closerange(3, 1000)
    context.log.info("told after all descriptors were closed")


@dg.job(executor_def=dg.in_process_executor)
def closing() -> None:
    """One process."""
    closes_descriptors()


@dg.op
def exits_with_success() -> None:
    """Call sys.exit(0), as scripts that became ops do."""
    sys.exit(0)


@dg.job(executor_def=dg.in_process_executor)
def exiting() -> None:
    """One process."""
    exits_with_success()


@dg.op
def handles_sigterm() -> None:
    """Ignore the wish that it end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ignoring signals", flush=True)
    threading.Event().wait()


@dg.job(executor_def=dg.in_process_executor)
def ignoring_signals() -> None:
    """Is terminated."""
    handles_sigterm()


@dg.op
def leaves_a_thread() -> None:
    """Of which Python waits for the end, which does not come."""
    threading.Thread(target=threading.Event().wait).start()


@dg.job(executor_def=dg.in_process_executor)
def endless_thread() -> None:
    """Succeeds, and its process goes on."""
    leaves_a_thread()


class Marker(dg.Config):
    """The file that the job makes."""

    marker: str


@dg.op
def submits(config: Marker) -> None:
    """A job of the user's own."""
    wrapped = shlex.join(["touch", config.marker])
    subprocess.run(["sbatch", "--output=/dev/null", f"--wrap={wrapped}"], check=True)


@dg.job(executor_def=dg.in_process_executor)
def submitting() -> None:
    """A job within a job."""
    submits()


PIPED = """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    print("printed by the process", flush=True)
    pipes.log.info("told through pipes")
    pipes.report_asset_materialization(metadata={"rows": 7})
"""


@dg.asset
def piped(
    context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient
) -> dg.MaterializeResult[None]:
    """Made by another program."""
    argv = [sys.executable, "-c", PIPED]
    return pipes.run(command=argv, context=context).get_materialize_result()


@dg.op
def asks_at_the_terminal() -> None:
    """There is none."""
    input("name? ")


@dg.job(executor_def=dg.in_process_executor)
def asking_at_the_terminal() -> None:
    """Reads standard input."""
    asks_at_the_terminal()


defs = dg.Definitions(
    assets=[piped],
    resources={"pipes": dg.PipesSubprocessClient()},
    jobs=[
        pools,
        daemonizing,
        closing,
        exiting,
        ignoring_signals,
        endless_thread,
        submitting,
        asking_at_the_terminal,
    ],
)
