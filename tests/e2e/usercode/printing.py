"""Steps that print, and come to every kind of end."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import dagster as dg


class How(dg.Config):
    """``end`` names the end of the step, ``megabytes`` what it prints before."""

    end: str = ""
    megabytes: int = 0


def come_to(end: str) -> None:
    """End this process as asked."""
    if end == "segfault":
        ctypes.string_at(0)
    elif end == "exit":
        os._exit(7)
    elif end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif end == "memory":
        hoard = [b"x" * (64 << 20) for _ in range(1024)]
        print(len(hoard))
    elif end == "raise":
        raise ValueError("as asked")


@dg.op
def prints(config: How) -> None:
    """Print to both streams, also past Python, and end as asked."""
    print("first words", flush=True)
    line = b"x" * 1023 + b"\n"
    for _ in range(config.megabytes):
        os.write(1, line * 1024)
    print("a complaint", file=sys.stderr, flush=True)
    os.write(1, b"last words\n")
    come_to(config.end)


@dg.op
def waits_for_more() -> None:
    """Print, and go on until it is ended."""
    print("before the end", flush=True)
    signal.pause()


@dg.op
def prints_in_each_attempt(context: dg.OpExecutionContext) -> None:
    """Fail the first time."""
    print(f"attempt {context.retry_number}", flush=True)
    if context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1)


def set_proxies() -> None:
    """Send all traffic where nobody is, as code behind a firewall may."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ[name] = os.environ[name.upper()] = "http://127.0.0.1:9"
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""


@dg.op
def logs_much(context: dg.OpExecutionContext) -> None:
    """Write events after the proxies were set."""
    set_proxies()
    for number in range(3):
        context.log.info(f"event {number}")
    print("printed behind the proxy", flush=True)


@dg.job(executor_def=dg.in_process_executor)
def printing_in_process() -> None:
    """One process for run and step."""
    prints()


@dg.job(executor_def=dg.multiprocess_executor)
def printing_in_steps() -> None:
    """A process for each step."""
    prints()


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    """Is terminated."""
    waits_for_more()


@dg.job(executor_def=dg.multiprocess_executor)
def retried() -> None:
    """A step with two attempts."""
    prints_in_each_attempt()


@dg.job(executor_def=dg.in_process_executor)
def behind_proxies() -> None:
    """User code that changes the environment."""
    logs_much()


@dg.op
def reads_beside_the_code() -> str:
    """A relative path, as it works with ``dagster dev``."""
    return Path("beside.txt").read_text()


@dg.job(executor_def=dg.multiprocess_executor)
def relative() -> None:
    """Starts in the location's working_directory."""
    reads_beside_the_code()


defs = dg.Definitions(
    jobs=[
        printing_in_process,
        printing_in_steps,
        waiting,
        retried,
        behind_proxies,
        relative,
    ]
)
