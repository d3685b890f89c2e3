"""What faults are injected into: a control plane, a proxy, an agent and Slurm, all of them real."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from hpc_agent.control_plane.home import DAGSTER_YAML
from hpc_agent.demo.webserver import Webserver
from hpc_agent.errors import HpcAgentError
from tests.chaos.commands import Commands
from tests.chaos.disk import Disk
from tests.chaos.keeper import Keeper
from tests.chaos.ledger import Executed, read_executed
from tests.chaos.proxy import Proxy
from tests.chaos.slurm import POOLS, RUNS, SERVERS, Slurm, until

LOCATION = "chaos"
CODE = Path(__file__).parent / "location"
START_SECONDS = 120.0
_COMMAND = [sys.executable, "-m", "hpc_agent"]
_REPOSITORY = Path(__file__).parents[2]

# Looks are quick, so that a round is short; a job is lost after seconds of absence, which must not
# count while a controller is away.
_SCHEDULER = {
    "poll_seconds": 2,
    "command_timeout_seconds": 10,
    "commands_burst": 200,
    "commands_per_second": 20,
    "lost_after_seconds": 15,
}
_RUNS = """
query ($ids: [String]) { runsOrError(filter: {runIds: $ids}, limit: 500) { ... on Runs {
  results { runId status endTime }
} } }
"""


class ControlPlane:
    """Gateway, webserver and daemon on ports of their own, kept running."""

    def __init__(self, directory: Path) -> None:
        self.webserver: Webserver
        self.home = directory / "cp"
        self.home.mkdir(mode=0o700)
        (self.home / "dagster.yaml").write_text(_dagster_yaml())
        self.ca = self.home / "tls" / "ca.pem"
        api, ui = _free_port(), _free_port()
        self.api, self._ui = f"https://127.0.0.1:{api}", f"https://127.0.0.1:{ui}"
        ports = ("--port", str(api), "--webserver-port", str(ui))
        self.keeper = Keeper(
            [*_COMMAND, "control-plane", "start", "--home", str(self.home), *ports],
            directory / "logs" / "control-plane.log",
            pid_file=directory / "control-plane.pid",
            environment=_environment(),
        )

    def start(self) -> None:
        """Start all of it, and wait until it answers."""
        self.keeper.start()
        if not hasattr(self, "webserver") and until(self.ca.exists, START_SECONDS):
            token = self.command("token", "create", "--kind", "user").strip()
            self.webserver = Webserver(self._ui, token=token, ca=self.ca)
        if not until(self.answers, START_SECONDS):
            raise HpcAgentError(f"the control plane does not come up; see {self.keeper.log}")

    def answers(self) -> bool:
        """Whether gateway and webserver answer."""
        try:
            trust = ssl.create_default_context(cafile=str(self.ca))
            if httpx.get(f"{self.api}/healthz", verify=trust).is_error:
                return False
            self.webserver.locations()
        except (HpcAgentError, httpx.HTTPError, OSError):
            return False
        return True

    def command(self, *arguments: str) -> str:
        """Run ``hpc-agent control-plane …`` and return what it prints."""
        argv = [*_COMMAND, "control-plane", *arguments, "--home", str(self.home)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=_REPOSITORY)
        if done.returncode != 0:
            raise HpcAgentError(f"control-plane {arguments[0]}: {done.stderr}")
        return done.stdout

    def deploy(self) -> None:
        """Deploy the rig's code location."""
        path = self.home / "locations.yaml"
        source = {"module_name": "chaos_location.definitions"}
        entry = {"location_name": LOCATION, "code_source": source, "working_directory": str(CODE)}
        path.write_text(yaml.safe_dump({"locations": [entry]}))
        self.command("deploy", str(path))

    def is_loaded(self) -> bool:
        """Whether the webserver shows the location's definitions."""
        try:
            locations = self.webserver.locations()
        except HpcAgentError:
            return False
        return LOCATION in locations and locations[LOCATION] is None

    @contextlib.contextmanager
    def holding_back(self) -> Iterator[None]:
        """Let launched runs wait in Dagster's queue, so that they are handed out together."""
        with _suspended(
            process for process in self._children() if "daemon" in " ".join(process.cmdline())
        ):
            yield

    @contextlib.contextmanager
    def frozen(self, *, alone: bool) -> Iterator[None]:
        """Stop the gateway, ``alone`` or with webserver and daemon."""
        with _suspended([psutil.Process(self.keeper.pid), *([] if alone else self._children())]):
            yield

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.keeper.pid).children(recursive=True)

    def runs(self, run_ids: Sequence[str]) -> dict[str, tuple[str, float | None]]:
        """Return status and time of the end of each run."""
        found = self.webserver.query(_RUNS, {"ids": list(run_ids)})["runsOrError"]["results"]
        return {run["runId"]: (run["status"], run["endTime"]) for run in found}

    def close(self) -> None:
        """End it."""
        self.keeper.close()
        if hasattr(self, "webserver"):
            self.webserver.close()


