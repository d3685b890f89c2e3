"""A site where all is well, and what to change in it to make each check fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpc_agent.config import AgentConfig, parse_config
from hpc_agent.doctor.checks import Facts
from hpc_agent.doctor.facts import (
    AgentFacts,
    ControllerFacts,
    ControlPlaneFacts,
    DirectoryFacts,
    HostFacts,
    NodeFacts,
    OutputFacts,
    ProbeFacts,
    PyslurmFacts,
    SlurmFacts,
    TemplateFacts,
)
from hpc_agent.doctor.finding import Status
from hpc_agent.slurm.scheduler import NodeInfo, PartitionInfo

GIB = 1 << 30

SLURM = SlurmFacts(
    settings={
        "ClusterName": "linux",
        "MaxArraySize": "1001",
        "MaxJobCount": "10000",
        "MinJobAge": "300 sec",
        "KillWait": "30 sec",
        "AccountingStoreFlags": "job_comment",
        "JobAcctGatherType": "jobacct_gather/cgroup",
        "ProctrackType": "proctrack/cgroup",
        "TaskPlugin": "task/cgroup,task/affinity",
        "ConstrainRAMSpace": "yes",
        "SlurmctldParameters": "rl_enable",
    },
    partitions=[
        PartitionInfo(
            name="batch",
            available=True,
            is_default=True,
            nodes=2,
            cpus=8,
            max_time_seconds=3600,
        )
    ],
    nodes=[NodeInfo(name="c1", state="idle", cpus=4, memory_mb=1000, partitions=("batch",))],
    refused={"run worker": None, "code server": None},
)
HOME = DirectoryFacts(
    path="/var/lib/agent",
    filesystem="ext4",
    is_shared=False,
    free_bytes=50 * GIB,
    free_files=1_000_000,
    mode=0o700,
    is_own=True,
)
HOST = HostFacts(
    home=HOME,
    work_dir=replace(HOME, path="/shared/agent", filesystem="nfs4", is_shared=True),
    has_systemd=True,
    lingers=True,
    kill_user_processes=False,
    services=["user unit"],
    cpu_seconds=None,
    processes=4096,
    open_files=65536,
    cgroup_memory=None,
    cgroup_cpus=None,
    token_error=None,
)
CONTROLLER = ControllerFacts(version="slurm 24.11.5")
PYSLURM = PyslurmFacts(python="/usr/bin/python3", release="24.11.0")
PROBE = ProbeFacts(partition="batch", job_id="17")
PLANE = ControlPlaneFacts(url="https://plane", error=None, clock_ahead=0.5)
AGENT = AgentFacts(
    running_on="login1",
    damage=None,
    messages_waiting=0,
    oldest_message_seconds=0.0,
    refused_messages=0,
    spooled_events=0,
    rejected_events=0,
)
NODE = NodeFacts(
    node="c1",
    partition="batch",
    python="3.11.2",
    relay={"login1:4000": None},
    clock_ahead=0.0,
    seen_after=0.1,
    tmp_free_bytes=50 * GIB,
    memory_limit=None,
    container_runtimes=["apptainer"],
    pythons={"/venv/bin/python": "dagster 1.13.0, dagster-cloud 1.13.0"},
)
WELL: Mapping[type[Facts], Facts] = {
    ControllerFacts: CONTROLLER,
    OutputFacts: OutputFacts(),
    PyslurmFacts: PYSLURM,
    SlurmFacts: SLURM,
    HostFacts: HOST,
    TemplateFacts: TemplateFacts(),
    ControlPlaneFacts: PLANE,
    AgentFacts: AGENT,
    ProbeFacts: PROBE,
    NodeFacts: NODE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong with a site: facts or settings, and what is to be said of it."""

    check: str
    status: Status
    words: str
    facts: Facts
    settings: Mapping[str, Any]


def config_of(settings: Mapping[str, Any]) -> AgentConfig:
    """Return a configuration with these settings over the least there must be."""
    content = {
        "control_plane": {"url": "https://plane"},
        "work_dir": "/shared/agent",
        "home": "/var/lib/agent",
    }
    return parse_config({**content, **settings}, source="test")


