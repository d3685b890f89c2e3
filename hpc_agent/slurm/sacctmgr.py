"""sacctmgr(1): in the name of which accounts a user may submit, and with which QOS."""

from __future__ import annotations

import re

from hpc_agent.slurm.partition_facts import Association

_FIELDS = ("defaultaccount", "cluster", "account", "partition", "qos", "defaultqos")
# What an account, a cluster or a QOS is called, so that a line of somebody else's is none.
_ROW = re.compile(r"[^|\s]*(?:\|[^|\s]*){5}")


def arguments(user: str) -> list[str]:
    """Build the query for one user's associations."""
    columns = ",".join(_FIELDS)
    where = ["where", f"name={user}", "withassoc"]
    return ["sacctmgr", "-nP", "show", "user", *where, f"format={columns}"]


def parse(stdout: str, *, cluster: str) -> list[Association]:
    """Read the associations with one cluster; a slurmdbd may serve several."""
    rows = [line.split("|") for line in stdout.splitlines() if _ROW.fullmatch(line)]
    return [
        Association(
            account=account,
            partition=partition,
            qos=tuple(word for word in qos.split(",") if word),
            default_qos=default_qos,
            is_default=account == default_account,
        )
        for default_account, name, account, partition, qos, default_qos in rows
        if name == cluster and account
    ]
