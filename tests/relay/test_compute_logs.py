"""What a step printed reaches the control plane, however the step came to its end."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .fake_control_plane import FakeControlPlane, UploadedLog
from .harness import INTERPRETERS, Cluster, NodeProcess, python, until

SETTINGS = {"interval_seconds": 0.2, "most_bytes": 1 << 30}
RUN = "run-id-1"

CAPTURE = """
import os, pathlib, signal, sys, time
logs = pathlib.Path(os.environ["HPC_AGENT_COMPUTE_LOGS"], "run-id-1", "compute_logs")
logs.mkdir(parents=True)
def write(key, out, err="", end=False):
    with open(logs / (key + ".out"), "a") as file: file.write(out)
    with open(logs / (key + ".err"), "a") as file: file.write(err)
    if end: (logs / (key + ".complete")).touch()
"""
DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def child(code: str) -> list[str]:
    return python(CAPTURE + code)


def whole(control_plane: FakeControlPlane) -> dict[tuple[str, str], UploadedLog]:
    """Return the last word about each log, of those that are no parts."""
    prefix = f"{RUN}/compute_logs/"
    return {
        (log.name.removeprefix(prefix), log.io_type): log
        for log in control_plane.logs
        if not log.is_partial
    }


async def ran(cluster: Cluster, code: str, **spec: Any) -> NodeProcess:
    job = cluster.job(argv=child(code), **{"compute_logs": SETTINGS, **spec})
    async with cluster.relay():
        node = await cluster.start(job)
        await node.wait()
    return node


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("end", [DIE, "os._exit(3)", "raise SystemExit(1)", ""])
async def test_last_output_of_a_step_that_dies_is_uploaded(
    cluster: Cluster, control_plane: FakeControlPlane, interpreter: str, end: str
) -> None:
    """All steps of a run; stdout before stderr, whose end is that of both."""
    code = f"write('a', 'printed', 'and said'); write('b', 'too', end=True); {end}"
    job = cluster.job(argv=child(code), compute_logs=SETTINGS)
    async with cluster.relay():
        node = await cluster.start(job, python=interpreter)
        await node.wait()
    logs = whole(control_plane)
    assert {key: log.end for key, log in logs.items()} == {
        ("a", "stdout"): "printed",
        ("a", "stderr"): "and said",
        ("b", "stdout"): "too",
        ("b", "stderr"): "",
    }
    assert [key for key in logs if key[0] == "a"] == [("a", "stdout"), ("a", "stderr")]
    assert cluster.jobs.events(job.key) == ["started", "exited"]


async def test_parts_are_uploaded_while_a_step_runs(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """And the whole once it has ended, while others go on; then the node's disk is free again."""
    code = "write('a', 'one\\n'); input_file = logs / 'go'\n"
    code += "while not input_file.exists(): time.sleep(0.05)\n"
    code += "write('a', 'two\\n', end=True)\n"
    code += "while (logs / 'a.out').exists(): time.sleep(0.05)\n"
    code += "print('removed', flush=True); time.sleep(600)"
    job = cluster.job(argv=child(f"print(logs, flush=True); {code}"), compute_logs=SETTINGS)
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: any(log.is_partial for log in control_plane.logs))
        assert control_plane.logs[0].end == "one\n"
        go = Path(node.child_output().splitlines()[0], "go")
        await asyncio.to_thread(go.touch)
        await until(lambda: "removed" in node.child_output())
        assert whole(control_plane)["a", "stdout"].end == "one\ntwo\n"
        node.process.terminate()
        await node.wait()
    assert [log.size for log in control_plane.logs if log.io_type == "stdout"] == [4, 8]


@pytest.mark.parametrize("megabytes", [60, 500])
async def test_large_output_arrives_whole(
    cluster: Cluster, control_plane: FakeControlPlane, megabytes: int
) -> None:
    """Of 50 MiB the stock client cuts off the end without a word."""
    line = "x" * 1023 + "\n"
    code = f"line = 'x' * 1023 + chr(10)\nfor _ in range({megabytes}): write('a', line * 1024)\n"
    await ran(cluster, code + DIE, compute_logs=SETTINGS | {"interval_seconds": 3600})
    digest = hashlib.sha256()
    for _ in range(megabytes):
        digest.update((line * 1024).encode())
    assert whole(control_plane)["a", "stdout"].digest == digest.hexdigest()


