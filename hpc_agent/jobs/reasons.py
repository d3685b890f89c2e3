"""Why a job waits or was stopped: every reason code of Slurm in words, and what to do about it.

Source: "JOB REASON CODES" of squeue(1), https://slurm.schedmd.com/job_reason_codes.html. The many
codes of limits are made of parts (``QOS`` ``Max`` ``GRES`` ``PerUser``), and so are their words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORDS: Mapping[str, str] = {
    "AccountingPolicy": "a limit of the accounting policy is reached",
    "AccountNotAllowed": "its account may not use the partition; set dagster-hpc/account",
    "AssociationJobLimit": "the account's limit of jobs is reached",
    "AssociationResourceLimit": "the account's limit of resources is reached",
    "AssociationTimeLimit": "the account's limit of time is reached",
    "BadConstraints": "no node satisfies its constraints; change dagster-hpc/constraint",
    "BeginTime": "its begin time is not reached",
    "BlockFreeAction": "a block of nodes is being freed",
    "BlockMaxError": "a block of nodes has too many errors",
    "BurstBufferOperation": "an operation of the burst buffer failed",
    "BurstBufferResources": "the burst buffer has not enough room",
    "BurstBufferStageIn": "the burst buffer is being filled",
    "Cleaning": "what is left of its earlier start is being cleaned up",
    "DeadLine": "it cannot end before its deadline; it will not start",
    "Dependency": "it waits for another job",
    "DependencyNeverSatisfied": "the job it waits for can no longer satisfy it; it will not start",
    "FedJobLock": "another cluster of the federation decides on it",
    "FrontEndDown": "no front-end node is available",
    "InactiveLimit": "the system's limit of inactivity was reached",
    "InvalidAccount": "its account is not valid; set dagster-hpc/account",
    "InvalidQOS": "its QOS is not valid; set dagster-hpc/qos",
    "JobArrayTaskLimit": "as many tasks of its array run as may at once",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "it is held; `scontrol release` lets it go",
    "JobHoldMaxRequeue": "it was requeued too often, and is held; `scontrol release` lets it go",
    "JobLaunchFailure": "its start failed on a node",
    "Licenses": "it waits for a license",
    "MaxMemPerLimit": "it asks for more memory than a CPU or node may have; lower dagster-hpc/mem",
    "NodeDown": "a node it asks for is down",
    "NonZeroExitCode": "it ended with an exit code that is not zero",
    "OutOfMemory": "it used more memory than it asked for",
    "PartitionConfig": "the partition does not allow what it asks for",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs at the moment",
    "PartitionNodeLimit": "it asks for more or fewer nodes than the partition allows",
    "PartitionTimeLimit": "its time limit is above the partition's; lower dagster-hpc/time",
    "PowerNotAvail": "there is not enough electric power for it",
    "PowerReserved": "a reservation has the electric power that it needs",
    "Priority": "jobs of higher priority come first",
    "Prolog": "the nodes are being prepared for it",
    "QOSJobLimit": "the QOS limit of jobs is reached",
    "QOSNotAllowed": "its QOS may not use the partition; set dagster-hpc/qos",
    "QOSResourceLimit": "the QOS limit of resources is reached",
    "QOSTimeLimit": "the QOS limit of time is reached",
    "QOSUsageThreshold": "the QOS needs more unused share than is left",
    "RaisedSignal": "it was ended by a signal",
    "ReqNodeNotAvail": "a node it asks for is not available",
    "Reservation": "it waits for its reservation",
    "ReservationDeleted": "its reservation was deleted; it waits until somebody changes it",
    "Resources": "the nodes it needs are busy",
    "SchedDefer": "the scheduler has put it off to its next round",
    "SystemFailure": "Slurm, a file system or the network failed",
    "TimeLimit": "it ran into its time limit",
    "WaitForScheduling": "nobody has looked at it yet",
    "WaitingForScheduling": "nobody has looked at it yet",
}

_LIMIT = re.compile(
    r"(?P<owner>Assoc|QOS|)(?P<bound>Grp|Max|Min)(?P<what>[A-Za-z]+?)"
    r"(?P<minutes>RunMinutes|Minutes|)(?P<each>Per(?:Job|Node|User|Account)|)"
    r"(?:Limit|NotSatisfied|)"
)
_OWNERS = {"Assoc": "the account", "QOS": "the QOS", "": "the QOS"}
_THINGS = {
    "BB": "burst buffer",
    "Billing": "billing units",
    "CPU": "CPUs",
    "Cpu": "CPUs",
    "Energy": "energy",
    "GRES": "GRES (GPUs)",
    "Jobs": "running jobs",
    "License": "licenses",
    "Mem": "memory",
    "Memory": "memory",
    "Node": "nodes",
    "SubmitJob": "submitted jobs",
    "SubmitJobs": "submitted jobs",
    "Unknown": "a resource",
    "Wall": "time",
    "WallDuration": "time",
}
_EACH = {"PerJob": " of one job", "PerNode": " on one node", "PerUser": " of one user"}
_MINUTES = {"Minutes": " minutes", "RunMinutes": " minutes of running jobs"}


def in_words(reason: str) -> str | None:
    """Return what a reason means; None for one that is no reason or nobody knows.

    Slurm may append details: ``ReqNodeNotAvail, UnavailableNodes:c[2-4]``.
    """
    code, _, details = reason.partition(",")
    code = code.strip().replace("_", "")
    words = _WORDS.get(code) or _limit_in_words(code)
    return f"{words} ({details.strip()})" if words and details.strip() else words


def _limit_in_words(code: str) -> str | None:
    match = _LIMIT.fullmatch(code)
    if match is None or match["what"] not in _THINGS:
        return None
    owner = "one account in the QOS" if match["each"] == "PerAccount" else _OWNERS[match["owner"]]
    what = _THINGS[match["what"]]
    if match["minutes"]:
        what = what.rstrip("s") + _MINUTES[match["minutes"]]
    if match["bound"] == "Min":
        return f"it asks for less than the least {what} of {owner}; ask for more"
    if match["bound"] == "Grp":
        return f"the limit of {what} of all jobs of {owner} together is reached"
    if match["each"] in {"PerJob", "PerNode"} or match["what"] == "WallDuration":
        each = _EACH.get(match["each"], " of one job")
        return f"it asks for more than the most {what}{each} in {owner}; ask for less"
    return f"the limit of {what}{_EACH.get(match['each'], '')} in {owner} is reached"
