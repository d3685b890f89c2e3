"""The table of all checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpc_agent.config import AgentConfig
from hpc_agent.doctor import agent_checks, host_checks, node_checks, slurm_checks
from hpc_agent.doctor.facts import (
    AgentFacts,
    ControllerFacts,
    ControlPlaneFacts,
    HostFacts,
    NodeFacts,
    OutputFacts,
    ProbeFacts,
    PyslurmFacts,
    SlurmFacts,
    TemplateFacts,
)
from hpc_agent.doctor.finding import Finding

Facts = (
    ControllerFacts
    | OutputFacts
    | PyslurmFacts
    | SlurmFacts
    | HostFacts
    | TemplateFacts
    | ControlPlaneFacts
    | AgentFacts
    | ProbeFacts
    | NodeFacts
)


@dataclass(frozen=True, slots=True)
class Check:
    """A judgement by name; ``needs`` is the kind of facts that it judges."""

    name: str
    looks_at: str
    needs: type[Facts]
    judge: Callable[[AgentConfig, Any], Finding]


GROUPS: dict[type[Facts], str] = {
    ControlPlaneFacts: "Control plane",
    AgentFacts: "Agent",
    HostFacts: "This machine",
    TemplateFacts: "This machine",
    ControllerFacts: "Slurm",
    OutputFacts: "Slurm",
    PyslurmFacts: "Slurm",
    SlurmFacts: "Slurm",
    ProbeFacts: "Compute nodes (by a probe job)",
    NodeFacts: "Compute nodes (by a probe job)",
}

_slurm, _host, _agent, _node = slurm_checks, host_checks, agent_checks, node_checks
CHECKS: tuple[Check, ...] = (
    Check(
        "control-plane",
        "address, certificate, proxy and token",
        ControlPlaneFacts,
        _agent.judge_control_plane,
    ),
    Check(
        "deployments",
        "that the configured deployments exist",
        ControlPlaneFacts,
        _agent.judge_deployments,
    ),
    Check(
        "branch-deployments",
        "whether there are any, where they are to be served",
        ControlPlaneFacts,
        _agent.judge_branch_deployments,
    ),
    Check("clock", "the control plane's clock", ControlPlaneFacts, _agent.judge_clock),
    Check("agent", "whether an agent runs with this home", AgentFacts, _agent.judge_running),
    Check("database", "the state database", AgentFacts, _agent.judge_database),
    Check(
        "backlog", "what waits to be sent, and what was refused", AgentFacts, _agent.judge_backlog
    ),
    Check("home", "that the state database is on a local disk", HostFacts, _host.judge_home),
    Check("work-dir", "the file system of the job directories", HostFacts, _host.judge_work_dir),
    Check("free-space", "room in both, for bytes and for files", HostFacts, _host.judge_free_space),
    Check("modes", "who else can read, write or replace them", HostFacts, _host.judge_modes),
    Check("token", "the agent token's file", HostFacts, _host.judge_token),
    Check("templates", "the site's own job templates", TemplateFacts, _host.judge_templates),
    Check("linger", "whether user services outlive a login", HostFacts, _host.judge_linger),
    Check(
        "kill-user-processes",
        "whether logind ends processes at logout",
        HostFacts,
        _host.judge_kill_user_processes,
    ),
    Check("service", "whether the agent is a service", HostFacts, _host.judge_service),
    Check("cpu-limit", "limits on CPU time of daemons", HostFacts, _host.judge_cpu_limit),
    Check("process-limits", "open files and processes", HostFacts, _host.judge_process_limits),
    Check("memory-limit", "the control group's memory", HostFacts, _host.judge_memory_limit),
    Check("cpu-quota", "the control group's CPUs", HostFacts, _host.judge_cpu_quota),
    Check(
        "slurm",
        "Slurm's commands, its version, its controller",
        ControllerFacts,
        _slurm.judge_controller,
    ),
    Check(
        "output",
        "whether something else prints into the output of Slurm's commands",
        OutputFacts,
        _slurm.judge_output,
    ),
    Check(
        "pyslurm",
        "with `transport: pyslurm`: that it is there and was built for this Slurm",
        PyslurmFacts,
        _slurm.judge_pyslurm,
    ),
    Check("clusters", "more than one cluster, federation", SlurmFacts, _slurm.judge_clusters),
    Check(
        "partitions",
        "partitions of agent.yaml and time limits",
        SlurmFacts,
        _slurm.judge_partitions,
    ),
    Check(
        "submission", "real job scripts, by sbatch --test-only", SlurmFacts, _slurm.judge_submission
    ),
    Check("arrays", "MaxArraySize and MaxJobCount", SlurmFacts, _slurm.judge_arrays),
    Check("submit-limits", "limits on submitted jobs", SlurmFacts, _slurm.judge_submit_limits),
    Check("accounting", "slurmdbd", SlurmFacts, _slurm.judge_accounting),
    Check("comments", "AccountingStoreFlags", SlurmFacts, _slurm.judge_comments),
    Check("memory-figures", "JobAcctGatherType", SlurmFacts, _slurm.judge_memory_figures),
    Check(
        "min-job-age", "MinJobAge against the poll interval", SlurmFacts, _slurm.judge_min_job_age
    ),
    Check(
        "rate-limit", "rl_enable against the agent's own limit", SlurmFacts, _slurm.judge_rate_limit
    ),
    Check("cgroups", "control groups of jobs", SlurmFacts, _slurm.judge_cgroups),
    Check("gpus", "GPUs that agent.yaml asks for", SlurmFacts, _slurm.judge_gpus),
    Check("kill-wait", "KillWait against runs.grace_seconds", SlurmFacts, _slurm.judge_kill_wait),
    Check("probe", "that a job like the agent's runs", ProbeFacts, _node.judge_probe),
    Check("node-python", "Python for the node program", NodeFacts, _node.judge_node_python),
    Check("node-files", "work_dir as nodes see it", NodeFacts, _node.judge_node_files),
    Check("relay", "the way from a node to the agent", NodeFacts, _node.judge_relay),
    Check(
        "node-secrets",
        "whether jobs can read the agent's token and state",
        NodeFacts,
        _node.judge_node_secrets,
    ),
    Check("node-clock", "the node's clock", NodeFacts, _node.judge_node_clock),
    Check("user-python", "dagster in the configured Pythons", NodeFacts, _node.judge_user_python),
    Check("node-memory", "the memory limit of a job", NodeFacts, _node.judge_node_memory),
    Check("loopback", "the node's loopback interface", NodeFacts, _node.judge_loopback),
    Check("containers", "container runtimes of agent.yaml", NodeFacts, _node.judge_containers),
    Check("node-tmp", "the node's temporary directory", NodeFacts, _node.judge_node_tmp),
)


def markdown() -> str:
    """Return the tables of docs/doctor.md, one for each group."""
    lines: list[str] = []
    for group in dict.fromkeys(GROUPS.values()):
        lines += [f"## {group}", "", "| check | looks at |", "|---|---|"]
        checks = [check for check in CHECKS if GROUPS[check.needs] == group]
        lines += [*(f"| `{check.name}` | {check.looks_at} |" for check in checks), ""]
    return "\n".join(lines)
