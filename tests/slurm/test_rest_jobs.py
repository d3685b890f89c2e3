"""Jobs in slurmrestd's JSON that are not as its documents say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.slurm import rest_jobs
from hpc_agent.slurm.rest_client import Answer
from hpc_agent.slurm.rest_submission import body, job_id_in
from hpc_agent.slurm.rest_versions import DIALECTS
from hpc_agent.slurm.scheduler import Usage
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import parse_job_id

QUEUED: Mapping[str, Any] = {
    "job_id": 17,
    "user_name": "jane",
    "user_id": 1000,
    "job_state": ["RUNNING"],
    "name": "hpc-agent:run-1",
    "command": "/work/jobs/run-1/job.sh",
    "current_working_directory": "/work/jobs/run-1",
    "submit_time": {"set": True, "infinite": False, "number": 1700000000},
}
ACCOUNTED: Mapping[str, Any] = {
    "job_id": 17,
    "name": "hpc-agent:run-1",
    "state": {"current": ["CANCELLED"], "reason": "None"},
    "time": {"submission": 1700000000, "start": 1700000001, "end": 1700000001},
    "exit_code": {"return_code": {"set": True, "number": 0}},
    "working_directory": "/work/jobs/run-1",
    "submit_line": "sbatch --parsable /work/jobs/run-1/job.sh",
    "kill_request_user": "root",
}


def test_a_job_has_its_script_and_directory() -> None:
    """By which it is known where a plugin rewrites names."""
    (job,) = rest_jobs.of_queue([QUEUED], user="jane").records
    assert job.script == "/work/jobs/run-1/job.sh"
    assert job.working_directory == "/work/jobs/run-1"


@pytest.mark.parametrize(
    ("who", "uid"), [("root", 0), ("1000", 1000), ("jane", None), (None, None)]
)
def test_accounting_says_who_cancelled(who: str | None, uid: int | None) -> None:
    """The user 0 is what a node fault has."""
    (job,) = rest_jobs.of_accounting([{**ACCOUNTED, "kill_request_user": who}]).records
    assert (job.state, job.cancelled_by) == (JobState.CANCELLED, uid)
    assert job.script == "/work/jobs/run-1/job.sh"


@pytest.mark.parametrize("unknown", [None, -2, 0])
def test_usage_has_what_was_measured_and_not_what_was_not(unknown: int | None) -> None:
    """Energy that nobody measures is null in 22.05, -2 in 24.11 and 26.05."""
    gpus = [
        {"type": "gres", "name": "gpuutil", "count": 150},
        {"type": "gres", "name": "gpumem", "count": 7 << 30},
    ]
    energy: dict[str, Any] = {"type": "energy", "name": "", "count": unknown}
    allocated = [{"type": "billing", "count": 4}, energy]
    job = {
        **ACCOUNTED,
        "tres": {"allocated": [*allocated, {"type": "gres", "name": "gpu", "count": 2}]},
        "steps": [{"tres": {"requested": {"max": gpus[1:], "total": gpus}}}],
    }
    assert rest_jobs.usage_of([job])["17"] == Usage(
        gpus=2, gpu_utilization=150, gpu_memory_bytes=7 << 30, billing=4
    )
    energy["count"] = 900
    assert rest_jobs.usage_of([job])["17"].energy_joules == 900


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "job",
        [],
        {**QUEUED, "job_id": None},
        {**QUEUED, "job_id": "seventeen"},
        {**QUEUED, "job_state": None},
        {**QUEUED, "job_state": []},
        {**QUEUED, "job_state": ""},
        {**QUEUED, "submit_time": 1e300},
        {**QUEUED, "array_job_id": 17, "array_task_string": "3,5,7,..."},
    ],
    ids=str,
)
def test_an_entry_that_cannot_be_read_is_told(odd: Any) -> None:
    """And its neighbour is read."""
    look = rest_jobs.of_queue([odd, {**QUEUED, "job_id": 18}], user="jane")
    assert [job.job_id for job in look.records] == ["18"]
    assert not look.is_complete


def test_a_user_whose_name_is_not_known_is_known_by_his_number() -> None:
    """slurmrestd sends null where its machine cannot look the name up."""
    nameless = {**QUEUED, "user_name": None, "job_id": 18}
    stranger = {**nameless, "user_id": 1001, "job_id": 19}
    look = rest_jobs.of_queue([QUEUED, nameless, stranger], user="jane")
    assert [job.job_id for job in look.records] == ["17", "18"]
    assert look.is_complete
    alone = rest_jobs.of_queue([stranger], user="jane")
    assert (alone.records, alone.is_complete) == ((), False)


def of_any_size(value: int) -> Any:
    return {"set": True, "infinite": False, "number": value}


@pytest.mark.parametrize("as_sent", [int, of_any_size])
@pytest.mark.parametrize("number", [65533, 65534, 65535])
def test_ids_that_are_no_number_of_16_bits_are_ids(
    number: int, as_sent: Callable[[int], Any]
) -> None:
    """Both dialects: as plain numbers, and as objects. A task that seems absent would be LOST."""
    array = {"job_id": as_sent(number), "task_id": as_sent(3)}
    task = {"job_id": number, "array_job_id": array["job_id"], "array_task_id": array["task_id"]}
    (queued,) = rest_jobs.controller_records({**QUEUED, **task})
    (ended,) = rest_jobs.of_accounting([{**ACCOUNTED, "array": array}]).records
    assert (queued.job_id, ended.job_id) == (f"{number}_3", f"{number}_3")


@pytest.mark.parametrize("number", [65533, 65534, 65535])
def test_user_may_have_an_id_that_is_no_number_of_16_bits(number: int) -> None:
    """And so may the job that was just submitted."""
    mine = {**QUEUED, "user_id": number}
    look = rest_jobs.of_queue([mine, {**mine, "user_name": None, "job_id": 18}], user="jane")
    assert [job.job_id for job in look.records] == ["17", "18"]
    assert job_id_in(Answer(status=200, content={"job_id": number})) == str(number)


@pytest.mark.parametrize("number", [65534, 65535, 4294967294, 4294967295, (1 << 64) - 2])
def test_plain_number_of_16_bits_may_be_none(number: int) -> None:
    """The count of restarts has 16 bits."""
    (job,) = rest_jobs.controller_records({**QUEUED, "restart_cnt": number})
    assert job.restarts == 0


@pytest.mark.parametrize("number", [4294967294, 4294967295, (1 << 64) - 1])
def test_array_may_be_none(number: int) -> None:
    """As plain numbers, "no value" of 32 bits and more is no id."""
    (job,) = rest_jobs.controller_records({**QUEUED, "array_job_id": number})
    assert job.job_id == "17"


def test_exclude_is_added_to_that_of_the_script() -> None:
    """In the words of each version; a file of nodes counts alone."""
    script = "#!/bin/sh\n#SBATCH --exclude=c1\ntrue\n"
    facts: dict[str, Any] = {"directory": Path("/w"), "name": "n", "comment": "c"}
    old = body(script, DIALECTS["v0.0.38"], **facts, exclude=["c2", "c1,c3"])
    new = body(script, DIALECTS["v0.0.45"], **facts, exclude=["c2"])
    own = body(script.replace("c1", "/nodes"), DIALECTS["v0.0.38"], **facts, exclude=["c2"])
    none = body("#!/bin/sh\ntrue\n", DIALECTS["v0.0.38"], **facts)
    assert old["job"]["exclude_nodes"] == "c1,c2,c1,c3"
    assert new["job"]["excluded_nodes"] == ["c1,c2"]
    assert own["job"]["exclude_nodes"] == "/nodes"
    assert "exclude_nodes" not in none["job"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*QUEUED, *ACCOUNTED, "set", "number", "steps"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from([*QUEUED, *ACCOUNTED, "steps", "tres", "array"]), value=JSON, other=JSON)
def test_no_json_breaks_the_reading(key: str, value: Any, other: Any) -> None:
    """No error, and no record with a broken id."""
    jobs = [{**QUEUED, key: value}, {**ACCOUNTED, key: value}, other]
    for look in (
        rest_jobs.of_queue(jobs, user="jane"),
        rest_jobs.of_controller(jobs),
        rest_jobs.of_accounting(jobs),
    ):
        assert all(parse_job_id(job.job_id) == job.job_id for job in look.records)
    rest_jobs.usage_of(jobs)
