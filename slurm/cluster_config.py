"""What a cluster consists of (ports, nodes, paths), and the configuration files that say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MEMORY_CGROUP = Path("/sys/fs/cgroup/memory")
"""The memory controller of control groups of version 1."""
CPUS_PER_NODE = 4
MEMORY_MB_PER_NODE = 4096
OCI_RUNTIMES = ("runc", "crun")


@dataclass(frozen=True)
class Layout:
    """The paths of one cluster; everything it ever writes lies below ``root``."""

    root: Path

    @property
    def config_directory(self) -> Path:
        """Where SLURM_CONF and its neighbours are; Slurm looks for them side by side."""
        return self.root / "etc"

    @property
    def slurm_conf(self) -> Path:
        """The file that SLURM_CONF names."""
        return self.config_directory / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """The socket of this cluster's own munged."""
        return self.root / "run" / "munge.sock"

    @property
    def containers(self) -> Path:
        """Where the OCI runtime of every user keeps what it knows of running containers."""
        return self.root / "run" / "containers"

    @property
    def jwt_key(self) -> Path:
        """What tokens for slurmrestd are signed with."""
        return self.config_directory / "jwt.key"

    @property
    def mariadb_socket(self) -> Path:
        """The socket of this cluster's own MariaDB."""
        return self.root / "run" / "mariadb.sock"

    def output(self, daemon: str) -> Path:
        """What a daemon prints, also before it has read where to log."""
        return self.root / "log" / f"{daemon}.out"

    def record(self, daemon: str) -> Path:
        """Where pid and start time of a running daemon are kept."""
        return self.root / "run" / f"{daemon}.json"


@dataclass(frozen=True)
class Host:
    """Where daemons run: this machine, or a network namespace of it (ip-netns(8)), by address."""

    namespace: str = ""
    address: str = "127.0.0.1"

    @property
    def entering(self) -> tuple[str, ...]:
        """The command, without its end, that runs another one there."""
        return ("nsenter", f"--net=/run/netns/{self.namespace}") if self.namespace else ()


@dataclass(frozen=True)
class Cluster:
    """The facts that are chosen at the first ``up`` and kept in ``cluster.json``."""

    name: str
    controller_port: int
    node_ports: tuple[int, ...]
    accounting: bool = False
    dbd_port: int = 0
    version: str = ""
    plugin_directory: str = ""
    restd_port: int = 0
    oci_runtime: str = ""
    memory_limits: bool = False
    conf_lines: tuple[str, ...] = ()
    controller_host: Host = Host()
    node_hosts: tuple[Host, ...] = ()

    @property
    def node_names(self) -> tuple[str, ...]:
        """``c1``, ``c2``, …"""
        return tuple(f"c{number}" for number in range(1, len(self.node_ports) + 1))

    @property
    def nodes(self) -> dict[str, tuple[Host, int]]:
        """Each node's name, and the host and port of its slurmd."""
        hosts = self.node_hosts or (self.controller_host,) * len(self.node_ports)
        places = zip(hosts, self.node_ports, strict=True)
        return dict(zip(self.node_names, places, strict=True))


def slurm_conf(cluster: Cluster, layout: Layout, *, host: str) -> str:
    """Render slurm.conf; every daemon is of the machine ``host`` and listens on its own port."""
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr={where.address} Port={port}"
        f" CPUs={CPUS_PER_NODE} RealMemory={MEMORY_MB_PER_NODE} Gres=gpu:2 State=UNKNOWN"
        for name, (where, port) in cluster.nodes.items()
    )
    return _SLURM_CONF.format(
        name=cluster.name,
        host=host,
        controller_address=cluster.controller_host.address,
        port=cluster.controller_port,
        munge_socket=layout.munge_socket,
        root=layout.root,
        accounting=_accounting(cluster, layout, host) if cluster.accounting else _NO_ACCOUNTING,
        nodes=nodes,
        node_list=",".join(cluster.node_names),
        more="\n".join(_more(cluster, layout)),
    )


def _more(cluster: Cluster, layout: Layout) -> list[str]:
    """Return what only some clusters have; Slurm takes the last of two equal keys."""
    plugins = [f"PluginDir={cluster.plugin_directory}"] if cluster.plugin_directory else []
    limits = ["TaskPlugin=task/cgroup"] if cluster.memory_limits else []
    return [*plugins, *_jwt(cluster, layout), *limits, *cluster.conf_lines]


