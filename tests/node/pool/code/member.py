"""What a member runs in these tests: says in a line of JSON where it is, and does as it is told."""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_PR_GET_PDEATHSIG = 2

# As the daemon of a badly written op.
_DAEMON = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True)"
_TREE = 'f() { if [ "$1" -gt 0 ]; then f $(($1 - 1)) & f $(($1 - 1)) & fi; sleep 300; }; f 9'


def say() -> None:
    numpy = sys.modules.get("numpy")
    deadly = ctypes.c_int()
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(deadly), 0, 0, 0)
    said = {
        "pid": os.getpid(),
        "guardian": os.getppid(),
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "argv": sys.argv,
        "directory": str(Path.cwd()),
        "open": [str(Path(f"/proc/self/fd/{n}").readlink()) for n in (0, 1, 2)],
        "descriptors": sorted(int(each.name) for each in Path("/proc/self/fd").iterdir())[:-1],
        "environment": dict(os.environ),
        "deadly": deadly.value,
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "cpus": sorted(os.sched_getaffinity(0)),
        "random": [random.random(), float(numpy.random.random()) if numpy else 0.0],  # noqa: S311
        "is_warm": "definitions" in sys.modules,
    }
    print(json.dumps(said), flush=True)


def take_memory(what: str) -> None:
    if what == "eat":
        eaten = bytearray(400 << 20)
        eaten[:: 1 << 12] = b"x" * len(eaten[:: 1 << 12])
    if what == "fork":  # as multiprocessing and data loaders do
        common = b"x" * (150 << 20)
        for _ in range(4):
            if os.fork() == 0:
                time.sleep(300)
        time.sleep(3)
        print(len(common), flush=True)
    time.sleep(300)


def main() -> None:
    say()
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "exit":
        print("of no consequence", file=sys.stderr)
        sys.exit(int(sys.argv[2]))
    if what == "fail":
        raise RuntimeError("gone wrong")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "wait":
        while not Path(sys.argv[2]).exists():
            time.sleep(0.05)
    if what in ("daemon", "stay"):
        words = [sys.executable, "-c", f"{_DAEMON}; time.sleep(300)"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            print(parent.stdout.readline(), end="", flush=True)
    if what == "stay":
        time.sleep(300)
    if what in ("eat", "fork"):
        take_memory(what)
    if what == "multiply":
        subprocess.run(["/bin/bash", "-c", _TREE], check=False)
    if what == "thread":
        threading.Timer(0.3, print, ["late"]).start()


if __name__ == "__main__":
    main()
