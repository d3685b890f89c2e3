"""A signal that ends the job is known from the moment it was sent, whoever asks."""

from __future__ import annotations

import subprocess

import pytest

from tests.relay.harness import INTERPRETERS

_BEFORE_AND_AFTER = """
import os, signal, threading
from hpc_agent.node import signals

signals.block()
seen = []

def look():
    seen.append(signals.first_terminating())

def ask():
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

ask()
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGCHLD)
ask()
assert [signals.wait(10), signals.wait(10)] == [signal.SIGTERM, signal.SIGCHLD]
assert signals.wait(0) is None
os.kill(os.getpid(), signal.SIGINT)
ask()
assert signals.wait(10) == signal.SIGINT
ask()
assert seen == [None, "SIGTERM", "SIGTERM", "SIGTERM"], seen
"""
_IN_A_FORK = """
import os, signal
from hpc_agent.node import signals

signals.block()
os.kill(os.getpid(), signal.SIGTERM)
assert signals.wait(10) == signal.SIGTERM
child = os.fork()
if not child:
    signals.block()
    before = signals.first_terminating()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    first = signals.first_terminating()
    os._exit((before, first, signals.wait(10)) != (None, "SIGINT", signal.SIGINT))
assert os.waitpid(child, 0)[1] == 0
assert signals.wait(10) == signal.SIGCHLD
"""


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("code", [_BEFORE_AND_AFTER, _IN_A_FORK], ids=["thread", "fork"])
def test_signal_is_known_before_and_after_it_was_waited_for(interpreter: str, code: str) -> None:
    done = subprocess.run(
        [interpreter, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
