"""Bring a whole cluster up, tell its state, and take it down without a trace."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster_config import (
    MEMORY_CGROUP,
    Cluster,
    Host,
    Layout,
    cgroup_conf,
    gres_conf,
    oci_conf,
    slurm_conf,
    slurmdbd_conf,
)
from cluster_daemons import Daemons
from cluster_process import (
    ClusterError,
    NoVersionError,
    end,
    running_pid,
    start,
    stop,
    with_environment,
)
from cluster_versions import make_root

Say = Callable[[str], None]

# Below the usual ephemeral range (32768-60999), so that no outgoing connection takes one of them.
DEFAULT_NODES = 2
_PORTS = range(20000, 32000)


@dataclass(frozen=True)
class Status:
    """What ``status`` and ``up`` report."""

    running: bool
    slurm_conf: str
    version: str
    nodes: list[str]
    accounting: bool
    dir: str
    daemons: dict[str, int | None]
    node_states: dict[str, str]
    bin_dir: str = ""
    restd: str = ""


@dataclass(frozen=True)
class Wishes:
    """What ``up`` asks for; what is not given stays as it is."""

    nodes: int | None = None
    accounting: bool = False
    restd: bool = False
    version: str = ""
    oci_runtime: str = ""
    memory_limits: bool = False
    conf_lines: tuple[str, ...] = ()
    controller_host: Host | None = None
    node_hosts: tuple[Host, ...] = ()


def up(root: Path, wishes: Wishes, *, say: Say) -> Status:
    """Start what does not run, restart what is configured differently, and wait until it serves."""
    layout = Layout(root)
    _prepare(layout)
    with _exclusive(layout):
        cluster = _choose(layout, wishes, say=say)
        daemons = Daemons(cluster, layout)
        if _write_configuration(cluster, layout, daemons.version()):
            _stop_slurm(layout, say=say)
        for daemon in daemons.in_starting_order():
            started = start(daemon, seconds=60)
            say(f"{daemon.name} {'started' if started else 'runs'}")
            if daemon.name == "slurmdbd":
                daemons.register()
        daemons.wait_for_nodes(seconds=60)
        say(f"{len(cluster.node_names)} nodes ready")
    return status(root)


def status(root: Path) -> Status:
    """Tell which daemons live and what the nodes' states are."""
    layout = Layout(root)
    cluster = _load(layout)
    if cluster is None:
        return Status(
            running=False,
            slurm_conf=str(layout.slurm_conf),
            version="",
            nodes=[],
            accounting=False,
            dir=str(root),
            daemons={},
            node_states={},
        )
    daemons = Daemons(cluster, layout)
    pids = {daemon.name: running_pid(daemon.record) for daemon in daemons.in_starting_order()}
    running = all(pids.values())
    return Status(
        running=running,
        slurm_conf=str(layout.slurm_conf),
        version=daemons.version(),
        nodes=list(cluster.node_names),
        accounting=cluster.accounting,
        dir=str(root),
        daemons=pids,
        node_states=daemons.node_states() if running else {},
        bin_dir=str(daemons.bin_directory()),
        restd=f"http://127.0.0.1:{cluster.restd_port}" if cluster.restd_port else "",
    )


def down(root: Path, *, say: Say) -> None:
    """End all jobs and all daemons; state and logs stay for the next ``up``."""
    layout = Layout(root)
    cluster = _load(layout)
    if cluster is None:
        say(f"no cluster in {root}")
        return
    with _exclusive(layout):
        _end_jobs(cluster, layout, say=say)
        # The controller first, so that it takes no dying node for a failed one; then nodes, steps
        # and jobs at once, since slurmd waits for jobs that ignore SIGTERM.
        if stop(layout.record("slurmctld"), seconds=8):
            say("slurmctld stopped")
        _end_leftovers(layout, say=say)
        _stop_slurm(layout, say=say)
        for name in ("slurmrestd", "slurmdbd", "mariadbd", "munged"):
            if stop(layout.record(name), seconds=20):
                say(f"{name} stopped")
        for pattern in ("*.sock", "*.sock.lock", "*.pid"):
            for path in (root / "run").glob(pattern):
                path.unlink(missing_ok=True)


