"""Judgements about compute nodes, from what a probe job found on one."""

from __future__ import annotations

from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import NodeFacts, ProbeFacts
from hpc_agent.doctor.finding import Finding, ok, problem, skipped, warning
from hpc_agent.releases import INSTALL, pair_of

_OLDEST_PYTHON = (3, 8)
_SKEW_SECONDS = 5.0
_SLOW_SECONDS = 10.0
_TMP_BYTES = 1 << 30
_MEMORY_BYTES = 512 << 20


def judge_probe(config: AgentConfig, probe: ProbeFacts) -> Finding:
    """A job like those of the agent starts, finds work_dir, and is told of."""
    if probe.error is not None:
        advice = (
            "Jobs of the agent would fare alike. work_dir must be there under the same path on "
            "compute nodes, and node_python on their PATH (after environment.modules and setup)."
        )
        if "slurm" in _runtimes(config):
            advice += (
                " Container runtime slurm needs an oci.conf on compute nodes, and the bundle there "
                "with a root file system that has node_python; see containers of Slurm's manual."
            )
        return problem(f"{probe.where}: {probe.error}", advice)
    return ok(f"{probe.where}: job {probe.job_id} ran and found work_dir")


def judge_node_python(config: AgentConfig, node: NodeFacts) -> Finding:
    """The node program needs Python 3.8 and the standard library."""
    numbers = tuple(int(part) for part in node.python.split(".")[:2])
    if numbers < _OLDEST_PYTHON:
        return problem(
            f"node_python: {config.node_python} on {node.node} is Python {node.python}",
            "Set node_python to a Python 3.8 or newer that compute nodes have.",
        )
    return ok(f"{config.node_python} on {node.node} is Python {node.python}")


def judge_node_files(config: AgentConfig, node: NodeFacts) -> Finding:
    """What a node writes must be seen here, and soon."""
    if node.seen_after > _SLOW_SECONDS:
        return warning(
            f"a file written on {node.node} was seen here after {node.seen_after:.0f} s",
            "The file system caches directories long (NFS: acdirmax). Ends of jobs are told by the "
            "relay as well, so this only delays what the relay could not tell.",
        )
    return ok(f"{node.node} sees work_dir, and its files are here after {node.seen_after:.1f} s")


def judge_relay(config: AgentConfig, node: NodeFacts) -> Finding:
    """Jobs reach the agent, and nothing else, through the relay."""
    failed = {address: words for address, words in node.relay.items() if words is not None}
    if len(failed) == len(node.relay):
        words = "; ".join(f"{address}: {reason}" for address, reason in failed.items())
        return problem(
            f"{node.node} does not reach the relay: {words}",
            "Let compute nodes connect to this machine (a firewall wants a fixed relay.port), or "
            "set relay.advertise to a name or address by which they reach it.",
        )
    if failed:
        address, words = next(iter(failed.items()))
        return warning(
            f"{node.node} reaches the relay, but not at every address: {address}: {words}",
            "Set relay.advertise to the addresses that work: each dead one costs jobs time.",
        )
    return ok(f"{node.node} reaches the relay at {', '.join(node.relay)}")


def judge_node_secrets(config: AgentConfig, node: NodeFacts) -> Finding:
    """Jobs run as the agent's user: what a node sees of its files, user code can read."""
    if node.readable_secrets:
        return warning(
            f"a job on {node.node} can read {', '.join(node.readable_secrets)}",
            "Whoever deploys code here can act as the agent. Keep `home` and the token's file on a "
            "disk that only this machine has (or use control_plane.token_command, or a credential "
            "of the service), or run the agent on a machine without jobs, under an account of its "
            "own (scheduler.transport: ssh).",
        )
    return ok(f"a job on {node.node} can read neither the agent's token nor its state")


