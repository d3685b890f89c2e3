"""What a run's job has used of what it had, and what to ask for instead: pure figures and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpc_agent.jobs.exit_record import ExitRecord
from hpc_agent.jobs.options import TAG_PREFIX
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.store.workers import Worker

_ACCOUNTING = "sacct"
_EXIT_RECORD = "exit record"
_GIB = 1 << 30
_MIB = 1 << 20
_NO_ADVICE_BELOW_SECONDS = 60.0
_HALF = 0.5
_NEARLY_ALL = 0.9

Entries = dict[str, str | int | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Times in seconds, memory in bytes, shares from 0 to 1; None where nothing is known.

    ``source`` names where the use of CPU and memory comes from. The exit record knows the memory
    of the largest process only, sacct that of the whole task. ``gpu_share`` is the highest that
    was sampled; ``energy`` is in joules.
    """

    elapsed: float
    queue_wait: float
    source: str
    cpus: int | None = None
    cpu_seconds: float | None = None
    memory: int | None = None
    memory_used: int | None = None
    nodes: int | None = None
    gpus: int | None = None
    gpu_share: float | None = None
    gpu_memory: int | None = None
    billing: int | None = None
    energy: int | None = None

    @property
    def cpu_share(self) -> float | None:
        """How much of the CPU time was used."""
        if self.cpu_seconds is None or not self.cpus or not self.elapsed:
            return None
        return self.cpu_seconds / (self.cpus * self.elapsed)

    @property
    def memory_share(self) -> float | None:
        """How much of the memory was used at most."""
        if self.memory_used is None or not self.memory:
            return None
        return self.memory_used / self.memory

    @property
    def node_hours(self) -> float | None:
        """Hours times nodes, whether they were shared or not."""
        return self.nodes * self.elapsed / 3600 if self.nodes else None

    @property
    def billing_hours(self) -> float | None:
        """Hours times the weight of what was allocated: what a fair share is charged."""
        return None if self.billing is None else self.billing * self.elapsed / 3600


def measure(worker: Worker, usage: Usage | None, record: ExitRecord | None) -> Efficiency:
    """Put together what accounting and the node program's exit record know."""
    has_figures = usage is not None and (usage.cpu_seconds or usage.max_rss_bytes)
    usage = usage or Usage()
    given = record.allocation if record else None
    started, ended = worker.started_at or 0.0, worker.ended_at or 0.0
    rss = worker.max_rss_kb or (record.max_rss_kb if record else None)
    cpu_seconds = worker.cpu_seconds or (record.cpu_seconds if record else None)
    return Efficiency(
        elapsed=max(usage.elapsed_seconds or 0.0, ended - started),
        queue_wait=max(started - (worker.submitted_at or started), 0.0),
        source=_ACCOUNTING if has_figures else _EXIT_RECORD,
        cpus=usage.allocated_cpus or (given.cpus if given else None),
        cpu_seconds=usage.cpu_seconds if has_figures else cpu_seconds,
        memory=usage.requested_memory_bytes or (given.memory_bytes if given else None),
        memory_used=usage.max_rss_bytes if has_figures else (rss * 1024 if rss else None),
        nodes=usage.nodes or (given.nodes if given else None),
        gpus=usage.gpus or (given.gpus if given else None),
        gpu_share=_gpu_share(usage),
        gpu_memory=usage.gpu_memory_bytes,
        billing=usage.billing,
        energy=usage.energy_joules,
    )


def metadata(found: Efficiency) -> Entries:
    """Return what is known, as the entries of an event in the run's log."""
    entries = {
        "elapsed (s)": _rounded(found.elapsed, 1),
        "queue wait (s)": _rounded(found.queue_wait, 1),
        "CPUs": found.cpus,
        "CPU efficiency (%)": _percent(found.cpu_share),
        "memory requested (GB)": _gigabytes(found.memory),
        "memory used (GB)": _gigabytes(found.memory_used),
        "memory efficiency (%)": _percent(found.memory_share),
        "GPUs": found.gpus,
        "GPU utilization (%)": _percent(found.gpu_share),
        "GPU memory used (GB)": _gigabytes(found.gpu_memory),
        "node hours": _rounded(found.node_hours, 4),
        "billing": found.billing,
        "billing hours": _rounded(found.billing_hours, 4),
        "energy (J)": found.energy,
        "source": found.source,
    }
    return _known(entries)


