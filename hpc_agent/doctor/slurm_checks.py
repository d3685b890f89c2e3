"""Judgements about Slurm: versions, partitions, limits, accounting, control groups.

Names and meanings of settings: slurm.conf(5), cgroup.conf(5).
"""

from __future__ import annotations

from collections.abc import Mapping

from hpc_agent.config import AgentConfig
from hpc_agent.doctor.facts import ControllerFacts, OutputFacts, PyslurmFacts, SlurmFacts
from hpc_agent.doctor.finding import Finding, ok, problem, warning
from hpc_agent.doctor.probe_plan import kinds_of_jobs
from hpc_agent.doctor.slurm_output import words_of
from hpc_agent.jobs.options import Setting
from hpc_agent.slurm.scheduler import PartitionInfo
from hpc_agent.slurm.values import duration_or_none

_OLDEST = (22, 5)
_SLOWEST_LOOK_SECONDS = 60.0


def judge_controller(config: AgentConfig, controller: ControllerFacts) -> Finding:
    """Commands are here, a controller is up; the oldest release that tests run on is 22.05."""
    if controller.error is not None:
        return problem(
            controller.error,
            "Have sbatch, squeue and scontrol on PATH or name scheduler.bin_dir; "
            "scheduler.slurm_conf names another slurm.conf. `scontrol ping` must say UP.",
        )
    numbers = controller.version.split()[-1].split(".")[:2]
    if all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < _OLDEST:
        return warning(f"{controller.version}", "Only 22.05 and newer are tested.")
    return ok(f"{controller.version}, and the controller is up")


_SILENCE = (
    "Have it print nothing, or to standard error alone: a wrapper of the site's in the command's "
    "place (`type -a COMMAND` names it; scheduler.bin_dir can name a directory without it), or a "
    "start-up file of the shell (.bashrc, /etc/profile.d) where transport is ssh."
)


def judge_output(config: AgentConfig, output: OutputFacts) -> Finding:
    """Lines of others are put aside; what cannot be read keeps jobs from being seen as gone."""
    if output.unreadable:
        return problem(
            f"the output of Slurm's commands cannot be read: {words_of(output.unreadable)}",
            f"No job is taken for absent meanwhile. {_SILENCE}",
        )
    if output.strange:
        return warning(
            f"lines in the output of Slurm's commands are not Slurm's: {words_of(output.strange)}",
            _SILENCE,
        )
    return ok("nothing else prints into the output of Slurm's commands")


def judge_pyslurm(config: AgentConfig, pyslurm: PyslurmFacts) -> Finding:
    """It must be there, and be built for this Slurm; plugins of sbatch leave it little to do."""
    if pyslurm.error is not None:
        return problem(
            pyslurm.error,
            "No run can be submitted before. `scheduler.transport: cli` needs no pyslurm and costs "
            "some milliseconds for each job.",
        )
    if pyslurm.cli_filters:
        return warning(
            f"CliFilterPlugins={pyslurm.cli_filters} act in sbatch, which submits all jobs",
            "pyslurm gains nothing here: set scheduler.transport to cli.",
        )
    return ok(f"pyslurm {pyslurm.release} of {pyslurm.python} fits this Slurm")


