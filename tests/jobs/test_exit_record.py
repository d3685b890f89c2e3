"""What jobs write into their directories is believed field by field, and stops nobody."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.jobs.exit_record import Claim, ExitRecord
from hpc_agent.node import records
from hpc_agent.node.records import Ending, JobContext

CONTEXT = JobContext(
    key="run-1", hostname="c1", slurm_job_id="17_3", restart_count=2, started_at=5.0
)
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=50)
    | st.sampled_from([10**400, -(10**400), 1 << 63, "\ud800", "\x00", "exited", "17", "SIGUSR1"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from([*ExitRecord.__dataclass_fields__, "memory_mb", "version"])


def kept(record: ExitRecord | Claim | None) -> None:
    """Store a record as SQLite and the messages to the control plane do, and read it again."""
    if record is None:
        return
    fields = asdict(record)
    fields.pop("allocation", None)
    db = sqlite3.connect(":memory:")
    row = db.execute(f"SELECT {', '.join('?' * len(fields))}", list(fields.values())).fetchone()
    db.close()
    assert list(row) == list(fields.values())
    json.dumps(asdict(record), allow_nan=False, ensure_ascii=False).encode()
    assert all(len(value) <= 8192 for value in fields.values() if isinstance(value, str))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(FIELDS, ANY))
def test_no_content_is_an_error_or_cannot_be_stored(content: dict[str, Any]) -> None:
    """Whatever the fields hold, as objects and as the text of a file."""
    outcome = {"outcome": "exited", "exit_code": 0}
    for fields in (content, {**content, **outcome}, {**outcome, "allocation": content}):
        kept(ExitRecord.parse(fields))
        kept(Claim.parse(fields))
        text = json.dumps(fields).encode()
        kept(ExitRecord.parse(text))
        kept(Claim.parse(text))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(content: bytes) -> None:
    """A file need not be text."""
    kept(ExitRecord.parse(content))
    kept(Claim.parse(content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        b'{"outcome": "exited"}',
        b'{"outcome": "exited", "exit_code": true}',
        b'{"outcome": "exited", "exit_code": 1e0}',
        b'{"outcome": "exited", "exit_code": -1}',
        b'{"outcome": "exited", "exit_code": ' + b"9" * 4000 + b"}",
        b'{"outcome": "vanished", "exit_code": 0}',
        b'{"outcome": null, "exit_code": 0}',
        b'{"outcome": ["exited"], "exit_code": 0}',
    ],
)
def test_nonsense_is_no_record(content: bytes) -> None:
    """It does not say how anything ended."""
    assert ExitRecord.parse(content) is None


def test_what_the_node_program_writes_is_read() -> None:
    """Every field, also of who wrote it."""
    ending = Ending(
        records.TERMINATED,
        reason="ended on SIGUSR1",
        signal=15,
        max_rss_kb=100,
        cpu_seconds=1.5,
        stderr_tail="Traceback:\n\tä",
        ended_on="SIGUSR1",
    )
    written = json.dumps(records.exit_record(CONTEXT, ending)).encode()
    record = ExitRecord.parse(written)
    assert record is not None
    assert (record.outcome, record.exit_code, record.signal) == ("terminated", None, 15)
    assert (record.key, record.slurm_job_id, record.restart_count) == ("run-1", "17_3", 2)
    assert (record.hostname, record.started_at) == ("c1", 5.0)
    assert (record.stderr_tail, record.reason) == ("Traceback:\n\tä", "ended on SIGUSR1")
    assert (record.max_rss_kb, record.cpu_seconds) == (100, 1.5)
    assert record.is_out_of_time
    assert record.ran


def test_nonsense_in_one_field_leaves_the_others() -> None:
    """Unknown is what cannot be."""
    content = {
        "outcome": "exited",
        "exit_code": 3,
        "signal": 10**30,
        "started_at": -1.0,
        "ended_at": float("nan"),
        "hostname": "c1\x1b[2J",
        "stderr_tail": "lost \ud800 and \x00 and " + "x" * 100_000 + "end",
        "reason": {"a": 1},
        "ended_on": "SIGUSR1; rm",
        "cpu_seconds": float("inf"),
        "max_rss_kb": True,
        "restart_count": -1,
        "slurm_job_id": 17,
        "allocation": {"cpus": "4", "memory_mb": 1 << 62, "nodes": 2},
    }
    record = ExitRecord.parse(content)
    assert record is not None
    assert (record.exit_code, record.signal) == (3, None)
    assert (record.started_at, record.ended_at) == (None, 0.0)
    assert record.hostname == "c1\ufffd[2J"
    assert record.stderr_tail.endswith("xend")
    assert (record.reason, record.ended_on) == ("", None)
    assert (record.cpu_seconds, record.max_rss_kb) == (None, None)
    assert (record.slurm_job_id, record.restart_count) == ("", 0)
    assert record.allocation is not None
    assert (record.allocation.cpus, record.allocation.nodes) == (None, 2)
    assert record.allocation.memory_bytes is None


def test_a_claim_says_whose_it_is() -> None:
    """As the node program writes it."""
    claim = Claim.parse(json.dumps(records.start_record(CONTEXT)).encode())
    assert claim == Claim(
        slurm_job_id="17_3", restart_count=2, hostname="c1", started_at=5.0, key="run-1"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"slurm_job_id": 17}',
        b'{"slurm_job_id": "17", "restart_count": "0"}',
        b'{"slurm_job_id": "17", "restart_count": -1}',
        b'{"slurm_job_id": "17\\n18"}',
        b'{"slurm_job_id": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_nonsense_is_nobodys_claim(content: bytes) -> None:
    """Nobody can say whose it is."""
    assert Claim.parse(content) is None
