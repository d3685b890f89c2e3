"""What the scheduler's commands print that is no record: logged once, and kept for `status`."""

from __future__ import annotations

import json
import logging

from hpc_agent.slurm.scheduler import Look
from hpc_agent.store import meta
from hpc_agent.store.database import Store

log = logging.getLogger(__name__)

_CHARACTERS = 300
_TEXTS = 3


class Unreadable:
    """Remembers the last texts of each command."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._texts: dict[str, list[str]] = {}

    async def note(self, command: str, look: Look) -> None:
        """Keep what an answer holds beside records; an answer without it ends what was said."""
        texts = [text[:_CHARACTERS] for text in (*look.unreadable, *look.noise)][:_TEXTS]
        if texts == self._texts.get(command, []):
            return
        self._texts[command] = texts
        if texts:
            log.warning(
                "%s prints what is no record of a job, so %s: %r",
                command,
                "nothing is concluded from what is absent"
                if look.unreadable
                else "it is put aside",
                texts,
            )
        said = json.dumps({name: each for name, each in self._texts.items() if each})
        await self._store.run(lambda db: meta.put(db, meta.UNREADABLE, said))
