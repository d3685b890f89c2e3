"""The templates of one node: started, started again, drained; and offered to members."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from typing import Dict, Iterable, List, Optional, Set

from ..journal import log
from ..spec import SPARE, TemplateSpec
from . import template as inside
from .mark import room
from .messages import Closed, Message
from .warm_process import WarmProcess, listener_at

WARMING = "warming"
READY = "ready"
SPARES = "spares"
FAILED = "failed"

# A member starts cold rather than wait for imports; a template that is ready forks at once, only
# later on a node that is very busy.
_WARMING_PATIENCE = 1.0
_READY_PATIENCE = 30.0
_SPARE_PATIENCE = 5.0
_FIRST_PAUSE = 15.0
_LONGEST_PAUSE = 300.0
# After that long it was well, whatever ended it.
_WELL_SECONDS = 60.0
# Runs of an older version that still wait, or of a second repository of the location.
_UNLISTED_SECONDS = 20.0


class Templates:
    """All templates of a node, by their ids."""

    def __init__(self, directory: str, environment: Dict[str, str]) -> None:
        """Keep sockets in a directory of short name; templates get these variables."""
        self._directory = directory
        self._environment = environment
        self._templates: Dict[str, Template] = {}
        self._listed: Set[str] = set()

    def follow(self, listed: Iterable[TemplateSpec]) -> None:
        """Have those that are listed; any other is drained once no member asks for it any more."""
        specs = {spec.id: spec for spec in listed}
        for spec in specs.values():
            self._have(spec)
        self._listed = set(specs)

    def offer(self, spec: TemplateSpec) -> Message:
        """Return what the slot program of a member is to know of its template."""
        return self._have(spec).offer()

    def turn(self, free_slots: int) -> None:
        """See what has become of each, and start what is missing."""
        recent = time.monotonic() - _UNLISTED_SECONDS
        for name in self._templates.keys() - self._listed:
            if self._templates[name].asked_at < recent:
                self._templates.pop(name).drain()
        for template in self._templates.values():
            template.turn(max(1, free_slots // len(self._templates)))

    def has_ended(self, pid: int) -> bool:
        """Note the end of a process; False when it is none of a template."""
        return any(template.has_ended(pid) for template in self._templates.values())

    def states(self) -> Dict[str, Message]:
        """Return what the agent is told of them."""
        return {name: template.told() for name, template in self._templates.items()}

    def drain(self) -> None:
        """End all; workers go on."""
        for template in self._templates.values():
            template.drain()

    def _have(self, spec: TemplateSpec) -> "Template":
        found = self._templates.get(spec.id)
        if found is None:
            found = self._templates[spec.id] = Template(spec, self._directory, self._environment)
        return found


class Template:
    """One template, or spares in its stead; always there, but for pauses after failures."""

    def __init__(self, spec: TemplateSpec, directory: str, environment: Dict[str, str]) -> None:
        self.asked_at = -math.inf
        self._spec = spec
        self._start = spec.start
        self._address = os.path.join(directory, spec.id)
        self._environment = {**environment, **spec.environment, **room()}
        self._processes: List[WarmProcess] = []
        self._told: Message = {}
        self._words = ""
        self._no_forks = ""
        self._is_failed = False
        self._failures = 0
        self._not_before = 0.0
        self._listener: Optional[socket.socket] = None
        self.turn(1)

    @property
    def state(self) -> str:
        """What the agent calls it."""
        if any(process.is_ready for process in self._processes):
            return SPARES if self._start == SPARE else READY
        return FAILED if self._is_failed else WARMING

    def offer(self) -> Message:
        """Return where it listens and how long that is worth a wait, or why it does not."""
        self.asked_at = time.monotonic()
        state = self.state
        if state == FAILED:
            words = "template %s failed: %s" % (self._spec.id, self._words)
            return {"address": None, "words": words}
        patience = {READY: _READY_PATIENCE, SPARES: _SPARE_PATIENCE}.get(state, _WARMING_PATIENCE)
        return {"address": self._address, "patience": patience}

    def told(self) -> Message:
        """Return what the agent is told of it."""
        first = next(iter(self._processes), None)
        return {
            "state": self.state,
            "words": self._words,
            "pid": first.pid if first else None,
            "memory_mb": self._told.get("memory_mb", 0),
            "imported_seconds": self._told.get("imported_seconds", 0.0),
        }

    def turn(self, spares: int) -> None:
        """Read what its processes say, and start those that are missing."""
        for process in list(self._processes):
            self._read(process)
        wanted = spares if self._start == SPARE else 1
        while len(self._processes) < wanted and time.monotonic() >= self._not_before:
            self._begin()

    def has_ended(self, pid: int) -> bool:
        """Note the end of one of its processes."""
        process = next((each for each in self._processes if each.pid == pid), None)
        if process is None:
            return False
        self._read(process)
        if process in self._processes:
            self._words = "its process has ended"
            self._fail(process)
        return True

    def drain(self) -> None:
        """Have no more workers of it."""
        for process in self._processes:
            process.close()
        if self._listener is not None:
            self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._address)

    def _read(self, process: WarmProcess) -> None:
        with contextlib.suppress(Closed):  # its end is seen where it is waited for
            while process in self._processes:
                told = process.told()
                if told is None:
                    return
                self._note(process, told)

    def _note(self, process: WarmProcess, told: Message) -> None:
        state = told["state"]
        if state == inside.READY:
            process.is_ready = True
            self._is_failed = False
            self._told = told
            self._words = "; ".join(filter(None, [self._no_forks, told["words"]]))
            log("template %s is ready: process %d" % (self._spec.id, process.pid))
        elif state == inside.TAKEN:
            self._forget(process)
        elif state == inside.NOT_FORKABLE:
            self._start = SPARE
            self._words = self._no_forks = told["words"]
            log(
                "template %s cannot be forked, spares replace it: %s" % (self._spec.id, self._words)
            )
            self._forget(process)
        else:
            self._words = told["words"]
            self._is_failed = True
            self._fail(process)

    def _fail(self, process: WarmProcess) -> None:
        log("template %s has failed: %s" % (self._spec.id, self._words))
        was_well = process.is_ready and time.monotonic() - process.since > _WELL_SECONDS
        self._failures = 0 if was_well else self._failures + 1
        # What was killed comes again at once; what ends again and again waits longer and longer.
        self._is_failed = self._is_failed or self._failures > 1
        pause = _FIRST_PAUSE * 2 ** min(self._failures, 20) if self._is_failed else 0.0
        self._not_before = time.monotonic() + min(pause, _LONGEST_PAUSE)
        self._forget(process)

    def _forget(self, process: WarmProcess) -> None:
        process.close()
        self._processes.remove(process)

    def _begin(self) -> None:
        try:
            listener = self._listener = self._listener or listener_at(self._address)
            self._processes.append(
                WarmProcess(self._spec, self._start, self._address, listener, self._environment)
            )
        except OSError as error:
            self._words = str(error)
            self._is_failed = True
            self._not_before = time.monotonic() + _WELL_SECONDS
            log("template %s cannot be started: %s" % (self._spec.id, error))
