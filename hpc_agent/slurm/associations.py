"""sacctmgr(1): which accounts and QOS a user may charge jobs to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Associations:
    """Accounts and QOS of a user, the default account first."""

    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()


def arguments(user: str) -> list[str]:
    """Build the question; each line is ``account|qos,qos|default qos|default account``."""
    columns = "account,qos,defaultqos"
    return ["sacctmgr", "-nP", "show", "assoc", "where", f"user={user}", f"format={columns}"]


def default_arguments(user: str) -> list[str]:
    """Build the question for the default account."""
    return ["sacctmgr", "-nP", "show", "user", user, "format=defaultaccount"]


def parse(stdout: str, default: str = "") -> Associations:
    """Read both answers; lines of others are passed over."""
    rows = [line.split("|") for line in stdout.splitlines() if line.count("|") == 2]
    accounts = [row[0] for row in rows if row[0]]
    first = default.strip().rpartition("\n")[2]
    ordered = [*([first] if first in accounts else []), *accounts]
    qos = [name for row in rows for name in row[1].split(",") if name]
    return Associations(accounts=tuple(dict.fromkeys(ordered)), qos=tuple(dict.fromkeys(qos)))
