"""The program of a probe job: ``node_probe.py DIRECTORY``. Standard library only, Python 3.8+.

It is copied to the work directory, with ``control_groups``, and runs on a compute node.
``question.json`` there says what to look at; the answer is ``answer.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from typing import Optional, Tuple

from control_groups import lowest_memory  # type: ignore[import-not-found]  # it lies beside this

_CONNECT_SECONDS = 5.0
_IMPORT_SECONDS = 120.0
_RUNTIMES = ("apptainer", "singularity")
_SLURM_PLACES = ("/etc/slurm", "/run/slurm/conf")
_VERSIONS = (
    "import dagster, dagster_cloud; from importlib.metadata import version; "
    "print('dagster', version('dagster') + ', dagster-cloud', version('dagster-cloud'))"
)
_REQUEST = (
    "POST /graphql HTTP/1.1\r\nHost: relay\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
)


def main() -> None:
    """Answer the question of a directory."""
    directory = sys.argv[1]
    started_at = time.time()
    with open(os.path.join(directory, "question.json"), encoding="utf-8") as file:
        question = json.load(file)
    found = {python: _user_python(python) for python in question["pythons"]}
    answer = {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "relay": {
            address: _why_not(address, question["certificate"]) for address in question["addresses"]
        },
        "tmp_free_bytes": shutil.disk_usage(tempfile.gettempdir()).free,
        "memory_limit": lowest_memory(),
        "container_runtimes": [name for name in _RUNTIMES if shutil.which(name)],
        "ignores_containers": _ignores_containers(),
        "readable_secrets": [
            path for path, inode in question["secrets"].items() if _can_read(path, inode)
        ],
        "loopback_error": _loopback_error(),
        "pythons": {python: words for python, (words, error) in found.items() if not error},
        "python_errors": {python: error for python, (_, error) in found.items() if error},
        "started_at": started_at,
        "written_at": time.time(),
    }
    target = os.path.join(directory, "answer.json")
    with open(target + ".new", "w", encoding="utf-8") as file:
        json.dump(answer, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(target + ".new", target)


def _why_not(address: str, certificate: str) -> Optional[str]:
    """Return what is wrong with the way to the relay, None when it asks for a token."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.load_verify_locations(cadata=certificate)
    context.set_alpn_protocols(["http/1.1"])
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as plain:
            secured = context.wrap_socket(plain)
            secured.sendall(_REQUEST.encode())
            status = secured.recv(64).split(b" ")[1:2]
    except (OSError, ValueError) as error:
        return str(error)
    return None if status == [b"401"] else "an answer that is not the relay's"


def _can_read(path: str, inode: int) -> bool:
    """Return whether this very file, and not another one of its name, can be read here."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_ino == inode and bool(file.read(1))
    except OSError:
        return False


def _ignores_containers() -> bool:
    """Return whether Slurm is configured here and has no oci.conf; inside a container it is not.

    Without that file Slurm has no containers (oci.conf(5)); 22.05 then runs the job outside.
    """
    places = [os.path.dirname(os.environ.get("SLURM_CONF", "")), *_SLURM_PLACES]
    found = [place for place in places if os.path.exists(os.path.join(place, "slurm.conf"))]
    return bool(found) and not os.path.exists(os.path.join(found[0], "oci.conf"))


def _loopback_error() -> Optional[str]:
    """Return what keeps a process from calling itself over 127.0.0.1."""
    try:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1)
            socket.create_connection(listening.getsockname(), _CONNECT_SECONDS).close()
    except OSError as error:
        return str(error)
    return None


def _user_python(python: str) -> Tuple[str, Optional[str]]:
    """Return the versions of dagster in a Python, or what is wrong with it."""
    try:
        done = subprocess.run(
            [python, "-c", _VERSIONS],
            capture_output=True,
            timeout=_IMPORT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return "", words[-1] if words else "exit code %d" % done.returncode
    return done.stdout.decode().strip(), None


if __name__ == "__main__":
    main()
