"""The node program of a pool's allocation: on each node, what starts and ends its members."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from typing import Any, Dict, Iterator, List

from .. import records, signals
from ..descendants import adopt_orphans
from ..journal import log
from ..records import Ending, exit_record, note, start_record
from ..spec import Spec, read_token, template_of
from .capacity import is_bound, node_cpus, shares, slot_environment, slots_of
from .members import Members
from .messages import Message
from .stay import Stay
from .templates import Templates
from .work import Work

_LOOK_SECONDS = 1.0
_KEY = re.compile(r"[a-z]+-[A-Za-z0-9._-]+$")


class Supervisor:
    """Has the members of one node, until there are to be none any more."""

    def __init__(self, job_dir: str, spec: Spec) -> None:
        """Read the allocation's token. Raises SpecError."""
        self._job_dir = job_dir
        self._spec = spec
        self._token = read_token(job_dir)
        self._context = records.current_context(spec.key)
        self._node = int(os.environ.get("SLURM_NODEID") or 0)

    def run(self) -> int:
        """Return when the agent, a signal or idleness has ended it, and its last member is over."""
        signals.block()
        adopt_orphans()
        self._note("start.json", start_record(self._context))
        cpus = node_cpus(os.environ)
        slots = slots_of(self._spec.slot, len(cpus), os.environ)
        log("pool %s on %s: %d slots" % (self._spec.key, self._context.hostname, slots))
        # A short name: that of a socket has 107 bytes at most, unix(7).
        directory = tempfile.mkdtemp(prefix="hpc-pool-", dir="/tmp")
        try:
            reason = self._serve(directory, cpus, slots)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        log(reason)
        ending = Ending(records.EXITED, reason=reason, exit_code=0)
        self._note("exit.json", exit_record(self._context, ending))
        return 0

    def _serve(self, directory: str, cpus: List[int], slots: int) -> str:
        slot = self._spec.slot
        of_slot = slot_environment(os.environ, slot)
        members = Members(
            os.path.dirname(self._job_dir),
            slot,
            shares(cpus, slot, slots) if is_bound(os.environ) else [],
            of_slot,
            self._spec.watch_seconds,
        )
        templates = Templates(directory, {**os.environ, **of_slot})
        work = Work(os.path.join(self._job_dir, "relay.json"), self._token)
        told = {
            "node": self._node,
            "hostname": self._context.hostname,
            "slots": slots,
            "seen": 0,
        }
        try:
            return _Turns(members, templates, work, Stay(self._spec.idle_seconds), told).run()
        finally:
            templates.drain()
            work.end()

    def _note(self, name: str, record: Dict[str, Any]) -> None:
        """Leave a record of the allocation, which is the first node's to do."""
        if self._node == 0:
            note(os.path.join(self._job_dir, name), record)


class _Turns:
    """At each signal: see what has happened, do what is asked for, tell what has changed."""

    def __init__(
        self, members: Members, templates: Templates, work: Work, stay: Stay, told: Message
    ) -> None:
        self._members = members
        self._templates = templates
        self._work = work
        self._stay = stay
        self._told = told
        self._wanted: List[str] = []

    def run(self) -> str:
        """Return why it ended, once the last member is over."""
        while self._members.held or not self._stay.may_end:
            self._tell()
            received = signals.wait(_LOOK_SECONDS)
            if received in signals.TERMINATING:
                self._stay.note_signal(received)
                self._members.end_all(received)
            self._collect()
            for answer in self._answers():
                self._follow(answer)
            self._start()
            held = self._members.held
            self._members.answer(self._offer)
            self._templates.turn(self._told["slots"] - len(held))
            self._stay.look(is_busy=bool(held))
        return self._stay.reason

    def _tell(self) -> None:
        self._work.tell(
            {
                **self._told,
                "held": self._members.held,
                "is_leaving": self._stay.is_over,
                "templates": self._templates.states(),
            }
        )

    def _answers(self) -> Iterator[Message]:
        while True:
            answer = self._work.answer()
            if answer is None:
                return
            yield answer

    def _follow(self, answer: Message) -> None:
        """Do what the agent says; what is no answer of it changes nothing."""
        self._told["seen"] = answer.get("number", self._told["seen"])
        try:
            self._stay.note_answer(answer)
            if "templates" in answer:
                self._templates.follow([template_of(each) for each in answer["templates"]])
            self._wanted = [key for key in answer.get("start", ()) if _KEY.match(key)]
            self._start()
            for key, name in answer.get("end", ()):
                self._members.end(key, name)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log("this is no answer of the agent: %r" % error)

    def _start(self) -> None:
        """Start what the latest answer names: the agent repeats only what has changed."""
        for key in self._wanted:
            if not self._stay.is_over:
                self._members.start(key)

    def _offer(self, asked: Message) -> Message:
        return self._templates.offer(template_of(asked["template"]))

    def _collect(self) -> None:
        """Wait for whatever has ended: slot programs, templates, and what these left behind."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for part in (self._members, self._templates, self._work):
                if part.has_ended(pid):
                    break