def _prepare(layout: Layout) -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "The cluster must be started by root, since its daemons run jobs for every user."
            " Run this with sudo."
        )
    if len(str(layout.munge_socket)) > 100:
        raise ClusterError(
            f"{layout.munge_socket} is too long for a unix socket (100 characters)."
            " Choose a shorter --dir."
        )
    for name in ("etc", "run", "log", "state", "spool"):
        (layout.root / name).mkdir(parents=True, exist_ok=True)
    # Every user reaches slurm.conf and the munge socket, also below a private mkdtemp directory;
    # munged refuses directories that others may write to.
    for path in (layout.root, layout.config_directory, layout.root / "run", layout.root / "log"):
        path.chmod(0o755)
    for name in ("state", "spool"):
        (layout.root / name).chmod(0o700 if name == "state" else 0o755)


@contextlib.contextmanager
def _exclusive(layout: Layout) -> Iterator[None]:
    """Let one ``up`` or ``down`` work on a directory at a time."""
    with (layout.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _choose(layout: Layout, wishes: Wishes, *, say: Say) -> Cluster:
    """Return the cluster as asked for: the one that is here, with what is new added."""
    if wishes.memory_limits and not MEMORY_CGROUP.is_dir():
        raise NoVersionError(f"--memory-limits: there is no {MEMORY_CGROUP}")
    cluster = _load(layout)
    if cluster is None:
        cluster = Cluster(
            name=f"hpc{secrets.token_hex(3)}", controller_port=_free_port([]), node_ports=()
        )
    version = wishes.version or cluster.version
    unpacked = make_root(version, say=say)
    cluster = replace(
        cluster,
        version=version,
        plugin_directory=str(unpacked.plugins) if unpacked else "",
        oci_runtime=wishes.oci_runtime or cluster.oci_runtime,
        memory_limits=wishes.memory_limits or cluster.memory_limits,
        conf_lines=wishes.conf_lines or cluster.conf_lines,
        controller_host=wishes.controller_host or cluster.controller_host,
        node_hosts=wishes.node_hosts or cluster.node_hosts,
    )
    taken = [
        cluster.controller_port,
        cluster.dbd_port,
        cluster.restd_port,
        *cluster.node_ports,
    ]
    ports = list(cluster.node_ports)
    wanted = wishes.nodes or len(cluster.node_hosts) or len(ports) or DEFAULT_NODES
    if cluster.node_hosts and len(cluster.node_hosts) != wanted:
        raise ClusterError(f"{wanted} nodes need as many --node-in, or none")
    while len(ports) < wanted:
        ports.append(_free_port([*taken, *ports]))
    cluster = replace(cluster, node_ports=tuple(ports[:wanted]))
    if wishes.accounting and not cluster.accounting:
        # Since 23.11 the controller has chosen an id of its own, and stops when slurmdbd gives one.
        (layout.root / "state" / "clustername").unlink(missing_ok=True)
        cluster = replace(cluster, accounting=True, dbd_port=_free_port([*taken, *ports]))
    if wishes.restd and not cluster.restd_port:
        taken.append(cluster.dbd_port)
        cluster = replace(cluster, restd_port=_free_port([*taken, *ports]))
    _write(layout.root / "cluster.json", json.dumps(asdict(cluster), indent=2) + "\n")
    return cluster


def _load(layout: Layout) -> Cluster | None:
    try:
        content = json.loads((layout.root / "cluster.json").read_text())
    except FileNotFoundError:
        return None
    lists = {name: tuple(content.get(name, ())) for name in ("node_ports", "conf_lines")}
    hosts = {
        "controller_host": Host(**content.get("controller_host", {})),
        "node_hosts": tuple(Host(**host) for host in content.get("node_hosts", ())),
    }
    return Cluster(**{**content, **lists, **hosts})


def _free_port(taken: list[int]) -> int:
    while True:
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port


def _write_configuration(cluster: Cluster, layout: Layout, version: str) -> bool:
    """Write all files and return whether one of them has changed."""
    host = socket.gethostname().partition(".")[0]
    key = layout.config_directory / "munge.key"
    if not key.exists():
        _write(key, secrets.token_hex(64), mode=0o600)
    if cluster.restd_port and not layout.jwt_key.exists():
        _write(layout.jwt_key, secrets.token_hex(32), mode=0o600)
    files = {
        "slurm.conf": slurm_conf(cluster, layout, host=host),
        "cgroup.conf": cgroup_conf(version, memory_limits=cluster.memory_limits),
        "gres.conf": gres_conf(),
        **({"oci.conf": oci_conf(cluster.oci_runtime, layout)} if cluster.oci_runtime else {}),
    }
    changed = [_write(layout.config_directory / name, content) for name, content in files.items()]
    if cluster.accounting:
        content = slurmdbd_conf(cluster, layout, host=host)
        changed.append(_write(layout.config_directory / "slurmdbd.conf", content, mode=0o600))
    if cluster.oci_runtime:
        layout.containers.mkdir(exist_ok=True)
        layout.containers.chmod(0o1777)
    for name in cluster.node_names:
        (layout.root / "spool" / name).mkdir(exist_ok=True)
    return any(changed)


def _write(path: Path, content: str, *, mode: int = 0o644) -> bool:
    """Replace a file atomically unless it has this content already; return whether it had not."""
    if path.exists() and path.read_text() == content:
        return False
    partial = path.with_name(f"{path.name}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    partial.chmod(mode)
    partial.replace(path)
    return True


def _end_jobs(cluster: Cluster, layout: Layout, *, say: Say) -> None:
    """Cancel every job through the controller, so that no job starts again at the next ``up``.

    Whatever does not obey soon is ended with the leftovers.
    """
    daemons = Daemons(cluster, layout)
    needed = ("munged", "slurmctld")
    if any(running_pid(layout.record(name)) is None for name in needed):
        return
    try:
        jobs = daemons.job_ids()
        if not jobs:
            return
        say(f"canceling {len(jobs)} jobs")
        daemons.kill_jobs(jobs)
        deadline = time.monotonic() + 3
        while daemons.job_ids() and time.monotonic() < deadline:
            time.sleep(0.1)
    except ClusterError as error:
        say(f"the controller cancels no jobs, so their processes are ended: {error}")


def _stop_slurm(layout: Layout, *, say: Say) -> None:
    """Stop controller and nodes; running jobs go on, as after any restart of slurmd."""
    records = sorted((layout.root / "run").glob("slurmd-*.json"))
    for record in [layout.record("slurmrestd"), layout.record("slurmctld"), *records]:
        if stop(record, seconds=20):
            say(f"{record.stem} stopped")


def _end_leftovers(layout: Layout, *, say: Say) -> None:
    """End nodes, step daemons and all processes of jobs."""
    marked = set(with_environment([f"HPC_AGENT_CLUSTER={layout.root}"]))
    jobs = {
        pid
        for pid in with_environment([f"SLURM_CONF={layout.slurm_conf}"])
        if re.search(rb"(^|\0)SLURM_JOB_ID=", _environment(pid))
    }
    recorded = {
        running_pid(layout.record(name))
        for name in ("munged", "mariadbd", "slurmdbd", "slurmrestd")
    }
    left = [pid for pid in marked | jobs if pid not in recorded and pid != os.getpid()]
    if left:
        say(f"ending {len(left)} processes of nodes and jobs")
        end(left, seconds=3)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
