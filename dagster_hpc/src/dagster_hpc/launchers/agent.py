"""Jobs through the agent: its API for the steps of one run, at the node program's loopback."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dagster_hpc.jobs import JobError, JobName, JobRequest, JobStatus, NotAnsweredError, Phase

_PATH = "/_hpc/steps"
_TOKEN_HEADER = "Dagster-Cloud-Api-Token"  # noqa: S105  (the name of a header)
_CALL_SECONDS = 60.0
_LONGEST_WAIT = 30.0
_LONGEST_PAUSE = 5.0
_PATIENCE = 900.0
"""An agent that starts again on another login node is back before that."""
_MOST_JOBS = 1000
_MOST_BYTES = 7 * 1024 * 1024
_NO_COUNT = (1 << 53) - 1
"""A number of events that no run has."""
_LARGEST_ANSWER = 64 * 1024 * 1024


class AgentLauncher:
    """Asks the agent for the jobs of the run whose token it has.

    While agent or control plane are away, a call is repeated for ``patience`` seconds.
    """

    is_looked_after = True

    def __init__(self, url: str, token: str, *, patience: float = _PATIENCE) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._patience = patience
        # A proxy of the environment is for the outside: this address is the node's own.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._cursor = 0
        self._events = 0
        self._open: dict[JobName, JobRequest] = {}
        self._closed = threading.Event()

    def directory(self, job: JobName) -> str:
        """Return the job's directory on the shared file system. Raises JobError."""
        answer = self._call("POST", f"{_PATH}/directory", _name(job))
        directory = answer.get("directory")
        if not isinstance(directory, str):
            raise JobError(f"the agent names no directory of job {job.name}")
        return directory

    def submit(self, requests: Sequence[JobRequest]) -> Sequence[JobStatus]:
        """Ask for jobs, in as few calls as the agent takes. Raises JobError."""
        self._open |= {each.job: each for each in requests}
        found: list[JobStatus] = []
        for batch in _batches([_request(each) for each in requests]):
            found += self._ask(batch)
        self._forget(found)
        return found

    def changes(self, seconds: float) -> Sequence[JobStatus]:
        """Wait for news; an agent that is away has none. Raises JobError when it refuses."""
        until = time.monotonic() + seconds
        while not self._closed.is_set():
            left = max(0.0, until - time.monotonic())
            wait = min(left, _LONGEST_WAIT)
            path = f"{_PATH}?after={self._cursor}&events={self._events}&wait={wait:.2f}"
            try:
                answer = self._once("GET", path, None, wait + _CALL_SECONDS)
            except _AwayError as away:
                if left <= 0:
                    break
                self._closed.wait(min(away.pause, left))
            else:
                return self._news(answer)
        return ()

    def status(self, job: JobName) -> JobStatus | None:
        """Return how a job of the run stands. Raises JobError."""
        answer = self._call("GET", f"{_PATH}?after=0&events=0&wait=0", None)
        return next((each for each in _statuses(answer) if each.job == job), None)

    def has_all_events(self) -> bool:
        """Return whether nothing that jobs of the run have written is on its way; False: ask again.

        While the agent keeps events for the control plane, it answers what it was asked with.
        """
        path = f"{_PATH}?after={max(self._cursor, 1)}&events={_NO_COUNT}&wait=0"
        try:
            return self._once("GET", path, None, _CALL_SECONDS).get("events") != _NO_COUNT
        except _AwayError:
            return False

    def cancel(self, jobs: Sequence[JobName]) -> None:
        """End jobs. Raises JobError."""
        for start in range(0, len(jobs), _MOST_JOBS):
            names = [_name(job) for job in jobs[start : start + _MOST_JOBS]]
            self._call("POST", f"{_PATH}/cancel", {"jobs": names})

    def close(self) -> None:
        """Leave the jobs to the agent: it ends those of a run that is over."""
        self._closed.set()

    def _news(self, answer: Mapping[str, Any]) -> list[JobStatus]:
        before = self._cursor
        try:
            self._cursor, self._events = int(answer["cursor"]), int(answer["events"])
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"the agent's answer on changes is not understood: {error!r}") from None
        found = _statuses(answer)
        self._forget(found)
        if self._cursor < before:
            # The agent's database is an older one, which may not know what was asked for since.
            # What it knows it leaves alone; what is in the queue all the same keeps its claim.
            try:
                found += self.submit(list(self._open.values()))
            except NotAnsweredError:
                self._cursor = before  # so that the next answer is another reason to ask
        return found

    def _ask(self, jobs: Sequence[Mapping[str, Any]]) -> list[JobStatus]:
        """Ask for the jobs of one call; what the agent does not understand it refuses alone."""
        try:
            return _statuses(self._call("POST", _PATH, {"jobs": jobs}))
        except _NotUnderstoodError as error:
            if len(jobs) == 1:
                return [_refused(jobs[0], str(error))]
            half = len(jobs) // 2
            return self._ask(jobs[:half]) + self._ask(jobs[half:])

    def _forget(self, found: Sequence[JobStatus]) -> None:
        for each in found:
            if each.phase is Phase.ENDED:
                self._open.pop(each.job, None)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        until = time.monotonic() + self._patience
        while True:
            try:
                return self._once(method, path, body, _CALL_SECONDS)
            except _AwayError as away:
                if time.monotonic() + away.pause > until:
                    raise NotAnsweredError(
                        f"the agent has not answered for {self._patience:.0f} s: {away}"
                    ) from away
                self._closed.wait(away.pause)

    def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {_TOKEN_HEADER: self._token, "Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310  (the address is the environment's)
            self._url + path, data=data, headers=headers, method=method
        )
        try:
            with self._opener.open(request, timeout=seconds) as response:
                return _document(response.read(_LARGEST_ANSWER + 1))
        except urllib.error.HTTPError as error:
            with error:
                raise _error_of(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise _AwayError(f"{self._url}: {error}", pause=1.0) from error


class _AwayError(Exception):
    """Nobody answers for the moment; ``pause`` is for how many seconds not to ask again."""

    def __init__(self, message: str, *, pause: float) -> None:
        super().__init__(message)
        self.pause = min(max(pause, 0.1), _LONGEST_PAUSE)


class _NotUnderstoodError(JobError):
    """The agent takes no such request: it has a field of another form, or is too large."""


def _error_of(error: urllib.error.HTTPError) -> Exception:
    text = _text_of(error)
    if error.code in {429, 502, 503, 504}:
        after = error.headers.get("Retry-After", "")
        return _AwayError(f"{error.code}: {text}", pause=float(after) if after.isdigit() else 1.0)
    try:
        content = json.loads(text)
    except ValueError:
        content = {}
    kind = _NotUnderstoodError if error.code in {400, 413} else JobError
    return kind(_words_of(content) or f"the agent answers {error.code}: {text[:500]}")


def _text_of(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(64 * 1024).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""  # an answer that was cut: its code says enough


def _words_of(refusal: object) -> str:
    """Return why the relay has refused a call: ``{"errors": [{"message": …}]}``."""
    try:
        return str(refusal["errors"][0]["message"])  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        return ""


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise JobError(f"what answers instead of the agent speaks no JSON: {error}") from None
    if not isinstance(document, dict):
        raise JobError("what answers instead of the agent sends no JSON object")
    return document


def _name(job: JobName) -> dict[str, Any]:
    return {"name": job.name, "attempt": job.attempt}


def _request(request: JobRequest) -> dict[str, Any]:
    return {
        **_name(request.job),
        "steps": [{"key": key, "tags": dict(tags)} for key, tags in request.steps],
        "arguments": request.arguments,
        "command": list(request.command),
        "environment": dict(request.environment),
        "working_directory": request.working_directory,
    }


def _refused(job: Mapping[str, Any], message: str) -> JobStatus:
    name = JobName(job["name"], job["attempt"])
    return JobStatus(name, Phase.ENDED, state="REFUSED", message=message)


def _batches(jobs: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield jobs by the number and the size that one call may have."""
    batch: list[Mapping[str, Any]] = []
    size = 0
    for job in jobs:
        length = len(json.dumps(job))
        if batch and (len(batch) == _MOST_JOBS or size + length > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += length
    if batch:
        yield batch


def _statuses(answer: Mapping[str, Any]) -> list[JobStatus]:
    try:
        return [_status(each) for each in answer["jobs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"the agent's answer on jobs is not understood: {error!r}") from None


def _status(content: Mapping[str, Any]) -> JobStatus:
    """Return a status; what a newer agent says besides is passed over."""
    return JobStatus(
        job=JobName(str(content["name"]), int(content["attempt"])),
        phase=Phase(content["phase"]),
        job_id=content.get("job_id"),
        state=content.get("state") or "",
        reason=content.get("reason") or "",
        nodes=content.get("nodes") or "",
        exit_code=content.get("exit_code"),
        signal=content.get("signal"),
        message=content.get("message") or "",
        directory=content.get("directory") or "",
        submitted_at=content.get("submitted_at"),
        started_at=content.get("started_at"),
        ended_at=content.get("ended_at"),
        restarts=int(content.get("restarts") or 0),
    )