class Bed:
    """One whole Dagster on one Slurm, which all faults share."""

    patience_seconds = float("inf")
    """How long to wait for runs at most, whatever the fault."""

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        """``directory`` is a fresh one with a short path: sockets lie in it."""
        self.directory = directory
        self.say = say
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)
        self.ledger = directory / "ledger"
        self.ledger.touch()
        self.home, self.work = directory / "home", directory / "work"
        self.slurm = Slurm(directory / "slurm")
        self.strangers: list[str] = []
        self.control_plane = ControlPlane(directory)
        self.home_disk, self.work_disk = Disk(self.home), Disk(self.work)
        self.agent_pid = directory / "agent.pid"
        self.proxy: Proxy
        self.commands: Commands
        self.agent: Keeper

    def start(self, **settings: Any) -> None:
        """Start all of it, and wait until the code location is loaded."""
        self.say("Slurm")
        self.slurm.up()
        self.start_control_plane()
        self.commands = Commands(
            self.directory / "commands", real=self.slurm.bin, agent_pid=self.agent_pid
        )
        for disk in (self.home_disk, self.work_disk):
            disk.mount()
        self.say("agent and code location")
        self.agent = self.make_agent("agent", **settings)
        self.agent.start()
        self.control_plane.deploy()
        self.wait_ready()

    def start_control_plane(self) -> None:
        """Start the control plane and the proxy before it."""
        self.say("control plane")
        self.control_plane.start()
        self.proxy = Proxy(self.control_plane.home / "tls")
        self.proxy.start(self.control_plane.api)

    def make_agent(self, name: str, *, before: Sequence[str] = (), **settings: Any) -> Keeper:
        """Write the configuration of an agent and return what keeps it running.

        ``before`` is a command that starts others, as env(1) does.
        """
        config = self.directory / f"{name}.yaml"
        config.write_text(yaml.safe_dump({**self._settings(), **settings}))
        return Keeper(
            [*before, *_COMMAND, "start", "--config", str(config)],
            self.logs / f"{name}.log",
            pid_file=self.directory / f"{name}.pid",
            environment=_environment(),
        )

    def wait_ready(self) -> None:
        """Wait until runs can be launched. Raises HpcAgentError when that takes too long."""
        if not until(self.control_plane.is_loaded, START_SECONDS):
            raise HpcAgentError(f"the code location does not load; see {self.logs}")

    def launch(
        self, seconds: float, tags: Mapping[str, str], trick: str = "", *, in_steps: bool = False
    ) -> str:
        """Launch a run whose op takes so long, and return its id."""
        config = {"ledger": str(self.ledger), "seconds": seconds, "trick": trick}
        job = "chaos_steps" if in_steps else "chaos_job"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.control_plane.webserver.launch(
                    LOCATION, job, config={"ops": {"work": {"config": config}}}, tags=tags
                )
            except (HpcAgentError, KeyError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def jobs_left(self) -> list[str]:
        """Return the jobs of runs that Slurm still has."""
        jobs = self.slurm.queue()
        if jobs is None:
            return ["squeue does not answer"]
        return [f"{job.job_id} {job.name} {job.state}" for job in jobs if job.is_run]

    def idle_jobs(self, run_ids: Sequence[str], began: float, ended: float) -> int:
        """Return how many jobs of runs were submitted in a time and executed none of these runs."""
        executed = self.executed()
        needed = {job for run_id in run_ids if run_id in executed for job in executed[run_id].jobs}
        submitted = {
            job.job_id
            for job in self.slurm.accounted()
            if job.is_run and began - 1 < job.submitted_at < ended
        }
        return len(submitted - needed)

    def invite_strangers(self, count: int) -> None:
        """Submit jobs of somebody else, by whose being cancelled one sees harm done to others."""
        self.strangers = [
            self.slurm.submit("sleep 10", "--partition=debug", "--nodelist=c1", "--job-name=other")
            for _ in range(count)
        ]

    def harmed(self) -> list[str]:
        """Return the strangers' jobs that were cancelled."""
        states = {
            job_id: self.slurm.run("scontrol", "-o", "show", "job", job_id)
            for job_id in self.strangers
        }
        return [job_id for job_id, shown in states.items() if "JobState=CANCELLED" in shown]

    def clear(self, unfinished: Sequence[str]) -> None:
        """End what a round has left, so that the next one starts on clean ground."""
        self.terminate(unfinished)
        self.slurm.run("scancel", f"--partition={RUNS}", "--me")
        self.strangers = []
        self.wait_ready()

    def terminate(self, run_ids: Sequence[str]) -> None:
        """Ask runs to end; it is no failure when one has ended meanwhile."""
        for run_id in run_ids:
            with contextlib.suppress(HpcAgentError):
                self.control_plane.webserver.terminate(run_id)

    def executed(self) -> dict[str, Executed]:
        """Return what the ops have written down so far."""
        return read_executed(self.ledger.read_text().splitlines())

    def close(self) -> None:
        """End all of it; the logs stay."""
        with contextlib.ExitStack() as stack:  # whatever fails, all the others are ended
            stack.callback(self.work_disk.unmount)
            stack.callback(self.home_disk.unmount)
            stack.callback(self.slurm.down)
            stack.callback(self.end_common)

    def end_common(self) -> None:
        """End the agent, the control plane and the proxy."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._end_proxy)
            stack.callback(self.control_plane.close)
            stack.callback(self._end_agent)

    def token(self) -> Path:
        """Return the file with the agents' token."""
        token = self.directory / "token"
        if not token.exists():
            created = self.control_plane.command("token", "create", "--name", "chaos", "--json")
            token.touch(mode=0o600)
            token.write_text(json.loads(created)["token"])
        return token

    def _end_agent(self) -> None:
        if hasattr(self, "agent"):
            self.agent.close()

    def _end_proxy(self) -> None:
        if hasattr(self, "proxy"):
            self.proxy.close()

    def _settings(self) -> dict[str, Any]:
        return {
            "control_plane": {
                "url": self.proxy.url,
                "token_file": str(self.token()),
                "ca_bundle": str(self.control_plane.ca),
                "timeout_seconds": 15,
                "long_poll_seconds": 10,
            },
            "work_dir": str(self.work),
            "home": str(self.home),
            "scheduler": {
                **_SCHEDULER,
                "slurm_conf": str(self.slurm.conf),
                "bin_dir": str(self.commands.bin),
            },
            "environment": {"python": sys.executable},
            "relay": {"bind": "127.0.0.1"},
            "runs": {
                "options": {"partition": RUNS, "time": "00:10:00", "mem": "64M"},
                "grace_seconds": 5,
            },
            "code_servers": {"options": {"partition": SERVERS, "time": "12:00:00"}},
            # Only for runs that ask for it by their tag.
            "pools": {
                "warm": {
                    "options": {"partition": POOLS, "time": "00:30:00", "cpus-per-task": 2},
                    "max": 2,
                    "idle_seconds": 60,
                    "fallback_seconds": 60,
                }
            },
            "locations": {LOCATION: {"pool": "warm", "execution": "job"}},
            "logging": {"level": "debug"},
        }


@contextlib.contextmanager
def _suspended(processes: Iterable[psutil.Process]) -> Iterator[None]:
    suspended = list(processes)
    try:
        for process in suspended:
            process.suspend()
        yield
    finally:
        for process in suspended:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def _dagster_yaml() -> str:
    """Return a fresh control plane's, with no limit on the runs of a burst."""
    content = yaml.safe_load(DAGSTER_YAML)
    content["run_coordinator"]["config"]["max_concurrent_runs"] = -1
    return yaml.safe_dump(content)


def _environment() -> dict[str, str]:
    """What is started must find this code and the programs next to this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {"PATH": path, "PYTHONPATH": str(_REPOSITORY)}


def _free_port() -> int:
    """Return a port below the ephemeral range, which no outgoing connection will take."""
    while True:
        port = 12000 + int.from_bytes(os.urandom(2)) % 8000
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
