"""What leaves the child's process group still ends with the job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# A child that leaves a daemon behind, and many that have ended after their parents.
CHILD = """
import os, signal
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    signal.pause()
os.wait()
"""
PARENT = """
import json, os, subprocess, sys
from hpc_agent.node.descendants import adopt_orphans, descendants, end_descendants, reap_orphans

adopt_orphans()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
daemon = int(child.stdout.readline())
status = child.wait()
reap_orphans(child.pid)
before = descendants()
end_descendants(child.pid)
try:
    os.waitpid(-1, os.WNOHANG)
    children = True
except ChildProcessError:
    children = False
print(json.dumps({"daemon": daemon, "status": status, "before": before, "after": descendants(),
                  "has_children": children}))
"""


def test_daemons_are_ended_and_zombies_collected() -> None:
    """Also one in a session of its own that ignores signals."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, check=True
    )
    told, answer = done.stdout.splitlines()
    found = json.loads(answer)
    assert found["status"] == 0
    assert found["before"] == [found["daemon"]]
    assert found["after"] == []
    assert not found["has_children"]
    assert not Path("/proc", str(found["daemon"])).exists()
    assert "killing 1 processes that were left behind" in told


WAITED_FOR = """
import os, subprocess, sys
from hpc_agent.node.descendants import reap_orphans
child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
reap_orphans(child.pid)
print(child.wait())
"""


def test_exit_status_of_the_child_is_left_to_whoever_waits_for_it() -> None:
    """It is not among the orphans."""
    done = subprocess.run(
        [sys.executable, "-c", WAITED_FOR], capture_output=True, text=True, check=True
    )
    assert done.stdout == "7\n"