async def test_one_line_of_40_mib_arrives_whole(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    await ran(cluster, "write('a', 'x' * (40 << 20), end=True)")
    log = whole(control_plane)["a", "stdout"]
    assert log.digest == hashlib.sha256(b"x" * (40 << 20)).hexdigest()


async def test_what_is_cut_off_is_told(cluster: Cluster, control_plane: FakeControlPlane) -> None:
    """How much, by which setting, and where all of it is."""
    settings = {"interval_seconds": 0.2, "most_bytes": 1 << 20}
    node = await ran(cluster, "write('a', 'x' * ((1 << 20) + 4321))", compute_logs=settings)
    log = whole(control_plane)["a", "stdout"]
    assert log.end.count("x") > 3000
    assert "[hpc-agent: 4321 bytes are missing here: compute_logs.max_mb" in log.end
    assert f"in {node.job_dir}/stdout]" in log.end


async def test_upload_that_fails_is_tried_again(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    control_plane.upload_status = 503
    job = cluster.job(argv=child("write('a', 'printed')"), compute_logs=SETTINGS)
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "cannot upload stdout" in node.log())
        control_plane.upload_status = 200
        await node.wait()
    assert whole(control_plane)["a", "stdout"].end == "printed"


async def test_job_ends_though_nobody_takes_its_logs(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """After ten tries; its log says where the output is."""
    control_plane.upload_status = 500
    job = cluster.job(argv=child("write('a', 'printed')"), compute_logs=SETTINGS)
    async with cluster.relay():
        node = await cluster.start(job)
        assert await node.wait() == 0
    assert "stdout of run-id-1/compute_logs/a (7 bytes) is not uploaded" in node.log()
    assert f"in {node.job_dir}/stdout" in node.log()
    assert cluster.jobs.events(job.key) == ["started", "exited"]


async def test_terminated_job_does_not_wait_long_for_its_logs(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Slurm kills it soon; what can be uploaded at once is."""
    job = cluster.job(
        argv=child("write('a', 'printed'); print('up', flush=True); time.sleep(600)"),
        compute_logs=SETTINGS | {"interval_seconds": 3600},
    )
    async with cluster.relay():
        node = await cluster.start(job)
        await until(lambda: "up" in node.child_output())
        node.process.send_signal(signal.SIGTERM)
        await node.wait()
    assert whole(control_plane)["a", "stdout"].end == "printed"
    assert node.exit_record()["outcome"] == "terminated"


async def test_logs_of_another_run_are_not_uploaded(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """The relay refuses, once; the job goes on."""
    code = "other = logs.parents[1] / 'other' / 'compute_logs'; other.mkdir(parents=True)\n"
    code += "(other / 'x.out').write_text('forged'); write('a', 'own', end=True)"
    node = await ran(cluster, code)
    assert {name for name, _ in whole(control_plane)} == {"a"}
    assert node.log().count("stdout of other/compute_logs/x is not uploaded: ") == 1


async def test_what_is_no_file_is_left_alone(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Links, FIFOs and directories with the names of logs keep nothing from its end."""
    code = "os.symlink('/etc/passwd', logs / 'l.out'); os.mkfifo(logs / 'f.err')\n"
    code += "(logs / 'd.out').mkdir(); (logs / 'a.complete').touch(); write('a', 'own')\n"
    code += "open(os.fsencode(logs) + b'/\\xff.out', 'w').close(); (logs / 'x\\ny.out').touch()\n"
    code += "(logs / 'd\\udcff').mkdir(); (logs / 'd\\udcff' / 'z.out').touch()"
    await ran(cluster, code)
    assert {name for name, _ in whole(control_plane)} == {"a"}


async def test_quiet_log_of_a_code_server_is_whole(
    cluster: Cluster, control_plane: FakeControlPlane
) -> None:
    """Nothing marks the end of a tick's log; what is added later is uploaded as well."""
    code = "tick = pathlib.Path(os.environ['HPC_AGENT_COMPUTE_LOGS'], 'repository', 'sensor')\n"
    code += "tick.mkdir(parents=True); (tick / '7.err').write_text('first')\n"
    code += "time.sleep(8); (tick / '7.err').write_text('first, second')\ntime.sleep(600)"
    job = cluster.job(kind="code_server", argv=child(code), compute_logs=SETTINGS)

    def is_whole(text: str) -> bool:
        return any(log.end == text and not log.is_partial for log in control_plane.logs)

    async with cluster.relay():
        node = await cluster.start(job)
        for text in ("first", "first, second"):
            await until(partial(is_whole, text))
        node.process.terminate()
        await node.wait()
    assert control_plane.logs[-1].name == "repository/sensor/7"
