"""A server with the agent's API for the steps of one run, whose jobs are processes of its own."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from dagster_hpc.jobs import JobName, JobRequest, JobStatus, Phase
from dagster_hpc.launchers.local import LocalLauncher

TOKEN = "token-of-the-run"


class FakeAgent:
    """What an agent knows of the jobs of a run. ``away`` is how many calls it answers with 503.

    ``spools``: events of the run wait with it for the control plane, and it has no news meanwhile.
    Jobs of whose steps one asks for the partition ``closed`` are refused, and all that are new in
    the words of ``refusal``.
    """

    def __init__(self, run_id: str) -> None:
        self.local = LocalLauncher(run_id, at_once=4, grace=2)
        self.away = 0
        self.refusal = ""
        self.spools = False
        self.events = 0
        self.calls: Counter[str] = Counter()
        self.submitted: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._cursor = 0
        self._jobs: dict[JobName, tuple[int, JobStatus]] = {}
        self._stopped = False
        threading.Thread(target=self._follow, daemon=True).start()

    def stop(self) -> None:
        """End what is left."""
        self._stopped = True
        self.local.cancel([name for name, _ in list(self._jobs.items())])
        self.local.close()

    def forget(self) -> None:
        """Know no job any more, as after the restore of an older database."""
        with self._changed:
            self._jobs.clear()
            self._cursor = 0
            self._changed.notify_all()

    def write_event(self) -> None:
        """Count an event that another job of the run has written."""
        with self._changed:
            self.events += 1
            self._changed.notify_all()

    def submit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer POST /_hpc/steps. Raises ValueError when one of the jobs has no form."""
        if any(len(job["steps"]) > 1000 for job in body["jobs"]):
            raise ValueError("jobs.1.steps: List should have at most 1000 items")
        return {"jobs": [_shown(self._submit(job)) for job in body["jobs"]]}

    def changes(self, after: int, events: int, wait: float) -> dict[str, Any]:
        """Answer GET /_hpc/steps."""
        with self._changed:
            if after and self.spools:
                self._changed.wait_for(lambda: not self.spools, timeout=wait)
            if after and self.spools:
                return {"cursor": after, "events": events, "jobs": []}
            # An agent whose database is older says so by a number that is lower.
            self._changed.wait_for(
                lambda: self._cursor != after or self.events != events, timeout=wait
            )
            found = [status for at, status in self._jobs.values() if at > after]
            return {
                "cursor": self._cursor,
                "events": self.events,
                "jobs": [_shown(status) for status in found],
            }

    def cancel(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer POST /_hpc/steps/cancel."""
        self.local.cancel([_name(each) for each in body["jobs"]])
        return {}

    def directory(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer POST /_hpc/steps/directory."""
        return {"directory": self.local.directory(_name(body))}

    def _submit(self, job: Mapping[str, Any]) -> JobStatus:
        name = _name(job)
        self.submitted[name.name] += 1
        steps = [(step["key"], step["tags"]) for step in job["steps"]]
        words = self.refusal
        if any(tags.get("dagster-hpc/partition") == "closed" for _, tags in steps):
            words = "partition closed may not be used here"
        if words:
            return self.note(JobStatus(name, Phase.ENDED, state="REFUSED", message=words))
        request = JobRequest(
            name,
            steps,
            arguments=job["arguments"],
            command=job["command"],
            environment={**job["environment"], "IN_A_JOB": "yes"},
            working_directory=job["working_directory"],
        )
        (status,) = self.local.submit([request])
        return self.note(status)

    def note(self, status: JobStatus) -> JobStatus:
        """Let a job stand so."""
        with self._changed:
            self._cursor += 1
            self._jobs[status.job] = self._cursor, status
            self._changed.notify_all()
        return status

    def _follow(self) -> None:
        while not self._stopped:
            for status in self.local.changes(0.1):
                self.note(status)


@contextmanager
def served(agent: FakeAgent) -> Iterator[str]:
    """Let an agent answer on a port of this machine; the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {key: float(value) for key, value in parse_qsl(urlsplit(self.path).query)}
            self._answer(
                lambda: agent.changes(int(query["after"]), int(query["events"]), query["wait"])
            )

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answers = {"steps": agent.submit, "cancel": agent.cancel, "directory": agent.directory}
            self._answer(lambda: answers[self.path.rpartition("/")[2]](body))

        def _answer(self, answer: Any) -> None:
            agent.calls[f"{self.command} {urlsplit(self.path).path}"] += 1
            if self.headers["Dagster-Cloud-Api-Token"] != TOKEN:
                self._send(403, {"errors": [{"message": "this token is of no run"}]})
            elif agent.away > 0:
                agent.away -= 1
                self._send(503, {"error": "away"})
            else:
                try:
                    self._send(200, answer())
                except ValueError as error:
                    self._send(400, {"errors": [{"message": str(error)}]})

        def _send(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status == 503:
                self.send_header("Retry-After", "0")
            with suppress(ConnectionError):  # a run worker that was killed meanwhile
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        agent.stop()


def _name(content: Mapping[str, Any]) -> JobName:
    return JobName(content["name"], content["attempt"])


def _shown(status: JobStatus) -> dict[str, Any]:
    content = asdict(status)
    return {**content.pop("job"), **content, "phase": status.phase.value, "of_tomorrow": 1}
