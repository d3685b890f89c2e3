"""Judgements about the control plane, and about the state of an agent that runs or ran."""

from __future__ import annotations

from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import AgentFacts, ControlPlaneFacts, Unknown
from hpc_agent.doctor.finding import Finding, ok, problem, skipped, warning

_SKEW_SECONDS = 30.0
_OLD_SECONDS = 600.0
_SILENT = "the control plane does not answer"


def judge_control_plane(config: AgentConfig, plane: ControlPlaneFacts) -> Finding:
    """Reachable from here, trusted, and content with the token."""
    if plane.error is not None:
        return problem(
            plane.error,
            "Check control_plane.url, proxy, ca_bundle and the token; the control plane must be "
            "reachable from this machine over HTTPS.",
        )
    return ok(f"{plane.url} answers and takes the token")


def judge_deployments(config: AgentConfig, plane: ControlPlaneFacts) -> Finding:
    """The agent does not start for a deployment that does not exist."""
    if plane.error is not None:
        return skipped(_SILENT)
    if plane.missing_deployments:
        return problem(
            f"there is no deployment {', '.join(plane.missing_deployments)}",
            "Correct control_plane.deployments.",
        )
    return ok(f"deployments exist: {', '.join(config.control_plane.deployments)}")


def judge_branch_deployments(config: AgentConfig, plane: ControlPlaneFacts) -> Finding:
    """They come and go with pull requests; an agent that is to serve them should see one."""
    if not config.control_plane.branch_deployments:
        return ok("branch deployments are left to other agents")
    if plane.error is not None:
        return skipped(_SILENT)
    if isinstance(plane.branch_deployments, Unknown):
        return skipped(plane.branch_deployments.reason)
    if not plane.branch_deployments:
        return warning(
            "control_plane.branch_deployments is true, and the control plane has none",
            "Nothing is wrong while no pull request is open; `dagster-cloud ci branch-deployment` "
            "or `hpc-agent control-plane deployment create --branch` makes one.",
        )
    return ok(f"branch deployments: {plane.branch_deployments}")


def judge_clock(config: AgentConfig, plane: ControlPlaneFacts) -> Finding:
    """Certificates, tokens and the order of events go by clocks."""
    ahead = plane.clock_ahead
    if plane.error is not None or ahead is None:
        return skipped(_SILENT if plane.error is not None else "the control plane tells no time")
    if abs(ahead) > _SKEW_SECONDS:
        side = "ahead of" if ahead > 0 else "behind"
        return warning(
            f"the control plane's clock is {abs(ahead):.0f} s {side} this machine's",
            "Set both by NTP.",
        )
    return ok("the control plane's clock and this machine's agree")


def judge_running(config: AgentConfig, agent: AgentFacts) -> Finding:
    """Whether anybody is at work."""
    if agent.running_on is None:
        return warning("no agent runs with this home directory", "Start it: `hpc-agent start`.")
    return ok(f"the agent runs on {agent.running_on}")


def judge_database(config: AgentConfig, agent: AgentFacts) -> Finding:
    """SQLite's own check."""
    if agent.damage is not None:
        return problem(
            f"the state database is damaged: {agent.damage}",
            "Stop the agent, and restore `home` from a copy, or move it away: jobs go on, but the "
            "agent will not know them.",
        )
    return ok("the state database is sound")


def judge_backlog(config: AgentConfig, agent: AgentFacts) -> Finding:
    """What waits for the control plane, and what it did not want."""
    refused = agent.refused_messages + agent.rejected_events
    if refused:
        return warning(
            f"the control plane has refused {agent.refused_messages} messages and "
            f"{agent.rejected_events} event writes; they are kept",
            "`hpc-agent outgoing` says why, and sends them again or drops them.",
        )
    if agent.oldest_message_seconds > _OLD_SECONDS:
        return warning(
            f"{agent.messages_waiting} messages and {agent.spooled_events} event writes wait for "
            f"the control plane, the oldest for {agent.oldest_message_seconds / 60:.0f} minutes",
            "See the agent's log for what keeps it from sending.",
        )
    return ok(f"{agent.messages_waiting} messages, {agent.spooled_events} event writes wait")