def judge_clusters(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Jobs go to one cluster; those of its siblings are not watched."""
    own = slurm.settings.get("ClusterName", "")
    federation = slurm.settings.get("FederationParameters", "(null)")
    others = [name for name in slurm.clusters if name != own]
    if others:
        return warning(
            f"accounting has more clusters than {own}: {', '.join(others)} "
            f"(FederationParameters={federation})",
            f"Jobs go to {own}. For another cluster run another agent with its slurm.conf.",
        )
    return ok(f"one cluster: {own}")


def judge_partitions(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Each partition that jobs would ask for must exist, be up, and allow the time asked for."""
    known = {partition.name: partition for partition in slurm.partitions}
    plans = [kind.plan for kind in kinds_of_jobs(config) if kind.plan is not None]
    asked = [{each.option: each for each in plan.settings} for plan in plans]
    for settings in asked:
        for name in _names(settings.get("partition")):
            trouble = _partition_trouble(name, known, settings)
            if trouble is not None:
                return trouble
    has_default = any(partition.is_default for partition in known.values())
    if not has_default and not all("partition" in settings for settings in asked):
        return warning(
            "no partition is the default, and agent.yaml names none", "Set options.partition."
        )
    up = [name for name, partition in known.items() if partition.available]
    return ok(f"{len(up)} of {len(known)} partitions are up: {', '.join(up)}")


def _names(partition: Setting | None) -> list[str]:
    return partition.value.split(",") if partition is not None else []


def _partition_trouble(
    name: str, known: Mapping[str, PartitionInfo], settings: Mapping[str, Setting]
) -> Finding | None:
    where = settings["partition"].source
    if name not in known:
        return problem(f"{where}: there is no partition {name}", f"There are: {', '.join(known)}.")
    if not known[name].available:
        return warning(f"{where}: partition {name} is down", "Jobs will wait until it is up.")
    limit, time = known[name].max_time_seconds, settings.get("time")
    asked = duration_or_none(time.value) if time is not None else None
    if time is None or limit is None or asked is None or asked <= limit:
        return None
    return problem(
        f"{time.source}: time {time.value} is above the limit of partition {name}",
        f"Ask for {limit // 60} minutes at most, or name another partition.",
    )


def judge_submission(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Slurm's own word on the scripts that the agent would submit."""
    bad = {kind: words for kind, words in slurm.refused.items() if words is not None}
    if bad:
        kind, words = next(iter(bad.items()))
        return problem(
            f"sbatch --test-only refuses a {kind}: {words}",
            "Change options, runs.options or code_servers.options in agent.yaml.",
        )
    return ok(f"sbatch --test-only accepts: {', '.join(slurm.refused)}")


def judge_arrays(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Bursts of runs are submitted as job arrays, up to MaxArraySize."""
    size, jobs = slurm.number("MaxArraySize"), slurm.number("MaxJobCount")
    if size is not None and size <= 1:
        return warning(
            "MaxArraySize does not allow job arrays", "Bursts of runs will be submitted one by one."
        )
    return ok(f"arrays of up to {(size or 1001) - 1} tasks; the controller holds {jobs} jobs")


def judge_submit_limits(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Limits on submitted jobs hold runs back; that is no failure, but should be known."""
    if slurm.submit_limits:
        words = ", ".join(f"{name} {limit}" for name, limit in slurm.submit_limits.items())
        return ok(f"submitted jobs are limited: {words}; runs above it wait in the agent")
    return ok("no limit on submitted jobs that accounting knows of")


def judge_accounting(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Without sacct ends are known from exit records and scontrol, and efficiency only in part."""
    if slurm.accounting_error is not None:
        return warning(
            f"no accounting: {slurm.accounting_error}",
            "It works without. With slurmdbd (AccountingStorageType=accounting_storage/slurmdbd) "
            "the end of a job is known even when its node is lost, and CPU efficiency is exact.",
        )
    return ok("sacct answers")


def judge_comments(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """The key of a job is in its comment; its name says the same."""
    if slurm.accounting_error is not None:
        return ok("without accounting there is nowhere to store comments")
    if "job_comment" in slurm.settings.get("AccountingStoreFlags", ""):
        return ok("comments of jobs are stored")
    return ok("comments of jobs are not stored; jobs are found by their names")


def judge_memory_figures(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Memory efficiency needs a gatherer."""
    gatherer = slurm.settings.get("JobAcctGatherType", "")
    if not gatherer or "none" in gatherer.lower() or gatherer == "(null)":
        return warning(
            "Slurm does not measure the memory of jobs (JobAcctGatherType)",
            "Set JobAcctGatherType=jobacct_gather/cgroup (or linux). Until then the figures are "
            "those of the node program, which sees its own descendants only.",
        )
    return ok(f"memory is measured by {gatherer}")


def judge_min_job_age(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """A job must not vanish between two looks where nobody else remembers it."""
    age = slurm.number("MinJobAge")
    slowest = max(config.scheduler.poll_seconds, _SLOWEST_LOOK_SECONDS)
    if age and age < 2 * slowest and slurm.accounting_error is not None:
        return warning(
            f"jobs are forgotten {age} s after their end (MinJobAge), and there is no accounting",
            f"Set MinJobAge to {2 * slowest:.0f} or more, or scheduler.poll_seconds to less than "
            f"{age // 2}.",
        )
    return ok(f"jobs are remembered for {age} s after their end (MinJobAge)")


def judge_rate_limit(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """The agent's own token bucket must be the smaller one (rl_enable, since 23.02)."""
    parameters = slurm.settings.get("SlurmctldParameters", "")
    if "rl_enable" not in parameters:
        return ok("the controller limits no request rates (rl_enable)")
    burst = _parameter(parameters, "rl_bucket_size", 30)
    refill = _parameter(parameters, "rl_refill_rate", 2) / _parameter(
        parameters, "rl_refill_period", 1
    )
    ours = config.scheduler
    if ours.commands_burst > burst or ours.commands_per_second > refill:
        return warning(
            f"the controller lets a user ask {burst} times at once and {refill:g} times a second",
            f"Set scheduler.commands_burst to {burst} and scheduler.commands_per_second to "
            f"{refill:g} at most.",
        )
    return ok(f"rl_enable: {burst} at once, {refill:g} a second; the agent keeps below")


def judge_cgroups(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Without control groups memory limits are not enforced and processes can be lost."""
    track = slurm.settings.get("ProctrackType", "")
    task = slurm.settings.get("TaskPlugin", "")
    constrains = slurm.settings.get("ConstrainRAMSpace", "").lower() == "yes"
    if "cgroup" not in track or "cgroup" not in task:
        return warning(
            f"ProctrackType={track}, TaskPlugin={task}: jobs are not in control groups",
            "Memory limits are not enforced. Set ProctrackType=proctrack/cgroup and "
            "TaskPlugin=task/cgroup,task/affinity.",
        )
    if not constrains:
        return warning(
            "control groups do not limit memory (ConstrainRAMSpace)",
            "Set ConstrainRAMSpace=yes in cgroup.conf, or one run can take a node's memory.",
        )
    return ok("jobs are in control groups, and their memory is limited")


def judge_gpus(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """GPUs that jobs would ask for must be known to Slurm."""
    gres = sorted({node.gres for node in slurm.nodes if "gpu" in node.gres})
    if gres:
        return ok(f"GPUs: {'; '.join(gres)}")
    for kind in kinds_of_jobs(config):
        for setting in kind.plan.settings if kind.plan is not None else ():
            is_gpu = "gpu" in setting.option or "gpu" in setting.value
            if is_gpu and setting.option != "partition":
                return problem(
                    f"{setting.source}: {setting.option} is asked for, and no node has GPUs",
                    "Remove it, or configure gres.conf.",
                )
    return ok("no node has GPUs")


def judge_kill_wait(config: AgentConfig, slurm: SlurmFacts) -> Finding:
    """Slurm itself waits KillWait between SIGTERM and SIGKILL, whatever the agent would grant."""
    wait = slurm.number("KillWait")
    grace = config.runs.grace_seconds
    if wait is not None and wait < grace:
        return warning(
            f"Slurm kills {wait} s after it asks a job to end (KillWait), and runs.grace_seconds "
            f"is {grace:g}",
            f"Set runs.grace_seconds to {wait} at most, or ask for a larger KillWait.",
        )
    return ok(f"KillWait is {wait} s, runs.grace_seconds {grace:g}")


def _parameter(parameters: str, name: str, default: int) -> int:
    for word in parameters.split(","):
        key, _, value = word.strip().partition("=")
        if key == name and value.isdigit():
            return int(value)
    return default
