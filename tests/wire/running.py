"""One agent at a time, at the work, with everything recorded that it sends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from hpc_agent.demo.cluster import ClusterChoice
from hpc_agent.demo.processes import Child, wait_for
from hpc_agent.demo.stack import Directories, Stack
from hpc_agent.errors import HpcAgentError
from tests.wire.recorder import Recorder
from tests.wire.work import LOCATION, requests

USER_CODE = Path(__file__).parent / "user_code.py"
_PATIENCE_SECONDS = 180.0


def record_our_agent() -> Recorder:
    """Let our agent do the work."""
    with _control_plane() as (stack, recorder):
        stack.api_url = recorder.url
        stack.configure_agent()
        stack.start_agent()
        _do_the_work(stack, recorder)
    return recorder


def record_stock_agent() -> Recorder:
    """Let ``dagster-cloud agent run`` do the work."""
    with _control_plane() as (stack, recorder):
        agent = _stock_agent(stack, recorder)
        agent.start()
        try:
            _do_the_work(stack, recorder)
        except (AssertionError, HpcAgentError) as error:
            raise AssertionError(f"{error}\n{agent.tail()}") from error
        finally:
            _stop_group(agent)
    return recorder


def _stock_agent(stack: Stack, recorder: Recorder) -> Child:
    home = stack.directories.control_plane
    created = stack.run_command(
        *("control-plane", "token", "create", "--name", "stock", "--json"), *("--home", str(home))
    )
    directory = stack.directories.local / "stock"
    directory.mkdir()
    launcher = "dagster_cloud.workspace.user_code_launcher"
    config = {
        "instance_class": {
            "module": "dagster_cloud.instance",
            "class": "DagsterCloudAgentInstance",
        },
        "dagster_cloud_api": {
            "url": recorder.url,
            "agent_token": json.loads(created)["token"],
            "deployment": "prod",
        },
        "user_code_launcher": {"module": launcher, "class": "ProcessUserCodeLauncher"},
    }
    (directory / "dagster.yaml").write_text(yaml.safe_dump(config))
    binaries = Path(sys.executable).parent
    environment = {
        "DAGSTER_HOME": str(directory),
        "REQUESTS_CA_BUNDLE": str(home / "tls" / "ca.pem"),
        "PATH": f"{binaries}:{os.environ['PATH']}",
    }
    argv = [str(binaries / "dagster-cloud"), "agent", "run"]
    return Child("stock agent", argv, directory / "agent.log", environment=environment)


def _stop_group(child: Child) -> None:
    """End the agent and the code servers that it leaves behind; they share its process group."""
    group = child.pid
    child.stop()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextmanager
def _control_plane() -> Iterator[tuple[Stack, Recorder]]:
    with ExitStack() as exits:
        # Not below pytest's tmp_path: a unix socket's path may have 108 characters.
        path = exits.enter_context(
            tempfile.TemporaryDirectory(prefix="hpc-wire-", ignore_cleanup_errors=True)
        )
        local = ClusterChoice(kind="local", version="", found="", slurm_conf=None)
        directories = Directories(local=Path(path), shared=Path(path) / "shared")
        settings = {"agent_metrics": {"enabled": False}}
        stack = Stack(local, directories, say=_say, settings=settings)
        exits.callback(stack.close)
        stack.start_control_plane()
        recorder = Recorder(stack.api_url, stack.directories.control_plane / "tls")
        recorder.start()
        exits.callback(recorder.stop)
        yield stack, recorder


def _do_the_work(stack: Stack, recorder: Recorder) -> None:
    # Without a working directory each code server would take that of its own process.
    entry = {
        "code_source": {"python_file": str(USER_CODE)},
        "working_directory": str(USER_CODE.parent),
    }
    stack.deploy({LOCATION: entry})
    stack.wait_loaded(LOCATION)
    added = requests()
    recorder.add(added)
    _until("all requests are answered", lambda: len(recorder.answers) == len(added))
    run_id = stack.webserver.launch(LOCATION, "sums")
    assert stack.wait_finished(run_id) == "SUCCESS"
    endless = stack.webserver.launch(LOCATION, "endless")
    _until("the endless run's step runs", lambda: _has_begun(stack, endless))
    seen = _heartbeats(recorder)
    _until("another heartbeat is sent", lambda: _heartbeats(recorder) > seen)
    stack.webserver.terminate(endless)
    assert stack.wait_finished(endless) == "CANCELED"
    _until("the termination is answered", lambda: _count(recorder, "TERMINATE_RUN") > 0)


def _has_begun(stack: Stack, run_id: str) -> bool:
    kinds = {event["__typename"] for event in stack.webserver.events(run_id)}
    return "ExecutionStepStartEvent" in kinds


def _heartbeats(recorder: Recorder) -> int:
    return sum(b"AddAgentHeartbeats" in exchange.body for exchange in recorder.exchanges)


def _count(recorder: Recorder, api: str) -> int:
    uploads = [e for e in recorder.exchanges if e.path == "/upload_api_response"]
    return sum(json.loads(each.inflated)["request_api"] == api for each in uploads)


def _until(what: str, look: Callable[[], bool]) -> None:
    wait_for(f"not yet: {what}", look, seconds=_PATIENCE_SECONDS)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
