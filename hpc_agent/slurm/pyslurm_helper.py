"""The program that talks to pyslurm: requests as lines of JSON come in, answers go out.

    python pyslurm_helper.py PARENT_PID

Run by its path, with a Python that has pyslurm and need have nothing of ours: standard library
only, 3.8 and newer. pyslurm is GPL-2.0 and holds the GIL in every call; it may print, abort, or end
the interpreter. In here that costs one answer. Names are those of pyslurm 25.11.2.

The first line out is a greeting with the release of pyslurm, read from its metadata: nothing is
imported before the request ``import``. Answers have the request's ``id`` and a ``result`` or an
``error`` with ``kind``: ``rpc`` (Slurm's, with ``errno``), ``unsent`` (nothing went to Slurm) or
``failed`` (nobody knows).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import signal
import socket
import sys
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, Optional, TextIO, Tuple

_PR_SET_PDEATHSIG = 1


def main(parent: int) -> None:
    """Answer requests until there are no more."""
    _die_with(parent)
    requests, answers = _take_over_streams()
    _forget_own_directory()
    slurm: Optional[Slurm] = None
    _write(answers, {"python": sys.version.split()[0], "pyslurm": _release()})
    for line in requests:
        request = json.loads(line)
        answer: Dict[str, Any] = {"id": request["id"]}
        try:
            if request["call"] == "import":
                slurm = Slurm(importlib.import_module("pyslurm"))
                answer["result"] = None
            else:
                assert slurm is not None  # noqa: S101 - "import" comes first
                answer["result"] = slurm.call(request["call"], request["arguments"])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            answer["error"] = _describe(slurm, error)
        _write(answers, answer)


class Slurm:
    """The few calls of pyslurm that are used."""

    def __init__(self, pyslurm: ModuleType) -> None:
        self.pyslurm = pyslurm
        self._calls: Dict[str, Callable[..., Any]] = {
            "submit": self._submit,
            "show": self._show,
            "cancel": self._cancel,
        }

    def call(self, name: str, arguments: Dict[str, Any]) -> Any:
        """Make one call; raises whatever pyslurm raises."""
        return self._calls[name](**arguments)

    def _submit(self, attributes: Dict[str, Any]) -> str:
        # What sbatch --export=NIL (24.11) gives to a job. An empty environment would not do:
        # pyslurm then exports all of this process's (JobSubmitDescription._set_defaults).
        environment = {
            "SLURM_EXPORT_ENV": "NIL",
            "SLURM_SUBMIT_DIR": os.getcwd(),
            "SLURM_SUBMIT_HOST": socket.gethostname(),
        }
        description = self.pyslurm.JobSubmitDescription(environment=environment, **attributes)
        with _no_slurm_variables():
            return str(description.submit())

    def _show(self, job_id: int) -> Dict[str, Any]:
        job = self.pyslurm.Job.load(job_id)
        return {
            # Not array_task_id: that is None for the task 0 (u32_parse takes 0 for "not set").
            "is_array": bool(job.array_id),
            "state": job.state,
            "name": job.name,
            "comment": job.comment,
            "reason": job.state_reason,
            "partition": job.partition,
            "nodes": job.allocated_nodes,
            "exit_code": job.exit_code,
            "signal": job.exit_code_signal,
            "submit_time": job.submit_time,
            "start_time": job.start_time,
            "end_time": job.end_time,
            "time_limit_minutes": job.time_limit,
            "restarts": job.requeue_count,
        }

    def _cancel(self, job_id: int) -> None:
        self.pyslurm.Job(job_id).cancel()


@contextlib.contextmanager
def _no_slurm_variables() -> Iterator[None]:
    """Hide SLURM_CONF and the like: pyslurm gives every SLURM_* of this process to the job."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SLURM_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _describe(slurm: Optional[Slurm], error: Exception) -> Dict[str, Any]:
    words = str(error) or type(error).__name__
    if slurm is None:
        return {"kind": "unsent", "message": "{}: {}".format(type(error).__name__, words)}
    if isinstance(error, slurm.pyslurm.RPCError):
        return {"kind": "rpc", "errno": error.errno, "message": words}
    # What pyslurm finds wrong with a description, before it sends anything.
    unsent = isinstance(error, (ValueError, TypeError, AttributeError))
    message = "{}: {}".format(type(error).__name__, words)
    return {"kind": "unsent" if unsent else "failed", "message": message}


def _release() -> Optional[str]:
    try:
        return importlib.metadata.version("pyslurm")
    except importlib.metadata.PackageNotFoundError:
        return None


def _take_over_streams() -> Tuple[TextIO, TextIO]:
    """Return private streams: what prints to stdout prints to stderr, and stdin is empty."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def _forget_own_directory() -> None:
    """Keep the modules beside this file from being imported by their short names."""
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != own]


def _die_with(parent: int) -> None:
    """Have the kernel end this process, hung or not, when its agent is gone (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")


def _write(stream: TextIO, message: Dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
