"""An examination: gathers the facts that the chosen checks need, and judges them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from hpc_agent.cluster.cluster import Cluster, open_cluster
from hpc_agent.config import AgentConfig
from hpc_agent.doctor.agent_state import gather_agent
from hpc_agent.doctor.checks import CHECKS, Check, Facts
from hpc_agent.doctor.control_plane import gather_control_plane
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
    Unknown,
)
from hpc_agent.doctor.finding import Finding, skipped
from hpc_agent.doctor.host import gather_host, gather_templates
from hpc_agent.doctor.probe import probe_nodes
from hpc_agent.doctor.pyslurm_facts import gather_pyslurm
from hpc_agent.doctor.slurm import gather_controller, gather_slurm
from hpc_agent.doctor.slurm_output import gather_output
from hpc_agent.errors import ConfigError, SchedulerError

Found = Mapping[type[Facts], Sequence[Facts] | Unknown]


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found, by a probe job in this partition (empty: Slurm's default), or None."""

    check: Check
    finding: Finding
    partition: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to examine: names of checks (none: all), and whether a probe job may be submitted."""

    only: Collection[str] = ()
    with_probe: bool = True
    probe_seconds: float = 120.0


def chosen(only: Collection[str]) -> list[Check]:
    """Return the checks of these names, all without names. Raises ConfigError for unknown ones."""
    unknown = set(only) - {check.name for check in CHECKS}
    if unknown:
        names = ", ".join(check.name for check in CHECKS)
        raise ConfigError(f"no check is called {', '.join(sorted(unknown))}; there are: {names}")
    return [check for check in CHECKS if not only or check.name in only]


async def examine(config: AgentConfig, wish: Wish, *, say: Callable[[str], None]) -> list[Result]:
    """Examine a site. Raises ConfigError for names of checks that do not exist."""
    checks = chosen(wish.only)
    found = await _gather(config, {check.needs for check in checks}, wish, say)
    return [result for check in checks for result in _judge(config, check, found[check.needs])]


def _judge(config: AgentConfig, check: Check, facts: Sequence[Facts] | Unknown) -> list[Result]:
    if isinstance(facts, Unknown):
        return [Result(check, skipped(facts.reason))]
    return [
        Result(
            check,
            check.judge(config, each),
            each.partition if isinstance(each, ProbeFacts | NodeFacts) else None,
        )
        for each in facts
    ]


async def _gather(
    config: AgentConfig, kinds: set[type[Facts]], wish: Wish, say: Callable[[str], None]
) -> Found:
    found: dict[type[Facts], Sequence[Facts] | Unknown] = {}
    if ControlPlaneFacts in kinds:
        say("asking the control plane")
        found[ControlPlaneFacts] = [await gather_control_plane(config)]
    if HostFacts in kinds:
        say("looking at this machine")
        found[HostFacts] = [await asyncio.to_thread(gather_host, config)]
    if TemplateFacts in kinds:
        say("rendering the templates of jobs")
        found[TemplateFacts] = [await asyncio.to_thread(gather_templates, config)]
    agent = await asyncio.to_thread(gather_agent, config)
    found[AgentFacts] = [agent]
    if kinds & {ControllerFacts, OutputFacts, PyslurmFacts, SlurmFacts, ProbeFacts, NodeFacts}:
        say("asking Slurm")
        asking = _Asking(config, wish, say, agent_runs=agent.running_on is not None)
        found |= await asking.gather(kinds)
    return found


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks Slurm, and sends a probe to each partition in use."""

    config: AgentConfig
    wish: Wish
    say: Callable[[str], None]
    agent_runs: bool

    async def gather(self, kinds: set[type[Facts]]) -> Found:
        try:
            async with open_cluster(self.config) as cluster:
                return await self._gather(kinds, cluster)
        except SchedulerError as error:  # the machine with Slurm's commands lets nobody in
            away = Unknown("Slurm does not answer")
            controller = ControllerFacts(version="", error=str(error))
            return {
                ControllerFacts: [controller],
                OutputFacts: away,
                PyslurmFacts: away,
                SlurmFacts: away,
                ProbeFacts: away,
                NodeFacts: away,
            }

    async def _gather(self, kinds: set[type[Facts]], cluster: Cluster) -> Found:
        controller = await gather_controller(self.config, cluster.scheduler)
        found: dict[type[Facts], Sequence[Facts] | Unknown] = {
            ControllerFacts: controller if isinstance(controller, Unknown) else [controller]
        }
        if OutputFacts in kinds:
            output = await gather_output(self.config, cluster.runner)
            found[OutputFacts] = output if isinstance(output, Unknown) else [output]
        if PyslurmFacts in kinds:
            pyslurm = await gather_pyslurm(self.config, cluster.runner, controller)
            found[PyslurmFacts] = pyslurm if isinstance(pyslurm, Unknown) else [pyslurm]
        if SlurmFacts in kinds:
            slurm = await gather_slurm(self.config, cluster, controller)
            found[SlurmFacts] = slurm if isinstance(slurm, Unknown) else [slurm]
        if kinds & {ProbeFacts, NodeFacts}:
            found |= await self._probe(cluster, controller)
        return found

    async def _probe(self, cluster: Cluster, controller: ControllerFacts | Unknown) -> Found:
        if not self.wish.with_probe:
            none = Unknown("no probe job was wanted (--no-probe)")
            return {ProbeFacts: none, NodeFacts: none}
        if isinstance(controller, ControllerFacts) and controller.error is not None:
            none = Unknown("Slurm does not answer")
            return {ProbeFacts: none, NodeFacts: none}
        probes, nodes = await probe_nodes(
            self.config,
            cluster,
            agent_runs=self.agent_runs,
            timeout_seconds=self.wish.probe_seconds,
            say=self.say,
        )
        silent = Unknown("; ".join(str(each.error) for each in probes))
        return {ProbeFacts: probes, NodeFacts: nodes or silent}
