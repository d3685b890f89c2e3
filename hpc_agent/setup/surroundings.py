"""All that is found before anything is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc_agent.redaction import redacted_text
from hpc_agent.setup.directories import Candidate, home_candidate, work_candidates
from hpc_agent.setup.pythons import FoundPython, find_pythons
from hpc_agent.setup.slurm import FoundSlurm, find_slurm
from hpc_agent.slurm.commands import ProcessRunner

_NETWORK = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What this machine has; ``network`` are variables about proxies and CA certificates."""

    slurm: FoundSlurm
    work: Sequence[Candidate]
    home: Candidate
    pythons: Sequence[FoundPython]
    network: Mapping[str, str]

    @property
    def lines(self) -> list[str]:
        """What was found, for people."""
        slurm = self.slurm
        said = [f"Slurm        {slurm.error or slurm.version}"]
        for title, names in (
            ("Partitions", [_partition(each.name, each.is_default) for each in slurm.partitions]),
            ("Accounts", slurm.accounts),
            ("QOS", slurm.qos),
        ):
            if names:
                said.append(f"{title:<12} {', '.join(names)}")
        said += [
            f"For jobs     {each.path} ({each.filesystem}{'' if each.is_shared else ', local'})"
            for each in self.work
        ]
        said.append(f"For state    {self.home.path} ({self.home.filesystem})")
        said += [f"Python       {each.path}: {each.pair.words}" for each in self.pythons]
        said += [f"{name:<12} {value}" for name, value in self.network.items()]
        return said


async def look_around(environ: Mapping[str, str] = os.environ) -> Surroundings:
    """Ask Slurm and look at files; nothing is written."""
    slurm, work, home, pythons = await asyncio.gather(
        find_slurm(ProcessRunner(dict(environ))),
        asyncio.to_thread(work_candidates, environ),
        asyncio.to_thread(home_candidate, environ),
        asyncio.to_thread(find_pythons, environ),
    )
    network = {name: redacted_text(environ[name]) for name in _NETWORK if environ.get(name)}
    return Surroundings(slurm=slurm, work=work, home=home, pythons=pythons, network=network)


def _partition(name: str, is_default: bool) -> str:
    return f"{name} (default)" if is_default else name
