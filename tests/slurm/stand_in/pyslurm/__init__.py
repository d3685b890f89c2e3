"""Stands in for pyslurm 25.11.2 where that cannot be built: the few names in use, by commands.

Written from pyslurm's documentation and from what it was seen to do; it holds none of its source.
Its ways are kept, also the odd ones: 0 reads as None, 128 is taken off exit codes above 127, an
unknown job is canceled without a word, ``#SBATCH`` lines are not read, every ``SLURM_*`` variable
of this process goes to the job.

Tests give orders by a file named like a call in the directory ``PYSLURM_STAND_IN``: ``hang``,
``abort``, ``exit``, ``print`` or ``error ERRNO WORDS``. An order holds for one call, and the file
is gone once it is obeyed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_CONF = os.environ.get("SLURM_CONF")  # libslurm reads it once, too
_INVALID_JOB_ID = 2017
_ERROR_ON_DESC = 2000
_ATTRIBUTES = frozenset(
    {
        "account",
        "array",
        "comment",
        "constraints",
        "cpus_per_task",
        "environment",
        "is_requeueable",
        "log_files_open_mode",
        "memory_per_cpu",
        "memory_per_node",
        "name",
        "nodes",
        "ntasks",
        "partitions",
        "qos",
        "reservations",
        "script",
        "script_args",
        "standard_error",
        "standard_in",
        "standard_output",
        "time_limit",
        "working_directory",
    }
)
_FLAGS = {
    "account": "--account",
    "array": "--array",
    "comment": "--comment",
    "constraints": "--constraint",
    "cpus_per_task": "--cpus-per-task",
    "log_files_open_mode": "--open-mode",
    "memory_per_cpu": "--mem-per-cpu",
    "memory_per_node": "--mem",
    "name": "--job-name",
    "nodes": "--nodes",
    "ntasks": "--ntasks",
    "partitions": "--partition",
    "qos": "--qos",
    "reservations": "--reservation",
    "standard_error": "--error",
    "standard_in": "--input",
    "standard_output": "--output",
    "time_limit": "--time",
    "working_directory": "--chdir",
}

_FIELDS = (
    "JobArrayID",
    "State",
    "exit_code",
    "restartcnt",
    "Partition",
    "TimeLimit",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "NodeList",
    "Reason",
    "Name",
    "Comment",
)


class RPCError(Exception):
    """What Slurm answered."""

    def __init__(self, errno: int, msg: str) -> None:
        super().__init__(msg)
        self.errno = errno
        self.msg = msg


class JobSubmitDescription:
    """A job to be; an attribute that it does not have is an AttributeError."""

    def __init__(self, **attributes: Any) -> None:
        for name in attributes:
            if name not in _ATTRIBUTES:
                raise AttributeError(f"JobSubmitDescription has no attribute {name!r}")
        self._attributes = attributes

    def submit(self) -> int:
        _obey("submit")
        given = self._attributes
        if "environment" not in given:
            raise ValueError("environment must be given")
        if str(given.get("time_limit", "")).isdigit() and isinstance(given["time_limit"], str):
            raise TypeError("an integer is required")
        script = given["script"]
        text = Path(script).read_text() if Path(script).is_file() else script
        if not text.startswith("#!"):
            raise ValueError("Not a valid Batch script. First line must start with '#!'")
        done = _run(
            ["sbatch", "--parsable", *self._options()],
            text=text.replace("#SBATCH", "# SBATCH"),
            environment=given["environment"] or dict(os.environ),
        )
        _obey("submitted")
        if done.returncode != 0:
            raise RPCError(_ERROR_ON_DESC, done.stderr.strip().rpartition(": ")[2])
        return int(done.stdout)

    def _options(self) -> list[str]:
        given = self._attributes
        options = [f"{_FLAGS[name]}={given[name]}" for name in _FLAGS if given.get(name)]
        if given.get("is_requeueable") is not None:
            options.append("--requeue" if given["is_requeueable"] else "--no-requeue")
        # Without more words it is one task of one CPU on one node.
        defaults = {"--ntasks": 1, "--cpus-per-task": 1, "--nodes": 1}
        return [f"{flag}={number}" for flag, number in defaults.items()] + options


class Job:
    """A job by its number."""

    def __init__(self, job_id: int) -> None:
        if not isinstance(job_id, int):
            raise TypeError("an integer is required")
        self.id = job_id
        self._values: dict[str, str] = {}

    @staticmethod
    def load(job_id: int) -> Job:
        _obey("show")
        job = Job(job_id)
        columns = ",".join(f"{field}:0\x1f" for field in _FIELDS)
        done = _run(
            [
                "squeue",
                "--noheader",
                "--array",
                "--states=all",
                f"--Format={columns}",
                f"--jobs={job_id}",
            ]
        )
        if done.returncode != 0 or not done.stdout.strip():
            raise RPCError(_INVALID_JOB_ID, "Invalid job id specified")
        # Of an array it is whatever comes first.
        job._values = dict(zip(_FIELDS, done.stdout.lstrip("\n").split("\x1f"), strict=False))
        return job

    def cancel(self) -> None:
        _obey("cancel")
        _run(["scancel", str(self.id)])

    @property
    def array_id(self) -> int | None:
        array, is_task, _ = self._values["JobArrayID"].partition("_")
        return int(array) if is_task else None

    @property
    def array_task_id(self) -> int | None:
        return _none_for_zero(self._values["JobArrayID"].partition("_")[2])

    @property
    def state(self) -> str:
        return self._values["State"]

    @property
    def name(self) -> str | None:
        return self._values["Name"]

    @property
    def comment(self) -> str | None:
        comment = self._values["Comment"]
        return None if comment in {"", "(null)"} else comment

    @property
    def state_reason(self) -> str:
        return self._values["Reason"]

    @property
    def partition(self) -> str:
        return self._values["Partition"]

    @property
    def allocated_nodes(self) -> str | None:
        return self._values["NodeList"] or None

    @property
    def exit_code(self) -> int:
        code = self._exit()[0]
        return code - 128 if code >= 128 else code

    @property
    def exit_code_signal(self) -> int:
        return self._exit()[1]

    @property
    def submit_time(self) -> int | None:
        return _none_for_zero(self._values["SubmitTime"])

    @property
    def start_time(self) -> int | None:
        return _none_for_zero(self._values["StartTime"])

    @property
    def end_time(self) -> int | None:
        return _none_for_zero(self._values["EndTime"])

    @property
    def time_limit(self) -> int | None:
        match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", self._values["TimeLimit"])
        if match is None:
            return None
        days, hours, minutes, _ = (int(part or 0) for part in match.groups())
        return (days * 24 + hours) * 60 + minutes

    @property
    def requeue_count(self) -> int:
        return int(self._values["restartcnt"])

    def _exit(self) -> tuple[int, int]:
        code, is_pair, number = self._values["exit_code"].partition(":")
        return (int(code), int(number)) if is_pair else (int(code) >> 8, int(code) & 0x7F)


def _none_for_zero(word: str) -> int | None:
    return int(word) or None if word.isdigit() else None


def _run(
    argv: list[str], *, text: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; of this process's own environment it gets what libslurm would know."""
    own = {"PATH": os.environ["PATH"], "TZ": "UTC", "SLURM_TIME_FORMAT": "%s"}
    if environment is not None:
        slurm = {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}
        own = {"PATH": os.environ["PATH"], **slurm, **environment}
    if _CONF is not None:
        own["SLURM_CONF"] = _CONF
    return subprocess.run(argv, input=text, env=own, capture_output=True, text=True, check=False)


def _obey(call: str) -> None:
    """Do what a test ordered for this call."""
    orders = os.environ.get("PYSLURM_STAND_IN")
    file = Path(orders) / call if orders else None
    if file is None or not file.exists():
        return
    order, _, words = file.read_text().partition(" ")
    file.unlink()
    print(f"stand-in: {order}", file=sys.stderr, flush=True)
    if order == "hang":
        time.sleep(3600)
    elif order == "abort":
        os.abort()
    elif order == "exit":
        os._exit(1)
    elif order == "print":
        os.write(1, b'{"id": 1, "result": "999999"}\nnoise of libslurm')
    elif order == "error":
        errno, _, message = words.partition(" ")
        raise RPCError(int(errno), message)


_obey("import")