def _slurm(**settings: str) -> SlurmFacts:
    return replace(SLURM, settings={**SLURM.settings, **settings})


def _trouble(
    check: str, facts: Facts, words: str, status: Status = Status.WARNING, **settings: Any
) -> Trouble:
    return Trouble(check=check, status=status, words=words, facts=facts, settings=settings)


BAD = Status.PROBLEM
NO_ACCOUNTING = replace(SLURM, accounting_error="sacct: Slurm accounting storage is disabled")
TROUBLES: tuple[Trouble, ...] = (
    _trouble("control-plane", replace(PLANE, error="connection refused"), "refused", BAD),
    _trouble("deployments", replace(PLANE, missing_deployments=["prod"]), "no deployment", BAD),
    _trouble(
        "branch-deployments",
        replace(PLANE, branch_deployments=0),
        "has none",
        control_plane={"url": "https://plane", "branch_deployments": True},
    ),
    _trouble("clock", replace(PLANE, clock_ahead=-90.0), "90 s behind"),
    _trouble("agent", replace(AGENT, running_on=None), "no agent runs"),
    _trouble("database", replace(AGENT, damage="row 3 missing"), "row 3 missing", BAD),
    _trouble("backlog", replace(AGENT, rejected_events=2), "2 event writes"),
    _trouble(
        "backlog",
        replace(AGENT, messages_waiting=7, oldest_message_seconds=1800.0),
        "the oldest for 30 minutes",
    ),
    _trouble("home", replace(HOST, home=replace(HOME, filesystem="lustre")), "lustre", BAD),
    _trouble("work-dir", replace(HOST, work_dir=HOME), "of this machine alone"),
    _trouble("work-dir", replace(HOST, work_dir=replace(HOME, is_own=False)), "another user", BAD),
    _trouble("free-space", replace(HOST, home=replace(HOME, free_bytes=1 << 20)), "0.0 GiB free"),
    _trouble(
        "free-space", replace(HOST, work_dir=replace(HOME, free_files=7)), "room for 7 more files"
    ),
    _trouble("modes", replace(HOST, work_dir=replace(HOME, mode=0o775)), "775", BAD),
    _trouble("modes", replace(HOST, home=replace(HOME, mode=0o755)), "755"),
    _trouble("modes", replace(HOST, home=replace(HOME, weakness="uid 7")), "uid 7"),
    _trouble("home", replace(HOST, home=replace(HOME, is_own=False)), "another user", BAD),
    _trouble("token", replace(HOST, token_error="no agent token"), "no agent token", BAD),
    _trouble("templates", TemplateFacts(errors=["job: line 3"]), "line 3", BAD),
    _trouble("linger", replace(HOST, lingers=False), "end when you log out"),
    _trouble("linger", replace(HOST, has_systemd=False), "no systemd"),
    _trouble("kill-user-processes", replace(HOST, kill_user_processes=True), "killed at logout"),
    _trouble("service", replace(HOST, services=[]), "not installed"),
    _trouble("cpu-limit", replace(HOST, cpu_seconds=900), "lives about 5 days"),
    _trouble("process-limits", replace(HOST, open_files=256), "256 open files"),
    _trouble("process-limits", replace(HOST, processes=64), "64 processes"),
    _trouble("memory-limit", replace(HOST, cgroup_memory=256 << 20), "256 MiB"),
    _trouble("cpu-quota", replace(HOST, cgroup_cpus=0.25), "0.25 of a CPU"),
    _trouble("slurm", replace(CONTROLLER, version="slurm 20.11.9"), "20.11"),
    _trouble("output", OutputFacts(strange={"squeue": ["Welcome!"]}), "squeue: Welcome!"),
    _trouble("output", OutputFacts(unreadable={"sacct": ["17 |"]}), "sacct: 17 |", BAD),
    _trouble("pyslurm", replace(PYSLURM, error="python3 has no pyslurm"), "no pyslurm", BAD),
    _trouble("pyslurm", replace(PYSLURM, cli_filters="cli_filter/lua"), "cli_filter/lua act"),
    _trouble("slurm", replace(CONTROLLER, error="sinfo: command not found"), "not found", BAD),
    _trouble("clusters", replace(SLURM, clusters=["linux", "other"]), "other"),
    _trouble("probe", replace(PROBE, error="job 17 is FAILED"), "job 17 is FAILED", BAD),
    _trouble(
        "user-python",
        replace(NODE, pythons={"/p": "dagster 1.14.0, dagster-cloud 1.13.1"}),
        "made for dagster 1.13.1",
    ),
    _trouble("node-memory", replace(NODE, memory_limit=100 << 20), "100 MiB"),
    _trouble("loopback", replace(NODE, loopback_error="no such device"), "no such device", BAD),
    _trouble("partitions", SLURM, "no partition gpu", BAD, options={"partition": "gpu"}),
    _trouble(
        "partitions", SLURM, "above the limit", BAD, options={"partition": "batch", "time": 90}
    ),
    _trouble(
        "partitions",
        replace(SLURM, partitions=[replace(SLURM.partitions[0], is_default=False)]),
        "no partition is the default",
    ),
    _trouble(
        "partitions",
        replace(SLURM, partitions=[replace(SLURM.partitions[0], available=False)]),
        "batch is down",
        options={"partition": "batch"},
    ),
    _trouble(
        "submission",
        replace(SLURM, refused={"run worker": "sbatch: Invalid qos"}),
        "Invalid qos",
        BAD,
    ),
    _trouble("arrays", _slurm(MaxArraySize="1"), "does not allow job arrays"),
    _trouble(
        "submit-limits",
        replace(SLURM, submit_limits={"MaxSubmitJobs of lab": 100}),
        "of lab 100",
        Status.OK,
    ),
    _trouble("accounting", NO_ACCOUNTING, "storage is disabled"),
    _trouble("comments", _slurm(AccountingStoreFlags="(null)"), "not stored", Status.OK),
    _trouble("memory-figures", _slurm(JobAcctGatherType="jobacct_gather/none"), "does not measure"),
    _trouble(
        "min-job-age",
        replace(NO_ACCOUNTING, settings={"MinJobAge": "30 sec"}),
        "forgotten 30 s after",
    ),
    _trouble(
        "rate-limit",
        _slurm(SlurmctldParameters="rl_enable,rl_bucket_size=10"),
        "10 times at once",
    ),
    _trouble("cgroups", _slurm(ProctrackType="proctrack/linuxproc"), "not in control groups"),
    _trouble("cgroups", _slurm(ConstrainRAMSpace="no"), "do not limit memory"),
    _trouble("gpus", SLURM, "no node has GPUs", BAD, runs={"options": {"gres": "gpu:1"}}),
    _trouble("kill-wait", _slurm(KillWait="10 sec"), "Slurm kills 10 s after"),
    _trouble("node-python", replace(NODE, python="3.6.8"), "Python 3.6.8", BAD),
    _trouble("node-files", replace(NODE, seen_after=40.0), "after 40 s"),
    _trouble("relay", replace(NODE, relay={"a:1": "timed out"}), "does not reach the relay", BAD),
    _trouble("relay", replace(NODE, relay={"a:1": None, "b:1": "refused"}), "b:1: refused"),
    _trouble("node-secrets", replace(NODE, readable_secrets=["/h/token"]), "can read /h/token"),
    _trouble("node-clock", replace(NODE, clock_ahead=-60.0), "-60 s off"),
    _trouble(
        "user-python", replace(NODE, python_errors={"/p": "No module named"}), "No module", BAD
    ),
    _trouble(
        "containers",
        replace(NODE, container_runtimes=[]),
        "apptainer is not on",
        BAD,
        environment={"container": {"runtime": "apptainer", "image": "a.sif"}},
    ),
    _trouble(
        "containers",
        replace(NODE, ignores_containers=True),
        "outside of their containers",
        BAD,
        environment={"container": {"runtime": "slurm", "image": "/bundle"}},
    ),
    _trouble("node-tmp", replace(NODE, tmp_free_bytes=1 << 20), "1 MiB free"),
)
