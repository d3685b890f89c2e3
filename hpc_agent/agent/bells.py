"""The bells between the loops: rung by what a transaction changed, not by whoever changed it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial

from hpc_agent.agent.loop import Bell
from hpc_agent.store.news import Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Bells:
    """One bell for each loop that others wake."""

    serve: Bell = field(default_factory=Bell)
    submit: Bell = field(default_factory=Bell)
    watch: Bell = field(default_factory=Bell)
    cancel: Bell = field(default_factory=Bell)
    conclude: Bell = field(default_factory=Bell)
    measure: Bell = field(default_factory=Bell)
    report: Bell = field(default_factory=Bell)
    commands: Bell = field(default_factory=Bell)
    workspace: Bell = field(default_factory=Bell)
    heartbeat: Bell = field(default_factory=Bell)
    followers: Bell = field(default_factory=Bell)
    # With a thousand runs in a pool, each of their changes would be a look at all that wait.
    pools: Bell = field(default_factory=partial(Bell, rest_seconds=0.5))
    supervisors: Bell = field(default_factory=Bell)

    def ring_for(self, changed: Iterable[Topic]) -> None:
        """Wake the loops that a change concerns."""
        for topic in changed:
            for name in _CONCERNED[topic]:
                bell: Bell = getattr(self, name)
                bell.ring()

    def ring_all(self) -> None:
        """Wake all loops: what they have waited for may have come back."""
        for each in fields(self):
            bell: Bell = getattr(self, each.name)
            bell.ring()


_CONCERNED: Mapping[Topic, tuple[str, ...]] = {
    Topic.REQUEST: ("serve",),
    Topic.MESSAGE: ("report",),
    Topic.INTENT: ("submit",),
    Topic.JOB: ("watch", "cancel"),
    Topic.ENDING: ("cancel",),
    # A job that is over has made room for another.
    Topic.OVER: ("conclude", "submit", "cancel"),
    Topic.CONCLUDED: ("measure",),
    Topic.SERVER: ("workspace", "heartbeat"),
    Topic.STEP: ("followers",),
    Topic.POOL: ("supervisors", "pools"),
}
