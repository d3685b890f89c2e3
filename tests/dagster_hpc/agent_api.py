"""The agent's API for jobs of a run, as a server whose jobs are processes of the tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dagster_hpc.jobs import JobName, JobRequest, JobStatus
from dagster_hpc.local import LocalLauncher

TOKEN = "of-the-run"


class AgentApi:
    """Jobs that outlive whoever has asked for them; ``refusal`` is what policy says of new ones."""

    def __init__(self, run_id: str) -> None:
        self.launcher = LocalLauncher(run_id, grace=2)
        self.refusal = ""
        self.submitted: list[str] = []
        self._lock = threading.Lock()
        self._jobs: dict[JobName, tuple[int, JobStatus]] = {}
        self._cursor = 0

    def answer(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """Do what a call asks for."""
        parts = urlsplit(path)
        if parts.path == "/_hpc/steps" and method == "POST":
            return {"jobs": [self._submit(each) for each in body["jobs"]]}
        if parts.path == "/_hpc/steps":
            asked = {name: float(value) for name, (value,) in parse_qs(parts.query).items()}
            return self._changes(int(asked["after"]), asked["wait"])
        if parts.path == "/_hpc/steps/cancel":
            self.launcher.cancel([_name(each) for each in body["jobs"]])
            return {}
        if parts.path == "/_hpc/steps/directory":
            return {"directory": self.launcher.directory(_name(body))}
        raise KeyError(path)

    def _submit(self, asked: dict[str, Any]) -> dict[str, Any]:
        job = _name(asked)
        if self.refusal:
            return {**asked, "phase": "ended", "state": "REFUSED", "message": self.refusal}
        if self.launcher.status(job) is None:
            self.submitted.append(job.name)
        request = JobRequest(
            job,
            [(each["key"], each["tags"]) for each in asked["steps"]],
            command=asked["command"],
            environment=asked["environment"],
            working_directory=asked["working_directory"],
        )
        (status,) = self.launcher.submit([request])
        with self._lock:
            self._cursor += 1
            self._jobs[job] = self._cursor, status
        return _plain(status)

    def _changes(self, after: int, wait: float) -> dict[str, Any]:
        until = time.monotonic() + wait
        while True:
            cursor, news = self._since(after)
            if news or time.monotonic() > until:
                return {"cursor": cursor, "events": 0, "jobs": news}
            time.sleep(0.05)

    def _since(self, after: int) -> tuple[int, list[dict[str, Any]]]:
        with self._lock:
            for job, (_, known) in self._jobs.items():
                status = self.launcher.status(job)
                if status is not None and status != known:
                    self._cursor += 1
                    self._jobs[job] = self._cursor, status
            found = [_plain(status) for at, status in self._jobs.values() if at > after]
            return self._cursor, found


@contextmanager
def serving(api: AgentApi) -> Iterator[str]:
    """Serve the API; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

        def _answer(self, body: Any) -> None:
            assert self.headers["Dagster-Cloud-Api-Token"] == TOKEN
            content = json.dumps(api.answer(self.command, self.path, body)).encode()
            try:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                return  # whoever has asked was killed

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        api.launcher.close()


def _name(asked: dict[str, Any]) -> JobName:
    return JobName(asked["name"], asked["attempt"])


def _plain(status: JobStatus) -> dict[str, Any]:
    plain = {key: value for key, value in vars(status).items() if key not in {"job", "phase"}}
    return {**plain, **vars(status.job), "phase": status.phase.value}