def judge_node_clock(config: AgentConfig, node: NodeFacts) -> Finding:
    """MUNGE credentials live for five minutes; times in the UI are the nodes'."""
    if node.clock_ahead is None:
        return skipped(f"{node.node} gave no time to compare")
    if abs(node.clock_ahead) > _SKEW_SECONDS:
        return warning(
            f"the clock of {node.node} is {node.clock_ahead:+.0f} s off this machine's",
            "Set all machines by NTP; MUNGE refuses credentials that are minutes off.",
        )
    return ok(f"the clock of {node.node} agrees with this machine's")


def judge_user_python(config: AgentConfig, node: NodeFacts) -> Finding:
    """User code needs dagster and dagster-cloud where it runs."""
    if node.python_errors:
        interpreter, words = next(iter(node.python_errors.items()))
        return problem(
            f"{interpreter} on {node.node}: {words}",
            f"Run `{interpreter} -m {INSTALL}`, which brings the dagster that fits, or name "
            "another Python in `environment`.",
        )
    for interpreter, words in node.pythons.items():
        pair = pair_of(words)
        if pair is not None and pair.trouble is not None:
            return warning(
                f"{interpreter} on {node.node} has {pair.trouble}",
                f"Run: {pair.remedy(interpreter)}",
            )
    if not node.pythons:
        return ok("no Python is configured: code locations bring their own")
    words = ", ".join(f"{python}: {release}" for python, release in node.pythons.items())
    return ok(f"on {node.node}: {words}")


def judge_node_memory(config: AgentConfig, node: NodeFacts) -> Finding:
    """A run worker takes some 300 MB before user code does anything."""
    limit = node.memory_limit
    if limit is not None and limit < _MEMORY_BYTES:
        return warning(
            f"a job on {node.node} may use {limit >> 20} MiB",
            "Ask for more by options.mem: dagster alone takes about 300 MiB.",
        )
    return ok(f"memory of a job on {node.node}: {f'{limit >> 20} MiB' if limit else 'no limit'}")


def judge_loopback(config: AgentConfig, node: NodeFacts) -> Finding:
    """User code speaks to the node program over 127.0.0.1."""
    if node.loopback_error is not None:
        return problem(
            f"127.0.0.1 cannot be used on {node.node}: {node.loopback_error}",
            "Let jobs bind and connect to their loopback interface.",
        )
    return ok(f"the loopback interface of {node.node} works")


def judge_containers(config: AgentConfig, node: NodeFacts) -> Finding:
    """The runtime of each configured container must be there."""
    if "slurm" in _runtimes(config) and node.ignores_containers:
        return problem(
            f"Slurm on {node.node} has no oci.conf: jobs run outside of their containers",
            "Make an oci.conf beside slurm.conf on compute nodes (oci.conf(5)), or set "
            "environment.container.runtime to apptainer.",
        )
    missing = sorted(_runtimes(config) - {"slurm"} - set(node.container_runtimes))
    if missing:
        return problem(
            f"{', '.join(missing)} is not on {node.node}'s PATH",
            "Load its module in environment.modules, or install it on the nodes.",
        )
    found = ", ".join(node.container_runtimes)
    return ok(f"container runtimes on {node.node}: {found or 'none, and none is needed'}")


def judge_node_tmp(config: AgentConfig, node: NodeFacts) -> Finding:
    """Sockets and captured logs live in the node's own temporary directory."""
    if node.tmp_free_bytes < _TMP_BYTES:
        return warning(
            f"{node.tmp_free_bytes >> 20} MiB free in the temporary directory of {node.node}",
            "Set TMPDIR in environment.variables to a larger local directory.",
        )
    return ok(
        f"{node.tmp_free_bytes / (1 << 30):.1f} GiB free in {node.node}'s temporary directory"
    )


def _runtimes(config: AgentConfig) -> set[str]:
    """Return the container runtimes that agent.yaml names."""
    environments = [config.environment, *(loc.environment for loc in config.locations.values())]
    return {
        environment.container.runtime
        for environment in environments
        if environment is not None and environment.container is not None
    }
