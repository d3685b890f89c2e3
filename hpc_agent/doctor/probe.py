"""The probe: a real job, from the site's templates and options, that looks at a compute node."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc_agent.cluster.cluster import Cluster
from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import NodeFacts, ProbeFacts, Unknown
from hpc_agent.doctor.probe_plan import Kind, kinds_of_jobs
from hpc_agent.doctor.probe_relay import Announced, reachable_relay
from hpc_agent.errors import HpcAgentError, SchedulerError
from hpc_agent.jobs.directory import SCRIPT
from hpc_agent.jobs.options import Setting
from hpc_agent.jobs.preparation import OUTPUT, TEMPLATE_OF, script_values
from hpc_agent.jobs.rendering import Templates
from hpc_agent.relay.certificate import certificate_in
from hpc_agent.slurm.scheduler import Scheduler
from hpc_agent.slurm.state import JobState
from hpc_agent.store.database import FILE_NAME

_PROGRAM, _CONTROL_GROUPS = "node_probe.py", "control_groups.py"
_LOOK_SECONDS = 0.2
_LOOK_INTO_QUEUE_SECONDS = 1.0
# NFS clients may keep what they know of a directory for a minute (acdirmax of nfs(5)). A job that
# failed has said why; one that was completed has written its answer.
_COMPLETED_SECONDS, _FAILED_SECONDS = 65.0, 1.0
_PRINTED_BYTES = 1 << 20


async def probe_nodes(
    config: AgentConfig,
    cluster: Cluster,
    *,
    agent_runs: bool,
    timeout_seconds: float,
    say: Callable[[str], None],
) -> tuple[list[ProbeFacts], list[NodeFacts]]:
    """Send one probe job to each partition in use; return how they went and what they found."""
    root, files = config.work_dir / "probes" / secrets.token_hex(8), cluster.files
    groups = _by_partition(config)
    errands = [
        _Errand(cluster, root / str(number), partition, timeout_seconds, say)
        for number, partition in enumerate(groups)
    ]
    try:
        await asyncio.to_thread(files.make_directory, root)
        async with reachable_relay(config, cluster, root, agent_runs=agent_runs) as relay:
            outcomes = await asyncio.gather(
                *(
                    _probe(config, errand, relay, kinds)
                    for errand, kinds in zip(errands, groups.values(), strict=True)
                )
            )
    except (HpcAgentError, OSError) as error:
        return [ProbeFacts(partition=name, error=str(error)) for name in groups], []
    finally:
        await asyncio.to_thread(files.remove_tree, root)
    return [went for went, _ in outcomes], [node for _, node in outcomes if node is not None]


def _by_partition(config: AgentConfig) -> dict[str, list[Kind]]:
    """Sort the kinds of jobs by partition; those that agent.yaml forbids are judged elsewhere."""
    groups: dict[str, list[Kind]] = {}
    for kind in kinds_of_jobs(config):
        if kind.plan is not None:
            groups.setdefault(kind.partition, []).append(kind)
    return groups


@dataclass(frozen=True, slots=True)
class _Errand:
    """One probe job: where its files are, and how long it may take."""

    cluster: Cluster
    directory: Path
    partition: str
    timeout_seconds: float
    say: Callable[[str], None]


async def _probe(
    config: AgentConfig, errand: _Errand, relay: Announced, kinds: Sequence[Kind]
) -> tuple[ProbeFacts, NodeFacts | None]:
    partition = errand.partition
    try:
        await asyncio.to_thread(_write, config, errand, relay, kinds)
        answer = await _run(errand)
    except (HpcAgentError, OSError) as error:
        return ProbeFacts(partition=partition, error=str(error)), None
    if isinstance(answer, Unknown):
        return ProbeFacts(partition=partition, error=answer.reason), None
    job_id, node = answer
    return ProbeFacts(partition=partition, job_id=job_id), node


def _write(config: AgentConfig, errand: _Errand, relay: Announced, kinds: Sequence[Kind]) -> None:
    files, directory = errand.cluster.files, errand.directory
    files.make_directory(directory)
    for name in (_PROGRAM, _CONTROL_GROUPS):
        files.write(directory / name, (Path(__file__).parent / name).read_bytes())
    pythons = {kind.interpreter for kind in kinds} - {None}
    question = {
        "addresses": relay.addresses,
        "certificate": relay.certificate,
        "pythons": sorted(str(python) for python in pythons),
        "secrets": _secrets(config),
    }
    files.write(directory / "question.json", json.dumps(question))
    usual = next(kind.plan for kind in kinds if kind.plan is not None)
    plan = replace(usual, settings=[*usual.settings, Setting("time", "5", "the probe")])
    values = replace(
        script_values(
            plan,
            directory=directory,
            node_python=config.node_python,
            account=errand.cluster.account,
        ),
        node_program=str(directory / _PROGRAM),
    )
    script = Templates(config.templates_dir).render(TEMPLATE_OF[plan.spec.kind], values)
    files.write(directory / SCRIPT, script)


def _secrets(config: AgentConfig) -> dict[str, int]:
    """Return the agent's files that hold secrets, with their inodes.

    These are numbers of the file system, and so the same wherever it is mounted.
    """
    home = config.home
    paths = (config.control_plane.token_file, home / FILE_NAME, certificate_in(home).key_file)
    return {str(path): path.stat().st_ino for path in paths if path is not None and path.exists()}


async def _run(errand: _Errand) -> tuple[str, NodeFacts] | Unknown:
    directory, scheduler = errand.directory, errand.cluster.scheduler
    submitted_at = time.time()
    key = f"probe-{directory.parent.name}-{directory.name}"
    job_id = await scheduler.submit(directory / SCRIPT, name="hpc-agent:probe", comment=key)
    errand.say(f"probe job {job_id} is submitted ({ProbeFacts(partition=errand.partition).where})")
    try:
        answer = await _wait(errand, job_id, submitted_at)
    finally:
        # Nothing of the doctor stays, whether it was answered, gave up or was interrupted.
        await scheduler.cancel(job_id)
    return answer if isinstance(answer, Unknown) else (job_id, answer)


async def _wait(errand: _Errand, job_id: str, submitted_at: float) -> NodeFacts | Unknown:
    words = "no news of it"
    look_at = 0.0
    while time.time() - submitted_at < errand.timeout_seconds:
        content = await asyncio.to_thread(_answer, errand)
        if content is not None:
            try:
                return _facts(content, errand.partition, submitted_at, seen_at=time.time())
            except (KeyError, TypeError) as error:
                return Unknown(
                    f"the answer of probe job {job_id} is not what a probe writes: {error}"
                )
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + _LOOK_INTO_QUEUE_SECONDS
            news, is_over = await _news(errand.cluster.scheduler, job_id)
            if is_over:
                output = await asyncio.to_thread(_tail, errand)
                return Unknown(f"probe job {job_id} is {news} without an answer: {output}")
            if news != words:
                errand.say(f"probe job {job_id} is {news}")
            words = news
        await asyncio.sleep(_LOOK_SECONDS)
    return Unknown(
        f"probe job {job_id} gave no answer within {errand.timeout_seconds:.0f} s: {words}"
    )


async def _news(scheduler: Scheduler, job_id: str) -> tuple[str, bool]:
    try:
        record = await scheduler.show(job_id)
    except SchedulerError as error:
        return str(error), False
    reason = f" ({record.reason})" if record.reason and record.state.is_waiting else ""
    ended = record.end_time.timestamp() if record.end_time else time.time()
    is_completed = record.state is JobState.COMPLETED
    patience = _COMPLETED_SECONDS if is_completed else _FAILED_SECONDS
    is_over = record.state.is_final and time.time() - ended > patience
    return f"{record.state.value}{reason}", is_over


def _answer(errand: _Errand) -> dict[str, Any] | None:
    try:
        content = json.loads(errand.cluster.files.read(errand.directory / "answer.json"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise HpcAgentError(f"{errand.directory}/answer.json is not what a probe writes") from error
    return content if isinstance(content, dict) else None


def _tail(errand: _Errand) -> str:
    path = errand.directory / OUTPUT
    try:
        printed = errand.cluster.files.read_from(path, 0, _PRINTED_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return f"{path} was not written: does the node see work_dir?"
    except OSError as error:
        return str(error)
    return " / ".join(printed.strip().splitlines()[-3:]) or "it printed nothing"


def _facts(
    answer: dict[str, Any], partition: str, submitted_at: float, seen_at: float
) -> NodeFacts:
    started_at, written_at = answer.pop("started_at"), answer.pop("written_at")
    # The job started after its submission and wrote before we saw it: between these two bounds
    # lies how far the node's clock is ahead.
    most, least = started_at - submitted_at, written_at - seen_at
    clock_ahead = least if least > 0 else min(most, 0.0)
    return NodeFacts(
        **answer,
        partition=partition,
        clock_ahead=clock_ahead,
        seen_after=max(seen_at - written_at + clock_ahead, 0.0),
    )