def _jwt(cluster: Cluster, layout: Layout) -> list[str]:
    """Return what makes slurmctld and slurmdbd take tokens beside munge's credentials."""
    lines = ["AuthAltTypes=auth/jwt", f"AuthAltParameters=jwt_key={layout.jwt_key}"]
    return lines if cluster.restd_port else []


def slurmdbd_conf(cluster: Cluster, layout: Layout, *, host: str) -> str:
    """Render slurmdbd.conf.

    The database's socket is not in here: 22.05 has no parameter for it, so the daemon gets it by
    the client library's variable MYSQL_UNIX_PORT. Root is authenticated by that socket.
    """
    plugins = f"PluginDir={cluster.plugin_directory}\n" if cluster.plugin_directory else ""
    jwt = "".join(f"{line}\n" for line in _jwt(cluster, layout))
    return (
        f"{plugins}{jwt}AuthType=auth/munge\n"
        f"AuthInfo=socket={layout.munge_socket}\n"
        f"DbdHost={host}\nDbdAddr=127.0.0.1\nDbdPort={cluster.dbd_port}\n"
        "SlurmUser=root\n"
        f"LogFile={layout.root}/log/slurmdbd.log\nPidFile={layout.root}/run/slurmdbd.pid\n"
        "DebugLevel=info\n"
        "StorageType=accounting_storage/mysql\n"
        "StorageHost=localhost\nStorageUser=root\nStorageLoc=slurm_acct_db\n"
    )


def cgroup_conf(version: str, *, memory_limits: bool) -> str:
    """Render cgroup.conf: no cgroups at all, which 23.11 and later can be told, or memory's alone.

    Before that slurmd always loads a plugin. ``autodetect``, the default, ends it where no cgroup
    file system is mounted, as in many containers; ``cgroup/v1`` does not look before it is used.
    """
    if memory_limits:
        return (
            f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={MEMORY_CGROUP.parent}\n"
            "ConstrainRAMSpace=yes\n"
        )
    year, month = version.split(".")[:2]
    if (int(year), int(month)) >= (23, 11):
        return "CgroupPlugin=disabled\n"
    return "CgroupPlugin=cgroup/v1\n"


def oci_conf(runtime: str, layout: Layout) -> str:
    """Render oci.conf: how slurmstepd runs a job's OCI bundle by runc or crun, as the job's user.

    ``run`` starts and waits in one command; with ``create`` and ``start``, Slurm polls. Only keys
    and patterns that 22.05 has, too (no EnvExclude, no %U). Source: oci.conf(5).
    """
    call, name = f"{runtime} --root={layout.containers}", "%n.%u.%j.%s.%t"
    return (
        f'RunTimeQuery="{call} state {name}"\n'
        f'RunTimeKill="{call} kill -a {name}"\n'
        f'RunTimeDelete="{call} delete --force {name}"\n'
        f'RunTimeRun="exec {call} run -b %b {name}"\n'
    )


def gres_conf() -> str:
    """Render gres.conf: GPUs that are counted but are no devices, so that --gres works."""
    return "Name=gpu File=/dev/null,/dev/zero\n"


def _accounting(cluster: Cluster, layout: Layout, host: str) -> str:
    return (
        "AccountingStorageType=accounting_storage/slurmdbd\n"
        f"AccountingStorageHost={host}\nAccountingStoragePort={cluster.dbd_port}\n"
        f"AccountingStoragePass={layout.munge_socket}\n"
        "AccountingStoreFlags=job_comment\n"
        "JobAcctGatherType=jobacct_gather/linux\nJobAcctGatherFrequency=task=5\n"
    )


_NO_ACCOUNTING = (
    "AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\n"
)

_SLURM_CONF = """\
ClusterName={name}
SlurmctldHost={host}({controller_address})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge_socket}
CredType=cred/munge
MailProg=/bin/true
MpiDefault=none

StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info

# Nodes and their resources are what this file says, whatever the machine has.
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
DefMemPerCPU=256
ReturnToService=2

# Quick answers: this cluster serves tests and demonstrations.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=2
PriorityType=priority/basic
KillWait=5
MinJobAge=300
MaxJobCount=50000
JobRequeue=1
EnforcePartLimits=ALL
SlurmctldTimeout=60
SlurmdTimeout=60
InactiveLimit=0

{accounting}
{nodes}
PartitionName=debug Nodes={node_list} Default=YES MaxTime=00:30:00 DefaultTime=00:05:00 State=UP
PartitionName=batch Nodes={node_list} Default=NO MaxTime=7-00:00:00 DefaultTime=01:00:00 State=UP
{more}
"""
