"""Demand: which code locations somebody has asked for, and so which servers are kept.

Only locations with a time to live come into it: those of branch deployments always, those of full
deployments when ``server_ttl`` is enabled. The rules are the stock agent's
(``_get_locations_with_ttl_to_query``); unlike there, a restart forgets nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hpc_agent.config import ServerTtl

Place = tuple[str, str]

# Names in the store's table of remembered values.
DEMAND = "demand"
STOPPED = "stopped_locations"


@dataclass(frozen=True, slots=True)
class _Use:
    at: float
    is_branch: bool


class Demand:
    """What is asked for. A place is a deployment and a code location in it."""

    def __init__(self, ttl: ServerTtl, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._clock = clock
        self._uses: dict[Place, _Use] = {}
        self._waiting: Counter[Place] = Counter()
        self._uploads: set[Place] = set()
        self._checks: set[str] = set()

    def has_ttl(self, *, is_branch: bool) -> bool:
        """Whether servers of such deployments are there only on demand."""
        return is_branch or self._ttl.enabled

    def seconds(self, *, is_branch: bool) -> float:
        """Return how long a server is kept after its last request."""
        ttl = self._ttl
        return ttl.branch_deployments_seconds if is_branch else ttl.full_deployments_seconds

    def note(self, place: Place, *, is_branch: bool) -> None:
        """Somebody has asked for a location: its time starts anew."""
        if self.has_ttl(is_branch=is_branch):
            self._uses[place] = _Use(self._clock(), is_branch)

    @contextmanager
    def hold(self, place: Place, *, is_branch: bool) -> Iterator[None]:
        """Keep a location's server as long as a request is at it, and its time from then on."""
        self.note(place, is_branch=is_branch)
        self._waiting[place] += 1
        try:
            yield
        finally:
            self._waiting[place] -= 1
            self.note(place, is_branch=is_branch)

    def check(self, deployment: str) -> None:
        """The control plane wants the outdated locations of a deployment to be uploaded."""
        self._checks.add(deployment)

    def checks(self) -> frozenset[str]:
        """Return the deployments of which that was not done yet."""
        return frozenset(self._checks)

    def checked(self, deployments: frozenset[str]) -> None:
        """It is known now what there is to upload in these deployments."""
        self._checks -= deployments

    def want_upload(self, place: Place, *, is_branch: bool) -> None:
        """Keep a location's server until its definitions are uploaded."""
        self.note(place, is_branch=is_branch)
        if place in self._uses:
            self._uploads.add(place)

    def keep_uploads(self, asked: Collection[str], locations: Collection[Place]) -> None:
        """Wait for no upload of a location that is gone from a deployment that was asked for."""
        gone = {each for each in self._uploads if each[0] in asked and each not in locations}
        self._uploads -= gone

    def uploaded(self, place: Place) -> None:
        """The definitions are uploaded, or cannot be; a server's time starts with its service."""
        self._uploads.discard(place)
        if place in self._uses:
            self.note(place, is_branch=self._uses[place].is_branch)

    def wanted(self) -> set[Place]:
        """Return the places that should have a server: those with work, then the latest used."""
        now = self._clock()
        pinned = {place for place in self._uses if self._waiting[place] or place in self._uploads}
        recent = sorted(
            (now - use.at, place)
            for place, use in self._uses.items()
            if place not in pinned and now - use.at < self.seconds(is_branch=use.is_branch)
        )
        room = max(self._ttl.max_servers - len(pinned), 0)
        return pinned | {place for _, place in recent[:room]}

    def forget(self) -> None:
        """Drop what is over."""
        now = self._clock()
        self._uses = {
            place: use
            for place, use in self._uses.items()
            if self._waiting[place]
            or place in self._uploads
            or now - use.at < self.seconds(is_branch=use.is_branch)
        }
        self._waiting = +self._waiting

    def dump(self) -> str:
        """Return what a restart must not forget, as JSON."""
        return json.dumps(
            {
                "uses": [[*place, use.at, use.is_branch] for place, use in self._uses.items()],
                "uploads": sorted(self._uploads),
                "checks": sorted(self._checks),
            }
        )

    def load(self, text: str) -> None:
        """Take up what ``dump`` returned before a restart."""
        content = json.loads(text)
        for deployment, location, at, is_branch in content["uses"]:
            if self.has_ttl(is_branch=is_branch):
                self._uses.setdefault((deployment, location), _Use(at, is_branch))
        uploads = {(deployment, location) for deployment, location in content["uploads"]}
        self._uploads |= uploads & self._uses.keys()
        self._checks |= set(content["checks"])
