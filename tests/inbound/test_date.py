"""By the date of an answer agents know the clock of their control plane."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from tests.inbound.door import open_door


async def test_answer_is_dated_when_it_is_made(tmp_path: Path) -> None:
    """Not when it was asked for: a long poll is answered half a minute later."""
    async with open_door(tmp_path) as door, httpx.AsyncClient(verify=door.trust()) as client:
        asked_at = time.time()
        answer = await client.get(f"{door.url}/late")
    date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert date > asked_at + 1.5
    assert answer.headers.get_list("Date") == [answer.headers["Date"]]