def asset_metadata(found: Efficiency) -> Entries:
    """Return what is known, as metadata of an asset, which Dagster plots by name over time.

    The names stay: a renamed one begins a new plot. Efficiencies are in percent.
    """
    entries = {
        "elapsed_seconds": _rounded(found.elapsed, 1),
        "queue_wait_seconds": _rounded(found.queue_wait, 1),
        "cpus": found.cpus,
        "cpu_efficiency": _percent(found.cpu_share),
        "requested_memory_mb": _megabytes(found.memory),
        "max_rss_mb": _megabytes(found.memory_used),
        "memory_efficiency": _percent(found.memory_share),
        "gpus": found.gpus,
        "gpu_utilization": _percent(found.gpu_share),
        "gpu_memory_mb": _megabytes(found.gpu_memory),
        "node_hours": _rounded(found.node_hours, 4),
        "billing_hours": _rounded(found.billing_hours, 4),
        "energy_joules": found.energy,
    }
    return {TAG_PREFIX + name: value for name, value in _known(entries).items()}


def advice(found: Efficiency) -> list[str]:
    """Return what to ask Slurm for instead; nothing for a job that was over in a minute."""
    if found.elapsed < _NO_ADVICE_BELOW_SECONDS:
        return []
    return [*_memory_advice(found), *_cpu_advice(found), *_gpu_advice(found)]


def describe(worker: Worker, found: Efficiency) -> str:
    """Return the line of the run's log."""
    shares = [
        f"{name} {share:.0%}"
        for name, share in (
            ("CPU", found.cpu_share),
            ("memory", found.memory_share),
            ("GPU", found.gpu_share),
        )
        if share is not None
    ]
    if not shares:
        return (
            f"Job {worker.job_id} ran for {found.elapsed:.0f} s. What it used is not known: "
            "neither Slurm's accounting nor its own exit record says."
        )
    return ". ".join([f"Job {worker.job_id} used {', '.join(shares)}", *advice(found)]) + "."


def _memory_advice(found: Efficiency) -> list[str]:
    share, memory, used = found.memory_share, found.memory, found.memory_used
    if share is None or memory is None or used is None:
        return []
    amounts = f"{used / _GIB:.1f} of {memory / _GIB:.1f} GB of memory"
    if share > 1:
        return [f"It used more memory than it had asked for ({amounts}): raise dagster-hpc/mem"]
    if share > _NEARLY_ALL:
        return [f"It nearly ran out of memory ({amounts}): raise dagster-hpc/mem"]
    # The largest process alone says too little to advise less: its siblings may need the rest.
    if share < _HALF and found.source == _ACCOUNTING and memory >= _GIB:
        enough = -(-int(used * 1.25) // (256 * _MIB)) * 256
        return [f"It used {amounts}: dagster-hpc/mem: {enough}M would be enough"]
    return []


def _cpu_advice(found: Efficiency) -> list[str]:
    share = found.cpu_share
    if share is None or found.cpus is None or found.cpus < 2 or share >= _HALF:
        return []
    busy = share * found.cpus
    return [f"It kept {busy:.1f} of {found.cpus} CPUs busy: lower dagster-hpc/cpus-per-task"]


def _gpu_advice(found: Efficiency) -> list[str]:
    share = found.gpu_share
    if share is None or not found.gpus or share >= _HALF:
        return []
    return [f"Its GPUs were never busier than {share:.0%}: ask for fewer, or feed them faster"]


def _gpu_share(usage: Usage) -> float | None:
    """The utilization of all GPUs of a task is added up: two busy ones have 200 %."""
    if usage.gpu_utilization is None or not usage.gpus:
        return None
    return usage.gpu_utilization / 100 / usage.gpus


def _known(entries: Mapping[str, str | int | float | None]) -> Entries:
    return {name: value for name, value in entries.items() if value is not None}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(share * 100, 1)


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else round(size / _GIB, 3)


def _megabytes(size: int | None) -> float | None:
    return None if size is None else round(size / _MIB, 1)
