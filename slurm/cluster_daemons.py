"""The daemons of one cluster: how each is started and how one sees that it serves."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster_config import Cluster, Host, Layout
from cluster_packages import find_program
from cluster_process import ClusterError, Daemon, listens
from cluster_versions import root_of

_COMMAND_SECONDS = 60
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READY = re.compile(r"^(idle|mixed|allocated|completing)$")


class Daemons:
    """Knows the command lines; runs the cluster's own client commands."""

    def __init__(self, cluster: Cluster, layout: Layout) -> None:
        self._cluster = cluster
        self._layout = layout
        self._root = root_of(cluster.version)
        # The mark lets ``down`` recognise step daemons, which inherit it from slurmd.
        self._environment = {
            "PATH": f"{self._root.commands}:{_PATH}" if self._root else _PATH,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(layout.slurm_conf),
            "MYSQL_UNIX_PORT": str(layout.mariadb_socket),
            "HPC_AGENT_CLUSTER": str(layout.root),
        }

    def in_starting_order(self) -> list[Daemon]:
        """Return munged first, then the database, the controller and the nodes."""
        accounting = [self._mariadbd(), self._slurmdbd()] if self._cluster.accounting else []
        nodes = [self._slurmd(name) for name in self._cluster.node_names]
        restd = [self._slurmrestd()] if self._cluster.restd_port else []
        return [self._munged(), *accounting, self._slurmctld(), *nodes, *restd]

    def bin_directory(self) -> Path:
        """Return where sbatch, squeue and the others of this cluster's version are."""
        return self._root.commands if self._root else Path(self._require("sbatch")).parent

    def version(self) -> str:
        """Return the version of the installed slurmctld, for example ``22.05.8``."""
        text = self._output("slurmctld", "-V")
        match = re.search(r"\d+\.\d+\.\d+", text)
        if match is None:
            raise ClusterError(f"slurmctld -V printed no version: {text!r}")
        return match[0]

    def register(self) -> None:
        """Make the cluster known to slurmdbd, which otherwise drops its first jobs."""
        name = self._cluster.name
        if name not in self._output("sacctmgr", "-nP", "show", "cluster", "format=Cluster").split():
            self._output("sacctmgr", "-i", "add", "cluster", name)

    def node_states(self) -> dict[str, str]:
        """Return each node's state as sinfo spells it, ``*`` meaning that it does not respond."""
        lines = self._output("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def wait_for_nodes(self, *, seconds: float) -> None:
        """Wait until every node can take jobs, bringing back nodes that were set down."""
        deadline = time.monotonic() + seconds
        while True:
            states = self.node_states()
            waiting = {name: state for name, state in states.items() if not _READY.match(state)}
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"Nodes did not become ready: {waiting}. See {self._layout.root}/log."
                )
            for name, state in waiting.items():
                if state.startswith(("down", "drain")) and not state.endswith("*"):
                    self._output("scontrol", "update", f"NodeName={name}", "State=RESUME")
            time.sleep(0.1)

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs that have not ended."""
        return self._output("squeue", "-h", "-o", "%A").split()

    def kill_jobs(self, job_ids: list[str]) -> None:
        """Cancel jobs, not waiting for processes that ignore SIGTERM."""
        self._output("scancel", "--signal=KILL", "--full", *job_ids)
        self._output("scancel", *job_ids)

    def _munged(self) -> Daemon:
        run = self._layout.root / "run"
        socket_path = str(self._layout.munge_socket)
        return self._daemon(
            "munged",
            "--foreground",
            f"--socket={socket_path}",
            f"--key-file={self._layout.config_directory / 'munge.key'}",
            f"--pid-file={run / 'munged.pid'}",
            f"--log-file={self._layout.root / 'log' / 'munged.log'}",
            f"--seed-file={self._layout.root / 'state' / 'munged.seed'}",
            "--force",
            ready=lambda: self._succeeds("munge", "-n", "-S", socket_path),
        )

    def _mariadbd(self) -> Daemon:
        data = self._layout.root / "mariadb"
        if not (data / "mysql").exists():
            self._initialise_database(data)
        return self._daemon(
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            self._temporary_tables(),
            f"--socket={self._layout.mariadb_socket}",
            f"--pid-file={self._layout.root / 'run' / 'mariadbd.pid'}",
            "--skip-networking",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=2",
            ready=lambda: self._succeeds(
                "mariadb-admin", "--no-defaults", f"--socket={self._layout.mariadb_socket}", "ping"
            ),
        )

    def _initialise_database(self, data: Path) -> None:
        self._output(
            "mariadb-install-db",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            self._temporary_tables(),
            "--auth-root-authentication-method=socket",
            "--auth-root-socket-user=root",
            "--skip-test-db",
        )

    def _temporary_tables(self) -> str:
        """Return where temporary tables are: in /tmp another one that starts removes them."""
        return f"--tmpdir={self._layout.root / 'run'}"

    def _slurmdbd(self) -> Daemon:
        return self._daemon(
            "slurmdbd", "-D", ready=self._listening("slurmdbd", self._cluster.dbd_port)
        )

    def _slurmctld(self) -> Daemon:
        return self._daemon(
            "slurmctld", "-D", ready=lambda: self._succeeds("scontrol", "ping", expect="UP")
        )

    def _slurmd(self, node: str) -> Daemon:
        host, port = self._cluster.nodes[node]
        # Else it starts the step daemon of the path that it was built for.
        stepd = ["-d", str(self._root.commands / "slurmstepd")] if self._root else []
        return self._daemon(
            "slurmd",
            "-D",
            *("-N", node),
            *stepd,
            name=f"slurmd-{node}",
            host=host,
            ready=self._listening(f"slurmd-{node}", port),
        )

    def _slurmrestd(self) -> Daemon:
        port = self._cluster.restd_port
        # It ends when a plugin for slurmdbd finds no accounting (seen with 22.05 and 24.11).
        alone = "openapi/v0.0.38" if self._is_before_23() else "slurmctld"
        plugins = [] if self._cluster.accounting else ["-s", alone]
        return self._daemon(
            "slurmrestd",
            *("-a", "rest_auth/jwt", *plugins),
            # It refuses root and SlurmUser (slurmrestd(8)), and since 26.05 nobody, too.
            *("-u", "daemon", "-g", "daemon"),
            f"127.0.0.1:{port}",
            ready=self._listening("slurmrestd", port),
            more={"SLURM_JWT": "daemon"},
        )

    def _is_before_23(self) -> bool:
        return int(self.version().partition(".")[0]) < 23

    def _daemon(
        self,
        program: str,
        *arguments: str,
        ready: Callable[[], bool],
        name: str = "",
        host: Host | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Daemon:
        name = name or program
        entering = (host or self._cluster.controller_host).entering
        return Daemon(
            name=name,
            argv=[*entering, self._require(program), *arguments],
            environment={**self._environment, **(more or {})},
            record=self._layout.record(name),
            output=self._layout.output(name),
            ready=ready,
        )

    def _run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [
                    *self._cluster.controller_host.entering,
                    self._require(argv[0]),
                    *argv[1:],
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{error}. See {self._layout.root}/log.") from error

    def _output(self, *argv: str) -> str:
        done = self._run(*argv)
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise ClusterError(f"{' '.join(argv)} failed ({done.returncode}): {words}")
        return done.stdout

    def _succeeds(self, *argv: str, expect: str = "") -> bool:
        done = self._run(*argv)
        return done.returncode == 0 and expect in done.stdout

    def _listening(self, name: str, port: int) -> Callable[[], bool]:
        return lambda: listens(self._layout.record(name), port)

    def _require(self, program: str) -> str:
        path = (self._root and self._root.program(program)) or find_program(program)
        if path is None:
            raise ClusterError(f"{program} is not installed; `cluster up` as root installs it.")
        return path
