"""Other versions of Slurm than this machine's own: Debian's packages of another release, unpacked.

The daemons run on this machine's own file system, so that jobs find its programs, homes and /tmp.
Only their loader and libraries come from the unpacked tree: patchelf writes its paths into each
program. A wrapper that calls the loader would not do, since slurmctld and slurmd start themselves
again by /proc/self/exe.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster_packages import find_program, install, is_known
from cluster_process import ClusterError, NoVersionError

SUITES = {"22.05": "bookworm", "24.11": "trixie", "26.05": "forky"}
"""Which release of Debian has a version of Slurm."""

_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurmdbd", "slurmrestd")
# The plugins are packages of their own since Debian 13, some already in late updates of 12.
_PLUGINS = ("slurm-wlm-basic-plugins", "slurm-wlm-jwt-plugin", "slurm-wlm-mysql-plugin")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MIRROR = "http://deb.debian.org/debian"
_SECONDS = 900

Say = Callable[[str], None]


@dataclass(frozen=True)
class Root:
    """One unpacked version; ``path`` is where it is found in the end, as its programs know it."""

    path: Path

    @property
    def libraries(self) -> Path:
        """Where its libraries and its loader are."""
        return self.path / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"

    @property
    def plugins(self) -> Path:
        """What PluginDir in slurm.conf must say."""
        return self.libraries / "slurm-wlm"

    @property
    def commands(self) -> Path:
        """A directory for PATH: Slurm's programs and nothing else of that release."""
        return self.path / "slurm"

    def program(self, name: str) -> str | None:
        """Return the path of one of its programs, None when it has none of that name."""
        found = self.commands / name
        return str(found) if found.exists() else None


def root_of(version: str) -> Root | None:
    """Return where a version is kept, None when it is that of this machine. It may be missing yet.

    ``version`` is a key of ``SUITES``, or empty for whatever this machine has.
    """
    if not version or _installed_version().startswith(f"{version}."):
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache")
    return Root(cache / "hpc-agent-slurm" / version)


def make_root(version: str, *, say: Say) -> Root | None:
    """Unpack a version unless it is there. Raises NoVersionError when it cannot be had."""
    root = root_of(version)
    if root is None:
        return None
    root.path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{root.path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.path.exists():
            say(f"unpacking Slurm {version} of Debian {SUITES[version]} into {root.path}")
            try:
                _make(root, SUITES[version], say)
            except ClusterError as error:
                raise NoVersionError(f"Slurm {version} cannot be had here: {error}") from error
    return root


def _make(root: Root, suite: str, say: Say) -> None:
    missing = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    if missing or not _KEYRING.exists():
        raise ClusterError(
            f"Slurm of Debian {suite} cannot be unpacked here: {', '.join(missing) or _KEYRING} is"
            " missing. This needs Debian, or Ubuntu with debian-archive-keyring."
        )
    if not shutil.which("patchelf"):
        install(["patchelf"], say=say)
    partial = Path(f"{root.path}.new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    downloads = partial / "apt"
    for package in _download(downloads, suite):
        _run("dpkg-deb", "-x", str(package), str(partial))
    shutil.rmtree(downloads)
    (partial / "slurm").mkdir()
    for program in _programs(partial):
        _patch(program, root, interpreter=True)
        # slurmctld is slurmctld-wlm in the packages; their scripts make the link.
        (partial / "slurm" / program.name.removesuffix("-wlm")).symlink_to(
            root.path / program.relative_to(partial)
        )
    for plugin in (partial / root.plugins.relative_to(root.path)).glob("*.so"):
        if not plugin.is_symlink():
            _patch(plugin, root, interpreter=False)
    partial.replace(root.path)


def _download(directory: Path, suite: str) -> list[Path]:
    """Fetch the packages with all they need, by an apt that knows of nothing installed."""
    for name in ("etc", "lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    source = directory / "etc" / "sources.list"
    source.write_text(f"deb [signed-by={_KEYRING}] {_MIRROR} {suite} main\n")
    options = {
        "Dir::Etc": directory / "etc",
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": directory,
        "Dir::State::status": directory / "status",
        "Dir::Cache": directory / "cache",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        # Testing and unstable are often older on mirrors than their own date allows.
        "Acquire::Check-Valid-Until": "false",
    }
    given = [f"-o{name}={value}" for name, value in options.items()]
    apt = ["apt-get", "-q", *given]
    _run(*apt, "update")
    plugins = [name for name in _PLUGINS if is_known(name, *given)]
    _run(*apt, "install", "-y", "--download-only", *_PACKAGES, *plugins)
    return sorted((directory / "cache" / "archives").glob("*.deb"))


def _programs(directory: Path) -> Iterator[Path]:
    """Yield the programs that are linked with Slurm's library."""
    for folder in ("usr/bin", "usr/sbin"):
        for path in sorted((directory / folder).iterdir()):
            if path.is_file() and not path.is_symlink() and b"libslurm" in path.read_bytes():
                yield path


def _patch(path: Path, root: Root, *, interpreter: bool) -> None:
    options = ["--set-interpreter", str(_loader(root))] if interpreter else []
    # RPATH, which also holds for the libraries of libraries; RUNPATH does not (ld.so(8)).
    search = f"{root.plugins}:{root.libraries}:{root.path}/lib/{root.libraries.name}"
    _run("patchelf", *options, "--force-rpath", "--set-rpath", search, str(path))


def _loader(root: Root) -> Path:
    name = {"aarch64": "ld-linux-aarch64.so.1"}.get(os.uname().machine, "ld-linux-x86-64.so.2")
    # Debian 12 still ships it below /lib.
    old = Path("lib") / root.libraries.name / name
    return root.path / old if (Path(f"{root.path}.new") / old).exists() else root.libraries / name


def _installed_version() -> str:
    program = find_program("slurmctld")
    if program is None:
        return ""
    done = subprocess.run([program, "-V"], capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return match[0] if match else ""


def _run(*argv: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{argv[0]} is not done after {error.timeout} s.") from error
    if done.returncode:
        ending = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ClusterError(f"{argv[0]} failed ({done.returncode}):\n{ending}")
