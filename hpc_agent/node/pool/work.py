"""The call by which the agent tells a supervisor what to do: ``POST /_hpc/pool/work``.

It is made by a process of its own, since it needs threads, and the supervisor forks. One call waits
at the agent; the next is made when the supervisor has done what was answered, so that it tells of
that. What changes meanwhile, and is not told by the next one within a second, is told by another
call that does not wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from typing import Any, Dict, NoReturn, Optional

from .. import signals
from ..child import death_with
from ..job_files import parsed
from ..journal import log
from ..relay_client import NoAnswer, NotSent, RelayClient, Request
from ..tokens import TOKEN_HEADER
from .descriptors import close_all_but
from .messages import Closed, Message, receive, receive_now, send

PATH = "/_hpc/pool/work"
WAIT_SECONDS = 25
LARGEST_ANSWER = 8 << 20
_PATIENCE = 1.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 15.0
# What is passed on with an answer, or in its stead.
REFUSED = "refused"
WAS_LEAVING = "was_leaving"


class Work:
    """The supervisor's end of the process that calls."""

    def __init__(self, relay_file: str, token: str) -> None:
        self._relay_file = relay_file
        self._token = token
        self._said: Optional[Message] = None
        self._begin()

    def tell(self, state: Message) -> None:
        """Say what this node has, if it is not what was said last."""
        if state != self._said:
            self._said = state
            with contextlib.suppress(Closed):  # its end is seen where it is waited for
                send(self._link, state)

    def answer(self) -> Optional[Message]:
        """Return the agent's next answer, None when there is none yet."""
        try:
            return receive_now(self._link)
        except Closed:
            return None

    def has_ended(self, pid: int) -> bool:
        """Note the end of a process, and start another; False when it is none of these."""
        if pid != self._pid:
            return False
        log("the process that calls the agent has ended: starting another")
        self._link.close()
        state, self._said = self._said, None
        self._begin()
        if state is not None:
            self.tell(state)
        return True

    def end(self) -> None:
        """End the process."""
        self._link.close()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _begin(self) -> None:
        self._link, its = socket.socketpair()
        die_with = death_with(os.getpid())
        self._pid = os.fork()
        if self._pid == 0:
            die_with()
            close_all_but([its.fileno()])
            _Caller(its, RelayClient(self._relay_file), self._token).run()
        its.close()
        signals.watch(self._link.fileno())


class _Caller:
    """The process that calls."""

    def __init__(self, link: socket.socket, client: RelayClient, token: str) -> None:
        self._link = link
        self._client = client
        self._headers = {TOKEN_HEADER: token, "Content-Type": "application/json"}
        self._changed = threading.Condition()
        self._state: Message = {}
        self._told: Message = {}
        self._answered = 0

    def run(self) -> NoReturn:
        """Call until the supervisor has closed its side."""
        try:
            self._state, _ = receive(self._link)
            for loop in (self._keep_calling, self._tell_changes):
                threading.Thread(target=loop, daemon=True).start()
            while True:
                state, _ = receive(self._link)
                with self._changed:
                    self._state = state
                    self._changed.notify_all()
        except Closed:
            pass
        os._exit(0)

    def _keep_calling(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._state["seen"] == self._answered, _PATIENCE)
            try:
                self._call(WAIT_SECONDS)
                pause = _FIRST_PAUSE
            except (NotSent, NoAnswer) as error:
                log("the agent cannot be asked for work: %s" % error)
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (of many nodes)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _tell_changes(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_told())
                if self._state["is_leaving"] == self._told.get("is_leaving"):
                    self._changed.wait_for(self._is_told, _PATIENCE)
                if self._is_told():
                    continue
            try:
                self._call(0)
            except (NotSent, NoAnswer):
                time.sleep(_PATIENCE)  # the other loop says so, and tries again as well

    def _is_told(self) -> bool:
        return {**self._state, "seen": 0} == {**self._told, "seen": 0}

    def _call(self, wait: int) -> None:
        """Make one call and pass its answer on. Raises NotSent and NoAnswer."""
        with self._changed:
            state = self._told = self._state
            self._changed.notify_all()
            body = json.dumps({**state, "wait": wait}).encode()
        try:
            answer = self._answer(body)
        except (NotSent, NoAnswer):
            with self._changed:
                self._told = {}
            raise
        with self._changed:
            self._answered = int(answer["number"])
            with contextlib.suppress(Closed):
                send(self._link, {**answer, WAS_LEAVING: state["is_leaving"]})

    def _answer(self, body: bytes) -> Dict[str, Any]:
        exchange = self._client.send(Request("POST", PATH, self._headers, body))
        content = exchange.read(LARGEST_ANSWER)
        status = exchange.response.status
        if status in (401, 403):
            self._refused()
        answer = parsed(content) if status == 200 else None
        if answer is None or type(answer.get("number")) is not int:
            words = content[:300].decode("utf-8", "replace")
            raise NoAnswer("HTTP %d %s" % (status, words))
        return answer

    def _refused(self) -> None:
        with self._changed, contextlib.suppress(Closed):
            send(self._link, {REFUSED: True})
